"""Models with a cursor: what is queried, how far the cursor goes, and that no row is skipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from integrations_dagster.ledger.store import Ledger
from integrations_dagster.planner.state import Home, Manifest
from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.query import run_query
from integrations_dagster.sync.record import record
from integrations_dagster.sync.spec import (
    CursorSpec,
    DestinationSpec,
    FieldRule,
    FieldSpec,
    LookupSpec,
    ModelSpec,
    SyncSpec,
    TargetSpec,
)
from integrations_dagster.sync.versions import newest_version
from integrations_dagster.vocabulary import Misconfigured, Mode, Status
from integrations_dagster_tests.sync.harness import Bench

SQL = """SELECT id, email, firstname, updated_at FROM people
WHERE $cursor IS NULL OR updated_at >= CAST($cursor AS TIMESTAMP)"""
COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR", "updated_at": "TIMESTAMP"}
Person = tuple[int, str, str | None]


def load(bench: Bench, *people: Person) -> None:
    """People as (minute of their last change, email, first name); the email's number is the key."""
    rows = [
        {
            "id": int("".join(c for c in email if c.isdigit())),
            "email": email,
            "firstname": name,
            "updated_at": f"2026-08-01 12:{minute:02d}:00",
        }
        for minute, email, name in people
    ]
    bench.load("people", rows, COLUMNS)


def cursor_model(bench: Bench, sync: str = "contacts", lookback: float = 0.0) -> ModelSpec:
    model = bench.model("people", SQL)
    return dataclasses.replace(model, cursor=CursorSpec("updated_at", lookback), readers=((sync, "sandbox"),))


def state(bench: Bench, sync: SyncSpec) -> Manifest:
    return Home.of(bench.folder, sync.name, bench.account(sync)).manifest()


def minute(bench: Bench, sync: SyncSpec) -> str:
    return state(bench, sync).cursor[-5:-3]


def queried(bench: Bench) -> str | None:
    version = newest_version(bench.folder, "people")
    assert version is not None
    return version.cursor


def test_only_what_changed_is_queried_and_nothing_is_taken_for_removed(bench: Bench) -> None:
    sync = bench.contacts(cursor_model(bench))
    load(bench, *((n, f"p{n}@x.org", "A") for n in range(10)))
    assert bench.run(sync).counts.queried == 10
    assert queried(bench) is None
    load(bench, *((n, f"p{n}@x.org", "A") for n in range(10)), (20, "p10@x.org", "A"))
    report = bench.run(sync)
    assert (report.counts.queried, report.counts.added, report.counts.unchanged) == (2, 1, 1)
    assert queried(bench) == "2026-08-01 12:09:00"
    load(bench, (21, "p3@x.org", "B"))
    report = bench.run(sync)
    assert (report.counts.queried, report.counts.changed, report.counts.removed) == (1, 1, 0)
    assert len(bench.emails()) == 11
    report = bench.run(sync)
    assert (report.candidates, minute(bench, sync)) == (0, "21")
    load(bench)
    assert bench.run(sync).counts.queried == 0
    assert minute(bench, sync) == "21", "an empty result moves nothing"


def test_the_lookback_finds_rows_that_appear_late(bench: Bench) -> None:
    sync = bench.contacts(cursor_model(bench, lookback=300.0))
    load(bench, (30, "p1@x.org", "A"))
    bench.run(sync)
    load(bench, (30, "p1@x.org", "A"), (24, "p2@x.org", "A"), (26, "p3@x.org", "A"))
    assert bench.run(sync).counts.added == 1
    assert set(bench.emails()) == {"p1@x.org", "p3@x.org"}


def test_the_cursor_does_not_pass_a_rejected_row_until_it_is_accepted_or_parked(bench: Bench) -> None:
    sync = bench.contacts(cursor_model(bench), max_attempts=3, retry_wait=0.0)
    load(bench, (1, "p1@x.org", "A"), (2, "not an email 2", "A"), (3, "p3@x.org", "A"))
    assert bench.run(sync).outcomes[Status.REJECTED] == 1
    assert minute(bench, sync) == "02"
    report = bench.run(sync)
    assert (report.counts.queried, report.outcomes[Status.REJECTED], minute(bench, sync)) == (2, 1, "02")
    bench.run(sync)
    # Parked: sent again only when it changes, and then its cursor column has changed too.
    report = bench.run(sync)
    assert (report.candidates, minute(bench, sync)) == (0, "03")
    load(bench, (5, "p2@x.org", "A"), (3, "p3@x.org", "A"))
    assert bench.run(sync).outcomes[Status.CREATED] == 1


def test_a_rejected_row_is_accepted_though_nothing_else_changes(bench: Bench) -> None:
    sync = bench.contacts(cursor_model(bench), retry_wait=0.0)
    load(bench, (1, "p1@x.org", "A"), (2, "p2@x.org", "B"), (3, "p3@x.org", "A"))
    rejection = {"match": {"path": "*/batch/*"}, "times": 1, "fault": {"kind": "reject_rows", "with": "p2@x.org"}}
    bench.client.faults([rejection])
    assert bench.run(sync).outcomes[Status.REJECTED] == 1
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], minute(bench, sync)) == (1, "03")


@pytest.mark.quick(1)
@pytest.mark.parametrize("phase", ["plan", "write", "record"])
def test_a_run_that_dies_moves_no_cursor(bench: Bench, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = bench.contacts(cursor_model(bench))
    load(bench, (1, "p1@x.org", "A"))
    bench.run(sync)
    load(bench, *((n, f"p{n}@x.org", "A") for n in range(2, 8)))
    dead = bench.context(alive=lambda _holder: False)
    made = bench.plan(sync, dead)
    if phase != "plan":
        summaries = bench.write(sync, dead, made.shards)
    if phase == "record":

        def dies(_ledger: Any, _lease: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Ledger, "check", dies)
        with pytest.raises(KeyboardInterrupt):
            record(sync, dead, made, summaries)
        monkeypatch.undo()
    else:
        assert minute(bench, sync) == "01"
    report = bench.run(sync, ctx=bench.context(alive=lambda _holder: False))
    assert not report.failures
    assert len(bench.emails()) == 7
    assert minute(bench, sync) == "07"
    assert bench.run(sync).candidates == 0


def test_rows_that_were_not_sent_are_queried_again(bench: Bench) -> None:
    sync = bench.contacts(cursor_model(bench), destination=dataclasses.replace(bench.crm(), attempts=1))
    load(bench, (1, "p1@x.org", "A"))
    bench.run(sync)
    load(bench, *((n, f"p{n}@x.org", "A") for n in range(2, 8)))
    bench.client.faults([{"fault": {"kind": "status", "status": 503}}])
    assert bench.run(sync).outcomes[Status.UNSENT] == 6
    assert minute(bench, sync) == "02"
    bench.client.clear_faults()
    assert bench.run(sync).outcomes[Status.CREATED] == 6
    assert minute(bench, sync) == "07"


@pytest.mark.quick(1)
@pytest.mark.parametrize("options", [PlanOptions(limit=2), PlanOptions(keys=("1", "2"))])
def test_a_part_of_the_rows_moves_the_cursor_no_further(bench: Bench, options: PlanOptions) -> None:
    sync = bench.contacts(cursor_model(bench))
    load(bench, *((n, f"p{n}@x.org", "A") for n in range(1, 6)))
    bench.run(sync, options=options)
    assert minute(bench, sync) == "03"
    assert bench.run(sync).outcomes[Status.CREATED] == 3


def test_rows_with_one_match_value_hold_the_cursor_and_one_without_a_cursor_value_is_named(bench: Bench) -> None:
    sync = bench.contacts(cursor_model(bench))
    rows = [
        {"id": 1, "email": "x@x.org", "firstname": "A", "updated_at": "2026-08-01 12:01:00"},
        {"id": 2, "email": "x@x.org", "firstname": "A", "updated_at": "2026-08-01 12:02:00"},
        {"id": 3, "email": "y@x.org", "firstname": "A", "updated_at": "2026-08-01 12:03:00"},
        {"id": 4, "email": "z@x.org", "firstname": "A", "updated_at": None},
    ]
    bench.load("people", rows, COLUMNS)
    report = bench.run(sync)
    assert sorted(row.code for row in report.bad_rows) == ["DOUBLE_MATCH_VALUE", "DOUBLE_MATCH_VALUE", "NULL_CURSOR"]
    assert minute(bench, sync) == "01"
    # Only one of the two changes; the other is queried again all the same.
    rows[1] |= {"email": "w@x.org", "updated_at": "2026-08-01 12:09:00"}
    bench.load("people", rows[:3], COLUMNS)
    assert bench.run(sync).outcomes[Status.CREATED] == 2
    assert minute(bench, sync) == "09"


@pytest.mark.slow
def test_a_full_resync_asks_for_all_rows(bench: Bench) -> None:
    sync = bench.contacts(cursor_model(bench))
    load(bench, *((n, f"p{n}@x.org", "A") for n in range(5)))
    bench.run(sync)
    report = bench.run(sync, options=PlanOptions(full_resync=True))
    assert (report.outcomes[Status.UPDATED], minute(bench, sync)) == (1, "")
    assert any("the next query returns all" in note for note in report.notes)
    report = bench.run(sync)
    assert (report.counts.queried, report.outcomes[Status.UPDATED], minute(bench, sync)) == (5, 4, "04")


@pytest.mark.slow
def test_a_new_mapping_asks_for_all_rows(bench: Bench) -> None:
    sync = bench.contacts(cursor_model(bench))
    load(bench, (1, "p1@x.org", "A"), (2, "p2@x.org", "B"))
    bench.run(sync)
    mapped = dataclasses.replace(sync, fields=(FieldSpec("email", "email"), FieldSpec("firstname", value="X")))
    report = bench.run(mapped)
    assert any("needs older rows too" in note for note in report.notes)
    bench.run(mapped)
    assert (queried(bench), bench.emails()) == (None, {"p1@x.org": "X", "p2@x.org": "X"})
    bench.run(mapped)
    assert (queried(bench), minute(bench, mapped)) == ("2026-08-01 12:02:00", "02")


@pytest.mark.slow
def test_the_cursor_does_not_pass_a_row_whose_lookup_found_nothing(bench: Bench) -> None:
    owners = LookupSpec("owners", reference="owners", key="email", value="id", cache=0.0)
    field = FieldSpec("hubspot_owner_id", "firstname", lookup="owners")
    sync = bench.contacts(cursor_model(bench), fields=(field,), lookups=(owners,))
    load(bench, (1, "p1@x.org", "ann@x.org"), (2, "p2@x.org", None))
    for _ in range(3):
        report = bench.run(sync)
        assert (report.counts.invalid, minute(bench, sync)) == (1, "01")
    bench.client.define_owner("ann@x.org")
    bench.run(sync)
    assert (set(bench.emails()), minute(bench, sync)) == ({"p1@x.org", "p2@x.org"}, "02")
    # A field that is left out settles its row.
    lenient = dataclasses.replace(sync, fields=(dataclasses.replace(field, rule=FieldRule(drop=True)),))
    load(bench, (3, "p3@x.org", "bob@x.org"), (4, "p4@x.org", None))
    for _ in range(2):
        assert bench.run(lenient).counts.invalid == 0
    assert minute(bench, lenient) == "04"


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("kind", "lookback", "start"),
    [
        ("UBIGINT", 10.0, "0"),
        ("INTEGER", 10.0, "-5"),
        ("INTEGER", 1.5, "3"),
        ("DECIMAL(9,2)", 0.5, "4.50"),
        ("DOUBLE", 0.5, "4.5"),
    ],
)
def test_a_lookback_of_numbers(bench: Bench, kind: str, lookback: float, start: str) -> None:
    bench.load("counted", [{"id": 1, "email": "p1@x.org", "n": 5}], {"id": "INTEGER", "email": "VARCHAR", "n": kind})
    model = bench.model("counted", f"SELECT * FROM counted WHERE $cursor IS NULL OR n >= CAST($cursor AS {kind})")
    model = dataclasses.replace(model, cursor=CursorSpec("n", lookback), readers=(("contacts", "sandbox"),))
    sync = bench.contacts(model, fields=(FieldSpec("email", "email"),))
    for _ in range(2):
        report = bench.run(sync)
    version = newest_version(bench.folder, "counted")
    assert version is not None
    assert (float(version.cursor or "nan"), report.counts.queried) == (float(start), 1)


def test_a_query_begins_where_the_slowest_sync_is(bench: Bench) -> None:
    model = dataclasses.replace(cursor_model(bench), readers=(("first", "sandbox"), ("second", "sandbox")))
    first = bench.contacts(model, name="first")
    second = dataclasses.replace(
        bench.contacts(model, name="second"),
        destination=DestinationSpec("hook", "webhook", TargetSpec("sandbox", sandbox=True), 5.0, 4),
        match={},
    )
    load(bench, (1, "p1@x.org", "A"))
    bench.run(first)
    assert bench.run(second).counts.queried == 1
    assert queried(bench) is None
    load(bench, (2, "p2@x.org", "A"), (3, "p3@x.org", "A"))
    bench.run(first)
    load(bench, (4, "p4@x.org", "A"))
    load(bench, (2, "p2@x.org", "A"), (3, "p3@x.org", "A"), (4, "p4@x.org", "A"))
    assert bench.run(second).outcomes[Status.CREATED] == 3
    bench.query(model)
    assert queried(bench) == "2026-08-01 12:03:00"


def test_the_column_must_be_there_and_have_a_type_that_goes_back(bench: Bench) -> None:
    load(bench, (1, "p1@x.org", "A"))
    model = cursor_model(bench)
    with pytest.raises(Misconfigured, match="does not return the cursor column 'changed_at'"):
        run_query(dataclasses.replace(model, cursor=CursorSpec("changed_at")), bench.folder, "r")
    plain = dataclasses.replace(bench.model("people", "SELECT * FROM people"), cursor=model.cursor)
    with pytest.raises(Misconfigured, match=r"does not use \$cursor"):
        run_query(plain, bench.folder, "r")
    texts = dataclasses.replace(
        bench.model("people", "SELECT * FROM people WHERE $cursor IS NULL OR email >= $cursor"),
        cursor=CursorSpec("email", 60.0),
        readers=model.readers,
    )
    bench.run(bench.contacts(texts))
    with pytest.raises(Misconfigured, match="from which no lookback can be taken"):
        bench.query(texts)


# append, with a dedupe window

EVENTS = "SELECT id, happened, name FROM events WHERE $cursor IS NULL OR happened >= CAST($cursor AS INTEGER)"


class Clock:
    """The ledger's clock, moved by the test."""

    def __init__(self, bench: Bench) -> None:
        self.ahead = 0.0
        began = bench.ledger.now
        self.now: Callable[[], float] = lambda: began() + self.ahead


@pytest.fixture
def clock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(bench)
    monkeypatch.setattr(bench.ledger, "now", clock.now)
    return clock


def events(bench: Bench, *, cursor: bool, window: float = 100.0) -> SyncSpec:
    model = bench.model("events", EVENTS if cursor else "SELECT id, happened, name FROM events")
    if cursor:
        model = dataclasses.replace(model, cursor=CursorSpec("happened", 10.0), readers=(("events", "sandbox"),))
    return SyncSpec(
        name="events",
        model=model,
        destination=DestinationSpec("track", "sandbox_insert_keyed", TargetSpec("sandbox", sandbox=True), 5.0, 4),
        object="events",
        mode=Mode.APPEND,
        fields=(FieldSpec("name", "name"),),
        dedupe_window=window,
        source="defs/events/defs.yaml:1",
    )


def happen(bench: Bench, *at: int) -> None:
    """Events by the second at which they happened, which is also their key."""
    rows = [{"id": n, "happened": n, "name": f"event {n}"} for n in at]
    bench.load("events", rows, {"id": "INTEGER", "happened": "INTEGER", "name": "VARCHAR"})


def test_an_event_whose_key_was_forgotten_is_not_sent_again(bench: Bench, clock: Clock) -> None:
    sync = events(bench, cursor=True)
    happen(bench, 1, 2, 3)
    assert bench.run(sync).outcomes[Status.CREATED] == 3
    clock.ahead += 60
    happen(bench, 1, 2, 3, 50)
    assert bench.run(sync).outcomes[Status.CREATED] == 1
    clock.ahead += 60
    happen(bench, 50, 60)
    assert bench.run(sync).outcomes[Status.CREATED] == 1
    assert state(bench, sync).rows == 2, "the keys 1, 2 and 3 are forgotten"
    # They come once more, and are late by more than the window; 45 is late by less.
    happen(bench, 1, 2, 3, 45, 50, 60)
    model = sync.model
    run_query(model, bench.folder, "whole", whole=True)
    bench.query = lambda *_: None  # type: ignore[method-assign]
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], report.counts.excluded) == (1, 3)
    sent = bench.client.insert_counts("track", "events")
    assert sent == dict.fromkeys(("1", "2", "3", "45", "50", "60"), 1)


@pytest.mark.slow
def test_a_resync_of_keys_sends_no_forgotten_event_again(bench: Bench, clock: Clock) -> None:
    sync = events(bench, cursor=True)
    happen(bench, 1, 2, 3)
    bench.run(sync)
    clock.ahead += 60
    happen(bench, 1, 2, 3, 50)
    bench.run(sync)
    clock.ahead += 60
    happen(bench, 1, 2, 3, 50, 60)
    bench.run(sync)
    assert state(bench, sync).rows == 2, "the keys 1, 2 and 3 are forgotten"
    bench.run(sync, options=PlanOptions(resync_keys=("60",)))
    for _ in range(2):
        bench.run(sync)
    assert bench.client.insert_counts("track", "events") == {"1": 1, "2": 1, "3": 1, "50": 1, "60": 2}


@pytest.mark.slow
def test_an_event_that_is_held_is_sent_however_old_it_is(bench: Bench, clock: Clock) -> None:
    sync = dataclasses.replace(events(bench, cursor=True), retry_wait=0.0)
    happen(bench, 1, 2, 3)
    bench.client.faults([{"times": 2, "fault": {"kind": "reject_rows", "with": "event 2"}}])
    assert bench.run(sync).outcomes[Status.REJECTED] == 1
    clock.ahead += 200
    happen(bench, 1, 2, 3, 90)
    assert bench.run(sync).outcomes[Status.REJECTED] == 1
    clock.ahead += 200
    happen(bench, 1, 2, 3, 90, 99)
    bench.run(sync)
    assert bench.client.insert_counts("track", "events") == dict.fromkeys(("1", "2", "3", "90", "99"), 1)


@pytest.mark.slow
def test_without_a_cursor_a_key_is_remembered_for_as_long_as_it_is_in_the_model(bench: Bench, clock: Clock) -> None:
    sync = events(bench, cursor=False)
    happen(bench, 1, 2)
    bench.run(sync)
    for _ in range(3):
        clock.ahead += 200
        happen(bench, 1)
        bench.run(sync)
    assert state(bench, sync).rows == 1
    happen(bench, 1, 2)
    assert bench.run(sync).outcomes[Status.CREATED] == 1
    assert bench.client.insert_counts("track", "events") == {"1": 1, "2": 2}
