"""Whole runs against the sandbox: query, plan, write, record."""

from __future__ import annotations

import dataclasses

import pytest

from integrations_dagster.planner.state import Home
from integrations_dagster.sandbox.endpoint import write_endpoint
from integrations_dagster.sync.account import DestinationUnavailable
from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.preview import preview
from integrations_dagster.sync.record import Incomplete, record
from integrations_dagster.sync.schema import FieldsDoNotFit
from integrations_dagster.sync.spec import (
    DestinationSpec,
    Env,
    FieldSpec,
    ModelSpec,
    SyncSpec,
    TargetSpec,
)
from integrations_dagster.vocabulary import GuardTripped, LeaseHeld, Misconfigured, Mode, Partition, Status
from integrations_dagster_tests.sync.harness import Bench

COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"}


def people(count: int, **names: str) -> list[dict[str, object]]:
    return [{"id": i, "email": f"p{i}@example.com", "firstname": names.get(f"p{i}", f"Name {i}")} for i in range(count)]


@pytest.fixture
def model(bench: Bench) -> ModelSpec:
    bench.load("people", people(250), COLUMNS)
    return bench.model("people", "SELECT * FROM people")


def test_the_first_run_delivers_and_the_second_sends_nothing(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model)
    first = bench.run(sync)
    assert (first.counts.added, first.outcomes[Status.CREATED], first.failures) == (250, 250, ())
    assert bench.emails() == {f"p{i}@example.com": f"Name {i}" for i in range(250)}
    assert first.traffic.requests == 3
    before = bench.client.last_seq()
    second = bench.run(sync)
    assert (second.counts.unchanged, second.traffic.requests, second.candidates) == (250, 0, 0)
    assert bench.client.received(since=before) == []


def test_only_what_differs_is_sent(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model)
    bench.run(sync)
    bench.load("people", [*people(250, p7="Changed"), {"id": 999, "email": "new@example.com"}], COLUMNS)
    report = bench.run(sync)
    assert (report.counts.added, report.counts.changed, report.counts.unchanged) == (1, 1, 249)
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.UPDATED]) == (1, 1)
    assert bench.client.writes("contacts", by="email")["p8@example.com"] == 1


@pytest.mark.slow
def test_a_new_mapping_maps_all_rows_and_sends_only_those_that_differ(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model)
    bench.run(sync)
    wider = dataclasses.replace(sync, fields=(*sync.fields, FieldSpec("lastname", "lastname")))
    bench.load("people", people(250), COLUMNS)
    query = "SELECT *, CASE WHEN id < 3 THEN 'Last' END AS lastname FROM people"
    wider = dataclasses.replace(wider, model=bench.model("people", query))
    report = bench.run(wider)
    assert report.candidates == 250
    assert (report.counts.changed, report.counts.unchanged) == (3, 247)
    assert any("mapping has changed" in note for note in report.notes)
    assert bench.run(wider).candidates == 0


def test_mirror_removes_what_left_the_model_by_record_id(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model, Mode.MIRROR)
    bench.run(sync)
    bench.load("people", people(240), COLUMNS)
    before = bench.client.last_seq()
    report = bench.run(sync)
    assert (report.counts.removed, report.outcomes[Status.DELETED]) == (10, 10)
    assert len(bench.emails()) == 240
    paths = [r["path"] for r in bench.client.received(since=before) if "objects" in r["path"]]
    assert paths == ["/crm/v3/objects/contacts/batch/archive"]


def test_rejected_rows_are_named_held_and_tried_again(bench: Bench, model: ModelSpec) -> None:
    rows = people(20)
    rows[3]["email"] = "not an email"
    rows[5]["email"] = "neither"
    bench.load("people", rows, COLUMNS)
    sync = bench.contacts(model)
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.REJECTED]) == (18, 2)
    assert {bad.key for bad in report.bad_rows} == {"3", "5"}
    assert all("email" in bad.reason.lower() for bad in report.bad_rows), report.bad_rows
    ((reason, count),) = report.reasons
    assert (reason.partition(":")[0], count) == ("INVALID_EMAIL, for example", 2)
    again = bench.run(sync)
    assert (again.counts.added, again.outcomes[Status.REJECTED]) == (2, 2)
    rows[3]["email"] = "good@example.com"
    bench.load("people", rows, COLUMNS)
    assert bench.run(sync).outcomes[Status.CREATED] == 1


def test_a_run_with_more_rejected_rows_than_allowed_fails_and_says_so(bench: Bench, model: ModelSpec) -> None:
    rows = people(10)
    rows[3]["email"] = "not an email"
    bench.load("people", rows, COLUMNS)
    report = bench.run(bench.contacts(model, fail_rejected_above=0.05))
    assert report.outcomes[Status.CREATED] == 9
    assert any("10.0%, more than fail_when allows (5.0%)" in failure for failure in report.failures)
    again = bench.run(bench.contacts(model, fail_rejected_above=0.05))
    assert again.outcomes[Status.REJECTED] == 1
    assert again.failures == (), "a row that is only tried again does not make a quiet run fail"


def test_null_keys_null_and_double_match_values_are_invalid_and_the_rest_are_delivered(
    bench: Bench, model: ModelSpec
) -> None:
    rows: list[dict[str, object]] = [
        {"id": 1, "email": "a@example.com"},
        {"id": 2, "email": " A@Example.com "},
        {"id": 3, "email": None},
        {"id": None, "email": "n@example.com"},
        {"id": 5, "email": "fine@example.com"},
    ]
    bench.load("people", rows, COLUMNS)
    report = bench.run(bench.contacts(model))
    assert (report.counts.queried, report.counts.invalid, report.counts.added) == (5, 4, 1)
    assert list(bench.emails()) == ["fine@example.com"]
    reasons = {bad.key: bad.reason for bad in report.bad_rows}
    assert "key 2 has the same match value" in reasons["1"]
    assert "null or empty" in reasons["3"]
    assert "primary key is null" in reasons["(null)"]


def test_limit_and_keys_send_a_part_and_never_remove(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model, Mode.MIRROR)
    assert bench.run(sync, options=PlanOptions(limit=5)).outcomes[Status.CREATED] == 5
    report = bench.run(sync, options=PlanOptions(keys=("200", "201")))
    assert (report.outcomes[Status.CREATED], report.counts.excluded) == (2, 243)
    bench.load("people", people(1), COLUMNS)
    assert bench.run(sync, options=PlanOptions(limit=5)).counts.removed == 0
    assert len(bench.emails()) == 7


def test_a_mirror_of_an_emptied_model_sends_nothing(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model, Mode.MIRROR)
    bench.run(sync)
    bench.load("people", [], COLUMNS)
    with pytest.raises(GuardTripped, match=r"250 of 250 records \(100%\)"):
        bench.run(sync)
    assert len(bench.emails()) == 250
    report = bench.run(sync, options=PlanOptions(allow_removals=True))
    assert report.outcomes[Status.DELETED] == 250
    assert bench.emails() == {}


def test_an_unknown_property_stops_the_run_and_names_itself(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model, fields=(FieldSpec("email", "email"), FieldSpec("nonsense", "firstname")))
    with pytest.raises(FieldsDoNotFit, match=r"'contacts'.*'nonsense' does not exist.*Nothing was sent"):
        bench.run(sync)
    assert {request["method"] for request in bench.client.received()} == {"GET"}
    # Where the properties cannot be read, HubSpot's refusal of the first batch says it.
    bench.client.faults([{"match": {"path": "*/properties/*"}, "fault": {"kind": "status", "status": 403}}])
    report = bench.run(sync)
    assert report.outcomes[Status.UNSENT] == 250
    assert bench.emails() == {}
    text = " ".join(report.failures)
    assert "nonsense" in text
    assert "250 of 250 rows were not delivered" in text


def test_a_column_the_model_lacks_is_named_with_those_it_has(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model, fields=(FieldSpec("lastname", "surname"),))
    with pytest.raises(
        Misconfigured, match=r"'contacts' \(defs/contacts/defs.yaml:1\).*'surname'.*people.sql.*id, email"
    ):
        bench.run(sync)


@pytest.mark.slow
def test_a_missing_variable_a_wrong_token_and_a_dead_destination_say_what_to_do(bench: Bench, model: ModelSpec) -> None:
    def at(url: str) -> SyncSpec:
        target = TargetSpec("prod", base_url=url, token=Env("CRM_TOKEN"))
        return bench.contacts(model, destination=DestinationSpec("crm", "hubspot", target, timeout=2.0))

    with pytest.raises(Misconfigured, match=r"contacts.*CRM_TOKEN \(token\) is not set.*Set CRM_TOKEN"):
        bench.run(at(bench.endpoint.url))
    bench.env["CRM_TOKEN"] = "wrong-token-value"
    with pytest.raises(Misconfigured, match="contacts") as refused:
        bench.run(at(bench.endpoint.url))
    assert "wrong-token-value" not in str(refused.value)
    with pytest.raises(DestinationUnavailable, match=r"contacts.*unavailable.*nothing is lost"):
        bench.run(at("http://127.0.0.1:9"))
    bench.env["CRM_TOKEN"] = bench.endpoint.token
    assert bench.run(at(bench.endpoint.url)).failures == ()
    before = bench.client.last_seq()
    assert bench.run(at(bench.endpoint.url)).candidates == 0
    assert bench.client.received(since=before) == [], "who the account is was asked once"
    written = [path for path in bench.folder.rglob("*") if path.is_file() and path.parent.name != "sandbox"]
    assert not any(bench.endpoint.token.encode() in path.read_bytes() for path in written)


def test_a_sandbox_that_is_not_running_says_how_to_start_it(bench: Bench, model: ModelSpec) -> None:
    dead = dataclasses.replace(bench.endpoint, url="http://127.0.0.1:9")
    write_endpoint(bench.folder, dead)
    report = bench.run(bench.contacts(model))
    assert report.outcomes[Status.UNSENT] == 250
    assert "start the sandbox with `make ui`" in report.failures[0]
    write_endpoint(bench.folder, bench.endpoint)
    assert bench.run(bench.contacts(model)).outcomes[Status.CREATED] == 250


@pytest.mark.slow
def test_another_account_starts_empty_and_says_so(bench: Bench, model: ModelSpec) -> None:
    bench.run(bench.contacts(model))
    bench.env["CRM_TOKEN"] = bench.endpoint.token
    target = TargetSpec("prod", base_url=bench.endpoint.url, token=Env("CRM_TOKEN"))
    other = bench.contacts(model, destination=DestinationSpec("crm", "hubspot", target, timeout=5.0))
    report = bench.run(other)
    assert report.counts.added == 250
    assert any("every valid row is new" in note for note in report.notes)


def test_a_sync_that_is_being_run_is_refused(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model)
    bench.plan(sync, bench.context("run-a"))
    with pytest.raises(LeaseHeld, match="run-a"):
        bench.plan(sync, dataclasses.replace(bench.context("run-b"), alive=lambda _holder: True))


def test_a_plan_that_fails_gives_its_lease_back(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model, fields=(FieldSpec("lastname", "surname"),))
    with pytest.raises(Misconfigured):
        bench.plan(sync, bench.context("run-a"))
    bench.plan(bench.contacts(model), dataclasses.replace(bench.context("run-b"), alive=lambda _holder: True))


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["outcomes-plan-0", "ended", "forgotten", "shard-000"])
def test_a_plan_that_was_killed_while_it_wrote_stops_no_later_one(bench: Bench, model: ModelSpec, name: str) -> None:
    sync = bench.contacts(model, Mode.MIRROR)
    bench.run(sync)
    left = Home.of(bench.folder, sync.name, bench.account(sync)).plan_folder("killed")
    left.mkdir(parents=True)
    (left / f"{name}.parquet").write_bytes(b"PAR1 and half of a")
    preview(sync, bench.context())
    assert bench.run(sync).failures == ()
    assert not left.exists()


def test_record_fails_where_a_write_step_is_missing_and_nothing_is_lost(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model, shards=2, batch_rows=5)
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    assert len(made.shards) == 2
    parts = bench.write(sync, ctx, made.shards[:1])
    with pytest.raises(Incomplete, match=r"1 of 2 write steps.*launch a new run"):
        record(sync, ctx, made, parts)
    report = bench.run(sync)
    assert report.candidates == made.shards[1].candidates
    assert len(bench.emails()) == 250


def test_record_may_run_twice(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model)
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    parts = bench.write(sync, ctx, made.shards)
    first = record(sync, ctx, made, parts)
    assert record(sync, ctx, made, parts) == first


def test_a_preview_sends_nothing_and_changes_nothing(bench: Bench, model: ModelSpec) -> None:
    sync = bench.contacts(model)
    bench.query(model)
    shown = preview(sync, bench.context(), samples=3)
    assert (shown.to_send, shown.counts.added, len(shown.samples)) == (250, 250, 3)
    assert shown.samples[0].payload["email"].endswith("@example.com")
    assert bench.emails() == {}
    bench.run(sync)
    assert preview(sync, bench.context()).to_send == 0


@pytest.mark.slow
def test_partitions_of_a_webhook_are_one_snapshot(bench: Bench) -> None:
    orders = [{"id": i, "day": f"2026-08-0{1 + i % 3}", "amount": i} for i in range(30)]
    columns = {"id": "INTEGER", "day": "DATE", "amount": "DECIMAL(10,2)"}
    bench.load("orders", orders, columns)
    query = "SELECT * FROM orders WHERE day >= $partition_start::DATE AND day < $partition_end::DATE"
    model = bench.model("orders", query, partitioned=True)
    target = TargetSpec("sandbox", sandbox=True)
    sync = SyncSpec(
        name="orders_out",
        model=model,
        destination=DestinationSpec("events", "webhook", target, timeout=5.0),
        object="orders",
        mode=Mode.MIRROR,
        fields=(FieldSpec("amount", "amount"), FieldSpec("day", "day"), FieldSpec("source", value="shop")),
        source="defs/orders/defs.yaml:1",
    )
    days = [Partition(f"2026-08-0{d}", f"2026-08-0{d}T00:00:00", f"2026-08-0{d + 1}T00:00:00") for d in (1, 2, 3)]
    assert bench.run(sync, days[:1]).outcomes[Status.CREATED] == 10
    assert bench.run(sync, days).outcomes[Status.CREATED] == 20
    held = bench.client.webhook_records("events", "orders")
    assert held["4"] == {"amount": "4.00", "day": "2026-08-02", "source": "shop"}
    assert bench.run(sync, days).candidates == 0
    # A key that moves to another day is changed there, and not removed from its old one.
    orders[4]["day"] = "2026-08-03"
    bench.load("orders", orders, columns)
    moved = bench.run(sync, days)
    assert (moved.counts.changed, moved.counts.added, moved.counts.removed) == (1, 0, 0)
    # An empty partition is legal where nothing was delivered; where something was, the guard asks.
    bench.load("orders", [o for o in orders if o["day"] != "2026-08-01"], columns)
    with pytest.raises(GuardTripped):
        bench.run(sync, days[:1])
    assert len(bench.client.webhook_records("events", "orders")) == 30


@pytest.mark.slow
def test_a_match_value_of_another_partition_is_not_taken_over(bench: Bench) -> None:
    columns = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR", "day": "DATE"}
    rows = [
        {"id": 1, "email": "a@example.com", "firstname": "One", "day": "2026-08-01"},
        {"id": 2, "email": "a@example.com", "firstname": "Two", "day": "2026-08-02"},
    ]
    bench.load("people", rows, columns)
    query = "SELECT * FROM people WHERE day >= $partition_start::DATE AND day < $partition_end::DATE"
    sync = bench.contacts(bench.model("people", query, partitioned=True))
    days = [Partition(f"2026-08-0{d}", f"2026-08-0{d}", f"2026-08-0{d + 1}") for d in (1, 2)]
    assert bench.run(sync, days[:1]).outcomes[Status.CREATED] == 1
    second = bench.run(sync, days[1:])
    assert (second.counts.invalid, second.candidates) == (1, 0)
    assert "key 1 of partition 2026-08-01" in second.bad_rows[0].reason
    assert bench.run(sync, days).counts.invalid == 2
    assert bench.emails() == {"a@example.com": "One"}
    # The row moves to the other day: it is the same row, and no longer in its own way.
    bench.load("people", [rows[0] | {"day": "2026-08-02"}], columns)
    assert bench.run(sync, days[1:]).counts.invalid == 0


@pytest.mark.slow
def test_another_object_starts_empty(bench: Bench) -> None:
    bench.load("people", people(3), COLUMNS)
    sync = SyncSpec(
        name="out",
        model=bench.model("people", "SELECT * FROM people"),
        destination=DestinationSpec("events", "webhook", TargetSpec("sandbox", sandbox=True), timeout=5.0),
        object="people",
        mode=Mode.UPSERT,
        fields=(FieldSpec("firstname", "firstname"),),
    )
    bench.run(sync)
    assert bench.run(dataclasses.replace(sync, object="clients")).counts.added == 3
    elsewhere = dataclasses.replace(sync.destination, name="audit")
    assert bench.run(dataclasses.replace(sync, destination=elsewhere)).counts.added == 3
    assert len(bench.client.webhook_records("events", "clients")) == len(
        bench.client.webhook_records("audit", "people")
    )


def test_a_value_that_cannot_be_sent_makes_its_row_invalid_and_no_other(bench: Bench) -> None:
    columns = {**COLUMNS, "day": "DATE", "at": "TIMESTAMP"}
    rows = [*people(5), {"id": 7, "email": "x@example.com", "day": "infinity"}]
    rows.append({"id": 8, "email": "y@example.com", "at": "infinity"})
    bench.load("people", rows, columns)
    sync = bench.contacts(bench.model("people", "SELECT * FROM people"))
    sync = dataclasses.replace(sync, fields=(FieldSpec("last_order_date", "day"), FieldSpec("signup_at", "at")))
    report = bench.run(sync)
    assert (report.counts.invalid, report.outcomes[Status.CREATED]) == (2, 5)
    assert {bad.key for bad in report.bad_rows} == {"7", "8"}
    assert "last_order_date" in next(bad.reason for bad in report.bad_rows if bad.key == "7")
    again = bench.run(sync)
    assert (again.counts.invalid, again.candidates) == (2, 0)
    assert {bad.key for bad in again.bad_rows} == {"7", "8"}, "they are named as long as they are invalid"


def test_settings_that_no_request_can_carry_are_told_without_their_text(bench: Bench, model: ModelSpec) -> None:
    def at(url: str) -> SyncSpec:
        target = TargetSpec("prod", base_url=url, token=Env("CRM_TOKEN"))
        return bench.contacts(model, destination=DestinationSpec("crm", "hubspot", target, timeout=2.0))

    bench.env["CRM_TOKEN"] = "first-line\nsecond-line"
    with pytest.raises(Misconfigured, match="no request can carry") as error:
        bench.run(at(bench.endpoint.url))
    assert "second-line" not in str(error.value)
    bench.env["CRM_TOKEN"] = "fine"
    with pytest.raises(Misconfigured, match=r"not an http\(s\) URL") as error:
        bench.run(at("https://example.com:port/hidden-path"))
    assert "hidden-path" not in str(error.value)


def test_every_request_is_counted(bench: Bench, model: ModelSpec) -> None:
    bench.client.faults(
        [{"match": {"path": "*/batch/*", "rows_with": "p42@"}, "fault": {"kind": "status", "status": 400}}]
    )
    report = bench.run(bench.contacts(model))
    assert report.outcomes[Status.REJECTED] == 1
    delivering = [request for request in bench.client.received() if request["method"] == "POST"]
    assert report.traffic.requests == len(delivering)
    assert report.traffic.errors["poisoned_batch"] >= 3
