"""The destinations' flows against the sandbox over HTTP: both sides mean the same by every answer."""

from __future__ import annotations

import gzip
import time
import uuid
from typing import Any, TypeVar

import pytest
import requests

from integrations_dagster.destinations.base import (
    Batch,
    Destination,
    Flow,
    Pause,
    Remember,
    Request,
    Response,
)
from integrations_dagster.destinations.errors import PoisonedBatch, Refused, TooLarge
from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.destinations.sandbox.insert import SandboxInsert, SandboxInsertKeyed
from integrations_dagster.destinations.sandbox.jobs import SandboxJobs
from integrations_dagster.destinations.values import canonical_json
from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.vocabulary import ABSENT, Action, Change, Row, Status
from integrations_dagster_tests.sandbox.conftest import Api

T = TypeVar("T")


class Line:
    """Drives flows to the sandbox, one request at a time, and keeps what they ask to be remembered."""

    def __init__(self, api: Api, destination: Destination) -> None:
        self._api = api
        self.destination = destination
        own = destination.sandbox_path
        self._url = f"{api.endpoint.url}/{own}/shop" if own else api.endpoint.url
        self.remembered: list[str] = []

    def run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                step = flow.send(self._step(step))
        except StopIteration as end:
            result: T = end.value
            return result

    def _step(self, step: Request | Remember | Pause) -> Response:
        if isinstance(step, Remember):
            self.remembered.append(step.reference)
        elif isinstance(step, Pause):
            time.sleep(step.seconds)
        else:
            response = self._send(self.destination.sign(step))
            self.destination.classify(step, response)
            return response
        return Response(0)

    def _send(self, request: Request) -> Response:
        headers, body = dict(request.headers), request.body
        if self.destination.gzip and body:
            headers["Content-Encoding"], body = "gzip", gzip.compress(body, 1)
        answer: requests.Response = self._api.session.request(
            request.method, self._url + request.path, headers=headers, data=body, timeout=20
        )
        return Response(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)


def rows_of(*keys: str, action: Action = Action.CREATE, **more: Any) -> tuple[Row, ...]:
    rows = []
    for i, key in enumerate(keys):
        payload = {"n": key, **more}
        rows.append(Row(i, key, key, Change.ADDED, action, canonical_json(payload)))
    return tuple(rows)


def batch_of(rows: tuple[Row, ...], key: str | None = None, match: tuple[str, ...] = ()) -> Batch:
    object_ = "contacts" if match else "orders"
    return Batch("orders", object_, rows[0].action, match, rows, key or uuid.uuid4().hex)


@pytest.mark.parametrize("destination", [SandboxInsert(), SandboxInsertKeyed(), SandboxJobs()], ids=lambda d: d.kind)
def test_rows_arrive_and_rejected_ones_are_told(api: Api, sandbox: SandboxClient, destination: Destination) -> None:
    sandbox.faults([{"fault": {"kind": "reject_rows", "with": "bad", "code": "NO", "message": "no"}}])
    line = Line(api, destination)
    outcomes = line.run(destination.deliver(batch_of(rows_of("a", "bad", "ü"))))
    assert [(o.status, o.code) for o in outcomes] == [
        (Status.CREATED, ""),
        (Status.REJECTED, "NO"),
        (Status.CREATED, ""),
    ]
    assert all(o.request_id.startswith("req-") for o in outcomes)
    assert {entry["id"]: entry["key"] for entry in sandbox.inserted("shop", "orders")} == {
        outcomes[0].destination_id: "a",
        outcomes[2].destination_id: "ü",
    }


def test_a_batch_sent_twice(api: Api, sandbox: SandboxClient) -> None:
    batch = batch_of(rows_of("a"))
    for destination, times in ((SandboxInsert(), 2), (SandboxInsertKeyed(), 3)):
        for _ in range(2):
            assert Line(api, destination).run(destination.deliver(batch))[0].status is Status.CREATED
        assert sandbox.insert_counts("shop", "orders") == {"a": times}
    with pytest.raises(Refused):
        Line(api, SandboxInsertKeyed()).run(SandboxInsertKeyed().deliver(batch_of(rows_of("b"), batch.idempotency_key)))


@pytest.mark.parametrize("destination", [SandboxInsert(), SandboxInsertKeyed()], ids=lambda d: d.kind)
def test_refused_batches(api: Api, sandbox: SandboxClient, destination: Destination) -> None:
    with pytest.raises(PoisonedBatch):
        Line(api, destination).run(destination.deliver(batch_of(rows_of("a", x="poison"))))
    sandbox.configure(insert_bytes=100)
    with pytest.raises(TooLarge):
        Line(api, destination).run(destination.deliver(batch_of(rows_of("a", x="y" * 200))))
    assert sandbox.inserted("shop", "orders") == []


def test_a_job_that_fails_tells_what_it_has_not_reached(api: Api, sandbox: SandboxClient) -> None:
    jobs = SandboxJobs()
    rows = (*rows_of("a"), *rows_of("b", x="poison"), *rows_of("c"))
    outcomes = Line(api, jobs).run(jobs.deliver(batch_of(rows)))
    assert [(o.status, o.code) for o in outcomes] == [
        (Status.CREATED, ""),
        (Status.REJECTED, "BAD_ROW"),
        (Status.UNSENT, ABSENT),
    ]
    assert sandbox.insert_counts("shop", "orders") == {"a": 1}


def test_a_job_is_resumed_by_another(api: Api, sandbox: SandboxClient) -> None:
    jobs, batch = SandboxJobs(), batch_of(rows_of(*(f"k{i}" for i in range(450))))
    line = Line(api, jobs)
    flow = jobs.deliver(batch)
    step = next(flow)
    while not isinstance(step, Remember):
        step = flow.send(line._step(step))
    # Here the process dies.
    outcomes = Line(api, jobs).run(jobs.resume(batch, step.reference))
    assert {o.status for o in outcomes} == {Status.CREATED}
    assert set(sandbox.insert_counts("shop", "orders").values()) == {1}
    assert len(sandbox.insert_counts("shop", "orders")) == 450
    assert {o.code for o in line.run(jobs.resume(batch, "job-0"))} == {"UNKNOWN_JOB"}


def test_hubspot_creates_and_looks_up(api: Api, sandbox: SandboxClient) -> None:
    hubspot = HubSpot()
    line = Line(api, hubspot)

    def contact(ordinal: int, email: str) -> Row:
        payload = {"email": email, "firstname": f"N{ordinal}"}
        return Row(ordinal, str(ordinal), email, Change.ADDED, Action.CREATE, canonical_json(payload))

    api.upsert("old@example.com")
    rows = (contact(1, "new@example.com"), contact(2, "old@example.com"), contact(3, "no email"))
    outcomes = line.run(hubspot.deliver(batch_of(rows, match=("email",))))
    assert [(o.status, o.code) for o in outcomes] == [
        (Status.CREATED, ""),
        (Status.REJECTED, "CONFLICT"),
        (Status.REJECTED, "INVALID_EMAIL"),
    ]
    assert outcomes[0].destination_id in {record["id"] for record in sandbox.records("contacts")}
    found = line.run(hubspot.verify(batch_of((*rows[:2], contact(4, "none@example.com")), match=("email",))))
    assert [o and o.status for o in found] == [Status.CREATED, Status.CREATED, None]
    assert found[0] is not None
    assert found[0].destination_id == outcomes[0].destination_id
