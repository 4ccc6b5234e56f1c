"""query: run a model's SQL, or take the rows of its asset, and keep them as an immutable version."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from datetime import time as time_of_day
from pathlib import Path
from typing import Any, TypeAlias

from integrations_dagster.planner.rows import streamed
from integrations_dagster.planner.state import quote
from integrations_dagster.sync.cursors import start_of
from integrations_dagster.sync.results import ModelVersion
from integrations_dagster.sync.spec import EMBEDDED, WAREHOUSE, ModelSpec, WarehouseSpec
from integrations_dagster.sync.tables import PREVIEW, make_table, prune_tables, table_name
from integrations_dagster.sync.versions import drafted, folder_of, prune, publish, version_files, version_name
from integrations_dagster.vocabulary import Misconfigured, Partition
from integrations_dagster.warehouses.base import QueryResult, Warehouse, WarehouseAddress
from integrations_dagster.warehouses.frames import write_frame
from integrations_dagster.warehouses.registry import PATIENCE, open_store, open_warehouse
from integrations_dagster.warehouses.store import Store

PREVIEW_CELL = 80
"""Characters of a cell of a preview."""

Load: TypeAlias = Callable[[Partition | None], Any]
"""Gives what a model's asset yields (for a partition): a data frame or Arrow data (see `write_frame`), or the name of a
table: "schema.table", or a mapping of `table` and, where needed, `schema` and `database`."""


def run_query(
    model: ModelSpec,
    storage: Path,
    run_id: str,
    partitions: Sequence[Partition] = (),
    log: Callable[[str], None] = lambda _: None,
    *,
    env: Mapping[str, str] = os.environ,
    patience: float = PATIENCE,
    whole: bool = False,
    load: Load | None = None,
) -> list[ModelVersion]:
    """Run the model's query, once for each partition, and keep the rows.

    Args:
        storage: Folder of all state.
        run_id: Part of the versions' names.
        partitions: The partitions to query; empty for an unpartitioned model, and only then.
        log: Told one sentence at a time.
        env: Where the URL of a warehouse is read.
        patience: Seconds to wait for a warehouse that another process holds.
        whole: Whether all rows are asked for, also of a model with a cursor.
        load: Loads what the model's asset yields; None where nothing can (outside Dagster).

    Returns:
        One version for each partition, in their order, or the one of an unpartitioned model.

    Raises:
        Misconfigured: Naming the file or asset: the SQL fails, is no single SELECT, or lacks the primary key; the asset
            yields no rows and no table.
        WarehouseBusy: The warehouse could not be opened in time.
    """
    if model.partitioned != bool(partitions):
        given = "is partitioned, and no partition was given" if model.partitioned else "is not partitioned"
        raise Misconfigured(f"Model {model.name!r} {given}.", "Launch it with the partitions to query.")
    cursor = None if whole else start_of(model, storage)
    versions = []
    with contextlib.ExitStack() as stack:
        rows = _Rows(model, storage, load, env, patience, stack)
        for partition in partitions or (None,):
            version = _run_one(model, rows, storage, run_id, partition, cursor)
            versions.append(version)
            where = f", partition {version.partition}" if version.partition else ""
            log(f"Model {model.name!r}{where}: {version.rows:,} rows in {version.seconds:.1f} s.")
        for version in versions:
            prune(storage, model.name, version.partition)
            rows.prune(version.partition)
    return versions


def address_of(spec: WarehouseSpec, env: Mapping[str, str]) -> WarehouseAddress:
    """The warehouse, with its secret from the environment.

    Raises:
        Misconfigured: The variable is not set.
    """
    url = ""
    if spec.url is not None:
        url = env.get(spec.url.name, "").strip()
        if not url:
            raise Misconfigured(
                f"Warehouse {spec.name!r}: the environment variable {spec.url.name}, which has its URL, is not set.",
                "Set it where runs are executed: postgresql://USER:PASSWORD@HOST:PORT/DATABASE.",
            )
    return WarehouseAddress(spec.name, spec.kind, spec.path, url)


HIDDEN = "•••"
"""What a preview shows of a sensitive value."""


def preview(
    version: ModelVersion, rows: int = 10, sensitive: frozenset[str] = frozenset()
) -> tuple[list[str], list[list[str]]]:
    """The first rows of a version, for people.

    Args:
        rows: Rows at the most.
        sensitive: Columns whose values are not shown.

    Returns:
        Column names, and rows of texts of at most 80 characters; null is "null".
    """
    names = [name for name, _ in version.columns]
    shown: list[list[str]] = []
    for path in version_files(version) or [Path(version.path) / PREVIEW]:
        with streamed(path) as file:
            for batch in file.iter_batches(batch_size=max(rows, 1)):
                first = batch.slice(0, rows - len(shown)).to_pylist()
                shown.extend([HIDDEN if name in sensitive else _cell(row[name]) for name in names] for row in first)
                if len(shown) >= rows:
                    return names, shown
    return names, shown


class _Rows:
    """Writes the rows of a model (of a partition of it) to files, wherever they come from."""

    def __init__(
        self,
        model: ModelSpec,
        storage: Path,
        load: Load | None,
        env: Mapping[str, str],
        patience: float,
        stack: contextlib.ExitStack,
    ) -> None:
        self._model = model
        self._storage = storage
        self._scratch = storage / "scratch" / "duckdb"
        self._load = load
        self._env = env
        self._patience = patience
        self._stack = stack
        self._opened: Warehouse | None = None
        self._store: Store | None = None
        self.table = ""
        """The table that has the rows that were written last, or ""."""
        path = model.sql_path
        where = model.origin if path is None else f"{path.parent.name}/{path.name}"
        self.source = f"{where} (model {model.name!r})"
        # Read once: all partitions of a run have the same query.
        self._sql = None if path is None else _text(path, self.source)

    def write(
        self, partition: Partition | None, folder: Path, cursor: str | None, version: str
    ) -> tuple[QueryResult, str]:
        """Write the rows of a version; returns what was written, and the SQL that ran or a comment in its place."""
        if WAREHOUSE in self._model.homes:
            self.table = table_name(self._storage, self._model.name, partition.key if partition else "", version)
        if self._sql is not None:
            return self._query(self._sql, partition, folder, cursor), self._sql
        named: Any = self._model.table
        if not named:
            named = self._loaded(partition)
            if not isinstance(named, str | Mapping):
                kind = f"{type(named).__module__.partition('.')[0]}.{type(named).__qualname__}"
                if self.table:
                    raise Misconfigured(
                        f"{self.source} yields a {kind}, whose rows are in no warehouse, and a sync that delivers them "
                        "keeps its state there.",
                        "Write `home: embedded` in the sync, or let the asset yield the name of a table.",
                    )
                comment = f"-- The rows of the asset {self._model.asset}, a {kind}."
                return write_frame(named, folder, self._scratch, self.source), comment
        sql = self._select(_table(named, self.source), partition)
        return self._query(sql, partition, folder), sql

    def _loaded(self, partition: Partition | None) -> Any:
        if self._load is None:
            raise Misconfigured(
                f"Model {self._model.name!r} takes its rows from the asset {self._model.asset}, which only a run in "
                "Dagster can load.",
                "Materialize the model in Dagster, then use its newest version here with --no-query.",
            )
        return self._load(partition)

    def _select(self, table: str, partition: Partition | None) -> str:
        if partition is None:
            return f"SELECT * FROM {table}"  # noqa: S608 (the name is quoted)
        if not self._model.window:
            raise Misconfigured(
                f"Model {self._model.name!r} is partitioned, and its rows are in the table {table}.",
                "Name the column that tells its partitions apart: `partitions: {daily: {..., column: NAME}}`.",
            )
        column = quote(self._model.window)
        return (
            f"SELECT * FROM {table} WHERE {column} >= CAST($partition_start AS TIMESTAMPTZ) "  # noqa: S608 (as above)
            f"AND {column} < CAST($partition_end AS TIMESTAMPTZ)"
        )

    def _query(self, sql: str, partition: Partition | None, folder: Path, cursor: str | None = None) -> QueryResult:
        parameters: dict[str, str | None] = {}
        if partition:
            parameters |= {"partition_start": partition.start, "partition_end": partition.end}
        if self._model.cursor:
            parameters["cursor"] = cursor
        if self._opened is None and self._store is None:
            spec = self._model.warehouse
            if not spec.kind:
                raise Misconfigured(
                    f"The rows of {self.source} are in a table, and the model has no warehouse to ask for it.",
                    "Define the warehouse that holds it: `type: integrations_dagster.Warehouse`.",
                )
            address = address_of(spec, self._env)
            if self.table:
                self._store = self._stack.enter_context(open_store(address, patience=self._patience))
            else:
                self._opened = self._stack.enter_context(
                    open_warehouse(address, scratch=self._scratch, patience=self._patience)
                )
        if self._store is not None:
            files = EMBEDDED in self._model.homes
            return make_table(self._store, self.table, sql, parameters, folder, self.source, files=files)
        assert self._opened is not None
        return self._opened.query_to_parquet(sql, parameters, folder, self.source)

    def prune(self, partition: str) -> None:
        """Drop tables that no version has any more."""
        if self._store is not None:
            prune_tables(self._store, self._storage, self._model.name, partition)


def _table(named: str | Mapping[str, Any], source: str) -> str:
    """The name of a table as quoted SQL."""
    import sqlglot

    if isinstance(named, Mapping):
        unknown = set(named) - {"database", "schema", "table"}
        parts = [named.get(part) for part in ("database", "schema", "table")]
        if unknown or not parts[-1] or not all(part is None or isinstance(part, str) for part in parts):
            raise Misconfigured(
                f"{source} yields a mapping that names no table: its keys are {', '.join(map(str, named)) or 'none'}.",
                'Return {"schema": ..., "table": ...}, "schema.table", a data frame or an Arrow table.',
            )
        return ".".join(quote(part) for part in parts if part)
    try:
        parsed = sqlglot.to_table(named)
    except (sqlglot.errors.SqlglotError, ValueError):
        parsed = None
    if not isinstance(parsed, sqlglot.exp.Table) or not parsed.name:
        raise Misconfigured(f"{source}: {named!r} is no name of a table.", 'Write it as "schema.table".')
    return ".".join(quote(part.name) for part in parsed.parts)


def _text(path: Path, source: str) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise Misconfigured(
            f"There is no {source}.", f"Create {path}, or correct `sql` in the model's defs.yaml."
        ) from None
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{source} is not UTF-8 text: {error}.", "Save it as UTF-8.") from error


def _run_one(
    model: ModelSpec, rows: _Rows, storage: Path, run_id: str, partition: Partition | None, cursor: str | None
) -> ModelVersion:
    key = partition.key if partition else ""
    started = time.time()
    name = version_name(started, run_id)
    with drafted(storage, model.name, key, name) as draft:
        result, sql = rows.write(partition, draft, cursor, name)
        returned = [column for column, _ in result.columns]
        if missing := [column for column in model.primary_key if column not in returned]:
            raise Misconfigured(
                f"{f'The query in {rows.source}' if model.sql_path else rows.source} does not return the primary key "
                f"column {', '.join(repr(column) for column in missing)}.",
                f"It returns: {', '.join(returned)}. Add it, or correct `primary_key` in the model's defs.yaml.",
            )
        if model.cursor and model.cursor.column not in returned:
            raise Misconfigured(
                f"The query in {rows.source} does not return the cursor column {model.cursor.column!r}.",
                f"It returns: {', '.join(returned)}. Add it, or correct `cursor` in the model's defs.yaml.",
            )
        version = ModelVersion(
            model=model.name,
            partition=key,
            name=name,
            path=str(folder_of(storage, model.name, key) / name),
            started=started,
            seconds=result.seconds,
            rows=result.rows,
            columns=result.columns,
            sql=sql,
            cursor=cursor,
            table=rows.table,
        )
        publish(draft, version)
    return version


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    text = value.isoformat() if isinstance(value, date | datetime | time_of_day) else str(value)
    # A cell is one line.
    text = " ".join(text.split()) if any(c in text for c in "\n\r\t") else text
    return text if len(text) <= PREVIEW_CELL else f"{text[: PREVIEW_CELL - 1]}…"
