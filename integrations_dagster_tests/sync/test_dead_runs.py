"""Runs that die, wherever that is: each has its row of `sync_runs` once the next has begun, and it fits the log."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import integrations_dagster.sync.doubts as doubting
import integrations_dagster.sync.plan as planning
from integrations_dagster.planner.diff import diff
from integrations_dagster.planner.state import PLAN, Home
from integrations_dagster.sync.doubts import confirm
from integrations_dagster.sync.log import select
from integrations_dagster.sync.record import record
from integrations_dagster.sync.runs import DIED, UNKNOWN_END
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.vocabulary import LeaseLost, Status
from integrations_dagster_tests.sync.flows import COLUMNS, KEYED, PLAIN, VERIFIED, Kind, Place
from integrations_dagster_tests.sync.harness import Bench, check_runs

COUNTED = ("queried", "added", "invalid", "candidates", "created", "rejected", "unsent")


class Death(BaseException):
    """Nothing that comes after it is done."""


def dies(*_arguments: object, **_named: object) -> Any:
    raise Death


def dying(call: Callable[..., Any]) -> Callable[..., Any]:
    """What dies right after it has been done."""

    def once(*arguments: Any, **named: Any) -> Any:
        call(*arguments, **named)
        raise Death

    return once


def gone(_holder: object) -> bool:
    return False


def plan_until(bench: Bench, monkeypatch: pytest.MonkeyPatch, sync: SyncSpec, name: str, *, done: bool) -> None:
    """A run of the id "dead" that dies in its plan, before or right after a call of a function that it makes."""
    with monkeypatch.context() as patch:
        patch.setattr(planning, name, dying(getattr(planning, name)) if done else dies)
        # A process that was killed gives no account of it either.
        patch.setattr(planning, "log_failed_plan", dies)
        with pytest.raises(Death):
            bench.plan(sync, bench.context("dead", alive=gone))


def lose_answers(bench: Bench, kind: Kind, name: str) -> tuple[Place, SyncSpec]:
    """A sync that has seven rows in doubt, which are at the destination."""
    place = Place(kind, name, bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"))
    bench.load("people", place.rows(range(7)), COLUMNS)
    bench.client.faults([{"match": {"path": "*"}, "fault": {"kind": "reset", "applied": True}}])
    assert bench.run(sync, ctx=bench.context("first")).outcomes[Status.IN_DOUBT] == 7
    bench.client.clear_faults()
    return place, sync


def runs_of(bench: Bench, sync: SyncSpec) -> dict[str, dict[str, Any]]:
    """The rows of `sync_runs`, which fit those of the log."""
    check_runs(bench.folder, sync.name)
    rows = select(bench.folder, "SELECT * FROM sync_runs", sync=sync.name).to_pylist()
    return {row["run_id"]: row for row in rows}


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("name", "done"),
    [
        ("resolve", True),
        ("wait_for_open_batches", False),
        ("hide_payloads", False),
        ("log_dead_runs", True),
        ("drop_plans", True),
        ("diff", True),
        ("leave_hint", True),
    ],
)
def test_a_run_that_dies_in_its_plan_has_its_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, done: bool
) -> None:
    """Also one that has found out what became of rows in doubt: the log has these answers under its id."""
    place, sync = lose_answers(bench, VERIFIED, "dead_plan")
    plan_until(bench, monkeypatch, sync, name, done=done)
    report = bench.run(sync, ctx=bench.context("next", alive=gone))
    assert (report.counts.held, report.candidates, report.failures) == (0, 0, ())
    runs = runs_of(bench, sync)
    assert runs.keys() == {"first", "dead", "next"}
    dead = runs["dead"]
    assert (dead["outcome"], dead["reason"], [dead[column] for column in COUNTED]) == ("failed", DIED, [0] * 7)
    assert runs["first"]["started"] < dead["started"] < runs["next"]["started"]
    assert place.made() == {str(key): 1 for key in range(7)}


def test_a_run_that_dies_between_the_answer_to_rows_in_doubt_and_its_fold_has_its_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken up again by key: the log has the answer under the id of the run that sent them first."""
    _, sync = lose_answers(bench, KEYED, "dead_keyed")
    monkeypatch.setattr(doubting, "wait_for_open_batches", dies)
    with monkeypatch.context() as patch:
        patch.setattr(planning, "log_failed_plan", dies)
        with pytest.raises(Death):
            bench.plan(sync, bench.context("dead", alive=gone))
    monkeypatch.undo()
    report = bench.run(sync, ctx=bench.context("next", alive=gone))
    assert (report.counts.held, report.candidates, report.failures) == (0, 0, ())
    assert {name: row["reason"] for name, row in runs_of(bench, sync).items()}["dead"] == DIED


@pytest.mark.quick(1)
@pytest.mark.parametrize("text", ["", "{}", '{"run_id": "dead", "shards": [{"of": "an older version"}]}'])
def test_a_dead_run_whose_plan_cannot_be_read_has_what_the_log_tells(bench: Bench, text: str) -> None:
    place = Place(PLAIN, "unreadable", bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"))
    bad: list[dict[str, object]] = [{"id": None, "email": "nobody@example.com"}]
    bad += [{**row, "firstname": "poison"} for row in place.rows([10])]
    bench.load("people", [*place.rows([*range(10), *range(11, 21)]), *bad], COLUMNS)
    dead = bench.context("dead", alive=gone)
    bench.write(sync, dead, bench.plan(sync, dead).shards)
    home = Home.of(bench.folder, sync.name, bench.account(sync))
    (home.plan_folder("dead") / PLAN).write_text(text, "utf-8")
    bench.run(sync, ctx=bench.context("next", alive=gone))
    row = runs_of(bench, sync)["dead"]
    told = {column: row[column] for column in COUNTED}
    assert (row["outcome"], row["reason"]) == ("failed", DIED)
    numbers = {"queried": 22, "added": 21, "invalid": 1, "candidates": 21, "created": 20, "rejected": 1, "unsent": 0}
    assert told == numbers


def test_a_dead_run_has_its_row_although_the_storage_folder_has_moved(bench: Bench, tmp_path: Path) -> None:
    place = Place(PLAIN, "moved", bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"))
    bench.load("people", place.rows(range(21)), COLUMNS)
    dead = bench.context("dead", alive=gone)
    made = bench.plan(sync, dead)
    bench.write(sync, dead, made.shards)
    bench.close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in [path for path in tmp_path.iterdir() if path != elsewhere]:
        path.rename(elsewhere / path.name)
    moved = Bench(elsewhere, bench.endpoint)
    try:
        sync = place.sync(moved.model("people", "SELECT * FROM people"))
        moved.run(sync, ctx=moved.context("next", alive=gone))
        row = runs_of(moved, sync)["dead"]
        assert (row["reason"].startswith(DIED), row["candidates"], row["created"], row["model_version"]) == (
            True,
            21,
            21,
            made.versions[-1].name,
        )
    finally:
        moved.close()


def test_a_run_that_was_replaced_while_it_planned_has_its_row(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has replaced it has counted what it left: its plan, which finds a row invalid, comes to nothing."""
    place = Place(PLAIN, "replaced", bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"))
    bench.load("people", [*place.rows(range(7)), {"id": None, "email": "nobody@example.com"}], COLUMNS)
    bench.run(sync, ctx=bench.context("first"))
    second = bench.context("second", alive=gone)
    plans = []

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.undo()
        plans.append(bench.plan(sync, second))
        return diff(*arguments)

    monkeypatch.setattr(planning, "diff", overtaken)
    replaced = bench.context("replaced", alive=gone)
    with pytest.raises(LeaseLost):
        bench.plan(sync, replaced)
    record(sync, second, plans[0], bench.write(sync, second, plans[0].shards))
    bench.run(sync, ctx=bench.context("next"))
    runs = runs_of(bench, sync)
    assert runs.keys() == {"first", "second", "replaced", "next"}
    assert runs["replaced"]["outcome"] == "failed"


def test_what_a_person_confirms_has_a_row_of_its_own(bench: Bench) -> None:
    _, sync = lose_answers(bench, PLAIN, "confirmed")
    assert confirm(sync, bench.context("unasked"), ["99"]) == []
    assert confirm(sync, bench.context("person"), ["1", "2"]) == ["1", "2"]
    row = runs_of(bench, sync)["person"]
    assert (row["outcome"], row["candidates"]) == ("succeeded", 0)
    assert "confirmed that 2 row(s) in doubt" in row["notes"]
    assert bench.run(sync, ctx=bench.context("next")).counts.held == 5
    assert runs_of(bench, sync).keys() == {"first", "person", "next"}


def test_a_confirmation_that_dies_has_a_row(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sync = lose_answers(bench, PLAIN, "half_confirmed")
    monkeypatch.setattr(doubting, "_settle", dying(doubting._settle))
    with pytest.raises(Death):
        confirm(sync, bench.context("person"), ["1", "2"])
    monkeypatch.undo()
    assert bench.run(sync, ctx=bench.context("next")).counts.held == 5
    assert runs_of(bench, sync)["person"]["reason"] == DIED


def test_answers_of_a_run_whose_log_was_deleted_have_a_row(bench: Bench) -> None:
    """Its rows were in doubt for longer than the log is kept."""
    _, sync = lose_answers(bench, KEYED, "outlived")
    home = Home.of(bench.folder, sync.name, bench.account(sync))
    shutil.rmtree(home.log_folder("first"))
    assert bench.run(sync, ctx=bench.context("next")).counts.held == 0
    row = runs_of(bench, sync)["first"]
    assert (row["outcome"], row["reason"], row["candidates"]) == ("failed", UNKNOWN_END, 0)
