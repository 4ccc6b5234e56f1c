"""Writes to a DuckDB file: opened for one batch at a time, because an open file excludes all other processes.

Threads of a process take turns, and so do processes; who finds the file held tries again until the time is up.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa

from integrations_dagster.delivery.accounts import Account
from integrations_dagster.delivery.credentials import Grant
from integrations_dagster.delivery.transports.unanswered import NoAnswer, NotSent
from integrations_dagster.destinations.base import Request, Response
from integrations_dagster.destinations.sql.destination import KEYS_KEPT, Describe, Find, Identify, Table, Write
from integrations_dagster.vocabulary import Action

LOOK_AGAIN = 0.05
"""Seconds between two looks at a file that another process holds."""
_TURNS: dict[Path, threading.Lock] = {}
_TURNS_LOCK = threading.Lock()
_CONSTRAINTS = (("NOT NULL", "23502"), ("foreign key", "23503"), ("CHECK", "23514"))


class _Undone(Exception):
    """The transaction is to be undone, and this is the answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__()
        self.response = _answer({"code": code, "message": message}, 400)


class DuckDBSession:
    """Writes to one file. One instance belongs to one thread.

    Args:
        account: Its `base_url` is "duckdb:///absolute/path". In the sandbox, file and tables are made when
            they are needed.
    """

    def __init__(self, account: Account) -> None:
        self.timeout = account.timeout
        self._made = account.in_sandbox
        address = urlsplit(account.base_url)
        self._path = Path(unquote(address.path))
        # "duckdb://folder/file.duckdb" names a host, not a folder.
        self._host = address.netloc
        with _TURNS_LOCK:
            self._turn = _TURNS.setdefault(self._path.resolve(), threading.Lock())

    def close(self) -> None:
        """Nothing is open between requests."""

    def send(self, request: Request, grant: Grant, flight: AbstractContextManager[None] | None = None) -> Response:  # noqa: ARG002
        """Do what the command says in one transaction; an error of the database is an answer with status 400.

        Raises:
            NotSent: Nothing was done: another process holds the file, for one.
            NoAnswer: It could not be written to the end.
        """
        with flight or nullcontext():
            deadline = time.monotonic() + self.timeout
            if isinstance(request.command, Identify):
                return _answer({"identity": str(self._path.resolve())})
            if not self._made and not self._path.is_file():
                # Its path is not told: a URL from the environment is a secret as a whole.
                what = "base_url names no DuckDB file that is there"
                shape = "; it takes an absolute path after three slashes: duckdb:///folder/file" if self._host else ""
                return _answer({"code": "NO_FILE", "message": f"{what}{shape}."}, 404)
            if not self._turn.acquire(timeout=self.timeout):
                raise NotSent("Other batches held the DuckDB file for too long.", "FILE_IS_HELD")
            try:
                with self._open(deadline) as connection:
                    return self._transaction(connection, request.command, deadline)
            finally:
                self._turn.release()

    @contextmanager
    def _open(self, deadline: float) -> Iterator[duckdb.DuckDBPyConnection]:
        # A file that is opened must not bring code from elsewhere.
        config: dict[str, Any] = {"autoinstall_known_extensions": "false"}
        while True:
            try:
                connection = duckdb.connect(str(self._path), config=config)
                break
            except duckdb.Error as error:
                if not any(word in str(error) for word in ("lock", "different configuration")):
                    raise NotSent(f"{self._path.name} cannot be opened ({type(error).__name__}).", "NO_FILE") from error
                if time.monotonic() >= deadline:
                    reason = (
                        f"For {self.timeout:g} s another process has held {self._path.name} open, and DuckDB lets "
                        "nobody else write meanwhile."
                    )
                    raise NotSent(reason, "FILE_IS_HELD") from None
                time.sleep(LOOK_AGAIN)
        try:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")
            yield connection
        finally:
            connection.close()

    def _transaction(self, connection: duckdb.DuckDBPyConnection, command: object, deadline: float) -> Response:
        work = _Work(connection, make=self._made)
        try:
            connection.execute("BEGIN")
            result = work.do(command)
        except _Undone as undone:
            return undone.response
        except duckdb.Error as error:
            return _failed(error)
        if time.monotonic() >= deadline:
            raise NotSent(f"The batch was not done within {self.timeout:g} s; it was undone.", "TIMEOUT")
        try:
            connection.execute("COMMIT")
        except duckdb.IOException as error:
            raise NoAnswer("The DuckDB file could not be written to the end.", "IO") from error
        except duckdb.Error as error:
            return _failed(error)
        return _answer(result)


class _Work:
    """What is done within a transaction."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, make: bool) -> None:
        self._connection = connection
        self._make = make

    def do(self, command: object) -> Mapping[str, Any]:
        match command:
            case Write():
                return self._write(command)
            case Find():
                return self._find(command)
            case Describe():
                return self._describe(command.table)
        raise TypeError(f"{command!r} is no command for DuckDB")

    # Tables

    def _columns(self, table: Table) -> dict[str, tuple[Any, ...]]:
        rows = self._rows(
            "SELECT column_name, data_type, is_nullable, column_default IS NOT NULL FROM duckdb_columns() "
            "WHERE database_name = current_database() AND lower(schema_name) = lower(coalesce(nullif(?, ''), "
            "current_schema())) AND lower(table_name) = lower(?) ORDER BY column_index",
            [table.schema, table.name],
        )
        return {row[0]: row for row in rows}

    def _unique(self, table: Table) -> list[list[str]]:
        where = (
            "database_name = current_database() AND lower(schema_name) = lower(coalesce(nullif(?, ''), "
            "current_schema())) AND lower(table_name) = lower(?)"
        )
        named = [table.schema, table.name]
        primary = self._rows(
            "SELECT constraint_column_names FROM duckdb_constraints() "
            f"WHERE constraint_type IN ('PRIMARY KEY', 'UNIQUE') AND {where} ORDER BY constraint_type",
            named,
        )
        indexes = self._rows(f"SELECT expressions FROM duckdb_indexes() WHERE is_unique AND {where}", named)
        names = [[part.strip().strip("'\"") for part in str(text).strip("[]").split(",")] for (text,) in indexes]
        return [list(columns) for (columns,) in primary] + names

    def _known(self, table: Table, columns: Sequence[str], match: Sequence[str] = ()) -> dict[str, tuple[Any, ...]]:
        found = self._columns(table)
        missing = [name for name in columns if name not in found]
        if missing and self._make:
            self._add(table, missing, match, exists=bool(found))
            return self._columns(table)
        if not found:
            raise _Undone("42P01", f"{table} does not exist.")
        if missing:
            raise _Undone("42703", f"{table} lacks {', '.join(missing)}.")
        return found

    def _add(self, table: Table, columns: Sequence[str], match: Sequence[str], *, exists: bool) -> None:
        """The sandbox keeps every value as the text that was sent."""
        if exists:
            for name in columns:
                self._connection.execute(f"ALTER TABLE {_table(table)} ADD COLUMN {_quoted(name)} VARCHAR")
            return
        if table.schema:
            self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(table.schema)}")
        declared = [f"{_quoted(name)} VARCHAR" for name in columns]
        if match:
            declared.append(f"PRIMARY KEY ({', '.join(map(_quoted, match))})")
        self._connection.execute(f"CREATE TABLE {_table(table)} ({', '.join(declared)})")

    def _describe(self, table: Table) -> Mapping[str, Any]:
        if self._make:
            return {"made": True}
        found = self._columns(table)
        if not found:
            return {"missing": True}
        columns = [
            {"name": name, "type": kind.lower(), "nullable": nullable, "default": default, "writable": True}
            for name, kind, nullable, default in found.values()
        ]
        return {"columns": columns, "unique": self._unique(table)}

    # Rows

    def _write(self, command: Write) -> Mapping[str, Any]:
        columns = [name for names, _ in command.groups for name in names]
        found = self._known(command.table, list(dict.fromkeys(columns)), command.match)
        if command.key and not self._take(command):
            return {"results": [["created", None]] * len(command.records)}
        results: list[list[str | None]] = [["missing", None] for _ in command.records]
        for names, places in command.groups:
            self._give(found, names, [command.records[place] for place in places], command.match)
            for place, what in self._apply(command, names):
                results[places[place]] = [what, None]
        return {"results": results}

    def _apply(self, command: Write, names: Sequence[str]) -> list[tuple[int, str]]:
        table, action = _table(command.table), command.action
        chosen = ", ".join(_quoted(name) for name in names)
        if action is Action.CREATE:
            self._connection.execute(f"INSERT INTO {table} ({chosen}) SELECT {chosen} FROM given ORDER BY place")
            return [(place, "created") for (place,) in self._rows("SELECT place FROM given")]
        if action is Action.UPDATE:
            return []  # no ids are told here, so that none is asked for
        same = _same(command.match)
        there = [place for (place,) in self._rows(f"SELECT g.place FROM given g JOIN {table} t ON {same}")]
        if action is Action.DELETE:
            self._connection.execute(f"DELETE FROM {table} t USING given g WHERE {same}")
            return [(place, "deleted") for place in there]
        others = [name for name in names if name not in command.match]
        if others and there:
            values = ", ".join(f"{_quoted(name)} = g.{_quoted(name)}" for name in others)
            self._connection.execute(f"UPDATE {table} t SET {values} FROM given g WHERE {same}")
        done = [(place, "updated") for place in there]
        if action is Action.UPSERT:
            known = set(there)
            new = [place for (place,) in self._rows("SELECT place FROM given ORDER BY place") if place not in known]
            if new:
                self._connection.execute(
                    f"INSERT INTO {table} ({chosen}) SELECT {chosen} FROM given g "
                    "WHERE list_contains(?, place) ORDER BY place",
                    [new],
                )
            done += [(place, "created") for place in new]
        return done

    def _give(
        self, found: Mapping[str, tuple[Any, ...]], names: Sequence[str], records: Sequence[bytes], match: Sequence[str]
    ) -> None:
        """Make the table `given` of records, each value with the type of its column."""
        decoded = [json.loads(record) for record in records]
        texts = {f"c{n}": pa.array([_text(row[name]) for row in decoded], pa.string()) for n, name in enumerate(names)}
        rows = pa.table({**texts, "place": pa.array(range(len(records)), pa.int64())})
        self._connection.register("texts", rows)
        cast = ", ".join(f"{_cast(f'c{n}', found[name][1])} AS {_quoted(name)}" for n, name in enumerate(names))
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE given AS SELECT {cast}, place FROM texts")
        self._connection.unregister("texts")
        if match:
            keys = ", ".join(_quoted(name) for name in match)
            ((distinct,),) = self._rows(f"SELECT count(*) FROM (SELECT DISTINCT {keys} FROM given)")
            if distinct != len(records):
                raise _Undone("21000", "Two rows have the same match value as the table's type reads it.")

    def _find(self, command: Find) -> Mapping[str, Any]:
        found = self._known(command.table, command.match, command.match)
        self._give(found, command.match, command.records, command.match)
        results: list[list[str | None]] = [["missing", None] for _ in command.records]
        table, same = _table(command.table), _same(command.match)
        for (place,) in self._rows(f"SELECT g.place FROM given g JOIN {table} t ON {same}"):
            results[place] = ["found", None]
        return {"results": results}

    def _take(self, command: Write) -> bool:
        """Note the batch's key; False where it is noted already, and so was done."""
        where = _table(Table(command.table.schema, command.batches))
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS {where} (key VARCHAR PRIMARY KEY, target VARCHAR NOT NULL, "
            "records BIGINT NOT NULL, taken TIMESTAMPTZ NOT NULL DEFAULT now())"
        )
        if self._rows(f"SELECT 1 FROM {where} WHERE key = ?", [command.key]):
            return False
        kept = KEYS_KEPT / 86_400 + 1
        self._connection.execute(f"DELETE FROM {where} WHERE taken < now() - to_days({int(kept)})")
        self._connection.execute(
            f"INSERT INTO {where} (key, target, records) VALUES (?, ?, ?)",
            [command.key, str(command.table), len(command.records)],
        )
        return True

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, list(values)).fetchall()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _table(table: Table) -> str:
    return f"{_quoted(table.schema)}.{_quoted(table.name)}" if table.schema else _quoted(table.name)


def _same(match: Sequence[str]) -> str:
    return " AND ".join(f"t.{_quoted(name)} = g.{_quoted(name)}" for name in match)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cast(column: str, kind: str) -> str:
    upper = kind.upper()
    if upper == "BLOB":
        return f"unhex(substr({column}, 3))"
    if upper.endswith("]") or upper.startswith(("STRUCT", "MAP", "UNION")):
        return f"CAST(CAST({column} AS JSON) AS {kind})"
    return f"CAST({column} AS {kind})"


def _failed(error: duckdb.Error) -> Response:
    """What an error is in SQLSTATE's words. Closing the connection undoes the transaction."""
    text = " ".join(str(error).split())
    if isinstance(error, duckdb.ConstraintException):
        code = next((code for words, code in _CONSTRAINTS if words.lower() in text.lower()), "23505")
    elif isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException | duckdb.InvalidInputException):
        code = "22000"
    elif isinstance(error, duckdb.TransactionException):
        code = "CONFLICT"
    elif isinstance(error, duckdb.CatalogException):
        code = "42P01"
    elif isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException | duckdb.InternalException):
        raise NotSent(f"DuckDB undid the transaction ({type(error).__name__}).", "IO") from error
    else:
        code = "42000"
    return _answer({"code": code, "message": text}, 400)


def _answer(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(status, {}, json.dumps(document).encode())
