"""Syncs to small servers of JSON-RPC and XML-RPC on loopback: refused rows, throttling, outages, lost answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from integrations_dagster.destinations.registry import KINDS
from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.spec import AuthSpec, DestinationSpec, Env, FieldSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.rpc_store import BASE, TOGETHER, Failed, Store, running_store
from integrations_dagster_tests.sync.harness import Bench


@pytest.fixture
def store() -> Iterator[Store]:
    with running_store() as made:
        yield made


@pytest.fixture(params=["jsonrpc", "xmlrpc"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def people(kind: str, api: dict[str, Any], bench: Bench, store: Store, mode: Mode = Mode.MIRROR) -> SyncSpec:
    options = KINDS[kind].options
    assert options is not None
    bench.env["PASSWORD"] = "s3cret-password"
    auth = AuthSpec(
        "session",
        {
            "login_path": "/login",
            "username": "me",
            "password": Env("PASSWORD"),
            "token_path": "result.sid",
            "header": "X-Session: {token}",
        },
    )
    target = TargetSpec("sandbox", base_url=store.url, auth=auth)
    return SyncSpec(
        name="people",
        model=bench.model("people", "SELECT * FROM people"),
        destination=DestinationSpec("erp", kind, target, 1.0, 2, option=options[1].model_validate(api), backoff=0.01),
        object="person",
        mode=mode,
        match={"email": "email"},
        fields=(FieldSpec("name", "name"),),
    )


def load(bench: Bench, *names: str) -> list[tuple[str, str]]:
    """Put people into the warehouse; returns what the store should have of them."""
    rows: list[dict[str, Any]] = [
        {"id": number, "email": f"p{number}@x.org", "name": name} for number, name in enumerate(names)
    ]
    bench.load("people", rows, {"id": "BIGINT", "email": "VARCHAR", "name": "VARCHAR"})
    return sorted((row["email"], row["name"]) for row in rows if not row["name"].startswith("bad"))


def done(report: RunReport) -> dict[Status, int]:
    return {status: count for status, count in report.outcomes.items() if count}


@pytest.mark.quick(1)
@pytest.mark.parametrize("api", [BASE, TOGETHER], ids=["at once", "together"])
def test_a_mirror_with_bad_rows_among_the_good(kind: str, api: dict[str, Any], bench: Bench, store: Store) -> None:
    sync = people(kind, api, bench, store)
    wanted = load(bench, *(f"bad {n}" if n in (3, 4, 17) else f"Zoë <{n}>" for n in range(25)))
    report = bench.run(sync)
    assert done(report) == {Status.CREATED: 22, Status.REJECTED: 3}
    assert store.people() == wanted
    assert sorted(row.key for row in report.bad_rows) == ["17", "3", "4"]
    reasons = {row.reason for row in report.bad_rows}
    assert "The store refused the row. The API says: bad 17 is no name" in reasons
    wanted = load(bench, *(f"Ann {n}" if n < 5 else f"Zoë <{n}>" for n in range(22)))
    report = bench.run(sync)
    assert (report.outcomes[Status.DELETED], report.outcomes[Status.REJECTED]) == (3, 0)
    assert store.people() == wanted
    assert bench.run(sync).traffic.requests == 0


@pytest.mark.quick(1)
def test_a_mirror_renames_its_records(kind: str, bench: Bench, store: Store) -> None:
    sync = people(kind, BASE, bench, store)
    load(bench, "Ann", "Bob")
    bench.run(sync)
    ids = sorted(store.records)
    rows = [{"id": 0, "email": "ann@x.org", "name": "Ann"}, {"id": 1, "email": "p1@x.org", "name": "Bob"}]
    bench.load("people", rows, {"id": "BIGINT", "email": "VARCHAR", "name": "VARCHAR"})
    assert done(bench.run(sync)) == {Status.UPDATED: 1}
    assert store.people() == [("ann@x.org", "Ann"), ("p1@x.org", "Bob")]
    assert sorted(store.records) == ids, "the record is the same"


@pytest.mark.quick(1)
def test_what_no_call_renames_is_made_anew_and_deleted_by_its_id(kind: str, bench: Bench, store: Store) -> None:
    """The delete names ids, so that they are kept; the upsert knows match values only."""
    api = {**TOGETHER, "id_type": "integer", "search": BASE["search"], "delete": BASE["delete"]}
    sync = people(kind, api, bench, store)
    load(bench, "Ann", "Bob")
    bench.run(sync)
    rows = [{"id": 0, "email": "ann@x.org", "name": "Ann"}, {"id": 1, "email": "p1@x.org", "name": "Bob"}]
    bench.load("people", rows, {"id": "BIGINT", "email": "VARCHAR", "name": "VARCHAR"})
    report = bench.run(sync)
    assert (report.outcomes[Status.REJECTED], report.outcomes[Status.UNSENT]) == (0, 0)
    assert store.people() == [("ann@x.org", "Ann"), ("p1@x.org", "Bob")]
    assert bench.run(sync).traffic.requests == 0


@pytest.mark.quick(1)
def test_throttling_inside_a_200_is_waited_out(kind: str, bench: Bench, store: Store) -> None:
    left = [3]

    def before(_method: str) -> None:
        if left[0] and store.requests > 1:
            left[0] -= 1
            raise Failed(2, "slower, please")

    store.before = before
    wanted = load(bench, *(f"Name {n}" for n in range(12)))
    report = bench.run(people(kind, BASE, bench, store))
    assert done(report) == {Status.CREATED: 12}
    assert store.people() == wanted
    assert report.traffic.throttled == 3


@pytest.mark.quick(1)
def test_a_session_that_ends_inside_a_200_is_opened_anew(kind: str, bench: Bench, store: Store) -> None:
    ended = ["create"]

    def before(method: str) -> None:
        if method in ended:
            ended.remove(method)
            raise Failed(3, "session expired")

    store.before = before
    wanted = load(bench, *(f"Name {n}" for n in range(5)))
    report = bench.run(people(kind, BASE, bench, store))
    assert done(report) == {Status.CREATED: 5}
    assert store.people() == wanted
    assert store.logins == 2
    assert report.traffic.errors == {"unauthorized": 1}


@pytest.mark.quick(1)
def test_a_create_whose_answer_is_lost_makes_no_record_twice(kind: str, bench: Bench, store: Store) -> None:
    lost = ["create", "write"]

    def after(method: str) -> bool:
        return method in lost and not lost.remove(method)  # type: ignore[func-returns-value]

    store.after = after
    wanted = load(bench, *(f"Name {n}" for n in range(8)))
    sync = people(kind, BASE, bench, store)
    report = bench.run(sync)
    # It was made by the request whose answer was lost, found by the next look-up, and written once more.
    assert done(report) == {Status.UPDATED: 8}
    assert store.people() == wanted
    assert [method for method in store.asked if method != "find"] == ["create", "write", "write"]
    assert bench.run(sync).traffic.requests == 0


@pytest.mark.quick(1)
def test_inserts_whose_answer_is_lost_are_looked_up(kind: str, bench: Bench, store: Store) -> None:
    lost = ["create"]
    store.after = lambda method: method in lost and not lost.remove(method)  # type: ignore[func-returns-value]
    wanted = load(bench, *(f"Name {n}" for n in range(8)))
    sync = people(kind, BASE, bench, store, Mode.INSERT)
    assert done(bench.run(sync)) == {Status.IN_DOUBT: 8}
    assert len(bench.doubtful(sync)) == 8
    bench.run(sync)
    assert bench.doubtful(sync) == []
    assert store.people() == wanted
    assert store.asked.count("create") == 1


@pytest.mark.quick(1)
def test_an_outage_stops_and_the_next_run_delivers_the_rest(kind: str, bench: Bench, store: Store) -> None:
    down = [True]

    def before(method: str) -> None:
        if down[0] and method == "create":
            raise Failed(99, "database is locked")

    store.before = before
    wanted = load(bench, *(f"Name {n}" for n in range(8)))
    sync = people(kind, BASE, bench, store)
    report = bench.run(sync)
    assert done(report) == {Status.UNSENT: 8}
    assert "`api.errors` of the destination does not list" in " ".join(report.failures)
    assert "database is locked" in " ".join(report.failures)
    down[0] = False
    assert done(bench.run(sync)) == {Status.CREATED: 8}
    assert store.people() == wanted
