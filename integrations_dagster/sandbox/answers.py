"""The answer to a request, before it becomes bytes on a socket, and the bodies that HubSpot's errors have."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(slots=True)
class Answer:
    """One answer.

    Attributes:
        status: HTTP status.
        body: Encoded body.
        headers: Headers beside content type and length.
        media_type: Content type.
        failed_rows: Rows that the answer reports as failed.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json;charset=utf-8"
    failed_rows: int = 0


def json_answer(status: int, value: Any, *, failed_rows: int = 0) -> Answer:
    """An answer whose body is the value as JSON."""
    return Answer(status, json.dumps(value, separators=(",", ":")).encode(), failed_rows=failed_rows)


class HubSpotError(Exception):
    """HubSpot refuses a whole request.

    Args:
        status: HTTP status.
        category: HubSpot's category ("VALIDATION_ERROR").
        message: For a person.
        errors: Details: message, code, context.
        context: Names to lists of values.
        extra: Further members of the body.
        headers: Further headers.
    """

    def __init__(
        self,
        status: int,
        category: str,
        message: str,
        errors: Sequence[Mapping[str, Any]] = (),
        context: Mapping[str, Sequence[str]] | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.category = category
        self.message = message
        self.errors = list(errors)
        self.context = dict(context or {})
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def answer(self, rows: int = 0) -> Answer:
        """The error as HubSpot words it."""
        body: dict[str, Any] = {
            "status": "error",
            "message": self.message,
            "correlationId": str(uuid.uuid4()),
            "category": self.category,
        }
        if self.errors:
            body["errors"] = self.errors
        if self.context:
            body["context"] = self.context
        answer = json_answer(self.status, body | self.extra, failed_rows=rows)
        answer.headers = {"x-hubspot-correlation-id": body["correlationId"], **self.headers}
        return answer


def detail(message: str, code: str, property_: str) -> dict[str, Any]:
    """One entry of `errors`: what is wrong with a property."""
    return {"message": message, "code": code, "context": {"propertyName": [property_]}}


def row_error(
    category: str,
    message: str,
    errors: Sequence[Mapping[str, Any]] = (),
    *,
    context: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """A failed row of a 207."""
    return {
        "status": "error",
        "category": category,
        "message": message,
        "errors": list(errors),
        "context": dict(context),
        "links": {},
    }


def timestamp() -> str:
    """Now, as HubSpot writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
