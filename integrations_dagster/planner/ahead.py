"""Events that are written ahead of the fold: a cache of what it would make of the ledger's batches.

While a shard is being sent, its write op turns batches that are completed into the files that the fold needs, in the
run's plan folder. That is no state: a completed batch never changes, so that its events can be made at any time, and
are made of the ledger where they are missing. A file counts only if the ledger still has each of its batches under the
same number, idempotency key and attempt, above the last number of the state, and if no other file that counts has one
of them. A file that a killed or a replaced writer has left is right, therefore, or not used.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from integrations_dagster.ledger.batches import BatchRecord
from integrations_dagster.ledger.store import Closed
from integrations_dagster.planner.events import EventFiles, write_events
from integrations_dagster.planner.state import connect, to_disk

_NAMES = ("number", "idempotency_key", "attempt")
_ROWS, _BATCHES = "ahead1-rows-", "ahead1-batches-"
"""What the files' names begin with. The number is raised where events change: those of another version do not count."""


def connect_ahead(folder: Path, shard: int) -> duckdb.DuckDBPyConnection:
    """What `write_ahead` works with, on one thread, because requests are being sent meanwhile."""
    return connect(folder / f".spill-{shard:03d}-{os.getpid()}", threads=1)


def write_ahead(
    connection: duckdb.DuckDBPyConnection, folder: Path, shard: int, batches: Iterable[BatchRecord]
) -> None:
    """Write the events of completed batches of one shard into the run's plan folder.

    Args:
        connection: See `connect_ahead`.
        folder: The plan folder, which must exist.
        shard: Index of the shard.
        batches: In order of their numbers.
    """
    scratch = folder / f".ahead-{shard:03d}-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        for made in write_events(connection, scratch, batches):
            name = f"{shard:03d}-{made.first}-{made.last}.parquet"
            for path in (made.rows, made.batches):
                to_disk(path)
            # The second one tells that both are complete.
            made.rows.replace(folder / f"{_ROWS}{name}")
            made.batches.replace(folder / f"{_BATCHES}{name}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _pairs(folder: Path, shard: str) -> Iterable[EventFiles]:
    for path in sorted(folder.glob(f"{_BATCHES}{shard}-*.parquet")):
        first, last = path.stem.split("-")[3:]
        rows = path.with_name(path.name.replace(_BATCHES, _ROWS))
        yield EventFiles(rows, path, int(first), int(last))


def last_ahead(folder: Path, shard: int) -> int:
    """The last number of a shard's batches whose events are written; 0 if none is."""
    return max((files.last for files in _pairs(folder, f"{shard:03d}")), default=0)


def written_ahead(folders: Sequence[Path], closed: Sequence[Closed]) -> tuple[list[EventFiles], list[int]]:
    """The files that count.

    Args:
        folders: Plan folders.
        closed: Closed batches above the last number of the state.

    Returns:
        The files, and the numbers of the closed batches that are in none of them.
    """
    missing = {batch.number: batch for batch in closed}
    found = []
    for files in (files for folder in folders for files in _pairs(folder, "*")):
        try:
            with pq.ParquetFile(files.batches) as batches:
                columns = batches.read([*_NAMES, "rows"]).to_pydict()
            told = [Closed(*batch) for batch in zip(*(columns[name] for name in _NAMES), strict=True)]
            whole = pq.read_metadata(files.rows).num_rows == sum(columns["rows"])
            counts = whole and all(missing.get(batch.number) == batch for batch in told)
        except (OSError, pa.ArrowException):
            # It has been lost or damaged; the ledger has what it had.
            continue
        if counts:
            found.append(files)
            for batch in told:
                del missing[batch.number]
    return found, sorted(missing)
