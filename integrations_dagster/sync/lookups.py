"""The lookups of a sync, ready for its plan: reference data, fresh enough, and what other syncs have delivered."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from integrations_dagster.planner.lookups import Lookup
from integrations_dagster.planner.warehouse_home import WarehouseHome
from integrations_dagster.sync.account import connect_account, identify
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.homes import home_of
from integrations_dagster.sync.readings import LookupUse, SchemaReport
from integrations_dagster.sync.references import ReferenceRead, known_columns, read_reference
from integrations_dagster.sync.spec import LookupSpec, SyncSpec
from integrations_dagster.sync.versions import in_use
from integrations_dagster.vocabulary import IntegrationsError

TRIES = 5
"""Looks at another sync's state, which its own run may replace meanwhile."""


@contextlib.contextmanager
def prepared_lookups(
    sync: SyncSpec, ctx: RunContext, folder: Path
) -> Iterator[tuple[tuple[Lookup, ...], tuple[LookupUse, ...]]]:
    """The sync's lookups for its plan; what they read is kept from clean-up meanwhile.

    Reference data that is older than a lookup's `cache`, or missing, is read from the destination.

    Args:
        folder: For files of this plan; made where it is missing.

    Raises:
        Misconfigured, DestinationUnavailable, Stopped: See `read_reference`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        uses: list[LookupUse] = []
        files: dict[str, tuple[Path, ...]] = {}
        for reference in sync.references:
            mine = [lookup for lookup in sync.lookups if lookup.reference == reference]
            found = read_reference(
                sync.destination,
                ctx,
                reference,
                known_columns(sync.destination, reference, [c for one in mine for c in (one.key, one.value)]),
                max_age=min(lookup.cache for lookup in mine),
                who=f"Sync {sync.name!r} ({sync.source})",
            )
            stack.enter_context(in_use(found.version))
            uses.append(reference_use(found, ctx.ledger.now()))
            files |= dict.fromkeys(
                (lookup.name for lookup in mine), tuple(sorted(Path(found.version.path).glob("part-*.parquet")))
            )
        for other in {lookup.sync.name: lookup.sync for lookup in sync.lookups if lookup.sync is not None}.values():
            snapshot, rows = _delivered(other, ctx, folder)
            uses.append(LookupUse(other.name, rows=rows))
            files |= {
                lookup.name: snapshot for lookup in sync.lookups if lookup.sync and lookup.sync.name == other.name
            }
        wanted = {(field.lookup, field.column): field for field in sync.fields if field.lookup is not None}
        yield (
            tuple(
                _planned(sync, sync.lookup(name), column, field.source or "", files)
                for (name, column), field in wanted.items()
                if name is not None and column is not None
            ),
            tuple(uses),
        )


def reading_notes(uses: Sequence[LookupUse], schema: SchemaReport) -> Iterator[str]:
    """What a person should know of what a plan has read."""
    for use in uses:
        if not use.rows:
            yield f"Values were looked up in {use.name}, which has no record."
    if schema.note:
        yield schema.note
    if schema.drift.used:
        yield f"Since the last run: {'; '.join(schema.drift.used)}."
    for misfit in schema.misfits:
        yield f"Field {misfit.field!r} {misfit.problem}"


def reference_use(found: ReferenceRead, now: float) -> LookupUse:
    """What there is to say of reference data that was asked for at a moment (seconds since the epoch)."""
    version = found.version
    return LookupUse(
        version.partition,
        version.name,
        version.rows,
        max(0.0, now - version.started),
        found.read,
        found.requests,
        version.seconds if found.read else 0.0,
        tuple(name for name, _ in version.columns),
    )


def _planned(
    sync: SyncSpec, spec: LookupSpec, column: str, computed: str, files: dict[str, tuple[Path, ...]]
) -> Lookup:
    if spec.sync is not None:
        by = _label(spec)
        where = spec.sync.name
        records = f"records of sync {where}"
        missing = f"sync {where} has not delivered a record whose {by} is {{}}"
    else:
        where = str(spec.reference)
        records = f"{where} of {sync.destination.name}"
        missing = f"{records} have none whose {spec.key} is {{}}"
    return Lookup(
        name=computed,
        column=column,
        files=files[spec.name],
        key=spec.key,
        value=spec.value,
        normalization=spec.normalization,
        no_match=spec.no_match,
        several=spec.several,
        # A key has two records while its match value changes, or where one was left behind.
        newest="number" if spec.sync is not None else "",
        records=records,
        missing=missing,
    )


def _label(spec: LookupSpec) -> str:
    """What people call the key of a lookup in another sync."""
    assert spec.sync is not None
    names = spec.sync.model.primary_key if spec.key == "key" or not spec.sync.match else tuple(spec.sync.match)
    return ", ".join(names)


def _delivered(other: SyncSpec, ctx: RunContext, folder: Path) -> tuple[tuple[Path, ...], int]:
    """What another sync is known to have delivered, as files that its own runs leave alone, and how many records."""
    home = home_of(other, ctx, identify(other, ctx, connect_account(other, ctx)))
    mine = folder / f"delivered-{other.name}.parquet"
    if isinstance(home, WarehouseHome):
        state = home.state()
        if state is None:
            return (), 0
        home.take(state, mine, folder / f"held-{other.name}.parquet")
        return (mine,), home.manifest().rows
    for _ in range(TRIES):
        manifest = home.manifest()
        if not manifest.snapshot:
            return (), 0
        source = home.folder / manifest.snapshot
        # A fold of the other sync may delete its file between the look at its manifest and this.
        with contextlib.suppress(FileNotFoundError):
            mine.unlink(missing_ok=True)
            try:
                os.link(source, mine)
            except FileNotFoundError:
                raise
            except OSError:
                # Another file system, or one without links.
                shutil.copyfile(source, mine)
            return (mine,), manifest.rows
    raise IntegrationsError(
        f"The state of sync {other.name!r} was replaced {TRIES} times while it was read.", "Launch the run again."
    )
