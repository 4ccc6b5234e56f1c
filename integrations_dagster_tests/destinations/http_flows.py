"""Drives flows of kind `http` with answers, from the YAML of an API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from integrations_dagster.destinations.base import Flow, Pause, Remember, Request, Response
from integrations_dagster.destinations.http.destination import Http
from integrations_dagster.vocabulary import Outcome, Status

T = TypeVar("T")


def api(text: str) -> Http:
    """A destination that people call Acme."""
    return Http.from_yaml(text, "Acme")


def drive(destination: Http, flow: Flow[T], *answers: Response) -> tuple[T, list[Request | Remember | Pause]]:
    """Run a flow to its end as the engine does; gives its result and its steps.

    Raises:
        DestinationError: From the error table or from the flow.
        AssertionError: It asked for more or fewer requests than there are answers.
    """
    steps: list[Request | Remember | Pause] = []
    left = list(answers)
    try:
        step = next(flow)
        while True:
            steps.append(step)
            response = Response(0)
            if isinstance(step, Request):
                assert left, f"an unexpected request: {step.method} {step.path}"
                response = left.pop(0)
                destination.classify(step, response)
            step = flow.send(response)
    except StopIteration as end:
        assert not left, f"{len(left)} answers were not asked for"
        result: T = end.value
        return result, steps


def requests(steps: Sequence[Request | Remember | Pause]) -> list[Request]:
    return [step for step in steps if isinstance(step, Request)]


def lines(steps: Sequence[Request | Remember | Pause]) -> list[str]:
    """Method and path of each request."""
    return [f"{request.method} {request.path}" for request in requests(steps)]


def says(document: Any, status: int = 200, **headers: str) -> Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, {"content-type": "application/json", **names}, json.dumps(document).encode())


def statuses(outcomes: Sequence[Outcome | None]) -> list[Status | None]:
    return [None if outcome is None else outcome.status for outcome in outcomes]
