"""Who renames, who takes over, in what order."""

from __future__ import annotations

from integrations_dagster.planner.moves import Move, Mover, resolve
from integrations_dagster.vocabulary import Action


def mover(key: str, *holders: str, renames: bool = True) -> Mover:
    return Mover(key, holders, renames)


def decide(*movers: Mover) -> dict[str, tuple[str, int]]:
    return {key: (move.action.value, move.wave) for key, move in resolve({m.key: m for m in movers}).items()}


def test_a_free_value_is_a_rename() -> None:
    assert decide(mover("a")) == {"a": ("update", 0)}


def test_a_chain_renames_from_its_free_end() -> None:
    assert decide(mover("a", "b"), mover("b", "c"), mover("c")) == {
        "a": ("update", 2),
        "b": ("update", 1),
        "c": ("update", 0),
    }


def test_who_waits_follows_the_row_it_waits_for() -> None:
    resolved = resolve({m.key: m for m in (mover("a", "b"), mover("b"))})
    assert (resolved["a"].follows, resolved["b"].follows) == ("b", None)


def test_a_circle_is_taken_over_by_match_value() -> None:
    assert decide(mover("a", "b"), mover("b", "a")) == {"a": ("upsert", 0), "b": ("upsert", 0)}


def test_who_waits_for_a_circle_takes_over_too() -> None:
    assert decide(mover("c", "a"), mover("a", "b"), mover("b", "a"))["c"] == ("upsert", 0)


def test_a_value_of_a_row_that_is_gone_is_taken_over() -> None:
    assert decide(mover("a", "gone")) == {"a": ("upsert", 0)}


def test_a_new_row_waits_until_its_value_is_renamed_away() -> None:
    assert decide(mover("new", "b", renames=False), mover("b")) == {"new": ("upsert", 1), "b": ("update", 0)}


def test_a_value_held_by_a_gone_row_and_a_renaming_one_is_written_after_the_rename() -> None:
    assert decide(mover("a", "b", "gone"), mover("b"))["a"] == ("upsert", 1)


def test_a_chain_of_thousands_does_not_exhaust_the_stack() -> None:
    movers = {str(i): Mover(str(i), (str(i + 1),), True) for i in range(20_000)}
    movers["20000"] = Mover("20000", (), True)
    decided = resolve(movers)
    assert decided["0"] == Move(Action.UPDATE, 20_000, "1")
