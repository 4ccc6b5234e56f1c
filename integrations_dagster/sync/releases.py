"""What a person is told of a run that sends held rows again."""

from __future__ import annotations

from collections.abc import Iterator

from integrations_dagster.planner.candidates import Release
from integrations_dagster.planner.diff import Diff
from integrations_dagster.sync.spec import SyncSpec

NAMED = 20
"""Keys that a sentence names."""


def release_notes(sync: SyncSpec, release: Release | None, result: Diff) -> Iterator[str]:
    """Sentences on what a release did: how many rows it freed, and which of the named keys it did not, and why.

    Args:
        release: What the launch asked for; None: nothing is said.
        result: What the plan found.
    """
    if release is None:
        return
    if result.released:
        rows = "row was" if result.released == 1 else "rows were"
        yield f"{result.released:,} held {rows} released and sent again."
    else:
        yield "No held row fits: nothing was released, and nothing is sent."
    if result.unheld:
        yield f"Not held: {_some(result.unheld)}. See `integrations trace {sync.name} KEY`."
    if result.still_held:
        doubt = "" if release.in_doubt else ", in doubt (--in-doubt)"
        narrow = ", held earlier, or for another reason" if release.since is not None or release.reason else ""
        yield f"Held, and not released: {_some(result.still_held)}. They are not in the model any more{doubt}{narrow}."


def _some(keys: list[str]) -> str:
    more = len(keys) - NAMED
    return ", ".join(keys[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
