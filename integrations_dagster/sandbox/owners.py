"""The owners of the sandbox's HubSpot: the users who can own records. Only the control API makes them."""

from __future__ import annotations

import sqlite3
from typing import Any

from integrations_dagster.sandbox.answers import timestamp

SCHEMA = """
CREATE TABLE IF NOT EXISTS owner (
    id INTEGER PRIMARY KEY, email TEXT, first_name TEXT, last_name TEXT, user_id INTEGER NOT NULL,
    archived INTEGER NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL
);
"""
TABLES = ("owner",)
MAX_PAGE = 500
"""Owners of a page at the most (HubSpot, "Retrieve a list of owners")."""
_FIRST_ID, _FIRST_USER = 70_001, 9_001


class Owners:
    """The table of owners, and the statements on it.

    Args:
        connection: The sandbox's state.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._next = max(_FIRST_ID, (self._db.execute("SELECT max(id) FROM owner").fetchone()[0] or 0) + 1)

    def define(
        self, email: str | None, first_name: str = "", last_name: str = "", *, archived: bool = False
    ) -> dict[str, Any]:
        """Add an owner; returns it as HubSpot shows it. Two owners may have one email, as where a user was removed and
        invited again."""
        # A reset does not make ids occur twice.
        id_, self._next, now = self._next, self._next + 1, timestamp()
        self._db.execute(
            "INSERT INTO owner VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (id_, email, first_name, last_name, id_ - _FIRST_ID + _FIRST_USER, archived, now, now),
        )
        return self.one(id_) or {}

    def archive(self, id_: int) -> bool:
        """Deactivate an owner; returns whether there is one."""
        changed = self._db.execute("UPDATE owner SET archived = 1, updated = ? WHERE id = ?", (timestamp(), id_))
        return changed.rowcount > 0

    def one(self, id_: int) -> dict[str, Any] | None:
        """One owner, archived or not."""
        rows = self._rows("id = ?", (id_,), 1)
        return rows[0] if rows else None

    def page(self, after: int, limit: int, email: str | None, *, archived: bool) -> list[dict[str, Any]]:
        """Owners with a higher id than `after`, by id, of one email or of any."""
        where, values = "id > ? AND archived = ?", [after, archived]
        if email is not None:
            return self._rows(f"{where} AND lower(email) = ?", (*values, email.strip().lower()), limit)
        return self._rows(where, tuple(values), limit)

    def _rows(self, where: str, values: tuple[Any, ...], limit: int) -> list[dict[str, Any]]:
        rows = self._db.execute(
            "SELECT id, email, first_name, last_name, user_id, archived, created, updated FROM owner "  # noqa: S608
            f"WHERE {where} ORDER BY id LIMIT ?",
            (*values, limit),
        )
        return [_shown(*row) for row in rows]


def _shown(
    id_: int,
    email: str | None,
    first_name: str,
    last_name: str,
    user_id: int,
    archived: int,
    created: str,
    updated: str,
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": str(id_),
        "type": "PERSON",
        "firstName": first_name,
        "lastName": last_name,
        "createdAt": created,
        "updatedAt": updated,
        "archived": bool(archived),
        "userIdIncludingInactive": user_id,
    }
    if email is not None:
        shown["email"] = email
    # A deactivated owner is no user any more.
    if not archived:
        shown["userId"] = user_id
    return shown
