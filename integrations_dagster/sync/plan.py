"""plan: take the lease, fold what earlier runs left, find the candidates, cut them into shards."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from integrations_dagster.delivery.request_log import FOLDER, prune
from integrations_dagster.ledger.batches import BatchStatus
from integrations_dagster.planner.candidates import ACTION_OF, Release, Settings
from integrations_dagster.planner.computed import Computed
from integrations_dagster.planner.diff import Diff, diff
from integrations_dagster.planner.expressions import render, tells_time
from integrations_dagster.planner.fold import fold
from integrations_dagster.planner.kept import kept_payloads
from integrations_dagster.planner.lookups import Lookup
from integrations_dagster.planner.model import Source
from integrations_dagster.planner.state import Home, Manifest, connect
from integrations_dagster.sync.account import Connected, connect_account, identify
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.cursors import cursor_notes, leave_hint, mark_before, range_of
from integrations_dagster.sync.doubts import resolve
from integrations_dagster.sync.guards import Setting, check_volume
from integrations_dagster.sync.homes import home_of
from integrations_dagster.sync.kept import keep_payloads
from integrations_dagster.sync.lookups import prepared_lookups, reading_notes
from integrations_dagster.sync.mapping import Mapper
from integrations_dagster.sync.packer import limits_of
from integrations_dagster.sync.releases import release_notes
from integrations_dagster.sync.results import ModelVersion, Plan, Shard
from integrations_dagster.sync.resync import anew_of, check_mode, resync_notes
from integrations_dagster.sync.runs import log_dead_runs, log_failed_plan, prune_log
from integrations_dagster.sync.schema import FieldsDoNotFit, check_schema, write_sight
from integrations_dagster.sync.spec import WAREHOUSE, ModelSpec, SyncSpec
from integrations_dagster.sync.state import (
    HeldState,
    drop_plans,
    fold_into,
    spacing_of,
    state_key,
    swap,
    wait_for_open_batches,
)
from integrations_dagster.sync.versions import check_kept, in_use, newest_version, version_files
from integrations_dagster.vocabulary import Action, Counts, Misconfigured, Partition, Row, Status

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


def plan(
    sync: SyncSpec,
    ctx: RunContext,
    partitions: Sequence[Partition] = (),
    options: PlanOptions | None = None,
    *,
    known: bool = True,
) -> Plan:
    """Plan a run; on return it holds the sync's lease, which `record` gives back.

    Args:
        partitions: The partitions to compare; empty for an unpartitioned model.
        options: What the launch said.
        known: Whether an orchestrator knows the run.

    Raises:
        ledger.leases.RunHolds (a LeaseHeld): Another live run holds the sync.
        GuardTripped: A safety limit; nothing was sent.
        Misconfigured: Something in YAML, SQL, environment or account; nothing was sent.
        DestinationUnavailable: The destination does not answer; nothing was sent.
    """
    options = options or PlanOptions()
    connected = connect_account(sync, ctx)
    account = identify(sync, ctx, connected)
    key = state_key(sync, account)
    lease = ctx.ledger.acquire(key, ctx.run_id, ctx.worker, alive=ctx.alive, known=known)
    began = ctx.ledger.now()
    try:
        home = home_of(sync, ctx, account)
        wait_for_open_batches(sync, ctx, key, quietly=True)
        started = time.monotonic()
        previous = home.manifest()
        check_mode(sync, previous)
        held = HeldState(lease, home, sync.keep_values)
        keep_payloads(sync, home)
        # Rows in doubt are named before they are resolved; what is found out about them is folded after it.
        fold_into(ctx, held, spacing=spacing_of(sync), mapping_digest=sync.mapping_digest, mode=sync.mode)
        resolved = resolve(sync, ctx, connected, held)
        manifest = fold_into(ctx, held, spacing=spacing_of(sync)) if resolved else home.manifest()
        log_dead_runs(sync, ctx, home)
        drop_plans(home)
        prune_log(home, sync.log_days, ctx.ledger.now())
        prune(home.folder / FOLDER, sync.destination.log_days, ctx.ledger.now())
        folder = home.plan_folder(ctx.run_id)
        anew = anew_of(sync, options, partitions)
        if anew is not None:
            folded = fold(
                home, (), now=ctx.ledger.now(), spacing=spacing_of(sync), anew=anew, keep_values=sync.keep_values
            )
            # Rows to be delivered anew lie anywhere: the next query asks for all.
            manifest = replace(folded.manifest, cursor="")
        with _versions(sync.model, ctx, partitions) as versions, prepared_lookups(sync, ctx, folder) as (lookups, uses):
            source = _source(sync, connected, versions, lookups)
            settings = _settings(sync, connected, options, manifest, ctx.ledger.now())
            result = diff(home, manifest, source, settings, folder)
        setting = Setting(
            whole=not settings.partial and anew is None,
            same_mapping=previous.mapping_digest in ("", sync.mapping_digest),
            allowed=options.allow_volume,
            partitions=len(versions),
        )
        warnings = check_volume(sync, manifest, result.counts, setting)
        # Before anything is sent or forgotten; a run that sends nothing asks for nothing.
        schema = check_schema(sync, ctx, connected, home, versions, sends=bool(result.shards))
        write_sight(folder, schema)
        if anew is not None:
            # From here on the digests are forgotten, whatever becomes of this run: a later one goes on with the resync.
            swap(ctx, held, manifest)
        leave_hint(sync, ctx.storage, manifest)
        shards = tuple(
            Shard(ctx.run_id, index, str(path), rows, lease.fence, account, len(result.shards), sync.mapping_digest)
            for index, (path, rows) in enumerate(result.shards)
        )
        made = Plan(
            run_id=ctx.run_id,
            account=account,
            fence=lease.fence,
            counts=result.counts,
            shards=shards,
            versions=versions,
            seconds=time.monotonic() - started,
            notes=(
                *resolved,
                *release_notes(sync, options.release, result),
                *resync_notes(anew, result),
                *cursor_notes(sync, manifest, versions),
                *_notes(sync, ctx, previous, manifest, result, versions),
                *warnings,
                *reading_notes(uses, schema),
            ),
            lookups=uses,
            schema=schema,
            warnings=warnings,
            usual=setting.whole and setting.same_mapping and manifest.rows > 0,
            cursor=range_of(result, manifest, versions),
            started=began,
        )
        (folder / "plan.json").write_text(json.dumps(made.as_dict()), "utf-8")
        return made
    except BaseException as error:
        # Whatever ends a plan ends the run: its lease must not outlive it.
        with contextlib.suppress(Exception):
            log_failed_plan(sync, ctx, account, began, error)
        with contextlib.suppress(Exception):
            shutil.rmtree(Home.of(ctx.storage, sync.name, account).plan_folder(ctx.run_id), ignore_errors=True)
            ctx.ledger.release(lease)
        raise


@contextlib.contextmanager
def _versions(model: ModelSpec, ctx: RunContext, partitions: Sequence[Partition]) -> Iterator[tuple[ModelVersion, ...]]:
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


def _source(
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


def _settings(sync: SyncSpec, connected: Connected, options: PlanOptions, manifest: Manifest, now: float) -> Settings:
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
        cursor=manifest.cursor,
        floor=floor,
        forget_to=forget_to,
        now=now,
        resend_in_doubt=sync.in_doubt == "resend",
        release=options.release,
    )


def _notes(
    sync: SyncSpec,
    ctx: RunContext,
    previous: Manifest,
    manifest: Manifest,
    result: Diff,
    versions: Sequence[ModelVersion],
) -> tuple[str, ...]:
    notes: list[str] = []
    if manifest.rows == 0:
        notes.append("Nothing is known to be delivered to this account yet: every valid row is new.")
    elif previous.mapping_digest and previous.mapping_digest != sync.mapping_digest:
        notes.append("The mapping has changed: every row is mapped anew, and those whose payload differs are sent.")
    if result.left_behind:
        some = ", ".join(result.left_behind[:5])
        notes.append(
            f"{len(result.left_behind)} record(s) stay at the destination under a match value that their row has left "
            f"(mode upsert deletes nothing): {some}{', ...' if len(result.left_behind) > 5 else ''}."
        )
    notes += _held_notes(sync, result)
    age = ctx.ledger.now() - min(version.started for version in versions)
    if age > 3600:
        notes.append(f"The model was queried {age / 3600:.1f} hours ago.")
    return tuple(notes)


def _held_notes(sync: SyncSpec, result: Diff) -> Iterator[str]:
    if waiting := result.held.get("waiting"):
        yield f"{waiting:,} rejected row(s) wait for their next try."
    if parked := result.held.get("parked"):
        yield (
            f"{parked:,} row(s) are parked: they were rejected {sync.max_attempts} times and are sent again when they "
            f"change, or by `integrations retry {sync.name}`."
        )
    if doubtful := result.held.get("in_doubt"):
        yield (
            f"{doubtful:,} row(s) are in doubt: no answer came to the request that sent them, and it must not be "
            f"repeated. Look them up at the destination; say `integrations confirm {sync.name} --key KEY` of those "
            f"that are there, and `integrations retry {sync.name} --key KEY` of those that are not."
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a preview.

    Attributes:
        payload: What would be sent; empty for a removal.
        before: The values that the destination acknowledged last; None where they are not kept, or not known.
    """

    key: str
    action: str
    match: str
    payload: Mapping[str, Any]
    note: str = ""
    before: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do now."""

    account: str
    counts: Counts
    samples: tuple[Sample, ...]
    notes: tuple[str, ...]
    to_send: int
    unchanged_payload: int
    invalid: int


def preview(
    sync: SyncSpec,
    ctx: RunContext,
    partitions: Sequence[Partition] = (),
    options: PlanOptions | None = None,
    *,
    samples: int = 5,
) -> Preview:
    """Compute what a run would send, without lease, without changing state, without sending.

    Batches whose answer is still awaited count as unknown, so their rows would be sent again.
    """
    options = options or PlanOptions()
    connected = connect_account(sync, ctx)
    account = identify(sync, ctx, connected)
    key = state_key(sync, account)
    home = home_of(sync, ctx, account)
    previous = home.manifest()
    check_mode(sync, previous)
    with tempfile.TemporaryDirectory(prefix="integrations-preview-") as text:
        folder = Path(text)
        closed = list(ctx.ledger.closed_after(key, previous.last_number))
        last = ctx.ledger.last_number(key)
        unknown = [
            replace(batch, status=BatchStatus.UNKNOWN, number=last + place)
            for place, batch in enumerate(ctx.ledger.open_batches(key), start=1)
        ]
        folded = fold(
            home,
            [*closed, *unknown],
            now=ctx.ledger.now(),
            write_log=False,
            folder=folder / "state",
            spacing=spacing_of(sync),
            mode=sync.mode,
            anew=anew_of(sync, options, partitions),
            keep_values=sync.keep_values,
        )
        if not folded.changed or not folded.manifest.generation > previous.generation:
            state, manifest = home, previous
        else:
            state, manifest = home.drafting(folder / "state"), folded.manifest
        with (
            _versions(sync.model, ctx, partitions) as versions,
            prepared_lookups(sync, ctx, folder / "plan") as (lookups, uses),
        ):
            source = _source(sync, connected, versions, lookups)
            settings = _settings(sync, connected, options, manifest, ctx.ledger.now())
            result = diff(state, manifest, source, settings, folder / "plan")
            notes = _notes(sync, ctx, previous, manifest, result, versions)
        try:
            schema = check_schema(sync, ctx, connected, home, versions, sends=bool(result.shards))
        except FieldsDoNotFit as error:
            notes = (f"A run would stop before it sends anything: {error.message}", *notes)
        else:
            notes = (*notes, *reading_notes(uses, schema))
        found = _sampled(sync, connected, account, result, notes, samples)
        return replace(found, samples=_with_values(state, manifest, found.samples, folder))


def _sampled(
    sync: SyncSpec, connected: Connected, account: str, result: Diff, notes: tuple[str, ...], wanted: int
) -> Preview:
    limits = limits_of(
        connected.destination.limits(sync.object, Action.UPSERT),
        rows=sync.batch_rows,
        most_bytes=sync.batch_bytes,
        row_bytes=sync.row_bytes,
    )
    mapper = Mapper(sync, connected.destination, limits.row_bytes)
    samples: list[Sample] = []
    tally = {Status.UNCHANGED: 0, Status.INVALID: 0}
    to_send = 0
    for path, _rows in result.shards:
        for batch in pq.ParquetFile(path).iter_batches(2000):
            for mapped in mapper.map(batch):
                if mapped.outcome is None:
                    to_send += 1
                    if len(samples) < wanted:
                        samples.append(_sample(mapped.row))
                else:
                    tally[mapped.outcome.status] += 1
    return Preview(
        account,
        result.counts,
        tuple(samples),
        (*notes, *mapper.dropped()),
        to_send,
        tally[Status.UNCHANGED],
        tally[Status.INVALID],
    )


def _sample(row: Row) -> Sample:
    return Sample(row.key, f"{row.change} ({row.action})", row.match, row.payload)


def _with_values(state: Home, manifest: Manifest, samples: Sequence[Sample], scratch: Path) -> tuple[Sample, ...]:
    """The samples with the values that were acknowledged last, where they are kept."""
    with connect(scratch) as connection:
        state.attach(connection, manifest)
        kept = kept_payloads(connection, state, manifest, [sample.key for sample in samples])
    records = ((sample, kept.get(sample.key, {})) for sample in samples)
    # Under another match value only while that changes: then the newest record is the one.
    return tuple(
        replace(sample, before=of.get(sample.match, next(reversed(of.values()), None))) for sample, of in records
    )
