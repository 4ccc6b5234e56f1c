"""Leases, fences, and the life of a batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from integrations_dagster.ledger.batches import BatchStatus, SentRow
from integrations_dagster.ledger.leases import RunHolds
from integrations_dagster.ledger.store import Ledger
from integrations_dagster.vocabulary import (
    Action,
    Change,
    LeaseLost,
    Misconfigured,
    Outcome,
    Status,
    Traffic,
    Worker,
)

WORKER = Worker("here", 1, 1.0)
STATE = "contacts@hubspot:1"


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path, clock=clock)
    yield ledger
    ledger.close()


def rows(*keys: str) -> tuple[SentRow, ...]:
    return tuple(
        SentRow(i, key, f"{key}@x.org", Change.ADDED, Action.UPSERT, "", None, "s", "p") for i, key in enumerate(keys)
    )


def succeeded(n: int) -> tuple[Outcome, ...]:
    return tuple(Outcome(Status.CREATED, str(i)) for i in range(n))


def dead(_holder: object) -> bool:
    return False


def live(_holder: object) -> bool:
    return True


def test_a_lease_held_by_a_live_run_is_refused_with_its_run_id(ledger: Ledger) -> None:
    ledger.acquire(STATE, "run-1", WORKER, alive=live)
    with pytest.raises(RunHolds, match="run-1") as error:
        ledger.acquire(STATE, "run-2", WORKER, alive=live)
    assert error.value.holder.run_id == "run-1"


def test_a_lease_is_taken_when_released_when_dead_and_by_the_same_run(ledger: Ledger) -> None:
    first = ledger.acquire(STATE, "run-1", WORKER, alive=live)
    assert ledger.acquire(STATE, "run-1", WORKER, alive=live).fence == first.fence + 1
    second = ledger.acquire(STATE, "run-2", WORKER, alive=dead)
    ledger.release(second)
    assert ledger.holder(STATE) is None
    third = ledger.acquire(STATE, "run-3", WORKER, alive=live)
    assert [first.fence, second.fence, third.fence] == [1, 3, 4]


def test_releasing_an_old_lease_does_not_free_the_new_one(ledger: Ledger) -> None:
    old = ledger.acquire(STATE, "run-1", WORKER, alive=live)
    ledger.acquire(STATE, "run-2", WORKER, alive=dead)
    ledger.release(old)
    holder = ledger.holder(STATE)
    assert holder is not None
    assert holder.run_id == "run-2"


def test_an_old_run_and_an_old_attempt_open_no_batch(ledger: Ledger) -> None:
    lease = ledger.acquire(STATE, "run-1", WORKER, alive=live)
    first = ledger.begin_shard(lease, 0, WORKER)
    second = ledger.begin_shard(lease, 0, WORKER)
    with pytest.raises(LeaseLost, match="later attempt"):
        ledger.open_batch(first, rows("a"), idempotency_key="k", repeatable=True, timeout=10)
    batch = ledger.open_batch(second, rows("a"), idempotency_key="k", repeatable=True, timeout=10)
    ledger.acquire(STATE, "run-2", WORKER, alive=dead)
    for attempt in (second,):
        with pytest.raises(LeaseLost, match="run-2"):
            ledger.open_batch(attempt, rows("b"), idempotency_key="k", repeatable=True, timeout=10)
        with pytest.raises(LeaseLost, match="run-2"):
            ledger.renew_batch(batch, attempt, timeout=10)


def test_an_answer_is_stored_even_by_a_writer_that_lost_its_lease(ledger: Ledger) -> None:
    lease = ledger.acquire(STATE, "run-1", WORKER, alive=live)
    shard = ledger.begin_shard(lease, 0, WORKER)
    batch = ledger.open_batch(shard, rows("a", "b"), idempotency_key="k", repeatable=True, timeout=10)
    ledger.acquire(STATE, "run-2", WORKER, alive=dead)
    assert ledger.complete_batch(batch, succeeded(2), Traffic(requests=1))
    (record,) = ledger.closed_after(STATE, 0)
    assert record.status is BatchStatus.COMPLETED
    assert [o.destination_id for o in record.outcomes] == ["0", "1"]
    assert record.traffic["requests"] == 1


def test_an_answer_after_giving_up_is_late_even_when_the_record_was_cleared(ledger: Ledger, clock: Clock) -> None:
    lease = ledger.acquire(STATE, "run-1", WORKER, alive=live)
    shard = ledger.begin_shard(lease, 0, WORKER)
    batch = ledger.open_batch(shard, rows("a"), idempotency_key="k", repeatable=True, timeout=10, send_within=5)
    clock.time += 14.9
    assert ledger.give_up_expired(STATE) == 0
    clock.time += 0.2
    assert ledger.give_up_expired(STATE) == 1
    taker = ledger.acquire(STATE, "run-2", WORKER, alive=dead)
    assert ledger.clear(STATE, ledger.last_number(STATE), taker) == 1
    assert not ledger.complete_batch(batch, succeeded(1), Traffic())
    (late,) = ledger.closed_after(STATE, 1)
    assert late.status is BatchStatus.LATE
    assert late.rows == rows("a")
    assert late.number == 3


def test_numbers_follow_commits_and_are_never_used_twice(ledger: Ledger) -> None:
    lease = ledger.acquire(STATE, "run-1", WORKER, alive=live)
    errors: list[BaseException] = []

    def writer(index: int) -> None:
        try:
            shard = ledger.begin_shard(lease, index, WORKER)
            for _ in range(20):
                batch = ledger.open_batch(shard, rows("a"), idempotency_key="k", repeatable=True, timeout=10)
                ledger.complete_batch(batch, succeeded(1), Traffic())
        except BaseException as error:  # noqa: BLE001 (told to the main thread)
            errors.append(error)

    threads = [threading.Thread(target=writer, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    numbers = [record.number for record in ledger.closed_after(STATE, 0)]
    assert numbers == list(range(1, 161))
    ledger.clear(STATE, 160, lease)
    batch = ledger.open_batch(
        ledger.begin_shard(lease, 99, WORKER), rows("a"), idempotency_key="k", repeatable=True, timeout=10
    )
    ledger.complete_batch(batch, succeeded(1), Traffic())
    assert [record.number for record in ledger.closed_after(STATE, 0)] == [161]


def test_a_later_attempt_continues_an_open_batch_under_its_key(ledger: Ledger) -> None:
    lease = ledger.acquire(STATE, "run-1", WORKER, alive=live)
    first = ledger.begin_shard(lease, 0, WORKER)
    batch = ledger.open_batch(first, rows("a"), idempotency_key="key-1", repeatable=True, timeout=10)
    second = ledger.begin_shard(lease, 0, Worker("here", 2, 2.0))
    with pytest.raises(LeaseLost):
        ledger.renew_batch(batch, first, timeout=10)
    ledger.renew_batch(batch, second, timeout=10)
    (record,) = ledger.shard_batches(second)
    assert record.idempotency_key == "key-1"
    assert record.writer.pid == 2
    assert record.status is BatchStatus.OPEN


def test_a_superseded_batch_leaves_no_event(ledger: Ledger) -> None:
    lease = ledger.acquire(STATE, "run-1", WORKER, alive=live)
    shard = ledger.begin_shard(lease, 0, WORKER)
    batch = ledger.open_batch(shard, rows("a"), idempotency_key="k", repeatable=True, timeout=10)
    ledger.supersede_batch(batch, Traffic())
    assert list(ledger.closed_after(STATE, 0)) == []
    assert ledger.open_batches(STATE) == []
    assert ledger.shard_batches(shard) == []


def test_a_second_host_is_refused_while_the_first_is_active(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger.open(tmp_path, clock=clock).close()
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    clock.time += 60
    with pytest.raises(Misconfigured, match="one host only"):
        Ledger.open(tmp_path, clock=clock)
    clock.time += 600
    Ledger.open(tmp_path, clock=clock).close()
