"""What a plan compares, and by which settings: options of the launch, model versions, the source, the cut."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from integrations_dagster.planner.candidates import ACTION_OF, Release, Settings
from integrations_dagster.planner.computed import Computed
from integrations_dagster.planner.expressions import render, tells_time
from integrations_dagster.planner.lookups import Lookup
from integrations_dagster.planner.model import Source
from integrations_dagster.planner.state import Manifest
from integrations_dagster.sync.account import Connected
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.cursors import mark_before
from integrations_dagster.sync.results import ModelVersion
from integrations_dagster.sync.spec import WAREHOUSE, ModelSpec, SyncSpec
from integrations_dagster.sync.versions import check_kept, in_use, newest_version, version_files
from integrations_dagster.vocabulary import Misconfigured, Partition

EMBEDDED = "duckdb"
"""Dialect of the embedded home."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a launch may say.

    Attributes:
        limit: Candidates at the most; None for all. Such a run never removes.
        keys: Only these primary keys, as text; empty for all. Such a run never removes.
        allow_removals: Lift the removal guard for this run.
        allow_volume: Lift the guards on volume for this run.
        release: Only these held rows, as if they were not held. Such a run removes nothing else.
        full_resync: Forget what was delivered, and deliver every row anew. Ids, match values and rows in doubt stay.
        resync_keys: Likewise of these primary keys, as text.
    """

    limit: int | None = None
    keys: tuple[str, ...] = ()
    allow_removals: bool = False
    allow_volume: bool = False
    release: Release | None = None
    full_resync: bool = False
    resync_keys: tuple[str, ...] = ()


@contextlib.contextmanager
def model_versions(
    model: ModelSpec, ctx: RunContext, partitions: Sequence[Partition]
) -> Iterator[tuple[ModelVersion, ...]]:
    """The newest version of the model (of each partition), kept from clean-up while it is read."""
    with contextlib.ExitStack() as stack:
        found: list[ModelVersion] = []
        for partition in [p.key for p in partitions] or [""]:
            version = newest_version(ctx.storage, model.name, partition)
            if version is None:
                which = f"partition {partition} of model" if partition else "model"
                raise Misconfigured(
                    f"The {which} {model.name!r} has not been materialized.",
                    "Materialize it first, or run the sync's job, which queries the model and then syncs.",
                )
            stack.enter_context(in_use(version))
            found.append(version)
        yield tuple(found)


def source_of(
    sync: SyncSpec, connected: Connected, versions: Sequence[ModelVersion], lookups: tuple[Lookup, ...]
) -> Source:
    available = {name for name, _ in versions[0].columns}
    folded = {name.lower() for name in available}
    direct = (*sync.match.values(), *(field.column for field in sync.fields if field.column is not None))
    missing = [column for column in dict.fromkeys((*sync.model.primary_key, *direct)) if column not in available]
    # SQL compares names without regard to case.
    missing += [column for column in sync.columns if column not in direct and column.lower() not in folded]
    if missing:
        raise Misconfigured(
            f"Sync {sync.name!r} ({sync.source}) uses the column(s) {', '.join(map(repr, missing))}, which "
            f"{sync.model.origin} does not return.",
            f"It returns: {', '.join(name for name, _ in versions[0].columns)}.",
        )
    inside = sync.home == WAREHOUSE
    named = {name.lower(): name for name, _ in versions[0].columns}
    check_kept(sync, versions)
    return Source(
        files={} if inside else {v.partition: version_files(v) for v in versions},
        tables={v.partition: v.table for v in versions} if inside else {},
        types=dict(versions[0].columns),
        primary_key=sync.model.primary_key,
        match=tuple(sync.match.values()),
        normalization=tuple(connected.destination.match_normalization(sync.object, field) for field in sync.match),
        columns=sync.sources,
        mapping_digest=sync.mapping_digest,
        computed=_computed(sync, versions[0]),
        cursor=sync.model.cursor.column if sync.model.cursor else None,
        lookups=lookups,
        inputs=tuple(dict.fromkeys(named[column.lower()] for column in sync.columns)) if inside else (),
        whole=bool(lookups)
        or any(f.sql is not None and tells_time(f.sql, sync.model.warehouse.dialect) for f in sync.fields),
    )


def _computed(sync: SyncSpec, version: ModelVersion) -> tuple[Computed, ...]:
    """The columns that fields compute, each once, named after the first field that does."""
    found: dict[str, Computed] = {}
    for field in sync.fields:
        if field.sql is not None and field.source is not None:
            label = f"fields.{field.target}"
            try:
                sql = render(field.sql, sync.model.warehouse.dialect, EMBEDDED, dict(version.columns))
            except ValueError as error:
                raise Misconfigured(
                    f"Sync {sync.name!r} ({sync.source}): the SQL of {label} {error}.", "Write it in the model's SQL."
                ) from None
            found.setdefault(field.source, Computed(field.source, sql, may_fail=True, label=label))
    return tuple(found.values())


def settings_of(sync: SyncSpec, connected: Connected, options: PlanOptions, manifest: Manifest, now: float) -> Settings:
    _, forget_to, floor = mark_before(sync, manifest, now)
    rows = sync.batch_rows or connected.destination.limits(sync.object, ACTION_OF[sync.mode]).rows
    return Settings(
        sync=sync.name,
        mode=sync.mode,
        removal_limit=sync.removal_limit,
        allow_removals=options.allow_removals,
        # Each shard has at least one request in flight, and together they have no more than the account's.
        shards=min(sync.shards, sync.destination.in_flight),
        # A further write op must save more than the second that a step costs.
        shard_rows=20 * rows,
        limit=options.limit,
        keys=options.keys,
        cursor=manifest.passed,
        floor=floor,
        forget_to=forget_to,
        now=now,
        renames=connected.destination.renames(sync.object),
        resend_in_doubt=sync.in_doubt == "resend",
        release=options.release,
    )
