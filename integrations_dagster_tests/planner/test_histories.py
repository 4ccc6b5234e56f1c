"""Whatever happens to the answers, the destination ends with the model's rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from integrations_dagster.destinations.base import NO_RECORD
from integrations_dagster.vocabulary import Action, Mode
from integrations_dagster.warehouses.base import WarehouseAddress
from integrations_dagster_tests.planner.world import REJECTED_NAME, Fate, World

KEYS = ("a", "b", "c", "d")
EMAILS = ("x@x.org", "y@x.org", "z@x.org", "w@x.org")
Model = dict[str, tuple[str | None, str]]


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, warehouse: WarehouseAddress | None) -> None:
    """Each history is played in both homes."""
    monkeypatch.setattr(World, "everywhere", warehouse)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Rows with distinct emails (some null, some names refused)."""
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True))
    emails = draw(st.permutations(EMAILS))
    names = st.sampled_from(("1", "2", "3", REJECTED_NAME))
    return {key: (email, draw(names)) for key, email in zip(keys, emails, strict=False)}


fates = st.lists(st.sampled_from(list(Fate)), max_size=4)


def accepted(model: Model) -> dict[str, str]:
    return {email: name for email, name in model.values() if email and name != REJECTED_NAME}


def fate_of(happenings: list[Fate]) -> Callable[[int], Fate]:
    return lambda index: happenings[index] if index < len(happenings) else Fate.ANSWERED


def play(world: World, history: list[tuple[Model, list[Fate], bool]]) -> None:
    for model, happenings, late in history:
        note(f"run {model} {[str(f) for f in happenings]} late={late}")
        if late:
            world.answer_late()
        world.run(model, fate_of(happenings))
        note(f"  -> {world.crm.records}")
    world.answer_late()


HISTORY = st.lists(st.tuples(models(), fates, st.booleans()), min_size=1, max_size=5)
RUN = settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@RUN
@given(HISTORY, models())
def test_a_mirror_ends_equal_to_the_model(history: list[tuple[Model, list[Fate], bool]], last: Model) -> None:
    end_state(history, last, Mode.MIRROR)


@RUN
@given(HISTORY, models())
def test_an_upsert_ends_with_every_row_of_the_model(history: list[tuple[Model, list[Fate], bool]], last: Model) -> None:
    end_state(history, last, Mode.UPSERT)


@pytest.mark.parametrize("warehouse", ["here"], indirect=True)
@settings(RUN, max_examples=3)
@given(HISTORY, models(), st.sampled_from((Mode.MIRROR, Mode.UPSERT)))
def test_in_a_warehouse_both_modes_end_alike(
    history: list[tuple[Model, list[Fate], bool]], last: Model, mode: Mode
) -> None:
    end_state(history, last, mode)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(RUN, max_examples=300, derandomize=False, print_blob=True)
@given(HISTORY, models(), st.sampled_from((Mode.MIRROR, Mode.UPSERT)))
def test_long_both_modes(history: list[tuple[Model, list[Fate], bool]], last: Model, mode: Mode) -> None:
    end_state(history, last, mode)


def end_state(history: list[tuple[Model, list[Fate], bool]], last: Model, mode: Mode) -> None:
    # The last model has no refused rows: those legitimately leave an older state behind.
    last = {key: (email, "ok" if name == REJECTED_NAME else name) for key, (email, name) in last.items()}
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), mode=mode)
        try:
            play(world, history)
            for attempt in range(3):
                world.time += 100_000  # whatever waits may be tried
                result = world.run(last)
                note(f"final {attempt}: {result.counts} {world.crm.records}")
                if not result.shards:
                    break
            else:
                raise AssertionError(f"still something to send after three quiet runs: {result.counts}")
            held = world.crm.by_match
            if mode is Mode.MIRROR:
                assert held == accepted(last)
            else:
                assert {email: held.get(email) for email in accepted(last)} == accepted(last)
        finally:
            world.close()


LOOKS = st.lists(st.tuples(models(), fates, st.sampled_from(("", "late", "look up"))), min_size=1, max_size=5)


@settings(RUN, max_examples=3)
@given(LOOKS, models(), st.sampled_from((Mode.INSERT, Mode.APPEND)))
def test_an_insert_that_must_not_be_repeated_doubles_nothing_and_names_what_is_in_doubt(
    history: list[tuple[Model, list[Fate], str]], last: Model, mode: Mode
) -> None:
    inserted(history, last, mode, repeatable=False)


@settings(RUN, max_examples=3)
@given(LOOKS, models(), st.sampled_from((Mode.INSERT, Mode.APPEND)))
def test_an_insert_that_may_be_repeated_loses_and_doubles_nothing(
    history: list[tuple[Model, list[Fate], str]], last: Model, mode: Mode
) -> None:
    inserted([(model, fates, "late" if step else "") for model, fates, step in history], last, mode, repeatable=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(RUN, max_examples=200, derandomize=False, print_blob=True)
@given(LOOKS, models(), st.sampled_from((Mode.INSERT, Mode.APPEND)), st.booleans())
def test_long_inserts(history: list[tuple[Model, list[Fate], str]], last: Model, mode: Mode, repeatable: bool) -> None:
    if repeatable:
        history = [(model, fates, "late" if step else "") for model, fates, step in history]
    inserted(history, last, mode, repeatable=repeatable)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(RUN, max_examples=100, derandomize=False, print_blob=True)
@given(HISTORY, st.sampled_from((Mode.MIRROR, Mode.UPSERT)))
def test_long_rows_in_doubt_are_those_without_an_answer(
    history: list[tuple[Model, list[Fate], bool]], mode: Mode
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), mode=mode, repeatable=False)
        try:
            for model, happenings, late in history:
                if late:
                    world.answer_late()
                world.run(model, fate_of(happenings))
                note(f"{model} {happenings} -> {world.crm.records} without answer {world.unanswered}")
            assert {doubt.key for doubt in world.settle()} == world.unanswered
        finally:
            world.close()


def inserted(history: list[tuple[Model, list[Fate], str]], last: Model, mode: Mode, *, repeatable: bool) -> None:
    last = {key: (email, "ok" if name == REJECTED_NAME else name) for key, (email, name) in last.items()}
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), mode=mode, repeatable=repeatable)
        try:
            for model, happenings, step in history:
                if step == "late":
                    world.answer_late()
                elif step == "look up":
                    world.look_up()
                world.run(model, fate_of(happenings))
                note(f"{model} {happenings} {step} -> {world.crm.created} without answer {world.unanswered}")
            for _ in range(3):
                world.time += 100_000
                result = world.run(last)
                if not result.shards:
                    break
            else:
                raise AssertionError(f"still something to send after three quiet runs: {result.counts}")
            doubtful = {doubt.key for doubt in world.settle()}
            assert doubtful == (set() if repeatable else world.unanswered)
            made = {key: len(ids) for key, ids in world.crm.created.items()}
            assert all(count <= 1 for count in made.values()), made
            assert {key for key, (email, _) in last.items() if email} <= set(made) | doubtful
        finally:
            world.close()


STEPS = st.lists(st.tuples(models(), fates, st.booleans(), st.sets(st.sampled_from(EMAILS))), min_size=1, max_size=5)
"""Rows, what becomes of the batches, whether late answers arrive before, emails that others make records of before."""
Steps = list[tuple[Model, list[Fate], bool, set[str]]]


@settings(RUN, max_examples=3)
@given(STEPS, models())
def test_an_update_changes_the_records_that_are_there_and_creates_none(history: Steps, last: Model) -> None:
    updated(history, last)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(RUN, max_examples=200, derandomize=False, print_blob=True)
@given(STEPS, models())
def test_long_updates(history: Steps, last: Model) -> None:
    updated(history, last)


def updated(history: Steps, last: Model) -> None:
    last = {key: (email, "ok" if name == REJECTED_NAME else name) for key, (email, name) in last.items()}
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), mode=Mode.UPDATE)
        try:
            seeded: set[str] = set()
            for model, happenings, late, others in history:
                if late:
                    world.answer_late()
                for made in sorted(others - seeded):
                    world.crm.seed(made, "theirs")
                seeded |= others
                world.time += 100_000
                result = world.run(model, fate_of(happenings))
                note(f"{model} {happenings} {others} -> {result.counts} {world.crm.records}")
            world.answer_late()
            for _ in range(3):
                world.time += 100_000
                world.run(last)
            ends = world.crm.by_match
            assert set(ends) == seeded, "an update created or renamed a record"
            for key, (email, name) in last.items():
                if email in seeded:
                    assert ends[email] == name
                elif email:
                    assert (world.held()[key]["code"], world.held()[key]["status"]) == (NO_RECORD, "rejected")
            sent = len(world.crm.sent)
            world.run({key: row for key, row in last.items() if row[0] in seeded})
            assert len(world.crm.sent) == sent, "a row that has not changed was sent again"
        finally:
            world.close()


@settings(RUN, max_examples=3)
@given(STEPS, models())
def test_a_deletion_deletes_what_is_listed_once_for_each_time_that_it_is_listed(history: Steps, last: Model) -> None:
    deleted(history, last)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(RUN, max_examples=200, derandomize=False, print_blob=True)
@given(STEPS, models())
def test_long_deletions(history: Steps, last: Model) -> None:
    deleted(history, last)


def deleted(history: Steps, last: Model) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), mode=Mode.DELETE, removal_limit=1000.0)
        try:
            listed: dict[str, str | None] = {}
            safe: set[str] = set()
            for model, happenings, late, others in [*history, (last, [], True, set(EMAILS)), (last, [], True, set())]:
                if late:
                    world.answer_late()
                emails = {email for email, _ in model.values() if email}
                held = set(world.crm.by_match)
                # Others make records of emails that are not listed, nor on the way.
                quiet = not world.late
                for email in sorted(others - held - emails):
                    world.crm.seed(email, "theirs")
                    if quiet:
                        safe.add(email)
                safe -= emails
                before = len(world.crm.sent)
                result = world.run(model, fate_of(happenings))
                note(f"{model} {happenings} {others} -> {result.counts} {world.crm.records} {world.crm.sent[before:]}")
                new = {key for key, (email, _) in model.items() if email and listed.get(key) != email}
                assert new <= {key for key, _ in world.crm.sent[before:]} or happenings, "a listed row was not deleted"
                assert {action for _, action in world.crm.sent} <= {Action.DELETE}
                listed = {key: email for key, (email, _) in model.items()}
            there = set(world.crm.by_match)
            assert not there & {email for email, _ in last.values() if email}
            assert safe <= there, "a record was deleted that is not listed"
            sent = len(world.crm.sent)
            assert not world.run(last).shards
            assert len(world.crm.sent) == sent, "a row that stays listed was deleted again"
            world.run({})
            gone = world.run(last)
            assert gone.counts.added == len({email for email, _ in last.values() if email})
        finally:
            world.close()


PARTS = ("p1", "p2", "p3")
PLACES = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(PARTS))
WINDOWS = st.lists(
    st.tuples(models(), PLACES, st.lists(st.sampled_from(PARTS), min_size=1, unique=True), fates),
    min_size=1,
    max_size=6,
)
"""Rows, the partition of each key, the partitions that a run compares, and what becomes of its batches."""
Windows = list[tuple[Model, dict[str, str], list[str], list[Fate]]]


ROUND: Model = {"a": ("x@x.org", "1"), "b": ("y@x.org", "1"), "c": ("z@x.org", "1"), "d": ("w@x.org", "1")}
"""Rows whose match values pass on in a circle, one of them to another partition."""
PASSED: Model = {"d": ("x@x.org", "1"), "a": ("y@x.org", "2"), "b": ("z@x.org", "1"), "c": ("w@x.org", "1")}


@settings(RUN, max_examples=2)
@given(WINDOWS, models(), PLACES, st.permutations(PARTS), st.sampled_from((Mode.MIRROR, Mode.UPSERT)))
@example([(ROUND, {}, ["p1"], [Fate.ANSWERED] * 4)], PASSED, {"a": "p3"}, list(PARTS), Mode.UPSERT)
# A row leaves its partition, and its match value passes to a row of another one.
@example([({"d": ("x@x.org", "1")}, {}, ["p1"], [])], {"b": ("x@x.org", "1")}, {"b": "p2"}, list(PARTS), Mode.UPSERT)
# A late answer leaves two keys that know one record, and both have other match values now.
@example(
    [
        ({"d": ("w@x.org", REJECTED_NAME), "a": ("y@x.org", "1")}, {"d": "p3", "a": "p3"}, ["p3"], [Fate.LATE]),
        ({"c": ("y@x.org", "3")}, {"c": "p2"}, ["p1", "p2", "p3"], [Fate.LATE]),
        ({}, {}, ["p3", "p1"], []),
    ],
    {"b": ("w@x.org", "3"), "c": ("x@x.org", "1"), "a": ("z@x.org", "ok"), "d": ("y@x.org", "2")},
    {"b": "p3", "a": "p3"},
    ["p3", "p1", "p2"],
    Mode.MIRROR,
)
def test_partitions_in_any_order_end_as_one_run_of_all(
    history: Windows, last: Model, places: dict[str, str], order: list[str], mode: Mode
) -> None:
    partitioned(history, last, places, order, mode)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(RUN, max_examples=200, derandomize=False, print_blob=True)
@given(WINDOWS, models(), PLACES, st.permutations(PARTS), st.sampled_from((Mode.MIRROR, Mode.UPSERT)))
def test_long_partitions(history: Windows, last: Model, places: dict[str, str], order: list[str], mode: Mode) -> None:
    partitioned(history, last, places, order, mode)


def split(model: Model, places: dict[str, str], wanted: list[str]) -> dict[str, Model]:
    return {part: {key: row for key, row in model.items() if places.get(key, PARTS[0]) == part} for part in wanted}


def partitioned(history: Windows, last: Model, places: dict[str, str], order: list[str], mode: Mode) -> None:
    """Windows are run again in any order, keys move between them; then each alone, or all in one run."""
    last = {key: (email, "ok" if name == REJECTED_NAME else name) for key, (email, name) in last.items()}
    ends = []
    for rounds in ([[part] for part in order], [list(PARTS)]):
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder), mode=mode)
            try:
                for model, where, wanted, happenings in history:
                    result = world.run({}, fate_of(happenings), split(model, where, wanted))
                    note(f"{model} {where} {wanted} {happenings} -> {result.counts} {world.crm.records}")
                world.answer_late()
                # A match value that passes to a row of another partition is free once that partition was run.
                quiet = 0
                for again in range(6):
                    sent = invalid = 0
                    for wanted in rounds:
                        world.time += 100_000
                        result = world.run({}, parts=split(last, places, wanted))
                        sent += len(result.shards)
                        invalid += result.counts.invalid
                        note(f"final {again} {wanted}: {result.counts} {world.crm.records}")
                    quiet = 0 if sent else quiet + 1
                    if quiet == 2:
                        break
                else:
                    raise AssertionError("still something to send after six rounds")
                if mode is Mode.MIRROR and invalid:
                    # In a circle between partitions they pass in one run of these only.
                    world.time += 100_000
                    world.run({}, parts=split(last, places, list(PARTS)))
                held = world.crm.by_match
                if mode is Mode.UPSERT:
                    held = {email: name for email, name in held.items() if email in accepted(last)}
                assert held == accepted(last)
                ends.append(held)
            finally:
                world.close()
    assert ends[0] == ends[1]
