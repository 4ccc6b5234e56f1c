"""What a check is, which there are, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from integrations_dagster.testing.lab import Lab, Rows, key_of
from integrations_dagster.vocabulary import SUCCEEDED, Action, Mode, Status


class Failed(AssertionError):
    """The destination does not keep what the check promises; says what was seen, and what to change."""


class Skipped(Exception):
    """The check says nothing of this destination; says why."""


class Per(StrEnum):
    """What a check is done once for."""

    DESTINATION = "destination"
    MODE = "mode"
    ACTION = "action"
    """A way in which rows are delivered; modes share them: insert and append create, upsert and mirror upsert, update
    modifies, mirror and delete delete."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise.

    Attributes:
        name: How reports call it.
        promise: What holds, as a sentence or more.
        per: What it is done once for.
        function: Does it; raises `Failed` or `Skipped`.
        seeds: Whether it draws, so that further seeds are worth their time.
        proxied: Whether it needs to see or change requests.
    """

    name: str
    promise: str
    per: Per
    function: Callable[..., None]
    seeds: bool = False
    proxied: bool = True


CHECKS: list[Check] = []
"""Every check, in the order of the report."""


def check(
    per: Per, *, seeds: bool = False, proxied: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a check; its name and docstring are those of the check."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        promise = " ".join((function.__doc__ or "").split())
        CHECKS.append(Check(function.__name__, promise, per, function, seeds, proxied))
        return function

    return add


def actions(modes: frozenset[Mode]) -> list[Action]:
    """The ways in which modes deliver rows."""
    found = [Action.CREATE] if modes & {Mode.INSERT, Mode.APPEND} else []
    found += [Action.UPSERT] if modes & {Mode.UPSERT, Mode.MIRROR} else []
    found += [Action.MODIFY] if Mode.UPDATE in modes else []
    return found + ([Action.DELETE] if modes & {Mode.MIRROR, Mode.DELETE} else [])


MADE: dict[Action, frozenset[Status]] = {
    Action.CREATE: frozenset({Status.CREATED}),
    # Not every API says which of the two it was.
    Action.UPSERT: frozenset({Status.CREATED, Status.UPDATED, Status.UNCHANGED}),
    Action.MODIFY: frozenset({Status.UPDATED, Status.UNCHANGED}),
    Action.DELETE: frozenset({Status.DELETED}),
}
"""What an accepted row's outcome may be."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Rows to be delivered, and what the server then holds.

    Attributes:
        rows: The rows, good and bad in the order of delivery.
        ids: Record ids that are known.
        after: Identity to fields of all records once every good row was accepted.
        before: The same as long as none was.
    """

    action: Action
    rows: dict[str, dict[str, Any]]
    ids: dict[str, str | None]
    after: dict[str, dict[str, Any]]
    before: dict[str, dict[str, Any]]


def staged(lab: Lab, action: Action, count: int, *, bad: Iterable[int] = (), start: int = 0) -> Stage:
    """Rows for an action, those in places `bad` to be rejected, with the records there that the action needs.

    Raises:
        Skipped: Bad rows are asked for, and the subject or the action has none.
    """
    wrong = frozenset(bad)
    rows: dict[str, dict[str, Any]] = {}
    made: dict[str, dict[str, Any]] = {}
    version = 2 if action is Action.MODIFY else 1
    for place in range(count):
        key = key_of(start + place, bad=place in wrong)
        made[key] = lab.subject.good(key, 1)
        row = lab.subject.bad(key, version) if place in wrong else lab.subject.good(key, version)
        if row is None or (place in wrong and action is Action.DELETE):
            raise Skipped("No row of this action is rejected alone (`Subject.bad`).")
        rows[key] = row
    ids: dict[str, str | None] = {}
    before: dict[str, dict[str, Any]] = {}
    if action in (Action.MODIFY, Action.DELETE):
        ids = lab.seed(made)
        before = {lab.identity(key, row): row for key, row in made.items()}
        if action is Action.MODIFY:
            ids = {}
        elif Mode.DELETE in lab.modes:
            # Mode delete knows no ids: records are found by match value.
            ids = {key: id_ for place, (key, id_) in enumerate(ids.items()) if place % 2}
        lab.proxy.clear()
        lab.batches.clear()
        lab.remembered.clear()
    after = dict(before)
    for place, (key, row) in enumerate(rows.items()):
        identity = lab.identity(key, row)
        if action is Action.DELETE:
            after.pop(identity, None)
        elif place not in wrong:
            after[identity] = row
    return Stage(action, rows, ids, after, before)


def differences(lab: Lab, expected: Rows, *, missing: bool = True, most: int = 3) -> str:
    """How the server's records differ from what is expected: identity to fields; "" if they do not.

    Args:
        missing: Whether a record that is not there counts.
    """
    found: dict[str, list[Any]] = {}
    for identity, fields in lab.subject.records():
        found.setdefault(identity, []).append(fields)
    told: list[str] = []
    told += [f"{i!r} is there {len(f)} times" for i, f in found.items() if len(f) > 1]
    told += [f"{i!r} is missing" for i in expected if missing and i not in found]
    told += [f"{i!r} should not be there" for i in found if i not in expected]
    for identity, fields in expected.items():
        for name, sent in fields.items():
            got = found[identity][0].get(name) if identity in found else sent
            if identity in found and not lab.subject.same(sent, got):
                told.append(f"{identity!r} has {name} {got!r} instead of {sent!r}")
    return "; ".join(told[:most]) + (f"; and {len(told) - most} more" if len(told) > most else "")


def shown(keys: Iterable[str], most: int = 5) -> str:
    """Some keys, for a message."""
    listed = sorted(keys)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def expect(condition: object, seen: str, change: str) -> None:
    """Raise `Failed` unless the condition holds.

    Args:
        seen: What was seen, as a sentence.
        change: What to change, as a sentence.
    """
    if not condition:
        raise Failed(f"{seen} {change}")


def expect_all_accepted(stage: Stage, outcomes: Sequence[tuple[str, Any]], change: str) -> None:
    """Raise `Failed` unless every row was accepted."""
    wrong = {key: o for key, o in outcomes if o.status not in SUCCEEDED}
    if wrong or len(outcomes) != len(stage.rows):
        first = next(iter(wrong.values()), None)
        why = f" ({first.status}: {first.reason})" if first is not None else ""
        raise Failed(f"Not accepted: {shown(wrong) or 'rows without an outcome'}{why}. {change}")
