"""The record of one batch, and its compact form in the ledger."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from enum import StrEnum
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

    @classmethod
    def of(cls, row: Row) -> SentRow:
        return cls(
            row.ordinal,
            row.key,
            row.match,
            row.change,
            row.action,
            row.partition,
            row.destination_id,
            row.source_digest,
            row.payload_digest,
        )


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch as the ledger knows it.

    Attributes:
        id: The ledger's id.
        number: Order of closing within the sync and account; None while open or superseded.
        deadline: Seconds since the epoch after which no request of this batch can take effect any more.
        outcomes: One for each row, in order; empty unless completed or late.
        traffic: `Traffic.as_dict()` of the batch; empty unless closed.
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
    rows: tuple[SentRow, ...]
    outcomes: tuple[Outcome, ...]
    traffic: dict[str, Any]
    closed: float | None


# Looking a member up by its value costs a tenth of calling the enumeration, and this is done for every row.
_CHANGES = {change.value: change for change in Change}
_ACTIONS = {action.value: action for action in Action}
_STATUSES = {status.value: status for status in Status}


def pack(data: Any) -> bytes:
    """Compress JSON-ready data; level 1, because it is on the path of every batch."""
    return zlib.compress(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8"), 1)


def unpack(blob: bytes | None) -> Any:
    """Undo `pack`; an absent blob is an empty list."""
    return json.loads(zlib.decompress(blob)) if blob else []


def pack_rows(rows: tuple[SentRow, ...]) -> bytes:
    return pack(rows)


def unpack_rows(blob: bytes) -> tuple[SentRow, ...]:
    return tuple(SentRow(o, k, m, _CHANGES[c], _ACTIONS[a], p, d, s, y) for o, k, m, c, a, p, d, s, y in unpack(blob))


def pack_outcomes(outcomes: tuple[Outcome, ...]) -> bytes:
    return pack([[o.status, o.destination_id, o.code, o.reason, o.request_id] for o in outcomes])


def unpack_outcomes(blob: bytes | None) -> tuple[Outcome, ...]:
    return tuple(Outcome(_STATUSES[s], d, c, r, q) for s, d, c, r, q in unpack(blob))
