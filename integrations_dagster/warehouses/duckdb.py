"""A DuckDB file as a warehouse: opened read-only, and only while a query runs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import tenacity

from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.base import QueryResult, WarehouseBusy
from integrations_dagster.warehouses.checks import ONE_SELECT, check_columns, check_parameters

MEMORY = "2GB"
"""What one process's queries hold in memory before they spill to disk."""
ROW_GROUP = 100_000
"""Rows of one Parquet row group: what a reader holds in memory at a time."""

_STARTS = ("select", "with", "from", "(")
# Parquet has no such types: DuckDB would write a HUGEINT, the type of sum(BIGINT), as an inexact double, and drop the
# offset of a time. UUIDs travel as text everywhere.
_AS_TEXT = ("INTERVAL", "TIME WITH TIME ZONE", "BIT", "BIGNUM", "UUID")
_HUGE = re.compile(r"\bU?HUGEINT\b")
_EXACT = "DECIMAL(38, 0)"


class DuckDBWarehouse:
    """An open DuckDB file.

    Args:
        name: Name in YAML, for messages.
        path: The file.
        scratch: Where a query may spill what does not fit into memory.
        patience: Seconds to wait while another process holds the file open for writing, which excludes us.

    Raises:
        Misconfigured: There is no such file, or it is no DuckDB database.
        WarehouseBusy: Another process held it for longer than `patience`.
    """

    def __init__(self, name: str, path: Path, *, scratch: Path, patience: float) -> None:
        if not path.is_file():
            raise Misconfigured(
                f"Warehouse {name!r}: there is no DuckDB file {path}.",
                "Create the sample warehouse with `make warehouse`, or correct `path` in its defs.yaml.",
            )
        scratch.mkdir(parents=True, exist_ok=True)
        self._connection = _open(name, path, scratch, patience)
        # The result of a query must not depend on where it runs.
        self._connection.execute("SET TimeZone = 'UTC'")
        # It would be drawn into standard output, also where that is a file.
        self._connection.execute("SET enable_progress_bar = false")

    def query_to_parquet(
        self, sql: str, parameters: Mapping[str, str | None], folder: Path, source: str
    ) -> QueryResult:
        """See `Warehouse.query_to_parquet`."""
        started = time.monotonic()
        query = _one_select(self._connection, sql, parameters, source)
        try:
            rows, columns = copy_to_parquet(self._connection, query, _bound(parameters), folder, source)
        except duckdb.Error as error:
            raise Misconfigured(
                f"The query in {source} failed. {error}\n", "Correct the SQL, and materialize the model again."
            ) from error
        return QueryResult(rows, columns, time.monotonic() - started)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._connection.close()


def copy_to_parquet(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    parameters: dict[str, str | None] | None,
    folder: Path,
    source: str,
) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Write the result of a SELECT to `part-0.parquet` in `folder`.

    Returns:
        Rows, and (name, DuckDB's type) of the columns in order.

    Raises:
        duckdb.Error: The query fails.
        Misconfigured: Two columns have one name.
    """
    # On the first line, so that the line numbers in DuckDB's messages are those of the file.
    described = connection.execute(f"DESCRIBE {query}", parameters).fetchall()
    columns = tuple((str(name), str(kind)) for name, kind, *_ in described)
    check_columns([name for name, _ in columns], source)
    chosen = ", ".join(_stored(name, kind) for name, kind in columns)
    target = str(folder / "part-0.parquet").replace("'", "''")
    written = connection.execute(
        f"COPY (SELECT {chosen} FROM ({query}\n)) TO '{target}' "
        f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})",
        parameters,
    ).fetchone()
    assert written is not None
    return int(written[0]), columns


def _open(name: str, path: Path, scratch: Path, patience: float) -> duckdb.DuckDBPyConnection:
    def is_held(error: BaseException) -> bool:
        text = str(error)
        return isinstance(error, duckdb.Error) and ("lock" in text or "different configuration" in text)

    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_held),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=1.0),
        stop=tenacity.stop_after_delay(patience),
        reraise=True,
    )
    config: dict[str, Any] = {
        "memory_limit": MEMORY,
        "temp_directory": str(scratch),
        # A query must not download code.
        "autoinstall_known_extensions": "false",
    }
    try:
        return attempts(duckdb.connect, str(path), read_only=True, config=config)
    except duckdb.Error as error:
        if is_held(error):
            raise WarehouseBusy(
                f"Warehouse {name!r}: for {patience:g} s another process has held {path} open for writing, and DuckDB "
                f"lets nobody else read meanwhile. {error}",
                "Close the other connection, and launch the run again.",
            ) from error
        raise Misconfigured(
            f"Warehouse {name!r}: {path} cannot be opened. {error}", "Correct `path` in its defs.yaml."
        ) from error


def _one_select(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, str | None], source: str
) -> str:
    """The text of the query without what follows it, after checking that it is one SELECT with these parameters."""
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise Misconfigured(f"The query in {source} cannot be parsed. {error}\n", "Correct the SQL.") from error
    if len(statements) != 1:
        raise Misconfigured(f"{source} holds {len(statements)} SQL statements.", ONE_SELECT)
    comment, operator = duckdb.token_type.comment, duckdb.token_type.operator
    tokens = [(at, kind) for at, kind in duckdb.tokenize(sql) if kind != comment]
    # Offsets count bytes.
    encoded = sql.encode()
    start = encoded[tokens[0][0] :].decode().lower()
    if statements[0].type is not duckdb.StatementType.SELECT or not start.startswith(_STARTS):
        raise Misconfigured(f"{source} holds a statement that is not a SELECT.", ONE_SELECT)
    check_parameters(set(statements[0].named_parameters), set(parameters), source)
    for at, kind in tokens:
        if kind == operator and encoded[at : at + 1] == b";":
            return encoded[:at].decode()
    return sql


def _bound(parameters: Mapping[str, str | None]) -> dict[str, str | None] | None:
    return dict(parameters) or None


def stored_as(kind: str) -> str:
    """The type as which values of a DuckDB type are written to Parquet, so that they stay exact."""
    return "VARCHAR" if kind in _AS_TEXT else _HUGE.sub(_EXACT, kind)


def _stored(name: str, kind: str) -> str:
    """The column as it is written to Parquet."""
    column = '"' + name.replace('"', '""') + '"'
    stored = stored_as(kind)
    return column if stored == kind else f"CAST({column} AS {stored}) AS {column}"
