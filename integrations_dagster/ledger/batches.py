"""The record of one batch, and its compact form in the ledger."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from integrations_dagster.vocabulary import Action, Change, Outcome, Row, Status, Worker


class BatchStatus(StrEnum):
    """Where a batch is in its life."""

    OPEN = "open"
    """About to be sent or sent; no answer recorded."""
    COMPLETED = "completed"
    """Answered; each row has an outcome."""
    UNKNOWN = "unknown"
    """Nobody waits for its answer any more: what it did is unknown."""
    LATE = "late"
    """An answer that came after the batch was given up as unknown."""
    SUPERSEDED = "superseded"
    """Had no effect: refused whole and replaced by its parts, or never sent."""


class SentRow(NamedTuple):
    """What the state keeps of a row that was sent: everything but its payload."""

    ordinal: int
    key: str
    match: str
    change: Change
    action: Action
    partition: str
    destination_id: str | None
    source_digest: str
    payload_digest: str


@dataclass(frozen=True)
class BatchRecord:
    """One batch as the ledger knows it. Its rows and outcomes are decoded when they are first asked for.

    Attributes:
        id: The ledger's id.
        number: Order of closing within the sync and account; None while open or superseded.
        deadline: Seconds since the epoch after which no request of this batch can take effect any more.
        row_blob: What `pack_rows` made of the rows.
        outcome_blob: What `pack_outcomes` made of the outcomes; None unless completed or late.
        traffic: `Traffic.as_dict()` of the batch; empty unless closed.
        reference: What names the batch's work at the destination, or "".
        payloads: Of each row its encoded payload, where they are kept to send the same body again; else empty.
    """

    id: int
    run_id: str
    shard: int
    attempt: int
    idempotency_key: str
    repeatable: bool
    writer: Worker
    opened: float
    deadline: float
    status: BatchStatus
    number: int | None
    row_blob: bytes
    outcome_blob: bytes | None
    traffic: dict[str, Any]
    closed: float | None
    reference: str = ""
    payloads: tuple[bytes, ...] = ()

    @cached_property
    def rows(self) -> tuple[SentRow, ...]:
        return unpack_rows(self.row_blob)

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """One for each row, in order; empty unless completed or late."""
        return unpack_outcomes(self.outcome_blob)


# Looking a member up by its value costs a tenth of calling the enumeration, and this is done for every row.
_CHANGES = {change.value: change for change in Change}
_ACTIONS = {action.value: action for action in Action}
_STATUSES = {status.value: status for status in Status}

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_ROW_NAMES = "okmcapdsy"
_OUTCOME_NAMES = "sdcrq"


SHORT = 300
"""Bytes of JSON below which compressing it saves nothing worth its time."""


def pack(data: Any) -> bytes:
    """Compress JSON-ready data (a list or a dict); level 1 and a small window, because it is on the path of every
    batch."""
    # Half of a pair of surrogates, which a JSON answer may contain, has no form in UTF-8.
    text = _ENCODE(data).encode("utf-8", "replace")
    return text if len(text) < SHORT else zlib.compress(text, 1, 14)


def _unpacked(blob: bytes) -> bytes:
    # Nothing that zlib compresses begins like a list or an object of JSON.
    return blob if blob.startswith((b"{", b"[")) else zlib.decompress(blob)


def unpack(blob: bytes | None) -> Any:
    """Undo `pack`; an absent blob is an empty list."""
    return json.loads(_unpacked(blob)) if blob else []


def _columns(names: str, count: int, columns: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Columns by name, `n` their length; one with the same value throughout is a list of that value alone."""
    result: dict[str, Any] = {"n": count}
    for name, column in zip(names, columns, strict=True):
        first = column[0]
        result[name] = column[:1] if column[-1] == first and column.count(first) == count else column
    return result


def _unpack_columns(names: str, blob: bytes) -> Any:
    data = unpack(blob)
    if not isinstance(data, dict):
        return data  # rows, as the first version packed them
    number = data["n"]
    # A batch of one row is the same either way.
    return zip(*(data[name] if len(data[name]) == number else data[name] * number for name in names), strict=True)


def _columns_text(names: str, blob: bytes) -> bytes:
    text = _unpacked(blob)
    if text.startswith(b"{"):
        return text
    rows = json.loads(text)
    return _ENCODE(_columns(names, len(rows), zip(*rows, strict=True))).encode("utf-8", "replace")


def pack_rows(rows: Sequence[Row | SentRow]) -> bytes:
    """Pack what a `SentRow` has of at least one row."""
    columns = (
        [row.ordinal for row in rows],
        [row.key for row in rows],
        [row.match for row in rows],
        [row.change for row in rows],
        [row.action for row in rows],
        [row.partition for row in rows],
        [row.destination_id for row in rows],
        [row.source_digest for row in rows],
        [row.payload_digest for row in rows],
    )
    return pack(_columns(_ROW_NAMES, len(rows), columns))


def unpack_rows(blob: bytes) -> tuple[SentRow, ...]:
    return tuple(
        SentRow(o, k, m, _CHANGES[c], _ACTIONS[a], p, d, s, y)
        for o, k, m, c, a, p, d, s, y in _unpack_columns(_ROW_NAMES, blob)
    )


def rows_text(blob: bytes) -> bytes:
    """The rows of a blob as one line of JSON in UTF-8: lists named as in `ROW_LISTS`, and their number `n`.

    A list of one element stands for a column with that value in each row.
    """
    return _columns_text(_ROW_NAMES, blob)


def row_count(text: bytes) -> int:
    """How many rows a `rows_text` has."""
    return int(text[len('{"n":') : text.index(b",")])


def pack_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """Pack at least one outcome."""
    columns = (
        [o.status for o in outcomes],
        [o.destination_id for o in outcomes],
        [o.code for o in outcomes],
        [o.reason for o in outcomes],
        [o.request_id for o in outcomes],
    )
    return pack(_columns(_OUTCOME_NAMES, len(outcomes), columns))


def unpack_outcomes(blob: bytes | None) -> tuple[Outcome, ...]:
    if not blob:
        return ()
    return tuple(Outcome(_STATUSES[s], d, c, r, q) for s, d, c, r, q in _unpack_columns(_OUTCOME_NAMES, blob))


def outcomes_text(blob: bytes | None) -> bytes:
    """The outcomes of a blob as `rows_text` gives rows, lists named as in `OUTCOME_LISTS`; "null" for no blob."""
    return _columns_text(_OUTCOME_NAMES, blob) if blob else b"null"


def pack_payloads(payloads: Sequence[bytes]) -> bytes:
    """Pack payloads, each JSON in UTF-8 or empty."""
    return pack([payload.decode("utf-8") for payload in payloads])


def unpack_payloads(blob: bytes | None) -> tuple[bytes, ...]:
    return tuple(text.encode("utf-8") for text in unpack(blob))


ROW_LISTS = {
    "o": "BIGINT[]",
    "k": "VARCHAR[]",
    "m": "VARCHAR[]",
    "c": "VARCHAR[]",
    "a": "VARCHAR[]",
    "p": "VARCHAR[]",
    "d": "VARCHAR[]",
    "s": "VARCHAR[]",
    "y": "VARCHAR[]",
}
"""Ordinal, key, match, change, action, partition, destination id, source digest, payload digest; SQL types."""
OUTCOME_LISTS = {"s": "VARCHAR[]", "d": "VARCHAR[]", "c": "VARCHAR[]", "r": "VARCHAR[]", "q": "VARCHAR[]"}
"""Status, destination id, code, reason, request id; SQL types."""
