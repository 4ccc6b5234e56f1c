"""Partitions over HTTP: windows in any order, in one run or in several, end in the same state."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Misconfigured, Mode, Partition, Status
from integrations_dagster_tests.sync.harness import Bench

SQL = """SELECT id, happened, amount FROM orders
WHERE happened >= CAST($partition_start AS TIMESTAMP) AND happened < CAST($partition_end AS TIMESTAMP)"""
COLUMNS = {"id": "INTEGER", "happened": "TIMESTAMP", "amount": "INTEGER"}
DAYS = [Partition(f"2026-08-0{d}", f"2026-08-0{d}T00:00:00", f"2026-08-0{d + 1}T00:00:00") for d in range(1, 6)]


def orders(bench: Bench, name: str, mode: Mode = Mode.MIRROR) -> SyncSpec:
    """Orders to a webhook's account of its own."""
    return SyncSpec(
        name=f"orders_{name}",
        model=bench.model("orders", SQL, partitioned=True),
        destination=DestinationSpec(f"hook_{name}", "webhook", TargetSpec("sandbox", sandbox=True), 5.0, 4),
        object="orders",
        mode=mode,
        fields=(FieldSpec("amount", "amount"), FieldSpec("happened", "happened")),
        removal_limit=1.0,
        source="defs/orders/defs.yaml:1",
    )


def load(bench: Bench, rows: dict[int, tuple[int, int, int]]) -> None:
    """Orders by id: (day, hour, amount)."""
    bench.load(
        "orders",
        [
            {"id": id_, "happened": f"2026-08-0{day} {hour:02d}:00:00", "amount": amount}
            for id_, (day, hour, amount) in rows.items()
        ],
        COLUMNS,
    )


# The planner's histories have the same each time, without requests.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "mode"),
    [(seed, mode) for seed in (1, 2, 3) for mode in (Mode.MIRROR, Mode.UPSERT)],
)
def test_one_run_and_several_in_any_order_end_alike(bench: Bench, seed: int, mode: Mode) -> None:
    rng = random.Random(seed)
    together, apart = orders(bench, "together", mode), orders(bench, "apart", mode)
    rows: dict[int, tuple[int, int, int]] = {}
    for _ in range(3):
        for id_ in rng.sample(range(30), 20):
            # Added, changed, moved to another day, or gone.
            if rng.random() < 0.2:
                rows.pop(id_, None)
            else:
                rows[id_] = (rng.randint(1, 5), rng.randint(0, 23), rng.randint(1, 9))
        load(bench, rows)
        some = rng.sample(DAYS, 2)
        bench.run(together, some)
        for day in rng.sample(DAYS, 3):
            bench.run(apart, [day])
    bench.run(together, DAYS)
    for day in rng.sample(DAYS, 5):
        bench.run(apart, [day])
    wanted = {str(id_): amount for id_, (_, _, amount) in rows.items()}
    for sync in (together, apart):
        held = bench.client.webhook_records(sync.destination.name, "orders")
        amounts = {key: record["amount"] for key, record in held.items()}
        if mode is Mode.MIRROR:
            assert amounts == wanted
        else:
            assert {key: amounts[key] for key in wanted} == wanted
        # Windows that are run again send only what differs, which is nothing.
        before = bench.client.last_seq()
        for day in rng.sample(DAYS, 5):
            assert bench.run(sync, [day]).candidates == 0
        assert bench.client.last_seq() == before


def test_a_window_that_is_run_again_sends_only_what_differs(bench: Bench) -> None:
    rows = {n: (1 + n % 5, n % 24, 1) for n in range(50)}
    sync = orders(bench, "again")
    load(bench, rows)
    bench.run(sync, DAYS)
    rows[5] = (1, 5, 2)
    rows[6] = (2, 6, 2)
    load(bench, rows)
    report = bench.run(sync, DAYS[:1])
    assert (report.counts.queried, report.outcomes[Status.UPDATED], report.counts.unchanged) == (10, 1, 9)


def test_the_end_of_a_window_is_not_in_it(bench: Bench) -> None:
    sync = orders(bench, "edges")
    load(bench, {1: (1, 0, 1), 2: (2, 0, 1)})
    assert bench.run(sync, DAYS[:1]).counts.queried == 1
    assert bench.run(sync, DAYS[:2]).counts.queried == 2


def test_a_key_in_two_partitions_stops_the_run(bench: Bench) -> None:
    sync = orders(bench, "twice")
    rows: list[dict[str, Any]] = [{"id": 7, "happened": f"2026-08-0{day} 01:00:00", "amount": day} for day in (1, 2)]
    bench.load("orders", rows, COLUMNS)
    before = bench.client.last_seq()
    with pytest.raises(Misconfigured, match=r"not unique: '7' \(2 rows\)"):
        bench.run(sync, DAYS[:2])
    assert bench.client.last_seq() == before


def test_a_resync_of_a_window_leaves_the_others_alone(bench: Bench) -> None:
    sync = orders(bench, "resync")
    load(bench, {n: (1 + n % 5, 1, 1) for n in range(50)})
    bench.run(sync, DAYS)
    report = bench.run(sync, DAYS[1:2], PlanOptions(full_resync=True))
    assert report.outcomes[Status.UPDATED] == 10
    assert bench.run(sync, DAYS).candidates == 0


def test_deletions_are_remembered_by_partition(bench: Bench) -> None:
    sync = dataclasses.replace(orders(bench, "delete", Mode.DELETE), fields=(), removal_limit=100.0)
    load(bench, {n: (1 + n % 5, 1, 1) for n in range(10)})
    assert bench.run(sync, DAYS).outcomes[Status.DELETED] == 10
    # Another day's list says nothing of this one's.
    assert bench.run(sync, DAYS[:1]).candidates == 0
    assert bench.run(sync, DAYS).candidates == 0
    # A key that moves to another day was deleted already, and belongs to that day from then on.
    load(bench, {n: (2 if n == 0 else 1 + n % 5, 1, 1) for n in range(10)})
    assert bench.run(sync, DAYS[1:2]).traffic.requests == 0
    assert bench.run(sync, DAYS[:1]).candidates == 0
    assert bench.run(sync, DAYS).candidates == 0


def test_a_row_that_comes_back_to_its_partition_is_looked_at_and_not_sent(bench: Bench) -> None:
    query = """SELECT id, email, firstname FROM people
        WHERE happened >= CAST($partition_start AS TIMESTAMP) AND happened < CAST($partition_end AS TIMESTAMP)"""
    sync = bench.contacts(bench.model("people", query, partitioned=True))
    columns = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR", "happened": "TIMESTAMP"}
    rows = [
        {"id": n, "email": f"p{n}@example.com", "firstname": "Ann", "happened": "2026-08-01 10:00:00"} for n in range(3)
    ]
    bench.load("people", rows, columns)
    assert bench.run(sync, DAYS[:1]).outcomes[Status.CREATED] == 3
    bench.load("people", rows[1:], columns)
    bench.run(sync, DAYS[:1])
    bench.load("people", rows, columns)
    back = bench.run(sync, DAYS[:1])
    assert (back.candidates, back.outcomes[Status.UNCHANGED], back.traffic.requests) == (1, 1, 0)
    assert bench.run(sync, DAYS[:1]).candidates == 0
