"""An account's circuit, its cap on requests in flight, its quotas and its credentials, over whole runs."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest

from integrations_dagster.delivery.engine import RetrySettings
from integrations_dagster.sync.record import record
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.write import write
from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.sync.flows import COLUMNS, JOB_UPSERT, KEYED, PLAIN, Place
from integrations_dagster_tests.sync.harness import Bench


def inserting(bench: Bench, name: str, rows: int, **destination: Any) -> tuple[Place, SyncSpec]:
    place = Place(KEYED, name, bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"), timeout=2.0)
    sync = dataclasses.replace(sync, destination=dataclasses.replace(sync.destination, **destination))
    bench.load("people", place.rows(range(rows)), COLUMNS)
    return place, sync


def test_a_circuit_that_opens_leaves_rows_unsent_and_the_next_run_delivers_them(bench: Bench) -> None:
    place, sync = inserting(bench, "down", 700)
    outage = {"match": {"path": "*/people"}, "after": 20, "fault": {"kind": "html", "status": 503}}
    bench.client.faults([outage])
    broken = bench.run(sync)
    delivered = len(place.made())
    print(f"{delivered} rows delivered, {broken.outcomes[Status.UNSENT]} left unsent by the opened circuit")
    print(broken.failures[0])
    # The few that were in flight got no answer: a key tells later what became of them.
    assert broken.outcomes[Status.CREATED] == delivered == 140
    assert broken.outcomes[Status.UNSENT] + broken.outcomes[Status.IN_DOUBT] == 560
    assert broken.outcomes[Status.UNSENT] >= 500
    assert any("is unavailable" in failure and "launch the run again" in failure for failure in broken.failures)
    requests = bench.client.stats()["total"]
    assert requests <= 20 + 3 * 6, "nothing more is sent to a destination that is down"
    bench.client.clear_faults()
    later = bench.run(sync)
    print(f"{later.outcomes[Status.CREATED]} rows delivered by the next run")
    assert later.failures == ()
    assert place.made() == {str(key): 1 for key in range(700)}


@pytest.mark.slow
def test_a_circuit_stops_another_run_of_the_same_account(bench: Bench) -> None:
    """Both syncs go to one account; the second is under way when the first finds it down."""
    first_place, first = inserting(bench, "one", 70)
    second = dataclasses.replace(first, name="another")
    ctx = bench.context()
    made = bench.plan(second, ctx)
    held = {"match": {"path": "*/people"}, "times": 1, "fault": {"kind": "hold", "applied": True, "seconds": 30}}
    bench.client.faults([held])
    summaries: list[Any] = []
    retry = RetrySettings(attempts=3, base=0.01, cap=0.05)
    shard = made.shards[0]
    writing = threading.Thread(target=lambda: summaries.append(write(second, ctx, shard, retry=retry)))
    slow = dataclasses.replace(second.destination, in_flight=1)
    second = dataclasses.replace(second, destination=slow)
    writing.start()
    bench.client.wait_held(1)
    bench.client.faults([{"match": {"path": "*/people"}, "fault": {"kind": "html", "status": 503}}])
    assert bench.run(first).outcomes[Status.UNSENT] > 0
    bench.client.clear_faults()
    bench.client.release()
    writing.join(30)
    report = record(second, ctx, made, summaries)
    assert report.outcomes[Status.UNSENT] > 0
    assert any("unavailable" in failure for failure in report.failures), report.failures
    for sync in (first, second):
        assert bench.run(sync).failures == ()
    assert set(first_place.made()) == {str(key) for key in range(70)}


def test_one_batch_that_fails_alone_does_not_stop_the_others(bench: Bench) -> None:
    place, sync = inserting(bench, "alone", 140)
    bench.client.faults(
        [{"match": {"path": "*/people", "rows_with": "alone-77@"}, "fault": {"kind": "status", "status": 500}}]
    )
    report = bench.run(sync)
    assert report.outcomes[Status.CREATED] == 133
    assert len(place.made()) == 133


def test_a_cap_on_requests_in_flight_holds_over_all_shards(bench: Bench) -> None:
    bench.client.configure(concurrency=3, latency=0.02)
    place, sync = inserting(bench, "capped", 700, in_flight=16, concurrency=3)
    sync = dataclasses.replace(sync, batch_rows=5, shards=4)
    report = bench.run(sync)
    assert len(place.made()) == 700
    assert (report.failures, report.traffic.throttled) == ((), 0)


def test_a_published_quota_holds_over_shards(bench: Bench) -> None:
    bench.client.configure(quota={"limit": 60, "window": 1, "retry_after": True})
    place, sync = inserting(bench, "paced", 480, in_flight=8, quotas=((60, 1.0),))
    sync = dataclasses.replace(sync, batch_rows=4, shards=4)
    report = bench.run(sync)
    assert len(place.made()) == 480
    assert report.failures == ()
    print(f"{report.traffic.requests} requests, {report.traffic.throttled} throttled, {report.write_seconds:.1f} s")
    # Four shards that did not know of each other would be refused most of what they send; a busy machine bunches a few.
    assert report.traffic.throttled <= report.traffic.requests // 10


def test_a_counted_quota_that_is_used_up_stops_the_run_and_says_until_when(bench: Bench) -> None:
    place, sync = inserting(bench, "daily", 70, quotas=((4, 86_400.0),))
    report = bench.run(sync)
    assert report.outcomes[Status.CREATED] == 28
    assert report.outcomes[Status.UNSENT] == 42
    print(report.failures[0])
    assert "launch the run again in 24.0 hours" in report.failures[0]
    assert len(place.made()) == 28


def test_a_request_that_has_leave_uses_it_after_the_quota_is_found_spent(bench: Bench) -> None:
    """The second of the day waits two seconds for its turn; the third, which is refused at once, must not stop it."""
    place, sync = inserting(bench, "waits", 35, in_flight=4, quotas=((2, 86_400.0), (1, 2.0)))
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.UNSENT]) == (14, 21)
    assert len(place.made()) == 14


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("limits", "requests", "invalid"),
    [({"batch_bytes": 900}, 17, 0), ({"row_bytes": 60}, 7, 3), ({"batch_bytes": 320}, 47, 3)],
    ids=["bytes", "row-bytes", "a-row-larger-than-a-batch"],
)
def test_batches_are_cut_by_bytes_and_a_row_that_is_too_large_is_invalid(
    bench: Bench, limits: dict[str, int], requests: int, invalid: int
) -> None:
    place = Place(PLAIN, "sized", bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"), **limits)
    rows = place.rows(range(50))
    for row in rows[:3]:
        row["firstname"] = "x" * 100
    bench.load("people", rows, COLUMNS)
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.INVALID]) == (50 - invalid, invalid)
    assert {bad.code for bad in report.bad_rows} <= {"TOO_LARGE"}
    assert report.traffic.requests == requests


def test_a_step_that_is_killed_between_submission_and_result_asks_for_its_job(bench: Bench) -> None:
    """The attempt that follows does not submit the rows again."""
    place = Place(JOB_UPSERT, "resumed", bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"), timeout=5.0, batch_rows=50)
    bench.load("people", place.rows(range(40)), COLUMNS)
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    hold = {"match": {"path": "*", "method": "GET"}, "times": 1, "fault": {"kind": "hold", "seconds": 60}}
    bench.client.faults([hold])
    retry = RetrySettings(attempts=2, base=0.01, cap=0.05)
    first = threading.Thread(target=lambda: write(sync, ctx, made.shards[0], retry=retry), daemon=True)
    first.start()
    bench.client.wait_held(1)
    second = write(sync, ctx, made.shards[0], retry=retry)
    assert record(sync, ctx, made, [second]).outcomes[Status.CREATED] == 40
    assert len(bench.client.jobs("resumed")) == 1
    bench.client.release()
    first.join(30)


def test_an_upsert_is_no_insert(bench: Bench) -> None:
    """Mode insert makes what is new and leaves the rest as it is, whatever changes."""
    place = Place(PLAIN, "modes", bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"))
    bench.load("people", place.rows(range(10)), COLUMNS)
    bench.run(sync)
    bench.load("people", place.rows(range(5, 15), version=2), COLUMNS)
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], report.counts.excluded, report.counts.removed) == (5, 5, 0)
    assert place.made() == {str(key): 1 for key in range(15)}
    assert sync.mode is Mode.INSERT
