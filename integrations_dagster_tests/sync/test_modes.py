"""The modes update, delete and append, over HTTP at the sandbox; docs/modes.md says what they mean."""

from __future__ import annotations

import dataclasses

import pytest

from integrations_dagster.destinations.base import NO_RECORD
from integrations_dagster.planner.state import Home
from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.preview import preview
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, ModelSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import GuardTripped, Misconfigured, Mode, Status
from integrations_dagster_tests.sync.harness import Bench

COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"}
SQL = "SELECT id, email, firstname FROM people"


def people(*rows: tuple[int, str, str]) -> list[dict[str, object]]:
    return [{"id": id_, "email": email, "firstname": name} for id_, email, name in rows]


@pytest.fixture
def model(bench: Bench) -> ModelSpec:
    bench.load("people", people((1, "a@x.org", "Ada"), (2, "b@x.org", "Bo")), COLUMNS)
    return bench.model("people", SQL)


def jobs(bench: Bench, model: ModelSpec, mode: Mode) -> SyncSpec:
    """A sync to the sandbox's jobs, which know records by key."""
    return SyncSpec(
        name=f"bulk_{mode}",
        model=model,
        destination=DestinationSpec("bulk", "sandbox_jobs", TargetSpec("sandbox", sandbox=True), 5.0, 4),
        object="people",
        mode=mode,
        fields=() if mode is Mode.DELETE else (FieldSpec("firstname", "firstname"),),
        removal_limit=1000.0 if mode is Mode.DELETE else 0.2,
        source="defs/bulk/defs.yaml:1",
    )


def test_an_update_creates_nothing_and_waits_for_the_record(bench: Bench, model: ModelSpec) -> None:
    bench.run(bench.contacts(model, name="first"), options=PlanOptions(keys=("1",)))
    bench.load("people", people((1, "a@x.org", "Adele"), (2, "b@x.org", "Bo")), COLUMNS)
    sync = bench.contacts(model, Mode.UPDATE, name="second", max_attempts=2)
    report = bench.run(sync)
    assert (report.outcomes[Status.UPDATED], report.outcomes[Status.REJECTED]) == (1, 1)
    assert bench.emails() == {"a@x.org": "Adele"}
    (bad,) = report.bad_rows
    assert (bad.key, bad.code) == ("2", NO_RECORD)
    assert "mode update creates none" in bad.reason
    # Tried again by the next run, then with growing spacing, and never parked.
    assert bench.run(sync).outcomes[Status.REJECTED] == 1
    third = bench.run(dataclasses.replace(sync, retry_wait=3600.0))
    assert (third.candidates, third.counts.held) == (0, 1)
    assert not any("parked" in note for note in third.notes)
    # The record comes into being, and the row's time too.
    bench.load("people", people((2, "b@x.org", "Bob")), COLUMNS)
    bench.run(bench.contacts(model, name="first"))
    bench.load("people", people((1, "a@x.org", "Adele"), (2, "b@x.org", "Bobby")), COLUMNS)
    assert bench.run(sync).outcomes[Status.UPDATED] == 1
    assert bench.emails() == {"a@x.org": "Adele", "b@x.org": "Bobby"}
    assert bench.run(sync).candidates == 0


@pytest.mark.slow
def test_an_update_follows_the_match_value_and_renames_no_record(bench: Bench, model: ModelSpec) -> None:
    bench.run(bench.contacts(model, name="first"))
    sync = bench.contacts(model, Mode.UPDATE, name="second")
    bench.run(sync)
    bench.load("people", people((1, "b@x.org", "One"), (2, "a@x.org", "Two")), COLUMNS)
    assert bench.run(sync).outcomes[Status.UPDATED] == 2
    assert bench.emails() == {"a@x.org": "Two", "b@x.org": "One"}
    bench.load("people", people((1, "new@x.org", "One"), (2, "a@x.org", "Two")), COLUMNS)
    assert bench.run(sync).outcomes[Status.REJECTED] == 1
    assert bench.emails() == {"a@x.org": "Two", "b@x.org": "One"}


@pytest.mark.slow
def test_an_update_notices_that_its_record_is_gone(bench: Bench, model: ModelSpec) -> None:
    bench.run(bench.contacts(model, name="first"))
    sync = bench.contacts(model, Mode.UPDATE, name="second")
    bench.run(sync)
    (record,) = [r for r in bench.client.records("contacts") if r["properties"]["email"] == "a@x.org"]
    bench.delete_record("contacts", record["id"])
    bench.load("people", people((1, "a@x.org", "Adele"), (2, "b@x.org", "Bo")), COLUMNS)
    assert [row.code for row in bench.run(sync).bad_rows] == [NO_RECORD]
    # As it was before: not taken for delivered, since nothing is there any more.
    bench.load("people", people((1, "a@x.org", "Ada"), (2, "b@x.org", "Bo")), COLUMNS)
    assert [row.code for row in bench.run(sync).bad_rows] == [NO_RECORD]


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", ["hubspot", "sandbox_jobs"])
def test_a_deletion_is_done_once_for_each_time_that_a_row_is_listed(bench: Bench, model: ModelSpec, kind: str) -> None:
    if kind == "hubspot":
        first = bench.contacts(model, name="first")
        sync = bench.contacts(model, Mode.DELETE, name="second", fields=(), removal_limit=10.0)
    else:
        first = dataclasses.replace(jobs(bench, model, Mode.UPSERT), name="first")
        sync = jobs(bench, model, Mode.DELETE)

    def there() -> int:
        return len(bench.emails()) if kind == "hubspot" else len(bench.client.inserted("bulk", "people"))

    bench.load("people", people(*((n, f"p{n}@x.org", "P") for n in range(4))), COLUMNS)
    bench.run(first)
    bench.load("people", people((1, "p1@x.org", ""), (9, "none@x.org", "")), COLUMNS)
    report = bench.run(sync)
    assert report.outcomes[Status.DELETED] == 2, "what is not there is as deleted"
    assert there() == 3
    # Somebody makes it again: it was deleted once, and is still listed.
    bench.load("people", people((1, "p1@x.org", "again")), COLUMNS)
    bench.run(dataclasses.replace(first, name="third"))
    assert there() == 4
    assert bench.run(sync).candidates == 0
    # It leaves the list and comes back.
    bench.load("people", [], COLUMNS)
    assert bench.run(sync).counts.removed == 0
    bench.load("people", people((1, "p1@x.org", "")), COLUMNS)
    assert bench.run(sync).outcomes[Status.DELETED] == 1
    assert there() == 3


@pytest.mark.slow
def test_a_deletion_that_lists_everything_sends_nothing(bench: Bench, model: ModelSpec) -> None:
    bench.load("people", people(*((n, f"p{n}@x.org", "P") for n in range(20))), COLUMNS)
    bench.run(bench.contacts(model, name="first"))
    sync = bench.contacts(model, Mode.DELETE, name="second", fields=(), removal_limit=10.0)
    with pytest.raises(GuardTripped, match=r"would delete 20 records, more than its removal_limit of 10"):
        bench.run(sync)
    assert len(bench.emails()) == 20
    assert bench.run(sync, options=PlanOptions(limit=3)).outcomes[Status.DELETED] == 3
    assert bench.run(sync, options=PlanOptions(allow_removals=True)).outcomes[Status.DELETED] == 17
    assert bench.emails() == {}
    assert bench.run(sync).candidates == 0


def test_a_new_mapping_deletes_nothing_a_second_time(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model, Mode.DELETE, name="second", fields=(), removal_limit=10.0)
    bench.run(sync)
    bench.load("people", people((1, " A@X.org", ""), (2, "b@x.org", "")), COLUMNS)
    report = bench.run(sync)
    assert (report.counts.unchanged, report.traffic.requests) == (2, 0)


@pytest.mark.quick(1)
@pytest.mark.parametrize("modes", [(Mode.DELETE, Mode.MIRROR), (Mode.UPSERT, Mode.DELETE)])
def test_a_state_of_deletions_is_taken_over_by_no_other_mode(
    bench: Bench, model: ModelSpec, modes: tuple[Mode, Mode]
) -> None:
    first, second = (
        bench.contacts(model, mode, **({"fields": (), "removal_limit": 9.0} if mode is Mode.DELETE else {}))
        for mode in modes
    )
    bench.run(first)
    with pytest.raises(Misconfigured, match=f"its mode was changed from {modes[0]} to {modes[1]}"):
        bench.run(second)
    with pytest.raises(Misconfigured, match="new name"):
        preview(second, bench.context())


def test_what_a_dead_run_has_delivered_is_no_deletion(bench: Bench, model: ModelSpec) -> None:
    """The mode was changed before the first run's deliveries came into the state."""
    sync = bench.contacts(model)
    dead = bench.context(alive=lambda _holder: False)
    bench.write(sync, dead, bench.plan(sync, dead).shards)
    deletes = dataclasses.replace(sync, mode=Mode.DELETE, fields=(), removal_limit=9.0)
    with pytest.raises(Misconfigured, match="its mode was changed from upsert to delete"):
        bench.run(deletes, ctx=bench.context(alive=lambda _holder: False))
    with pytest.raises(Misconfigured, match="new name"):
        preview(deletes, bench.context())


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", ["sandbox_insert", "sandbox_insert_keyed", "sandbox_jobs", "webhook"])
def test_an_append_delivers_each_key_once(bench: Bench, model: ModelSpec, kind: str) -> None:
    sync = dataclasses.replace(
        jobs(bench, model, Mode.APPEND),
        name="events",
        destination=DestinationSpec("bulk", kind, TargetSpec("sandbox", sandbox=True), 5.0, 4),
    )
    assert bench.run(sync).outcomes[Status.CREATED] == 2
    bench.load("people", people((1, "a@x.org", "changed"), (3, "c@x.org", "Cy")), COLUMNS)
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], report.counts.excluded) == (1, 1)
    bench.load("people", people((1, "a@x.org", "Ada"), (2, "b@x.org", "Bo")), COLUMNS)
    assert bench.run(sync).candidates == 0


def test_a_full_resync_sends_every_row_and_keeps_ids(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model, Mode.MIRROR, removal_limit=0.9)
    bench.run(sync)
    ids = {record["id"] for record in bench.client.records("contacts")}
    report = bench.run(sync, options=PlanOptions(full_resync=True))
    assert report.outcomes[Status.UPDATED] == 2
    assert any("Full resync: 2 row(s)" in note for note in report.notes)
    assert {record["id"] for record in bench.client.records("contacts")} == ids
    assert bench.run(sync).candidates == 0
    # The records are still known: one whose row leaves is removed, by its id, and one that is renamed is no other.
    bench.load("people", people((1, "new@x.org", "Ada")), COLUMNS)
    report = bench.run(sync, options=PlanOptions(full_resync=True))
    assert (report.outcomes[Status.UPDATED], report.outcomes[Status.DELETED]) == (1, 1)
    assert {record["id"] for record in bench.client.records("contacts")} < ids


@pytest.mark.slow
def test_a_full_resync_that_is_killed_goes_on(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model)
    bench.run(sync)
    home = Home.of(bench.folder, sync.name, bench.account(sync))
    killed = bench.context(alive=lambda _holder: False)
    made = bench.plan(sync, killed, options=PlanOptions(full_resync=True))
    assert made.counts.changed == 2
    # Dead before it wrote a row: an ordinary run delivers what the resync was to deliver, and says why.
    report = bench.run(sync, ctx=bench.context(alive=lambda _holder: False))
    assert report.outcomes[Status.UPDATED] == 2
    assert any("an earlier run's resync" in note for note in report.notes)
    assert home.manifest().rows == 2
    assert bench.run(sync).candidates == 0


@pytest.mark.slow
def test_a_full_resync_that_a_guard_stops_forgets_nothing(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model, Mode.MIRROR)
    bench.run(sync)
    bench.load("people", people((1, "a@x.org", "Ada")), COLUMNS)
    with pytest.raises(GuardTripped):
        bench.run(sync, options=PlanOptions(full_resync=True))
    bench.load("people", people((1, "a@x.org", "Ada"), (2, "b@x.org", "Bo")), COLUMNS)
    assert bench.run(sync).candidates == 0


def test_a_resync_of_keys_sends_these_and_what_has_changed(bench: Bench, model: ModelSpec) -> None:
    bench.load("people", people(*((n, f"p{n}@x.org", "P") for n in range(5))), COLUMNS)
    sync = bench.contacts(model)
    bench.run(sync)
    bench.load("people", people(*((n, f"p{n}@x.org", "Q" if n == 4 else "P") for n in range(5))), COLUMNS)
    options = PlanOptions(resync_keys=("1", "2", "77"))
    found = preview(sync, bench.context(), options=options)
    assert found.to_send == 2, "the model was not queried again"
    report = bench.run(sync, options=options)
    assert report.outcomes[Status.UPDATED] == 3
    assert bench.run(sync).candidates == 0


@pytest.mark.slow
def test_a_full_resync_tries_rejected_rows_at_once(bench: Bench, model: ModelSpec) -> None:
    bench.load("people", people((1, "a@x.org", "Ada"), (2, "no email", "Bo")), COLUMNS)
    sync = bench.contacts(model, retry_wait=3600.0)
    for _ in range(2):
        bench.run(sync)
    assert bench.run(sync).counts.held == 1
    report = bench.run(sync, options=PlanOptions(full_resync=True))
    assert (report.outcomes[Status.UPDATED], report.outcomes[Status.REJECTED]) == (1, 1)


@pytest.mark.quick(1)
@pytest.mark.parametrize("mode", [Mode.INSERT, Mode.APPEND])
def test_a_full_resync_of_creations_is_refused(bench: Bench, model: ModelSpec, mode: Mode) -> None:
    sync = jobs(bench, model, mode)
    bench.run(sync)
    with pytest.raises(Misconfigured, match="would create all of them a second time"):
        plan(sync, bench.context(), (), PlanOptions(full_resync=True))
    assert bench.run(sync, options=PlanOptions(resync_keys=("1",))).outcomes[Status.CREATED] == 1
    assert len(bench.client.inserted("bulk", "people")) == 3
