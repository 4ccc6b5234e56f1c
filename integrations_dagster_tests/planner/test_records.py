"""The short way from events to records is no other way than the long one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pytest

from integrations_dagster.planner.events import EVENT_COLUMNS
from integrations_dagster.planner.records import RECORDS_AFTER, settle_records
from integrations_dagster.planner.state import SNAPSHOT_COLUMNS

Rows = list[dict[str, Any]]
NAMES = 12
"""Keys, match values and ids of a history each: few, so that nearly every record has to do with an event."""
TEXTS = ("key", "match", "partition", "status", "source_digest", "payload_digest")
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "snapshot": SNAPSHOT_COLUMNS,
    "events": EVENT_COLUMNS,
    "ended": {"key": "VARCHAR", "match": "VARCHAR", "number": "BIGINT"},
    "departed": {"key": "VARCHAR", "match": "VARCHAR", "number": "BIGINT"},
    "outcomes": dict.fromkeys(TEXTS, "VARCHAR"),
}
KINDS = ("write", "write", "write", "write", "rejected", "in_doubt", "absent", "none")
ACTIONS = ("upsert", "create", "update", "modify")


def history(seed: int) -> dict[str, Rows]:
    """A snapshot and events none of which has to do with another."""
    choice = random.Random(seed)
    names = range(NAMES)
    pairs = choice.sample([(k, m) for k in names for m in names], 3 * NAMES)
    snapshot: Rows = [
        {
            "key": f"k{key}",
            "match": f"m{match}",
            "partition": "",
            "destination_id": choice.choice((None, f"i{choice.choice(names)}", f"i{choice.choice(names)}")),
            "source_digest": choice.choice((None, "d1", "d2")),
            "payload_digest": choice.choice(("d1", "d2")),
            "number": choice.randint(1, 10),
        }
        for key, match in pairs
    ]
    ids = choice.sample(names, NAMES)
    with_ids = choice.random() < 0.7
    events = [
        {
            "number": 11 + place // 3,
            "key": f"k{choice.choice(names)}",
            "match": f"m{match}",
            "partition": "",
            "effect": choice.choice(KINDS),
            "action": choice.choice(ACTIONS),
            "destination_id": f"i{ids[place]}" if with_ids else None,
            "source_digest": "d3",
            "payload_digest": choice.choice(("d1", "d2")),
            "gone": False,
        }
        for place, match in enumerate(choice.sample(names, choice.randint(1, NAMES)))
    ]
    leaving = choice.sample(snapshot, 3)
    ended = [{"key": r["key"], "match": r["match"], "number": r["number"] + choice.choice((0, 0, 1))} for r in leaving]
    departed = [
        {"key": r["key"], "match": r["match"], "number": r["number"] + choice.choice((0, 0, 1))}
        for r in choice.sample(snapshot, 3)
    ]
    confirmed = choice.sample(snapshot, 3)
    outcomes = [
        {**{name: row[name] for name in ("key", "match", "payload_digest")}, "partition": "moved",
         "status": "unchanged", "source_digest": "d4"}
        for row in confirmed
    ]  # fmt: skip
    return {"snapshot": snapshot, "events": events, "ended": ended, "departed": departed, "outcomes": outcomes}


def entangle(views: dict[str, Rows], seed: int) -> None:
    """Change one event so that it has to do with others, or does more than write."""
    choice = random.Random(seed)
    events = views["events"]
    for row in events[:2]:
        row["effect"] = "write"
    other, row = events[0], events[-1]
    changes: tuple[dict[str, Any], ...] = (
        {"effect": "delete"},
        {"effect": "unknown_write"},
        {"effect": "unknown_delete"},
        {"effect": "rejected", "gone": True},
        {"effect": "write", "match": other["match"]},
        {"effect": "write", "destination_id": other["destination_id"]},
        {"effect": "write", "destination_id": None},
    )
    row |= choice.choice(changes)


def after(views: Mapping[str, Rows], *, look: bool) -> tuple[bool, list[tuple[Any, ...]]]:
    with duckdb.connect(config={"threads": 1}) as connection:
        for name, kinds in COLUMNS.items():
            connection.execute(f"CREATE TABLE {name} ({', '.join(f'{n} {k}' for n, k in kinds.items())})")
            rows: Sequence[Mapping[str, Any]] = views[name]
            if rows:
                marks = ", ".join(["(" + ", ".join("?" for _ in rows[0]) + ")"] * len(rows))
                values = [value for row in rows for value in row.values()]
                connection.execute(f"INSERT INTO {name} ({', '.join(rows[0])}) VALUES {marks}", values)
        short = settle_records(connection, look=look)
        return short, connection.execute(f"SELECT * FROM ({RECORDS_AFTER}) ORDER BY ALL").fetchall()


@pytest.mark.parametrize("seed", range(25))
def test_both_ways_make_the_same_records(seed: int) -> None:
    views = history(seed)
    short, found = after(views, look=True)
    assert short
    assert found == after(views, look=False)[1]


@pytest.mark.parametrize("seed", range(25))
def test_whatever_way_is_taken_the_records_are_the_same(seed: int) -> None:
    views = history(seed)
    entangle(views, seed)
    assert after(views, look=True)[1] == after(views, look=False)[1]


def test_writes_that_have_to_do_with_each_other_take_the_long_way() -> None:
    row = {"partition": "", "effect": "write", "action": "upsert", "gone": False}
    digests = {"source_digest": "s", "payload_digest": "p"}
    events = [
        {"number": n, "key": f"k{n}", "match": f"m{n}", "destination_id": f"i{n}", **row, **digests} for n in range(5)
    ]
    rejected = {**events[0], "key": "k9", "match": "m9", "destination_id": None, "effect": "rejected", "number": 9}
    nothing: dict[str, Rows] = {"snapshot": [], "ended": [], "departed": [], "outcomes": []}
    short, found = after({**nothing, "events": [*events, rejected]}, look=True)
    assert short
    assert [record[0] for record in found] == [f"k{n}" for n in range(5)]
    for odd in (
        {**events[1], "effect": "delete"},
        {**events[1], "match": "m0"},
        {**events[1], "destination_id": "i0"},
        {**events[1], "destination_id": None},
        {**rejected, "gone": True},
    ):
        assert not after({**nothing, "events": [events[0], odd]}, look=True)[0], odd
