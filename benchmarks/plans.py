"""What measurements of plans share: the model, its syncs, how a plan is timed, and sides that are measured by turns."""

from __future__ import annotations

import argparse
import os
import statistics
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.processes import Call, Server, cpu_seconds, in_processes, peak_memory, this_process, watched
from benchmarks.setting import POSTGRES, Setting
from integrations_dagster.ledger.leases import Lease
from integrations_dagster.planner.state import Home, connect, literal
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.query import run_query
from integrations_dagster.sync.record import record
from integrations_dagster.sync.results import Plan
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, ModelSpec, SyncSpec, TargetSpec
from integrations_dagster.sync.state import drop_plans, state_key

MATCHED_BY_KEY, MATCHED_BY_EMAIL = "match value is the key", "match value is an email"
MATCHED = (MATCHED_BY_KEY, MATCHED_BY_EMAIL)
KEYS = {"integer": ("id",), "text": ("region", "code")}
# DuckDB and PostgreSQL read all of this alike.
_KEY_SQL = {
    "integer": "i::INTEGER AS id, 'Last ' || i AS lastname",
    "text": "(ARRAY['north', 'south', 'east', 'west'])[(i % 4 + 1)::INTEGER] AS region, "
    "'C-' || lpad(i::VARCHAR, 9, '0') AS code",
}
_FURTHER = ("'Text ' || (i * {n} % 9973)", "(i * {n} % 1000003)::INTEGER", "(i * {n} % 100000 / 100.0)::DECIMAL(12, 2)")
"""The columns after the first ones, by turns; {n} is the number of the column."""


@dataclass(frozen=True)
class Case:
    """What is planned.

    Attributes:
        rows: Rows of the model.
        columns: Its columns, 7 or more.
        key: "integer", or "text": two columns.
    """

    rows: int
    columns: int
    key: str

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.columns} columns, key {', '.join(self.primary_key)}"

    @property
    def primary_key(self) -> tuple[str, ...]:
        return KEYS[self.key]

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns beside the primary key and the email."""
        last = ("lastname",) if self.key == "integer" else ()
        further = (f"c{n}" for n in range(8, self.columns + 1))
        return ("firstname", *last, "jobtitle", "lifetime_value", "last_order", *further)

    def sql(self, changed: float) -> str:
        """The model's query, with a share of the rows, everywhere among them, other than with a share of 0."""
        title = f"'Title v' || (i % 1000 < {round(changed * 1000)})::INTEGER AS jobtitle"
        further = (f"{_FURTHER[n % len(_FURTHER)].format(n=n)} AS c{n}" for n in range(8, self.columns + 1))
        columns = [
            _KEY_SQL[self.key],
            "'c' || i || '@example.com' AS email",
            "'First ' || i AS firstname",
            title,
            "(i % 100000 / 100.0)::DECIMAL(12, 2) AS lifetime_value",
            "DATE '2026-01-01' + (i % 200)::INTEGER AS last_order",
            *further,
        ]
        return f"SELECT {', '.join(columns)} FROM generate_series(0, {self.rows - 1}) t(i)"

    def differing(self, changed: float) -> int:
        """Rows that differ at such a share."""
        whole, rest = divmod(self.rows, 1000)
        limit = round(changed * 1000)
        return whole * limit + min(rest, limit)


@dataclass(frozen=True)
class Place:
    """Where a case is measured; small enough to hand to processes.

    Attributes:
        server: Process id of the database server; 0: there is none.
    """

    setting: Setting
    case: Case
    server: int = 0

    @property
    def model(self) -> ModelSpec:
        return replace(self.setting.model, primary_key=self.case.primary_key)

    def sync(self, name: str) -> SyncSpec:
        """A sync of all rows by the key (to a webhook) or by email (to HubSpot contacts)."""
        by_email = replace(
            self.setting.sync("by-email"),
            model=self.model,
            fields=tuple(FieldSpec(column, column) for column in self.case.fields),
        )
        if name == MATCHED_BY_EMAIL:
            return by_email
        url = f"http://127.0.0.1:{self.setting.port}/"
        return replace(
            by_email,
            name="by-key",
            destination=DestinationSpec("hook", "webhook", TargetSpec("prod", base_url=url)),
            match={},
            fields=(FieldSpec("email", "email"), *by_email.fields),
        )

    def query(self, changed: float) -> None:
        """Materialize the model with so many rows changed."""
        assert self.model.sql_path is not None
        self.model.sql_path.write_text(self.case.sql(changed), "utf-8")
        env = {**os.environ, POSTGRES: self.setting.postgres}
        run_query(self.model, self.setting.storage, f"query-{uuid.uuid4().hex[:8]}", env=env)


@dataclass(frozen=True)
class Measured:
    """What one process found, and what it cost.

    Attributes:
        differing: Rows that differ.
        seconds: Wall time, imports excluded.
        cpu: CPU seconds, likewise.
        memory: Peak resident memory of the process in MB.
        after: Seconds of `record`, where nothing was to be sent; else 0.
        server_cpu: CPU seconds of the database server meanwhile.
        server_memory: Peak memory of its processes in MB, without what they share.
    """

    differing: int
    seconds: float
    cpu: float
    memory: float
    after: float = 0.0
    server_cpu: float = 0.0
    server_memory: float = 0.0


def planned(place: Place, name: str) -> Measured:
    """Plan a run, which ends there, or is recorded if it has nothing to send; in a process of its own."""
    sync = place.sync(name)
    with place.setting.context(f"run-{uuid.uuid4().hex[:12]}", this_process()) as ctx:
        with watched(place.server) as used:
            before, started = cpu_seconds(), time.monotonic()
            made = plan(sync, ctx)
            seconds, cpu, memory = time.monotonic() - started, cpu_seconds() - before, peak_memory()
        counts = made.counts
        if counts.queried != place.case.rows or counts.added or counts.removed:
            raise RuntimeError(f"The plan of {place.case} found {counts}.")
        after = 0.0
        if made.shards:
            ctx.ledger.release(lease_of(sync, made))
            drop_plans(Home.of(ctx.storage, sync.name, made.account))
        else:
            started = time.monotonic()
            record(sync, ctx, made, [])
            after = time.monotonic() - started
    return Measured(counts.changed, seconds, cpu, memory, after, used.cpu, used.memory)


def lease_of(sync: SyncSpec, made: Plan) -> Lease:
    """The lease that a plan holds."""
    return Lease(state_key(sync, made.account), made.run_id, made.fence)


def write_records(made: Plan, path: Path, *, with_ids: bool) -> None:
    """Write the snapshot of a sync whose first plan was delivered, as its fold would leave it.

    Args:
        with_ids: Whether the destination has told an id of each record.
    """
    shards = ", ".join(literal(shard.path) for shard in made.shards)
    record_id = "CAST(100000000 + row_number() OVER () AS VARCHAR)" if with_ids else "NULL::VARCHAR"
    with connect(path.parent) as connection:
        connection.execute(
            f"""COPY (SELECT key, match, partition, {record_id} AS destination_id, source_digest,
            md5(key) AS payload_digest, CAST(1 + row_number() OVER () // 100 AS BIGINT) AS number
            FROM read_parquet([{shards}])) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)"""
        )


def by_turns(place: Place, server: Server, options: argparse.Namespace, sides: Mapping[str, Call], bare: str) -> None:
    """Measure a case with each share of changed rows, and tell the figures.

    Args:
        server: What the syncs send to.
        options: See `parser`.
        sides: What is called, in a process of its own, and returns `Measured`, by name.
        bare: Name of the side that the others are measured against.

    Raises:
        RuntimeError: A side found another number of rows, or something was sent though nothing has changed.
    """
    for changed in options.changed:
        place.query(changed)
        results: dict[str, list[Measured]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, call in sides.items():
                server.control(reset=True)
                (found,) = in_processes([call])
                if found.differing != place.case.differing(changed):
                    raise RuntimeError(f"{name} found {found.differing:,} rows of {place.case} that differ.")
                if not changed and (sent := server.control()["requests"]):
                    raise RuntimeError(f"Nothing has changed, and {sent} requests were sent.")
                results[name].append(found)
        tell(place.case, changed, results, bare, options.budgets)


def tell(
    case: Case, changed: float, results: Mapping[str, Sequence[Measured]], bare: str, budgets: Mapping[str, float]
) -> None:
    """Print the medians.

    Args:
        bare: Name of what the others are measured against.
        budgets: Of a plan, by its name: how many times the seconds it may take.
    """

    def median(name: str, what: str) -> float:
        return statistics.median(getattr(found, what) for found in results[name])

    with_server = any(found.server_cpu for measured in results.values() for found in measured)
    print(f"\n{case}, {changed:.0%} changed")
    further = f"{'server CPU s':>14}{'MB':>7}" if with_server else ""
    print(f"{'':28}{'seconds':>9}{'CPU s':>8}{'MB':>7}{further}{'of ' + bare:>23}")
    for name, measured in results.items():
        ratio = statistics.median(m.seconds / b.seconds for m, b in zip(measured, results[bare], strict=True))
        budget = f"   (budget {budgets[name]})" if name in budgets and changed == 0.01 else ""
        after = f"   record {median(name, 'after'):.2f} s, no request" if name in budgets and not changed else ""
        further = f"{median(name, 'server_cpu'):14.1f}{median(name, 'server_memory'):7.0f}" if with_server else ""
        print(
            f"{name:28}{median(name, 'seconds'):9.2f}{median(name, 'cpu'):8.1f}{median(name, 'memory'):7.0f}{further}"
            f"{ratio:23.2f}{budget}{after}",
            flush=True,
        )


def parser(told: str | None, budgets: Mapping[str, float]) -> argparse.ArgumentParser:
    """The options of a measurement of plans.

    Args:
        told: What `--help` says.
        budgets: See `tell`; `budgets` of the options.
    """
    made = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", type=int, default=1_000_000, help="rows of the model")
    made.add_argument("--columns", type=int, default=7, help="its columns, at least 7")
    made.add_argument("--key", nargs="+", choices=list(KEYS), default=list(KEYS), help="type of the primary key")
    made.add_argument("--changed", nargs="+", type=float, default=[0.0, 0.01, 1.0], help="shares of changed rows")
    made.add_argument("--match", nargs="+", choices=MATCHED, default=list(MATCHED), help="which plans are measured")
    made.add_argument("--rounds", type=int, default=3, help="times that each is measured; the median counts")
    made.set_defaults(budgets=budgets)
    return made
