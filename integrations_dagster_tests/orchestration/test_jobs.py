"""Jobs, and what schedules do at a tick."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from integrations_dagster.orchestration.jobs import groups
from integrations_dagster.orchestration.worker import WORKER_TAG, this_process
from integrations_dagster.sync.spec import DestinationSpec, TargetSpec
from integrations_dagster_tests.orchestration.shop import Shop, queued_run

EVERY_15 = "*/15 * * * *"
LIVE = DestinationSpec("events", "webhook", TargetSpec("prod", base_url="http://127.0.0.1:9", schedules=True))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance on disk: a schedule's context refers to it."""
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def tick(
    defs: dg.Definitions, name: str, instance: DagsterInstance, at: datetime.datetime | None = None
) -> dg.RunRequest | dg.SkipReason:
    """What a schedule says at a tick."""
    repository = defs.get_repository_def()
    context = dg.build_schedule_context(
        instance, scheduled_execution_time=at or datetime.datetime.now(datetime.UTC), repository_def=repository
    )
    data = repository.get_schedule_def(name).evaluate_tick(context)
    if data.skip_message:
        return dg.SkipReason(data.skip_message)
    (request,) = data.run_requests or []
    return request


def test_syncs_with_one_model_and_schedule_share_a_job(shop: Shop) -> None:
    syncs = [
        shop.hook(schedule=EVERY_15),
        shop.contacts(schedule=EVERY_15),
        shop.hook(name="hourly", schedule="0 * * * *"),
        shop.hook(name="by_hand"),
        shop.hook(name="by_hand_too"),
        shop.hook(name="live", schedule=EVERY_15, destination=LIVE),
    ]
    assert {group.job: group.names for group in groups(syncs)} == {
        "sync_customers": ("customers_to_hook", "crm_contacts"),
        "sync_hourly": ("hourly",),
        "sync_by_hand": ("by_hand",),
        "sync_by_hand_too": ("by_hand_too",),
        "sync_live": ("live",),
    }


def test_two_shared_jobs_of_one_model_are_told_apart(shop: Shop) -> None:
    syncs = [shop.hook(name=f"s{i}", schedule=EVERY_15 if i < 2 else "0 6 * * 1-5") for i in range(4)]
    assert [group.job for group in groups(syncs)] == ["sync_customers_every15_x_x_x_x", "sync_customers_0_6_x_x_1to5"]


def test_a_shared_job_queries_once_and_carries_the_tags_of_its_syncs(shop: Shop) -> None:
    defs = shop.definitions(shop.hook(schedule=EVERY_15), shop.contacts(schedule=EVERY_15))
    job = defs.resolve_job_def("sync_customers")
    assert {node.name for node in job.graph.nodes} == {"customers", "customers_to_hook", "crm_contacts"}
    assert job.tags["dagster/max_retries"] == "1"
    assert job.tags["dagster/retry_strategy"] == "ALL_STEPS"
    assert job.tags["integrations/syncs"] == "crm_contacts,customers_to_hook"


def test_schedules_run_by_themselves_only_where_the_target_says_so(shop: Shop) -> None:
    live = shop.hook(name="live", schedule=EVERY_15, destination=LIVE, on_model=True)
    defs = shop.definitions(shop.hook(schedule=EVERY_15, on_model=True), live)
    repository = defs.get_repository_def()
    statuses = {schedule.name: schedule.default_status.value for schedule in repository.schedule_defs}
    assert statuses == {"sync_customers_to_hook_schedule": "STOPPED", "sync_live_schedule": "RUNNING"}
    triggers = {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs}
    assert triggers == {"customers_to_hook_on_model": "STOPPED", "live_on_model": "RUNNING"}


def test_a_tick_launches_a_run(shop: Shop, instance: DagsterInstance) -> None:
    defs = shop.definitions(shop.hook(schedule=EVERY_15))
    request = tick(defs, "sync_customers_to_hook_schedule", instance)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key is None


@pytest.mark.parametrize("status", [DagsterRunStatus.QUEUED, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
def test_a_tick_during_a_run_of_the_sync_launches_none_and_names_it(
    shop: Shop, instance: DagsterInstance, status: DagsterRunStatus
) -> None:
    defs = shop.definitions(shop.hook(schedule=EVERY_15), shop.contacts(schedule=EVERY_15))
    # As the UI's "Materialize" launches it: no job of ours, no tags of ours.
    if status == DagsterRunStatus.QUEUED:
        other = queued_run(instance, "__ASSET_JOB", "crm_contacts")
    else:
        selection = frozenset({dg.AssetKey("crm_contacts")})
        other = create_run_for_test(instance, job_name="__ASSET_JOB", status=status, asset_selection=selection)
    skipped = tick(defs, "sync_customers_schedule", instance)
    assert isinstance(skipped, dg.SkipReason)
    assert other.run_id in (skipped.skip_message or "")
    assert "crm_contacts" in (skipped.skip_message or "")


def test_a_tick_minds_jobs_of_the_user_that_hold_the_sync(shop: Shop, instance: DagsterInstance) -> None:
    defs = dg.Definitions.merge(
        shop.definitions(shop.hook(schedule=EVERY_15)),
        dg.Definitions(jobs=[dg.define_asset_job("nightly", selection="*")]),
    )
    run = create_run_for_test(instance, job_name="nightly", status=DagsterRunStatus.STARTED)
    skipped = tick(defs, "sync_customers_to_hook_schedule", instance)
    assert isinstance(skipped, dg.SkipReason)
    assert run.run_id in (skipped.skip_message or "")


def test_other_runs_and_dead_ones_do_not_keep_a_tick_from_launching(shop: Shop, instance: DagsterInstance) -> None:
    defs = shop.definitions(shop.hook(schedule=EVERY_15))
    create_run_for_test(
        instance,
        job_name="__ASSET_JOB",
        status=DagsterRunStatus.STARTED,
        asset_selection=frozenset({dg.AssetKey("customers")}),
    )
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    create_run_for_test(
        instance,
        job_name="sync_customers_to_hook",
        status=DagsterRunStatus.STARTED,
        tags={
            "integrations/syncs": "customers_to_hook",
            WORKER_TAG: json.dumps([this_process().host, process.pid, 1.0]),
        },
    )
    assert isinstance(tick(defs, "sync_customers_to_hook_schedule", instance), dg.RunRequest)


def test_a_partitioned_sync_is_scheduled_for_its_newest_partition(shop: Shop, instance: DagsterInstance) -> None:
    defs = shop.definitions(shop.orders_to_hook(schedule=EVERY_15))
    name = "sync_orders_to_hook_schedule"
    day = datetime.datetime(2026, 8, 4, 1, 15, tzinfo=datetime.UTC)
    request = tick(defs, name, instance, day)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-08-03"
    before = datetime.datetime(2026, 8, 1, 1, 15, tzinfo=datetime.UTC)
    skipped = tick(defs, name, instance, before)
    assert isinstance(skipped, dg.SkipReason)
    assert "no partition yet" in (skipped.skip_message or "")
