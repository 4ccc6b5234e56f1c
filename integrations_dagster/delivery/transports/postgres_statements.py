"""The statements that write records to a table of PostgreSQL: identifiers quoted, values bound.

The records of a statement are one bound value, a JSON array; PostgreSQL reads each value with its column's own type
(`json_to_recordset`), as it reads a literal. A JSON column takes a document, or a text that is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integrations_dagster.destinations.sql.destination import Table
from integrations_dagster.vocabulary import Action

EXISTS = "SELECT c.oid, c.relkind FROM pg_class c WHERE c.oid = to_regclass(%s)"
COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
  a.atthasdef OR a.attidentity <> '' OR coalesce(b.typdefault, t.typdefault) IS NOT NULL,
  a.attgenerated = '' AND a.attidentity <> 'a',
  coalesce(b.oid, t.oid) IN ('json'::regtype, 'jsonb'::regtype),
  ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = coalesce(b.oid, t.oid) ORDER BY e.enumsortorder)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_type b ON b.oid = t.typbasetype AND t.typtype = 'd'
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
# Only those that ON CONFLICT can use: whole, of columns alone, and not deferrable.
UNIQUE = """
SELECT i.indisprimary, ARRAY(
    SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
    WHERE k.place <= i.indnkeyatts ORDER BY k.place)
FROM pg_index i
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY NOT i.indisprimary, i.indexrelid
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        kind: Its type, as SQL.
        json: Whether it holds JSON documents.
    """

    name: str
    kind: str
    nullable: bool
    default: bool
    writable: bool
    json: bool
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a table is like.

    Attributes:
        plain: Whether it is an ordinary table, whose rows tell whether they are new.
        lockable: Whether its rows can be locked.
        unique: Columns of each of its unique constraints, that of the primary key first.
        primary: Columns of the primary key; empty where it has none.
    """

    plain: bool
    lockable: bool
    columns: Mapping[str, Column]
    unique: tuple[tuple[str, ...], ...]
    primary: tuple[str, ...]

    def id_column(self, match: Sequence[str]) -> Column | None:
        """The column whose value stays when the match value changes."""
        if len(self.primary) != 1 or self.primary[0] in match:
            return None
        return self.columns[self.primary[0]]


def quoted(name: str) -> str:
    """An identifier, fit for a statement with bound values."""
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def quoted_table(table: Table) -> str:
    """A table's name, likewise."""
    return f"{quoted(table.schema)}.{quoted(table.name)}" if table.schema else quoted(table.name)


class Statements:
    """The statements for records that have the same columns.

    Args:
        columns: The columns of the records.
        match: Those by which records are recognized.
    """

    def __init__(self, table: Table, shape: Shape, columns: Sequence[str], match: Sequence[str]) -> None:
        self._table = quoted_table(table)
        self._shape = shape
        self._columns = [shape.columns[name] for name in columns]
        self._match = match
        self._id = shape.id_column(match)

    def write(self, action: Action) -> str:
        """Writes; its one value is the records, for UPDATE followed by their ids.

        Its rows are (place, what, id), in the order of the records, those that were not there left out; of CREATE, one
        (count).
        """
        match action:
            case Action.CREATE:
                return self._create()
            case Action.UPSERT:
                return self._upsert()
            case Action.DELETE:
                return self._delete()
            case Action.UPDATE:
                return self._update(by_id=True)
            case Action.MODIFY:
                return self._update(by_id=False)

    def lock(self) -> str:
        """Takes the locks of the records in their order, so that two batches never wait for each other in a circle."""
        return (
            f"WITH {self._input()} SELECT 1 FROM {self._table} t JOIN input i ON {self._same('t', 'i')} "
            "ORDER BY i.place FOR UPDATE OF t"
        )

    def find(self) -> str:
        """Looks records up; its rows are as those of `write`."""
        return (
            f"WITH {self._input()} SELECT i.place, 'found', {self._id_of('t')} FROM input i JOIN {self._table} t "
            f"ON {self._same('t', 'i')} ORDER BY i.place"
        )

    def _input(self, *, ids: bool = False) -> str:
        # A JSON column's value is read as text first: a text that is a document is taken for one.
        kinds = ", ".join(f"{quoted(c.name)} {'text' if c.json else c.kind}" for c in self._columns)
        names = ", ".join(f"c{n}" for n in range(len(self._columns)))
        given = f"json_to_recordset(%s::json) AS ({kinds})" + (", unnest(%s::text[])" if ids else "")
        values = ", ".join(
            f"r.c{n}{f'::{c.kind}' if c.json else ''} AS {quoted(c.name)}" for n, c in enumerate(self._columns)
        )
        more = ", r.record_id" if ids else ""
        return (
            f"input AS MATERIALIZED (SELECT {values}{more}, r.place FROM ROWS FROM ({given}) WITH ORDINALITY AS "
            f"r({names}{', record_id' if ids else ''}, place))"
        )

    def _same(self, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{quoted(name)} = {right}.{quoted(name)}" for name in self._match)

    def _id_of(self, source: str) -> str:
        return "NULL" if self._id is None else f"{source}.{quoted(self._id.name)}::text"

    def _names(self, source: str = "") -> str:
        return ", ".join(f"{source}{quoted(column.name)}" for column in self._columns)

    def _create(self) -> str:
        return (
            f"WITH {self._input()}, written AS (INSERT INTO {self._table} ({self._names()}) SELECT {self._names('i.')} "
            "FROM input i ORDER BY i.place RETURNING 1) SELECT count(*) FROM written"
        )

    def _upsert(self) -> str:
        own = ", ".join(quoted(name) for name in self._match)
        others = [column for column in self._columns if column.name not in self._match] or self._columns
        values = ", ".join(f"{quoted(c.name)} = EXCLUDED.{quoted(c.name)}" for c in others)
        # Of a partitioned table or a view no row says whether it is new: there it is looked up before.
        before = f"EXISTS (SELECT 1 FROM {self._table} b WHERE {self._same('b', 'i')})"
        new = "w.is_new" if self._shape.plain else f"NOT {before}"
        told = "t.xmax = 0" if self._shape.plain else "NULL::boolean"
        return (
            f"WITH {self._input()}, written AS (INSERT INTO {self._table} AS t ({self._names()}) "
            f"SELECT {self._names('i.')} FROM input i ORDER BY i.place "
            f"ON CONFLICT ({own}) DO UPDATE SET {values} "
            f"RETURNING {', '.join(f't.{quoted(name)}' for name in self._match)}, {told} AS is_new, "
            f"{self._id_of('t')} AS record_id) "
            f"SELECT i.place, CASE WHEN {new} THEN 'created' ELSE 'updated' END, w.record_id "
            f"FROM input i JOIN written w ON {self._same('w', 'i')} ORDER BY i.place"
        )

    def _update(self, *, by_id: bool) -> str:
        others = [column for column in self._columns if by_id or column.name not in self._match] or self._columns
        values = ", ".join(f"{quoted(c.name)} = i.{quoted(c.name)}" for c in others)
        same = self._same("t", "i")
        if by_id:
            assert self._id is not None
            same = f"t.{quoted(self._id.name)} = i.record_id::{self._id.kind}"
        return (
            f"WITH {self._input(ids=by_id)}, written AS (UPDATE {self._table} t SET {values} FROM input i WHERE {same} "
            f"RETURNING i.place, {self._id_of('t')} AS record_id) "
            "SELECT place, 'updated', record_id FROM written ORDER BY place"
        )

    def _delete(self) -> str:
        return (
            f"WITH {self._input()}, written AS (DELETE FROM {self._table} t USING input i WHERE {self._same('t', 'i')} "
            "RETURNING i.place) SELECT place, 'deleted', NULL FROM written ORDER BY place"
        )


def shape_of(relkind: str, columns: Sequence[Sequence[Any]], unique: Sequence[Sequence[Any]]) -> Shape:
    """What the catalog says of a table, by the rows of `COLUMNS` and `UNIQUE`."""
    found = {
        name: Column(name, kind, nullable, default, writable, json, tuple(options))
        for name, kind, nullable, default, writable, json, options in columns
    }
    keys = tuple(tuple(names) for _, names in unique)
    primary = next((tuple(names) for is_primary, names in unique if is_primary), ())
    return Shape(relkind == "r", relkind in ("r", "p"), found, keys, primary)


def batches_table(table: Table, name: str) -> str:
    """The table that keeps the keys of inserted batches, beside the one that they are inserted into."""
    return quoted_table(Table(table.schema, name))


def make_batches(where: str) -> str:
    """Makes it."""
    return (
        f"CREATE TABLE IF NOT EXISTS {where} (key text PRIMARY KEY, target text NOT NULL, records bigint NOT NULL, "
        "taken timestamptz NOT NULL DEFAULT now())"
    )
