"""What a plan has read of the world beside the model: reference data, and the fields of its object. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LookupUse:
    """What a plan has looked values up in.

    Attributes:
        name: The reference, or the sync.
        version: The reference's version; "" for a sync.
        rows: Records.
        age: Seconds since the reference was read; 0 for a sync, whose state is always the newest.
        read: Whether this plan has read the reference.
        requests: HTTP requests that this took.
        seconds: How long.
        columns: Of the reference.
    """

    name: str
    version: str = ""
    rows: int = 0
    age: float = 0.0
    read: bool = False
    requests: int = 0
    seconds: float = 0.0
    columns: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LookupUse:
        return cls(**{**data, "columns": tuple(data["columns"])})


@dataclass(frozen=True, slots=True)
class Misfit:
    """What is wrong with one field.

    Attributes:
        field: Its name at the destination.
        problem: A sentence without its subject ("does not exist.").
        fatal: Whether nothing can be sent while it is so.
    """

    field: str
    problem: str
    fatal: bool

    def __str__(self) -> str:
        return f"{self.field} {self.problem}"


@dataclass(frozen=True, slots=True)
class Drift:
    """What differs from what the last run saw.

    Attributes:
        used: Of fields and columns that the sync uses, as sentences that begin with the name.
        other: Of others.
    """

    used: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """What a run's check of both sides found.

    Attributes:
        checked: Whether the destination's fields were known.
        note: Why they were not, or "".
        misfits: What does not fit.
        drift: What differs from the last run.
        read: When the description was read, seconds since the epoch; 0 without one.
        requests: HTTP requests that reading took.
        seen: See `sight`; kept by `record`.
    """

    checked: bool = False
    note: str = ""
    misfits: tuple[Misfit, ...] = ()
    drift: Drift = Drift()
    read: float = 0.0
    requests: int = 0
    seen: Mapping[str, Any] | None = None

    @property
    def fatal(self) -> tuple[Misfit, ...]:
        return tuple(misfit for misfit in self.misfits if misfit.fatal)

    def as_dict(self) -> dict[str, Any]:
        """Without what was seen, which may be long and lies in a file."""
        return {
            "checked": self.checked,
            "note": self.note,
            "misfits": [[m.field, m.problem, m.fatal] for m in self.misfits],
            "drift": [list(self.drift.used), list(self.drift.other)],
            "read": self.read,
            "requests": self.requests,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SchemaReport:
        used, other = data["drift"]
        return cls(
            data["checked"],
            data["note"],
            tuple(Misfit(field, problem, fatal) for field, problem, fatal in data["misfits"]),
            Drift(tuple(used), tuple(other)),
            data["read"],
            data["requests"],
        )
