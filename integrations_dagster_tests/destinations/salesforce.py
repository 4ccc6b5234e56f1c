"""Answers as Salesforce gives them, and what drives a flow that pauses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from integrations_dagster.destinations.base import Batch, Flow, Pause, Request, Response
from integrations_dagster.destinations.salesforce.destination import Salesforce
from integrations_dagster.vocabulary import Action, Row
from integrations_dagster_tests.destinations.flows import row

T = TypeVar("T")
SALESFORCE = Salesforce()
ROOT = "/services/data/v66.0"
FIELD = "Customer_Id__c"


def customer(ordinal: int, action: Action = Action.UPSERT, match: str | None = None, **fields: Any) -> Row:
    """A row that is matched by its customer id ("C-<ordinal>")."""
    if action is not Action.DELETE:
        fields.setdefault("payload", {"LastName": f"Name {ordinal}"})
    return row(ordinal, f"C-{ordinal}" if match is None else match, action, **fields)


def batch(rows: Sequence[Row], *match: str, object_: str = "Contact") -> Batch:
    """A batch of rows, matched by `FIELD` unless told otherwise."""
    return Batch("contacts", object_, rows[0].action, match or (FIELD,), tuple(rows), "delivery-1")


def record_id(ordinal: int) -> str:
    """An id in Salesforce's form."""
    return f"003{ordinal:012d}AAA"


def success(ordinal: int, *, created: bool | None = None) -> dict[str, Any]:
    """A result of a row that succeeded; with `created` as an upsert tells it."""
    told = {} if created is None else {"created": created}
    return {"id": record_id(ordinal), "success": True, "errors": [], **told}


def failure(code: str, message: str = "refused", *fields: str) -> dict[str, Any]:
    """A result of a row that failed."""
    return {"success": False, "errors": [{"statusCode": code, "message": message, "fields": list(fields)}]}


LOCKED = failure("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 1 records: 0015g00000ABC")


def answer(document: Any, status: int = 200, **headers: str) -> Response:
    """An answer with a JSON body; keyword `sforce_limit_info` becomes the header `sforce-limit-info`."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, {"content-type": "application/json;charset=UTF-8", **names}, json.dumps(document).encode())


def refusal(status: int, code: str, message: str, *fields: str) -> Response:
    """An error of a whole request."""
    entry: dict[str, Any] = {"message": message, "errorCode": code}
    return answer([entry | ({"fields": list(fields)} if fields else {})], status)


def found(*values: tuple[str, int], field: str = FIELD, following: str = "", total: int | None = None) -> Response:
    """The records of a query: value of the match field, and the record's number; `total`: of all pages."""
    more = {"nextRecordsUrl": following} if following else {}
    records = [{"attributes": {"type": "Contact"}, "Id": record_id(n), field: value} for value, n in values]
    return answer(
        {"totalSize": len(records) if total is None else total, "done": not following, "records": records} | more
    )


def drive(flow: Flow[T], answers: Sequence[Response]) -> tuple[T, list[Request], list[float]]:
    """Run a flow to its end as the engine does; also returns its requests and the seconds of its pauses."""
    requests: list[Request] = []
    pauses: list[float] = []
    left = list(answers)
    try:
        step = next(flow)
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = flow.send(Response(0))
                continue
            assert isinstance(step, Request)
            requests.append(step)
            assert left, f"an unexpected request: {step.method} {step.path}"
            response = left.pop(0)
            SALESFORCE.classify(step, response)
            step = flow.send(response)
    except StopIteration as end:
        assert not left, f"{len(left)} answers were not asked for"
        result: T = end.value
        return result, requests, pauses


def records_of(request: Request) -> list[dict[str, Any]]:
    """The records of a body."""
    assert request.body is not None
    document = json.loads(request.body)
    assert document["allOrNone"] is False
    records: list[dict[str, Any]] = document["records"]
    return records
