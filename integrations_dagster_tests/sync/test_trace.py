"""trace: the way of one row across runs, from the logs, the ledger and the state."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from integrations_dagster.planner.candidates import Release
from integrations_dagster.planner.diff import Diff
from integrations_dagster.planner.state import Home
from integrations_dagster.sync.record import record
from integrations_dagster.sync.releases import release_notes
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, SyncSpec, TargetSpec
from integrations_dagster.sync.trace import (
    Awaited,
    Changed,
    Event,
    Held,
    Known,
    Requested,
    Settled,
    held_partitions,
    trace,
)
from integrations_dagster.vocabulary import Counts, Mode, Partition
from integrations_dagster_tests.sync.harness import Bench

COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"}


def people(bench: Bench, **emails: str | None) -> None:
    """Replace the people: p<id>=email."""
    rows = [{"id": int(name[1:]), "email": email, "firstname": f"Person {name}"} for name, email in emails.items()]
    bench.load("people", rows, COLUMNS)


@pytest.fixture
def sync(bench: Bench) -> SyncSpec:
    people(bench, p1="a@x.io", p2="no address", p3=None)
    return bench.contacts(bench.model("people", "SELECT * FROM people"))


@pytest.fixture
def inserts(bench: Bench) -> SyncSpec:
    """A sync whose requests must not be repeated."""
    people(bench, p1="a@x.io", p2="b@x.io")
    return SyncSpec(
        name="entries",
        model=bench.model("people", "SELECT * FROM people"),
        destination=DestinationSpec("book", "sandbox_insert", TargetSpec("sandbox", sandbox=True), timeout=2.0),
        object="entries",
        mode=Mode.INSERT,
        fields=(FieldSpec("name", "firstname"),),
    )


def tell(bench: Bench, sync: SyncSpec, key: str) -> list[Event]:
    return trace(sync, bench.context(), key)


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def only(events: list[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_a_row_that_was_rejected_and_mended(bench: Bench, sync: SyncSpec) -> None:
    bench.run(sync)
    people(bench, p1="a@x.io", p2="b@x.io", p3=None)
    bench.run(sync)
    events = tell(bench, sync, "2")
    assert kinds(events) == ["Changed", "Requested", "Settled", "Changed", "Requested", "Settled", "Known"]
    first, request, refused, _, again, created, record_ = events
    assert isinstance(first, Changed)
    assert (first.change, first.action, first.match, first.rows) == ("added", "upsert", "no address", 2)
    assert isinstance(request, Requested)
    assert isinstance(again, Requested)
    assert (request.method, request.status, request.rows) == ("POST", 207, 2)
    assert isinstance(refused, Settled)
    assert (refused.outcome, refused.code) == ("rejected", "INVALID_EMAIL")
    assert refused.request_id == request.request_id != ""
    assert first.batch == request.batch == refused.batch
    assert request.run_id == first.run_id != again.run_id
    assert isinstance(created, Settled)
    assert isinstance(record_, Known)
    (contact,) = (c for c in bench.client.records("contacts") if c["properties"]["email"] == "b@x.io")
    assert (created.outcome, created.destination_id) == ("created", contact["id"])
    assert (record_.match, record_.destination_id, record_.acknowledged) == ("b@x.io", contact["id"], True)
    times = [event.at for event in events if not isinstance(event, Held | Known)]
    assert times == sorted(times)


def test_a_row_that_waits_and_one_that_is_invalid(bench: Bench, sync: SyncSpec) -> None:
    bench.run(sync)
    (held,) = only(tell(bench, sync, "2"), Held)
    assert (held.status, held.attempts, held.code) == ("rejected", 1, "INVALID_EMAIL")
    invalid = tell(bench, sync, "3")
    assert [event.outcome for event in only(invalid, Settled)] == ["invalid"]
    assert tell(bench, sync, "99") == []
    assert tell(bench, sync, "' OR 1=1 --") == []


def test_each_attempt_is_told_with_what_went_wrong(bench: Bench, sync: SyncSpec) -> None:
    bench.client.faults(
        [
            {"match": {"path": "*/upsert"}, "times": 1, "fault": {"kind": "status", "status": 429, "retry_after": 0}},
            {"match": {"path": "*/upsert"}, "after": 0, "times": 1, "fault": {"kind": "reset", "applied": False}},
        ]
    )
    bench.run(sync)
    requests = only(tell(bench, sync, "1"), Requested)
    assert [request.status for request in requests] == [429, None, 207]
    assert [request.attempt for request in requests] == [1, 2, 3]
    assert requests[0].error.startswith("throttled")
    assert requests[1].error.startswith("unavailable")
    assert requests[2].error == ""


def test_what_was_refused_whole_is_told_although_it_left_no_row(bench: Bench, sync: SyncSpec) -> None:
    bench.client.faults([{"match": {"path": "*/upsert"}, "fault": {"kind": "status", "status": 403}}])
    assert bench.run(sync).failures
    events = tell(bench, sync, "1")
    assert kinds(events) == ["Requested"]
    assert only(events, Requested)[0].status == 403


def test_a_batch_without_an_answer(bench: Bench, inserts: SyncSpec) -> None:
    bench.client.faults([{"match": {"path": "/inserts/*"}, "times": 1, "fault": {"kind": "hold", "applied": True}}])
    ctx = bench.context()
    made = bench.plan(inserts, ctx)
    writing = threading.Thread(target=bench.write, args=(inserts, ctx, made.shards))
    writing.start()
    try:
        bench.client.wait_held()
        events = tell(bench, inserts, "1")
        assert kinds(events) == ["Changed", "Awaited"]
        (open_,) = only(events, Awaited)
        assert open_.deadline > open_.at
        assert not open_.repeatable
    finally:
        bench.client.release()
        writing.join()
    # Answered, and not folded: the ledger knows.
    events = tell(bench, inserts, "1")
    assert kinds(events) == ["Changed", "Requested", "Settled"]
    assert only(events, Settled)[0].outcome == "created"


def test_a_row_in_doubt(bench: Bench, inserts: SyncSpec) -> None:
    bench.client.faults([{"match": {"path": "/inserts/*"}, "times": 1, "fault": {"kind": "reset", "applied": True}}])
    bench.run(inserts)
    events = tell(bench, inserts, "1")
    assert kinds(events) == ["Changed", "Requested", "Settled", "Held"]
    (request,), (settled,), (held,) = only(events, Requested), only(events, Settled), only(events, Held)
    assert request.status is None
    assert settled.outcome == "in_doubt"
    assert (held.status, held.batch) == ("in_doubt", settled.batch)


def test_without_request_logs_the_rest_is_told(bench: Bench, sync: SyncSpec) -> None:
    report = bench.run(sync)
    assert report.candidates
    (home,) = [Home(folder) for folder in (bench.folder / "syncs" / sync.name).iterdir()]
    for path in (home.folder / "requests").glob("*/*"):
        path.write_bytes(b"\x1f\x8bnonsense")
    assert kinds(tell(bench, sync, "1")) == ["Changed", "Settled", "Known"]


def test_a_trace_changes_nothing(bench: Bench, sync: SyncSpec) -> None:
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    parts = bench.write(sync, ctx, made.shards)
    before = {path: path.stat().st_mtime_ns for path in (bench.folder / "syncs").rglob("*")}
    tell(bench, sync, "1")
    assert {path: path.stat().st_mtime_ns for path in (bench.folder / "syncs").rglob("*")} == before
    record(sync, ctx, made, parts)


@pytest.mark.parametrize(
    ("release", "result", "words"),
    [
        (None, Diff(Counts()), []),
        (Release(), Diff(Counts()), ["No held row fits: nothing was released, and nothing is sent."]),
        (Release(), Diff(Counts(), released=1), ["1 held row was released and sent again."]),
        (
            Release(keys=("1", "2", "3")),
            Diff(Counts(), released=1, unheld=["2"], still_held=["3"]),
            [
                "1 held row was released and sent again.",
                "Not held: 2. See `integrations trace s KEY`.",
                "Held, and not released: 3. They are not in the model any more, in doubt (--in-doubt).",
            ],
        ),
        (
            Release(in_doubt=True),
            Diff(Counts(), released=2000, unheld=[str(n) for n in range(23)]),
            [
                "2,000 held rows were released and sent again.",
                f"Not held: {', '.join(str(n) for n in range(20))} and 3 more. See `integrations trace s KEY`.",
            ],
        ),
    ],
)
def test_what_is_told_of_a_release(bench: Bench, release: Release | None, result: Diff, words: list[str]) -> None:
    sync = bench.contacts(bench.model("people", "SELECT 1"), name="s")
    assert list(release_notes(sync, release, result)) == words


def test_partitions_that_hold_rows(bench: Bench) -> None:
    bench.load(
        "visits",
        [{"id": n, "email": f"v{n}@x.io" if n != 3 else "no address", "day": f"2026-06-0{n}"} for n in (1, 2, 3)],
        {"id": "INTEGER", "email": "VARCHAR", "day": "DATE"},
    )
    sql = "SELECT id, email FROM visits WHERE day BETWEEN CAST($partition_start AS DATE) "
    sql += "AND CAST($partition_end AS DATE) - 1"
    sync = bench.contacts(bench.model("visits", sql, partitioned=True), fields=(FieldSpec("email", "email"),))
    days = [Partition(f"2026-06-0{n}", f"2026-06-0{n}", f"2026-06-0{n + 1}") for n in (1, 2, 3)]
    bench.run(sync, days)
    assert held_partitions(sync, bench.context()) == ["2026-06-03"]
    assert held_partitions(sync, bench.context(), ["3", "1"]) == ["2026-06-03"]
    assert held_partitions(sync, bench.context(), ["1"]) == []
