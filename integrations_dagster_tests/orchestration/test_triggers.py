"""A sync that follows its model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.events import StepMaterializationData
from dagster._core.test_utils import create_run_for_test

from integrations_dagster.orchestration.triggers import PAGE
from integrations_dagster_tests.orchestration.shop import Shop


class Trigger:
    """One sensor and its cursor, as the daemon keeps it."""

    def __init__(self, defs: dg.Definitions, name: str, instance: DagsterInstance) -> None:
        self._repository = defs.get_repository_def()
        self._sensor = self._repository.get_sensor_def(name)
        self._instance = instance
        self.cursor: str | None = None

    def tick(self) -> SensorExecutionData:
        context = dg.build_sensor_context(self._instance, self.cursor, repository_def=self._repository)
        data = self._sensor.evaluate_tick(context)
        self.cursor = data.cursor
        return data


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def trigger(shop: Shop, instance: DagsterInstance) -> Trigger:
    return Trigger(shop.definitions(shop.hook(on_model=True)), "customers_to_hook_on_model", instance)


def materialize(
    instance: DagsterInstance, asset: str, *selection: str, partitions: Sequence[str | None] = (None,)
) -> None:
    """Store materializations, by a run with this selection (without one: by no run at all)."""
    if not selection:
        for key in partitions:
            instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key))
        return
    run = create_run_for_test(
        instance,
        job_name="__ASSET_JOB",
        status=DagsterRunStatus.SUCCESS,
        asset_selection=frozenset(dg.AssetKey(name) for name in selection),
    )
    for key in partitions:
        event = dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name=run.job_name,
            step_key=asset,
            event_specific_data=StepMaterializationData(dg.AssetMaterialization(asset, partition=key)),
        )
        instance.report_dagster_event(event, run.run_id)


def test_a_materialization_by_something_else_launches_the_sync_once(
    trigger: Trigger, instance: DagsterInstance
) -> None:
    assert not trigger.tick().run_requests
    materialize(instance, "customers", "customers")
    (request,) = trigger.tick().run_requests or []
    assert request.asset_selection == [dg.AssetKey("customers_to_hook")]
    assert request.tags["integrations/syncs"] == "customers_to_hook"
    assert request.tags["dagster/retry_strategy"] == "ALL_STEPS"
    assert not trigger.tick().run_requests
    materialize(instance, "customers")
    assert len(trigger.tick().run_requests or []) == 1


def test_a_run_that_includes_the_sync_triggers_nothing(trigger: Trigger, instance: DagsterInstance) -> None:
    trigger.tick()
    materialize(instance, "customers", "customers", "customers_to_hook")
    data = trigger.tick()
    assert not data.run_requests
    assert "anything else" in (data.skip_message or "")


def test_a_trigger_that_is_new_delivers_what_the_sync_has_missed(trigger: Trigger, instance: DagsterInstance) -> None:
    materialize(instance, "customers", "customers")
    assert len(trigger.tick().run_requests or []) == 1


def test_a_trigger_that_is_new_leaves_what_was_delivered(trigger: Trigger, instance: DagsterInstance) -> None:
    materialize(instance, "customers", "customers")
    materialize(instance, "customers_to_hook", "customers_to_hook")
    assert not trigger.tick().run_requests


def test_while_the_sync_runs_nothing_is_launched_and_a_later_tick_follows(
    trigger: Trigger, instance: DagsterInstance
) -> None:
    trigger.tick()
    run = create_run_for_test(
        instance,
        job_name="__ASSET_JOB",
        status=DagsterRunStatus.STARTED,
        asset_selection=frozenset({dg.AssetKey("customers_to_hook")}),
    )
    materialize(instance, "customers", "customers")
    before = trigger.cursor
    data = trigger.tick()
    assert not data.run_requests
    assert run.run_id in (data.skip_message or "")
    assert trigger.cursor == before
    instance.report_run_failed(run)
    assert len(trigger.tick().run_requests or []) == 1


def test_a_repeated_tick_asks_for_the_same_run(trigger: Trigger, instance: DagsterInstance) -> None:
    materialize(instance, "customers", "customers")
    (first,) = trigger.tick().run_requests or []
    trigger.cursor = None
    (second,) = trigger.tick().run_requests or []
    assert first.run_key == second.run_key


def test_partitions_are_launched_in_ranges(shop: Shop, instance: DagsterInstance) -> None:
    trigger = Trigger(shop.definitions(shop.orders_to_hook(on_model=True)), "orders_to_hook_on_model", instance)
    trigger.tick()
    days = [f"2026-08-0{day}" for day in (6, 2, 3, 4)]
    materialize(instance, "orders", "orders", partitions=days)
    ranges = [
        (request.tags["dagster/asset_partition_range_start"], request.tags["dagster/asset_partition_range_end"])
        for request in trigger.tick().run_requests or []
    ]
    assert ranges == [("2026-08-02", "2026-08-04"), ("2026-08-06", "2026-08-06")]
    assert not trigger.tick().run_requests


@pytest.mark.slow
def test_more_materializations_than_a_page_are_all_seen(trigger: Trigger, instance: DagsterInstance) -> None:
    trigger.tick()
    materialize(instance, "customers", "customers", "customers_to_hook", partitions=[None] * PAGE)
    materialize(instance, "customers", "customers")
    assert len(trigger.tick().run_requests or []) == 1
    assert not trigger.tick().run_requests
