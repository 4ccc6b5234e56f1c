"""Taking, folding and giving back a sync's state."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from integrations_dagster.ledger.leases import Lease
from integrations_dagster.planner.ahead import written_ahead
from integrations_dagster.planner.fold import fold
from integrations_dagster.planner.held import Spacing
from integrations_dagster.planner.state import Home, Manifest
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.spec import SyncSpec


def state_key(sync: SyncSpec, account: str) -> str:
    """What lease, snapshot, held rows and batches are keyed by."""
    return f"{sync.name}@{account}"


def spacing_of(sync: SyncSpec) -> Spacing:
    """When the sync's rejected rows are tried again, and when no more."""
    return Spacing(sync.max_attempts, sync.retry_wait, sync.retry_wait_cap)


@dataclass(frozen=True, slots=True)
class HeldState:
    """A sync's state under the run's lease, and whether it keeps the payloads of records."""

    lease: Lease
    home: Home
    keep_values: bool = False


def wait_for_open_batches(sync: SyncSpec, ctx: RunContext, key: str, *, quietly: bool) -> None:
    """Wait until no request of an earlier run can take effect any more; then give up batches without an answer.

    What a writer sent may still take effect until its deadline, whether its batch is still open or was given up.
    """
    told = False
    while True:
        ctx.ledger.give_up_expired(key)
        pending = ctx.ledger.open_batches(key)
        quiet = ctx.ledger.quiet_until(key) if quietly else 0.0
        wait = max([quiet, *(batch.deadline for batch in pending)]) - ctx.ledger.now()
        if (wait <= 0 and not pending) or ctx.stop.is_set():
            return
        if not told:
            run = f" of run {pending[0].run_id}" if pending else ""
            ctx.log(
                f"Sync {sync.name!r}: waiting up to {max(wait, 0):.0f} s, because requests{run} without an answer may "
                "still take effect."
            )
            told = True
        ctx.stop.wait(min(max(wait, 0.0) + 0.01, 0.5))


def fold_into(
    ctx: RunContext,
    held: HeldState,
    *,
    spacing: Spacing | None = None,
) -> Manifest:
    """Fold everything that has been answered, swap the state, and clean up. Safe to repeat after a kill anywhere.

    Args:
        spacing: When rejected rows are tried again; see `spacing_of`.
    """
    lease, home = held.lease, held.home
    home.folder.mkdir(parents=True, exist_ok=True)
    closed = ctx.ledger.closed_since(lease.state_key, home.manifest().last_number)
    ahead, missing = written_ahead(home.plan_folders(), closed)
    folded = fold(
        home,
        ctx.ledger.closed_batches(lease.state_key, missing),
        now=ctx.ledger.now(),
        ahead=ahead,
        spacing=spacing or Spacing(),
        keep_values=held.keep_values,
    )
    if folded.changed:
        swap(ctx, held, folded.manifest)
    ctx.ledger.clear(lease.state_key, folded.manifest.last_number, lease)
    home.clean()
    return folded.manifest


def swap(ctx: RunContext, held: HeldState, manifest: Manifest) -> None:
    """Make a manifest the state.

    Raises:
        LeaseLost: Another run holds the sync now.
    """
    # Within one ledger transaction with the fence: a run that was replaced cannot bring an older state back.
    with held.home.prepared(manifest) as commit, ctx.ledger.guarded(held.lease):
        commit()


def drop_plans(home: Home) -> None:
    """Delete all plan folders, which have been folded; the caller holds the lease."""
    for folder in (home.folder / "plans").glob("*"):
        _remove_tree(folder)


def drop_plan(home: Home, run_id: str) -> None:
    """Delete the plan folder of one run, which has been recorded."""
    _remove_tree(home.plan_folder(run_id))


def _remove_tree(folder: Path) -> None:
    # A writer that lost its lease may still be adding a file; the next fold cleans up after it.
    shutil.rmtree(folder, ignore_errors=True)
