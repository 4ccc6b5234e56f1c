"""Rows that wait: in doubt, rejected with growing spacing, parked; and how they are sent again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from integrations_dagster.planner.candidates import Release
from integrations_dagster.planner.events import OUTCOMES
from integrations_dagster.planner.held import Spacing, doubts, held_counts
from integrations_dagster.planner.rows import table
from integrations_dagster.vocabulary import ABSENT, Action, Mode, Outcome, Status, Traffic
from integrations_dagster.warehouses.base import WarehouseAddress
from integrations_dagster_tests.planner.world import REJECTED_NAME, STATE, WORKER, Fate, World

BOTH = {"a": ("x@x.org", "1"), "b": ("y@x.org", "2")}
REFUSED = {"a": ("x@x.org", REJECTED_NAME), "b": ("y@x.org", "2")}


@pytest.fixture
def insert(tmp_path: Path, warehouse: WarehouseAddress | None) -> Iterator[World]:
    """Creations that must not be repeated."""
    world = World(tmp_path, mode=Mode.INSERT, repeatable=False, warehouse=warehouse)
    yield world
    world.close()


@pytest.fixture
def upsert(tmp_path: Path, warehouse: WarehouseAddress | None) -> Iterator[World]:
    world = World(tmp_path, spacing=Spacing(max_attempts=4, wait=1000.0, cap=1500.0), warehouse=warehouse)
    yield world
    world.close()


@pytest.fixture
def mirror(tmp_path: Path, warehouse: WarehouseAddress | None) -> Iterator[World]:
    world = World(tmp_path, mode=Mode.MIRROR, spacing=Spacing(max_attempts=3, wait=1000.0), warehouse=warehouse)
    yield world
    world.close()


def lost(_index: int) -> Fate:
    return Fate.LOST_AFTER


def late(_index: int) -> Fate:
    return Fate.LATE


# Insert


def test_an_insert_creates_what_is_new_and_leaves_out_what_differs(insert: World) -> None:
    insert.run(BOTH)
    result = insert.run({"a": ("x@x.org", "changed"), "b": ("other@x.org", "2"), "c": ("z@x.org", "3")})
    counts = result.counts
    assert (counts.added, counts.changed, counts.excluded, counts.removed) == (1, 0, 2, 0)
    assert sorted(insert.crm.records.values()) == [("x@x.org", "1"), ("y@x.org", "2"), ("z@x.org", "3")]
    assert insert.run({}).shards == []
    assert len(insert.crm.records) == 3


def test_an_insert_forgets_no_record_when_another_row_is_created_with_its_match_value(insert: World) -> None:
    insert.run({"a": ("x@x.org", "1")})
    swapped = {"a": ("y@x.org", "1"), "b": ("x@x.org", "2")}
    assert insert.run(swapped).counts.added == 1
    assert insert.run(swapped).shards == []
    assert {key: len(ids) for key, ids in insert.crm.created.items()} == {"a": 1, "b": 1}


def test_an_insert_keeps_double_match_values_invalid(insert: World) -> None:
    result = insert.run({"a": ("x@x.org", "1"), "b": (" X@x.org", "2"), "c": ("y@x.org", "3")})
    assert (result.counts.added, result.counts.invalid) == (1, 2)


# In doubt


def test_rows_in_doubt_are_named_with_what_resolves_them(insert: World) -> None:
    insert.run(BOTH, lost)
    found = insert.settle()
    assert [(d.key, d.match, d.action, d.run_id) for d in found] == [
        ("a", "x@x.org", Action.CREATE, "run-1"),
        ("b", "y@x.org", Action.CREATE, "run-1"),
    ]
    assert all(doubt.reference.startswith("run-1-") and doubt.payload_digest for doubt in found)
    assert held_counts(insert.home, insert.home.manifest()) == {"in_doubt": 2}


def test_rows_in_doubt_wait_whatever_the_model_says_and_also_without_it(insert: World) -> None:
    insert.run(BOTH, lost)
    result = insert.run({"a": ("new@x.org", "changed")})
    assert (result.shards, result.held) == ([], {"waiting": 0, "parked": 0, "in_doubt": 1})
    insert.run({})
    insert.run({})
    assert [doubt.key for doubt in insert.settle()] == ["a", "b"]


def test_a_late_acceptance_makes_the_record_known(insert: World) -> None:
    insert.run(BOTH, late)
    assert len(insert.settle()) == 2
    insert.answer_late()
    assert insert.settle() == []
    result = insert.run(BOTH)
    assert (result.counts.unchanged, result.shards) == (2, [])


def test_a_late_rejection_makes_the_row_rejected(insert: World) -> None:
    insert.run(REFUSED, late)
    insert.settle()
    insert.answer_late()
    assert insert.settle() == []
    assert {key: row["status"] for key, row in insert.held().items()} == {"a": "rejected"}


def test_a_look_up_tells_those_that_are_absent_and_they_are_sent_again(insert: World) -> None:
    insert.batch_rows = 1
    insert.run(BOTH, lambda index: Fate.LOST_BEFORE if index == 0 else Fate.LOST_AFTER)
    insert.look_up()
    assert insert.held() == {}
    result = insert.run(BOTH)
    assert (result.counts.added, result.counts.unchanged) == (1, 1)
    assert {key: len(ids) for key, ids in insert.crm.created.items()} == {"a": 1, "b": 1}


def answer(world: World, key: str, reference: str, outcome: Outcome) -> None:
    """A late answer about one row to the request of that reference."""
    (batch,) = [batch for batch, _ in world.late if batch.idempotency_key == reference]
    world.ledger.complete_batch(batch, tuple(outcome for _ in batch.rows), Traffic())
    assert [row.key for row in batch.rows] == [key]


@pytest.mark.parametrize(
    "outcome", [Outcome(Status.UNSENT, code=ABSENT), Outcome(Status.REJECTED, code="BAD")], ids=["absent", "rejected"]
)
def test_an_answer_to_an_older_request_does_not_end_the_doubt_about_a_newer_one(
    insert: World, outcome: Outcome
) -> None:
    model = {"a": ("x@x.org", "1")}
    insert.run(model, late)
    (first,) = insert.settle()
    assert insert.run(model, late, resend_in_doubt=True).counts.added == 1
    (second,) = insert.settle()
    assert second.reference != first.reference
    answer(insert, "a", first.reference, outcome)
    assert [doubt.reference for doubt in insert.settle()] == [second.reference]
    answer(insert, "a", second.reference, Outcome(Status.UNSENT, code=ABSENT))
    assert insert.settle() == []


def test_an_answer_to_an_older_request_does_not_reject_a_row_that_was_created_since(insert: World) -> None:
    model = {"a": ("x@x.org", "1")}
    insert.run(model, late)
    (first,) = insert.settle()
    insert.run(model, resend_in_doubt=True)
    answer(insert, "a", first.reference, Outcome(Status.REJECTED, code="BAD"))
    result = insert.run(model)
    assert (result.counts.unchanged, insert.held()) == (1, {})


def test_an_older_update_that_is_answered_after_a_newer_one_leaves_the_record_unknown(tmp_path: Path) -> None:
    world = World(tmp_path, repeatable=False)
    world.run({"a": ("x@x.org", "1")})
    world.run({"a": ("x@x.org", "2")}, late)
    world.settle()
    world.run({"a": ("x@x.org", "3")}, resend_in_doubt=True)
    world.answer_late()
    assert world.run({"a": ("x@x.org", "3")}).counts.changed == 1
    assert world.run({"a": ("x@x.org", "3")}).shards == []
    world.close()


def test_a_row_in_doubt_that_is_sent_again_is_never_taken_for_unchanged(tmp_path: Path) -> None:
    world = World(tmp_path, repeatable=False)
    world.run({"a": ("x@x.org", "1")})
    world.run({"a": ("x@x.org", "2")}, lost)
    result = world.run({"a": ("x@x.org", "1")}, release=Release(keys=("a",), in_doubt=True))
    assert (result.released, result.counts.changed) == (1, 1)
    (row,) = pq.read_table(result.shards[0][0]).to_pylist() if result.shards[0][0].exists() else [None]
    assert row is None or row["known_payload_digest"] is None
    assert world.crm.by_match == {"x@x.org": "1"}
    world.close()


def test_what_needed_no_request_ends_no_doubt(insert: World) -> None:
    insert.run(BOTH, lost)
    (doubt, _) = insert.settle()
    told = {"ordinal": 0, "key": "a", "match": doubt.match, "partition": "", "change": "added", "status": "invalid"}
    told |= {"source_digest": "", "payload_digest": "", "code": "VALUE", "reason": "Too long.", "remember": True}
    folder = insert.home.plan_folder("run-x")
    folder.mkdir(parents=True)
    pq.write_table(table([told], OUTCOMES), folder / "outcomes-000-1.parquet")
    assert [d.key for d in insert.settle()] == ["a", "b"]


@pytest.mark.parametrize("warehouse", [None])
def test_a_state_file_of_the_first_version_is_read(insert: World) -> None:
    insert.run(BOTH, lost)
    insert.settle()
    manifest = insert.home.manifest()
    path = insert.home.folder / manifest.held
    pq.write_table(pq.read_table(path).drop(["payload_digest", "action", "destination_id", "run_id"]), path)
    assert [(d.key, d.action, d.payload_digest, d.run_id) for d in doubts(insert.home, manifest)] == [
        ("a", None, "", ""),
        ("b", None, "", ""),
    ]
    result = insert.run({**BOTH, "c": ("z@x.org", "3")})
    assert (result.counts.held, result.counts.added) == (2, 1)
    assert set(insert.held()) == {"a", "b"}


# Spacing


def test_a_rejected_row_is_tried_with_growing_spacing_and_then_parked(upsert: World) -> None:
    upsert.run(REFUSED)
    assert upsert.held()["a"]["not_before"] is None
    tried = []
    for _ in range(14):  # a run every 250 seconds
        upsert.time += 150
        result = upsert.run(REFUSED)
        if result.counts.added:
            tried.append(upsert.time)
    assert [later - earlier for earlier, later in itertools.pairwise(tried)] == [1000.0, 1500.0]
    assert result.held == {"waiting": 0, "parked": 1, "in_doubt": 0}
    assert upsert.held()["a"] | {"attempts": 4, "status": "parked", "not_before": None} == upsert.held()["a"]


def test_a_row_that_changes_starts_anew_and_is_tried_at_once(upsert: World) -> None:
    for _ in range(3):
        upsert.run(REFUSED)
    assert upsert.held()["a"]["attempts"] == 2
    changed = {**REFUSED, "a": ("z@x.org", REJECTED_NAME)}
    assert upsert.run(changed).counts.added == 1
    assert upsert.held()["a"] | {"attempts": 1, "not_before": None} == upsert.held()["a"]
    assert upsert.run(BOTH).counts.added == 1
    assert upsert.held() == {}


def test_a_record_that_is_gone_resets_the_attempts(upsert: World) -> None:
    upsert.run(BOTH)
    upsert.run({**BOTH, "a": ("z@x.org", REJECTED_NAME)})
    upsert.crm.records.clear()
    upsert.run({**BOTH, "a": ("w@x.org", "1")})
    assert upsert.held()["a"] | {"attempts": 0, "not_before": None} == upsert.held()["a"]
    upsert.run({**BOTH, "a": ("w@x.org", "1")})
    assert upsert.crm.by_match == {"w@x.org": "1"}


def test_a_rejected_removal_is_tried_with_the_same_spacing(mirror: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.run(BOTH)
    apply = mirror.crm.apply
    monkeypatch.setattr(
        mirror.crm,
        "apply",
        lambda row, name: (
            Outcome(Status.REJECTED, code="LOCKED", reason="It is locked.")
            if row.action is Action.DELETE
            else apply(row, name)
        ),
    )
    rest = {"b": BOTH["b"]}
    assert [mirror.run(rest).counts.removed for _ in range(3)] == [1, 1, 0]
    assert mirror.held()["a"]["action"] == "delete"
    # Back in the model, equal to its record: no request, and nothing is held.
    mirror.run(BOTH)
    mirror.time += 5000
    assert mirror.run(rest).counts.removed == 1


# Release


def test_a_release_sends_the_rows_named_and_nothing_else(mirror: World) -> None:
    model = {"a": ("x@x.org", REJECTED_NAME), "b": ("y@x.org", REJECTED_NAME), "c": ("z@x.org", "3"), "d": ("d@d", "4")}
    for _ in range(3):
        mirror.run(model)
    new = {key: row for key, row in model.items() if key != "d"} | {"e": ("w@x.org", "5")}
    result = mirror.run(new, release=Release(keys=("a", "c", "unheard")))
    assert (result.released, result.unheld, result.still_held) == (1, ["c", "unheard"], [])
    assert (result.counts.added, result.counts.removed, result.counts.held, result.counts.excluded) == (1, 0, 1, 1)
    assert mirror.held()["a"]["attempts"] == 3
    assert mirror.held()["a"]["status"] == "parked"
    assert mirror.run(new, release=Release(keys=("a",))).released == 1


def test_a_release_by_reason_and_by_time(upsert: World) -> None:
    for _ in range(3):
        upsert.run(REFUSED)
    since = upsert.held()["a"]["since"]
    for release, released in (
        (Release(reason="bad_name"), 0),
        (Release(reason="NOT ACCEPTED"), 1),
        (Release(reason="BAD_NAME"), 1),
        (Release(since=since), 1),
        (Release(since=since + 1), 0),
        (Release(keys=("a",), reason="other"), 0),
    ):
        result = upsert.run(REFUSED, release=release)
        assert result.released == released, release
        assert result.still_held == (["a"] if release.keys else [])


def test_a_release_takes_rows_in_doubt_only_where_it_says_so(insert: World) -> None:
    insert.run(BOTH, lost)
    kept = insert.run(BOTH, release=Release(keys=("a",)))
    assert (kept.released, kept.still_held, kept.held["in_doubt"]) == (0, ["a"], 2)
    sent = insert.run(BOTH, release=Release(keys=("a",), in_doubt=True))
    assert (sent.released, sent.counts.held) == (1, 1)
    assert [doubt.key for doubt in insert.settle()] == ["b"]


def test_a_release_of_a_rejected_removal_removes_that_record_alone(
    mirror: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.run({**BOTH, "c": ("z@x.org", "3")})
    apply = mirror.crm.apply
    refused = Outcome(Status.REJECTED, code="LOCKED", reason="It is locked.")
    monkeypatch.setattr(
        mirror.crm, "apply", lambda row, name: refused if row.action is Action.DELETE else apply(row, name)
    )
    rest = {"b": BOTH["b"], "c": ("z@x.org", "3")}
    for _ in range(3):
        mirror.run(rest)
    monkeypatch.undo()
    result = mirror.run({"b": BOTH["b"]}, release=Release(keys=("a",)))
    assert (result.counts.removed, result.released) == (1, 1)
    assert set(mirror.crm.by_match) == {"y@x.org", "z@x.org"}


# The log


def test_a_fold_that_was_killed_before_the_swap_leaves_no_row_twice_in_the_log(insert: World) -> None:
    lease = insert.ledger.acquire(STATE, "run-0", WORKER, alive=lambda _holder: False)

    @contextmanager
    def killed(*_args: object) -> Iterator[Callable[[], None]]:
        yield lambda: None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(insert.home), "prepared", killed)
        patch.setattr(insert.ledger, "clear", lambda *_args: 0)
        insert.run(BOTH, lambda index: Fate.ANSWERED if index == 0 else Fate.LATE)
    insert.answer_late()
    insert.fold(insert.ledger.acquire(STATE, "run-9", WORKER, alive=lambda _holder: False))
    rows = pq.ParquetDataset(sorted(insert.home.log_folder("run-1").glob("rows-*.parquet"))).read()
    assert sorted(map(str, rows.column("key").to_pylist())) == ["a", "b"]
    assert lease.run_id == "run-0"
