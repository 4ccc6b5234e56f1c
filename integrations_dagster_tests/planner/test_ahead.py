"""Events that were written ahead change nothing but the time that a fold takes, whatever became of their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from integrations_dagster.ledger.leases import ShardLease
from integrations_dagster.ledger.store import Ledger
from integrations_dagster.ledger.writing import OpenBatch
from integrations_dagster.planner.ahead import connect_ahead, last_ahead, write_ahead, written_ahead
from integrations_dagster.planner.events import EventFiles
from integrations_dagster.planner.fold import fold
from integrations_dagster.planner.state import PLAN, Home
from integrations_dagster.vocabulary import Action, Change, Outcome, Row, Status, Traffic
from integrations_dagster_tests.planner.world import STATE, WORKER

BATCHES = 6


class Written:
    """A run whose two shards have answered batches in the ledger, by turns."""

    def __init__(self, folder: Path) -> None:
        self.time = 1000.0
        self.ledger = Ledger.open(folder, clock=lambda: self.time)
        self.home = Home(folder / "home")
        self.lease = self.ledger.acquire(STATE, "run", WORKER, alive=lambda _holder: False)
        self.shards = [self.ledger.begin_shard(self.lease, index, WORKER) for index in range(2)]
        self.plan = self.home.plan_folder("run")
        self.plan.mkdir(parents=True)
        (self.plan / PLAN).touch()
        self.made = 0
        for number in range(BATCHES):
            self.answer(self.open(self.shards[number % 2]))

    def open(self, shard: ShardLease) -> OpenBatch:
        self.made += 1
        rows = tuple(
            Row(
                ordinal=self.made * 2 + place,
                key=f"k{self.made}-{place}",
                match=f"m{self.made}-{place}",
                partition="",
                change=Change.ADDED,
                action=Action.UPSERT,
                destination_id=None,
                source_digest=f"s{self.made}",
                payload_digest=f"p{self.made}",
            )
            for place in range(2)
        )
        key = f"{shard.lease.run_id}-{self.made}"
        return self.ledger.open_batch(shard, rows, idempotency_key=key, repeatable=True, timeout=10)

    def answer(self, batch: OpenBatch) -> None:
        outcomes = tuple(Outcome(Status.CREATED, f"id-{row.key}") for row in batch.rows)
        self.ledger.complete_batch(batch, outcomes, Traffic(requests=1))

    def write_ahead(self, shard: int = 0, after: int | None = None) -> None:
        last = last_ahead(self.plan, shard) if after is None else after
        with connect_ahead(self.plan, shard) as connection:
            write_ahead(connection, self.plan, shard, self.ledger.completed_after(self.shards[shard], last))

    def ahead(self) -> tuple[list[EventFiles], list[int]]:
        last = self.home.manifest().last_number
        return written_ahead(self.home.plan_folders(), self.ledger.closed_since(STATE, last))

    def fold(self, *, swap: bool = True) -> None:
        ahead, missing = self.ahead()
        folded = fold(self.home, self.ledger.closed_batches(STATE, missing), now=self.time, ahead=ahead)
        if swap:
            self.home.swap(folded.manifest)

    def state(self) -> dict[str, Any]:
        """The snapshot, and rows and batches of the log."""

        def rows(paths: list[Path]) -> list[tuple[Any, ...]]:
            found = [tuple(row.values()) for path in paths for row in pq.read_table(path).to_pylist()]
            return sorted(found, key=repr)

        log = self.home.log_folder("run")
        snapshot = [self.home.folder / self.home.manifest().snapshot]
        return {
            "last": self.home.manifest().last_number,
            "snapshot": rows(snapshot),
            **{kind: rows(list(log.glob(f"{kind}-*.parquet"))) for kind in ("rows", "batches")},
        }


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Written]]:
    made: list[Written] = []

    def one(name: str) -> Written:
        made.append(Written(tmp_path / name))
        return made[-1]

    yield one
    for written in made:
        written.ledger.close()


@pytest.fixture
def expected(make: Callable[[str], Written]) -> dict[str, Any]:
    """The state where nothing was written ahead."""
    plain = make("plain")
    plain.fold()
    state = plain.state()
    assert len(state["snapshot"]) == len(state["rows"]) == 2 * BATCHES
    assert state["last"] == len(state["batches"]) == BATCHES
    return state


@pytest.fixture
def written(make: Callable[[str], Written], expected: dict[str, Any]) -> Written:
    assert expected
    return make("written")


def test_the_state_is_that_of_a_fold_without_them(written: Written, expected: dict[str, Any]) -> None:
    written.write_ahead(0)
    files, missing = written.ahead()
    assert [(part.first, part.last) for part in files] == [(1, 5)]
    assert missing == [2, 4, 6]
    written.fold()
    assert written.state() == expected


def test_all_of_them_may_have_been_written_ahead(written: Written, expected: dict[str, Any]) -> None:
    for shard in range(2):
        written.write_ahead(shard)
    assert written.ahead()[1] == []
    written.fold()
    assert written.state() == expected


def test_a_further_file_begins_behind_the_last_one(written: Written) -> None:
    written.write_ahead()
    written.write_ahead()
    assert len(list(written.plan.glob("ahead1-rows-*"))) == 1, "there was nothing new"
    written.answer(written.open(written.shards[0]))
    written.write_ahead()
    assert [(part.first, part.last) for part in written.ahead()[0]] == [(1, 5), (7, 7)]


def truncate(written: Written) -> None:
    (path,) = written.plan.glob("ahead1-rows-*")
    path.write_bytes(path.read_bytes()[:-10])


def empty(written: Written) -> None:
    (path,) = written.plan.glob("ahead1-batches-*")
    path.write_bytes(b"")


def lose_a_row(written: Written) -> None:
    (path,) = written.plan.glob("ahead1-rows-*")
    pq.write_table(pq.read_table(path).slice(1), path)


def lose_the_rows(written: Written) -> None:
    (path,) = written.plan.glob("ahead1-rows-*")
    path.unlink()


def lose_the_batches(written: Written) -> None:
    """As a kill between the two files leaves it."""
    (path,) = written.plan.glob("ahead1-batches-*")
    path.unlink()


def change(name: str, value: object) -> Callable[[Written], None]:
    """As if the file were of another ledger, whose numbers were given again."""

    def damage(written: Written) -> None:
        (path,) = written.plan.glob("ahead1-batches-*")
        rows = pq.read_table(path)
        place = rows.column_names.index(name)
        kind = rows.schema.field(name).type
        told = [*rows.column(name).to_pylist()[:-1], value]
        pq.write_table(rows.set_column(place, name, pa.array(told, kind)), path)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        empty,
        lose_a_row,
        lose_the_rows,
        lose_the_batches,
        change("number", 77),
        change("idempotency_key", "another"),
        change("attempt", 2),
    ],
)
def test_a_file_that_is_not_what_the_ledger_has_does_not_count(
    written: Written, expected: dict[str, Any], damage: Callable[[Written], None]
) -> None:
    written.write_ahead()
    damage(written)
    assert written.ahead() == ([], list(range(1, BATCHES + 1)))
    written.fold()
    assert written.state() == expected


def test_what_two_attempts_wrote_counts_once(written: Written, expected: dict[str, Any]) -> None:
    """The first attempt was thought dead, and goes on."""
    written.write_ahead(after=2)
    written.write_ahead(after=0)
    assert [(part.first, part.last) for part in written.ahead()[0]] == [(1, 5)]
    written.fold()
    assert written.state() == expected


def test_a_fold_that_was_killed_before_the_swap_is_done_again(written: Written, expected: dict[str, Any]) -> None:
    written.write_ahead()
    written.fold(swap=False)
    lose_the_batches(written)
    written.fold()
    assert written.state() == expected


def test_batches_that_the_state_has_are_not_taken_once_more(written: Written, expected: dict[str, Any]) -> None:
    """A kill came between the swap and the end of the plan folder."""
    written.write_ahead()
    written.fold()
    assert written.ahead() == ([], [])
    written.fold()
    assert written.state() == expected


def test_only_completed_batches_are_written(written: Written) -> None:
    given_up, late = written.open(written.shards[0]), written.open(written.shards[0])
    written.ledger.give_up_batch(given_up, Traffic())
    written.time += 100
    written.ledger.give_up_expired(STATE)
    written.answer(late)
    written.write_ahead()
    (files,), missing = written.ahead()
    assert (files.first, files.last) == (1, 5)
    assert missing == [2, 4, 6, 7, 8, 10], "two were given up, and one answered late"
    written.fold()
    unknown = [row for row in written.state()["snapshot"] if row[4] is None]
    assert {row[0].partition("-")[0] for row in unknown} == {"k7", "k8"}


def test_the_plan_folder_of_a_run_that_was_replaced_is_not_made_again(written: Written) -> None:
    missing = written.home.plan_folder("gone")
    batches = written.ledger.completed_after(written.shards[0], 0)
    with connect_ahead(missing, 0) as connection, pytest.raises(FileNotFoundError):
        write_ahead(connection, missing, 0, batches)
    assert not missing.exists()


def test_a_run_that_died_is_logged_as_its_own(written: Written) -> None:
    written.write_ahead()
    lease = written.ledger.acquire(STATE, "next", WORKER, alive=lambda _holder: False)
    shard = written.ledger.begin_shard(lease, 0, WORKER)
    written.answer(written.open(shard))
    written.fold()
    assert len(written.state()["rows"]) == 2 * BATCHES
    assert sum(pq.read_metadata(path).num_rows for path in written.home.log_folder("next").glob("rows-*")) == 2
