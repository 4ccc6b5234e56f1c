"""What a launch may say of guards and resyncs, and the check of a run's numbers."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance

from integrations_dagster.orchestration.schema_checks import DRIFT
from integrations_dagster.orchestration.syncs import CHECK, VOLUME, PlanConfig
from integrations_dagster.sync.spec import GuardSpec, GuardsSpec
from integrations_dagster_tests.orchestration.shop import Shop
from integrations_dagster_tests.orchestration.test_syncs import failure, metadata, run


def config(**plan: Any) -> dict[str, Any]:
    """Run config of the sync's plan."""
    return {"ops": {"customers_to_hook": {"ops": {"plan": {"config": plan}}}}}


def test_the_launchpad_describes_every_setting() -> None:
    fields = PlanConfig.to_config_schema().as_field().config_type.fields  # type: ignore[attr-defined]
    assert set(fields) == {"allow_removals", "allow_volume", "full_resync", "resync_keys"}
    assert all(len(field.description or "") > 40 for field in fields.values())


def test_unusual_numbers_fail_a_check_and_more_unusual_ones_the_run(shop: Shop, instance: DagsterInstance) -> None:
    guards = GuardsSpec({"queried": GuardSpec(warn=0.5, stop=2.0)}, runs=5, least=1)
    sync = shop.hook(guards=guards)
    for _ in range(6):
        shop.load_many_customers(10)
        result = run(shop, instance, sync)
        assert all(check.passed for check in result.get_asset_check_evaluations())
    shop.load_many_customers(20)
    result = run(shop, instance, sync)
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert set(checks) == {CHECK, VOLUME, DRIFT}
    assert checks[CHECK].passed
    assert not checks[VOLUME].passed
    assert checks[VOLUME].severity == dg.AssetCheckSeverity.WARN
    assert "20 rows queried: more than the usual 10" in str(checks[VOLUME].description)
    shop.load_many_customers(40)
    assert "allow_volume" in failure(run(shop, instance, sync), "customers_to_hook.plan")
    assert len(shop.client.webhook_records("events", "customers")) == 20
    assert run(shop, instance, sync, config=config(allow_volume=True)).success
    assert len(shop.client.webhook_records("events", "customers")) == 40


@pytest.mark.slow
def test_a_resync_is_launched_in_the_launchpad(shop: Shop, instance: DagsterInstance) -> None:
    shop.load_many_customers(5)
    sync = shop.hook()
    assert run(shop, instance, sync).success
    result = run(shop, instance, sync, config=config(resync_keys=["1", "3"]))
    assert (metadata(result, "customers_to_hook")["updated"], result.success) == (2, True)
    result = run(shop, instance, sync, config=config(full_resync=True))
    assert metadata(result, "customers_to_hook")["updated"] == 5
    assert metadata(run(shop, instance, sync), "customers_to_hook")["candidates"] == 0
