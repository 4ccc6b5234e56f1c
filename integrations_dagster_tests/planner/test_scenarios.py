"""Single histories that go wrong easily, each in both modes where the mode matters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from integrations_dagster.planner.diff import diff
from integrations_dagster.vocabulary import GuardTripped, Misconfigured
from integrations_dagster_tests.planner.world import REJECTED_NAME, Fate, World


@pytest.fixture(params=[True, False], ids=["mirror", "upsert"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, mirror=request.param)
    yield world
    world.close()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, mirror=True)
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
    (held,) = pq.read_table(world.home.folder / world.home.manifest().held).to_pylist()
    assert (held["key"], held["status"], held["attempts"], held["code"]) == ("a", "rejected", 2, "BAD_NAME")
    world.run({"a": ("x@x.org", "fine"), "b": ("y@x.org", "1")})
    assert pq.read_table(world.home.folder / world.home.manifest().held).num_rows == 0


def test_a_held_row_that_left_the_model_is_forgotten(world: World) -> None:
    world.run({"a": ("x@x.org", REJECTED_NAME), "b": ("y@x.org", "1")})
    world.run({"b": ("y@x.org", "1")})
    world.run({"b": ("y@x.org", "1")})
    assert pq.read_table(world.home.folder / world.home.manifest().held).num_rows == 0


def test_a_mirror_that_would_remove_too_much_stops(tmp_path: Path) -> None:
    world = World(tmp_path, mirror=True, removal_limit=0.2)
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
    source = world.source({"a": ("x@x.org", "1"), "b": ("y@x.org", "1")})
    doubled = type(source)(
        {"": [*source.files[""], *source.files[""]]},
        source.primary_key,
        source.match,
        source.normalization,
        source.columns,
        source.mapping_digest,
    )
    with pytest.raises(Misconfigured, match=r"primary key key .* not unique: 'a' \(2 rows\), 'b' \(2 rows\)"):
        diff(world.home, world.home.manifest(), doubled, world.settings(), tmp_path / "plan")


def test_folding_again_after_a_kill_before_the_clean_up_changes_nothing(world: World) -> None:
    model = {"a": ("x@x.org", "1"), "b": ("y@x.org", "2")}
    clear, world.ledger.clear = world.ledger.clear, lambda *_args: 0  # type: ignore[method-assign]
    world.run(model)
    assert len(list(world.ledger.closed_after("contacts@crm", 0))) > 0
    world.ledger.clear = clear  # type: ignore[method-assign]
    before = pq.read_table(world.home.folder / world.home.manifest().snapshot).sort_by("key")
    assert world.run(model).shards == []
    assert pq.read_table(world.home.folder / world.home.manifest().snapshot).sort_by("key").equals(before)
    assert list(world.ledger.closed_after("contacts@crm", 0)) == []


def test_a_record_that_may_have_been_deleted_and_was_created_again_is_found_by_its_match_value(mirror: World) -> None:
    model = {"a": ("x@x.org", "1"), "b": ("y@x.org", "1")}
    mirror.run(model)
    mirror.run({"b": ("y@x.org", "1")}, lost_after)
    mirror.run(model, lost_after)
    mirror.run({"b": ("y@x.org", "1")})
    assert mirror.crm.by_match == {"y@x.org": "1"}
