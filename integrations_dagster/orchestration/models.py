"""A model as an asset: its query."""

# Dagster reads the annotation of an op's `context` as an object: no `from __future__ import annotations` here.

import os

import dagster as dg
from dagster._utils.warnings import suppress_dagster_warnings

from integrations_dagster.orchestration.context import partitions_of, readable_failures, stop_if_cancelled
from integrations_dagster.orchestration.metadata import model_metadata, partition_metadata
from integrations_dagster.orchestration.worker import mark_worker
from integrations_dagster.sync.spec import ModelSpec
from integrations_dagster.sync.storage import storage_path


@suppress_dagster_warnings  # backfill policies are in beta; the pin of dagster keeps them as they are
def model_asset(model: ModelSpec, partitions_def: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    """The asset of a model. Its materialization runs the query and keeps the rows as an immutable version.

    Args:
        model: The model.
        partitions_def: Windows of time, or None for an unpartitioned model.
    """

    keys = ", ".join(f"`{key}`" for key in model.primary_key)

    @dg.asset(
        name=model.name,
        group_name="models",
        kinds={model.warehouse.kind, "sql"},
        description=f"The rows of `{model.sql_path.name}`, one for each {keys}.",
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions_def else None,
        retry_policy=dg.RetryPolicy(max_retries=1, delay=1),
        tags={"integrations/model": model.name},
    )
    def query(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        # Imported by the step that runs it: loading the code location stays light.
        from integrations_dagster.sync.query import preview, run_query

        with readable_failures():
            stop_if_cancelled(context.op_execution_context)
            mark_worker(context.instance, context.run)
            storage = storage_path(os.environ)
            partitions = partitions_of(context.op_execution_context, partitions_def)
            versions = run_query(model, storage, context.run.run_id, partitions, context.log.info)
            for version in versions:
                if version.partition:
                    context.add_asset_metadata(partition_metadata(version), partition_key=version.partition)
            shown = preview(versions[-1], sensitive=model.sensitive)
            warehouse = f"{model.warehouse.name} ({model.warehouse.kind})"
            return dg.MaterializeResult(metadata=model_metadata(versions, shown, warehouse))

    return query
