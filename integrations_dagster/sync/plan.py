"""plan: take the lease, fold what earlier runs left, find the candidates, cut them into shards."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace

from integrations_dagster.delivery.request_log import FOLDER, prune
from integrations_dagster.planner.diff import diff
from integrations_dagster.planner.fold import fold
from integrations_dagster.planner.state import PLAN, Home
from integrations_dagster.sync.account import connect_account, identify
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.cursors import cursor_notes, leave_hint, range_of
from integrations_dagster.sync.doubts import resolve
from integrations_dagster.sync.guards import Setting, check_volume
from integrations_dagster.sync.homes import home_of
from integrations_dagster.sync.inputs import PlanOptions, model_versions, settings_of, source_of
from integrations_dagster.sync.kept import hide_payloads, keep_payloads
from integrations_dagster.sync.lookups import prepared_lookups, reading_notes
from integrations_dagster.sync.notes import plan_notes
from integrations_dagster.sync.published import publish_log
from integrations_dagster.sync.releases import release_notes
from integrations_dagster.sync.results import Plan, Shard
from integrations_dagster.sync.resync import anew_of, resync_notes, taken_over
from integrations_dagster.sync.runs import begin_run, log_dead_runs, log_failed_plan, prune_log
from integrations_dagster.sync.schema import check_schema, write_sight
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.state import (
    HeldState,
    drop_plans,
    fold_into,
    spacing_of,
    state_key,
    swap,
    wait_for_open_batches,
)
from integrations_dagster.vocabulary import Partition
from integrations_dagster.warehouses.base import WarehouseBusy
from integrations_dagster.warehouses.store import WarehouseFailed


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
    opened = contextlib.ExitStack()
    try:
        home = opened.enter_context(home_of(sync, ctx, account).lasting())
        begin_run(home, ctx.run_id, began)
        wait_for_open_batches(sync, ctx, key, quietly=True)
        started = time.monotonic()
        held = HeldState(lease, home, sync.keep_values)
        keep_payloads(sync, home)
        # Rows in doubt are named before they are resolved; what is found out about them is folded after it.
        fold_into(ctx, held, spacing=spacing_of(sync))
        resolved = resolve(sync, ctx, connected, held)
        if resolved:
            fold_into(ctx, held, spacing=spacing_of(sync))
        hide_payloads(sync, home)
        previous = home.manifest()
        manifest = taken_over(sync, previous)
        log_dead_runs(sync, ctx, home, account)
        drop_plans(home)
        prune_log(home, sync.log_days, ctx.ledger.now())
        uncopied = publish_log(ctx, home)
        prune(home.folder / FOLDER, sync.destination.log_days, ctx.ledger.now())
        folder = home.plan_folder(ctx.run_id)
        anew = anew_of(sync, options, partitions)
        if anew is not None:
            folded = fold(
                home, (), now=ctx.ledger.now(), spacing=spacing_of(sync), anew=anew, keep_values=sync.keep_values
            )
            # Rows to be delivered anew lie anywhere: the next query asks for all.
            manifest = replace(taken_over(sync, folded.manifest), cursor="")
        with (
            model_versions(sync.model, ctx, partitions) as versions,
            prepared_lookups(sync, ctx, folder) as (lookups, uses),
        ):
            source = source_of(sync, connected, versions, lookups)
            settings = settings_of(sync, connected, options, manifest, ctx.ledger.now())
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
        if manifest != previous:
            # From here on the mapping is in force, and the digests of a resync are forgotten, whatever becomes of this
            # run: a later one goes on with it.
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
                *uncopied,
                *release_notes(sync, options.release, result),
                *resync_notes(anew, result),
                *cursor_notes(sync, manifest, versions),
                *plan_notes(sync, ctx, previous, manifest, result, versions),
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
        draft = folder / f".{PLAN}"
        draft.write_text(json.dumps(made.as_dict()), "utf-8")
        # A run that was replaced must not bring a plan to whoever has folded and counted what it left.
        with ctx.ledger.guarded(lease):
            draft.replace(folder / PLAN)
        return made
    except BaseException as error:
        # Whatever ends a plan ends the run: its lease must not outlive it.
        with contextlib.suppress(Exception):
            log_failed_plan(sync, ctx, account, began, error)
            if isinstance(error, Exception) and not isinstance(error, WarehouseBusy | WarehouseFailed):
                publish_log(ctx, home_of(sync, ctx, account))
        with contextlib.suppress(Exception):
            shutil.rmtree(Home.of(ctx.storage, sync.name, account).plan_folder(ctx.run_id), ignore_errors=True)
            ctx.ledger.release(lease)
        raise
    finally:
        opened.close()
