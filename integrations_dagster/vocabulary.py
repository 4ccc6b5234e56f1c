"""The words of the project as types. Every room may import this module; it imports none.

A *sync* delivers the rows of a *model* to an *object* of a *destination*. A row that may differ from what the
destination has acknowledged is a *candidate*; each candidate of a run ends with exactly one outcome.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def per_row(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass to the type checker, and a plain one with slots at run time.

    For what is made once for every row: Python's own guard makes that seven times as slow.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


class Mode(StrEnum):
    """What a sync does with the differences between its model and its destination (docs/modes.md)."""

    INSERT = "insert"
    """Create each row once."""
    UPDATE = "update"
    """Update the records that are there; create none."""
    UPSERT = "upsert"
    """Create and update."""
    MIRROR = "mirror"
    """Create, update, and remove what the model has no more."""
    DELETE = "delete"
    """Delete the records that the model lists."""
    APPEND = "append"
    """Deliver each row once, as an event."""


class Change(StrEnum):
    """Why a row is a candidate: how the model differs from the snapshot."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


class Action(StrEnum):
    """How a candidate is delivered."""

    CREATE = "create"
    """Create a record, whatever the destination holds already (modes insert and append)."""
    UPSERT = "upsert"
    """Create or update the record that has this match value."""
    UPDATE = "update"
    """Update the record with this destination id (its match value changes)."""
    MODIFY = "modify"
    """Update the record that has this match value; where there is none, create none (mode update)."""
    DELETE = "delete"
    """Delete the record, by destination id where it is known, else by match value."""


class Status(StrEnum):
    """The outcome of a candidate."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"
    """The destination refused the row; it is held and tried again."""
    INVALID = "invalid"
    """The row was found unsendable before any request."""
    IN_DOUBT = "in_doubt"
    """Sent by a request that must not be repeated, and no answer came; held."""
    UNSENT = "unsent"
    """Not delivered: the run stopped before it, or no answer came to a repeatable request."""


SUCCEEDED = frozenset({Status.CREATED, Status.UPDATED, Status.DELETED, Status.UNCHANGED})


ABSENT = "absent"
"""Outcome code (with `Status.UNSENT`) of a row that was in doubt and is known not to be at the destination: it is sent
again like any other."""


class HeldStatus(StrEnum):
    """Why a row waits outside the run's candidates."""

    REJECTED = "rejected"
    INVALID = "invalid"
    IN_DOUBT = "in_doubt"
    PARKED = "parked"


class IntegrationsError(Exception):
    """Root of the errors this package raises on purpose.

    Args:
        message: What happened, naming the sync, model or file, and the key where there is one.
        remedy: What the reader can do about it, as a sentence; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[IntegrationsError], tuple[str, str]]:
        # Errors cross process borders; the default would call __init__ with the joined text.
        return (type(self), (self.message, self.remedy))


class Misconfigured(IntegrationsError):
    """Someone must change a setting, a file or the environment; trying again does not help."""


class GuardTripped(IntegrationsError):
    """A safety limit stopped the run before anything was sent."""


class LeaseLost(IntegrationsError):
    """Another run holds the sync now; this one must stop sending."""


class LeaseHeld(IntegrationsError):
    """Another live run holds the sync; try again later."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A process, told apart from a later one with the same id.

    Attributes:
        host: Host name.
        pid: Process id.
        started: Start of the process in seconds since the epoch.
    """

    host: str
    pid: int
    started: float


@per_row
class Row:
    """One candidate, as a destination's flow sees it.

    Attributes:
        ordinal: Position in the shard; names the candidate within its run and shard.
        key: Primary key as text (a JSON array of texts for a composite key).
        match: Match value, normalized, as text (a JSON array of texts for several).
        change: Why the row is sent.
        action: How it is sent.
        encoded: The payload as canonical JSON in UTF-8; b"" for a delete.
        partition: Partition key, or "" for an unpartitioned model.
        destination_id: The record's id at the destination, or None where unknown.
        source_digest: Digest of the source columns.
        payload_digest: Digest of the canonical JSON of what is sent.
    """

    ordinal: int
    key: str
    match: str
    change: Change
    action: Action
    encoded: bytes = b""
    partition: str = ""
    destination_id: str | None = None
    source_digest: str = ""
    payload_digest: str = ""

    @property
    def payload(self) -> dict[str, Any]:
        """Target field to JSON value, None where a null is sent; decoded anew whenever it is asked for."""
        decoded: dict[str, Any] = json.loads(self.encoded) if self.encoded else {}
        return decoded

    @property
    def size(self) -> int:
        """Bytes of the encoded payload."""
        return len(self.encoded)


@per_row
class Outcome:
    """What became of one row.

    Attributes:
        status: One of `Status`.
        destination_id: The record's id at the destination, where the answer says it.
        code: The destination's own error code, or ours, for grouping ("INVALID_EMAIL").
        reason: A sentence for a person, free of secrets; "" on success.
        request_id: The vendor's id of the request, for its support.
    """

    status: Status
    destination_id: str | None = None
    code: str = ""
    reason: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of a model: a window of time, end excluded.

    Attributes:
        key: Dagster's partition key ("2026-08-01").
        start: ISO 8601 start, bound to `$partition_start` in the model's SQL.
        end: ISO 8601 end, bound to `$partition_end`.
    """

    key: str
    start: str
    end: str


@dataclass(slots=True)
class Counts:
    """Disjoint counts of rows: queried = added + changed + unchanged + invalid + held + excluded; removed apart."""

    queried: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    invalid: int = 0
    held: int = 0
    excluded: int = 0
    removed: int = 0

    def as_dict(self) -> dict[str, int]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def adds_up(self) -> bool:
        return self.queried == (self.added + self.changed + self.unchanged + self.invalid + self.held + self.excluded)


@dataclass(slots=True)
class Traffic:
    """What delivering cost.

    Attributes:
        requests: HTTP requests sent, repeats included.
        retries: Requests sent again after an outage or an unreadable answer.
        throttled: Answers that asked to wait.
        bytes: Bytes of request bodies.
        errors: Count per error class ("throttled", "unavailable", ...).
        latencies_ms: Milliseconds of each request, in no order.
    """

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    bytes: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    latencies_ms: list[int] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def total(cls, parts: Iterable[Mapping[str, Any]]) -> Traffic:
        """Add up the `as_dict` forms of several parts."""
        result = cls()
        for part in parts:
            result.requests += part["requests"]
            result.retries += part["retries"]
            result.throttled += part["throttled"]
            result.bytes += part["bytes"]
            result.latencies_ms.extend(part["latencies_ms"])
            for name, count in part["errors"].items():
                result.errors[name] = result.errors.get(name, 0) + count
        return result

    def percentile_ms(self, share: float) -> int:
        """The latency in milliseconds that `share` (0 to 1) of the requests did not exceed; 0 without requests."""
        if not self.latencies_ms:
            return 0
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
