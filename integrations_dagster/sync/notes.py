"""What a plan tells a person: sentences on accounts without state, changed mappings, rows that wait, old data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from integrations_dagster.planner.diff import Diff
from integrations_dagster.planner.state import Manifest
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.results import ModelVersion
from integrations_dagster.sync.spec import SyncSpec


def plan_notes(
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
