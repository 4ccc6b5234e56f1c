"""Syncs as Dagster runs them, in one process: metadata, checks, failures, waiting, take-over, partitions."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from integrations_dagster.ledger.store import Ledger
from integrations_dagster.orchestration.worker import WORKER_TAG, this_process
from integrations_dagster.sync.spec import Env, FieldRule, FieldSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Mode, Worker
from integrations_dagster_tests.orchestration.shop import Shop

NUMBERS = [
    "rows_queried",
    "seconds_query",
    "seconds_plan",
    "seconds_write",
    "seconds_record",
    "added",
    "changed",
    "removed",
    "unchanged",
    "invalid",
    "held",
    "created",
    "updated",
    "deleted",
    "rejected",
    "in_doubt",
    "unsent",
    "requests",
    "retries",
    "throttled",
    "errors",
    "errors_throttled",
    "errors_unavailable",
    "bytes_sent",
    "latency_p50_ms",
    "latency_p95_ms",
    "rows_per_second",
    "candidates",
]


def run(
    shop: Shop,
    instance: DagsterInstance,
    sync: SyncSpec,
    *,
    config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run the sync's job in this process."""
    job = shop.definitions(sync).resolve_job_def(f"sync_{sync.name}")
    return job.execute_in_process(
        instance=instance, raise_on_error=False, run_config=dict(config or {}), tags=dict(tags or {})
    )


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """Metadata of an asset's materialization: plain values."""
    events = result.asset_materializations_for_node(asset if asset == "customers" else f"{asset}.record")
    assert len(events) == 1, events
    return values(events[0])


def values(event: dg.AssetMaterialization) -> dict[str, Any]:
    """Plain values of a materialization's metadata; of a table, its records."""
    return {
        name: value.records if isinstance(value, dg.TableMetadataValue) else value.value
        for name, value in event.metadata.items()
    }


def failure(result: dg.ExecuteInProcessResult, step: str) -> str:
    """What a failed step says to people."""
    (event,) = [e for e in result.all_events if e.is_step_failure]
    assert event.step_key == step
    data = event.step_failure_data.user_failure_data
    assert data is not None
    assert data.label == "intentional-failure"
    assert not [e for e in result.all_events if e.is_step_up_for_retry]
    return data.description or ""


def test_a_run_delivers_and_says_what_it_did(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_many_customers(300)
    result = run(shop, instance, shop.hook(batch_rows=50))
    assert result.success
    assert len(shop.client.webhook_records("events", "customers")) == 300
    found = metadata(result, "customers_to_hook")
    assert {name: type(found.get(name)) for name in NUMBERS if not isinstance(found.get(name), int | float)} == {}
    assert (found["rows_queried"], found["added"], found["created"], found["requests"]) == (300, 300, 300, 6)
    assert found["rows_per_second"] > 0
    assert found["latency_p95_ms"] >= found["latency_p50_ms"]
    assert found["target"] == "sandbox"
    assert "SELECT id, email, name" in found["sql"]
    model = metadata(result, "customers")
    assert [column.name for column in model["dagster/column_schema"].columns] == ["id", "email", "name"]
    assert model["dagster/row_count"] == 300
    assert model["seconds_query"] > 0
    assert "c1@example.com" in model["preview"]
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "rows_accepted"]
    assert (check.check_name, check.passed) == ("rows_accepted", True)
    assert [e.step_key for e in result.all_events if e.is_step_success] == [
        "customers",
        "customers_to_hook.plan",
        "customers_to_hook.write[0]",
        "customers_to_hook.record",
    ]


def test_a_run_tells_the_fields_that_it_writes_and_what_they_are_made_from(
    shop: Shop, instance: DagsterInstance
) -> None:
    shop.load_customers({1: "Ada"})
    fields = (
        FieldSpec("firstname", "name", sensitive=True, rule=FieldRule(required=True)),
        FieldSpec("lastname", sql="upper(name) || email", uses=("name", "email")),
        FieldSpec("lifecyclestage", value="lead"),
        FieldSpec("phone", "name", rule=FieldRule(type="string", hash="sha256")),
        FieldSpec("company", value="hidden", sensitive=True),
    )
    result = run(shop, instance, shop.contacts(fields=fields))
    assert result.success
    found = metadata(result, "crm_contacts")
    assert [
        (column.name, column.type, column.description, column.constraints.nullable, list(column.constraints.other))
        for column in found["dagster/column_schema"].columns
    ] == [
        ("email", "VARCHAR", "From the column email.", True, ["match"]),
        ("firstname", "VARCHAR", "From the column name.", False, ["sensitive"]),
        ("lastname", "any", "From SQL: upper(name) || email.", True, []),
        ("lifecyclestage", "any", "From a constant: 'lead'.", True, []),
        ("phone", "string", "From the column name.", True, ["hashed by sha256"]),
        ("company", "any", "From a constant.", True, ["sensitive"]),
    ]
    lineage = {
        field: sorted((columns.asset_key.path, columns.column_name) for columns in made_from)
        for field, made_from in found["dagster/column_lineage"].deps_by_column.items()
    }
    assert lineage == {
        "email": [(["customers"], "email")],
        "firstname": [(["customers"], "name")],
        "lastname": [(["customers"], "email"), (["customers"], "name")],
        "phone": [(["customers"], "name")],
    }


def test_a_run_without_changes_sends_nothing_and_still_records(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_customers({1: "Ada", 2: "Bo"})
    assert run(shop, instance, shop.hook()).success
    seq = shop.client.last_seq()
    result = run(shop, instance, shop.hook())
    assert result.success
    assert shop.client.received(since=seq) == []
    found = metadata(result, "customers_to_hook")
    assert (found["unchanged"], found["candidates"], found["requests"]) == (2, 0, 0)
    assert not [e for e in result.all_events if "write" in (e.step_key or "")]


def test_rejected_and_invalid_rows_warn(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_customers({1: "Ada", 2: "Bo", 3: "Cy", 4: "Di"}, {2: "not an email", 3: "same@x.com", 4: "same@x.com"})
    result = run(shop, instance, shop.contacts())
    assert result.success
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "rows_accepted"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.description == "Rows: 1 rejected, 2 invalid."
    found = metadata(result, "crm_contacts")
    assert (found["created"], found["rejected"], found["invalid"]) == (1, 1, 2)
    rows = {record.data["key"]: record.data for record in found["rejected_rows"]}
    assert set(rows) == {"2", "3", "4"}
    assert rows["2"]["code"] == "INVALID_EMAIL"
    assert rows["2"]["outcome"] == "rejected"
    assert "email" in str(rows["2"]["reason"]).lower()


def test_a_limit_of_rejected_rows_fails_the_run_and_keeps_its_numbers(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_customers({1: "Ada", 2: "Bo"}, {2: "not an email"})
    result = run(shop, instance, shop.contacts(fail_rejected_above=0.1))
    assert not result.success
    text = failure(result, "crm_contacts.record")
    assert "crm_contacts" in text
    assert "1 of 2 rows were rejected" in text
    assert not result.asset_materializations_for_node("crm_contacts.record")
    (observed,) = result.get_asset_observation_events()
    observation = observed.asset_observation_data.asset_observation
    assert observation.asset_key == dg.AssetKey("crm_contacts")
    assert observation.metadata["rejected"].value == 1
    assert observation.metadata["created"].value == 1
    assert observation.description is not None
    assert observation.description.startswith("The run failed. 1 of 2 rows were rejected")
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "rows_accepted"]
    assert not check.passed


def test_rows_that_were_not_sent_were_not_accepted(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_customers({1: "Ada", 2: "Bo"})
    shop.client.faults([{"match": {"path": "*/batch/upsert"}, "fault": {"kind": "status", "status": 403}}])
    result = run(shop, instance, shop.contacts())
    assert not result.success
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "rows_accepted"]
    assert (check.passed, check.description) == (False, "Rows: 2 unsent.")


def test_a_missing_variable_is_one_clear_message(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_customers({1: "Ada"})
    target = TargetSpec("prod", base_url="http://127.0.0.1:9", token=Env("NO_SUCH_TOKEN"))
    sync = shop.contacts()
    sync = shop.contacts(destination=type(sync.destination)("crm", "hubspot", target))
    text = failure(run(shop, instance, sync), "crm_contacts.plan")
    assert "crm_contacts" in text
    assert "defs/contacts/defs.yaml:1" in text
    assert "NO_SUCH_TOKEN" in text


def test_broken_sql_is_one_clear_message(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_customers({1: "Ada"})
    sync = shop.hook()
    assert sync.model.sql_path is not None
    sync.model.sql_path.write_text("SELECT id, nme FROM customers", "utf-8")
    text = failure(run(shop, instance, sync), "customers")
    assert "customers.sql" in text
    assert "nme" in text


def test_the_removal_guard_is_lifted_in_the_launchpad(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_many_customers(10)
    sync = shop.hook(mode=Mode.MIRROR)
    assert run(shop, instance, sync).success
    shop.load_many_customers(2)
    text = failure(run(shop, instance, sync), "customers_to_hook.plan")
    assert "8" in text
    assert len(shop.client.webhook_records("events", "customers")) == 10
    config = {"ops": {"customers_to_hook": {"ops": {"plan": {"config": {"allow_removals": True}}}}}}
    result = run(shop, instance, sync, config=config)
    assert result.success
    assert metadata(result, "customers_to_hook")["deleted"] == 8
    assert len(shop.client.webhook_records("events", "customers")) == 2


@pytest.fixture
def sleeper() -> Iterator[Worker]:
    """A process that lives as long as the test."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield Worker(this_process().host, process.pid, psutil.Process(process.pid).create_time())
    process.communicate()


def state_key(shop: Shop) -> str:
    """What the hook's lease is kept under."""
    return f"customers_to_hook@webhook:sandbox:{shop.client.endpoint.id}:events/customers"


def test_a_sync_that_another_run_holds_is_waited_for(shop: Shop, instance: DagsterInstance, sleeper: Worker) -> None:
    shop.load_customers({1: "Ada"})
    ledger = Ledger.open(shop.storage)
    lease = ledger.acquire(state_key(shop), "someone-else", sleeper, alive=lambda _: True, known=False)
    run_id = "0f0e0d0c-0000-4000-8000-000000000001"

    def waiting() -> bool:
        records = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_UP_FOR_RETRY).records
        return bool(records)

    def release() -> None:
        deadline = time.monotonic() + 60
        while not waiting() and time.monotonic() < deadline:
            time.sleep(0.02)
        ledger.release(lease)

    job = shop.definitions(shop.hook()).resolve_job_def("sync_customers_to_hook")
    thread = threading.Thread(target=release)
    thread.start()
    try:
        result = job.execute_in_process(instance=instance, run_id=run_id)
    finally:
        thread.join()
        ledger.close()
    assert result.success
    retries = [e for e in result.all_events if e.is_step_up_for_retry]
    assert [e.step_key for e in retries] == ["customers_to_hook.plan"]
    logs = [record.event_log_entry.user_message for record in instance.get_records_for_run(run_id).records]
    assert any("someone-else" in text and "next look" in text for text in logs)
    assert list(shop.client.webhook_records("events", "customers")) == ["1"]


def test_a_dead_run_is_taken_over_and_marked_failed(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_customers({1: "Ada"})
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    dead = Worker(this_process().host, process.pid, time.time())
    process.wait()
    tag = {WORKER_TAG: json.dumps([dead.host, dead.pid, dead.started])}
    killed = create_run_for_test(instance, job_name="sync_customers_to_hook", status=DagsterRunStatus.STARTED, tags=tag)
    ledger = Ledger.open(shop.storage)
    ledger.acquire(state_key(shop), killed.run_id, dead, alive=lambda _: True)
    ledger.close()
    result = run(shop, instance, shop.hook())
    assert result.success
    assert not [e for e in result.all_events if e.is_step_up_for_retry]
    after = instance.get_run_by_id(killed.run_id)
    assert after is not None
    assert after.status == DagsterRunStatus.FAILURE


def test_partitions_are_delivered_in_one_run_with_numbers_of_their_own(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_orders(5)
    tags = {"dagster/asset_partition_range_start": "2026-08-02", "dagster/asset_partition_range_end": "2026-08-04"}
    result = run(shop, instance, shop.orders_to_hook(), tags=tags)
    assert result.success
    assert len(shop.client.webhook_records("events", "orders")) == 15
    for node in ("orders", "orders_to_hook.record"):
        events = result.asset_materializations_for_node(node)
        assert [event.partition for event in events] == ["2026-08-02", "2026-08-03", "2026-08-04"]
        assert [event.metadata["dagster/partition_row_count"].value for event in events] == [5, 5, 5]
    found = values(result.asset_materializations_for_node("orders_to_hook.record")[0])
    assert (found["created"], found["partitions_in_run"]) == (15, 3)
    again = run(shop, instance, shop.orders_to_hook(), tags=tags)
    assert values(again.asset_materializations_for_node("orders_to_hook.record")[0])["requests"] == 0


def test_steps_of_a_cancelled_run_do_not_start(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_many_customers(10)
    syncs = [shop.hook(name=name, object=name, schedule="0 * * * *") for name in ("one", "two")]
    run_id = "0f0e0d0c-0000-4000-8000-000000000002"
    shop.client.configure(latency=1.0)

    def cancel() -> None:
        deadline = time.monotonic() + 60
        while not shop.client.received() and time.monotonic() < deadline:
            time.sleep(0.02)
        run = instance.get_run_by_id(run_id)
        assert run is not None
        instance.report_run_canceling(run)

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        job = shop.definitions(*syncs).resolve_job_def("sync_customers")
        job.execute_in_process(instance=instance, run_id=run_id, raise_on_error=False)
    finally:
        thread.join()
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == DagsterRunStatus.CANCELED
    sent = [name for name in ("one", "two") if shop.client.webhook_records("events", name)]
    assert len(sent) == 1
