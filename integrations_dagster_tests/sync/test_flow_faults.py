"""Each kind of flow that makes records, under every fault: nothing lost, nothing made twice, doubt named exactly."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integrations_dagster.sync.doubts import confirm
from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.state import state_key
from integrations_dagster.vocabulary import Status
from integrations_dagster_tests.sync.flows import (
    COLUMNS,
    CREATE,
    JOB,
    JOB_UPSERT,
    KEYED,
    KINDS,
    PLAIN,
    VERIFIED,
    Kind,
    Place,
)
from integrations_dagster_tests.sync.harness import Bench

WRITES = "*/people"
CREATES = "/crm/v3/objects/contacts/batch/create"

FAULTS: list[dict[str, Any]] = [
    {"kind": "latency", "seconds": 0.1},
    {"kind": "status", "status": 429, "retry_after": 1},
    {"kind": "status", "status": 429, "retry_after_date": 1},
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 500},
    {"kind": "html", "status": 503},
    {"kind": "unauthorized"},
    {"kind": "reset", "applied": False},
    {"kind": "reset", "applied": True},
    {"kind": "hold", "applied": False, "seconds": 3},
    {"kind": "hold", "applied": True, "seconds": 3},
    {"kind": "malformed"},
    {"kind": "truncated"},
    {"kind": "oversized", "bytes": 33_600_000},
    {"kind": "endless", "seconds": 3},
    {"kind": "slow_head", "seconds": 3},
    {"kind": "empty", "applied": True},
    {"kind": "empty", "applied": False},
]
NAMES = ["-".join(str(value) for value in fault.values()) for fault in FAULTS]
MIXED = [fault for fault in FAULTS if fault["kind"] not in ("oversized", "endless", "slow_head", "hold")]
# A job is polled, which takes seconds.
_JOBS = (JOB, JOB_UPSERT)
_OTHERS = [kind for kind in KINDS if kind not in _JOBS]
QUICK = {(_OTHERS[place % len(_OTHERS)], place) for place in range(len(FAULTS))}
QUICK |= {(kind, NAMES.index("reset-True")) for kind in (PLAIN, KEYED, VERIFIED, JOB)}
QUICK |= {(JOB_UPSERT, NAMES.index("html-503"))}
"""Each fault, and each kind of flow, each time."""


def cases() -> Iterator[Any]:
    for kind in KINDS:
        for place, fault in enumerate(FAULTS):
            marks = () if (kind, place) in QUICK else pytest.mark.slow
            yield pytest.param(kind, fault, id=f"{kind.name}-{NAMES[place]}", marks=marks)


def path_of(kind: Kind) -> str:
    return CREATES if kind.destination == "hubspot" else WRITES


def run(bench: Bench, sync: SyncSpec, place: Place) -> RunReport:
    """A run, after which the rows in doubt are exactly those whose answer was lost in it."""
    before = bench.client.last_seq()
    report = bench.run(sync)
    if place.kind in (PLAIN, CREATE, VERIFIED):
        doubtful = {bad.key for bad in report.bad_rows if bad.status is Status.IN_DOUBT}
        assert doubtful == place.lost(before)
        assert report.outcomes[Status.IN_DOUBT] == len(doubtful)
    return report


def check(place: Place, keys: set[str], doubtful: set[str]) -> None:
    """What must hold in the end: each row is there once; a row in doubt once or not at all."""
    made = place.made()
    assert set(made.values()) <= {1}, {key: count for key, count in made.items() if count > 1}
    assert set(made) <= keys
    assert keys - set(made) <= doubtful, "rows that are not there and not in doubt"
    if place.kind.exact:
        assert not doubtful
        assert set(made) == keys


def settle(bench: Bench, sync: SyncSpec) -> tuple[RunReport, set[str]]:
    """Runs without faults until nothing is left to do; the last report, and the rows in doubt."""
    bench.client.clear_faults()
    for _ in range(3):
        report = bench.run(sync)
        if report.candidates == 0 and not report.failures:
            break
    assert (report.candidates, report.failures) == (0, ())
    return report, set(bench.doubtful(sync))


@pytest.mark.parametrize(("kind", "fault"), list(cases()))
def test_after_enough_runs_every_row_was_made_once(bench: Bench, kind: Kind, fault: dict[str, Any]) -> None:
    bench.client.configure(bodies=True)
    place = Place(kind, "made", bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"))
    bench.load("people", place.rows(range(40)), COLUMNS)
    bench.client.faults([{"match": {"path": path_of(kind)}, "after": 1, "times": 2, "fault": fault}])
    run(bench, sync, place)
    report, doubtful = settle(bench, sync)
    check(place, {str(key) for key in range(40)}, doubtful)
    assert report.counts.held == len(doubtful)


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.name) for kind in (KEYED, JOB, VERIFIED, PLAIN)])
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_faults_mixed_at_random(bench: Bench, kind: Kind) -> None:
    """Random histories: the model grows, faults come and go, runs follow each other."""
    model = bench.model("people", "SELECT * FROM people")
    places: list[Place] = []

    @settings(
        max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=True
    )
    @given(
        steps=st.lists(
            st.tuples(
                st.integers(1, 30),
                st.lists(st.tuples(st.sampled_from(MIXED), st.floats(0.05, 0.5)), max_size=3),
                st.integers(0, 1000),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def histories(steps: list[tuple[int, list[tuple[dict[str, Any], float]], int]]) -> None:
        bench.client.reset()
        bench.client.configure(bodies=True)
        place = Place(kind, f"mixed{len(places)}", bench.client)
        places.append(place)
        # No fault of these takes time: where the machine does, no answer is lost for it.
        sync = place.sync(model, timeout=30.0, max_attempts=1000)
        count = 0
        for more, faults, seed in steps:
            count += more
            bench.load("people", place.rows(range(count)), COLUMNS)
            path = "/jobs/*" if kind is JOB else path_of(kind)
            bench.client.faults(
                [
                    {"match": {"path": path}, "probability": share, "seed": seed + i, "fault": fault}
                    for i, (fault, share) in enumerate(faults)
                ]
            )
            run(bench, sync, place)
        _, doubtful = settle(bench, sync)
        check(place, {str(key) for key in range(count)}, doubtful)

    histories()


def test_rows_in_doubt_are_never_sent_again_because_the_model_changed(bench: Bench) -> None:
    place = Place(PLAIN, "changing", bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"))
    bench.load("people", place.rows(range(14)), COLUMNS)
    bench.client.faults([{"match": {"path": WRITES}, "times": 1, "fault": {"kind": "reset", "applied": True}}])
    assert bench.run(sync).outcomes[Status.IN_DOUBT] == 7
    # On a busy machine the reset may come before any answer: then the others wait for the next run.
    bench.run(sync)
    bench.load("people", place.rows(range(14), version=2), COLUMNS)
    later = bench.run(sync)
    assert (later.candidates, later.counts.held, later.counts.excluded) == (0, 7, 7)
    assert set(place.made().values()) == {1}


def test_resend_sends_rows_in_doubt_again_and_may_double_them(bench: Bench) -> None:
    place = Place(PLAIN, "resent", bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"), in_doubt="resend")
    bench.load("people", place.rows(range(7)), COLUMNS)
    bench.client.faults([{"match": {"path": WRITES}, "times": 1, "fault": {"kind": "reset", "applied": True}}])
    assert bench.run(sync).outcomes[Status.IN_DOUBT] == 7
    assert bench.run(sync).outcomes[Status.CREATED] == 7
    assert set(place.made().values()) == {2}


def test_hold_leaves_rows_in_doubt_although_they_could_be_looked_up(bench: Bench) -> None:
    place = Place(VERIFIED, "holding", bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"), in_doubt="hold")
    bench.load("people", place.rows(range(7)), COLUMNS)
    bench.client.faults([{"match": {"path": CREATES}, "times": 1, "fault": {"kind": "reset", "applied": True}}])
    assert bench.run(sync).outcomes[Status.IN_DOUBT] == 7
    assert bench.run(sync).counts.held == 7


@pytest.mark.parametrize("bad", [1, 3])
def test_bad_rows_of_a_hundred_are_isolated_without_making_others_twice(bench: Bench, bad: int) -> None:
    place = Place(PLAIN, f"poison{bad}", bench.client)
    sync = place.sync(bench.model("people", "SELECT * FROM people"), batch_rows=100, in_flight=1)
    rows = place.rows(range(100))
    chosen = set(random.Random(bad).sample(range(100), bad))
    for key in chosen:
        rows[key]["firstname"] = "poison"
    bench.load("people", rows, COLUMNS)
    report = bench.run(sync)
    print(f"requests to isolate {bad} bad row(s) of 100: {report.traffic.requests}")
    assert {row.key for row in report.bad_rows} == {str(key) for key in chosen}
    assert report.outcomes[Status.REJECTED] == bad
    made = place.made()
    assert set(made) == {str(key) for key in set(range(100)) - chosen}
    assert set(made.values()) == {1}
    assert report.traffic.requests <= 1 + 14 * bad


def impatient(sync: SyncSpec) -> SyncSpec:
    """Tries twice."""
    return dataclasses.replace(sync, destination=dataclasses.replace(sync.destination, attempts=2, backoff=0.01))


def test_a_batch_taken_up_again_without_answer_leaves_what_a_person_decided(bench: Bench) -> None:
    place = Place(KEYED, "decided", bench.client)
    sync = impatient(place.sync(bench.model("people", "SELECT * FROM people")))
    bench.load("people", place.rows(range(7)), COLUMNS)
    lose = [{"match": {"path": WRITES}, "fault": {"kind": "reset", "applied": True}}]
    bench.client.faults(lose)
    assert bench.run(sync).outcomes[Status.IN_DOUBT] == 7
    assert confirm(sync, bench.context(), ["3", "unknown"]) == ["3"]
    assert bench.run(sync).counts.held == 6
    assert set(bench.doubtful(sync)) == {str(key) for key in range(7)} - {"3"}
    bench.client.clear_faults()
    report = bench.run(sync)
    assert (report.counts.held, report.candidates, report.failures) == (0, 0, ())
    assert any("6 row(s) that were in doubt have their answer now" in note for note in report.notes), report.notes
    assert place.made() == {str(key): 1 for key in range(7)}
    assert bench.ledger.doubtful_batches(state_key(sync, bench.account(sync))) == [], "no payload is kept any longer"


def test_a_key_that_always_fails_stops_nothing_else(bench: Bench) -> None:
    """The destination answers 500 to one batch, whenever it is asked: what is new is delivered all the same."""
    place = Place(KEYED, "cursed", bench.client)
    sync = impatient(place.sync(bench.model("people", "SELECT * FROM people")))
    bench.load("people", place.rows(range(7)), COLUMNS)
    curse = {"match": {"path": WRITES, "rows_with": "cursed-3@"}, "fault": {"kind": "status", "status": 500}}
    bench.client.faults([curse])
    assert bench.run(sync).outcomes[Status.IN_DOUBT] == 7
    bench.load("people", place.rows(range(21)), COLUMNS)
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], report.counts.held, report.failures) == (14, 7, ())


def test_a_job_that_was_not_followed_to_its_end_is_waited_for(bench: Bench) -> None:
    """Its submission was accepted, polling met an outage: the next plan sends nothing newer before it has ended."""
    place = Place(JOB_UPSERT, "slow", bench.client)
    sync = impatient(place.sync(bench.model("people", "SELECT * FROM people"), batch_rows=50))
    bench.load("people", place.rows(range(10)), COLUMNS)
    bench.client.faults([{"match": {"path": "*", "method": "GET"}, "fault": {"kind": "status", "status": 503}}])
    bench.run(sync)
    bench.client.clear_faults()
    state = state_key(sync, bench.account(sync))
    assert bench.ledger.quiet_until(state) > bench.ledger.now() + 2, "5 seconds for the job, 1 for the request"
    bench.load("people", place.rows(range(10), version=2), COLUMNS)
    assert bench.run(sync).failures == ()
    assert {entry["record"]["firstname"] for entry in bench.client.inserted("slow", "people")} == {
        f"{key} v2" for key in range(10)
    }
