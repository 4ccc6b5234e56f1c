"""The ledger: leases, accounts and batches, in SQLite (WAL, every commit on disk) or Postgres.

Everything that decides whether a row is sent again is in here or in the snapshot. Each method is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from integrations_dagster.ledger.batches import (
    BatchRecord,
    BatchStatus,
    unpack,
    unpack_outcomes,
    unpack_payloads,
)
from integrations_dagster.ledger.leases import Lease, ShardLease
from integrations_dagster.ledger.schema import batches, counters, quiet
from integrations_dagster.ledger.writing import BatchWriting, OpenBatch
from integrations_dagster.vocabulary import Outcome, Worker


class Closed(NamedTuple):
    """What names a closed batch, without its rows: all that is read of one whose events are known."""

    number: int
    idempotency_key: str
    attempt: int


READ = 1000
"""Batches read at a time."""


class Ledger(BatchWriting):
    """The ledger of one storage folder, as plan, record and fold see it; its bases are what writers see."""

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
                sa.select(batches.c.id, batches.c.reopened)
                .where(
                    batches.c.state_key == state_key,
                    batches.c.status == BatchStatus.OPEN,
                    batches.c.deadline < self.now(),
                )
                .order_by(batches.c.id)
                .with_for_update()
            ).all()
            for row in expired:
                # That its rows are in doubt was told when it was given up first.
                number = None if row.reopened else self._next_number(tx, state_key)
                tx.execute(
                    batches.update()
                    .where(batches.c.id == row.id)
                    .values(status=BatchStatus.UNKNOWN, number=number, closed=self.now())
                )
        return len(expired)

    def closed_after(self, state_key: str, number: int) -> Iterator[BatchRecord]:
        """Closed batches with a number above `number`, in order of their numbers, a thousand at a time."""
        yield from self._numbered(number, batches.c.state_key == state_key)

    def completed_after(self, shard: ShardLease, number: int) -> Iterator[BatchRecord]:
        """Completed batches of a run's shard with a number above `number`, in order of their numbers.

        Numbers follow commits: of those below the last one that is found, none comes later.
        """
        lease = shard.lease
        yield from self._numbered(
            number,
            sa.and_(
                batches.c.state_key == lease.state_key,
                batches.c.run_id == lease.run_id,
                batches.c.shard == shard.shard,
                batches.c.status == BatchStatus.COMPLETED,
            ),
        )

    def _numbered(self, number: int, where: sa.ColumnElement[bool]) -> Iterator[BatchRecord]:
        while True:
            query = sa.select(batches).where(where, batches.c.number > number).order_by(batches.c.number).limit(READ)
            with self._engine.connect() as connection:
                records = [_record(row) for row in connection.execute(query)]
            yield from records
            if len(records) < READ:
                return
            assert records[-1].number is not None
            number = records[-1].number

    def closed_since(self, state_key: str, number: int) -> list[Closed]:
        """What names the closed batches with a number above `number`, in order of their numbers."""
        query = (
            sa.select(batches.c.number, batches.c.idempotency_key, batches.c.attempt)
            .where(batches.c.state_key == state_key, batches.c.number > number)
            .order_by(batches.c.number)
        )
        with self._engine.connect() as connection:
            return [Closed(*row) for row in connection.execute(query)]

    def closed_batches(self, state_key: str, numbers: Sequence[int]) -> Iterator[BatchRecord]:
        """The closed batches with these numbers, in their order, a thousand at a time."""
        for start in range(0, len(numbers), READ):
            some = batches.c.number.in_(numbers[start : start + READ])
            query = sa.select(batches).where(batches.c.state_key == state_key, some).order_by(batches.c.number)
            with self._engine.connect() as connection:
                yield from [_record(row) for row in connection.execute(query)]

    def last_number(self, state_key: str) -> int:
        """The highest number given so far; 0 if none."""
        with self._engine.connect() as connection:
            query = sa.select(counters.c.number).where(counters.c.state_key == state_key)
            return int(connection.execute(query).scalar() or 0)

    # Rows in doubt

    def doubtful_batches(self, state_key: str) -> list[BatchRecord]:
        """Batches in doubt (given up although they must not be repeated) that their key or job can still resolve."""
        query = (
            sa.select(batches)
            .where(batches.c.state_key == state_key, batches.c.status == BatchStatus.UNKNOWN, _resolvable())
            .order_by(batches.c.id)
        )
        with self._engine.connect() as connection:
            return [_record(row) for row in connection.execute(query)]

    def forget_doubts(self, ids: Sequence[int]) -> None:
        """Delete batches in doubt that nothing needs any more, with the payloads that were kept of them."""
        with self._transaction() as tx:
            unknown = batches.c.status == BatchStatus.UNKNOWN
            tx.execute(batches.delete().where(batches.c.id.in_(ids), unknown, _resolvable()))

    def clear(self, state_key: str, through: int, lease: Lease) -> int:
        """Delete what the snapshot contains: batches numbered up to `through`, and superseded ones of other runs.

        Batches in doubt stay as long as their key or job can resolve them.
        """
        with self._transaction() as tx:
            deleted = tx.execute(
                batches.delete().where(
                    batches.c.state_key == state_key,
                    sa.not_(sa.and_(batches.c.status == BatchStatus.UNKNOWN, _resolvable())),
                    sa.or_(
                        batches.c.number <= through,
                        sa.and_(batches.c.status == BatchStatus.SUPERSEDED, batches.c.run_id != lease.run_id),
                    ),
                )
            )
        return int(deleted.rowcount)


def _resolvable() -> sa.ColumnElement[bool]:
    known = sa.or_(batches.c.payloads.is_not(None), batches.c.reference.is_not(None))
    return sa.and_(sa.not_(batches.c.repeatable), known)


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
        row_blob=row.rows,
        outcome_blob=row.outcomes,
        traffic=unpack(row.traffic) or {},
        closed=row.closed,
        reference=row.reference or "",
        payloads=unpack_payloads(row.payloads),
    )
