"""Taking, folding and giving back a sync's state."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from integrations_dagster.ledger.leases import Lease
from integrations_dagster.planner.fold import fold
from integrations_dagster.planner.state import Home, Manifest
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.spec import SyncSpec


def state_key(sync: SyncSpec, account: str) -> str:
    """What lease, snapshot, held rows and batches are keyed by."""
    return f"{sync.name}@{account}"


@dataclass(frozen=True, slots=True)
class HeldState:
    """A sync's state under the run's lease."""

    lease: Lease
    home: Home


def wait_for_open_batches(sync: SyncSpec, ctx: RunContext, key: str) -> None:
    """Wait until each open batch is answered or can no longer take effect; then give up those without an answer.

    What an earlier run's writer sent may still arrive at the destination until its deadline.
    """
    told = False
    while True:
        ctx.ledger.give_up_expired(key)
        pending = ctx.ledger.open_batches(key)
        if not pending or ctx.stop.is_set():
            return
        wait = max(batch.deadline for batch in pending) - ctx.ledger.now()
        if not told:
            ctx.log(
                f"Sync {sync.name!r}: waiting up to {max(wait, 0):.0f} s, because {len(pending)} request(s) of run "
                f"{pending[0].run_id} were in flight when it ended and may still take effect."
            )
            told = True
        ctx.stop.wait(min(max(wait, 0.0) + 0.01, 0.5))


def fold_into(ctx: RunContext, held: HeldState, *, mapping_digest: str | None = None) -> Manifest:
    """Fold everything that has been answered, swap the state, and clean up. Safe to repeat after a kill anywhere."""
    lease, home = held.lease, held.home
    home.folder.mkdir(parents=True, exist_ok=True)
    before = home.manifest()
    folded = fold(
        home,
        ctx.ledger.closed_after(lease.state_key, before.last_number),
        now=ctx.ledger.now(),
        mapping_digest=mapping_digest,
    )
    if folded.changed:
        # Within one ledger transaction with the fence: a run that was replaced cannot bring an older state back.
        with ctx.ledger.guarded(lease):
            home.swap(folded.manifest)
    ctx.ledger.clear(lease.state_key, folded.manifest.last_number, lease)
    home.clean()
    return folded.manifest


def drop_plans(home: Home, keep: str | None = None) -> None:
    """Delete the folded plan folders, except that of the run `keep`."""
    kept = home.plan_folder(keep) if keep else None
    for folder in (home.folder / "plans").glob("*"):
        if folder != kept:
            _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    # A writer that lost its lease may still be adding a file; the next fold cleans up after it.
    shutil.rmtree(folder, ignore_errors=True)
