"""Drives a destination's flow with recorded answers, and holds both sides against the vendor's schemas."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from integrations_dagster.destinations.base import Batch, Destination, Flow, Request, Response
from integrations_dagster.destinations.values import canonical_json
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
    return Row(
        ordinal,
        fields.pop("key", str(ordinal)),
        match,
        change,
        action,
        b"" if action is Action.DELETE else canonical_json(payload),
        **fields,
    )


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


@dataclass(frozen=True)
class Operation:
    """One operation of a vendor's file: the file's name, its path there, and the method in lower case."""

    file: str
    path: str
    method: str

    @classmethod
    def of(cls, request: Request) -> Operation | None:
        """The operation that a request to HubSpot is of; None where no file describes it."""
        path, method = request.path.partition("?")[0], request.method.lower()
        match path.strip("/").split("/"):
            case ["crm", "v3", "objects", object_, *_]:
                return cls(f"hubspot-{object_}-v3", path, method)
            case ["crm", "v3", "properties", _]:
                return cls("hubspot-properties-v3", "/crm/v3/properties/{objectType}", method)
            case ["crm", "v3", "owners"]:
                # HubSpot publishes the dated path alone; parameters and answers are those of v3.
                return cls("hubspot-owners-2025-09", "/crm/owners/2025-09", method)
        return None

    @property
    def document(self) -> dict[str, Any]:
        return _document(self.file)

    @property
    def description(self) -> dict[str, Any]:
        """What the file says of the operation."""
        found: dict[str, Any] = self.document["paths"][self.path][self.method]
        return found


@cache
def _document(file: str) -> dict[str, Any]:
    folder = specs()
    assert folder is not None
    document: dict[str, Any] = json.loads((folder / f"{file}.json").read_text())
    return document


@cache
def validator(operation: Operation, status: str | None) -> Draft202012Validator | None:
    """The validator of an operation's request body, or of one of its answers."""
    described = operation.description
    holder = described["requestBody"] if status is None else described["responses"].get(status, {})
    media = holder.get("content", {}).get("application/json")
    if media is None:
        return None
    resource: Resource[Any] = Resource.from_contents(operation.document, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource(f"urn:{operation.file}", resource)
    schema = {"$ref": f"urn:{operation.file}{media['schema']['$ref']}"}
    return Draft202012Validator(schema, registry=registry)


def _fields(operation: Operation) -> set[str]:
    """The members that an input of an operation may have; the schemas themselves let any pass."""
    schemas = operation.document["components"]["schemas"]
    reference = operation.description["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    item = schemas[reference.rsplit("/", 1)[1]]["properties"]["inputs"]["items"]["$ref"].rsplit("/", 1)[1]
    return set(schemas[item]["properties"])


def _check_query(operation: Operation, request: Request) -> None:
    """Hold the query of a GET against the parameters that the file names."""
    parameters = {p["name"]: p["schema"] for p in operation.description["parameters"] if p["in"] == "query"}
    for name, text in parse_qsl(request.path.partition("?")[2], strict_parsing="?" in request.path):
        assert name in parameters, f"{request.path}: unknown parameter {name}"
        kind = parameters[name]["type"]
        # A parameter with several values is written with commas (style form, without explode) or as one text.
        value = text if kind in ("string", "array") else json.loads(text)
        if kind != "array":
            Draft202012Validator(parameters[name]).validate(value)


def check_request(request: Request) -> None:
    """Hold a request to HubSpot against its schema, where the specs are at hand."""
    operation = Operation.of(request)
    if specs() is None or operation is None:
        return
    name = operation.path.rsplit("/", 1)[1]
    if operation.method == "get":
        assert request.body is None
        _check_query(operation, request)
        CHECKED[f"{name} requests"] += 1
        return
    body = body_of(request)
    schema = validator(operation, None)
    assert schema is not None
    schema.validate(body)
    known = _fields(operation)
    for entry in body["inputs"]:
        assert set(entry) <= known, f"{request.path}: unknown members {set(entry) - known}"
    CHECKED[f"{name} requests"] += 1


def check_response(request: Request, response: Response) -> None:
    """Hold an answer of these tests against its schema, so that they test what HubSpot may answer."""
    operation = Operation.of(request)
    if specs() is None or operation is None or not 200 <= response.status < 300:
        return
    if response.headers.get("x-malformed"):
        return
    schema = validator(operation, str(response.status))
    if schema is not None:
        schema.validate(response.json())
        CHECKED[f"{operation.path.rsplit('/', 1)[1]} answers"] += 1
