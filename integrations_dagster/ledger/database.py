"""The ledger's database: one writer at a time, threads that commit together, one host where it is SQLite."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from integrations_dagster.ledger.schema import facts, metadata
from integrations_dagster.vocabulary import Misconfigured

LEDGER_FILE = "ledger.sqlite"
T = TypeVar("T")

PATIENCE = 60.0
"""Seconds for which a writer waits for those of other processes."""
LOOK_AGAIN = 0.0005
"""Seconds between two looks whether another process has finished writing. SQLite's own pauses grow to 100 ms, and then
processes starve each other."""
TOGETHER = 32
"""Changes of several threads that are committed at once, at the most."""
HOST_SILENCE = 600.0
"""Seconds without a sign of another host after which this host may use the SQLite ledger."""


class _Change(Generic[T]):
    """What one thread wants to change, and what came of it."""

    def __init__(self, work: Callable[[Connection], T]) -> None:
        self.work = work
        self.done = False
        self.result: T | None = None
        self.error: BaseException | None = None


class Database:
    """Transactions on the ledger's tables.

    Args:
        engine: Reads, and writes where `writer` is None.
        writer: Writes (SQLite: its connections do not wait inside the database).
    """

    def __init__(self, engine: Engine, *, writer: Engine | None = None, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._writer = writer or engine
        self._clock = clock
        # One writer at a time within the process, over one connection: taking one from a pool and giving it back costs
        # as much as what a batch writes.
        self._writing = threading.Lock()
        self._kept: Connection | None = None
        self._changes: deque[_Change[Any]] = deque()
        # Within a transaction, because several processes may open a new ledger at once.
        with self._transaction() as tx:
            metadata.create_all(tx)
            _add_columns(tx)

    @classmethod
    def open(cls, storage: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Open (or create) the SQLite ledger of a storage folder.

        Raises:
            Misconfigured: Another host used it within the last ten minutes: SQLite is safe on one host only.
        """
        storage.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{storage / LEDGER_FILE}"
        engine = sa.create_engine(url, pool_size=8, max_overflow=64, connect_args={"timeout": PATIENCE})
        writer = sa.create_engine(url, pool_size=1, max_overflow=0, connect_args={"timeout": 0})
        for each in (engine, writer):
            sa.event.listen(each, "connect", _configure_sqlite)
        ledger = cls(engine, writer=writer, clock=clock)
        ledger._refuse_second_host(storage)
        return ledger

    def close(self) -> None:
        """Close all connections."""
        with self._writing:
            self._drop_writer()
        self._engine.dispose()
        self._writer.dispose()

    def now(self) -> float:
        """The ledger's clock, in seconds since the epoch."""
        return self._clock()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._writing, self._begun() as connection:
            yield connection

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        if self._kept is None:
            self._kept = self._writer.connect()
        connection = self._kept
        try:
            with connection.begin():
                if self._writer.dialect.name == "sqlite":
                    # What the transaction reads cannot change until it has written, and two writers never deadlock.
                    _begin_immediate(connection.connection.driver_connection)
                yield connection
        except BaseException:
            # Whatever it was, the next transaction begins over a connection that is sound.
            self._drop_writer()
            raise

    def _drop_writer(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def _together(self, work: Callable[[Connection], T]) -> T:
        """Make a change in a transaction that may hold those of other threads too: they reach the disk at once.

        Args:
            work: Makes the change; what it has written when it raises is undone, and that of the others stays.
        """
        change = _Change(work)
        self._changes.append(change)
        with self._writing:
            # Whoever comes first takes the others along; more than fit in one transaction may be queued before.
            while not change.done:
                self._make([self._changes.popleft() for _ in range(min(len(self._changes), TOGETHER))])
        if change.error is not None:
            raise change.error
        return change.result  # type: ignore[return-value]  # set, unless there was an error

    def _make(self, changes: list[_Change[Any]]) -> None:
        try:
            with self._begun() as connection:
                if len(changes) == 1:
                    # What it has written is undone with the transaction.
                    changes[0].result = changes[0].work(connection)
                    return
                for change in changes:
                    connection.exec_driver_sql("SAVEPOINT one_change")
                    try:
                        change.result = change.work(connection)
                    except BaseException as error:  # noqa: BLE001 (raised again in its own thread)
                        change.error = error
                        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT one_change")
                    connection.exec_driver_sql("RELEASE SAVEPOINT one_change")
        except BaseException as error:  # noqa: BLE001 (as above; nothing of the transaction was kept)
            for change in changes:
                change.error = change.error or error
        finally:
            for change in changes:
                change.done = True

    def _refuse_second_host(self, storage: Path) -> None:
        here, now = socket.gethostname(), self.now()
        with self._transaction() as tx:
            row = tx.execute(sa.select(facts).where(facts.c.name == "host")).first()
            if row is None:
                tx.execute(facts.insert().values(name="host", value=here, seen=now))
                return
            if row.value != here and now - row.seen < HOST_SILENCE:
                raise Misconfigured(
                    f"The SQLite ledger in {storage} was used by host {row.value!r} {now - row.seen:.0f} seconds ago, "
                    f"and this is {here!r}; SQLite is safe on one host only.",
                    "Run all steps on one host, or give this host a storage folder of its own (INTEGRATIONS_STORAGE).",
                )
            if row.value != here or now - row.seen > 1:
                tx.execute(facts.update().where(facts.c.name == "host").values(value=here, seen=now))


def _add_columns(tx: Connection) -> None:
    """Add the columns that tables made by an earlier version lack; all of them may be null."""
    inspector = sa.inspect(tx)
    for table in metadata.sorted_tables:
        known = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                kind = column.type.compile(tx.dialect)
                tx.exec_driver_sql(f'ALTER TABLE "{table.name}" ADD COLUMN "{column.name}" {kind}')


def _begin_immediate(connection: Any) -> None:
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(LOOK_AGAIN)
        else:
            return


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Autocommit mode: transactions say BEGIN IMMEDIATE themselves, and a read takes no lock that writers wait for.
    connection.isolation_level = None
    cursor = connection.cursor()
    waits = cursor.execute("PRAGMA busy_timeout").fetchone()
    # Where two processes open a new ledger at once, the change to WAL waits whatever the connection does later.
    cursor.execute(f"PRAGMA busy_timeout={PATIENCE * 1000:.0f}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    # Where SQLite was built to fill what is deleted with zeros, that writes all pages of all batches once more.
    cursor.execute("PRAGMA secure_delete=OFF")
    cursor.execute(f"PRAGMA busy_timeout={waits[0]}")
    cursor.close()
