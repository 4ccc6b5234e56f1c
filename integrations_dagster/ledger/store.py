"""The ledger: leases and batches, in SQLite (WAL, every commit on disk) or Postgres.

Everything that decides whether a row is sent again is in here or in the snapshot. Each method is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from integrations_dagster.ledger.batches import (
    BatchRecord,
    BatchStatus,
    SentRow,
    pack,
    pack_outcomes,
    pack_rows,
    unpack,
    unpack_outcomes,
    unpack_rows,
)
from integrations_dagster.ledger.leases import Lease, Leases, ShardLease
from integrations_dagster.ledger.schema import batches, counters, quiet
from integrations_dagster.vocabulary import IntegrationsError, Outcome, Traffic, Worker


@dataclass(slots=True)
class OpenBatch:
    """A batch that its writer has open; kept by the writer so that even an answer that comes too late can be stored."""

    id: int
    shard: ShardLease
    attempt: int
    idempotency_key: str
    repeatable: bool
    rows: tuple[SentRow, ...]
    send_before: float
    deadline: float


class AlreadyClosed(IntegrationsError):
    """A batch that was to be sent again has been answered meanwhile."""


class Ledger(Leases):
    """Leases and batches of all syncs of one storage folder."""

    # Batches, as their writer sees them

    def open_batch(
        self,
        shard: ShardLease,
        rows: tuple[SentRow, ...],
        *,
        idempotency_key: str,
        repeatable: bool,
        timeout: float,
        send_within: float = 5.0,
    ) -> OpenBatch:
        """Record a batch before it is sent.

        Args:
            timeout: Seconds after which a request of it can no longer take effect.
            send_within: Seconds from now within which sending must start.

        Raises:
            LeaseLost: The run or this attempt of the write op has been replaced.
        """
        with self._transaction() as tx:
            self._check_shard(tx, shard)
            now = self.now()
            send_before, deadline = now + send_within, now + send_within + timeout
            result = tx.execute(
                batches.insert().values(
                    state_key=shard.lease.state_key,
                    run_id=shard.lease.run_id,
                    shard=shard.shard,
                    shard_fence=shard.fence,
                    attempt=1,
                    idempotency_key=idempotency_key,
                    repeatable=repeatable,
                    host=shard.worker.host,
                    pid=shard.worker.pid,
                    pid_started=shard.worker.started,
                    opened=now,
                    deadline=deadline,
                    status=BatchStatus.OPEN,
                    rows=pack_rows(rows),
                )
            )
            inserted = result.inserted_primary_key
            assert inserted is not None
            batch_id = int(inserted[0])
        return OpenBatch(batch_id, shard, 1, idempotency_key, repeatable, rows, send_before, deadline)

    def renew_batch(self, batch: OpenBatch, shard: ShardLease, *, timeout: float, send_within: float = 5.0) -> None:
        """Continue the record of an open batch before a further request of it: fence, attempt, deadline.

        `shard` may be a later attempt of the write op that continues the batch of a dead one.

        Raises:
            LeaseLost: The run or this attempt has been replaced.
            AlreadyClosed: The batch was answered meanwhile, by the attempt that it was taken over from.
        """
        with self._transaction() as tx:
            self._check_shard(tx, shard)
            now = self.now()
            batch.send_before, batch.deadline = now + send_within, now + send_within + timeout
            batch.attempt += 1
            batch.shard = shard
            updated = tx.execute(
                batches.update()
                .where(batches.c.id == batch.id, batches.c.status == BatchStatus.OPEN)
                .values(
                    attempt=batch.attempt,
                    shard_fence=shard.fence,
                    host=shard.worker.host,
                    pid=shard.worker.pid,
                    pid_started=shard.worker.started,
                    deadline=batch.deadline,
                )
            )
            if updated.rowcount != 1:
                raise AlreadyClosed(f"A batch of the sync {shard.lease.state_key} has been answered or given up.")

    def complete_batch(
        self, batch: OpenBatch, outcomes: tuple[Outcome, ...], traffic: Traffic, *, quiet_until: float = 0.0
    ) -> bool:
        """Record the answer of a batch. An answer is a fact: it is stored even if the lease is lost.

        Args:
            quiet_until: When an earlier request of the batch, whose answer was lost, can no longer take effect (seconds
                since the epoch); 0 if there was none. No later run sends before.

        Returns:
            False if the answer came late: the batch had been given up, so its rows become unknown again.
        """
        if len(outcomes) != len(batch.rows):
            raise AssertionError(f"{len(outcomes)} outcomes for {len(batch.rows)} rows")
        values = {"outcomes": pack_outcomes(outcomes), "traffic": pack(traffic.as_dict())}
        with self._transaction() as tx:
            self._keep_quiet(tx, batch, quiet_until)
            if self._close(tx, batch, BatchStatus.COMPLETED, values):
                return True
            shard = batch.shard
            tx.execute(
                batches.insert().values(
                    state_key=shard.lease.state_key,
                    run_id=shard.lease.run_id,
                    shard=shard.shard,
                    shard_fence=shard.fence,
                    attempt=batch.attempt,
                    idempotency_key=batch.idempotency_key,
                    repeatable=batch.repeatable,
                    host=shard.worker.host,
                    pid=shard.worker.pid,
                    pid_started=shard.worker.started,
                    opened=self.now(),
                    deadline=batch.deadline,
                    status=BatchStatus.LATE,
                    number=self._next_number(tx, shard.lease.state_key),
                    rows=pack_rows(batch.rows),
                    closed=self.now(),
                    **values,
                )
            )
        return False

    def give_up_batch(self, batch: OpenBatch, traffic: Traffic, *, quiet_until: float = 0.0) -> None:
        """Record that no answer came and none is awaited: what the batch did is unknown.

        Args:
            quiet_until: See `complete_batch`.
        """
        with self._transaction() as tx:
            self._keep_quiet(tx, batch, quiet_until)
            self._close(tx, batch, BatchStatus.UNKNOWN, {"traffic": pack(traffic.as_dict())})

    def supersede_batch(self, batch: OpenBatch, traffic: Traffic) -> None:
        """Record that the batch had no effect: refused whole (its parts follow), or never sent."""
        with self._transaction() as tx:
            tx.execute(
                batches.update()
                .where(batches.c.id == batch.id, batches.c.status == BatchStatus.OPEN)
                .values(status=BatchStatus.SUPERSEDED, closed=self.now(), traffic=pack(traffic.as_dict()))
            )

    def _keep_quiet(self, tx: Connection, batch: OpenBatch, until: float) -> None:
        if until <= self.now():
            return
        where = quiet.c.state_key == batch.shard.lease.state_key
        known = tx.execute(sa.select(quiet.c.until).where(where)).scalar()
        if known is None:
            tx.execute(quiet.insert().values(state_key=batch.shard.lease.state_key, until=until))
        elif known < until:
            tx.execute(quiet.update().where(where).values(until=until))

    def quiet_until(self, state_key: str) -> float:
        """When the last request whose batch is closed can no longer take effect (seconds since the epoch)."""
        with self._engine.connect() as connection:
            query = sa.select(quiet.c.until).where(quiet.c.state_key == state_key)
            return float(connection.execute(query).scalar() or 0.0)

    def superseded_traffic(self, state_key: str, run_id: str) -> list[dict[str, Any]]:
        """`Traffic.as_dict()` of a run's batches that had no effect, which are in no log."""
        query = sa.select(batches.c.traffic).where(
            batches.c.state_key == state_key,
            batches.c.run_id == run_id,
            batches.c.status == BatchStatus.SUPERSEDED,
        )
        with self._engine.connect() as connection:
            return [unpack(blob) for (blob,) in connection.execute(query) if blob]

    def _close(self, tx: Connection, batch: OpenBatch, status: BatchStatus, values: dict[str, Any]) -> bool:
        where = sa.and_(batches.c.id == batch.id, batches.c.status == BatchStatus.OPEN)
        if tx.execute(sa.select(batches.c.id).where(where).with_for_update()).first() is None:
            return False
        number = self._next_number(tx, batch.shard.lease.state_key)
        tx.execute(batches.update().where(where).values(status=status, number=number, closed=self.now(), **values))
        return True

    def _next_number(self, tx: Connection, state_key: str) -> int:
        where = counters.c.state_key == state_key
        updated = tx.execute(counters.update().where(where).values(number=counters.c.number + 1))
        if updated.rowcount == 0:
            tx.execute(counters.insert().values(state_key=state_key, number=1))
            return 1
        return int(tx.execute(sa.select(counters.c.number).where(where)).scalar_one())

    # Batches, as plan, record and fold see them

    def shard_batches(self, shard: ShardLease) -> list[BatchRecord]:
        """All batches of a run's shard that are recorded, in order of opening, superseded ones left out."""
        query = (
            sa.select(batches)
            .where(
                batches.c.state_key == shard.lease.state_key,
                batches.c.run_id == shard.lease.run_id,
                batches.c.shard == shard.shard,
                batches.c.status != BatchStatus.SUPERSEDED,
            )
            .order_by(batches.c.id)
        )
        with self._engine.connect() as connection:
            return [_record(row) for row in connection.execute(query)]

    def outcomes(self, batch: OpenBatch) -> tuple[Outcome, ...]:
        """The outcomes of a batch that has been answered; empty if it has none."""
        with self._engine.connect() as connection:
            query = sa.select(batches.c.outcomes).where(batches.c.id == batch.id)
            return unpack_outcomes(connection.execute(query).scalar())

    def open_batches(self, state_key: str) -> list[BatchRecord]:
        """Batches without an answer, oldest first."""
        query = (
            sa.select(batches)
            .where(batches.c.state_key == state_key, batches.c.status == BatchStatus.OPEN)
            .order_by(batches.c.id)
        )
        with self._engine.connect() as connection:
            return [_record(row) for row in connection.execute(query)]

    def give_up_expired(self, state_key: str) -> int:
        """Make open batches whose deadline has passed unknown; returns how many."""
        with self._transaction() as tx:
            expired = tx.execute(
                sa.select(batches.c.id)
                .where(
                    batches.c.state_key == state_key,
                    batches.c.status == BatchStatus.OPEN,
                    batches.c.deadline < self.now(),
                )
                .order_by(batches.c.id)
                .with_for_update()
            ).scalars()
            ids = list(expired)
            for batch_id in ids:
                number = self._next_number(tx, state_key)
                tx.execute(
                    batches.update()
                    .where(batches.c.id == batch_id)
                    .values(status=BatchStatus.UNKNOWN, number=number, closed=self.now())
                )
        return len(ids)

    def closed_after(self, state_key: str, number: int) -> Iterator[BatchRecord]:
        """Closed batches with a number above `number`, in order of their numbers, a thousand at a time."""
        last = number
        while True:
            query = (
                sa.select(batches)
                .where(batches.c.state_key == state_key, batches.c.number > last)
                .order_by(batches.c.number)
                .limit(1000)
            )
            with self._engine.connect() as connection:
                records = [_record(row) for row in connection.execute(query)]
            if not records:
                return
            yield from records
            assert records[-1].number is not None
            last = records[-1].number

    def last_number(self, state_key: str) -> int:
        """The highest number given so far; 0 if none."""
        with self._engine.connect() as connection:
            query = sa.select(counters.c.number).where(counters.c.state_key == state_key)
            return int(connection.execute(query).scalar() or 0)

    def clear(self, state_key: str, through: int, lease: Lease) -> int:
        """Delete what the snapshot contains: batches numbered up to `through`, and superseded ones of other runs."""
        with self._transaction() as tx:
            deleted = tx.execute(
                batches.delete().where(
                    batches.c.state_key == state_key,
                    sa.or_(
                        batches.c.number <= through,
                        sa.and_(batches.c.status == BatchStatus.SUPERSEDED, batches.c.run_id != lease.run_id),
                    ),
                )
            )
        return int(deleted.rowcount)


def _record(row: Any) -> BatchRecord:
    return BatchRecord(
        id=row.id,
        run_id=row.run_id,
        shard=row.shard,
        attempt=row.attempt,
        idempotency_key=row.idempotency_key,
        repeatable=row.repeatable,
        writer=Worker(row.host, row.pid, row.pid_started),
        opened=row.opened,
        deadline=row.deadline,
        status=BatchStatus(row.status),
        number=row.number,
        rows=unpack_rows(row.rows),
        outcomes=unpack_outcomes(row.outcomes),
        traffic=unpack(row.traffic) or {},
        closed=row.closed,
    )
