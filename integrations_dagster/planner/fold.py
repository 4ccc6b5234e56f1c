"""The fold: acknowledgements into snapshot, held rows and sync log. Plain and idempotent.

What an event does to the records of the snapshot:

- an acknowledged write of key K with match value m and destination id d replaces (K, m); any older record with the same
  match value, or of K with the same id, is that record under an earlier owner or name, and goes, and so does one of
  another key with that id whose state is unknown. (Where it is known, two keys are one record at the destination, as
  merged contacts are: both stay, or each run would send the other.)
- an acknowledged create makes (K, m) likewise, but it made a record of its own: those of other keys stay;
- an acknowledged delete removes the record, by key and match value or by id;
- an unknown write (or a late answer) leaves its record with unknown digests, and so every other record that it may have
  touched: the same match value or id; an unknown delete likewise, and the ids are forgotten: if the record is gone, the
  next one with this match value has another;
- a row rejected, in doubt or known to be absent changes no record, unless the destination says that the record is gone.

In mode delete a record of the snapshot is a deletion that was acknowledged: delivering it is a write, and a plan names
those whose rows have left the model (`ended.parquet`), which are forgotten, so that a row that comes back is deleted
again.

"Older" and "later" are batch numbers, which follow the order in which answers were recorded.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from integrations_dagster.ledger.batches import BatchRecord
from integrations_dagster.planner.events import EVENT_COLUMNS, write_events
from integrations_dagster.planner.held import CONCERNED, DEFAULT_SPACING, HELD_AFTER, STALE, STALE_EFFECT, Spacing
from integrations_dagster.planner.kept import fold_payloads
from integrations_dagster.planner.log import SETTLED
from integrations_dagster.planner.model import scalar
from integrations_dagster.planner.state import (
    SNAPSHOT_COLUMNS,
    Home,
    Manifest,
    connect,
    literal,
    quote,
    slug,
    to_disk,
)
from integrations_dagster.planner.warehouse_home import WarehouseHome, write_changes


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
        forgotten = [path for plan in plans if (path := plan / "forgotten.parquet").exists()]
        ended = [path for plan in plans if (path := plan / "ended.parquet").exists()]
        batches = iter(batches)
        first = next(batches, None)
        if first is None and not outcomes and not forgotten and not ended and anew is None:
            values = previous.values if keep_values else ""
            return Folded(replace(previous, values=values), previous)
        found = first is not None
        with connect(scratch) as connection:
            last = previous.last_number
            if first is not None:
                last = write_events(connection, scratch, chain([first], batches), last)
            _load(connection, home, previous, scratch, outcomes, forgotten, ended, found=found, whole=anew is not None)
            for name, texts in (("partitions", anew.partitions), ("keys", anew.keys)) if anew else _NOTHING_ANEW:
                connection.execute(f"SET VARIABLE anew_{name} = CAST(? AS VARCHAR[])", [list(texts)])
            if write_log:
                _write_log(connection, home, scratch, previous.last_number, now, found=found)
            for name, value in (("now", now), *asdict(spacing).items()):
                connection.execute(f"SET VARIABLE {name} = ?", [value])
            manifest = replace(
                previous,
                generation=previous.generation + 1,
                last_number=last,
                values="",
            )
            keep = _keep_changes if isinstance(home, WarehouseHome) else _keep_files
            manifest = keep(connection, manifest, target, _SNAPSHOT_AFTER if anew is None else _SNAPSHOT_ANEW)
            # A home in the warehouse keeps none.
            if keep_values and not isinstance(home, WarehouseHome):
                manifest = replace(manifest, values=f"values-{manifest.generation}-{last}.parquet")
                before = home.folder / previous.values if previous.values else None
                told = [path for plan in plans for path in sorted(plan.glob("values-*.parquet"))]
                state = (target / manifest.snapshot, target / manifest.held)
                fold_payloads(connection, before, told, state, target / manifest.values)
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
    shared = scalar(
        connection, "SELECT count(*) FROM (SELECT match FROM snapshot_after GROUP BY match HAVING count(*) > 1)"
    )
    return replace(
        manifest, snapshot=name, rows=manifest.rows + grown["snapshot"], shared=manifest.shared or shared > 0
    )


def _copy(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
    to_disk(path)


# State


def _load(
    connection: duckdb.DuckDBPyConnection,
    home: Home,
    previous: Manifest,
    scratch: Path,
    outcomes: list[Path],
    forgotten: list[Path],
    ended: list[Path],
    *,
    found: bool,
    whole: bool,
) -> None:
    def files(paths: list[Path]) -> str:
        return "[" + ", ".join(literal(str(path)) for path in paths) + "]"

    if found:
        paths = files(sorted(scratch.glob("events-*.parquet")))
        connection.execute(f"CREATE TEMP VIEW raw_events AS SELECT * FROM read_parquet({paths})")
        batches = literal(str(scratch / "batches.parquet"))
        connection.execute(f"CREATE TEMP VIEW batches AS SELECT * FROM read_parquet({batches})")
    else:
        columns = ", ".join(f"{name} {kind}" for name, kind in EVENT_COLUMNS.items())
        connection.execute(f"CREATE TEMP TABLE raw_events ({columns})")
    empty = "(key VARCHAR, match VARCHAR, partition VARCHAR, change VARCHAR, status VARCHAR, source_digest VARCHAR, "
    empty += "payload_digest VARCHAR, code VARCHAR, reason VARCHAR, remember BOOLEAN, run_id VARCHAR)"
    if outcomes:
        connection.execute(
            "CREATE TEMP VIEW outcomes AS "
            "SELECT * EXCLUDE (filename), parse_filename(parse_dirpath(filename)) AS run_id "
            f"FROM read_parquet({files(outcomes)}, filename = true)"
        )
    else:
        connection.execute(f"CREATE TEMP TABLE outcomes {empty}")
    if forgotten:
        connection.execute(f"CREATE TEMP VIEW forgotten AS SELECT key FROM read_parquet({files(forgotten)})")
    else:
        connection.execute("CREATE TEMP TABLE forgotten (key VARCHAR)")
    if ended:
        connection.execute(
            f"CREATE TEMP VIEW ended AS SELECT DISTINCT key, match, number FROM read_parquet({files(ended)})"
        )
    else:
        connection.execute("CREATE TEMP TABLE ended (key VARCHAR, match VARCHAR, number BIGINT)")
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
    connection.execute(_TOUCHES)


def _bring(connection: duckdb.DuckDBPyConnection, home: Home, previous: Manifest, *, whole: bool) -> None:
    """Make `snapshot` and `held` readable: all of them, or what these events may touch."""
    if not isinstance(home, WarehouseHome):
        home.attach(connection, previous)
        return
    connection.execute(
        """CREATE TEMP TABLE touching AS
        SELECT 'key' AS kind, key AS value FROM raw_events
        UNION SELECT 'key', key FROM outcomes UNION SELECT 'key', key FROM forgotten UNION SELECT 'key', key FROM ended
        UNION SELECT 'match', match FROM raw_events
        UNION SELECT 'destination_id', destination_id FROM raw_events WHERE destination_id IS NOT NULL"""
    )
    home.touched(connection, previous, whole=whole)


# For each match value and each destination id, the last number of what would end or blur an older record that has it.
_TOUCHES = """
CREATE TEMP TABLE ended_by_match AS
    SELECT match, max(number) AS number FROM events WHERE effect = 'write' AND action <> 'create' GROUP BY match;
CREATE TEMP TABLE ended_by_id AS
    SELECT destination_id, max(number) AS number FROM events
    WHERE destination_id IS NOT NULL AND (effect = 'delete' OR gone OR effect = 'write' AND action = 'update')
    GROUP BY destination_id;
CREATE TEMP TABLE met_by_key AS
    SELECT destination_id, key, max(number) AS number FROM events
    WHERE destination_id IS NOT NULL AND effect = 'write' GROUP BY destination_id, key;
CREATE TEMP TABLE met AS
    SELECT destination_id, max(number) AS number FROM met_by_key GROUP BY destination_id;
CREATE TEMP TABLE ended_by_key AS
    SELECT key, match, max(number) AS number FROM events
    WHERE effect = 'delete' OR (gone AND action = 'modify') GROUP BY key, match;
CREATE TEMP TABLE blurred_by_match AS
    SELECT match, max(number) AS number FROM events WHERE effect LIKE 'unknown%' AND action <> 'create' GROUP BY match;
CREATE TEMP TABLE blurred_by_id AS
    SELECT destination_id, max(number) AS number FROM events
    WHERE destination_id IS NOT NULL AND effect LIKE 'unknown%' GROUP BY destination_id;
CREATE TEMP TABLE lost_by_match AS
    SELECT match, max(number) AS number FROM events WHERE effect = 'unknown_delete' GROUP BY match;
CREATE TEMP TABLE lost_by_id AS
    SELECT destination_id, max(number) AS number FROM events
    WHERE destination_id IS NOT NULL AND effect = 'unknown_delete' GROUP BY destination_id;
CREATE TEMP VIEW known AS
    SELECT s.* REPLACE (
        CASE WHEN coalesce(lm.number > s.number, false) OR coalesce(li.number > s.number, false) THEN NULL
            ELSE s.destination_id END AS destination_id)
    FROM snapshot s
    LEFT JOIN lost_by_match lm ON lm.match = s.match
    LEFT JOIN lost_by_id li ON li.destination_id = s.destination_id
    -- Named by a plan as it was then: what was delivered again since is another deletion.
    ANTI JOIN ended ON ended.key = s.key AND ended.match = s.match AND ended.number = s.number;
CREATE TEMP TABLE repeated AS
    SELECT key, match FROM events WHERE effect IN ('write', 'unknown_write') GROUP BY key, match HAVING count(*) > 1;
CREATE TEMP VIEW written AS
    SELECT e.key, e.match, e.number, e.partition, e.effect, e.source_digest, e.payload_digest,
        CASE e.effect WHEN 'write' THEN e.destination_id END AS acknowledged_id, e.destination_id AS known_id
    FROM events e ANTI JOIN repeated r ON r.key = e.key AND r.match = e.match
    WHERE e.effect IN ('write', 'unknown_write')
    UNION ALL BY NAME
    SELECT e.key, e.match,
        max(e.number) AS number,
        arg_max(e.partition, e.number) AS partition,
        arg_max(e.effect, e.number) AS effect,
        arg_max(e.source_digest, e.number) AS source_digest,
        arg_max(e.payload_digest, e.number) AS payload_digest,
        arg_max(e.destination_id, e.number) FILTER (e.destination_id IS NOT NULL AND e.effect = 'write')
            AS acknowledged_id,
        arg_max(e.destination_id, e.number) FILTER (e.destination_id IS NOT NULL) AS known_id
    FROM events e SEMI JOIN repeated r ON r.key = e.key AND r.match = e.match
    WHERE e.effect IN ('write', 'unknown_write') GROUP BY e.key, e.match;
CREATE TEMP TABLE confirmed AS
    SELECT key, match, any_value(payload_digest) AS payload_digest, any_value(source_digest) AS source_digest,
        any_value(partition) AS partition
    FROM outcomes WHERE status = 'unchanged' GROUP BY key, match;
"""

_SNAPSHOT_AFTER = f"""
WITH records AS (
    SELECT s.* FROM known s ANTI JOIN written w ON w.key = s.key AND w.match = s.match
    UNION ALL BY NAME
    SELECT w.key, w.match, w.partition,
        coalesce(w.acknowledged_id, s.destination_id, w.known_id) AS destination_id,
        CASE w.effect WHEN 'write' THEN w.source_digest END AS source_digest,
        CASE w.effect WHEN 'write' THEN w.payload_digest END AS payload_digest,
        w.number
    FROM written w LEFT JOIN known s ON s.key = w.key AND s.match = w.match
), judged AS (
    SELECT r.* REPLACE (
        CASE WHEN coalesce(lm.number > r.number, false) OR coalesce(li.number > r.number, false) THEN NULL
            ELSE r.destination_id END AS destination_id),
        coalesce(bm.number > r.number, false) OR coalesce(bi.number > r.number, false) AS blurred
    FROM records r
    LEFT JOIN ended_by_match em ON em.match = r.match
    LEFT JOIN ended_by_id ei ON ei.destination_id = r.destination_id
    LEFT JOIN met_by_key mk ON mk.destination_id = r.destination_id AND mk.key = r.key
    LEFT JOIN met ON met.destination_id = r.destination_id
    LEFT JOIN ended_by_key ek ON ek.key = r.key AND ek.match = r.match
    LEFT JOIN lost_by_match lm ON lm.match = r.match
    LEFT JOIN lost_by_id li ON li.destination_id = r.destination_id
    LEFT JOIN blurred_by_match bm ON bm.match = r.match
    LEFT JOIN blurred_by_id bi ON bi.destination_id = r.destination_id
    WHERE NOT coalesce(em.number > r.number, false)
        AND NOT coalesce(ei.number > r.number, false)
        AND NOT coalesce(mk.number > r.number, false)
        AND NOT (r.source_digest IS NULL AND coalesce(met.number > r.number, false))
        AND NOT coalesce(ek.number > r.number, false)
), confirmed_records AS (
    SELECT j.key, j.match,
        CASE WHEN c.key IS NULL THEN j.partition ELSE c.partition END AS partition,
        j.destination_id,
        CASE WHEN j.blurred THEN NULL WHEN c.key IS NULL THEN j.source_digest ELSE c.source_digest END
            AS source_digest,
        CASE WHEN j.blurred THEN NULL ELSE j.payload_digest END AS payload_digest,
        j.number
    FROM judged j
    LEFT JOIN confirmed c ON c.key = j.key AND c.match = j.match AND c.payload_digest = j.payload_digest
)
SELECT {", ".join(map(quote, SNAPSHOT_COLUMNS))} FROM confirmed_records
"""

# The snapshot after a resync: what it concerns has unknown digests, and differs from everything.
_SNAPSHOT_ANEW = f"""
SELECT * EXCLUDE (concerned) REPLACE (
    CASE WHEN NOT concerned THEN source_digest END AS source_digest,
    CASE WHEN NOT concerned THEN payload_digest END AS payload_digest)
FROM (SELECT *, {CONCERNED} AS concerned FROM ({_SNAPSHOT_AFTER}))
"""


def _write_log(
    connection: duckdb.DuckDBPyConnection, home: Home, scratch: Path, before: int, now: float, *, found: bool
) -> None:
    """Log files are named by run and range of numbers; rows are in no order. They appear complete, by a rename.

    Files above the number `before`, which the state contains, were left by a fold that was killed.
    """
    if found:
        ranges = connection.execute(
            "SELECT run_id, min(number), max(number) FROM batches GROUP BY run_id ORDER BY run_id"
        ).fetchall()
        whole = len(ranges) == 1 and not scalar(connection, "SELECT count(*) FROM stale")
        for run_id, first, last in ranges:
            folder = home.log_folder(run_id)
            folder.mkdir(parents=True, exist_ok=True)
            for path in [*folder.glob("rows-*.parquet"), *folder.glob("batches-*.parquet")]:
                if int(path.stem.split("-")[1]) > before:
                    path.unlink()
            for name, source in (("rows", "events"), ("batches", "batches")):
                if name == "rows" and whole:
                    _take_events(connection, scratch, folder)
                    continue
                query = f"SELECT * FROM {source} WHERE run_id = {literal(run_id)}"
                _appear(connection, query, folder / f"{name}-{first}-{last}.parquet")
    settled = connection.execute("SELECT DISTINCT run_id FROM outcomes WHERE status <> 'unchanged'").fetchall()
    for (run_id,) in settled:
        folder = home.folder / "log" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        query = f"SELECT *, CAST({now} AS DOUBLE) AS closed FROM outcomes"
        query += f" WHERE status <> 'unchanged' AND run_id = {literal(run_id)}"
        _appear(connection, query, folder / SETTLED)


def _appear(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write a file of the log, which is there when it is complete."""
    draft = path.with_name(f".{path.name}")
    connection.execute(f"COPY ({query}) TO {literal(str(draft))} (FORMAT parquet, COMPRESSION zstd)")
    draft.replace(path)


def _take_events(connection: duckdb.DuckDBPyConnection, scratch: Path, folder: Path) -> None:
    """Where all events are of one run, their files are its log, and need not be written again."""
    for path in sorted(scratch.glob("events-*.parquet")):
        first, last = connection.execute(
            f"SELECT min(number), max(number) FROM read_parquet({literal(str(path))})"
        ).fetchall()[0]
        draft = folder / f".rows-{first}.tmp"
        shutil.copyfile(path, draft)
        draft.replace(folder / f"rows-{first}-{last}.parquet")
