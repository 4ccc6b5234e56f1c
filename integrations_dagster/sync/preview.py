"""preview: what a run would do now, without lease, without changing state, without sending."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from integrations_dagster.ledger.batches import BatchStatus
from integrations_dagster.planner.diff import Diff, diff
from integrations_dagster.planner.fold import fold
from integrations_dagster.planner.kept import kept_payloads
from integrations_dagster.planner.rows import streamed
from integrations_dagster.planner.state import Home, Manifest, connect
from integrations_dagster.sync.account import Connected, connect_account, identify
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.homes import home_of
from integrations_dagster.sync.inputs import PlanOptions, model_versions, settings_of, source_of
from integrations_dagster.sync.lookups import prepared_lookups, reading_notes
from integrations_dagster.sync.mapping import Mapper
from integrations_dagster.sync.notes import plan_notes
from integrations_dagster.sync.packer import limits_of
from integrations_dagster.sync.resync import anew_of, taken_over
from integrations_dagster.sync.schema import FieldsDoNotFit, check_schema
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.state import (
    spacing_of,
    state_key,
)
from integrations_dagster.vocabulary import Action, Counts, Partition, Row, Status


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
            anew=anew_of(sync, options, partitions),
            keep_values=sync.keep_values,
        )
        if not folded.changed or not folded.manifest.generation > previous.generation:
            state, manifest = home, previous
        else:
            state, manifest = home.drafting(folder / "state"), folded.manifest
        taken_over(sync, manifest)
        with (
            model_versions(sync.model, ctx, partitions) as versions,
            prepared_lookups(sync, ctx, folder / "plan") as (lookups, uses),
        ):
            source = source_of(sync, connected, versions, lookups)
            settings = settings_of(sync, connected, options, manifest, ctx.ledger.now())
            result = diff(state, manifest, source, settings, folder / "plan")
            notes = plan_notes(sync, ctx, previous, manifest, result, versions)
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
        for batch in streamed(path).iter_batches(2000):
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
