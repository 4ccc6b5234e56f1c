"""The sandbox's state on disk: one SQLite file that survives restarts and SIGKILL of the server.

One process opens it, and one thread of it uses it. The callers decide what a transaction is: the effects of a request.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from integrations_dagster.sandbox import owners, row_store
from integrations_dagster.sandbox.properties import Property, predefined

OBJECTS = ("contacts", "companies")
_CODES = {name: code for code, name in enumerate(OBJECTS, start=1)}
_FIRST_ID = 10_001
_CHUNK = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY, object INTEGER NOT NULL, properties TEXT NOT NULL, created TEXT NOT NULL,
    updated TEXT NOT NULL, archived TEXT, writes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS unique_value (
    object INTEGER NOT NULL, property TEXT NOT NULL, value TEXT NOT NULL, id INTEGER NOT NULL,
    PRIMARY KEY (object, property, value)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS property (
    object INTEGER NOT NULL, name TEXT NOT NULL, definition TEXT NOT NULL, PRIMARY KEY (object, name)
);
CREATE TABLE IF NOT EXISTS webhook_record (
    name TEXT NOT NULL, object TEXT NOT NULL, key TEXT NOT NULL, sync TEXT, partition TEXT, match TEXT, record TEXT,
    removed INTEGER NOT NULL, writes INTEGER NOT NULL, delivery TEXT NOT NULL, PRIMARY KEY (name, object, key)
);
CREATE TABLE IF NOT EXISTS delivery (
    name TEXT NOT NULL, id TEXT NOT NULL, accepted INTEGER NOT NULL, duplicates INTEGER NOT NULL,
    PRIMARY KEY (name, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS request (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, method TEXT NOT NULL, path TEXT NOT NULL, status INTEGER,
    rows INTEGER NOT NULL, failed_rows INTEGER NOT NULL, ids TEXT NOT NULL, started REAL NOT NULL, ended REAL,
    fault TEXT NOT NULL, body BLOB
);
CREATE TABLE IF NOT EXISTS slack_message (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, method TEXT NOT NULL, payload TEXT NOT NULL, at REAL NOT NULL
);
"""
T = TypeVar("T")
_TABLES = ("record", "unique_value", "property", "webhook_record", "delivery", "request", "slack_message")


@dataclass(slots=True)
class Record:
    """A live CRM record: its id, non-empty properties, and creation time (ISO 8601)."""

    id: int
    properties: dict[str, str]
    created: str
    updated: str


class Store:
    """The tables, and the statements on them.

    Args:
        path: The SQLite file; created where it does not exist.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The event loop's thread is not always the one that opened the file (a server in a thread).
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
        path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode = WAL")
        # What was committed survives the end of the process; only the machine's own crash could lose it.
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA wal_autocheckpoint = 4000")
        self._db.executescript(_SCHEMA)
        self._db.executescript(row_store.SCHEMA)
        self._db.executescript(owners.SCHEMA)
        self.rows = row_store.RowStore(self._db)
        """Inserted records, idempotency keys and jobs."""
        self.owners = owners.Owners(self._db)
        self._properties: dict[str, dict[str, Property]] = {}
        self._next_id = _FIRST_ID
        self._load()

    def _load(self) -> None:
        highest = self._db.execute("SELECT max(id) FROM record").fetchone()[0]
        # A reset does not make ids occur twice.
        self._next_id = max(self._next_id, (highest or 0) + 1)
        for object_, code in _CODES.items():
            self._properties[object_] = predefined(object_)
            for name, text in self._db.execute("SELECT name, definition FROM property WHERE object = ?", (code,)):
                stored = json.loads(text)
                if stored is None:
                    self._properties[object_].pop(name, None)
                else:
                    # States of earlier versions hold the body that defined the property.
                    read = Property.from_json if "fieldType" in stored else Property.from_state
                    self._properties[object_][name] = read(stored)

    @property
    def connection(self) -> sqlite3.Connection:
        """The open file, for the tables that other modules keep in it."""
        return self._db

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is written inside."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def reset(self) -> None:
        """Forget everything: records, custom properties, requests, messages."""
        with self.transaction():
            for table in (*_TABLES, *row_store.TABLES, *owners.TABLES):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 a constant
        self._load()

    # CRM records

    def properties(self, object_: str) -> dict[str, Property]:
        """Every property of "contacts" or "companies", by name."""
        return self._properties[object_]

    def define_property(self, object_: str, definition: Mapping[str, Any]) -> Property:
        """Add a custom property.

        Args:
            object_: "contacts" or "companies".
            definition: As HubSpot's properties API takes it.

        Raises:
            ValueError: What the definition lacks.
        """
        property_ = Property.from_json(definition)
        self._keep_property(object_, property_.name, property_)
        return property_

    def change_property(self, object_: str, name: str, changes: Mapping[str, Any]) -> Property:
        """Change a property, a standard one too; values that records have stay as they are.

        Args:
            object_: "contacts" or "companies".
            name: Its name.
            changes: Names of `Property`'s attributes to values.

        Raises:
            ValueError: There is no such property, or a change is none.
        """
        known = self._properties[object_].get(name)
        if known is None:
            raise ValueError(f"There is no property {name} of {object_}.")
        changed = Property.from_state(known.state() | dict(changes) | {"name": name})
        self._keep_property(object_, name, changed)
        return changed

    def remove_property(self, object_: str, name: str) -> bool:
        """Take a property away, a standard one too; returns whether there was one. Records lose its values."""
        if name not in self._properties[object_]:
            return False
        with self.transaction():
            self._keep_property(object_, name, None)
            path, code = f'$."{name}"', _CODES[object_]
            self._db.execute("UPDATE record SET properties = json_remove(properties, ?) WHERE object = ?", (path, code))
            self._db.execute("DELETE FROM unique_value WHERE object = ? AND property = ?", (code, name))
        return True

    def _keep_property(self, object_: str, name: str, property_: Property | None) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO property VALUES (?, ?, ?)",
            (_CODES[object_], name, json.dumps(property_ and property_.state())),
        )
        if property_ is None:
            self._properties[object_].pop(name, None)
        else:
            self._properties[object_][name] = property_

    def new_ids(self, count: int) -> range:
        """Ids that no record has had."""
        first = self._next_id
        self._next_id += count
        return range(first, self._next_id)

    def holders(self, object_: str, property_: str, values: Iterable[str]) -> dict[str, int]:
        """Which live record holds each of the values of a unique property."""
        found: dict[str, int] = {}
        for chunk in _chunks(values):
            found.update(
                self._db.execute(
                    "SELECT value, id FROM unique_value WHERE object = ? AND property = ? "  # noqa: S608 only marks
                    f"AND value IN ({_marks(chunk)})",
                    (_CODES[object_], property_, *chunk),
                )
            )
        return found

    def records(self, object_: str, ids: Iterable[int]) -> dict[int, Record]:
        """The live records among the ids."""
        found: dict[int, Record] = {}
        loads = json.loads
        for chunk in _chunks(ids):
            for id_, properties, created, updated in self._db.execute(
                "SELECT id, properties, created, updated FROM record "  # noqa: S608 only marks
                f"WHERE id IN ({_marks(chunk)}) AND object = ? AND archived IS NULL",
                (*chunk, _CODES[object_]),
            ):
                found[id_] = Record(id_, loads(properties), created, updated)
        return found

    def write_records(
        self, object_: str, created: Iterable[Record], updated: Iterable[Record], holders: Mapping[tuple[str, str], int]
    ) -> None:
        """Insert and update records, and move unique values; inside a transaction.

        Args:
            object_: "contacts" or "companies".
            created: Records with ids of `new_ids`.
            updated: Records that exist.
            holders: (property, value) to the record that holds it from now on, 0 for none.
        """
        code = _CODES[object_]
        self._db.executemany(
            "INSERT INTO record VALUES (?, ?, ?, ?, ?, NULL, 1)",
            [(r.id, code, json.dumps(r.properties), r.created, r.updated) for r in created],
        )
        self._db.executemany(
            "UPDATE record SET properties = ?, updated = ?, writes = writes + 1 WHERE id = ?",
            [(json.dumps(r.properties), r.updated, r.id) for r in updated],
        )
        self._db.executemany(
            "DELETE FROM unique_value WHERE object = ? AND property = ? AND value = ?",
            [(code, name, value) for (name, value), id_ in holders.items() if not id_],
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO unique_value VALUES (?, ?, ?, ?)",
            [(code, name, value, id_) for (name, value), id_ in holders.items() if id_],
        )

    def archive(self, object_: str, ids: Iterable[int], at: str) -> None:
        """Archive live records and free their unique values; inside a transaction."""
        code = _CODES[object_]
        unique = [p for p in self._properties[object_].values() if p.unique]
        records = self.records(object_, ids).values()
        self._db.executemany(
            "UPDATE record SET archived = ?, writes = writes + 1 WHERE id = ?", [(at, r.id) for r in records]
        )
        self._db.executemany(
            "DELETE FROM unique_value WHERE object = ? AND property = ? AND value = ? AND id = ?",
            [
                (code, p.name, p.normalize(r.properties[p.name]), r.id)
                for r in records
                for p in unique
                if p.name in r.properties
            ],
        )

    def page(self, object_: str, after: int, limit: int, *, archived: bool | None) -> list[dict[str, Any]]:
        """Records by ascending id: id, properties, created, updated, archived (a time or None), writes.

        Args:
            object_: "contacts" or "companies".
            after: The id to start behind.
            limit: Records at most.
            archived: Only archived ones, only live ones, or (None) both.
        """
        which = {None: "", True: "AND archived IS NOT NULL", False: "AND archived IS NULL"}[archived]
        rows = self._db.execute(
            "SELECT id, properties, created, updated, archived, writes FROM record "  # noqa: S608 constants
            f"WHERE object = ? AND id > ? {which} ORDER BY id LIMIT ?",
            (_CODES[object_], after, limit),
        )
        names = ("id", "properties", "created", "updated", "archived", "writes")
        return [dict(zip(names, (id_, json.loads(text), *rest), strict=True)) for id_, text, *rest in rows]

    # Webhook records

    def delivered(self, name: str, delivery: str) -> int | None:
        """The rows accepted with a delivery id before, counted as a duplicate now; None for a new id."""
        row = self._db.execute(
            "UPDATE delivery SET duplicates = duplicates + 1 WHERE name = ? AND id = ? RETURNING accepted",
            (name, delivery),
        ).fetchone()
        return None if row is None else int(row[0])

    def write_webhook(
        self, name: str, object_: str, sync: str, delivery: str, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Apply the rows of one delivery; inside a transaction."""
        self._db.execute("INSERT INTO delivery VALUES (?, ?, ?, 0)", (name, delivery, len(rows)))
        self._db.executemany(
            "INSERT INTO webhook_record VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET "
            "sync = excluded.sync, partition = excluded.partition, match = excluded.match, record = excluded.record, "
            "removed = excluded.removed, writes = writes + 1, delivery = excluded.delivery",
            [
                (
                    name,
                    object_,
                    row["key"],
                    sync,
                    row.get("partition", ""),
                    json.dumps(row.get("match")),
                    json.dumps(row.get("record")),
                    row["change"] == "removed",
                    delivery,
                )
                for row in rows
            ],
        )

    def webhook_page(self, name: str, object_: str, after: str, limit: int) -> list[dict[str, Any]]:
        """Webhook records by ascending key, removed ones too: key, sync, partition, match, record, removed, writes."""
        rows = self._db.execute(
            "SELECT key, sync, partition, match, record, removed, writes, delivery FROM webhook_record "
            "WHERE name = ? AND object = ? AND key > ? ORDER BY key LIMIT ?",
            (name, object_, after, limit),
        )
        return [
            {
                "key": key,
                "sync": sync,
                "partition": partition,
                "match": json.loads(match),
                "record": json.loads(record),
                "removed": bool(removed),
                "writes": writes,
                "delivery": delivery,
            }
            for key, sync, partition, match, record, removed, writes, delivery in rows
        ]

    # Requests and messages

    def begin_request(
        self, method: str, path: str, rows: int, ids: Sequence[str], started: float, body: bytes | None
    ) -> int:
        """Note a request that has arrived; returns its number."""
        cursor = self._db.execute(
            "INSERT INTO request (method, path, rows, failed_rows, ids, started, fault, body) "
            "VALUES (?, ?, ?, 0, ?, ?, '', ?)",
            (method, path, rows, json.dumps(ids), started, body),
        )
        return int(cursor.lastrowid or 0)

    def end_request(self, seq: int, status: int | None, failed_rows: int, ended: float, fault: str) -> None:
        """Note how a request ended; status None: without an answer."""
        self._db.execute(
            "UPDATE request SET status = ?, failed_rows = ?, ended = ?, fault = ? WHERE seq = ?",
            (status, failed_rows, ended, fault, seq),
        )

    def requests(self, since: int, limit: int, *, bodies: bool) -> list[dict[str, Any]]:
        """Requests with a number above `since`, in order of arrival."""
        names = ("seq", "method", "path", "status", "rows", "failed_rows", "ids", "started", "ended", "fault", "body")
        result = []
        for row in self._db.execute(
            f"SELECT {', '.join(names)} FROM request WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608 constants
            (since, limit),
        ):
            entry = dict(zip(names, row, strict=True))
            entry["ids"] = json.loads(entry["ids"])
            body = entry.pop("body")
            if bodies:
                entry["body"] = None if body is None else body.decode("utf-8", "replace")
            result.append(entry)
        return result

    def last_seq(self) -> int:
        """The number of the newest request; 0 before the first."""
        return int(self._db.execute("SELECT coalesce(max(seq), 0) FROM request").fetchone()[0])

    def stats(self) -> dict[str, Any]:
        """Counts over all requests: by "METHOD path" and status ("none": no answer), rows, failed rows, duplicates."""
        requests: dict[str, dict[str, int]] = {}
        for method, path, status, count in self._db.execute(
            "SELECT method, path, status, count(*) FROM request GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ):
            requests.setdefault(f"{method} {path}", {})["none" if status is None else str(status)] = count
        total, rows, failed = self._db.execute(
            "SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(failed_rows), 0) FROM request"
        ).fetchone()
        duplicates = self._db.execute("SELECT name, sum(duplicates) FROM delivery GROUP BY name").fetchall()
        return {
            "total": total,
            "requests": requests,
            "rows": rows,
            "failed_rows": failed,
            "duplicate_deliveries": dict(duplicates),
        }

    def add_slack_message(self, method: str, payload: Mapping[str, Any], at: float) -> int:
        """Keep what a Slack method was called with; returns the message's number."""
        cursor = self._db.execute(
            "INSERT INTO slack_message (method, payload, at) VALUES (?, ?, ?)", (method, json.dumps(dict(payload)), at)
        )
        return int(cursor.lastrowid or 0)

    def slack_messages(self) -> list[dict[str, Any]]:
        """What Slack methods were called with, in order: method, payload, at (seconds since the epoch)."""
        rows = self._db.execute("SELECT method, payload, at FROM slack_message ORDER BY seq")
        return [{"method": method, "payload": json.loads(payload), "at": at} for method, payload, at in rows]


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    # SQLite limits the parameters of a statement; HubSpot's batches stay far below.
    listed = list(values)
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]
