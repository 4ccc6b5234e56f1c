"""The sync log as tables: `sync_runs`, `sync_log`, `sync_snapshot`. What they are is said here, for every home.

In the embedded home they are views over the files that folds and runs have left. A file that they name is complete and
never changes: log files appear by a rename, and those above the last number of the manifest do not count, because a
fold that was killed has left them. A snapshot is deleted once the next one is in force, and old runs are deleted by the
retention: whoever reads while that happens reads again (`query`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from integrations_dagster.planner.state import Home, connect, literal, quote
from integrations_dagster.vocabulary import Misconfigured, Status

RUN = "run.json"
"""What a run's folder of the log holds of the run itself: its row of `sync_runs`."""
SETTLED = "settled.parquet"
"""Rows of a run that had an outcome without a request, unchanged ones excepted."""
ATTEMPTS = 5
"""Readings at the most, while others fold."""

_COUNTS = ("queried", "added", "changed", "removed", "unchanged", "invalid", "held", "excluded")
_OUTCOMES = tuple(str(status) for status in Status if status not in (Status.UNCHANGED, Status.INVALID))

SYNC_RUNS: Mapping[str, str] = {
    "sync": "VARCHAR",
    "account": "VARCHAR",
    "run_id": "VARCHAR",
    "target": "VARCHAR",
    "destination": "VARCHAR",
    "object": "VARCHAR",
    "mode": "VARCHAR",
    "model": "VARCHAR",
    "model_version": "VARCHAR",
    "started": "TIMESTAMPTZ",
    "ended": "TIMESTAMPTZ",
    "outcome": "VARCHAR",
    "reason": "VARCHAR",
    **dict.fromkeys((*_COUNTS, "candidates", *_OUTCOMES), "BIGINT"),
    "rejected_share": "DOUBLE PRECISION",
    **dict.fromkeys(("seconds_query", "seconds_plan", "seconds_write", "seconds_record"), "DOUBLE PRECISION"),
    **dict.fromkeys(
        ("requests", "retries", "throttled", "errors", "bytes_sent", "latency_p50_ms", "latency_p95_ms"), "BIGINT"
    ),
    "notes": "VARCHAR",
}
"""One row a run: columns and SQL types, which DuckDB and Postgres both know (VARCHAR is text there)."""

SYNC_LOG: Mapping[str, str] = {
    "sync": "VARCHAR",
    "account": "VARCHAR",
    "run_id": "VARCHAR",
    "time": "TIMESTAMPTZ",
    "key": "VARCHAR",
    "match_value": "VARCHAR",
    "partition": "VARCHAR",
    "change": "VARCHAR",
    "action": "VARCHAR",
    "outcome": "VARCHAR",
    "code": "VARCHAR",
    "reason": "VARCHAR",
    "destination_id": "VARCHAR",
    "request_id": "VARCHAR",
    "attempt": "INTEGER",
    "batch": "VARCHAR",
    "late": "BOOLEAN",
}
"""One row for each row that a run sent or found invalid, and one for each answer that came late."""

SYNC_SNAPSHOT: Mapping[str, str] = {
    "sync": "VARCHAR",
    "account": "VARCHAR",
    "key": "VARCHAR",
    "match_value": "VARCHAR",
    "partition": "VARCHAR",
    "destination_id": "VARCHAR",
    "acknowledged": "BOOLEAN",
    "source_digest": "VARCHAR",
    "payload_digest": "VARCHAR",
}
"""One row for each record that is believed to be at the destination."""

TABLES: Mapping[str, Mapping[str, str]] = {
    "sync_runs": SYNC_RUNS,
    "sync_log": SYNC_LOG,
    "sync_snapshot": SYNC_SNAPSHOT,
}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's folder of the log.

    Attributes:
        home: The home that it belongs to.
        row: Its row of `sync_runs`; empty while the run has not ended.
        amended: Whether a row of the run was answered several times, so that not every answer is its outcome.
        recorded: The last batch number that the run's account contains.
        last_number: That of the home's manifest: later files are not the log's.
    """

    home: Home
    folder: Path
    row: Mapping[str, Any]
    amended: bool
    recorded: int
    last_number: int

    @property
    def sync(self) -> str:
        return str(self.row.get("sync", self.home.folder.parent.name))

    @property
    def account(self) -> str:
        return str(self.row.get("account", self.home.folder.name))

    def files(self, kind: str) -> list[Path]:
        """Its files of one kind, "rows" or "batches", which the state contains."""
        found = self.folder.glob(f"{kind}-*.parquet")
        return sorted(path for path in found if int(path.stem.split("-")[1]) <= self.last_number)


def write_run(home: Home, run_id: str, row: Mapping[str, Any], *, amended: bool = False) -> None:
    """Store a run's row of `sync_runs`; later calls replace it.

    Args:
        row: By the columns of `SYNC_RUNS`; times in seconds since the epoch.
        amended: See `RunFolder`.
    """
    folder = home.log_folder(run_id)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{RUN}"
    data = {"row": {name: row[name] for name in SYNC_RUNS}, "amended": amended, "recorded": home.manifest().last_number}
    draft.write_text(json.dumps(data), "utf-8")
    draft.replace(folder / RUN)


def homes(storage: Path, syncs: Iterable[str] = ()) -> list[Home]:
    """The homes of a storage folder that have a log or a state, of these syncs' (of all)."""
    names = [Home.of(storage, sync, "_").folder.parent.name for sync in syncs] or ["*"]
    return [
        Home(folder) for name in names for folder in sorted((storage / "syncs").glob(f"{name}/*")) if folder.is_dir()
    ]


def run_folders(home: Home, runs: Iterable[str] = ()) -> Iterator[RunFolder]:
    """The runs of a home's log, or of some by their ids."""
    # The one in the storage folder, also where the state is in a warehouse, which need not be asked.
    last_number = Home(home.folder).manifest().last_number
    log = home.folder / "log"
    for folder in [home.log_folder(run) for run in runs] or sorted(log.glob("*")):
        try:
            data = json.loads((folder / RUN).read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            data = {"row": {}, "amended": False, "recorded": 0}
        yield RunFolder(home, folder, data["row"], data["amended"], data["recorded"], last_number)


@contextmanager
def opened(found: Sequence[Home], tables: Iterable[str] = TABLES, runs: Iterable[str] = ()) -> Iterator[Any]:
    """A DuckDB connection with the tables as views.

    Args:
        found: The homes to read.
        tables: Those that are wanted: each costs a look at its files.
        runs: Only these runs' rows of `sync_runs` and `sync_log`; all if there are none.
    """
    wanted, only = set(tables), list(runs)
    with tempfile.TemporaryDirectory(prefix="integrations-log-") as scratch, connect(Path(scratch)) as connection:
        folders = [folder for home in found for folder in run_folders(home, only)]
        if "sync_runs" in wanted:
            _sync_runs(connection, folders, Path(scratch))
        if "sync_log" in wanted:
            _sync_log(connection, folders)
        if "sync_snapshot" in wanted:
            names = {folder.home.folder: (folder.sync, folder.account) for folder in folders if folder.row}
            _sync_snapshot(connection, found, names, Path(scratch))
        yield connection


def query(
    found: Sequence[Home], sql: str, parameters: Mapping[str, Any] | None = None, *, runs: Iterable[str] = ()
) -> pa.Table:
    """The result of a SELECT over the tables.

    Args:
        parameters: Values of the `$name` in it.
        runs: See `opened`.

    Raises:
        Misconfigured: It is no single SELECT, or it fails: with DuckDB's message.
    """
    only, named = list(runs), [table for table in TABLES if table in sql.lower()]
    for attempt in range(ATTEMPTS):
        try:
            with opened(found, named, only) as connection:
                _check(connection, sql)
                result: pa.Table = connection.sql(sql, params=dict(parameters or {})).to_arrow_table()
                return result
        except (duckdb.IOException, FileNotFoundError):
            # A fold or the retention has deleted a file since it was listed.
            if attempt == ATTEMPTS - 1:
                raise
        except duckdb.Error as error:
            raise Misconfigured(f"The query failed. {error}", f"Tables: {', '.join(TABLES)}.") from error
    raise AssertionError("the last attempt returns or raises")


def _check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise Misconfigured(f"The query cannot be read. {error}") from error
    if len(statements) != 1 or statements[0].type is not duckdb.StatementType.SELECT:
        raise Misconfigured("The sync log is only read: write one SELECT.", f"Tables: {', '.join(TABLES)}.")


def write_rows(home: Home, runs: Sequence[str], table: str, path: Path) -> None:
    """Write the rows of runs in `sync_runs` or `sync_log` to a Parquet file, to be copied into a warehouse.

    Args:
        runs: Their ids; or the names of their folders.
    """
    # PostgreSQL's texts have no zero characters, which a destination's message may have.
    columns = ", ".join(
        f"replace({quote(name)}, chr(0), chr(65533)) AS {quote(name)}" if kind == "VARCHAR" else quote(name)
        for name, kind in TABLES[table].items()
    )
    with opened([home], [table], runs) as connection:
        connection.execute(f"COPY (SELECT {columns} FROM {table}) TO {literal(str(path))} (FORMAT parquet)")


def _view(connection: duckdb.DuckDBPyConnection, name: str, query: str | None) -> None:
    columns = TABLES[name]
    chosen = ", ".join(f"CAST({quote(column)} AS {kind}) AS {quote(column)}" for column, kind in columns.items())
    nothing = ", ".join(f"NULL AS {quote(column)}" for column in columns)
    source = f"({query})" if query else f"(SELECT {nothing} WHERE false)"
    connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {chosen} FROM {source}")


def _sync_runs(connection: duckdb.DuckDBPyConnection, folders: Sequence[RunFolder], scratch: Path) -> None:
    rows = [folder.row for folder in folders if folder.row]
    if not rows:
        return _view(connection, "sync_runs", None)
    path = scratch / "runs.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({name: row.get(name) for name in SYNC_RUNS}) + "\n" for row in rows)
    kinds = ", ".join(
        f"{name}: {literal('DOUBLE' if kind == 'TIMESTAMPTZ' else kind)}" for name, kind in SYNC_RUNS.items()
    )
    source = f"read_json({literal(str(path))}, format = 'newline_delimited', columns = {{{kinds}}})"
    times = "to_timestamp(started) AS started, to_timestamp(ended) AS ended"
    return _view(connection, "sync_runs", f"SELECT * REPLACE ({times}) FROM {source}")


def _files(paths: Iterable[Path]) -> str:
    return "[" + ", ".join(literal(str(path)) for path in paths) + "]"


def _sync_log(connection: duckdb.DuckDBPyConnection, folders: Sequence[RunFolder]) -> None:
    rows = [path for folder in folders for path in folder.files("rows")]
    batches = [path for folder in folders for path in folder.files("batches")]
    settled = [path for folder in folders if (path := folder.folder / SETTLED).exists()]
    connection.execute("CREATE TEMP TABLE folders (folder VARCHAR, sync VARCHAR, account VARCHAR, run_id VARCHAR)")
    names = [[str(folder.folder), folder.sync, folder.account, folder.row.get("run_id")] for folder in folders]
    if names:
        columns = [*map(list, zip(*names, strict=True))]
        connection.execute("INSERT INTO folders SELECT unnest(?), unnest(?), unnest(?), unnest(?)", columns)
    parts = []
    if rows:
        connection.execute(
            "CREATE TEMP VIEW answers AS SELECT *, parse_dirpath(filename) AS folder "
            f"FROM read_parquet({_files(rows)}, filename = true, union_by_name = true)"
        )
        connection.execute(
            "CREATE TEMP VIEW sent AS SELECT number, attempt, parse_dirpath(filename) AS folder "
            f"FROM read_parquet({_files(batches)}, filename = true, union_by_name = true)"
        )
        connection.execute(
            "CREATE TEMP TABLE verdicts (folder VARCHAR, number BIGINT, ordinal BIGINT, superseded BOOLEAN)"
        )
        for folder in folders:
            if folder.amended:
                connection.execute(_VERDICTS, {"folder": str(folder.folder), "recorded": folder.recorded})
        parts.append(_ANSWERS)
    if settled:
        # Named after the run's folder, where the run itself has not said its name.
        source = f"read_parquet({_files(settled)}, filename = true, union_by_name = true)"
        parts.append(_SETTLED.format(source=source))
    _view(connection, "sync_log", " UNION ALL BY NAME ".join(parts) if parts else None)


# Of a run in which rows were answered several times: what is a row's outcome, and what an earlier word about it. A late
# answer about a row that is in doubt in this run, and that came before its end, is the row's outcome.
_VERDICTS = """
INSERT INTO verdicts
WITH told AS (
    SELECT number, shard, ordinal, key, reference, late, effect FROM answers
    WHERE folder = $folder AND number <= $recorded
), outcomes AS (
    SELECT number, ordinal AS own, shard, ordinal FROM told WHERE NOT late AND shard >= 0
    UNION ALL
    SELECT l.number, l.ordinal AS own, d.shard, d.ordinal
    FROM told l JOIN told d ON d.key = l.key AND d.reference = l.reference AND NOT d.late AND d.effect = 'in_doubt'
    WHERE l.late AND l.effect IN ('write', 'delete', 'rejected', 'absent')
)
SELECT $folder, number, own, bool_and(place > 1) FROM (
    SELECT number, own, row_number() OVER (PARTITION BY shard, ordinal ORDER BY number DESC) AS place FROM outcomes
) GROUP BY number, own"""

_ANSWERS = """
SELECT f.sync, f.account, a.run_id, to_timestamp(a.closed) AS time, a.key, a.match AS match_value,
    coalesce(a.partition, '') AS partition, a.change, a.action, a.outcome, coalesce(a.code, '') AS code,
    coalesce(a.reason, '') AS reason, a.destination_id, coalesce(a.request_id, '') AS request_id, b.attempt,
    a.reference AS batch, CASE WHEN v.number IS NULL THEN a.late OR a.shard < 0 ELSE false END AS late
FROM answers a
JOIN folders f ON f.folder = a.folder
LEFT JOIN sent b ON b.folder = a.folder AND b.number = a.number
LEFT JOIN verdicts v ON v.folder = a.folder AND v.number = a.number AND v.ordinal = a.ordinal
WHERE NOT coalesce(v.superseded, false)"""

_SETTLED = """
SELECT f.sync, f.account, coalesce(f.run_id, s.run_id) AS run_id, to_timestamp(s.closed) AS time, s.key,
    s.match AS match_value, coalesce(s.partition, '') AS partition, s.change, NULL AS action, s.status AS outcome,
    coalesce(s.code, '') AS code, coalesce(s.reason, '') AS reason, NULL AS destination_id, '' AS request_id,
    NULL AS attempt, '' AS batch, false AS late
FROM (SELECT *, parse_dirpath(filename) AS folder FROM {source}) s JOIN folders f ON f.folder = s.folder"""


def _sync_snapshot(
    connection: duckdb.DuckDBPyConnection,
    found: Sequence[Home],
    names: Mapping[Path, tuple[str, str]],
    scratch: Path,
) -> None:
    parts = []
    for number, home in enumerate(found):
        records = home.records(scratch / f"snapshot-{number}.parquet")
        if records is not None:
            sync, account = names.get(home.folder, (home.folder.parent.name, home.folder.name))
            parts.append(
                f"SELECT {literal(sync)} AS sync, {literal(account)} AS account, key, match AS match_value, "
                "coalesce(partition, '') AS partition, destination_id, payload_digest IS NOT NULL AS acknowledged, "
                f"source_digest, payload_digest FROM read_parquet({literal(str(records))})"
            )
    _view(connection, "sync_snapshot", " UNION ALL ".join(parts) if parts else None)
