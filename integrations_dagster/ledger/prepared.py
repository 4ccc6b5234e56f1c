"""Statements that run for every batch, rendered once for each dialect and given to the driver as they are.

SQLAlchemy's way of executing a statement costs several times as much as the statement itself, and is paid while the
ledger's one writer keeps all others out.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection


class _Rendered(NamedTuple):
    """A statement in the driver's form: text, fixed values, and the order of all values where they have no names."""

    text: str
    fixed: Mapping[str, Any]
    order: tuple[str, ...] | None


class Prepared:
    """A statement whose parameters are named by `sa.bindparam`.

    Values and results are the driver's own: a boolean may come back as 0 or 1. The driver's errors are raised as they
    are.

    Args:
        statement: None of its parameters holds a list.
    """

    def __init__(self, statement: sa.Select[Any] | sa.Insert | sa.Update | sa.Delete) -> None:
        self._statement = statement
        self._rendered: dict[str, _Rendered] = {}
        self._row: Any = None

    def first(self, connection: Connection, **values: Any) -> Any:
        """Run it, and return its first row, whose attributes are the columns, or None."""
        cursor = self._run(connection, values)
        row = cursor.fetchone()
        return None if row is None else self._named(cursor)(*row)

    def all(self, connection: Connection, **values: Any) -> list[Any]:
        """Run it, and return its rows."""
        cursor = self._run(connection, values)
        rows = cursor.fetchall()
        return [self._named(cursor)(*row) for row in rows]

    def changed(self, connection: Connection, **values: Any) -> int:
        """Run it, and return how many rows it has changed."""
        return int(self._run(connection, values).rowcount)

    def _run(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        text, fixed, order = self._rendered.get(connection.dialect.name) or self._render(connection.dialect)
        given = {**fixed, **values}
        cursor = connection.connection.cursor()
        cursor.execute(text, given if order is None else [given[name] for name in order])
        return cursor

    def _render(self, dialect: sa.Dialect) -> _Rendered:
        compiled = self._statement.compile(dialect=dialect)
        order = tuple(compiled.positiontup or ()) if compiled.positional else None
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        self._rendered[dialect.name] = rendered = _Rendered(str(compiled), fixed, order)
        return rendered

    def _named(self, cursor: Any) -> Any:
        if self._row is None:
            self._row = namedtuple("Row", [column[0] for column in cursor.description])  # type: ignore[misc]
        return self._row
