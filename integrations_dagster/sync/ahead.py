"""While a shard is being sent, the events of its answered batches are written ahead of the fold (`planner.ahead`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import sqlalchemy as sa

from integrations_dagster.ledger.leases import ShardLease
from integrations_dagster.ledger.store import Ledger
from integrations_dagster.planner.ahead import connect_ahead, last_ahead, write_ahead

EVERY = 20_000
"""Answered rows of a shard after which their events are written."""


class EventsAhead:
    """Writes events in a thread of its own, which begins with the first that are due.

    What it does not write, the fold makes itself: so it ends at once where something is wrong.

    Args:
        folder: The run's plan folder.
        log: Told, once, why no more events are written.
    """

    def __init__(self, ledger: Ledger, shard: ShardLease, folder: Path, log: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._shard = shard
        self._folder = folder
        self._log = log
        self._rows = 0
        self._due = threading.Event()
        self._over = False
        self._thread: threading.Thread | None = None

    def told(self, rows: int) -> None:
        """Rows have been answered, and recorded; callers take turns."""
        self._rows += rows
        if self._rows < EVERY or self._over:
            return
        self._rows = 0
        self._due.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="events ahead", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Begin with no more events, and wait for those that are being written."""
        self._over = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            last = last_ahead(self._folder, self._shard.shard)
            with connect_ahead(self._folder, self._shard.shard) as connection:
                while self._due.wait() and not self._over:
                    self._due.clear()
                    batches = self._ledger.completed_after(self._shard, last)
                    write_ahead(connection, self._folder, self._shard.shard, batches)
                    last = last_ahead(self._folder, self._shard.shard)
        except (OSError, duckdb.Error, sa.exc.SQLAlchemyError) as error:
            self._over = True
            self._log(
                f"Shard {self._shard.shard}: the events of its batches are not written ahead any more "
                f"({type(error).__name__}); record makes them of the ledger, which takes it longer."
            )
