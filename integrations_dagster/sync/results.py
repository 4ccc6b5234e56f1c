"""What query, plan, write and record hand to each other: small, JSON-ready values; rows stay in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from integrations_dagster.sync.readings import LookupUse, SchemaReport
from integrations_dagster.vocabulary import Counts, Status, Traffic


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One materialization of a model (of one of its partitions): immutable files.

    Attributes:
        model: Name of the model.
        partition: Partition key, or "".
        name: Start of the query in UTC and the run, sortable: "20260801T120000.000000Z-<run>".
        path: Absolute folder of the Parquet files.
        started: Start of the query, seconds since the epoch.
        seconds: Duration of the query, written files included.
        rows: Rows queried.
        columns: (name, warehouse type) in order.
        sql: The text that ran.
        cursor: What `$cursor` was bound to, as text; None: the version holds all rows.
        table: The table of the warehouse's schema `integrations` that has the rows, or "".
    """

    model: str
    partition: str
    name: str
    path: str
    started: float
    seconds: float
    rows: int
    columns: tuple[tuple[str, str], ...]
    sql: str
    cursor: str | None = None
    table: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelVersion:
        return cls(**{**data, "columns": tuple((n, t) for n, t in data["columns"])})


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of a run's candidates that one write op delivers.

    Attributes:
        run_id: The run that planned it.
        index: 0, 1, ...
        path: Absolute path of its Parquet file.
        candidates: Rows in it.
        fence: The lease's fence that the run holds.
        account: The destination account's id, as the state is keyed by it.
        of: Shards of the run; the account's requests in flight are divided among them.
        mapping: Digest of the mapping that it was planned with.
    """

    run_id: str
    index: int
    path: str
    candidates: int
    fence: int
    account: str
    of: int = 1
    mapping: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Shard:
        return cls(**data)


@dataclass(frozen=True, slots=True)
class CursorRange:
    """Of a version of a model with a cursor.

    Attributes:
        type: DuckDB's type of the column.
        to: Its greatest value as text; "" without rows.
        moves: Whether the version holds every row from the sync's cursor on, so that the run may move it.
    """

    type: str
    to: str
    moves: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is going to do.

    Attributes:
        run_id: The run.
        account: The destination account's id.
        fence: The lease's fence.
        counts: Counts of candidates and of the rest.
        shards: Shards to write; may be empty.
        versions: Model versions read (one for each partition).
        seconds: Duration of the plan, waiting excluded.
        notes: Sentences for a person: an account without state, a changed mapping, records left behind, old data.
        cursor: Of a model with a cursor.
        warnings: Numbers that are far from the usual, a sentence each.
        usual: Whether the run's numbers count for what is usual.
        started: When the run took the sync, seconds since the epoch.
        lookups: What values were looked up in.
        schema: Whether the fields fit the destination, and what has drifted.
    """

    run_id: str
    account: str
    fence: int
    counts: Counts
    shards: tuple[Shard, ...]
    versions: tuple[ModelVersion, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    cursor: CursorRange | None = None
    warnings: tuple[str, ...] = ()
    usual: bool = False
    started: float = 0.0
    lookups: tuple[LookupUse, ...] = ()
    schema: SchemaReport = field(default_factory=SchemaReport)

    def as_dict(self) -> dict[str, Any]:
        return {
            **{k: getattr(self, k) for k in ("run_id", "account", "fence", "seconds", "started")},
            "counts": self.counts.as_dict(),
            "shards": [s.as_dict() for s in self.shards],
            "versions": [v.as_dict() for v in self.versions],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "usual": self.usual,
            "cursor": asdict(self.cursor) if self.cursor else None,
            "lookups": [use.as_dict() for use in self.lookups],
            "schema": self.schema.as_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        return cls(
            run_id=data["run_id"],
            account=data["account"],
            fence=data["fence"],
            counts=Counts(**data["counts"]),
            shards=tuple(Shard.from_dict(s) for s in data["shards"]),
            versions=tuple(ModelVersion.from_dict(v) for v in data["versions"]),
            seconds=data["seconds"],
            notes=tuple(data["notes"]),
            warnings=tuple(data["warnings"]),
            usual=data["usual"],
            cursor=CursorRange(**data["cursor"]) if data.get("cursor") else None,
            started=data["started"],
            lookups=tuple(LookupUse.from_dict(use) for use in data["lookups"]),
            schema=SchemaReport.from_dict(data["schema"]),
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a write op is: rows with an outcome so far, of `total`; seconds since its start."""

    shard: int
    done: int
    total: int
    rejected: int
    seconds: float


@dataclass(frozen=True, slots=True)
class WriteSummary:
    """What a write op tells `record`.

    Attributes:
        shard: Index of the shard.
        stopped: Why it stopped before its end ("" if it did not), a sentence with the remedy.
        seconds: Duration of the op.
        silent: What is known of the first batch without an answer ("" if there was none), a sentence.
    """

    shard: int
    stopped: str
    seconds: float
    silent: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WriteSummary:
        return cls(**data)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A rejected, invalid or in-doubt row, for people."""

    key: str
    status: Status
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunReport:
    """The final account of a run.

    Attributes:
        counts: Final counts: candidates found unchanged or invalid by `write` are counted there.
        outcomes: Candidates by status; every candidate of the plan is in exactly one.
        traffic: Requests and what they cost.
        bad_rows: The first rejected, invalid and in-doubt rows (100 at the most).
        reasons: The most frequent reasons of rejected rows, most frequent first.
        failures: Why the run fails; empty if it succeeds.
        write_seconds: Wall time from the start of the first write op to the end of the last.
        record_seconds: Duration of `record`.
        notes: Sentences for a person (records left behind, held rows).
        candidates: Rows that the write ops were given.
        rejected_share: Rejected rows as a share (0 to 1) of the candidates that were new or had changed: rows that were
            rejected before and are only tried again do not count, so that a quiet run is not all failure.
        amended: Whether a row was answered several times, so that not every answer in the log is a row's outcome.
    """

    counts: Counts
    outcomes: Mapping[Status, int]
    traffic: Traffic
    bad_rows: tuple[BadRow, ...]
    reasons: tuple[tuple[str, int], ...]
    failures: tuple[str, ...]
    write_seconds: float
    record_seconds: float
    notes: tuple[str, ...] = ()
    candidates: int = 0
    rejected_share: float = 0.0
    amended: bool = False
