"""The sync log's tables in a warehouse: the same as those of the files, after kills, repetitions and the retention.

After every run of the bench, all three tables are compared with what SQL over the files says (`check_copy`).
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]
import pytest

from integrations_dagster.planner import warehouse_home, warehouse_log
from integrations_dagster.planner.log import TABLES
from integrations_dagster.planner.warehouse_home import WarehouseHome
from integrations_dagster.sandbox.endpoint import Endpoint, state_folder
from integrations_dagster.sync import record as recording
from integrations_dagster.sync.homes import home_of, move_home
from integrations_dagster.sync.log import read_log, select
from integrations_dagster.sync.published import publish_log
from integrations_dagster.sync.record import record
from integrations_dagster.sync.runs import DIED, run_numbers
from integrations_dagster.sync.spec import EMBEDDED, WAREHOUSE, DestinationSpec, FieldSpec, ModelSpec, SyncSpec
from integrations_dagster.vocabulary import GuardTripped, Misconfigured, Mode, Status
from integrations_dagster.warehouses.postgres_store import PostgresStore
from integrations_dagster_tests.postgres import Postgres
from integrations_dagster_tests.sync.harness import check_log
from integrations_dagster_tests.sync.postgres_bench import PASSWORD, URL, PostgresBench

COLUMNS = {"id": "integer", "email": "text", "firstname": "text"}


class Killed(BaseException):
    """What nothing catches."""


def people(bench: PostgresBench, count: int, version: int = 1) -> None:
    rows = [{"id": i, "email": f"w{i}@example.com", "firstname": f"{i} v{version}"} for i in range(count)]
    bench.load("people", rows, COLUMNS)


@pytest.fixture
def bench(tmp_path: Path, sandbox: Endpoint, sandbox_storage: Path, postgres: Postgres) -> Iterator[PostgresBench]:
    (tmp_path / "sandbox").mkdir()
    shutil.copy(state_folder(sandbox_storage) / "sandbox.json", tmp_path / "sandbox" / "sandbox.json")
    bench = PostgresBench(tmp_path, sandbox, postgres)
    people(bench, 12)
    yield bench
    bench.close()


@pytest.fixture
def model(bench: PostgresBench) -> ModelSpec:
    return bench.model("people", "SELECT * FROM people")


def hook(bench: PostgresBench, model: ModelSpec, name: str, **changes: Any) -> SyncSpec:
    """A sync to a receiver of its own, with its state in the warehouse."""
    destination = replace(DestinationSpec("hook", "webhook", bench.crm().target), name=name)
    fields = (FieldSpec("email", "email", sensitive=True), FieldSpec("firstname", "firstname"))
    return bench.sync_in(
        WAREHOUSE, model, name=name, object="people", match={}, destination=destination, fields=fields, **changes
    )


def publish(bench: PostgresBench, sync: SyncSpec) -> tuple[str, ...]:
    ctx = bench.context()
    return publish_log(ctx, home_of(sync, ctx, bench.account(sync)))


def test_a_reader_asks_for_counts_that_are_the_runs_metadata(bench: PostgresBench, model: ModelSpec) -> None:
    sync = bench.sync_in(WAREHOUSE, model, Mode.MIRROR, removal_limit=1.0)
    bench.client.faults([{"fault": {"kind": "reject_rows", "with": "5 v1", "message": "N\0o.", "code": "BAD"}}])
    ctx = bench.context("first")
    made = bench.plan(sync, ctx)
    report = record(sync, ctx, made, bench.write(sync, ctx, made.shards))
    bench.client.clear_faults()
    bench.check_copy("contacts")
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.REJECTED]) == (11, 1)
    people(bench, 9, 2)
    bench.run(sync)

    # What the documentation says that a reader is granted, and no more.
    reader = bench.reader
    bench.postgres.execute(
        bench.database,
        f"GRANT USAGE ON SCHEMA integrations TO {reader}",
        f"GRANT SELECT ON integrations.sync_runs, integrations.sync_log, integrations.sync_snapshot TO {reader}",
    )
    # Privileges outlive the view's next change.
    bench.run(hook(bench, model, "copied"))
    with psycopg2.connect(bench.postgres.url(bench.database, reader, PASSWORD)) as connection:
        cursor = connection.cursor()
        numbers = run_numbers(made, report)
        cursor.execute(f"SELECT {', '.join(numbers)} FROM integrations.sync_runs WHERE run_id = 'first'")
        assert [dict(zip(numbers, row, strict=True)) for row in cursor.fetchall()] == [numbers]
        cursor.execute(
            "SELECT outcome, count(*) FROM integrations.sync_log WHERE NOT late AND run_id = 'first' GROUP BY outcome"
        )
        assert dict(cursor.fetchall()) == {"created": 11, "rejected": 1}
        cursor.execute("SELECT sync, count(*) FROM integrations.sync_snapshot GROUP BY sync")
        assert dict(cursor.fetchall()) == {"contacts": 9, "copied": 9}
        for name, columns in TABLES.items():
            cursor.execute(f"SELECT * FROM integrations.{name} LIMIT 1")
            assert [column.name for column in cursor.description] == list(columns)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("SELECT * FROM integrations.states")
    connection.close()
    # A receiver knows a row by its key: its sensitive email is in no table.
    for name in TABLES:
        rows = bench.rows(f"SELECT t::text FROM integrations.{name} t WHERE sync = 'copied'")
        assert rows
        assert "example.com" not in str(rows)


def killed_in(monkeypatch: pytest.MonkeyPatch, module: object, name: str, work: Callable[[], object]) -> None:
    def dies(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, name, dies)
        with pytest.raises(Killed):
            work()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (recording, "log_run"),  # between fold and log
        pytest.param(recording, "publish_log", marks=pytest.mark.slow),  # between log and copy
        pytest.param(warehouse_home, "copy_runs", marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_kill_leaves_out_is_copied_by_a_repeated_record_and_by_the_next_plan(
    bench: PostgresBench, model: ModelSpec, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    sync = hook(bench, model, f"killed_{name.strip('_')}")
    bench.run(sync)
    for again in (True, False):
        people(bench, 12, 2 + again)
        ctx = bench.context(f"killed-{again}", alive=lambda _holder: False)
        made = bench.plan(sync, ctx)
        written = bench.write(sync, ctx, made.shards)
        killed_in(monkeypatch, module, name, lambda: record(sync, ctx, made, written))  # noqa: B023
        assert bench.rows(f"SELECT * FROM integrations.sync_log WHERE run_id = '{ctx.run_id}'") == []
        if again:
            report = record(sync, ctx, made, written)
            check_log(bench.folder, sync.name, made, report)
            bench.check_copy(sync.name)
            assert record(sync, ctx, made, written) == report
        else:
            bench.run(sync, ctx=bench.context(alive=lambda _holder: False))
    counted = bench.rows(
        f"SELECT run_id, count(*) FROM integrations.sync_log WHERE sync = '{sync.name}' AND run_id LIKE 'killed-%' "
        "GROUP BY run_id ORDER BY 1"
    )
    assert counted == [("killed-False", 12), ("killed-True", 12)]


@pytest.mark.quick(1)
@pytest.mark.parametrize("method", ["ingest", "commit"])
def test_a_copy_that_is_killed_in_its_transaction_changes_nothing(
    bench: PostgresBench, model: ModelSpec, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    sync = hook(bench, model, "halfway")
    bench.run(sync)
    bench.postgres.execute(bench.database, "UPDATE integrations.sync_published SET version = ''")
    home = home_of(sync, bench.context(), bench.account(sync))
    assert isinstance(home, WarehouseHome)
    state = home.state()
    assert state is not None
    with home.open() as store:
        begin = warehouse_log._replace_runs

        def dies(*arguments: Any) -> None:
            killed_in(monkeypatch, PostgresStore, method, lambda: begin(*arguments))
            raise Killed

        monkeypatch.setattr(warehouse_log, "_replace_runs", dies)
        with pytest.raises(Killed):
            warehouse_log.copy_runs(store, state, home)
        monkeypatch.setattr(warehouse_log, "_replace_runs", begin)
    bench.check_copy(sync.name)
    assert bench.rows("SELECT DISTINCT version FROM integrations.sync_published") == [("",)]
    assert publish(bench, sync) == ()
    bench.check_copy(sync.name)
    assert home.publish() == 0


def test_a_dead_run_and_a_failed_plan_are_in_the_tables(bench: PostgresBench, model: ModelSpec) -> None:
    sync = hook(bench, model, "dead", mode=Mode.MIRROR)
    dead = bench.context("dead", alive=lambda _holder: False)
    bench.write(sync, dead, bench.plan(sync, dead).shards)
    bench.run(sync, ctx=bench.context("next", alive=lambda _holder: False))
    asked = "SELECT outcome, reason, created FROM integrations.sync_runs WHERE sync = 'dead' AND run_id = '{}'"
    assert bench.rows(asked.format("dead")) == [("failed", DIED, 12)]
    people(bench, 0)
    with pytest.raises(GuardTripped) as caught:
        bench.run(sync, ctx=bench.context("guarded"))
    assert bench.rows(asked.format("guarded")) == [("failed", str(caught.value), 0)]


@pytest.mark.slow
def test_old_runs_are_deleted_there_too(bench: PostgresBench, model: ModelSpec) -> None:
    sync = hook(bench, model, "old", log_days=10)
    bench.run(sync, ctx=bench.context("old"))
    home = home_of(sync, bench.context(), bench.account(sync))
    past = time.time() - 11 * 86_400
    for path in home.log_folder("old").iterdir():
        os.utime(path, (past, past))
    people(bench, 3, 2)
    bench.run(sync, ctx=bench.context("young"))
    for table in ("sync_runs", "sync_log", "sync_published"):
        found = bench.rows(f"SELECT DISTINCT run_id FROM integrations.{table} WHERE sync = 'old'")
        assert found == [("young",)], table


def test_a_copy_that_fails_stops_no_delivery_and_is_told(bench: PostgresBench, model: ModelSpec) -> None:
    sync = hook(bench, model, "refused")
    bench.run(sync)
    bench.postgres.execute(bench.database, f"REVOKE ALL ON integrations.sync_log FROM {bench.keeper}")
    bench.postgres.execute(bench.database, f"ALTER TABLE integrations.sync_log OWNER TO {bench.postgres.user}")
    people(bench, 12, 2)
    ctx = bench.context("untold")
    made = bench.plan(sync, ctx)
    report = record(sync, ctx, made, bench.write(sync, ctx, made.shards))
    assert (report.failures, report.outcomes[Status.UPDATED]) == ((), 12)
    assert any("could not be copied into the warehouse; the next run tries again" in told for told in bench.logged)
    # Dropped by hand: all runs are copied again, by whoever comes first.
    bench.postgres.execute(bench.database, "DROP TABLE integrations.sync_log")
    bench.run(sync)


def test_the_state_in_the_warehouse_is_in_sql_over_the_files(
    bench: PostgresBench, model: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, files = hook(bench, model, "inside"), replace(hook(bench, model, "beside"), home=EMBEDDED)
    files = replace(files, model=replace(model, homes=frozenset({EMBEDDED})))
    bench.run(inside)
    bench.run(files)
    counted = "SELECT sync, count(*) AS n FROM sync_snapshot GROUP BY sync ORDER BY sync"
    both = [{"sync": "beside", "n": 12}, {"sync": "inside", "n": 12}]
    assert select(bench.folder, counted, env=bench.env).to_pylist() == both
    monkeypatch.setenv(URL, bench.env[URL])
    assert read_log(counted, bench.folder).to_dict("records") == both
    monkeypatch.delenv(URL)
    with pytest.raises(Misconfigured, match=rf"'dwh'.*{URL} is not set.*integrations.sync_snapshot"):
        read_log(counted, bench.folder)
    # The rest is in files for every home.
    assert list(read_log("SELECT created FROM sync_runs", bench.folder)["created"]) == [12, 12]
    # A manifest that lost the last number, as a kill between two commits leaves it, is mended.
    home = home_of(inside, bench.context(), bench.account(inside))
    assert isinstance(home, WarehouseHome)
    state = home.state()
    assert state is not None
    home.in_force(state, 0)
    assert read_log("SELECT * FROM sync_log WHERE sync = 'inside'", bench.folder).empty
    publish(bench, inside)
    bench.check_copy("inside")


def test_a_moved_home_takes_its_part_of_the_tables_along(bench: PostgresBench, model: ModelSpec) -> None:
    sync, other = hook(bench, model, "moved"), hook(bench, model, "stays")
    bench.run(sync)
    bench.run(other)
    move_home(sync, bench.context(), EMBEDDED)
    for table in (*TABLES, "sync_published"):
        assert bench.rows(f"SELECT DISTINCT sync FROM integrations.{table}") == [("stays",)], table
    move_home(sync, bench.context(), WAREHOUSE)
    for name in ("moved", "stays"):
        bench.check_copy(name)


def test_syncs_that_begin_at_the_same_moment_share_the_tables(bench: PostgresBench, model: ModelSpec) -> None:
    syncs = [hook(bench, model, f"at_once_{n}") for n in range(4)]
    bench.query(syncs[0].model)
    for sync in syncs:
        ctx = bench.context()
        made = bench.plan(sync, ctx)
        record(sync, ctx, made, bench.write(sync, ctx, made.shards))
    names = ("sync_published", "sync_runs", "sync_log", "sync_shown")
    bench.postgres.execute(
        bench.database, "DROP VIEW integrations.sync_snapshot", *(f"DROP TABLE integrations.{name}" for name in names)
    )
    told: list[tuple[str, ...]] = []
    together = threading.Barrier(len(syncs))

    def begin(sync: SyncSpec) -> None:
        together.wait()
        told.append(publish(bench, sync))

    threads = [threading.Thread(target=begin, args=(sync,)) for sync in syncs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [()] * len(syncs)
    for sync in syncs:
        bench.check_copy(sync.name)
