"""Running a sync whenever its model was materialized by something else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import dagster as dg
from dagster import AssetRecordsFilter, DagsterInstance
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from integrations_dagster.orchestration.runs import assets_of, busy_reason, busy_run, run_tags
from integrations_dagster.sync.spec import SyncSpec

PAGE = 500
"""Materializations read at a time."""
PAGES = 20
"""Pages of one tick at the most; a later tick goes on."""
INTERVAL = 30
"""Seconds between two ticks."""


def model_trigger(sync: SyncSpec, partitions_def: dg.PartitionsDefinition | None) -> dg.SensorDefinition:
    """The sensor that launches a sync when its model was materialized by a run that does not include the sync.

    Where the model reads an asset, that asset is watched, and the run reads it anew.

    It launches nothing while a run of the sync is queued or running, and follows up on a later tick: its cursor only
    moves past a materialization once that is delivered, or a run that delivers it has been launched.
    """
    model, own = dg.AssetKey(sync.model.name), dg.AssetKey(sync.name)
    watched = dg.AssetKey.from_user_string(sync.model.asset) if sync.model.asset else model
    launched = [model, own] if sync.model.asset else [own]
    called = "asset" if sync.model.asset else "model"

    @dg.sensor(
        name=f"{sync.name}_on_model",
        target=dg.AssetSelection.assets(*launched),
        minimum_interval_seconds=INTERVAL,
        default_status=(
            dg.DefaultSensorStatus.RUNNING if sync.destination.target.schedules else dg.DefaultSensorStatus.STOPPED
        ),
        description=(
            f"Runs `{sync.name}` when `{watched.to_user_string()}` was materialized by anything but a run of this sync."
        ),
    )
    def trigger(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        instance, repository = context.instance, context.repository_def
        cursor = int(context.cursor) if context.cursor else _delivered(instance, own)
        fresh: list[tuple[int, str | None]] = []
        seen = cursor
        for storage_id, run_id, partition in _materializations(instance, watched, cursor):
            seen = storage_id
            if not _includes(instance, run_id, sync.name, repository):
                fresh.append((storage_id, partition))
        if not fresh:
            if seen > cursor or context.cursor is None:
                context.update_cursor(str(seen))
            name = watched.to_user_string()
            return dg.SkipReason(f"The {called} {name!r} has not been materialized by anything else.")
        busy = busy_run(instance, [sync.name], repository)
        if busy is not None:
            return dg.SkipReason(busy_reason(*busy))
        ranges = _ranges(partitions_def, {partition for _, partition in fresh if partition})
        if partitions_def is not None and not ranges:
            return dg.SensorResult(skip_reason="The materialized partitions exist no more.", cursor=str(seen))
        requests = [
            dg.RunRequest(
                # The key makes a tick that was repeated after a crash launch nothing twice.
                run_key=json.dumps([sync.name, seen, tags]),
                asset_selection=launched,
                tags={**run_tags([sync.name]), **tags},
            )
            for tags in [_range_tags(*window) for window in ranges] or [{}]
        ]
        return dg.SensorResult(run_requests=requests, cursor=str(seen))

    return trigger


def _materializations(instance: DagsterInstance, key: dg.AssetKey, after: int) -> Iterator[tuple[int, str, str | None]]:
    """(storage id, run id, partition) of the materializations of an asset after a storage id, oldest first."""
    for _ in range(PAGES):
        page = instance.fetch_materializations(
            AssetRecordsFilter(asset_key=key, after_storage_id=after), limit=PAGE, ascending=True
        ).records
        for record in page:
            after = record.storage_id
            yield record.storage_id, record.run_id, record.partition_key
        if len(page) < PAGE:
            return


def _delivered(instance: DagsterInstance, key: dg.AssetKey) -> int:
    """Where a trigger that has never ticked begins: at the last run of the sync."""
    records = instance.fetch_materializations(key, limit=1).records
    return records[0].storage_id if records else 0


def _includes(instance: DagsterInstance, run_id: str, name: str, repository: dg.RepositoryDefinition | None) -> bool:
    run = instance.get_run_by_id(run_id) if run_id else None
    return run is not None and name in assets_of(run, repository)


def _ranges(partitions_def: dg.PartitionsDefinition | None, keys: set[str]) -> list[tuple[str, str]]:
    """Contiguous ranges (first key, last key) of partitions that exist, in order."""
    if partitions_def is None:
        return []
    result: list[tuple[str, str]] = []
    previous = False
    for key in partitions_def.get_partition_keys():
        if key in keys:
            result[-1:] = [(result[-1][0], key)] if previous else [*result[-1:], (key, key)]
        previous = key in keys
    return result


def _range_tags(first: str, last: str) -> dict[str, str]:
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
