"""A small world to plan in: a model, a destination that keeps records as HubSpot does, and runs that break anywhere.

The destination is a dictionary of records, each with a unique match value; the ledger, the fold and the planner are the
real ones. Deliveries are driven batch by batch, so that a test can lose any answer before or after it took effect, have
it arrive late, or end the run.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from integrations_dagster.destinations.base import NO_RECORD
from integrations_dagster.ledger.batches import SentRow
from integrations_dagster.ledger.leases import Lease
from integrations_dagster.ledger.store import Ledger
from integrations_dagster.ledger.writing import OpenBatch
from integrations_dagster.planner.ahead import connect_ahead, last_ahead, write_ahead, written_ahead
from integrations_dagster.planner.candidates import Settings
from integrations_dagster.planner.diff import Diff, diff
from integrations_dagster.planner.fold import fold
from integrations_dagster.planner.held import DEFAULT_SPACING, Doubt, Spacing, doubts
from integrations_dagster.planner.model import Source
from integrations_dagster.planner.state import PLAN, Home, connect
from integrations_dagster.planner.warehouse_home import WarehouseHome
from integrations_dagster.vocabulary import ABSENT, Action, Change, Mode, Outcome, Status, Traffic, Worker
from integrations_dagster.warehouses.base import WarehouseAddress
from integrations_dagster.warehouses.postgres_store import PostgresStore
from integrations_dagster.warehouses.registry import open_store
from integrations_dagster.warehouses.store import SCHEMA, Store

WORKER = Worker("here", 1, 1.0)
STATE = "contacts@crm"
REJECTED_NAME = "REJECT"
"""The destination refuses a row with this name."""


class Fate(StrEnum):
    """What happens to a batch."""

    ANSWERED = "answered"
    LOST_BEFORE = "lost before it took effect"
    LOST_AFTER = "lost after it took effect"
    LATE = "answered after it was given up"
    DIED = "the run dies before it is sent"


@dataclass
class Crm:
    """Records by id: (match value, name)."""

    records: dict[str, tuple[str, str]] = field(default_factory=dict)
    writes: int = 0
    created: dict[str, list[str]] = field(default_factory=dict)
    """Ids of the records that a primary key's creations made, in order."""
    once: bool = False
    """Whether a second creation under one primary key makes no second record."""
    merged: dict[str, str] = field(default_factory=dict)
    """Match values that lead to a record under another one, as a merged contact's second email does."""
    sent: list[tuple[str, Action]] = field(default_factory=list)
    """(primary key, action) of all that took effect, in order."""
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def _id_of(self, match: str) -> str | None:
        found = next((i for i, (held, _) in self.records.items() if held == match), None)
        return found or self.merged.get(match)

    def seed(self, match: str, name: str) -> None:
        """Somebody else makes a record."""
        self.records[str(next(self._ids))] = (match, name)

    def apply(self, row: SentRow, name: str) -> Outcome:
        self.sent.append((row.key, row.action))
        if row.action is Action.DELETE:
            target = row.destination_id or self._id_of(row.match)
            if target:
                self.records.pop(target, None)
            return Outcome(Status.DELETED)
        if name == REJECTED_NAME:
            return Outcome(Status.REJECTED, None, "BAD_NAME", "The name is not accepted.")
        self.writes += 1
        if row.action is Action.CREATE:
            made = self.created.setdefault(row.key, [])
            if not (made and self.once):
                made.append(str(next(self._ids)))
                self.records[made[-1]] = (row.match, name)
            return Outcome(Status.CREATED, made[-1])
        found = self._id_of(row.match)
        if row.action is Action.MODIFY:
            if found is None:
                return Outcome(Status.REJECTED, None, NO_RECORD, "There is no such record.")
            self.records[found] = (self.records[found][0], name)
            return Outcome(Status.UPDATED, found)
        if row.action is Action.UPSERT:
            target = found or str(next(self._ids))
            match = self.records[target][0] if row.match in self.merged else row.match
            self.records[target] = (match, name)
            return Outcome(Status.UPDATED if found else Status.CREATED, target)
        assert row.destination_id is not None
        if row.destination_id not in self.records:
            return Outcome(Status.REJECTED, None, "gone", "The record does not exist.")
        if found and found != row.destination_id:
            return Outcome(Status.REJECTED, None, "CONFLICT", f"Record {found} has this value.")
        self.records[row.destination_id] = (row.match, name)
        return Outcome(Status.UPDATED, row.destination_id)

    @property
    def by_match(self) -> dict[str, str]:
        result = dict(self.records.values())
        assert len(result) == len(self.records), "the destination holds a match value twice"
        return result


class Kept:
    """An open warehouse that is given out again and again, as if it were opened each time."""

    def __init__(self, warehouse: WarehouseAddress) -> None:
        self.store = cast(PostgresStore, open_store(warehouse))

    @contextmanager
    def __call__(self) -> Iterator[Store]:
        try:
            yield self.store
        finally:
            # What a connection ends with.
            with self.store.transaction():
                self.store._cursor.execute("DISCARD TEMP")


def home_in(warehouse: WarehouseAddress, folder: Path, kept: Kept) -> WarehouseHome:
    return WarehouseHome(folder, "contacts", "crm", warehouse.name, cast(Callable[[], Store], kept))


class World:
    """A sync of (key, email, name) rows.

    Attributes:
        everywhere: The warehouse of worlds that are given none.

    Args:
        mode: The mode.
        repeatable: Whether requests may be repeated; else rows whose answer is lost are in doubt.
        warehouse: Where models and state are; None: in files.
    """

    everywhere: ClassVar[WarehouseAddress | None] = None

    def __init__(
        self,
        folder: Path,
        *,
        mode: Mode = Mode.UPSERT,
        repeatable: bool = True,
        batch_rows: int = 2,
        removal_limit: float = 1.0,
        spacing: Spacing = DEFAULT_SPACING,
        warehouse: WarehouseAddress | None = None,
    ) -> None:
        self.folder = folder
        self.mode = mode
        self.repeatable = repeatable
        self.spacing = spacing
        self.batch_rows = batch_rows
        self.removal_limit = removal_limit
        self.time = 1000.0
        self.ledger = Ledger.open(folder, clock=lambda: self.time)
        warehouse = warehouse or self.everywhere
        self.kept = None if warehouse is None else Kept(warehouse)
        self.home = Home(folder / "home")
        if warehouse is not None and self.kept is not None:
            self.home = home_in(warehouse, folder / "home", self.kept)
        self.crm = Crm(once=repeatable)
        self.unanswered: set[str] = set()
        """Keys that were sent by a request without an answer."""
        self.resends = False
        self.late: list[tuple[OpenBatch, tuple[Outcome, ...]]] = []
        self.runs = 0

    def close(self) -> None:
        self.ledger.close()
        if self.kept is not None:
            self.kept.store.__exit__(None, None, None)

    def run(
        self,
        model: Mapping[str, tuple[str | None, str]],
        fate: Callable[[int], Fate] = lambda _index: Fate.ANSWERED,
        parts: Mapping[str, Mapping[str, tuple[str | None, str]]] | None = None,
        **changes: Any,
    ) -> Diff:
        """One run: fold, plan, deliver each batch to its fate; then fold, unless the run died.

        Args:
            parts: The rows of each partition that is compared, instead of `model`.
            changes: To the settings of this run.
        """
        self.runs += 1
        run_id = f"run-{self.runs}"
        lease = self.ledger.acquire(STATE, run_id, WORKER, alive=lambda _holder: False)
        self.time += 100  # every deadline of an earlier run has passed
        self.ledger.give_up_expired(STATE)
        self.fold(lease)
        folder = self.home.plan_folder(run_id)
        settings = replace(self.settings(), **changes)
        result = diff(self.home, self.home.manifest(), self.source(parts or {"": model}), settings, folder)
        (folder / PLAN).touch()
        assert result.counts.adds_up(), result.counts
        assert sum(result.held.values()) == result.counts.held, result
        assert sum(rows for _, rows in result.shards) == (
            result.counts.added + result.counts.changed + result.counts.removed
        )
        self.resends = settings.resend_in_doubt or (settings.release is not None and settings.release.in_doubt)
        if self._deliver(lease, result, fate):
            self.fold(lease)
            self.ledger.release(lease)
        return result

    def fold(self, lease: Lease) -> None:
        before = self.home.manifest()
        self.home.folder.mkdir(parents=True, exist_ok=True)
        closed = self.ledger.closed_since(STATE, before.last_number)
        ahead, missing = written_ahead(self.home.plan_folders(), closed)
        batches = self.ledger.closed_batches(STATE, missing)
        folded = fold(self.home, batches, now=self.time, ahead=ahead, spacing=self.spacing)
        with self.home.prepared(folded.manifest) as commit, self.ledger.guarded(lease):
            commit()
        self.ledger.clear(STATE, folded.manifest.last_number, lease)
        self.home.clean()
        for path in (self.home.folder / "plans").glob("*/*"):
            path.unlink()

    def answer_late(self) -> None:
        """All answers that are still on their way arrive."""
        for batch, outcomes in self.late:
            self.ledger.complete_batch(batch, outcomes, Traffic())
            self.unanswered -= {row.key for row in batch.rows}
        self.late.clear()

    def settle(self) -> list[Doubt]:
        """Give up what has no answer; returns the rows in doubt."""
        self.runs += 1
        lease = self.ledger.acquire(STATE, f"run-{self.runs}", WORKER, alive=lambda _holder: False)
        self.time += 100
        self.ledger.give_up_expired(STATE)
        self.fold(lease)
        self.ledger.release(lease)
        return doubts(self.home, self.home.manifest())

    def look_up(self) -> None:
        """Ask the destination for each row in doubt that was to be created, and record what it says."""
        found = self.settle()
        lease = self.ledger.acquire(STATE, f"run-{self.runs}-look-up", WORKER, alive=lambda _holder: False)
        shard = self.ledger.begin_shard(lease, 0, WORKER)
        for doubt in found:
            made = self.crm.created.get(doubt.key)
            outcome = Outcome(Status.CREATED, made[-1]) if made else Outcome(Status.UNSENT, code=ABSENT)
            row = SentRow(
                0,
                doubt.key,
                doubt.match,
                Change.ADDED,
                doubt.action or Action.CREATE,
                doubt.partition,
                doubt.destination_id,
                doubt.source_digest,
                doubt.payload_digest,
            )
            self.ledger.settle(shard, (row,), (outcome,), doubt.reference)
            self.unanswered.discard(doubt.key)
        self.fold(lease)
        self.ledger.release(lease)

    def held(self) -> dict[str, dict[str, Any]]:
        """The held rows by key."""
        with connect(self.folder) as connection:
            self.home.attach(connection, self.home.manifest())
            found = connection.execute("SELECT * FROM held")
            names = [column[0] for column in found.description or ()]
            return {row["key"]: row for row in (dict(zip(names, r, strict=True)) for r in found.fetchall())}

    def records(self) -> list[tuple[Any, ...]]:
        """The snapshot."""
        with connect(self.folder) as connection:
            if isinstance(self.home, WarehouseHome):
                files = self.folder / "records.parquet", self.folder / "held.parquet"
                self.home.take(self.home.state() or "", *files)
                return connection.execute("SELECT * FROM read_parquet(?) ORDER BY ALL", [str(files[0])]).fetchall()
            self.home.attach(connection, self.home.manifest())
            return connection.execute("SELECT * FROM snapshot ORDER BY ALL").fetchall()

    def source(self, parts: Mapping[str, Mapping[str, tuple[str | None, str]]]) -> Source:
        files = {}
        for partition, model in parts.items():
            path = self.folder / ("-".join(filter(None, ["model", str(self.runs), partition])) + ".parquet")
            table = pa.table(
                {
                    "key": pa.array(list(model), pa.string()),
                    "email": pa.array([email for email, _ in model.values()], pa.string()),
                    "name": pa.array([name for _, name in model.values()], pa.string()),
                }
            )
            pq.write_table(table, path)
            files[partition] = [path]
        columns = ("email",) if self.mode is Mode.DELETE else ("email", "name")
        source = Source(files, ("key",), ("email",), ("trim_lower",), columns, "m1")
        if self.kept is None:
            return source
        tables, types = {}, {}
        with self.kept() as store, store.transaction():
            store.prepare_schema()
            for partition, (path,) in files.items():
                tables[partition] = f"people_{secrets.token_hex(6)}"
                declared = '("key" VARCHAR, email VARCHAR, name VARCHAR)'
                store.execute(f"CREATE TABLE {SCHEMA}.{tables[partition]} {declared}")
                store.ingest(path, tables[partition], SCHEMA)
                types = dict(store.columns(tables[partition]))
        return replace(source, files={}, tables=tables, types=types, inputs=source.columns)

    def settings(self) -> Settings:
        return Settings(
            "contacts",
            self.mode,
            removal_limit=self.removal_limit,
            shards=3,
            shard_rows=3,
            now=self.time,
        )

    def _deliver(self, lease: Lease, result: Diff, fate: Callable[[int], Fate]) -> bool:
        index = 0
        for number, (path, _) in enumerate(result.shards):
            shard = self.ledger.begin_shard(lease, number, WORKER)
            accepted: set[str] = set()
            for rows, names in self._batches(path, accepted):
                keys = {row.key for row in rows}
                if not self.repeatable and not self.resends:
                    assert not keys & self.unanswered, "a row in doubt was sent again"
                reference = f"{lease.run_id}-{index}"
                batch = self.ledger.open_batch(
                    shard, rows, idempotency_key=reference, repeatable=self.repeatable, timeout=10
                )
                self.unanswered |= keys
                what = fate(index)
                index += 1
                if what is Fate.DIED:
                    return False
                if what is Fate.LOST_BEFORE:
                    continue
                outcomes = tuple(self.crm.apply(row, name) for row, name in zip(rows, names, strict=True))
                if what is Fate.LATE:
                    self.late.append((batch, outcomes))
                elif what is Fate.ANSWERED:
                    self.ledger.complete_batch(batch, outcomes, Traffic())
                    self.unanswered -= keys
                    accepted |= {r.key for r, o in zip(rows, outcomes, strict=True) if o.status != Status.REJECTED}
            # Of every other shard, events are written ahead of the fold.
            if number % 2 == 0:
                last = last_ahead(path.parent, number)
                with connect_ahead(path.parent, number) as connection:
                    write_ahead(connection, path.parent, number, self.ledger.completed_after(shard, last))
        return True

    def _batches(self, path: Path, accepted: set[str]) -> list[tuple[tuple[SentRow, ...], list[str]]]:
        """Batches of one action and wave, in order; made lazily, because rows may follow others' acceptance."""

        def generate():  # type: ignore[no-untyped-def]
            rows = [{**row, "ordinal": place} for place, row in enumerate(pq.read_table(path).to_pylist())]
            for _, group in itertools.groupby(rows, key=lambda r: (r["wave"], r["action"])):
                members = list(group)
                for start in range(0, len(members), self.batch_rows):
                    part = [
                        r
                        for r in members[start : start + self.batch_rows]
                        if r["follows"] is None or r["follows"] in accepted
                    ]
                    if part:
                        yield tuple(map(_sent, part)), [r.get("c:name") or "" for r in part]

        return generate()  # type: ignore[no-any-return,no-untyped-call]


def _sent(row: Mapping[str, object]) -> SentRow:
    destination_id = row["destination_id"]
    return SentRow(
        int(str(row["ordinal"])),
        str(row["key"]),
        str(row["match"]),
        Change(str(row["change"])),
        Action(str(row["action"])),
        str(row["partition"]),
        None if destination_id is None else str(destination_id),
        str(row["source_digest"]),
        "" if row["action"] == Action.DELETE else str(row.get("c:name")),
    )
