"""Writers that die, are replaced, or are answered too late."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable

import pytest

from integrations_dagster.ledger.batches import BatchStatus
from integrations_dagster.ledger.leases import Lease
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.record import record
from integrations_dagster.sync.results import Plan, WriteSummary
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, SyncSpec, TargetSpec
from integrations_dagster.sync.state import state_key
from integrations_dagster.sync.write import write
from integrations_dagster.vocabulary import LeaseLost, Misconfigured, Mode, Status
from integrations_dagster_tests.ledger.test_store import rows
from integrations_dagster_tests.sync.harness import FAST, Bench

COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"}
UPSERTS = "/crm/v3/objects/contacts/batch/upsert"


def people(count: int, version: int = 1) -> list[dict[str, object]]:
    return [{"id": i, "email": f"p{i}@example.com", "firstname": f"Name {i} v{version}"} for i in range(count)]


def expected(count: int, version: int) -> dict[str, object]:
    return {str(row["email"]): row["firstname"] for row in people(count, version)}


@pytest.fixture
def sync(bench: Bench) -> SyncSpec:
    bench.load("people", people(40), COLUMNS)
    model = bench.model("people", "SELECT * FROM people")
    return bench.contacts(model, Mode.UPSERT, batch_rows=10, destination=bench.crm(timeout=3.0, in_flight=2))


class Writer:
    """A write op in a thread of its own."""

    def __init__(self, sync: SyncSpec, ctx: RunContext, made: Plan) -> None:
        self.summary: WriteSummary | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(sync, ctx, made))
        self._thread.start()

    def _run(self, sync: SyncSpec, ctx: RunContext, made: Plan) -> None:
        try:
            self.summary = write(sync, ctx, made.shards[0], retry=FAST)
        except BaseException as error:  # noqa: BLE001 (looked at by the test)
            self.error = error

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def hold(bench: Bench, *, applied: bool, late: bool = False, times: int = 1) -> None:
    fault: dict[str, object] = {"kind": "hold", "applied": applied, "seconds": 60}
    if late:
        fault["late"] = True
    bench.client.faults([{"match": {"path": UPSERTS}, "times": times, "fault": fault}])


def test_a_second_attempt_skips_what_is_answered_and_repeats_what_is_open(bench: Bench, sync: SyncSpec) -> None:
    """What a killed write step leaves: one batch answered, one open; the attempt that follows goes on from there."""
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    lease = Lease(state_key(sync, made.account), made.run_id, made.fence)
    hold(bench, applied=True, times=1)
    first = Writer(sync, ctx, made)
    bench.client.wait_held(1)
    wait_until(lambda: bench.emails() == expected(40, 1) and len(bench.ledger.open_batches(lease.state_key)) == 1)
    second = Writer(sync, ctx, made)
    second.join()
    assert second.error is None
    assert bench.emails() == expected(40, 1)
    writes = bench.client.writes("contacts", by="email")
    assert sum(writes.values()) == 50, "ten rows were in flight, and only they are written twice"
    bench.client.release()
    first.join()
    assert first.error is None
    report = record(sync, ctx, made, [second.summary] if second.summary else [])
    assert report.failures == ()
    assert sum(report.outcomes.values()) == 40
    assert all(batch.status is not BatchStatus.OPEN for batch in bench.ledger.open_batches(lease.state_key))


def test_a_continued_batch_keeps_its_delivery_id(bench: Bench) -> None:
    bench.load("people", people(10), COLUMNS)
    target = TargetSpec("sandbox", sandbox=True)
    sync = SyncSpec(
        name="out",
        model=bench.model("people", "SELECT * FROM people"),
        destination=DestinationSpec("events", "webhook", target, timeout=3.0, in_flight=1),
        object="people",
        mode=Mode.UPSERT,
        fields=(FieldSpec("firstname", "firstname"),),
    )
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    bench.client.faults(
        [{"match": {"path": "/webhook/*"}, "times": 1, "fault": {"kind": "hold", "applied": True, "seconds": 60}}]
    )
    first = Writer(sync, ctx, made)
    bench.client.wait_held(1)
    second = Writer(sync, ctx, made)
    second.join()
    bench.client.release()
    first.join()
    ids = [r["ids"] for r in bench.client.received() if r["path"].startswith("/webhook")]
    assert len(ids) == 2
    assert ids[0] == ids[1]
    assert set(bench.client.webhook_writes("events", "people").values()) == {1}


def test_a_run_that_lost_its_lease_sends_nothing_more_and_its_late_answer_is_not_believed(
    bench: Bench, sync: SyncSpec
) -> None:
    """The old writer hangs after its request took effect; a new run delivers newer values; then the answer comes."""
    old = bench.context("old")
    made = bench.plan(dataclasses.replace(sync, destination=bench.crm(timeout=30.0, in_flight=1)), old)
    hold(bench, applied=True)
    writer = Writer(dataclasses.replace(sync, destination=bench.crm(timeout=30.0, in_flight=1)), old, made)
    bench.client.wait_held(1)
    key = state_key(sync, made.account)
    (open_batch,) = bench.ledger.open_batches(key)
    # Its deadline passes without 35 s of waiting: the record is given up as a taker would.
    bench.load("people", people(40, 2), COLUMNS)
    bench.query(sync.model)
    taker = bench.context("taker")
    clock = bench.ledger._clock
    bench.ledger._clock = lambda: clock() + 60
    newer = plan(sync, taker)
    bench.ledger._clock = clock
    report = record(sync, taker, newer, bench.write(sync, taker, newer.shards))
    assert report.outcomes[Status.UPDATED] + report.outcomes[Status.CREATED] == 40
    assert bench.emails() == expected(40, 2)
    assert open_batch.rows[0].key in {str(i) for i in range(40)}
    bench.client.release()
    writer.join()
    assert writer.summary is not None
    assert "taker" in writer.summary.stopped
    late = list(bench.ledger.closed_after(key, 0))
    assert [batch.status for batch in late] == [BatchStatus.LATE]
    again = bench.run(sync)
    assert again.candidates == 10, "the rows of the late answer are unknown again"
    assert bench.emails() == expected(40, 2)
    assert bench.run(sync).candidates == 0


def test_a_plan_waits_for_requests_that_may_still_take_effect(bench: Bench, sync: SyncSpec) -> None:
    ctx = bench.context("dies")
    made = bench.plan(sync, ctx)
    lease = Lease(state_key(sync, made.account), made.run_id, made.fence)
    shard = bench.ledger.begin_shard(lease, 0, ctx.worker)
    bench.ledger.open_batch(shard, rows("0"), idempotency_key="k", repeatable=True, timeout=1.0, send_within=0.5)
    started = time.monotonic()
    bench.plan(sync, bench.context("next"))
    assert 1.0 < time.monotonic() - started < 10
    assert any("dies" in line and "waiting" in line for line in bench.logged), bench.logged


def test_a_cancelled_write_records_what_was_in_flight_and_sends_nothing_new(bench: Bench, sync: SyncSpec) -> None:
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    hold(bench, applied=True, times=2)
    writer = Writer(sync, ctx, made)
    bench.client.wait_held(2)
    ctx.stop.set()
    # The writer notices when it next looks up; only then may the answers come.
    wait_until(lambda: any("cancelled" in line for line in bench.logged))
    bench.client.release()
    writer.join()
    assert writer.summary is not None
    assert "cancelled" in writer.summary.stopped
    assert len(bench.emails()) == 20
    bench.client.clear_faults()
    report = bench.run(sync)
    assert report.candidates == 20, "the answers of the requests in flight were recorded"
    assert bench.emails() == expected(40, 1)


def test_a_step_of_a_replaced_run_stops_and_says_what_to_do(bench: Bench, sync: SyncSpec) -> None:
    old = bench.context("old")
    made = bench.plan(sync, old)
    bench.plan(sync, bench.context("new"))
    with pytest.raises(LeaseLost, match=r"run new has taken it over.*Launch a new run"):
        write(sync, old, made.shards[0])
    with pytest.raises(LeaseLost):
        record(sync, old, made, [WriteSummary(0, "", 0.0)])


def test_a_request_whose_answer_was_an_outage_is_waited_for_although_its_batch_is_closed(
    bench: Bench, sync: SyncSpec
) -> None:
    """A gateway that gives up does not mean that what stands behind it has."""
    bench.client.faults([{"match": {"path": UPSERTS}, "fault": {"kind": "status", "status": 504}}])
    assert bench.run(sync).outcomes[Status.UNSENT] == 40
    bench.client.clear_faults()
    started = time.monotonic()
    assert bench.run(sync).failures == ()
    assert any("may still take effect" in line for line in bench.logged), bench.logged
    assert time.monotonic() - started > 1.5, "the timeout of this destination is 3 s, counted from the last request"


def test_record_called_again_leaves_the_plan_of_the_next_run_alone(bench: Bench, sync: SyncSpec) -> None:
    first = bench.context("first")
    made = bench.plan(sync, first)
    parts = bench.write(sync, first, made.shards)
    report = record(sync, first, made, parts)
    bench.load("people", people(40, 2), COLUMNS)
    second = bench.context("second")
    newer = bench.plan(sync, second)
    assert record(sync, first, made, parts) == report
    assert record(sync, second, newer, bench.write(sync, second, newer.shards)).failures == ()
    assert bench.emails() == expected(40, 2)


def test_a_sync_that_was_changed_under_way_delivers_what_was_planned_or_nothing(bench: Bench, sync: SyncSpec) -> None:
    made = bench.plan(sync, bench.context("run"))
    other = dataclasses.replace(sync, fields=(*sync.fields, FieldSpec("lastname", "firstname")))
    with pytest.raises(Misconfigured, match=r"its mapping was changed while run run was under way.*Launch a new run"):
        write(other, bench.context("run"), made.shards[0])
    with pytest.raises(Misconfigured, match="its account or object was changed"):
        write(dataclasses.replace(sync, object="companies"), bench.context("run"), made.shards[0])
    assert bench.emails() == {}
