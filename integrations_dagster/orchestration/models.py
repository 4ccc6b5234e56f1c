"""A model as an asset: its query, or the rows of the asset that it reads."""

# Dagster reads the annotation of an op's `context` as an object: no `from __future__ import annotations` here.

import os
from typing import Any

import dagster as dg
from dagster._utils.warnings import suppress_dagster_warnings

from integrations_dagster.orchestration.context import partitions_of, readable_failures, stop_if_cancelled
from integrations_dagster.orchestration.metadata import model_metadata, partition_metadata
from integrations_dagster.orchestration.worker import mark_worker
from integrations_dagster.sync.spec import ModelSpec
from integrations_dagster.sync.storage import storage_path
from integrations_dagster.vocabulary import Misconfigured, Partition

TABLE_NAME = "dagster/table_name"
"""Metadata by which an asset (a dbt model, for example) says which table it is."""


@suppress_dagster_warnings  # backfill policies are in beta; the pin of dagster keeps them as they are
def model_asset(model: ModelSpec, partitions_def: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    """The asset of a model. Its materialization runs the query, or reads the asset upstream, and keeps the rows as an
    immutable version.

    Args:
        model: The model.
        partitions_def: Windows of time, or None for an unpartitioned model.
    """

    keys = ", ".join(f"`{key}`" for key in model.primary_key)
    upstream = dg.AssetKey.from_user_string(model.asset) if model.asset else None

    @dg.asset(
        name=model.name,
        group_name="models",
        kinds={kind for kind in (model.warehouse.kind, "sql" if model.sql_path or model.table else "table") if kind},
        description=f"The rows of {_origin(model)}, one for each {keys}.",
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions_def else None,
        retry_policy=dg.RetryPolicy(max_retries=1, delay=1),
        tags={"integrations/model": model.name},
        deps=[upstream] if upstream else None,
    )
    def query(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        # Imported by the step that runs it: loading the code location stays light.
        from integrations_dagster.sync.query import preview, run_query

        def load(partition: Partition | None) -> Any:
            assert upstream is not None
            return _load(context, model, upstream, partition)

        with readable_failures():
            stop_if_cancelled(context.op_execution_context)
            mark_worker(context.instance, context.run)
            storage = storage_path(os.environ)
            partitions = partitions_of(context.op_execution_context, partitions_def)
            versions = run_query(model, storage, context.run.run_id, partitions, context.log.info, load=load)
            for version in versions:
                if version.partition:
                    context.add_asset_metadata(partition_metadata(version), partition_key=version.partition)
            shown = preview(versions[-1], sensitive=model.sensitive)
            warehouse = f"{model.warehouse.name} ({model.warehouse.kind})" if model.warehouse.kind else "none"
            return dg.MaterializeResult(metadata=model_metadata(versions, shown, warehouse))

    return query


def _origin(model: ModelSpec) -> str:
    """What the rows come from, its name as code."""
    kind, _, name = model.origin.rpartition(" ") if model.sql_path is None else ("", "", model.origin)
    return f"the {kind} `{name}`" if kind else f"`{name}`"


def _load(
    context: dg.AssetExecutionContext, model: ModelSpec, upstream: dg.AssetKey, partition: Partition | None
) -> Any:
    """What the asset upstream yields: the name of its table, or its value, as its IO manager loads it.

    Raises:
        Misconfigured: It was never materialized, is no asset of this code location, or names no table.
    """
    if model.read == "table" or (model.read == "auto" and model.warehouse.kind):
        name = _table_name(context, upstream)
        if name or model.read == "table":
            if not name:
                raise Misconfigured(
                    f"Model {model.name!r}: the asset {model.asset} says nowhere which table it is.",
                    f"Name it: `table: schema.table`, or have the asset report `{TABLE_NAME}` as metadata.",
                )
            return name
    known = context.job_def.asset_layer
    if not known.has(upstream):
        raise Misconfigured(
            f"Model {model.name!r}: {model.asset} is no asset of this code location that can be loaded, and it has no "
            f"table name in its metadata ({TABLE_NAME}).",
            "Correct `asset`, or name its table: `table: schema.table`.",
        )
    theirs = known.get(upstream).partitions_def
    if (theirs is None) != (partition is None):
        is_, is_not = (model.name, model.asset) if theirs is None else (model.asset, model.name)
        raise Misconfigured(
            f"Model {model.name!r} reads the asset {model.asset}: {is_} is partitioned, and {is_not} is not.",
            "Give both the same partitions.",
        )
    if context.instance.get_latest_materialization_event(upstream) is None:
        raise Misconfigured(
            f"Model {model.name!r}: the asset {model.asset} has never been materialized.", "Materialize it first."
        )
    return context.load_asset_value(upstream, partition_key=partition.key if partition else None)


def _table_name(context: dg.AssetExecutionContext, upstream: dg.AssetKey) -> str:
    """The table that an asset says it is, in its newest materialization or its definition; "" if in neither."""
    event = context.instance.get_latest_materialization_event(upstream)
    if event is not None and event.asset_materialization is not None:
        said = event.asset_materialization.metadata.get(TABLE_NAME)
        if said is not None and said.value:
            return str(said.value)
    known = context.job_def.asset_layer
    return str(known.get(upstream).metadata.get(TABLE_NAME) or "") if known.has(upstream) else ""
