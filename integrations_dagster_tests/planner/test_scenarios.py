"""Single histories that go wrong easily, each in both modes where the mode matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from integrations_dagster.planner.diff import diff
from integrations_dagster.planner.events import OUTCOMES
from integrations_dagster.planner.rows import table
from integrations_dagster.planner.state import PLAN
from integrations_dagster.vocabulary import GuardTripped, Misconfigured, Mode
from integrations_dagster.warehouses.base import WarehouseAddress
from integrations_dagster_tests.planner.world import REJECTED_NAME, WORKER, Fate, World


@pytest.fixture(
    params=[
        (Mode.MIRROR, "embedded"),
        (Mode.UPSERT, "warehouse"),
        # Both modes and both homes are in the two above.
        pytest.param((Mode.UPSERT, "embedded"), marks=pytest.mark.slow),
        pytest.param((Mode.MIRROR, "warehouse"), marks=pytest.mark.slow),
    ],
    ids=lambda param: "-".join(param),
)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    mode, home = request.param
    warehouse = request.getfixturevalue("address") if home == "warehouse" else None
    world = World(tmp_path, mode=mode, warehouse=warehouse)
    yield world
    world.close()


@pytest.fixture
def mirror(tmp_path: Path, warehouse: WarehouseAddress | None) -> Iterator[World]:
    world = World(tmp_path, mode=Mode.MIRROR, warehouse=warehouse)
    yield world
    world.close()


def lost_after(_index: int) -> Fate:
    return Fate.LOST_AFTER


def late(_index: int) -> Fate:
    return Fate.LATE


def test_a_second_run_sends_nothing(world: World) -> None:
    model = {"a": ("x@x.org", "1"), "b": ("y@x.org", "2")}
    assert world.run(model).counts.added == 2
    second = world.run(model)
    assert second.shards == []
    assert second.counts.unchanged == 2
    assert world.crm.writes == 2


def test_a_lost_answer_and_a_reverted_row(world: World) -> None:
    world.run({"a": ("x@x.org", "1")})
    world.run({"a": ("x@x.org", "2")}, lost_after)
    assert world.crm.by_match == {"x@x.org": "2"}
    world.run({"a": ("x@x.org", "1")})
    assert world.crm.by_match == {"x@x.org": "1"}


def test_a_lost_answer_and_a_dropped_row(mirror: World) -> None:
    mirror.run({"a": ("x@x.org", "1")})
    mirror.run({"a": ("x@x.org", "1"), "b": ("y@x.org", "1")}, lost_after)
    assert set(mirror.crm.by_match) == {"x@x.org", "y@x.org"}
    mirror.run({"a": ("x@x.org", "1")})
    assert mirror.crm.by_match == {"x@x.org": "1"}


def test_a_late_answer_after_a_newer_value_makes_the_row_unknown_again(world: World) -> None:
    world.run({"a": ("x@x.org", "1")})
    world.run({"a": ("x@x.org", "2")}, late)
    world.run({"a": ("x@x.org", "3")})
    world.answer_late()
    again = world.run({"a": ("x@x.org", "3")})
    assert again.counts.changed == 1
    assert world.crm.by_match == {"x@x.org": "3"}
    assert world.run({"a": ("x@x.org", "3")}).shards == []


def test_an_email_passes_from_a_removed_row_to_a_new_one(world: World) -> None:
    world.run({"old": ("x@x.org", "1"), "other": ("y@x.org", "1")})
    record = next(i for i, (email, _) in world.crm.records.items() if email == "x@x.org")
    result = world.run({"new": ("x@x.org", "2"), "other": ("y@x.org", "1")})
    assert result.counts.removed == 0
    assert world.crm.records[record] == ("x@x.org", "2")
    assert world.run({"new": ("x@x.org", "2"), "other": ("y@x.org", "1")}).shards == []


def test_the_old_row_stays_known_until_its_heir_is_accepted(mirror: World) -> None:
    mirror.run({"old": ("x@x.org", "1"), "other": ("y@x.org", "1")})
    mirror.run({"new": ("x@x.org", REJECTED_NAME), "other": ("y@x.org", "1")})
    assert mirror.crm.by_match["x@x.org"] == "1"
    mirror.run({"other": ("y@x.org", "1")})
    assert mirror.crm.by_match == {"y@x.org": "1"}


def test_two_rows_swap_emails(world: World) -> None:
    world.run({"a": ("x@x.org", "1"), "b": ("y@x.org", "2")})
    swapped = {"a": ("y@x.org", "1"), "b": ("x@x.org", "2")}
    world.run(swapped)
    assert world.crm.by_match == {"y@x.org": "1", "x@x.org": "2"}
    assert world.run(swapped).shards == []


def test_two_rows_swap_emails_and_every_answer_is_lost_then_they_swap_back(world: World) -> None:
    first = {"a": ("x@x.org", "1"), "b": ("y@x.org", "2")}
    world.run(first)
    world.run({"a": ("y@x.org", "1"), "b": ("x@x.org", "2")}, lost_after)
    world.run(first)
    assert world.crm.by_match == {"x@x.org": "1", "y@x.org": "2"}


def test_a_changed_email_renames_the_record_and_keeps_its_id(world: World) -> None:
    world.run({"a": ("x@x.org", "1")})
    (record,) = world.crm.records
    world.run({"a": ("z@x.org", "1")})
    assert world.crm.records == {record: ("z@x.org", "1")}


def test_a_chain_of_emails_keeps_every_record(world: World) -> None:
    world.run({"a": ("x@x.org", "1"), "b": ("y@x.org", "2"), "c": ("z@x.org", "3")})
    before = {name: i for i, (_, name) in world.crm.records.items()}
    world.run({"a": ("y@x.org", "1"), "b": ("z@x.org", "2"), "c": ("w@x.org", "3")})
    assert world.crm.by_match == {"y@x.org": "1", "z@x.org": "2", "w@x.org": "3"}
    assert {name: i for i, (_, name) in world.crm.records.items()} == before


def test_an_unknown_rename_is_repeated_by_id_and_creates_nothing(world: World) -> None:
    world.run({"a": ("x@x.org", "1")})
    world.run({"a": ("z@x.org", "1")}, lambda _index: Fate.LOST_BEFORE)
    world.run({"a": ("z@x.org", "1")})
    assert world.crm.by_match == {"z@x.org": "1"}


def test_a_row_that_shares_its_match_value_is_invalid_and_the_rest_are_delivered(world: World) -> None:
    result = world.run({"a": ("x@x.org", "1"), "b": (" X@x.org", "2"), "c": ("y@x.org", "3"), "d": (None, "4")})
    assert (result.counts.added, result.counts.invalid) == (1, 3)
    assert world.crm.by_match == {"y@x.org": "3"}
    later = world.run({"a": ("x@x.org", "1"), "c": ("y@x.org", "3")})
    assert later.counts.added == 1


def test_a_rejected_row_is_held_and_tried_again(world: World) -> None:
    model = {"a": ("x@x.org", REJECTED_NAME), "b": ("y@x.org", "1")}
    world.run(model)
    again = world.run(model)
    assert again.counts.added == 1
    (held,) = world.held().values()
    assert (held["key"], held["status"], held["attempts"], held["code"]) == ("a", "rejected", 2, "BAD_NAME")
    world.run({"a": ("x@x.org", "fine"), "b": ("y@x.org", "1")})
    assert world.held() == {}


def test_a_row_that_has_left_its_partition_frees_its_match_value_and_is_removed_by_a_mirror(
    tmp_path: Path, warehouse: WarehouseAddress | None
) -> None:
    world = World(tmp_path, warehouse=warehouse)
    world.run({}, parts={"p1": {"a": ("x@x.org", "1"), "b": ("y@x.org", "1")}})
    claimed = world.run({}, parts={"p2": {"c": ("x@x.org", "2")}})
    assert (claimed.counts.invalid, world.crm.by_match) == (1, {"x@x.org": "1", "y@x.org": "1"})
    world.run({}, parts={"p1": {}})
    assert world.run({}, parts={"p2": {"c": ("x@x.org", "2")}}).counts.added == 1
    assert world.crm.by_match == {"x@x.org": "2", "y@x.org": "1"}
    world.mode = Mode.MIRROR
    assert world.run({}, parts={"p2": {"c": ("x@x.org", "2")}}).counts.removed == 1
    assert world.crm.by_match == {"x@x.org": "2"}
    world.close()


def test_a_held_row_that_left_the_model_is_forgotten(world: World) -> None:
    world.run({"a": ("x@x.org", REJECTED_NAME), "b": ("y@x.org", "1")})
    world.run({"b": ("y@x.org", "1")})
    world.run({"b": ("y@x.org", "1")})
    assert world.held() == {}


def test_a_mirror_that_would_remove_too_much_stops(tmp_path: Path, warehouse: WarehouseAddress | None) -> None:
    world = World(tmp_path, mode=Mode.MIRROR, removal_limit=0.2, warehouse=warehouse)
    full = {str(i): (f"{i}@x.org", "1") for i in range(10)}
    world.run(full)
    with pytest.raises(GuardTripped, match=r"3 of 10 records \(30%\).*allow_removals"):
        world.run(dict(list(full.items())[:7]))
    with pytest.raises(GuardTripped, match="10 of 10"):
        world.run({})
    assert len(world.crm.records) == 10
    world.run(dict(list(full.items())[:8]))
    assert len(world.crm.records) == 8
    world.close()


def test_a_primary_key_that_repeats_stops_the_run_and_is_named(world: World, tmp_path: Path) -> None:
    source = world.source({"": {"a": ("x@x.org", "1"), "b": ("y@x.org", "1")}})
    doubled = replace(
        source,
        # A warehouse is asked for the same rows as if they were of two partitions.
        files={"": [*source.files[""], *source.files[""]]} if source.files else {},
        tables={"": source.tables[""], "again": source.tables[""]} if source.tables else {},
    )
    with pytest.raises(Misconfigured, match=r"primary key key .* not unique: 'a' \(2 rows\), 'b' \(2 rows\)"):
        diff(world.home, world.home.manifest(), doubled, world.settings(), tmp_path / "plan")


def test_folding_again_after_a_kill_before_the_clean_up_changes_nothing(world: World) -> None:
    model = {"a": ("x@x.org", "1"), "b": ("y@x.org", "2")}
    clear, world.ledger.clear = world.ledger.clear, lambda *_args: 0  # type: ignore[method-assign]
    world.run(model)
    assert len(list(world.ledger.closed_after("contacts@crm", 0))) > 0
    world.ledger.clear = clear  # type: ignore[method-assign]
    before = world.records()
    assert world.run(model).shards == []
    assert world.records() == before
    assert list(world.ledger.closed_after("contacts@crm", 0)) == []


def test_a_record_that_may_have_been_deleted_and_was_created_again_is_found_by_its_match_value(mirror: World) -> None:
    model = {"a": ("x@x.org", "1"), "b": ("y@x.org", "1")}
    mirror.run(model)
    mirror.run({"b": ("y@x.org", "1")}, lost_after)
    mirror.run(model, lost_after)
    mirror.run({"b": ("y@x.org", "1")})
    assert mirror.crm.by_match == {"y@x.org": "1"}


def test_a_record_that_was_renamed_unseen_and_is_claimed_is_not_deleted(mirror: World) -> None:
    mirror.run({"a": ("x@x.org", "1"), "o": ("o@x.org", "1")})
    mirror.run({"a": ("z@x.org", "1"), "o": ("o@x.org", "1")}, lost_after)
    (record,) = [i for i, (email, _) in mirror.crm.records.items() if email == "z@x.org"]
    result = mirror.run({"b": ("z@x.org", "2"), "o": ("o@x.org", "1")})
    assert result.counts.removed == 0
    assert mirror.crm.records[record] == ("z@x.org", "2")


def test_a_claim_that_is_invalid_still_keeps_a_record_from_deletion(mirror: World) -> None:
    mirror.run({"old": ("x@x.org", "1"), "o": ("o@x.org", "1")})
    result = mirror.run({"a": ("x@x.org", "2"), "b": ("x@x.org", "3"), "o": ("o@x.org", "1")})
    assert (result.counts.invalid, result.counts.removed) == (2, 0)
    assert mirror.crm.by_match["x@x.org"] == "1"


def test_a_row_does_not_write_on_a_record_whose_rename_was_rejected(world: World) -> None:
    world.run({"b": ("y@x.org", "2")})
    (record,) = world.crm.records
    world.run({"a": ("y@x.org", "1"), "b": ("z@x.org", REJECTED_NAME)})
    assert world.crm.records == {record: ("y@x.org", "2")}
    world.run({"a": ("y@x.org", "1"), "b": ("z@x.org", "3")})
    assert world.crm.records[record] == ("z@x.org", "3")
    assert world.crm.by_match == {"z@x.org": "3", "y@x.org": "1"}


def test_match_values_that_differ_in_any_white_space_are_one(world: World) -> None:
    result = world.run({"a": ("x@x.org", "1"), "b": ("x@x.org\t", "2"), "c": ("\u00a0X@x.org", "3")})
    assert result.counts.invalid == 3


def test_two_keys_that_are_one_record_are_not_sent_for_ever(mirror: World) -> None:
    mirror.run({"a": ("x@x.org", "1"), "o": ("o@x.org", "1")})
    mirror.crm.merged["second@x.org"] = next(i for i, (email, _) in mirror.crm.records.items() if email == "x@x.org")
    model = {"a": ("x@x.org", "1"), "b": ("second@x.org", "2"), "o": ("o@x.org", "1")}
    mirror.run(model)
    assert mirror.run(model).shards == []
    # One of them leaves: the record is still the other one's.
    mirror.run({"b": ("second@x.org", "2"), "o": ("o@x.org", "1")})
    assert set(mirror.crm.by_match) == {"x@x.org", "o@x.org"}


def test_rows_that_stay_invalid_are_named_by_every_plan(world: World) -> None:
    model = {"a": ("x@x.org", "1"), "b": ("y@x.org", "1")}
    first = world.run({"b": ("y@x.org", "1")})
    assert first.counts.added == 1
    world.runs += 1
    lease = world.ledger.acquire("contacts@crm", "run-x", WORKER, alive=lambda _holder: False)
    folder = world.home.plan_folder("run-x")
    result = diff(world.home, world.home.manifest(), world.source({"": model}), world.settings(), folder)
    (row,) = pq.read_table(result.shards[0][0]).to_pylist()
    told = {
        "ordinal": 0,
        **{name: row[name] for name in ("key", "match", "partition", "change", "source_digest")},
        "status": "invalid",
        "payload_digest": "",
        "code": "VALUE",
        "reason": "Too long.",
        "remember": True,
    }
    pq.write_table(table([told], OUTCOMES), folder / "outcomes-000-1.parquet")
    (folder / PLAN).touch()
    world.fold(lease)
    for _ in range(2):
        again = world.run(model)
        assert (again.counts.invalid, again.shards) == (1, [])
    assert [(h["key"], h["reason"]) for h in world.held().values()] == [("a", "Too long.")]
