"""What the sandbox's Salesforce holds: records, and the fields that were defined."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from integrations_dagster.sandbox.answers import timestamp
from integrations_dagster.sandbox.salesforce_fields import (
    SalesforceField,
    predefined,
    record_id,
    standard_objects,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS salesforce_record (
    number INTEGER PRIMARY KEY AUTOINCREMENT, object TEXT NOT NULL, fields TEXT NOT NULL, created TEXT NOT NULL,
    updated TEXT NOT NULL, deleted INTEGER NOT NULL, writes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS salesforce_key (
    object TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL, number INTEGER NOT NULL,
    PRIMARY KEY (object, field, value, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS salesforce_key_number ON salesforce_key (number);
CREATE TABLE IF NOT EXISTS salesforce_field (
    object TEXT NOT NULL, name TEXT NOT NULL, definition TEXT NOT NULL, PRIMARY KEY (object, name)
);
"""
_TABLES = ("salesforce_record", "salesforce_key", "salesforce_field")


@dataclass(slots=True)
class Record:
    """A record: its number, object, non-empty fields, times (ISO 8601), and whether it was deleted."""

    number: int
    object: str
    fields: dict[str, Any]
    created: str
    updated: str
    deleted: bool = False
    writes: int = 1

    @property
    def id(self) -> str:
        return record_id(self.object, self.number)

    def value(self, name: str) -> Any:
        """A field's value, system fields too."""
        return {"Id": self.id, "CreatedDate": self.created, "LastModifiedDate": self.updated}.get(name) or (
            self.fields.get(name)
        )


class SalesforceState:
    """The tables, and the statements on them. What writes is called inside a transaction.

    Args:
        db: The sandbox's state; the tables are made here.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.executescript(SCHEMA)
        self._fields: dict[str, dict[str, SalesforceField]] = {}
        self._load()

    def _load(self) -> None:
        self._fields = {object_: predefined(object_) for object_ in standard_objects()}
        for object_, name, text in self._db.execute("SELECT object, name, definition FROM salesforce_field"):
            fields = self._fields.setdefault(object_, predefined(object_))
            fields[name] = SalesforceField.from_state(json.loads(text))

    def reset(self) -> None:
        """Forget records and defined fields; numbers do not occur twice."""
        for table in _TABLES:
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 a constant
        self._load()

    def fields(self, object_: str) -> dict[str, SalesforceField] | None:
        """The fields of an object by name; None where there is no such object."""
        return self._fields.get(object_)

    def define(self, object_: str, definition: Mapping[str, Any]) -> SalesforceField:
        """Add a field, or change one; an object that is new comes into being.

        Raises:
            ValueError: What the definition lacks.
        """
        name = str(definition["name"])
        fields = self._fields.get(object_) or predefined(object_)
        before = fields[name].state() if name in fields else {}
        field = SalesforceField.from_state({**before, **definition})
        self._db.execute(
            "INSERT OR REPLACE INTO salesforce_field VALUES (?, ?, ?)", (object_, name, json.dumps(field.state()))
        )
        self._fields.setdefault(object_, fields)[name] = field
        return field

    def create(self, object_: str, values: Mapping[str, Any]) -> Record:
        """Make a record."""
        now = timestamp()
        kept = {name: value for name, value in values.items() if value is not None}
        cursor = self._db.execute(
            "INSERT INTO salesforce_record (object, fields, created, updated, deleted, writes) "
            "VALUES (?, ?, ?, ?, 0, 1)",
            (object_, json.dumps(kept), now, now),
        )
        record = Record(int(cursor.lastrowid or 0), object_, kept, now, now)
        self._index(record)
        return record

    def update(self, record: Record, changes: Mapping[str, Any]) -> None:
        """Change a record; None clears a field."""
        record.fields = {n: v for n, v in {**record.fields, **changes}.items() if v is not None}
        record.updated = timestamp()
        self._db.execute(
            "UPDATE salesforce_record SET fields = ?, updated = ?, writes = writes + 1 WHERE number = ?",
            (json.dumps(record.fields), record.updated, record.number),
        )
        if any(field.indexed for name in changes if (field := self._fields[record.object].get(name))):
            self._db.execute("DELETE FROM salesforce_key WHERE number = ?", (record.number,))
            self._index(record)

    def delete(self, record: Record) -> None:
        """Put a record into the recycle bin, which frees its unique values."""
        self._db.execute(
            "UPDATE salesforce_record SET deleted = 1, writes = writes + 1 WHERE number = ?", (record.number,)
        )
        self._db.execute("DELETE FROM salesforce_key WHERE number = ?", (record.number,))

    def _index(self, record: Record) -> None:
        fields = self._fields[record.object]
        self._db.executemany(
            "INSERT OR IGNORE INTO salesforce_key VALUES (?, ?, ?, ?)",
            [
                (record.object, name, fields[name].key(value), record.number)
                for name, value in record.fields.items()
                if fields[name].indexed
            ],
        )

    def one(self, number: int) -> Record | None:
        """A record, deleted or not."""
        row = self._db.execute(f"{_SELECT} WHERE number = ?", (number,)).fetchone()
        return None if row is None else _record(row)

    def holders(self, object_: str, field: SalesforceField, value: Any) -> list[Record]:
        """The live records that have a value of an indexed field."""
        rows = self._db.execute(
            f"{_SELECT} WHERE number IN "  # noqa: S608 a constant
            "(SELECT number FROM salesforce_key WHERE object = ? AND field = ? AND value = ?) ORDER BY number",
            (object_, field.name, field.key(value)),
        )
        return [_record(row) for row in rows]

    def live(self, object_: str) -> Iterable[Record]:
        """All live records of an object, by number."""
        rows = self._db.execute(f"{_SELECT} WHERE object = ? AND deleted = 0 ORDER BY number", (object_,))
        return (_record(row) for row in rows)

    def page(self, object_: str, after: int, limit: int) -> list[dict[str, Any]]:
        """Records by ascending number, deleted ones too: number, id, fields, deleted, writes."""
        rows = self._db.execute(
            f"{_SELECT} WHERE object = ? AND number > ? ORDER BY number LIMIT ?", (object_, after, limit)
        )
        return [
            {"number": r.number, "id": r.id, "fields": r.fields, "deleted": r.deleted, "writes": r.writes}
            for r in map(_record, rows)
        ]


_SELECT = "SELECT number, object, fields, created, updated, deleted, writes FROM salesforce_record"


def _record(row: tuple[Any, ...]) -> Record:
    number, object_, fields, created, updated, deleted, writes = row
    return Record(number, object_, json.loads(fields), created, updated, bool(deleted), writes)
