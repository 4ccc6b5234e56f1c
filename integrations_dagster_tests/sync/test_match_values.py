"""Emails that pass from row to row, at the sandbox's HubSpot, where an email is unique; in both modes."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.sync.harness import Bench

COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"}
BATCHES = "/crm/v3/objects/contacts/batch/*"


def load(bench: Bench, people: dict[int, tuple[str, str]]) -> None:
    rows = [{"id": id_, "email": f"{email}@example.com", "firstname": name} for id_, (email, name) in people.items()]
    bench.load("people", rows, COLUMNS)


def held(bench: Bench) -> dict[str, str | None]:
    return {email.split("@")[0]: name for email, name in bench.emails().items()}


@pytest.fixture(params=[Mode.UPSERT, Mode.MIRROR])
def sync(bench: Bench, request: pytest.FixtureRequest) -> SyncSpec:
    load(bench, {1: ("ann", "Ann"), 2: ("bob", "Bob"), 3: ("cy", "Cy")})
    model = bench.model("people", "SELECT * FROM people")
    sync = bench.contacts(model, request.param, removal_limit=1.0, destination=bench.crm(timeout=1.0))
    bench.run(sync)
    return sync


@pytest.mark.quick(1)
def test_a_changed_email_keeps_the_record(bench: Bench, sync: SyncSpec) -> None:
    before = {r["properties"]["firstname"]: r["id"] for r in bench.client.records("contacts")}
    load(bench, {1: ("anna", "Ann"), 2: ("bob", "Bob"), 3: ("cy", "Cy")})
    report = bench.run(sync)
    assert (report.counts.changed, report.outcomes[Status.UPDATED]) == (1, 1)
    assert held(bench) == {"anna": "Ann", "bob": "Bob", "cy": "Cy"}
    assert {r["properties"]["firstname"]: r["id"] for r in bench.client.records("contacts")} == before


@pytest.mark.quick(1)
def test_an_email_passes_from_a_removed_row_to_a_new_one(bench: Bench, sync: SyncSpec) -> None:
    load(bench, {2: ("bob", "Bob"), 3: ("cy", "Cy"), 4: ("ann", "New Ann")})
    report = bench.run(sync)
    assert report.counts.removed == 0
    assert held(bench) == {"ann": "New Ann", "bob": "Bob", "cy": "Cy"}
    assert bench.run(sync).candidates == 0


def test_another_primary_key_sends_what_has_changed_and_no_more(bench: Bench, sync: SyncSpec) -> None:
    load(bench, {1: ("ann", "Ann"), 2: ("bob", "Bob"), 3: ("cy", "Cyrus")})
    sync = replace(sync, model=bench.model("people", "SELECT * FROM people", "id", "email"))
    report = bench.run(sync)
    assert (report.failures, report.candidates) == ((), 3), "all are looked at: their keys are new"
    assert held(bench) == {"ann": "Ann", "bob": "Bob", "cy": "Cyrus"}
    assert bench.run(sync).candidates == 0


@pytest.mark.quick(1)
def test_two_rows_swap_emails(bench: Bench, sync: SyncSpec) -> None:
    load(bench, {1: ("bob", "Ann"), 2: ("ann", "Bob"), 3: ("cy", "Cy")})
    report = bench.run(sync)
    assert report.failures == ()
    assert held(bench) == {"bob": "Ann", "ann": "Bob", "cy": "Cy"}
    assert bench.run(sync).candidates == 0


@pytest.mark.quick(1)
def test_emails_move_along_a_chain(bench: Bench, sync: SyncSpec) -> None:
    load(bench, {1: ("bob", "Ann"), 2: ("cy", "Bob"), 3: ("dee", "Cy")})
    report = bench.run(sync)
    assert (report.outcomes[Status.UPDATED], report.outcomes[Status.REJECTED]) == (3, 0)
    assert held(bench) == {"bob": "Ann", "cy": "Bob", "dee": "Cy"}


@pytest.mark.quick(1)
def test_a_record_deleted_at_the_destination_is_created_again(bench: Bench, sync: SyncSpec) -> None:
    ids = {r["properties"]["firstname"]: r["id"] for r in bench.client.records("contacts")}
    bench.delete_record("contacts", ids["Ann"])
    load(bench, {1: ("anna", "Ann"), 2: ("bob", "Bob"), 3: ("cy", "Cy")})
    report = bench.run(sync)
    assert report.outcomes[Status.REJECTED] == 1
    assert "anna" not in held(bench)
    assert bench.run(sync).outcomes[Status.CREATED] == 1
    assert held(bench) == {"anna": "Ann", "bob": "Bob", "cy": "Cy"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
def test_random_histories_with_lost_answers(bench: Bench, sync: SyncSpec, seed: int) -> None:
    print(f"seed {seed}")
    choice = random.Random(seed)
    names = ["ann", "bob", "cy", "dee", "eve"]
    people: dict[int, tuple[str, str]] = {}
    for step in range(4):
        ids = choice.sample(range(1, 6), choice.randint(2, 5))
        people = {id_: (email, f"v{step}-{id_}") for id_, email in zip(ids, choice.sample(names, 5), strict=False)}
        load(bench, people)
        fault = {"kind": "reset", "applied": choice.random() < 0.5}
        bench.client.faults(
            [{"match": {"path": BATCHES}, "probability": 0.4, "seed": seed * 10 + step, "fault": fault}]
        )
        bench.run(sync)
    bench.client.clear_faults()
    bench.run(sync)
    again = bench.run(sync)
    expected = dict(people.values())
    found = held(bench)
    if sync.mode is Mode.MIRROR:
        assert found == expected
    else:
        assert {email: found.get(email) for email in expected} == expected
    assert again.failures == ()
    assert bench.run(sync).candidates == 0
