"""record: fold, give the final account of the run, decide whether it succeeded, give the lease back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from integrations_dagster.ledger.leases import Lease
from integrations_dagster.planner.log import RUN
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.cursors import after_run, leave_hint
from integrations_dagster.sync.guards import with_volume
from integrations_dagster.sync.homes import home_of
from integrations_dagster.sync.kept import keep_payloads
from integrations_dagster.sync.published import publish_log
from integrations_dagster.sync.report import make_report, read_report, write_report
from integrations_dagster.sync.results import Plan, RunReport, WriteSummary
from integrations_dagster.sync.runs import log_run
from integrations_dagster.sync.schema import forget_description, take_sight
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.state import (
    HeldState,
    drop_plan,
    drop_plans,
    fold_into,
    spacing_of,
    state_key,
    swap,
    wait_for_open_batches,
)
from integrations_dagster.vocabulary import IntegrationsError, LeaseLost


class Incomplete(IntegrationsError):
    """Fewer write ops have reported than the plan made."""


def record(sync: SyncSpec, ctx: RunContext, plan: Plan, parts: Sequence[WriteSummary]) -> RunReport:
    """Fold what was acknowledged and give the account of the run. May be called again after a kill anywhere in it.

    Raises:
        Incomplete: A write op did not run; nothing that was delivered is lost.
        LeaseLost: The run does not hold the sync any more.
    """
    key = state_key(sync, plan.account)
    lease = Lease(key, plan.run_id, plan.fence)
    home = home_of(sync, ctx, plan.account)
    if len(parts) < len(plan.shards):
        raise Incomplete(
            f"Sync {sync.name!r}: {len(parts)} of {len(plan.shards)} write steps have reported.",
            "Nothing that was delivered is lost: launch a new run, and it delivers what is missing.",
        )
    report = read_report(home, plan.run_id)
    if report is not None:
        # A kill may have come between the two files of the run's account.
        if not (home.log_folder(plan.run_id) / RUN).exists():
            log_run(sync, home, plan, report, ctx.ledger.now())
        # The lease may be another run's by now, and with it the plans of this home.
        drop_plan(home, plan.run_id)
    else:
        started = time.monotonic()
        ctx.ledger.heartbeat(lease)
        # Every write op has ended, so a batch that is still open belongs to an attempt that died.
        wait_for_open_batches(sync, ctx, key, quietly=False)
        keep_payloads(sync, home)
        fold_into(ctx, HeldState(lease, home, sync.keep_values), spacing=spacing_of(sync))
        report = make_report(sync, home, plan, parts, ctx.ledger.superseded_traffic(key, plan.run_id), started)
        take_sight(home, plan.run_id)
        if any(part.stopped for part in parts):
            forget_description(ctx, plan.account.removesuffix(f"/{sync.object}"), sync.object)
        # Before the report is there, so that a kill in between does it once more.
        moved = with_volume(after_run(sync, home, plan, ctx.ledger.now()), plan)
        if moved != home.manifest():
            swap(ctx, HeldState(lease, home), moved)
            leave_hint(sync, ctx.storage, moved)
        write_report(home, plan.run_id, report)
        log_run(sync, home, plan, report, ctx.ledger.now())
        ctx.ledger.check(lease)
        drop_plans(home)
    # If the sync is another run's by now, that copies what is missing.
    with contextlib.suppress(LeaseLost):
        ctx.ledger.check(lease)
        publish_log(ctx, home)
    ctx.ledger.release(lease)
    return report
