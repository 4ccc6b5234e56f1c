"""Webhook: batches of rows posted as JSON to a URL, signed as Standard Webhooks (www.standardwebhooks.com) says."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar

from integrations_dagster.destinations.base import (
    Batch,
    Destination,
    Flow,
    Limits,
    Repeat,
    Request,
    Response,
    Usage,
)
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
from integrations_dagster.vocabulary import Action, Change, Misconfigured, Mode, Outcome, Row, Status

MAX_ROWS = 500
"""Rows of a delivery unless `batch:` says less: our choice; about 200 KB of ordinary rows, little work to take."""
MAX_BYTES = 1_000_000
"""Bytes of a body: nginx, which stands before many receivers, refuses more than 1 MiB unless told otherwise
(nginx.org, client_max_body_size)."""

TABLE: tuple[ErrorEntry, ...] = (
    ErrorEntry(
        "401",
        # Not at once: where the target has `auth`, its token may have expired.
        Unauthorized,
        "The receiver does not accept the delivery's signature or credentials.",
        "Check that the target's `secret` and `auth` are the receiver's, and that the clocks of both machines are "
        "right.",
    ),
    ErrorEntry(
        "403",
        Refused,
        "The receiver does not let this sender in.",
        "Check the target's `secret`, and what the receiver asks for (an allowed address, a token in the URL).",
    ),
    ErrorEntry("404", Refused, "Nothing receives at this URL.", "Check `base_url` of the target."),
    ErrorEntry(
        "410",
        Refused,
        "The receiver has closed this URL for good.",
        "Remove the sync, or set `base_url` to the new URL.",
    ),
    ErrorEntry("413", TooLarge, "The delivery is larger than the receiver takes."),
    ErrorEntry("429", Throttled, "The receiver asks to be sent less."),
    ErrorEntry("400", PoisonedBatch, "The receiver refused the delivery for what is in it."),
    ErrorEntry("422", PoisonedBatch, "The receiver refused the delivery for what is in it."),
    ErrorEntry("408", Unavailable, "The receiver did not get the delivery in time."),
    ErrorEntry(
        "4xx",
        Refused,
        "The receiver refused the delivery.",
        "Look the status up in the receiver's documentation or log.",
    ),
    ErrorEntry("5xx", Unavailable, "The receiver is out of order."),
    ErrorEntry(
        "3xx",
        Refused,
        "The URL answers with a redirect, which is not followed.",
        "Set `base_url` to the URL that the redirect names.",
    ),
    ErrorEntry("1xx", Unavailable, "The answer cannot be understood."),
)


class Webhook(Destination):
    """A URL that takes deliveries of rows.

    A delivery is repeated under the same `webhook-id` with the same body, and each row carries its primary key, so that
    a receiver that stores the last record of each key needs nothing else; one that counts keeps the ids.

    Args:
        secrets: "secret": "whsec_" and base64, or any other text, whose UTF-8 bytes are the key. Without it deliveries
            are not signed.
        clock: Seconds since the epoch, read once for each sending.

    Raises:
        Misconfigured: The secret begins with "whsec_" and is not base64.
    """

    kind: ClassVar[str] = "webhook"
    label: ClassVar[str] = "Webhook"
    modes: ClassVar[frozenset[Mode]] = frozenset({Mode.INSERT, Mode.UPSERT, Mode.MIRROR, Mode.DELETE, Mode.APPEND})
    auth: ClassVar[str] = "none"
    as_text: ClassVar[frozenset[type]] = frozenset({str, Decimal, date})
    nests: ClassVar[bool] = True
    settings: ClassVar[frozenset[str]] = frozenset({"secret"})
    sandbox_path: ClassVar[str] = "webhook"

    def __init__(
        self, secrets: Mapping[str, str] | None = None, option: Any = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(secrets, option)
        self._clock = clock
        self._key = _key(self._secrets.get("secret", ""))

    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:  # noqa: ARG002
        if not object_.strip():
            raise Misconfigured("A webhook's object is empty.", "Give it a name that the receiver tells its rows by.")
        if mode not in self.modes:
            raise Misconfigured(
                f"A webhook cannot be delivered to in mode {mode.value!r}.",
                f"Possible modes: {', '.join(sorted(m.value for m in self.modes))}.",
            )
        if match:
            raise Misconfigured(
                "A webhook takes no match: its receiver knows a record by the primary key.",
                "Leave `match` out; to tell the receiver another value, add it to `fields`.",
            )

    def limits(self, object_: str, action: Action) -> Limits:  # noqa: ARG002
        return Limits(rows=MAX_ROWS, bytes=MAX_BYTES)

    def match_normalization(self, object_: str, match_field: str) -> str:  # noqa: ARG002
        return "exact"

    def repeat(self, object_: str, action: Action) -> Repeat:  # noqa: ARG002
        """Always: a repeated delivery has the same id and body, and its rows are keyed, so that taking it twice ends in
        the same state. A receiver that acts on every delivery must leave out ids that it has seen."""
        return Repeat.ALWAYS

    def usage(self, response: Response) -> tuple[Usage, ...]:
        return usage(response.headers)

    def encode(self, value: Any) -> Any:
        """JSON that keeps the value exact; see `values.json_value`."""
        return json_value(value)

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        """One POST to the base URL. Any 2xx takes the whole delivery; its body is not read."""
        body = b'{"delivery_id":%b,"object":%b,"rows":[%b],"sync":%b}' % (
            json_string(batch.idempotency_key),
            json_string(batch.object),
            b",".join([_row(row, batch.action) for row in batch.rows]),
            json_string(batch.sync),
        )
        yield Request("POST", "", body, {"webhook-id": batch.idempotency_key})
        return [Outcome(_taken(row)) for row in batch.rows]

    def sign(self, request: Request) -> Request:
        """The request with the time of now and, where there is a secret, a signature.

        Receivers refuse deliveries that were signed minutes ago, so a request that waits before it is sent again is
        signed again. Id and body stay.
        """
        stamp = str(int(self._clock()))
        headers = {**request.headers, "webhook-timestamp": stamp}
        if self._key:
            content = f"{headers['webhook-id']}.{stamp}.".encode() + (request.body or b"")
            digest = hmac.new(self._key, content, hashlib.sha256).digest()
            headers["webhook-signature"] = "v1," + base64.b64encode(digest).decode()
        return Request(request.method, request.path, request.body, headers)

    def identify(self) -> None:
        """None: the URL is all there is to know."""

    def classify(self, request: Request, response: Response) -> None:  # noqa: ARG002
        if 200 <= response.status < 300:
            return
        request_id = response.headers.get("x-request-id", "")
        problem = Problem(
            response.status, (), _excerpt(response), request_id=shorten(request_id), wait=asked_wait(response.headers)
        )
        raise_for(TABLE, "The receiver", problem)


def _key(secret: str) -> bytes:
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise Misconfigured(
            "The webhook's secret begins with whsec_, and what follows is not base64.",
            "Copy the whole secret from the receiver into the environment variable.",
        )
    return key


def _row(row: Row, action: Action) -> bytes:
    # Members in alphabetical order and no spaces, as in `values.canonical_json`.
    # What the receiver is to do: a row that mode delete lists for the first time is a removal to it.
    change = Change.REMOVED if action is Action.DELETE else row.change
    record = b"" if action is Action.DELETE else b',"record":' + row.encoded
    return b'{"change":"%b","key":%b,"partition":%b%b}' % (
        change.value.encode(),
        json_string(row.key),
        json_string(row.partition),
        record,
    )


def _taken(row: Row) -> Status:
    if row.action is Action.DELETE:
        return Status.DELETED
    return Status.CREATED if row.change is Change.ADDED else Status.UPDATED


def _excerpt(response: Response) -> str:
    """What the receiver says in its answer, if it speaks to programs: JSON's error or message, or a plain text."""
    try:
        document = response.json()
    except ValueError:
        plain = response.headers.get("content-type", "").startswith("text/plain")
        return shorten(response.body.decode(errors="replace")) if plain else ""
    if isinstance(document, dict):
        for name in ("error", "message", "detail"):
            if isinstance(document.get(name), str):
                return shorten(document[name])
    return shorten(document) if isinstance(document, str) else ""
