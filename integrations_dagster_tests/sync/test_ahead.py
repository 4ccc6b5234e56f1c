"""Write ops write events ahead of the fold while they send."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from integrations_dagster.planner.state import Home
from integrations_dagster.sync import ahead
from integrations_dagster.sync.record import record
from integrations_dagster.sync.results import Plan
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.sync.harness import Bench, check_log
from integrations_dagster_tests.sync.test_takeover import COLUMNS, Writer, expected, hold, people, wait_until


@pytest.fixture
def sync(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> SyncSpec:
    monkeypatch.setattr(ahead, "EVERY", 10)
    bench.load("people", people(60), COLUMNS)
    model = bench.model("people", "SELECT * FROM people")
    return bench.contacts(model, Mode.UPSERT, batch_rows=10, destination=bench.crm(timeout=3.0, in_flight=2))


def files(bench: Bench, sync: SyncSpec, made: Plan) -> list[Path]:
    folder = Home.of(bench.folder, sync.name, made.account).plan_folder(made.run_id)
    return sorted(folder.glob("ahead1-batches-*"))


def test_what_was_written_ahead_becomes_the_log(bench: Bench, sync: SyncSpec) -> None:
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    hold(bench, applied=True)
    writer = Writer(sync, ctx, made)
    bench.client.wait_held(1)
    wait_until(lambda: bool(files(bench, sync, made)))
    bench.client.release()
    writer.join()
    assert writer.summary is not None
    written = files(bench, sync, made)
    inodes = {path.with_name(path.name.replace("batches", "rows")).stat().st_ino for path in written}
    report = record(sync, ctx, made, [writer.summary])
    assert report.outcomes[Status.CREATED] == 60
    check_log(bench.folder, sync.name, made, report)
    log = list(Home.of(bench.folder, sync.name, made.account).log_folder(made.run_id).glob("rows-*"))
    assert inodes <= {path.stat().st_ino for path in log}, "they were not made once more"
    assert sum(pq.read_metadata(path).num_rows for path in log) == 60
    assert bench.run(sync).candidates == 0
    assert bench.emails() == expected(60, 1)


def test_a_write_op_that_is_run_again_goes_on_where_the_first_ended(bench: Bench, sync: SyncSpec) -> None:
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    hold(bench, applied=True)
    first = Writer(sync, ctx, made)
    bench.client.wait_held(1)
    wait_until(lambda: bool(files(bench, sync, made)))
    second = Writer(sync, ctx, made)
    second.join()
    assert second.summary is not None
    report = record(sync, ctx, made, [second.summary])
    assert report.outcomes[Status.CREATED] + report.outcomes[Status.UPDATED] == 60
    check_log(bench.folder, sync.name, made, report)
    # The answer that the first attempt still waits for comes when all is folded, and its plan folder is gone.
    bench.client.release()
    first.join()
    assert files(bench, sync, made) == []
    assert bench.run(sync).failures == ()
    assert bench.run(sync).candidates == 0
    assert bench.emails() == expected(60, 1)


def test_a_folder_that_cannot_be_written_costs_time_and_nothing_else(bench: Bench, sync: SyncSpec) -> None:
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    Path(made.shards[0].path).with_name(f".ahead-000-{os.getpid()}").touch()
    hold(bench, applied=True)
    writer = Writer(sync, ctx, made)
    bench.client.wait_held(1)
    wait_until(lambda: any("not written ahead any more (FileExistsError)" in line for line in bench.logged))
    bench.client.release()
    writer.join()
    assert writer.summary is not None
    assert files(bench, sync, made) == []
    report = record(sync, ctx, made, [writer.summary])
    assert report.outcomes[Status.CREATED] == 60
    check_log(bench.folder, sync.name, made, report)
