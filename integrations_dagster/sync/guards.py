"""Guards on volume: a run whose numbers are far from the usual warns, or stops before it sends anything.

The usual number is the median of the last runs of the sync's state, per partition of a partitioned model. Runs of a
part of the rows, resyncs and the first run are not usual, and a run after a change of the mapping, which finds every
row changed before it looks closer, is not held against the usual number of changed rows. `removal_limit` is another
guard, and holds in any case.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from integrations_dagster.planner.state import Manifest
from integrations_dagster.sync.results import Plan
from integrations_dagster.sync.spec import GuardSpec, SyncSpec
from integrations_dagster.vocabulary import Counts, GuardTripped

COUNTED = ("queried", "added", "changed", "removed")
"""Counts of a plan that guards look at, in the order in which the state keeps them behind the number of partitions."""
ENOUGH = 5
"""Earlier runs from which there is a usual number."""
KEPT = 100
"""Earlier runs whose numbers the state keeps."""
LIFT = "If the numbers are right, launch the run with allow_volume: true, or change `guards` of the sync."


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run is, as far as its numbers go.

    Attributes:
        whole: Whether it delivers all that differs, and nothing because of a resync.
        same_mapping: Whether the mapping is that of the run before.
        allowed: Whether the guards are lifted.
        partitions: Partitions that it compares; 1 for an unpartitioned model.
    """

    whole: bool
    same_mapping: bool
    allowed: bool
    partitions: int


def check_volume(sync: SyncSpec, manifest: Manifest, counts: Counts, setting: Setting) -> tuple[str, ...]:
    """Hold the counts of a plan against the sync's guards.

    Returns:
        Warnings, a sentence each.

    Raises:
        GuardTripped: A count is beyond what stops a run, and the guards are not lifted.
    """
    guards = sync.guards
    if guards is None or not setting.whole:
        return ()
    history = manifest.volumes[-guards.runs :]
    found: list[tuple[bool, str]] = []
    for place, name in enumerate(COUNTED, start=1):
        guard = guards.limits.get(name)
        if guard is None or (name == "changed" and not setting.same_mapping):
            continue
        number = int(getattr(counts, name))
        usual = None
        if len(history) >= ENOUGH:
            usual = statistics.median(run[place] / run[0] for run in history) * setting.partitions
        found += _judged(name, number, guard, usual, guards.least, len(history))
    if stops := [what for stop, what in found if stop and not setting.allowed]:
        raise GuardTripped(f"Sync {sync.name!r}: {' '.join(stops)} Nothing was sent.", LIFT)
    return tuple(what for _, what in found)


def _judged(
    name: str, number: int, guard: GuardSpec, usual: float | None, least: int, runs: int
) -> Iterator[tuple[bool, str]]:
    """Whether a count stops the run, and a sentence that says why it is beyond its guard."""
    if guard.most is not None and number > guard.most:
        yield True, f"{number:,} rows {name}: more than `guards.{name}.most` ({guard.most:,})."
        return
    if usual is None:
        return
    away = number - usual
    # Few changes are no danger; few rows queried are.
    if abs(away) < max(least, 1) or (away < 0 and name != "queried"):
        return
    for key, share in (("stop", guard.stop), ("warn", guard.warn)):
        if share is not None and abs(away) > share * usual:
            direction = "more" if away > 0 else "fewer"
            far = f" by over {share:.0%}" if usual else ""
            yield (
                key == "stop",
                f"{number:,} rows {name}: {direction} than the usual {usual:,.0f} (median of {runs} runs){far} "
                f"(`guards.{name}.{key}`).",
            )
            return


def with_volume(manifest: Manifest, plan: Plan) -> Manifest:
    """The state with the numbers of a run that counts for what is usual."""
    if not plan.usual:
        return manifest
    numbers = [len(plan.versions), *(int(getattr(plan.counts, name)) for name in COUNTED)]
    return replace(manifest, volumes=[*manifest.volumes, numbers][-KEPT:])
