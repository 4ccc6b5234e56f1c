"""Models that read an asset of the user's project, in Dagster: values, names of tables, partitions, lineage."""

# Dagster reads the annotation of an op's `context` as an object: no `from __future__ import annotations` here.

import dataclasses
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster import DagsterInstance

from integrations_dagster.orchestration.models import model_asset
from integrations_dagster.orchestration.syncs import sync_asset
from integrations_dagster.sync.spec import NO_WAREHOUSE, ModelSpec, SyncSpec
from integrations_dagster_tests.orchestration.shop import DAYS, Shop

KEY = dg.AssetKey(["raw", "people"])


def frame(count: int) -> pd.DataFrame:
    return pd.DataFrame({"id": range(count), "name": [f"n{i}" for i in range(count)], "email": None})


def model_of(shop: Shop, **changes: Any) -> ModelSpec:
    return dataclasses.replace(shop.customers, **{"sql_path": None, "asset": "raw/people", **changes})


def definitions(shop: Shop, upstream: list[Any], model: ModelSpec, *syncs: SyncSpec, days: bool = False) -> Any:
    partitions = DAYS if days else None
    return dg.Definitions(
        assets=[*upstream, model_asset(model, partitions), *(sync_asset(sync, partitions) for sync in syncs)]
    )


def run(
    defs: dg.Definitions, instance: DagsterInstance, *selection: str, partition: str | None = None
) -> dg.ExecuteInProcessResult:
    """Materialize these assets in a run of their own, as the UI does."""
    keys = [dg.AssetKey.from_user_string(name) for name in selection]
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance, asset_selection=keys, partition_key=partition, raise_on_error=False
    )


def test_a_frame_is_delivered_through_the_assets_own_io_manager(shop: Shop, instance: DagsterInstance) -> None:
    @dg.asset(key=KEY)
    def people() -> pd.DataFrame:
        return frame(7)

    model = model_of(shop, warehouse=NO_WAREHOUSE)
    sync = shop.hook(model=model, name="from_a_frame")
    defs = definitions(shop, [people], model, sync)
    graph = defs.resolve_asset_graph()
    assert graph.get(dg.AssetKey("customers")).parent_keys == {KEY}
    assert graph.get(dg.AssetKey("from_a_frame")).parent_keys == {dg.AssetKey("customers")}

    assert not run(defs, instance, "customers").success  # not materialized yet
    assert run(defs, instance, "raw/people").success
    result = run(defs, instance, "customers", "from_a_frame")
    assert result.success
    (made,) = result.asset_materializations_for_node("from_a_frame.record")
    assert made.metadata["created"].value == 7
    (rows,) = result.asset_materializations_for_node("customers")
    assert rows.metadata["dagster/row_count"].value == 7
    assert "raw/people" in str(rows.metadata["sql"].value)


@pytest.mark.parametrize("where", ["materialization", "definition", "value", "mapping"])
def test_an_asset_that_names_a_table_is_queried(shop: Shop, instance: DagsterInstance, where: str) -> None:
    shop.load_customers({1: "Ann", 2: "Bob"})
    named = {"dagster/table_name": "main.customers"}

    @dg.asset(key=KEY, metadata=named if where == "definition" else None)
    def people() -> Any:
        match where:
            case "materialization":
                return dg.MaterializeResult(metadata=named)
            case "value":
                return "main.customers"
            case "mapping":
                return {"schema": "main", "table": "customers"}
            case _:
                return None

    defs = definitions(shop, [people], model_of(shop))
    assert run(defs, instance, "raw/people").success
    result = run(defs, instance, "customers")
    assert result.success
    (rows,) = result.asset_materializations_for_node("customers")
    assert rows.metadata["dagster/row_count"].value == 2
    assert '"main"."customers"' in str(rows.metadata["sql"].value)


def test_the_value_is_read_where_the_model_says_so(shop: Shop, instance: DagsterInstance) -> None:
    @dg.asset(key=KEY, metadata={"dagster/table_name": "elsewhere.customers"})
    def people() -> pd.DataFrame:
        return frame(3)

    defs = definitions(shop, [people], model_of(shop, read="value"))
    assert run(defs, instance, "raw/people").success
    assert run(defs, instance, "customers").success


def test_partitions_of_the_asset_are_read_one_by_one(shop: Shop, instance: DagsterInstance) -> None:
    @dg.asset(key=KEY, partitions_def=DAYS)
    def people(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return frame(int(context.partition_key[-2:]))

    defs = definitions(shop, [people], model_of(shop, partitioned=True), days=True)
    for day in ("2026-08-02", "2026-08-05"):
        assert run(defs, instance, "raw/people", partition=day).success
        result = run(defs, instance, "customers", partition=day)
        assert result.success
        (rows,) = result.asset_materializations_for_node("customers")
        assert rows.metadata["dagster/row_count"].value == int(day[-2:])

    unpartitioned = definitions(shop, [people], model_of(shop))
    assert "customers is not" in failure(run(unpartitioned, instance, "customers"))


def test_what_cannot_be_read_is_said(shop: Shop, instance: DagsterInstance) -> None:
    @dg.asset(key=KEY)
    def people() -> int:
        return 7

    defs = definitions(shop, [people], model_of(shop))
    assert "has never been materialized" in failure(run(defs, instance, "customers"))
    assert run(defs, instance, "raw/people").success
    assert "yields a builtins.int, not rows" in failure(run(defs, instance, "customers"))
    table = definitions(shop, [people], model_of(shop, read="table"))
    assert "says nowhere which table it is" in failure(run(table, instance, "customers"))
    alone = definitions(shop, [], model_of(shop))
    assert run(alone, instance, "customers").success is False


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.get_step_failure_events()
    data = event.step_failure_data.user_failure_data
    return str(data.description) if data else str(event.step_failure_data.error)
