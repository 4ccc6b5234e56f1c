"""What the sandbox keeps of inserts and jobs: the records they made, answers by idempotency key, jobs and results."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS inserted (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, object TEXT NOT NULL, key TEXT NOT NULL,
    record TEXT NOT NULL, at REAL NOT NULL, writes INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS inserted_key ON inserted (name, object, key);
CREATE TABLE IF NOT EXISTS kept_answer (
    name TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, status INTEGER NOT NULL, body BLOB NOT NULL,
    failed_rows INTEGER NOT NULL, at REAL NOT NULL, replays INTEGER NOT NULL, reused INTEGER NOT NULL,
    PRIMARY KEY (name, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS job (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, object TEXT NOT NULL, work TEXT NOT NULL,
    submitted REAL NOT NULL, state TEXT NOT NULL, reached INTEGER NOT NULL, message TEXT NOT NULL, ended REAL
);
CREATE TABLE IF NOT EXISTS job_result (
    job INTEGER NOT NULL, position INTEGER NOT NULL, result TEXT NOT NULL, PRIMARY KEY (job, position)
) WITHOUT ROWID;
"""
TABLES = ("inserted", "kept_answer", "job", "job_result")


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The first complete answer to an idempotency key, and the digest of the body that it answers."""

    digest: str
    status: int
    body: bytes
    failed_rows: int


@dataclass(slots=True)
class Job:
    """A job as the state has it.

    Attributes:
        id: Number.
        name: The destination's name.
        object: The object.
        work: What was submitted: mode, rows, refusals, seconds, fails_after (see `jobs.py`).
        submitted: Seconds since the epoch.
        state: "running", "done" or "failed".
        reached: Rows that it has come to.
        message: Why it failed, or "".
        ended: Seconds since the epoch, or None.
    """

    id: int
    name: str
    object: str
    work: dict[str, Any]
    submitted: float
    state: str = "running"
    reached: int = 0
    message: str = ""
    ended: float | None = None


class RowStore:
    """The statements on these tables. What writes is called inside a transaction.

    Args:
        db: The state's connection, with `SCHEMA` applied.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    # Records

    def insert(self, name: str, object_: str, rows: Iterable[tuple[str, Mapping[str, Any]]], at: float) -> list[int]:
        """Make a record of each (key, record); returns their ids."""
        ids = []
        for key, record in rows:
            cursor = self._db.execute(
                "INSERT INTO inserted (name, object, key, record, at, writes) VALUES (?, ?, ?, ?, ?, 1)",
                (name, object_, key, json.dumps(record), at),
            )
            ids.append(int(cursor.lastrowid or 0))
        return ids

    def upsert(self, name: str, object_: str, key: str, record: Mapping[str, Any], at: float) -> tuple[int, bool]:
        """Replace the first record with this key, or make one; returns its id and whether it is new."""
        found = self._db.execute(
            "UPDATE inserted SET record = ?, at = ?, writes = writes + 1 WHERE id = "
            "(SELECT min(id) FROM inserted WHERE name = ? AND object = ? AND key = ?) RETURNING id",
            (json.dumps(record), at, name, object_, key),
        ).fetchall()
        return (int(found[0][0]), False) if found else (self.insert(name, object_, [(key, record)], at)[0], True)

    def has(self, name: str, object_: str, key: str) -> bool:
        """Whether there is a record with this key."""
        found = self._db.execute(
            "SELECT 1 FROM inserted WHERE name = ? AND object = ? AND key = ? LIMIT 1", (name, object_, key)
        )
        return found.fetchone() is not None

    def delete(self, name: str, object_: str, key: str) -> int | None:
        """Delete all records with this key; returns the id of the first, or None where there was none."""
        ids = self._db.execute(
            "DELETE FROM inserted WHERE name = ? AND object = ? AND key = ? RETURNING id", (name, object_, key)
        ).fetchall()
        return min((int(id_) for (id_,) in ids), default=None)

    def page(self, name: str, object_: str, after: int, limit: int) -> list[dict[str, Any]]:
        """Records by ascending id: id, key, record, at (seconds since the epoch), writes."""
        rows = self._db.execute(
            "SELECT id, key, record, at, writes FROM inserted WHERE name = ? AND object = ? AND id > ? "
            "ORDER BY id LIMIT ?",
            (name, object_, after, limit),
        )
        return [
            {"id": id_, "key": key, "record": json.loads(record), "at": at, "writes": writes}
            for id_, key, record, at, writes in rows
        ]

    # Idempotency keys

    def kept(self, name: str, key: str, not_before: float) -> KeptAnswer | None:
        """The answer to a key; one that was kept before `not_before` is forgotten."""
        self._db.execute("DELETE FROM kept_answer WHERE name = ? AND key = ? AND at < ?", (name, key, not_before))
        row = self._db.execute(
            "SELECT digest, status, body, failed_rows FROM kept_answer WHERE name = ? AND key = ?", (name, key)
        ).fetchone()
        return None if row is None else KeptAnswer(*row)

    def keep(self, name: str, key: str, answer: KeptAnswer, at: float) -> None:
        """Keep the answer to a key."""
        self._db.execute(
            "INSERT INTO kept_answer VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0)",
            (name, key, answer.digest, answer.status, answer.body, answer.failed_rows, at),
        )

    def count_key(self, name: str, key: str, *, replayed: bool) -> None:
        """Count a replay of a key's answer, or a use of the key for another body."""
        column = "replays" if replayed else "reused"
        self._db.execute(
            f"UPDATE kept_answer SET {column} = {column} + 1 WHERE name = ? AND key = ?",  # noqa: S608 a constant
            (name, key),
        )

    def keys(self, name: str) -> dict[str, dict[str, int]]:
        """Idempotency keys that are remembered, each with status, replays and reused."""
        rows = self._db.execute(
            "SELECT key, status, replays, reused FROM kept_answer WHERE name = ? ORDER BY at", (name,)
        )
        return {key: {"status": status, "replays": replays, "reused": reused} for key, status, replays, reused in rows}

    # Jobs

    def add_job(self, name: str, object_: str, work: dict[str, Any], at: float) -> Job:
        """Keep a job that was submitted."""
        cursor = self._db.execute(
            "INSERT INTO job (name, object, work, submitted, state, reached, message) "
            "VALUES (?, ?, ?, ?, 'running', 0, '')",
            (name, object_, json.dumps(work), at),
        )
        return Job(int(cursor.lastrowid or 0), name, object_, work, at)

    def save_job(self, job: Job, results: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Keep how far a job has come, and the results (position, result) of the rows that it has come to since."""
        self._db.execute(
            "UPDATE job SET state = ?, reached = ?, message = ?, ended = ? WHERE id = ?",
            (job.state, job.reached, job.message, job.ended, job.id),
        )
        self._db.executemany(
            "INSERT INTO job_result VALUES (?, ?, ?)",
            [(job.id, position, json.dumps(result)) for position, result in results],
        )

    def running(self) -> list[Job]:
        """Jobs that have not ended."""
        return self._jobs("state = 'running'", ())

    def job(self, name: str, object_: str, id_: int) -> Job | None:
        """A job, by its number."""
        return next(iter(self._jobs("id = ? AND name = ? AND object = ?", (id_, name, object_))), None)

    def jobs(self, name: str, after: int, limit: int) -> list[Job]:
        """Jobs of a destination, by ascending number."""
        return self._jobs("name = ? AND id > ? ORDER BY id LIMIT ?", (name, after, limit))

    def _jobs(self, where: str, values: tuple[object, ...]) -> list[Job]:
        rows = self._db.execute(
            "SELECT id, name, object, work, submitted, state, reached, message, ended FROM job "  # noqa: S608 constants
            f"WHERE {where}",
            values,
        )
        return [Job(id_, name, object_, json.loads(work), *rest) for id_, name, object_, work, *rest in rows]

    def results(self, job: int, after: int, limit: int) -> list[tuple[int, dict[str, Any]]]:
        """(position, result) of a job's rows from position `after` on."""
        rows = self._db.execute(
            "SELECT position, result FROM job_result WHERE job = ? AND position >= ? ORDER BY position LIMIT ?",
            (job, after, limit),
        )
        return [(position, json.loads(result)) for position, result in rows]
