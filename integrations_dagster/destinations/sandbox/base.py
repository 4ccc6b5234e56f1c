"""What the destinations that only the sandbox speaks have in common: declaration, errors, rows as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar

from integrations_dagster.destinations.base import NO_RECORD, Batch, Destination, Limits, Request, Response, Usage
from integrations_dagster.destinations.error_table import ErrorEntry, Problem, asked_wait, raise_for, shorten
from integrations_dagster.destinations.errors import (
    PoisonedBatch,
    Refused,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.destinations.usage import usage
from integrations_dagster.destinations.values import json_string, json_value
from integrations_dagster.vocabulary import Action, Misconfigured, Mode, Outcome, Status

MAX_ROWS = 500
"""Rows of a request unless `batch:` says less: our choice."""
MAX_BYTES = 1_000_000
"""Bytes of a body: what the sandbox takes unless it is configured otherwise."""
NO_ANSWER = "NO_ANSWER"
UNKNOWN_RECORD = "UNKNOWN_RECORD"
"""The sandbox's own code of a row whose key has no record."""
_NAME = re.compile(r"[\w.-]+")

TABLE: tuple[ErrorEntry, ...] = (
    ErrorEntry(
        "401",
        Unauthorized,
        "The sandbox does not accept the token.",
        "Launch the run again; the token is that of the sandbox's own file.",
    ),
    ErrorEntry("413", TooLarge, "The request is larger than the sandbox takes."),
    ErrorEntry("429", Throttled, "Too many requests for the account's limit."),
    ErrorEntry("400", PoisonedBatch, "The sandbox refused the batch for what is in it.", code="BAD_BATCH"),
    ErrorEntry(
        "422",
        Refused,
        "The idempotency key was used for another body.",
        "This is a fault of this project: a batch that is sent again must have the same bytes. Report it.",
        code="IDEMPOTENCY_KEY_REUSED",
    ),
    ErrorEntry("408", Unavailable, "The sandbox did not receive the request in time."),
    ErrorEntry(
        "4xx",
        Refused,
        "The sandbox refused the request.",
        "The sandbox and this package may be of different versions: stop the sandbox, and start it again.",
    ),
    ErrorEntry("5xx", Unavailable, "The sandbox is out of order."),
    ErrorEntry(
        "3xx", Refused, "The address answers with a redirect, which is not followed.", "Use the sandbox's own address."
    ),
    ErrorEntry("1xx", Unavailable, "The answer cannot be understood."),
)


class SandboxDestination(Destination):
    """An API that the sandbox alone speaks, to rehearse what no destination that is built has."""

    auth: ClassVar[str] = "bearer"
    sandbox_only: ClassVar[bool] = True
    gzip: ClassVar[bool] = True
    as_text: ClassVar[frozenset[type]] = frozenset({str, Decimal, date})

    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:  # noqa: ARG002
        if not _NAME.fullmatch(object_):
            raise Misconfigured(
                f"{self.label}: object {object_!r} cannot be part of an address.",
                "Give it a name of letters, digits, `.`, `_` and `-`.",
            )
        if mode not in self.modes:
            raise Misconfigured(
                f"{self.label}: {object_} cannot be delivered in mode {mode.value!r}.",
                f"Possible modes: {', '.join(sorted(m.value for m in self.modes))}.",
            )
        if match:
            raise Misconfigured(
                f"{self.label} takes no match: it is told the primary key.",
                "Leave `match` out; to tell it another value, add it to `fields`.",
            )

    def limits(self, object_: str, action: Action) -> Limits:  # noqa: ARG002
        return Limits(rows=MAX_ROWS, bytes=MAX_BYTES)

    def match_normalization(self, object_: str, match_field: str) -> str:  # noqa: ARG002
        return "exact"

    def encode(self, value: Any) -> Any:
        """JSON that keeps the value exact; see `values.json_value`."""
        return json_value(value)

    def identify(self) -> None:
        """None: the base URL is all there is to know."""

    def usage(self, response: Response) -> tuple[Usage, ...]:
        return usage(response.headers)

    def classify(self, request: Request, response: Response) -> None:  # noqa: ARG002
        if 200 <= response.status < 300:
            return
        code, message = error_of(_decoded(response))
        problem = Problem(
            response.status,
            (code,) if code else (),
            message,
            request_id=shorten(self.request_id(response)),
            wait=asked_wait(response.headers),
        )
        raise_for(TABLE, "The sandbox", problem)


def rows_json(batch: Batch) -> bytes:
    """The rows of a batch as a JSON array of `{"key", "record"}`."""
    rows = [b'{"key":%b,"record":%b}' % (json_string(row.key), row.encoded or b"{}") for row in batch.rows]
    return b"[" + b",".join(rows) + b"]"


def document_of(response: Response) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        Unavailable: It is none, or only a part of one.
    """
    document = _decoded(response)
    if isinstance(document, dict):
        return document
    raise unreadable(response, f"{len(response.body)} bytes that are no JSON object")


def results_of(response: Response, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The `results` of an answer.

    Raises:
        Unavailable: There are none, or in an unknown shape.
    """
    results = document.get("results")
    if isinstance(results, list) and all(isinstance(entry, dict) for entry in results):
        return results
    raise unreadable(response, "`results` in an unknown shape")


def unreadable(response: Response, what: str) -> Unavailable:
    """The error for an answer that cannot be read: what the request did is unknown."""
    request_id = response.headers.get("x-request-id", "")
    return Unavailable(f"The sandbox answered {response.status} with {what}.", "UNREADABLE_ANSWER", request_id)


def outcome_of(result: dict[str, Any], request_id: str) -> Outcome | None:
    """What one entry of `results` says of its row; None where it says nothing."""
    if isinstance(result.get("error"), dict):
        code, message = error_of(result)
        if code == UNKNOWN_RECORD:
            reason = "The sandbox has no record with the row's key, and mode update creates none. It is tried again."
            return Outcome(Status.REJECTED, None, NO_RECORD, reason, request_id)
        return Outcome(Status.REJECTED, None, code or "REJECTED", message or "The sandbox gave no reason.", request_id)
    made = {"created": Status.CREATED, "updated": Status.UPDATED}.get(str(result.get("status")))
    record = result.get("id")
    if result.get("status") == "deleted":
        # Where there was no record, what was wanted is so.
        return Outcome(Status.DELETED, record if isinstance(record, str) else None, request_id=request_id)
    if made is None or not isinstance(record, str) or not record:
        return None
    return Outcome(made, record, request_id=request_id)


def error_of(document: Any) -> tuple[str, str]:
    """Code and message of an `error`, each of which may be ""."""
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return "", ""
    code, message = error.get("code"), error.get("message")
    return (
        shorten(code, 64) if isinstance(code, str) else "",
        shorten(message) if isinstance(message, str) else "",
    )


def _decoded(response: Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
