"""Runs launched by a person, by a schedule and by a model, each delivering."""

from __future__ import annotations

from itertools import combinations

import pytest

from integrations_dagster_tests.live.conftest import SCHEDULE, SENSOR, Delivered, Live
from integrations_dagster_tests.live.graphql import Run
from integrations_dagster_tests.live.stack import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DAY = "2026-07-01"


def overlaps(run: Run, sync: str) -> list[tuple[str, str]]:
    """Pairs of write steps of a sync that ran at the same time."""
    writes = {key: times for key, times in run.steps.items() if key.startswith(f"{sync}.write[")}
    return [
        (a, b)
        for a, b in combinations(sorted(writes), 2)
        if max(writes[a][0], writes[b][0]) < min(writes[a][1], writes[b][1])
    ]


def test_a_job_delivers_and_says_what_it_did(live: Live, customers_run: Delivered) -> None:
    expected, held = customers_run.expected, customers_run.contacts
    assert set(held) == set(expected)
    for email, fields in expected.items():
        assert {name: held[email].get(name, "") for name in fields} == fields
    assert customers_run.writes == dict.fromkeys(expected, 1)
    assert customers_run.webhook == customers_run.expected_webhook
    rows = len(customers_run.expected_webhook)

    assert {event.run_id for event in customers_run.told.values()} == {customers_run.run.id}
    numbers = customers_run.told["crm_contacts"].metadata
    assert numbers["rows_queried"] == numbers["added"] + numbers["invalid"] == rows
    assert numbers["created"] == len(expected)
    assert numbers["rejected"] == rows - numbers["invalid"] - len(expected) > 0
    assert len(numbers["rejected_rows"]) == numbers["rejected"] + numbers["invalid"]
    assert numbers["target"] == "sandbox"
    assert "FROM raw.customers" in numbers["sql"]
    assert customers_run.told["customers"].metadata["dagster/column_schema"]["lifetime_value"] == "DECIMAL(14,2)"
    assert numbers["dagster/column_schema"]["email"] == "VARCHAR"
    assert customers_run.told["customers"].metadata["dagster/row_count"] == rows


def test_write_steps_run_in_parallel(live: Live, customers_run: Delivered) -> None:
    run = customers_run.run
    assert {f"crm_contacts.write[{n}]" for n in range(4)} <= set(run.steps)
    assert overlaps(run, "crm_contacts"), run.steps


def test_a_sync_materialized_alone_delivers_the_newest_version(live: Live, customers_run: Delivered) -> None:
    live.project.change("UPDATE raw.subscriptions SET plan = 'gold' WHERE customer_id % 5 = 0")
    live.ui.succeeded(live.ui.materialize("customers"))
    before = live.sandbox.webhook_writes("events", "customers")
    run = live.ui.succeeded(live.ui.materialize("customers_to_webhook"))
    assert run.job == "__ASSET_JOB"
    assert "customers" not in run.steps
    expected = live.project.customers_at_webhook()
    assert live.sandbox.webhook_records("events", "customers") == expected
    changed = {key for key, n in live.sandbox.webhook_writes("events", "customers").items() if n > before.get(key, 0)}
    assert changed == {key for key, record in expected.items() if record.get("plan") == "gold"} != set()
    (told,) = live.ui.materializations("customers_to_webhook")
    assert (told.run_id, told.metadata["updated"]) == (run.id, len(changed))


def test_a_schedule_tick_delivers(live: Live, scheduled_run: Run) -> None:
    assert scheduled_run.job == "sync_crm_companies"
    assert scheduled_run.tags["dagster/schedule_name"] == SCHEDULE
    expected = {row["company_ref"]: str(row["mrr"]) for row in live.project.rows("companies")}
    held = {r["properties"]["company_ref"]: r["properties"]["mrr"] for r in live.sandbox.records("companies")}
    assert held == expected != {}


def test_a_materialized_model_launches_its_sync(live: Live, week_runs: list[Run]) -> None:
    # The first tick only learns where to begin. The backfill was a run of the sync itself, and launches nothing.
    ticks = wait_for("tick of the sensor", lambda: live.ui.sensor_ticks(SENSOR), 60)
    assert [tick for tick in ticks if tick["runIds"]] == []
    model = live.ui.succeeded(live.ui.materialize("orders_daily", tags={"dagster/partition": DAY}))
    assert set(model.steps) == {"orders_daily"}

    def fired() -> str | None:
        ticks = live.ui.sensor_ticks(SENSOR)
        assert not [tick for tick in ticks if tick["status"] == "FAILURE"], ticks
        return next((run for tick in ticks for run in tick["runIds"]), None)

    run = live.ui.succeeded(wait_for("run of the sensor", fired, 90))
    assert run.tags["dagster/sensor_name"] == SENSOR
    assert "orders_daily" not in run.steps
    entries = live.sandbox.webhook_entries("events", "orders").values()
    expected = live.project.orders_at_webhook(DAY)
    assert {e["key"]: e["record"] for e in entries if e["partition"] == DAY} == expected != {}
