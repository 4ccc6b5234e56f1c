"""The account of a run whose requests must not be repeated: which answers count for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from integrations_dagster.planner.diff import Diff
from integrations_dagster.sync.report import make_report
from integrations_dagster.sync.results import Plan, RunReport, Shard
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, ModelSpec, SyncSpec, TargetSpec, WarehouseSpec
from integrations_dagster.vocabulary import Counts, Mode, Status
from integrations_dagster_tests.planner.world import STATE, WORKER, Fate, World

MODEL = {"a": ("x@x.org", "1"), "b": ("y@x.org", "2"), "c": ("z@x.org", "3")}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, mode=Mode.INSERT, repeatable=False, batch_rows=1)
    yield world
    world.close()


def account(world: World, run_id: str, counts: Counts, rows: list[int]) -> RunReport:
    warehouse = WarehouseSpec("warehouse", "duckdb", world.folder / "warehouse.duckdb")
    sync = SyncSpec(
        name="contacts",
        model=ModelSpec("contacts", world.folder / "contacts.sql", ("key",), warehouse),
        destination=DestinationSpec("crm", "hubspot", TargetSpec("sandbox", sandbox=True)),
        object="contacts",
        mode=Mode.INSERT,
        fields=(FieldSpec("name", "name"),),
    )
    # The shard files are gone with the fold; nothing in them was tried before.
    empty = world.folder / "none.parquet"
    pq.write_table(pq.read_table(world.folder / "model-1.parquet").select([]).append_column("ordinal", [[0, 1, 2]])
                   .append_column("again", [[False, False, False]]), empty)  # fmt: skip
    shards = tuple(Shard(run_id, index, str(empty), count, 1, "crm") for index, count in enumerate(rows))
    plan = Plan(run_id, "crm", 1, counts, shards, (), 0.0)
    return make_report(sync, world.home, plan, [], [], time.monotonic())


def doubtful(world: World) -> Diff:
    result = world.run(MODEL, lambda index: Fate.LATE if index < 2 else Fate.ANSWERED)
    world.time += 100
    world.ledger.give_up_expired(STATE)
    return result


def refold(world: World) -> None:
    world.fold(world.ledger.acquire(STATE, "run-fold", WORKER, alive=lambda _holder: False))


def test_rows_without_an_answer_are_in_doubt(world: World) -> None:
    result = doubtful(world)
    refold(world)
    report = account(world, "run-1", result.counts, [rows for _, rows in result.shards])
    assert (report.outcomes[Status.IN_DOUBT], report.outcomes[Status.CREATED]) == (2, 1)
    assert [bad.status for bad in report.bad_rows] == [Status.IN_DOUBT] * 2


def test_an_answer_that_came_late_but_before_the_account_counts(world: World) -> None:
    result = doubtful(world)
    world.answer_late()
    refold(world)
    report = account(world, "run-1", result.counts, [rows for _, rows in result.shards])
    assert (report.outcomes[Status.IN_DOUBT], report.outcomes[Status.CREATED]) == (0, 3)
    assert sum(report.outcomes.values()) == report.candidates == 3


def test_what_a_run_finds_out_about_an_earlier_one_is_not_its_own_outcome(world: World) -> None:
    doubtful(world)
    world.look_up()
    (run_id,) = [path.name for path in (world.home.folder / "log").iterdir() if path.name.endswith("look-up")]
    report = account(world, run_id, Counts(), [])
    assert sum(report.outcomes.values()) == 0
