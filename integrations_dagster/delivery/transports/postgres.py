"""One connection of one thread to PostgreSQL: each batch is a transaction, whose fate is known.

Until COMMIT is sent nothing has happened, whatever becomes of the connection: the server undoes what it began. Only a
connection that breaks between COMMIT and its answer leaves the effect unknown.

psycopg2 is used without blocking, so that every wait has an end: a server that is silent cannot hold a thread for
longer than the request's timeout. The server itself ends a statement, and a transaction whose client is silent, at the
same time, so that nothing takes effect later.
"""

from __future__ import annotations

import json
import re
import select
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg2  # type: ignore[import-untyped]
from psycopg2 import extensions

from integrations_dagster.delivery.accounts import Account
from integrations_dagster.delivery.credentials import Grant
from integrations_dagster.delivery.transports.postgres_statements import (
    COLUMNS,
    EXISTS,
    UNIQUE,
    Shape,
    Statements,
    batches_table,
    make_batches,
    quoted_table,
    shape_of,
)
from integrations_dagster.delivery.transports.unanswered import NoAnswer, NotSent
from integrations_dagster.destinations.base import Request, Response
from integrations_dagster.destinations.errors import Refused, Throttled
from integrations_dagster.destinations.sql.destination import KEYS_KEPT, Describe, Find, Identify, Table, Write
from integrations_dagster.vocabulary import Action
from integrations_dagster.warehouses.postgres import secrets_of

CONNECT_TIMEOUT = 10.0
"""Seconds to establish a connection."""
_OUTAGE = ("08", "53", "57", "58", "XX", "F0")
"""Classes of SQLSTATE that say nothing of what was sent: connections, resources, operators, the system."""
_LOCAL = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "standard_conforming_strings": "on",
}
"""What decides how values are read; set in each transaction, for poolers give each another connection."""
_KEPT_DAYS = KEYS_KEPT / 86_400 + 1


class _Undone(Exception):
    """The transaction is to be undone, and this is the answer."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class PostgresSession:
    """Writes to one database. One instance belongs to one thread.

    Args:
        account: Its `base_url` is a URL of libpq; `auth` of kind basic has user and password, if the URL has not.
    """

    def __init__(self, account: Account) -> None:
        self.timeout = account.timeout
        self._account = account
        self._connection: Any = None
        self._shapes: dict[Table, Shape | None] = {}
        self._batches: set[str] = set()
        self._deadline = 0.0
        parts = urlsplit(account.base_url)
        self._host = parts.hostname or "the database"
        self._secrets = secrets_of(account.base_url)
        self._more: dict[str, str] = {}
        if account.auth is not None:
            self._more = {"user": account.auth.settings["username"], "password": account.auth.settings["password"]}
            self._secrets += [secret for secret in self._more.values() if len(secret) > 2]

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        self._batches.clear()
        if connection is not None:
            with suppress(psycopg2.Error):
                connection.close()

    def send(self, request: Request, grant: Grant, flight: AbstractContextManager[None] | None = None) -> Response:  # noqa: ARG002
        """Do what the command says in one transaction; an error of the database is an answer with status 400.

        Raises:
            NotSent: Nothing was done.
            Throttled: Nothing was done; the server has no connection to spare.
            Refused: The server lets nobody in with these settings.
            NoAnswer: The connection broke at the very end: all of it was done, or nothing.
        """
        self._deadline = time.monotonic() + self.timeout
        self._connect()
        with flight or nullcontext():
            self._deadline = time.monotonic() + self.timeout
            try:
                return self._do(request.command)
            except BaseException:
                # Also a cancellation: the server undoes what is not committed.
                self.close()
                raise

    def _do(self, command: object) -> Response:
        match command:
            case Write():
                return self._transaction(command.table, lambda: self._write(command))
            case Find():
                return self._transaction(command.table, lambda: self._find(command), writes=False)
            case Describe():
                return self._transaction(command.table, lambda: self._describe(command.table), writes=False)
            case Identify():
                info = self._connection.info
                return _answer({"identity": f"{info.port}/{info.dbname}"})
        raise TypeError(f"{command!r} is no command for PostgreSQL")

    # Transactions

    def _transaction(self, table: Table, work: Callable[[], Mapping[str, Any]], *, writes: bool = True) -> Response:
        """Do it and commit, or undo all of it.

        Raises:
            NotSent, NoAnswer: See `send`.
        """
        try:
            try:
                self._begin()
                result = work()
            except _Undone as undone:
                self._batches.clear()
                self._run("ROLLBACK")
                return undone.response
        except psycopg2.Error as error:
            # What was looked up or made in it may not be so any more.
            self._shapes.pop(table, None)
            self._batches.clear()
            return self._failed(error, committing=False)
        except _Silence:
            self.close()
            raise NotSent(
                f"{self._host} did not finish the transaction within {self.timeout:g} s; it was undone.", "TIMEOUT"
            ) from None
        try:
            self._run("COMMIT" if writes else "ROLLBACK")
        except psycopg2.Error as error:
            # A server that answers COMMIT with an error has undone it: deferred constraints are checked now.
            self._batches.clear()
            return self._failed(error, committing=True)
        except _Silence:
            raise NoAnswer(f"{self._host} did not answer COMMIT within {self.timeout:g} s.", "TIMEOUT") from None
        return _answer(result)

    def _begin(self) -> None:
        left = max(1, int((self._deadline - time.monotonic()) * 1000))
        limits = {"statement_timeout": left, "idle_in_transaction_session_timeout": left}
        settings = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in {**_LOCAL, **limits}.items())
        self._run(f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {settings}")

    def _failed(self, error: psycopg2.Error, *, committing: bool) -> Response:
        code = error.pgcode or ""
        if not code or code.startswith(_OUTAGE):
            message = self._told(error)
            if code == "57014":
                message = f"it did not finish within {self.timeout:g} s."
            self.close()
            if committing and (not code or code.startswith("57P")):
                raise NoAnswer(f"The connection to {self._host} broke at COMMIT: {message}", code or "BROKE") from None
            raise NotSent(f"{self._host} undid the transaction: {message}", code or "CONNECTION_BROKE") from None
        if not committing:
            try:
                self._run("ROLLBACK")
            except (psycopg2.Error, _Silence):
                self.close()
        told = error.diag
        # Not the detail: it may quote columns that the sync does not know.
        found = {
            "code": code,
            "message": told.message_primary or "",
            "column": told.column_name or "",
            "constraint": told.constraint_name or "",
        }
        return _answer({name: text for name, text in found.items() if text}, 400)

    # Work

    def _write(self, command: Write) -> dict[str, Any]:
        shape = self._known(command.table, [name for columns, _ in command.groups for name in columns])
        if command.key and not self._take(command):
            return {"results": [["created", None]] * len(command.records)}
        results: list[list[str | None]] = [["missing", None] for _ in command.records]
        for columns, places in command.groups:
            if not columns:
                raise _Undone(_answer({"code": "42601", "message": "A record has no column to write."}, 400))
            statements = Statements(command.table, shape, columns, command.match)
            records = "[" + ",".join(command.records[place].decode() for place in places) + "]"
            values: list[Any] = [records]
            if command.action is Action.UPDATE:
                if shape.id_column(command.match) is None:
                    return {"results": results}  # the table has another key now: the next run writes by match value
                values.append([command.ids[place] for place in places])
            if command.action is Action.MODIFY and shape.lockable:
                self._run(statements.lock(), [records])
            rows = self._run(statements.write(command.action), values)
            if command.action is Action.CREATE:
                if rows[0][0] != len(places):
                    raise _skipped()
                for place in places:
                    results[place] = ["created", None]
                continue
            if command.action is Action.UPSERT and len(rows) != len(places):
                raise _skipped()
            for place, what, id_ in rows:
                results[places[place - 1]] = [what, id_]
        return {"results": results}

    def _take(self, command: Write) -> bool:
        """Note the batch's key; False where it is noted already, and so was done. Waits for a transaction that does it
        at this moment."""
        where = batches_table(command.table, command.batches)
        if where not in self._batches:
            self._make_batches(where)
        noted = self._run(
            f"WITH noted AS (INSERT INTO {where} (key, target, records) VALUES (%s, %s, %s) "
            "ON CONFLICT (key) DO NOTHING RETURNING 1) SELECT count(*) FROM noted",
            [command.key, str(command.table), len(command.records)],
        )
        return bool(noted[0][0])

    def _make_batches(self, where: str) -> None:
        if not self._run("SELECT to_regclass(%s)", [where.replace("%%", "%")])[0][0]:
            # Several sessions may find that it is missing; one makes it.
            self._run("SELECT pg_advisory_xact_lock(hashtext('integrations_batches'))")
            self._run(make_batches(where).replace("%%", "%"))
        self._run(
            f"DELETE FROM {where} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {where} "
            "WHERE taken < now() - %s * interval '1 day' LIMIT 10000 FOR UPDATE SKIP LOCKED))",
            [_KEPT_DAYS],
        )
        self._batches.add(where)

    def _find(self, command: Find) -> dict[str, Any]:
        shape = self._known(command.table, command.match)
        records = "[" + ",".join(record.decode() for record in command.records) + "]"
        results: list[list[str | None]] = [["missing", None] for _ in command.records]
        for place, what, id_ in self._run(
            Statements(command.table, shape, command.match, command.match).find(), [records]
        ):
            results[place - 1] = [what, id_]
        return {"results": results}

    def _describe(self, table: Table) -> dict[str, Any]:
        shape = self._look(table)
        if shape is None:
            return {"missing": True}
        columns = [
            {
                "name": column.name,
                "type": column.kind,
                "nullable": column.nullable,
                "default": column.default,
                "writable": column.writable,
                "options": list(column.options),
            }
            for column in shape.columns.values()
        ]
        return {"columns": columns, "unique": [list(names) for names in shape.unique]}

    def _look(self, table: Table) -> Shape | None:
        found = self._run(EXISTS, [quoted_table(table).replace("%%", "%")])
        if not found:
            return None
        oid, relkind = found[0]
        return shape_of(relkind, self._run(COLUMNS, [oid]), self._run(UNIQUE, [oid]))

    def _known(self, table: Table, columns: Sequence[str]) -> Shape:
        shape = self._shapes.get(table)
        if shape is None or not shape.columns.keys() >= set(columns):
            shape = self._shapes[table] = self._look(table)
        if shape is None:
            raise _Undone(_answer({"code": "42P01", "message": f"{table} does not exist."}, 400))
        if missing := sorted(set(columns) - shape.columns.keys()):
            raise _Undone(_answer({"code": "42703", "message": f"{table} lacks {', '.join(missing)}."}, 400))
        return shape

    # The wire

    def _connect(self) -> None:
        if self._connection is not None and not self._connection.closed:
            return
        self.close()
        try:
            self._connection = psycopg2.connect(
                self._account.base_url,
                async_=True,
                application_name="integrations-dagster",
                client_encoding="utf8",
                **self._more,
            )
            self._await(min(self._deadline, time.monotonic() + CONNECT_TIMEOUT))
        except _Silence:
            self.close()
            raise NotSent(f"No connection to {self._host} within {CONNECT_TIMEOUT:g} s.", "NO_CONNECTION") from None
        except psycopg2.Error as error:
            message = self._told(error)
            self.close()
            if _REFUSED.search(message) or isinstance(error, psycopg2.ProgrammingError):
                raise _no_entry(self._host, message) from None
            if _FULL.search(message):
                # Costs no attempt: connections become free when other threads, or others, are done.
                raise Throttled(f"{self._host} has no connection to spare: {message}", "53300", wait=1.0) from None
            raise NotSent(f"No connection to {self._host}: {message}", "NO_CONNECTION") from None

    def _run(self, statement: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Execute, and give the rows of the last statement."""
        cursor = self._connection.cursor()
        cursor.execute(statement, values)
        self._await(self._deadline)
        rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
        return rows

    def _await(self, deadline: float) -> None:
        while True:
            state = self._connection.poll()
            if state == extensions.POLL_OK:
                return
            left = deadline - time.monotonic()
            waiting = select.poll()
            event = select.POLLIN if state == extensions.POLL_READ else select.POLLOUT
            waiting.register(self._connection.fileno(), event)
            if left <= 0 or not waiting.poll(left * 1000):
                raise _Silence

    def _told(self, error: psycopg2.Error) -> str:
        text = " ".join(str(error).split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:300] or type(error).__name__


class _Silence(Exception):
    """The time is up."""


_FULL = re.compile(r"too many (clients|connections)|connection slots are reserved")
_REFUSED = re.compile(r"authentication failed|no pg_hba\.conf entry|does not exist|no password supplied|invalid ")


def _no_entry(host: str, message: str) -> Refused:
    return Refused(
        f"{host} lets nobody in with these settings: {message}",
        "NO_ENTRY",
        remedy="Correct `base_url` or `auth` of the target: postgresql://USER:PASSWORD@HOST:PORT/DATABASE.",
    )


def _skipped() -> _Undone:
    message = "It left a row out, or changed its match value, so that what became of the row cannot be told."
    return _Undone(_answer({"code": "SKIPPED", "message": message}, 400))


def _answer(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(status, {}, json.dumps(document).encode())
