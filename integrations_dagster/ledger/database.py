"""The ledger's database: one engine, one writer at a time, one host where it is SQLite."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from integrations_dagster.ledger.schema import facts, metadata
from integrations_dagster.vocabulary import Misconfigured

LEDGER_FILE = "ledger.sqlite"
HOST_SILENCE = 600.0
"""Seconds without a sign of another host after which this host may use the SQLite ledger."""


class Database:
    """Transactions on the ledger's tables."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        # One writer at a time within the process: SQLite's busy handler sleeps and starves threads.
        self._writing = threading.Lock()
        # Within a transaction, because several processes may open a new ledger at once.
        with self._transaction() as tx:
            metadata.create_all(tx)

    @classmethod
    def open(cls, storage: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Open (or create) the SQLite ledger of a storage folder.

        Raises:
            Misconfigured: Another host used it within the last ten minutes: SQLite is safe on one host only.
        """
        storage.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(
            f"sqlite:///{storage / LEDGER_FILE}", pool_size=8, max_overflow=64, connect_args={"timeout": 60}
        )
        sa.event.listen(engine, "connect", _configure_sqlite)
        ledger = cls(engine, clock=clock)
        ledger._refuse_second_host(storage)
        return ledger

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def now(self) -> float:
        """The ledger's clock, in seconds since the epoch."""
        return self._clock()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._writing, self._engine.begin() as connection:
            if self._engine.dialect.name == "sqlite":
                # What the transaction reads cannot change until it has written, and two writers never deadlock.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

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


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Autocommit mode: transactions say BEGIN IMMEDIATE themselves, and a read takes no lock that writers wait for.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=60000")
    cursor.close()
