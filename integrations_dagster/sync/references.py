"""Reference data of a destination: read page by page, and kept as an immutable version that plans join with.

A version is read anew when it is older than what a lookup allows, when it lacks a column that a lookup needs, when
there is none, and by hand. Who reads, holds a lock: another plan waits for its end, and takes what it read.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from integrations_dagster.delivery.engine import refusal
from integrations_dagster.delivery.permits import Stopped
from integrations_dagster.destinations.base import Flow
from integrations_dagster.destinations.errors import DestinationError, Unavailable
from integrations_dagster.destinations.reading import Page
from integrations_dagster.planner.rows import table
from integrations_dagster.planner.state import slug
from integrations_dagster.sync.account import (
    Connected,
    Conversation,
    DestinationUnavailable,
    account_of,
    connect_destination,
)
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.results import ModelVersion
from integrations_dagster.sync.spec import DestinationSpec
from integrations_dagster.sync.versions import LOOKUPS, drafted, folder_of, newest_version, prune, publish, version_name
from integrations_dagster.vocabulary import Misconfigured

GROUP = 20_000
"""Rows of a Parquet row group."""
LOOK = 0.1
"""Seconds between two looks whether another process has read what is wanted."""


@dataclass(frozen=True, slots=True)
class ReferenceRead:
    """A version of reference data, and what it took to have it.

    Attributes:
        version: Its `model` is the account, its `partition` the reference's name.
        read: Whether it was read for this call; False: it was there.
        requests: HTTP requests that reading took.
    """

    version: ModelVersion
    read: bool
    requests: int = 0


def read_reference(
    spec: DestinationSpec,
    ctx: RunContext,
    reference: str,
    columns: Sequence[str],
    *,
    max_age: float | None,
    who: str,
) -> ReferenceRead:
    """A version of a reference of the destination's account.

    Args:
        reference: A name of `Destination.references`.
        columns: Columns that it must have.
        max_age: Seconds since the start of its reading that it may be old; None: it is read now, come what may.
        who: What asks, as errors begin: "Sync 'contacts' (defs/contacts/defs.yaml:3)".

    Raises:
        Misconfigured: The account cannot be resolved, or refuses the request.
        DestinationUnavailable: It does not answer.
        Stopped: The run is being cancelled.
    """
    connected = connect_destination(spec, ctx, who)
    account = account_of(spec, ctx, connected, who)
    asked = ctx.ledger.now()
    found = _usable(ctx, account, reference, columns, max_age)
    if found is not None:
        return ReferenceRead(found, read=False)
    with _alone(ctx, folder_of(ctx.storage, slug(account), reference, shelf=LOOKUPS)):
        # Another process may have read it meanwhile; what it read counts as read now if it began after we asked.
        age = max_age if max_age is not None else ctx.ledger.now() - asked
        found = _usable(ctx, account, reference, columns, age)
        if found is not None:
            return ReferenceRead(found, read=False)
        last = newest_version(ctx.storage, slug(account), reference, shelf=LOOKUPS)
        # Syncs may need different columns: a version has those of the one before, so that none takes another's away.
        known = [] if last is None else [name for name, _ in last.columns]
        return _read(spec, ctx, connected, account, reference, list(dict.fromkeys([*columns, *known])), who)


def known_columns(spec: DestinationSpec, reference: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """The columns to read of a reference: all, where they are known, else those that are wanted."""
    found = next(entry for entry in spec.create().references() if entry.name == reference)
    return tuple(dict.fromkeys(found.columns or (found.value, *wanted)))


def _usable(
    ctx: RunContext, account: str, reference: str, columns: Sequence[str], max_age: float | None
) -> ModelVersion | None:
    version = newest_version(ctx.storage, slug(account), reference, shelf=LOOKUPS)
    if version is None or max_age is None or not set(columns) <= {name for name, _ in version.columns}:
        return None
    return version if ctx.ledger.now() - version.started <= max_age else None


def _read(
    spec: DestinationSpec,
    ctx: RunContext,
    connected: Connected,
    account: str,
    reference: str,
    columns: Sequence[str],
    who: str,
) -> ReferenceRead:
    columns = known_columns(spec, reference, columns)
    schema = pa.schema([(name, pa.string()) for name in columns])
    started, clock = ctx.ledger.now(), time.monotonic()
    name = version_name(started, ctx.run_id)
    place = slug(account)
    where = f"{who}, target {spec.target.name!r}: {reference} of {spec.name}"
    try:
        with drafted(ctx.storage, place, reference, name, shelf=LOOKUPS) as draft:
            rows = 0
            with (
                Conversation(spec, ctx, connected, account) as conversation,
                pq.ParquetWriter(draft / "part-0.parquet", schema) as writer,
            ):
                for group in _groups(connected, conversation, reference, columns):
                    writer.write_table(table(group, schema))
                    rows += len(group)
            version = ModelVersion(
                model=place,
                partition=reference,
                name=name,
                path=str(folder_of(ctx.storage, place, reference, shelf=LOOKUPS) / name),
                started=started,
                seconds=time.monotonic() - clock,
                rows=rows,
                columns=tuple((column, "VARCHAR") for column in columns),
                sql="",
            )
            publish(draft, version)
    except Unavailable as error:
        remedy = "Nothing was sent and nothing is lost: launch the run again when it answers."
        label = connected.destination.label
        raise DestinationUnavailable(
            f"{where} could not be read: {label} is unavailable. {error.reason}", remedy
        ) from (error)
    except DestinationError as error:
        raise Misconfigured(f"{where} could not be read: {refusal(connected.destination.label, error)}") from error
    prune(ctx.storage, place, reference, shelf=LOOKUPS)
    ctx.log(
        f"{reference} of {spec.name}: {rows:,} records read in {version.seconds:.1f} s "
        f"({conversation.requests:,} request(s))."
    )
    return ReferenceRead(version, read=True, requests=conversation.requests)


def _groups(
    connected: Connected, conversation: Conversation, reference: str, columns: Sequence[str]
) -> Iterator[list[dict[str, str | None]]]:
    """All records, some thousands at a time."""
    group: list[dict[str, str | None]] = []
    cursor: str | None = None
    seen: set[str] = set()
    while True:

        def start(cursor: str | None = cursor) -> Flow[Page]:
            return connected.destination.read(reference, columns, cursor)

        page = conversation.ask(start)
        group += [{column: row.get(column) for column in columns} for row in page.rows]
        if len(group) >= GROUP:
            yield group
            group = []
        if page.cursor is None:
            break
        if page.cursor in seen:
            label = connected.destination.label
            raise Unavailable(f"{label} names a page of {reference} a second time.", "UNREADABLE_ANSWER")
        seen.add(page.cursor)
        cursor = page.cursor
    if group:
        yield group


@contextmanager
def _alone(ctx: RunContext, folder: Path) -> Iterator[None]:
    """Nobody else reads into this folder meanwhile; the kernel frees the lock of a process that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".reading").open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if ctx.stop.wait(LOOK):
                    raise Stopped from None
        yield
