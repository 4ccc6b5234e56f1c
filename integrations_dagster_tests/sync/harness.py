"""Runs syncs for real, without Dagster: a DuckDB warehouse, the sandbox over HTTP, the SQLite ledger, all phases."""

from __future__ import annotations

import dataclasses
import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import psutil
import requests

from integrations_dagster.delivery.engine import RetrySettings
from integrations_dagster.ledger.leases import Holder, Lease
from integrations_dagster.ledger.store import Ledger
from integrations_dagster.planner.held import doubts
from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sync.account import connect_account, identify
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.homes import home_of
from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.log import select
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.query import run_query
from integrations_dagster.sync.record import record
from integrations_dagster.sync.results import Plan, Progress, RunReport, Shard, WriteSummary
from integrations_dagster.sync.runs import run_numbers
from integrations_dagster.sync.spec import (
    DestinationSpec,
    FieldSpec,
    ModelSpec,
    SyncSpec,
    TargetSpec,
    WarehouseSpec,
)
from integrations_dagster.sync.state import state_key
from integrations_dagster.sync.write import write
from integrations_dagster.vocabulary import Mode, Partition, Worker

FAST = RetrySettings(attempts=3, base=0.01, cap=0.05, patience=5.0)


def this_process() -> Worker:
    process = psutil.Process()
    return Worker("test-host", process.pid, process.create_time())


class Bench:
    """One storage folder with its warehouse, sandbox and ledger."""

    def __init__(self, folder: Path, endpoint: Endpoint) -> None:
        self.folder = folder
        self.endpoint = endpoint
        self.client = SandboxClient(endpoint)
        self.warehouse = folder / "warehouse.duckdb"
        self.ledger = Ledger.open(folder)
        self.logged: list[str] = []
        self.env: dict[str, str] = {}

    def close(self) -> None:
        self.ledger.close()

    def load(self, table: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
        """Replace a table of the warehouse."""
        declared = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        with duckdb.connect(str(self.warehouse)) as connection:
            connection.execute(f"CREATE OR REPLACE TABLE {table} ({declared})")
            if rows:
                marks = ", ".join("?" for _ in columns)
                # Without the transaction each row is committed, and so flushed to disk, by itself.
                connection.begin()
                connection.executemany(
                    f"INSERT INTO {table} VALUES ({marks})", [[row.get(name) for name in columns] for row in rows]
                )
                connection.commit()

    def model(self, name: str, sql: str, *key: str, partitioned: bool = False) -> ModelSpec:
        path = self.folder / f"{name}.sql"
        path.write_text(sql, "utf-8")
        return ModelSpec(name, path, key or ("id",), WarehouseSpec("warehouse", "duckdb", self.warehouse), partitioned)

    def crm(self, timeout: float = 5.0, in_flight: int = 4) -> DestinationSpec:
        """The sandbox's HubSpot; `timeout` in seconds."""
        return DestinationSpec("crm", "hubspot", TargetSpec("sandbox", sandbox=True), timeout, in_flight)

    def contacts(self, model: ModelSpec, mode: Mode = Mode.UPSERT, **changes: Any) -> SyncSpec:
        """A sync of (id, email, firstname) to HubSpot contacts."""
        spec = SyncSpec(
            name="contacts",
            model=model,
            destination=self.crm(),
            object="contacts",
            mode=mode,
            match={"email": "email"},
            fields=(FieldSpec("email", "email"), FieldSpec("firstname", "firstname")),
            source="defs/contacts/defs.yaml:1",
        )
        return dataclasses.replace(spec, **changes)

    def context(
        self, run_id: str | None = None, alive: Callable[[Holder], bool] = lambda holder: is_alive(holder)
    ) -> RunContext:
        return RunContext(
            storage=self.folder,
            ledger=self.ledger,
            run_id=run_id or f"run-{uuid.uuid4().hex[:8]}",
            worker=this_process(),
            alive=alive,
            log=self.logged.append,
            env=self.env,
        )

    def query(self, model: ModelSpec, partitions: Sequence[Partition] = ()) -> None:
        run_query(model, self.folder, f"query-{uuid.uuid4().hex[:8]}", partitions, self.logged.append, env=self.env)

    def plan(
        self, sync: SyncSpec, ctx: RunContext, partitions: Sequence[Partition] = (), options: PlanOptions | None = None
    ) -> Plan:
        self.query(sync.model, partitions)
        return plan(sync, ctx, partitions, options)

    def plan_only(self, sync: SyncSpec) -> Plan:
        """What a run would do, by a run that goes no further and gives the sync back."""
        ctx = self.context()
        made = self.plan(sync, ctx)
        self.ledger.release(Lease(state_key(sync, made.account), made.run_id, made.fence))
        return made

    def write(self, sync: SyncSpec, ctx: RunContext, shards: Sequence[Shard]) -> list[WriteSummary]:
        results: dict[int, WriteSummary] = {}
        errors: list[BaseException] = []

        def one(shard: Shard) -> None:
            try:
                results[shard.index] = write(sync, ctx, shard, _ignore, retry=FAST)
            except BaseException as error:  # noqa: BLE001 (raised below)
                errors.append(error)

        threads = [threading.Thread(target=one, args=(shard,)) for shard in shards]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [results[shard.index] for shard in shards]

    def run(
        self,
        sync: SyncSpec,
        partitions: Sequence[Partition] = (),
        options: PlanOptions | None = None,
        ctx: RunContext | None = None,
    ) -> RunReport:
        """Query, plan, write, record."""
        ctx = ctx or self.context()
        made = self.plan(sync, ctx, partitions, options)
        report = record(sync, ctx, made, self.write(sync, ctx, made.shards))
        check_log(self.folder, sync.name, made, report)
        return report

    def account(self, sync: SyncSpec) -> str:
        """What the sync's state is keyed by beside its name."""
        ctx = self.context()
        return identify(sync, ctx, connect_account(sync, ctx))

    def doubtful(self, sync: SyncSpec) -> list[str]:
        """Keys of the rows in doubt."""
        home = home_of(sync, self.context(), self.account(sync))
        return [doubt.key for doubt in doubts(home, home.manifest())]

    def delete_record(self, object_: str, record: str) -> None:
        """Delete a record as a person would at HubSpot."""
        answer = requests.delete(
            f"{self.endpoint.url}/crm/v3/objects/{object_}/{record}",
            headers={"Authorization": f"Bearer {self.endpoint.token}"},
            timeout=10,
        )
        answer.raise_for_status()

    def emails(self) -> dict[str, str | None]:
        """What HubSpot holds: email to first name."""
        return {
            record["properties"]["email"]: record["properties"].get("firstname")
            for record in self.client.records("contacts")
        }


def check_log(storage: Path, sync: str, made: Plan, report: RunReport) -> None:
    """What must hold in every run: the sync log has the counts of the run's metadata."""
    (row,) = check_runs(storage, sync, made.run_id)
    numbers = run_numbers(made, report)
    assert {name: row[name] for name in numbers} == numbers
    assert row["outcome"] == ("failed" if report.failures else "succeeded")


def check_runs(storage: Path, sync: str, run_id: str | None = None) -> list[dict[str, Any]]:
    """The rows of the sync log are, by outcome, those that each run (or one) says; returns the rows of `sync_runs`."""
    only = "WHERE run_id = $run" if run_id is not None else ""
    # One query: each opens the files anew, and this is asked after every run of every test.
    told = select(
        storage,
        f"""WITH counted AS (SELECT run_id, outcome AS logged, late, count(*) AS n FROM sync_log {only} GROUP BY ALL)
        SELECT run_id, runs.* EXCLUDE (run_id, started, ended), logged, late, n
        FROM (SELECT *, true AS there FROM sync_runs {only}) AS runs FULL JOIN counted USING (run_id)""",
        {"run": run_id} if run_id is not None else {},
        sync=sync,
    ).to_pylist()
    logged: dict[str, dict[str, int]] = {}
    runs: dict[str, dict[str, Any]] = {}
    for entry in told:
        assert entry.pop("there"), f"{entry['run_id']} is in the log and not among the runs"
        outcome, late, count = entry.pop("logged"), entry.pop("late"), entry.pop("n")
        runs[entry["run_id"]] = entry
        if outcome is not None and not late:
            logged.setdefault(entry["run_id"], {})[outcome] = count
    for row in runs.values():
        found = logged.get(row["run_id"], {})
        # Rows that were never sent are in no log, and unchanged ones only where the destination said so.
        assert found.pop("unsent", 0) <= row["unsent"], row
        assert found.pop("unchanged", 0) <= row["unchanged"], row
        assert found == {name: row[name] for name in LOGGED if row[name]}, row
        outcomes = sum(row[name] for name in ("created", "updated", "deleted", "rejected", "in_doubt", "unsent"))
        assert outcomes <= row["candidates"], row
        parts = ("added", "changed", "unchanged", "invalid", "held", "excluded")
        assert row["queried"] == sum(row[name] for name in parts), row
    return list(runs.values())


LOGGED = ("created", "updated", "deleted", "rejected", "invalid", "in_doubt")
"""Outcomes that the sync log has a row of each for."""


def is_alive(holder: Holder) -> bool:
    """Whether the holder's process lives."""
    with suppress(psutil.Error):
        return abs(psutil.Process(holder.worker.pid).create_time() - holder.worker.started) < 1 and (
            holder.worker.pid != os.getpid()
        )
    return False


def _ignore(_progress: Progress) -> None:
    return None
