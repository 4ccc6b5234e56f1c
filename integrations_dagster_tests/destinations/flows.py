"""Drives a destination's flow with recorded answers, and holds both sides against the vendor's schemas."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from integrations_dagster.destinations.base import Batch, Destination, Flow, Request, Response
from integrations_dagster.vocabulary import Action, Change, Row

T = TypeVar("T")

CHECKED: Counter[str] = Counter()
"""Bodies that were held against the vendor's schemas, by operation and direction."""

MOMENT = "2026-08-01T12:00:00.000Z"


def drive(destination: Destination, flow: Flow[T], answers: Sequence[Response]) -> tuple[T, list[Request]]:
    """Run a flow to its end as the engine does: sign each request, classify its answer, then hand it in.

    Raises:
        DestinationError: From the error table or from the flow.
        AssertionError: The flow asked for more or fewer requests than there are answers.
    """
    requests: list[Request] = []
    left = list(answers)
    try:
        step = next(flow)
        while True:
            assert isinstance(step, Request), "these flows are made of requests alone"
            request = destination.sign(step)
            requests.append(request)
            check_request(request)
            assert left, f"an unexpected request: {request.method} {request.path}"
            response = left.pop(0)
            check_response(request, response)
            destination.classify(request, response)
            step = flow.send(response)
    except StopIteration as end:
        assert not left, f"{len(left)} answers were not asked for"
        result: T = end.value
        return result, requests


def first(flow: Flow[Any]) -> Request:
    """The first step of a flow, which is a request."""
    step = next(flow)
    assert isinstance(step, Request)
    return step


def body_of(request: Request) -> Any:
    """The decoded body of a request."""
    assert request.body is not None
    return json.loads(request.body)


def row(ordinal: int, match: str | None = None, action: Action = Action.UPSERT, **fields: Any) -> Row:
    """A row that is matched by `match` ("r<ordinal>@example.com")."""
    match = f"r{ordinal}@example.com" if match is None else match
    change = fields.pop("change", Change.REMOVED if action is Action.DELETE else Change.ADDED)
    payload = {} if action is Action.DELETE else fields.pop("payload", {"email": match, "firstname": f"Name {ordinal}"})
    return Row(ordinal, fields.pop("key", str(ordinal)), match, change, action, payload, **fields)


def batch(rows: Iterable[Row], *, object_: str = "contacts", match: tuple[str, ...] = ("email",)) -> Batch:
    """A batch of rows, which have one action."""
    rows = tuple(rows)
    (action,) = {r.action for r in rows}
    return Batch("crm_contacts", object_, action, match, rows, "delivery-1")


def answer(status: int, document: Any = None, **headers: str) -> Response:
    """An answer with a JSON body; keyword `retry_after` becomes the header `retry-after`."""
    body = b"" if document is None else json.dumps(document).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, {"content-type": "application/json;charset=utf-8", **names}, body)


def result(row_: Row, *, new: bool | None = True, trace: bool = True, id_: str = "", match: str = "") -> dict[str, Any]:
    """One entry of `results`."""
    entry: dict[str, Any] = {
        "id": id_ or f"9{row_.ordinal}",
        "properties": {"email": match or row_.match, "hs_object_id": id_ or f"9{row_.ordinal}"},
        "createdAt": MOMENT,
        "updatedAt": MOMENT,
        "archived": False,
    }
    if new is not None:
        entry["new"] = new
    if trace:
        entry["objectWriteTraceId"] = str(row_.ordinal)
    return entry


def error(
    category: str, message: str, context: Mapping[str, list[str]], errors: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """One entry of `errors`."""
    return {
        "status": "error",
        "category": category,
        "message": message,
        "context": dict(context),
        "errors": list(errors),
        "links": {},
    }


def invalid_email(row_: Row) -> dict[str, Any]:
    """The rejection of a row for its email."""
    message = f"Email address {row_.match} is invalid"
    embedded = json.dumps([{"isValid": False, "message": message, "error": "INVALID_EMAIL", "name": "email"}])
    return error(
        "VALIDATION_ERROR",
        f"Property values were not valid: {embedded}",
        {"objectWriteTraceId": [str(row_.ordinal)]},
        [{"message": message, "code": "INVALID_EMAIL", "context": {"propertyName": ["email"]}}],
    )


def batch_answer(results: Sequence[Any], errors: Sequence[Any] = (), status: int | None = None) -> Response:
    """The answer to a batch."""
    document: dict[str, Any] = {
        "status": "COMPLETE",
        "results": list(results),
        "startedAt": MOMENT,
        "completedAt": MOMENT,
    }
    if errors:
        document |= {"numErrors": len(errors), "errors": list(errors)}
    return answer(status or (207 if errors else 200), document, x_hubspot_correlation_id="corr-1")


def not_found(*ids: str, trace: Row | None = None) -> dict[str, Any]:
    """The error for records that do not exist."""
    context = {"ids": list(ids)}
    if trace:
        context["objectWriteTraceId"] = [str(trace.ordinal)]
    return error("OBJECT_NOT_FOUND", "Could not get some CONTACT objects, they may be deleted or not exist.", context)


# The vendor's schemas


def specs() -> Path | None:
    """The folder of the vendors' API descriptions, or None."""
    folder = os.environ.get("INTEGRATIONS_SPECS")
    return Path(folder) if folder else None


@cache
def _document(object_: str) -> dict[str, Any]:
    folder = specs()
    assert folder is not None
    document: dict[str, Any] = json.loads((folder / f"hubspot-{object_}-v3.json").read_text())
    return document


@cache
def validator(object_: str, path: str, status: str | None) -> Draft202012Validator | None:
    """The validator of an operation's request body, or of one of its answers."""
    operation = _document(object_)["paths"][path]["post"]
    holder = operation["requestBody"] if status is None else operation["responses"].get(status, {})
    media = holder.get("content", {}).get("application/json")
    if media is None:
        return None
    resource: Resource[Any] = Resource.from_contents(_document(object_), default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource(f"urn:{object_}", resource)
    schema = {"$ref": f"urn:{object_}{media['schema']['$ref']}"}
    return Draft202012Validator(schema, registry=registry)


def _fields(object_: str, path: str) -> set[str]:
    """The members that an input of an operation may have; the schemas themselves let any pass."""
    schemas = _document(object_)["components"]["schemas"]
    reference = _document(object_)["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"][
        "$ref"
    ]
    item = schemas[reference.rsplit("/", 1)[1]]["properties"]["inputs"]["items"]["$ref"].rsplit("/", 1)[1]
    return set(schemas[item]["properties"])


def check_request(request: Request) -> None:
    """Hold a request to HubSpot against its schema, where the specs are at hand."""
    if specs() is None or not request.path.startswith("/crm/v3/objects/"):
        return
    object_ = request.path.split("/")[4]
    body = body_of(request)
    schema = validator(object_, request.path, None)
    assert schema is not None
    schema.validate(body)
    known = _fields(object_, request.path)
    for entry in body["inputs"]:
        assert set(entry) <= known, f"{request.path}: unknown members {set(entry) - known}"
    CHECKED[f"{request.path.rsplit('/', 1)[1]} requests"] += 1


def check_response(request: Request, response: Response) -> None:
    """Hold an answer of these tests against its schema, so that they test what HubSpot may answer."""
    if specs() is None or not request.path.startswith("/crm/v3/objects/") or not 200 <= response.status < 300:
        return
    if response.headers.get("x-malformed"):
        return
    object_ = request.path.split("/")[4]
    schema = validator(object_, request.path, str(response.status))
    if schema is not None:
        schema.validate(response.json())
        CHECKED[f"{request.path.rsplit('/', 1)[1]} answers"] += 1
