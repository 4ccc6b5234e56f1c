"""What a run forgets on demand (a resync), and when the state of a sync cannot be taken over by another mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from integrations_dagster.planner.diff import Diff
from integrations_dagster.planner.fold import Anew
from integrations_dagster.planner.state import Manifest
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.vocabulary import Misconfigured, Mode, Partition


class Resync(Protocol):
    """The part of a launch's options that is about a resync."""

    @property
    def full_resync(self) -> bool: ...

    @property
    def resync_keys(self) -> tuple[str, ...]: ...


def anew_of(sync: SyncSpec, options: Resync, partitions: Sequence[Partition]) -> Anew | None:
    """What a launch asks to forget: of the partitions that it compares, and of no others.

    Raises:
        Misconfigured: The mode creates a record for each row, and would create all of them once more.
    """
    if not options.full_resync and not options.resync_keys:
        return None
    if options.full_resync and sync.mode in (Mode.INSERT, Mode.APPEND):
        raise Misconfigured(
            f"Sync {sync.name!r} ({sync.source}): mode {sync.mode} delivers each row once, and a full resync would "
            "create all of them a second time.",
            "Name the rows that are to be delivered again with resync_keys.",
        )
    keys = () if options.full_resync else options.resync_keys
    return Anew(tuple(p.key for p in partitions) or ("",), keys)


def resync_notes(anew: Anew | None, result: Diff) -> Iterator[str]:
    """Sentences on what is sent because what the destination holds is not known.

    Args:
        anew: What this run forgot, or None.
        result: What the plan found.
    """
    rows = f"{result.unknown:,} row(s) that were delivered before"
    if anew is not None and not anew.keys:
        yield f"Full resync: {rows} are delivered anew."
    elif anew is not None:
        yield f"Resync of {len(anew.keys):,} key(s): {rows} are delivered anew."
    elif result.unknown:
        yield (
            f"{result.unknown:,} row(s) that were sent before are sent anew, because an earlier run's resync has not "
            "come to them yet, or a request that sent them had no answer."
        )


def taken_over(sync: SyncSpec, manifest: Manifest) -> Manifest:
    """A state as it goes on under the sync's mode and mapping; it comes into force when a plan of the sync succeeds.

    Args:
        manifest: The state, with all that earlier runs have delivered.

    Raises:
        Misconfigured: The mode was changed to or from delete: in mode delete the state holds deletions, in all others
            records that are at the destination.
    """
    if manifest.mode and manifest.rows and (manifest.mode == Mode.DELETE) != (sync.mode is Mode.DELETE):
        raise Misconfigured(
            f"Sync {sync.name!r} ({sync.source}): its mode was changed from {manifest.mode} to {sync.mode}, and its "
            f"state tells of {'deletions' if manifest.mode == Mode.DELETE else 'records that were delivered'}.",
            "Give the sync a new name, so that it begins with a state of its own.",
        )
    # Rows that a new mapping changes lie anywhere, also before the cursor.
    cursor = manifest.cursor if manifest.mapping_digest in ("", sync.mapping_digest) else ""
    return replace(manifest, mode=sync.mode.value, mapping_digest=sync.mapping_digest, cursor=cursor)
