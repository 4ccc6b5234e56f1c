"""DuckDB databases in memory, used one after the other.

To start one costs 25 ms of a core, and a run of a sync starts seven: a third of what a run of a few rows costs.
A test's connection has a database to itself for as long as it is open, as it would without this; when it is closed the
next one gets the database, without tables and with the settings that it asks for. Processes that tests start, and the
slow tests, start their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import duckdb

_OPEN = duckdb.connect
_LOCAL = frozenset({"disabled_optimizers"})
"""Settings that the package sets for a whole database once it has it."""


class Lent:
    """A connection that gives its database back when it is closed."""

    def __init__(self, idle: list[duckdb.DuckDBPyConnection], config: Mapping[str, Any]) -> None:
        self._idle = idle
        self._names = (*config, *_LOCAL)
        try:
            self._database = idle.pop()
        except IndexError:
            self._database = _OPEN()
        self._connection = self._database.cursor()
        self._open = True
        try:
            for name, value in config.items():
                self._connection.execute(f"SET GLOBAL {name} = '{value}'")
        except duckdb.Error:
            # A database that has spilled to a folder keeps it.
            self._connection.close()
            self._database = _OPEN(config=dict(config))
            self._connection = self._database.cursor()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the database is as new."""
        if not self._open:
            return
        self._open = False
        self._connection.close()
        try:
            for name in self._names:
                self._database.execute(f"RESET GLOBAL {name}")
            left = self._database.execute("SELECT count(*) FROM duckdb_tables()").fetchall()[0][0]
            left += self._database.execute("SELECT count(*) FROM duckdb_views() WHERE NOT internal").fetchall()[0][0]
        except duckdb.Error:
            left = 1
        if left:
            self._database.close()
        else:
            self._idle.append(self._database)

    def __del__(self) -> None:
        if self._open:
            self._connection.close()
            self._database.close()


def lending(idle: list[duckdb.DuckDBPyConnection]) -> Any:
    """What stands in for `duckdb.connect`, with its idle databases."""

    def connect(database: Any = ":memory:", read_only: bool = False, config: Mapping[str, Any] | None = None) -> Any:
        if database != ":memory:":
            return _OPEN(database, read_only, dict(config or {}))
        return Lent(idle, config or {})

    return connect
