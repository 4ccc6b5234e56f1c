"""The fold: acknowledgements into snapshot, held rows and sync log. Plain and idempotent.

What an event does to the records of the snapshot is in `planner.records`, what it does to held rows in `planner.held`.

In mode delete a record of the snapshot is a deletion that was acknowledged: delivering it is a write, and a plan names
those whose rows have left the model (`ended.parquet`), which are forgotten, so that a row that comes back is deleted
again. In modes that remove nothing the record of a row that has left a partitioned model stays, and a plan names it too
(`departed.parquet`): it is of no partition from then on, and its match value is free.

"Older" and "later" are batch numbers, which follow the order in which answers were recorded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from integrations_dagster.ledger.batches import BatchRecord
from integrations_dagster.planner.events import EVENT_COLUMNS, PACKED, EventFiles, write_events
from integrations_dagster.planner.held import (
    CONCERNED,
    DEFAULT_SPACING,
    HEEDED,
    HELD_AFTER,
    STALE,
    STALE_EFFECT,
    Spacing,
)
from integrations_dagster.planner.kept import fold_payloads
from integrations_dagster.planner.log import SETTLED
from integrations_dagster.planner.model import scalar
from integrations_dagster.planner.records import RECORDS_AFTER, settle_records
from integrations_dagster.planner.state import Home, Manifest, connect, literal, slug, to_disk
from integrations_dagster.planner.warehouse_home import WarehouseHome, repeats, write_changes


@dataclass(frozen=True, slots=True)
class Anew:
    """What a resync forgets: the digests of records, and why rows are held. Ids, match values and rows in doubt stay.

    Attributes:
        partitions: Of the records concerned; ("",) for an unpartitioned model.
        keys: Only these primary keys; empty for all.
    """

    partitions: tuple[str, ...]
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Folded:
    """A fold's result, not yet the state: `manifest` names the new files."""

    manifest: Manifest
    previous: Manifest

    @property
    def changed(self) -> bool:
        return self.manifest != self.previous


NAMED_BY_PLANS = {
    "forgotten": {"key": "VARCHAR"},
    "ended": {"key": "VARCHAR", "match": "VARCHAR", "number": "BIGINT"},
    "departed": {"key": "VARCHAR", "match": "VARCHAR", "number": "BIGINT"},
}
"""Files of plans, with their columns: held rows and records that the fold changes without an event."""

_NOTHING_ANEW: tuple[tuple[str, tuple[str, ...]], ...] = (("partitions", ()), ("keys", ()))


def outcome_files(folder: Path) -> list[Path]:
    """The outcome files of one run's plan folder: of each shard, that of its last attempt."""
    last: dict[str, tuple[int, Path]] = {}
    for path in folder.glob("outcomes-*.parquet"):
        _, shard, attempt = path.stem.split("-")
        if shard not in last or int(attempt) > last[shard][0]:
            last[shard] = (int(attempt), path)
    return sorted(path for _, path in last.values())


def fold(
    home: Home,
    batches: Iterable[BatchRecord],
    *,
    now: float,
    ahead: Sequence[EventFiles] = (),
    write_log: bool = True,
    folder: Path | None = None,
    spacing: Spacing = DEFAULT_SPACING,
    anew: Anew | None = None,
    keep_values: bool = False,
) -> Folded:
    """Compute the state after the given batches and all outcome files of the home's plan folders.

    Args:
        home: The sync's home.
        batches: Closed batches numbered above the manifest's last number, in order.
        now: Seconds since the epoch.
        ahead: Events of further ones, which `batches` lacks, in the plan folders of their runs: see `planner.ahead`.
        write_log: Whether to append the sync log (a preview does not).
        folder: Where the new state files go; the home's folder unless it is a preview.
        spacing: When rejected rows are tried again.
        anew: What to forget after the batches, for a resync.
        keep_values: Whether the payloads of the records are kept, as far as the plan folders have them.

    Returns:
        The new manifest; the caller makes it the state with `Home.swap` while it holds the lease.
    """
    previous = home.manifest()
    target = folder or home.folder
    target.mkdir(parents=True, exist_ok=True)
    scratch = target / f".fold-{slug(str(previous.generation + 1))}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        # A plan that was killed sent nothing, and its files may be incomplete.
        plans = home.plan_folders()
        outcomes = [path for plan in plans for path in outcome_files(plan)]
        named = {
            name: [path for plan in plans if (path := plan / f"{name}.parquet").exists()] for name in NAMED_BY_PLANS
        }
        batches = iter(batches)
        first = next(batches, None)
        if first is None and not ahead and not outcomes and not any(named.values()) and anew is None:
            return Folded(replace(previous, values=previous.values if keep_values else ""), previous)
        with connect(scratch) as connection:
            made = [] if first is None else list(write_events(connection, scratch, chain([first], batches)))
            told = [*ahead, *made]
            last = max([previous.last_number, *(files.last for files in told)])
            _load(connection, home, previous, told, outcomes, named, whole=anew is not None)
            for name, texts in (("partitions", anew.partitions), ("keys", anew.keys)) if anew else _NOTHING_ANEW:
                connection.execute(f"SET VARIABLE anew_{name} = CAST(? AS VARCHAR[])", [list(texts)])
            if write_log:
                _write_log(connection, home, previous.last_number, now, ahead, made)
            for name, value in (("now", now), *asdict(spacing).items()):
                connection.execute(f"SET VARIABLE {name} = ?", [value])
            manifest = replace(
                previous,
                generation=previous.generation + 1,
                last_number=last,
                values="",
            )
            keep = _keep_changes if isinstance(home, WarehouseHome) else _keep_files
            manifest = keep(connection, manifest, target, RECORDS_AFTER if anew is None else _RECORDS_ANEW)
            # A home in the warehouse keeps none.
            if keep_values and not isinstance(home, WarehouseHome):
                manifest = replace(manifest, values=f"values-{manifest.generation}-{last}.parquet")
                before = home.folder / previous.values if previous.values else None
                values = [path for plan in plans for path in sorted(plan.glob("values-*.parquet"))]
                state = (target / manifest.snapshot, target / manifest.held)
                fold_payloads(connection, before, values, state, target / manifest.values)
            return Folded(manifest, previous)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _keep_files(connection: duckdb.DuckDBPyConnection, manifest: Manifest, target: Path, after: str) -> Manifest:
    name = f"{manifest.generation}-{manifest.last_number}.parquet"
    snapshot, held = f"snapshot-{name}", f"held-{name}"
    _copy(connection, after, target / snapshot)
    _copy(connection, HELD_AFTER, target / held)
    rows = pq.ParquetFile(target / snapshot).metadata.num_rows
    return replace(manifest, snapshot=snapshot, held=held, rows=rows)


def _keep_changes(connection: duckdb.DuckDBPyConnection, manifest: Manifest, target: Path, after: str) -> Manifest:
    """Of a home in the warehouse: what is to be replaced there."""
    name = f"fold-{manifest.generation}-{manifest.last_number}"
    shutil.rmtree(target / name, ignore_errors=True)
    grown = {}
    for kind, query in (("snapshot", after), ("held", HELD_AFTER)):
        connection.execute(f"CREATE TEMP TABLE {kind}_after AS {query}")
        grown[kind] = write_changes(connection, kind, kind, f"{kind}_after", target / name)
    return replace(
        manifest,
        snapshot=name,
        rows=manifest.rows + grown["snapshot"],
        shared=manifest.shared or repeats(connection, "snapshot_after", "match"),
        several=manifest.several or repeats(connection, "snapshot_after", "key"),
    )


def _copy(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    connection.execute(f"COPY ({query}) TO {literal(str(path))} ({PACKED})")
    to_disk(path)


def _files(paths: Iterable[Path]) -> str:
    return "[" + ", ".join(literal(str(path)) for path in paths) + "]"


# State


def _load(
    connection: duckdb.DuckDBPyConnection,
    home: Home,
    previous: Manifest,
    told: list[EventFiles],
    outcomes: list[Path],
    named: Mapping[str, list[Path]],
    *,
    whole: bool,
) -> None:
    if told:
        rows, batches = _files([part.rows for part in told]), _files([part.batches for part in told])
        connection.execute(f"CREATE TEMP VIEW raw_events AS SELECT * FROM read_parquet({rows})")
        connection.execute(f"CREATE TEMP TABLE batches AS SELECT * FROM read_parquet({batches})")
    else:
        columns = ", ".join(f"{name} {kind}" for name, kind in EVENT_COLUMNS.items())
        connection.execute(f"CREATE TEMP TABLE raw_events ({columns})")
    empty = "(key VARCHAR, match VARCHAR, partition VARCHAR, change VARCHAR, status VARCHAR, source_digest VARCHAR, "
    empty += "payload_digest VARCHAR, code VARCHAR, reason VARCHAR, remember BOOLEAN, run_id VARCHAR)"
    if outcomes:
        connection.execute(
            "CREATE TEMP VIEW outcomes AS "
            "SELECT * EXCLUDE (filename), parse_filename(parse_dirpath(filename)) AS run_id "
            f"FROM read_parquet({_files(outcomes)}, filename = true)"
        )
    else:
        connection.execute(f"CREATE TEMP TABLE outcomes {empty}")
    for name, kinds in NAMED_BY_PLANS.items():
        if named[name]:
            query = f"SELECT DISTINCT {', '.join(kinds)} FROM read_parquet({_files(named[name])})"
            connection.execute(f"CREATE TEMP TABLE {name} AS {query}")
        else:
            declared = ", ".join(f"{column} {kind}" for column, kind in kinds.items())
            connection.execute(f"CREATE TEMP TABLE {name} ({declared})")
    _bring(connection, home, previous, whole=whole)
    connection.execute(STALE)
    if scalar(connection, "SELECT count(*) FROM stale"):
        connection.execute(
            f"""CREATE TEMP VIEW events AS
            SELECT e.* REPLACE (CASE WHEN s.key IS NULL THEN effect ELSE {STALE_EFFECT} END AS effect)
            FROM raw_events e LEFT JOIN stale s ON s.key = e.key AND s.number = e.number"""
        )
    else:
        connection.execute("CREATE TEMP VIEW events AS SELECT * FROM raw_events")
    settle_records(connection)
    connection.execute(HEEDED)


def _bring(connection: duckdb.DuckDBPyConnection, home: Home, previous: Manifest, *, whole: bool) -> None:
    """Make `snapshot` and `held` readable: all of them, or what these events may touch."""
    if not isinstance(home, WarehouseHome):
        home.attach(connection, previous)
        return
    connection.execute(
        """CREATE TEMP TABLE touching AS
        SELECT 'key' AS kind, key AS value FROM raw_events
        UNION SELECT 'key', key FROM outcomes UNION SELECT 'key', key FROM forgotten UNION SELECT 'key', key FROM ended
        UNION SELECT 'key', key FROM departed
        UNION SELECT 'match', match FROM raw_events
        UNION SELECT 'destination_id', destination_id FROM raw_events WHERE destination_id IS NOT NULL"""
    )
    home.touched(connection, previous, whole=whole)


# The snapshot after a resync: what it concerns has unknown digests, and differs from everything.
_RECORDS_ANEW = f"""
SELECT * EXCLUDE (concerned) REPLACE (
    CASE WHEN NOT concerned THEN source_digest END AS source_digest,
    CASE WHEN NOT concerned THEN payload_digest END AS payload_digest)
FROM (SELECT *, {CONCERNED} AS concerned FROM ({RECORDS_AFTER}))
"""


def _write_log(
    connection: duckdb.DuckDBPyConnection,
    home: Home,
    before: int,
    now: float,
    ahead: Sequence[EventFiles],
    made: Sequence[EventFiles],
) -> None:
    """Log files are named by run and range of numbers; rows are in no order. They appear complete, and are on disk
    before the batches that they tell of are deleted.

    Files above the number `before`, which the state contains, were left by a fold that was killed.
    """
    runs = {}
    if ahead or made:
        ranges = connection.execute("SELECT run_id, min(number), max(number) FROM batches GROUP BY run_id").fetchall()
        runs = {run_id: (first, last) for run_id, first, last in ranges}
    for run_id, (first, last) in runs.items():
        folder = home.log_folder(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        for path in [*folder.glob("rows-*.parquet"), *folder.glob("batches-*.parquet")]:
            if int(path.stem.split("-")[1]) > before:
                path.unlink()
        query = f"SELECT * FROM batches WHERE run_id = {literal(run_id)}"
        _appear(connection, query, folder / f"batches-{first}-{last}.parquet")
    for files in ahead:
        _link(files, home.folder / "log" / files.rows.parent.name)
    if len(runs) == 1 and not scalar(connection, "SELECT count(*) FROM stale"):
        # Where all events are of one run, their files are its log, and need not be written again.
        for files in made:
            to_disk(files.rows)
            _link(files, home.log_folder(next(iter(runs))))
    elif made:
        connection.execute(
            f"CREATE TEMP VIEW made AS SELECT * FROM events WHERE number IN "
            f"(SELECT number FROM read_parquet({_files(part.batches for part in made)}))"
        )
        for run_id, first, last in connection.execute(
            "SELECT run_id, min(number), max(number) FROM made GROUP BY run_id"
        ).fetchall():
            query = f"SELECT * FROM made WHERE run_id = {literal(run_id)}"
            _appear(connection, query, home.log_folder(run_id) / f"rows-{first}-{last}.parquet")
    settled = connection.execute("SELECT DISTINCT run_id FROM outcomes WHERE status <> 'unchanged'").fetchall()
    for (run_id,) in settled:
        folder = home.folder / "log" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        query = f"SELECT *, CAST({now} AS DOUBLE) AS closed FROM outcomes"
        query += f" WHERE status <> 'unchanged' AND run_id = {literal(run_id)}"
        _appear(connection, query, folder / SETTLED)
    log = home.folder / "log"
    folders = {*(home.log_folder(run_id) for run_id in runs), *(log / run_id for (run_id,) in settled)}
    for folder in [*folders, log] if folders else ():
        to_disk(folder)


def _appear(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write a file of the log, which is there when it is complete."""
    draft = path.with_name(f".{path.name}")
    connection.execute(f"COPY ({query}) TO {literal(str(draft))} ({PACKED})")
    to_disk(draft)
    draft.replace(path)


def _link(files: EventFiles, folder: Path) -> None:
    """Make rows of the log of a file of events, which is complete."""
    path = folder / f"rows-{files.first}-{files.last}.parquet"
    try:
        os.link(files.rows, path)
    except OSError:
        # A file system without links.
        draft = path.with_name(f".{path.name}")
        shutil.copyfile(files.rows, draft)
        to_disk(draft)
        draft.replace(path)
