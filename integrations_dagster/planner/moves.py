"""Match values that pass from one row to another: who renames its record, who takes another's over, and in what order.

One record at the destination has one match value, and a row's record follows it when the match value changes: it is
updated by its destination id. That fails while another row's record still has the new value. So:

- a row whose new match value is free renames its record;
- a row that waits for a value until another row has renamed its record away comes one wave later, and only if that
  was accepted;
- a value held by a row that is gone, or that goes round in a circle (two rows that swap), is taken over: the row is
  written by match value, onto the record that has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from integrations_dagster.vocabulary import Action


@dataclass(frozen=True, slots=True)
class Mover:
    """A candidate that takes or releases a match value which the snapshot knows under another key.

    Attributes:
        key: Its primary key.
        holders: Keys of other rows under which the snapshot knows its new match value.
        renames: Whether it has a record of its own to rename (destination id known, under an older match value).
    """

    key: str
    holders: tuple[str, ...]
    renames: bool


@dataclass(frozen=True, slots=True)
class Move:
    """How a mover is delivered.

    Attributes:
        action: By match value or by destination id.
        wave: Waves are delivered one after the other.
        follows: Key of the row that must have been accepted before, or None.
    """

    action: Action
    wave: int = 0
    follows: str | None = None


def resolve(movers: Mapping[str, Mover]) -> dict[str, Move]:
    """Decide how each mover is delivered."""
    decided: dict[str, Move] = {}
    for start in movers:
        # Iterative walk along "waits for": chains can be long. A key met again on the way closes a circle.
        path: list[str] = []
        on_path: dict[str, int] = {}
        key: str | None = start
        while key is not None and key not in decided:
            if key in on_path:
                for member in path[on_path[key] :]:
                    decided[member] = Move(Action.UPSERT)
                path = path[: on_path[key]]
                break
            on_path[key] = len(path)
            path.append(key)
            key = _blocker(movers, key)
        for member in reversed(path):
            decided[member] = _decide(movers[member], movers, decided)
    return decided


def _blocker(movers: Mapping[str, Mover], key: str) -> str | None:
    return next((holder for holder in movers[key].holders if holder in movers and movers[holder].renames), None)


def _decide(mover: Mover, movers: Mapping[str, Mover], decided: Mapping[str, Move]) -> Move:
    if not mover.holders:
        return Move(Action.UPDATE if mover.renames else Action.UPSERT)
    blocker = _blocker(movers, mover.key)
    if blocker is not None and decided[blocker].action is Action.UPDATE:
        others = [holder for holder in mover.holders if holder != blocker]
        action = Action.UPDATE if mover.renames and not others else Action.UPSERT
        # If the blocker is not accepted, the value is still on its record, which is not this row's to write on.
        return Move(action, decided[blocker].wave + 1, blocker)
    return Move(Action.UPSERT)
