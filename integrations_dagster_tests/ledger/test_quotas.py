"""Leave to send: quotas, slots, the learned pace and the circuit, on a clock that the tests move."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations_dagster.ledger.leases import Lease, ShardLease
from integrations_dagster.ledger.pace import FIRST_RATE, Pace
from integrations_dagster.ledger.quotas import CircuitOpen, NoSlot, QuotaSpent, Use
from integrations_dagster.ledger.schema import metadata
from integrations_dagster.ledger.store import Ledger
from integrations_dagster.ledger.windows import Window
from integrations_dagster.ledger.writing import OpenBatch
from integrations_dagster.vocabulary import Outcome, Status, Traffic, Worker
from integrations_dagster_tests.ledger.test_store import rows

WORKER = Worker("here", 1, 1.0)


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path, clock=clock)
    yield ledger
    ledger.close()


def use(*quotas: tuple[int, float], assumed: bool = False, concurrency: int | None = None, run: str = "run") -> Use:
    return Use("crm:portal 1", run, 0.0, quotas, assumed, concurrency)


def saturate(ledger: Ledger, clock: Clock, use: Use, seconds: float) -> list[float]:
    """When requests are sent by senders that always have more to send."""
    sent: list[float] = []
    end = clock.now + seconds
    while True:
        at = clock.now + ledger.grant(use).delay
        if at >= end:
            return sent
        sent.append(at)
        # Sixteen senders ask ahead of time.
        if len(sent) >= 16:
            clock.now = max(clock.now, sent[-16])


def most_in(window: float, times: list[float]) -> int:
    """The highest number of requests in any rolling window."""
    inside: deque[float] = deque()
    most = 0
    for at in sorted(times):
        inside.append(at)
        while inside[0] <= at - window:
            inside.popleft()
        most = max(most, len(inside))
    return most


@pytest.mark.parametrize(("limit", "window"), [(100, 1.0), (100, 10.0), (10, 1.0), (1, 1.0)])
def test_a_published_quota_is_used_and_never_exceeded(ledger: Ledger, clock: Clock, limit: int, window: float) -> None:
    seconds = 5 * window
    sent = saturate(ledger, clock, use((limit, window)), seconds)
    assert most_in(window, sent) <= limit
    assert len(sent) >= 0.97 * limit * seconds / window - 1


def test_several_quotas_hold_at_once(ledger: Ledger, clock: Clock) -> None:
    sent = saturate(ledger, clock, use((100, 10.0), (19, 1.0), (170, 86_400.0)), 16.0)
    assert most_in(10.0, sent) <= 100
    assert most_in(1.0, sent) <= 19
    for _ in range(170 - len(sent) - 1):
        clock.now += 1
        ledger.grant(use((100, 10.0), (19, 1.0), (170, 86_400.0)))
    with pytest.raises(QuotaSpent, match="170 requests in 24") as spent:
        ledger.grant(use((100, 10.0), (19, 1.0), (170, 86_400.0)))
    assert 80_000 < spent.value.wait < 86_400


@settings(max_examples=300, deadline=None)
@given(pauses=st.lists(st.tuples(st.integers(1, 60), st.floats(0, 30)), max_size=12), limit=st.integers(1, 60))
def test_no_pattern_of_demand_exceeds_a_quota(pauses: list[tuple[int, float]], limit: int) -> None:
    now, sent = 1_000_000.0, list[float]()
    columns: dict[str, float] = {"arrival": 0.0, "started": now, "used": 0}
    for burst, pause in pauses:
        for _ in range(burst):
            window = Window.of(10.0, limit, columns["arrival"], columns["started"], int(columns["used"]), now)
            sent.append(window.earliest(now))
            columns = window.after(sent[-1])
            now = max(now, sent[-1] - 1.0)  # senders ask up to a second ahead
        now += pause
    assert most_in(10.0, sent) <= limit


def test_a_small_run_does_not_wait_for_the_pace(ledger: Ledger) -> None:
    assert [ledger.grant(use((100, 10.0))).delay for _ in range(10)] == [0.0] * 10


def test_what_answers_report_replaces_what_is_assumed_and_lowers_what_is_set(ledger: Ledger, clock: Clock) -> None:
    assumed, mine = use((100, 10.0), assumed=True), use((100, 10.0))
    ledger.grant(assumed)
    ledger.reported(assumed, 1.0, requests=1000, remaining=None)
    clock.now += 100
    assert len(saturate(ledger, clock, assumed, 2.0)) > 1900
    clock.now += 100
    assert len(saturate(ledger, clock, mine, 20.0)) < 205
    ledger.reported(mine, 10.0, requests=50, remaining=None)
    clock.now += 100
    assert len(saturate(ledger, clock, mine, 20.0)) < 105


def test_a_counted_quota_follows_what_is_left_of_it(ledger: Ledger) -> None:
    day = use((1000, 86_400.0))
    ledger.grant(day)
    ledger.reported(day, 86_400.0, requests=1000, remaining=2)
    ledger.grant(day)
    ledger.grant(day)
    with pytest.raises(QuotaSpent, match=r"Nothing is lost: launch the run again in 24\.0 hours"):
        ledger.grant(day)


def test_silence_holds_for_everybody(ledger: Ledger, clock: Clock) -> None:
    ledger.refused(use(), 0, 3.0)
    assert ledger.grant(use(run="another")).delay == pytest.approx(3.0)
    assert ledger.blocked("crm:portal 1") == pytest.approx(3.0)
    clock.now += 3.1
    assert ledger.blocked("crm:portal 1") == 0
    ledger.refused(use(), 0, 1000.0)
    with pytest.raises(QuotaSpent, match="17 minutes of silence"):
        ledger.grant(use())


@pytest.mark.parametrize(("quota", "silence"), [((100, 1.0), 0.1), ((100, 10.0), 0.1), ((10, 5.0), 0.5)])
def test_a_refusal_beside_a_published_quota_costs_the_time_until_there_is_room(
    ledger: Ledger, clock: Clock, quota: tuple[int, float], silence: float
) -> None:
    ledger.refused(use(quota), ledger.grant(use(quota)).serial, None)
    assert ledger.blocked("crm:portal 1") == pytest.approx(silence)
    clock.now += silence
    ledger.refused(use(quota), ledger.grant(use(quota)).serial, None)
    assert ledger.blocked("crm:portal 1") == pytest.approx(1.0), "now the window may be full"
    clock.now += 2.0
    sent = saturate(ledger, clock, use(quota), 3 * quota[1])
    assert len([at for at in sent if at > sent[-1] - quota[1]]) >= 0.97 * quota[0] - 1, "the pace is what it was"


def test_a_published_quota_that_does_not_hold_is_learned(ledger: Ledger, clock: Clock) -> None:
    for _ in range(3):
        ledger.refused(use((100, 1.0)), ledger.grant(use((100, 1.0))).serial, None)
        clock.now += 0.5
    sent = saturate(ledger, clock, use((100, 1.0)), 3.0)
    assert len(sent) < 0.5 * 3 * 100


def shard_of(ledger: Ledger, run: str) -> ShardLease:
    lease = ledger.acquire(f"{run}@crm", run, WORKER, alive=lambda _holder: False)
    return ledger.begin_shard(Lease(lease.state_key, run, lease.fence), 0, WORKER)


def test_a_cap_on_requests_in_flight_is_shared_and_freed_by_answers_and_by_time(ledger: Ledger, clock: Clock) -> None:
    capped = use(concurrency=2)
    first, second = shard_of(ledger, "one"), shard_of(ledger, "two")
    batch = ledger.open_batch(first, rows("1"), idempotency_key="a", repeatable=True, timeout=10, use=capped)
    ledger.open_batch(second, rows("2"), idempotency_key="b", repeatable=True, timeout=10, use=capped)
    with pytest.raises(NoSlot):
        ledger.open_batch(second, rows("3"), idempotency_key="c", repeatable=True, timeout=10, use=capped)
    ledger.renew_batch(batch, first, timeout=10, use=capped)  # its own slot is no obstacle
    ledger.complete_batch(batch, (Outcome(Status.CREATED),), Traffic())
    ledger.open_batch(second, rows("3"), idempotency_key="c", repeatable=True, timeout=10, use=capped)
    # Their writers are killed: the slots are free when the requests must have ended.
    clock.now += 15.1
    ledger.open_batch(first, rows("4"), idempotency_key="d", repeatable=True, timeout=10, use=capped)


def test_a_circuit_stops_the_runs_that_are_under_way_and_is_tried_by_later_ones(ledger: Ledger, clock: Clock) -> None:
    running = Use("crm", "run 1", clock.now)
    beside = Use("crm", "run 2", clock.now)
    clock.now += 10
    assert ledger.open_circuit(running, "HubSpot is unavailable.", clock.now)
    for stopped in (running, beside):
        with pytest.raises(CircuitOpen, match="HubSpot is unavailable"):
            ledger.grant(stopped)
    clock.now += 1
    later = Use("crm", "run 3", clock.now)
    ledger.grant(later)
    circuit = ledger.circuit("crm")
    assert circuit is not None
    ledger.close_circuit("crm", circuit.opened + 5)
    assert ledger.circuit("crm") is not None, "it was opened anew meanwhile"
    ledger.close_circuit("crm", circuit.opened)
    ledger.grant(running)
    assert ledger.circuit("crm") is None


def test_a_ledger_of_an_earlier_version_gains_the_columns_that_it_lacks(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        for name in ("account", "payloads", "reference"):
            if name == "account":
                connection.exec_driver_sql("DROP INDEX batches_by_account")
            connection.exec_driver_sql(f"ALTER TABLE batches DROP COLUMN {name}")
    engine.dispose()
    ledger = Ledger.open(tmp_path)
    try:
        shard = shard_of(ledger, "run")
        ledger.open_batch(
            shard, rows("1"), idempotency_key="a", repeatable=False, timeout=1, use=use(), payloads=(b"{}",)
        )
        (batch,) = ledger.open_batches("run@crm")
        assert batch.payloads == (b"{}",)
    finally:
        ledger.close()


def test_a_circuit_does_not_open_while_the_account_answers_others(ledger: Ledger, clock: Clock) -> None:
    shard = shard_of(ledger, "run")
    use_ = use()
    began = clock.now
    batch = ledger.open_batch(shard, rows("1"), idempotency_key="a", repeatable=True, timeout=10, use=use_)
    clock.now += 1
    ledger.complete_batch(batch, (Outcome(Status.CREATED),), Traffic())
    assert not ledger.open_circuit(use_, "down", began)
    assert ledger.open_circuit(use_, "down", clock.now)


def test_more_changes_than_fit_in_one_transaction_are_all_made(ledger: Ledger) -> None:
    shard = shard_of(ledger, "run")
    opened: list[OpenBatch] = []

    def open_one(number: int) -> None:
        opened.append(
            ledger.open_batch(shard, rows("1"), idempotency_key=str(number), repeatable=True, timeout=10, use=use())
        )

    with ledger._transaction():
        # All of them queue up behind this one.
        threads = [threading.Thread(target=open_one, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        while len(ledger._changes) < 100:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert len({batch.id for batch in opened}) == 100
    assert len(ledger.open_batches("run@crm")) == 100


def test_a_phase_of_refusals_does_not_bring_an_account_to_a_stand() -> None:
    pace = Pace()
    for second in range(5):
        _, pace = pace.refused(1000.0 + second, pace.granted, 0, 0.0)
        _, pace = pace.grant(1000.5 + second)
    assert pace.rate is not None
    assert pace.rate >= 0.2


# The learned pace, against a destination that allows so many requests in a rolling second


class Allowing:
    """A destination that counts in a rolling window and refuses what exceeds it."""

    def __init__(self, limit: int, window: float = 1.0) -> None:
        self.limit, self.window = limit, window
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self._inside: deque[float] = deque()

    def ask(self, now: float) -> bool:
        while self._inside and self._inside[0] <= now - self.window:
            self._inside.popleft()
        if len(self._inside) >= self.limit:
            self.refused.append(now)
            return False
        self._inside.append(now)
        self.accepted.append(now)
        return True


def simulate(pace: Pace, destination: Allowing, seconds: float, wait: float | None, *, seed: int = 1) -> Pace:
    """Sixteen senders, 50 ms a request with some jitter, that share one pace."""
    choice = random.Random(seed)
    print(f"seed {seed}")
    blocked = 0.0
    events: list[tuple[float, int, int, int]] = [(0.05 * i, 0, i, 0) for i in range(16)]
    number = 16
    while events:
        now, what, order, serial = heapq.heappop(events)
        if now > seconds:
            continue
        number += 1
        if what == 0:  # asks for leave
            at, pace = pace.grant(max(now, blocked))
            heapq.heappush(events, (at + choice.uniform(0.002, 0.01), 1, number, pace.granted))
        elif now < blocked:
            heapq.heappush(events, (now, 0, number, 0))
        elif destination.ask(now):
            heapq.heappush(events, (now + choice.uniform(0.045, 0.06), 0, number, 0))
        else:
            lately = [time for time in destination.accepted[-3000:] if time > now - 10.0]
            last_second = sum(time > now - 1.0 for time in lately)
            block, pace = pace.refused(now, serial, last_second, len(lately) / max(1.0, now - lately[0]))
            blocked = max(blocked, now + (block if wait is None else wait))
            heapq.heappush(events, (now + 0.001, 0, number, 0))
        del order
    return pace


def an_hour_later(pace: Pace) -> Pace:
    """What the next run finds, on a clock that begins anew."""
    return replace(pace, arrival=-3600.0, paced_since=-3600.0, last_grant=-3600.0, last_event=-3600.0)


@pytest.mark.parametrize("limit", [20, 50, 100, 200])
@pytest.mark.parametrize("wait", [None, 1.0], ids=["without-hint", "retry-after"])
@pytest.mark.parametrize("begin", [Pace(), Pace.first(0.0)], ids=["unpaced", "first"])
def test_an_unknown_quota_is_found_and_used(limit: int, wait: float | None, begin: Pace) -> None:
    destination = Allowing(limit)
    pace = simulate(begin, destination, 60.0, wait)
    used = sum(time > 10 for time in destination.accepted) / (50 * limit)
    refused = len(destination.refused) / (len(destination.refused) + len(destination.accepted))
    print(f"{limit}/s: {used:.1%} used after 10 s, {refused:.2%} refused over a minute, pace {pace.rate:.1f}/s")
    assert used >= 0.90
    assert refused <= (0.01 if limit >= 50 else 0.02)
    again = Allowing(limit)
    simulate(an_hour_later(pace), again, 20.0, wait)
    assert len(again.accepted) >= 0.9 * 20 * limit, "the next run begins with what was learned"


def test_an_account_without_a_quota_is_soon_not_paced_any_more() -> None:
    destination = Allowing(1_000_000)
    pace = simulate(Pace.first(0.0), destination, 10.0, None)
    assert pace.rate is None
    slow = sum(time <= 5 for time in destination.accepted) / sum(time > 5 for time in destination.accepted)
    print(f"the first five seconds carry {slow:.0%} of the next five")
    assert slow >= 0.4


def test_an_account_that_is_asked_now_and_then_is_not_tried_out() -> None:
    pace = Pace.first(0.0)
    for second in range(100):
        _, pace = pace.grant(float(second))
    assert pace.rate == FIRST_RATE


def test_a_limit_that_was_raised_is_found_again() -> None:
    slow, fast = Allowing(20), Allowing(200)
    pace = simulate(Pace(), slow, 30.0, None)
    simulate(an_hour_later(pace), fast, 60.0, None)
    assert sum(time > 50 for time in fast.accepted) >= 0.8 * 10 * 200
