"""Whatever happens to the answers, the destination ends with the model's rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from integrations_dagster_tests.planner.world import REJECTED_NAME, Fate, World

KEYS = ("a", "b", "c", "d")
EMAILS = ("x@x.org", "y@x.org", "z@x.org", "w@x.org")
Model = dict[str, tuple[str | None, str]]


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
RUN = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@RUN
@given(HISTORY, models())
def test_a_mirror_ends_equal_to_the_model(history: list[tuple[Model, list[Fate], bool]], last: Model) -> None:
    end_state(history, last, mirror=True)


@RUN
@given(HISTORY, models())
def test_an_upsert_ends_with_every_row_of_the_model(history: list[tuple[Model, list[Fate], bool]], last: Model) -> None:
    end_state(history, last, mirror=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(RUN, max_examples=300, derandomize=False, print_blob=True)
@given(HISTORY, models(), st.booleans())
def test_long_both_modes(history: list[tuple[Model, list[Fate], bool]], last: Model, mirror: bool) -> None:
    end_state(history, last, mirror=mirror)


def end_state(history: list[tuple[Model, list[Fate], bool]], last: Model, *, mirror: bool) -> None:
    # The last model has no refused rows: those legitimately leave an older state behind.
    last = {key: (email, "ok" if name == REJECTED_NAME else name) for key, (email, name) in last.items()}
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), mirror=mirror)
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
            if mirror:
                assert held == accepted(last)
            else:
                assert {email: held.get(email) for email in accepted(last)} == accepted(last)
        finally:
            world.close()


LOOKS = st.lists(st.tuples(models(), fates, st.sampled_from(("", "late", "look up"))), min_size=1, max_size=5)


@settings(RUN, max_examples=6)
@given(LOOKS, models())
def test_an_insert_that_must_not_be_repeated_doubles_nothing_and_names_what_is_in_doubt(
    history: list[tuple[Model, list[Fate], str]], last: Model
) -> None:
    inserted(history, last, repeatable=False)


@settings(RUN, max_examples=6)
@given(LOOKS, models())
def test_an_insert_that_may_be_repeated_loses_and_doubles_nothing(
    history: list[tuple[Model, list[Fate], str]], last: Model
) -> None:
    inserted([(model, fates, "late" if step else "") for model, fates, step in history], last, repeatable=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(RUN, max_examples=200, derandomize=False, print_blob=True)
@given(LOOKS, models(), st.booleans())
def test_long_inserts(history: list[tuple[Model, list[Fate], str]], last: Model, repeatable: bool) -> None:
    if repeatable:
        history = [(model, fates, "late" if step else "") for model, fates, step in history]
    inserted(history, last, repeatable=repeatable)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(RUN, max_examples=100, derandomize=False, print_blob=True)
@given(HISTORY, st.booleans())
def test_long_rows_in_doubt_are_those_without_an_answer(
    history: list[tuple[Model, list[Fate], bool]], mirror: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), mirror=mirror, repeatable=False)
        try:
            for model, happenings, late in history:
                if late:
                    world.answer_late()
                world.run(model, fate_of(happenings))
                note(f"{model} {happenings} -> {world.crm.records} without answer {world.unanswered}")
            assert {doubt.key for doubt in world.settle()} == world.unanswered
        finally:
            world.close()


def inserted(history: list[tuple[Model, list[Fate], str]], last: Model, *, repeatable: bool) -> None:
    last = {key: (email, "ok" if name == REJECTED_NAME else name) for key, (email, name) in last.items()}
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), creates=True, repeatable=repeatable)
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
