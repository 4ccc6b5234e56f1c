"""The life of a batch, as its writer records it. Each method is one transaction."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from integrations_dagster.ledger.batches import (
    BatchRecord,
    BatchStatus,
    SentRow,
    pack,
    pack_outcomes,
    pack_payloads,
    pack_rows,
)
from integrations_dagster.ledger.leases import ShardLease
from integrations_dagster.ledger.prepared import Prepared
from integrations_dagster.ledger.quotas import Granted, Quotas, Use
from integrations_dagster.ledger.schema import batches, counters, quiet
from integrations_dagster.vocabulary import ABSENT, IntegrationsError, Outcome, Row, Status, Traffic


@dataclass(slots=True)
class OpenBatch:
    """A batch that its writer has open; kept by the writer so that even an answer that comes too late can be stored.

    Attributes:
        id: The ledger's id.
        send_before: Latest moment of sending the next request, seconds since the epoch.
        deadline: When no request of it can take effect any more.
        granted: When the next request may be sent.
        slot: Whether it holds a slot of the account's concurrency.
        reference: What names the batch's work at the destination, or "".
        opened: When it was first recorded.
        reopened: Whether it was in doubt and was taken up again.
    """

    id: int
    shard: ShardLease
    attempt: int
    idempotency_key: str
    repeatable: bool
    rows: tuple[Row | SentRow, ...]
    send_before: float
    deadline: float
    granted: Granted = field(default_factory=Granted)
    slot: bool = False
    reference: str = ""
    opened: float = 0.0
    reopened: bool = False


class AlreadyClosed(IntegrationsError):
    """A batch that was to be sent again has been answered meanwhile."""


_OPENED = (
    "state_key", "run_id", "shard", "shard_fence", "attempt", "idempotency_key", "repeatable", "account", "payloads",
    "host", "pid", "pid_started", "opened", "deadline", "status", "rows",
)  # fmt: skip
_INSERT = Prepared(batches.insert().values({name: sa.bindparam(name) for name in _OPENED}).returning(batches.c.id))
_CLOSE = Prepared(
    batches.update()
    .where(batches.c.id == sa.bindparam("batch"), batches.c.status == BatchStatus.OPEN.value)
    .values(
        status=sa.bindparam("to"),
        number=sa.bindparam("as_number"),
        closed=sa.bindparam("at"),
        outcomes=sa.bindparam("told"),
        traffic=sa.bindparam("cost"),
    )
)
_SETTLED = Prepared(
    batches.update().where(batches.c.id == sa.bindparam("batch")).values(payloads=sa.null(), reference=sa.null())
)
_NUMBER = Prepared(
    counters.update()
    .where(counters.c.state_key == sa.bindparam("state"))
    .values(number=counters.c.number + 1)
    .returning(counters.c.number)
)


class BatchWriting(Quotas):
    """Records batches before they are sent, and what became of them."""

    def open_batch(
        self,
        shard: ShardLease,
        rows: tuple[Row | SentRow, ...],
        *,
        idempotency_key: str,
        repeatable: bool,
        timeout: float,
        send_within: float = 5.0,
        use: Use | None = None,
        payloads: tuple[bytes, ...] = (),
    ) -> OpenBatch:
        """Record a batch before it is sent, and grant its request.

        Args:
            idempotency_key: The batch's; also names it in logs.
            timeout: Seconds after which a request of it can no longer take effect.
            send_within: Seconds from when it may be sent within which sending must start.
            use: The account it goes to; None: no limits.
            payloads: Kept where the batch can only be repeated with the same body under the same key.

        Raises:
            LeaseLost: The run or this attempt of the write op has been replaced.
            CircuitOpen: The destination is down.
            NoSlot: As many requests are in flight as the account takes: ask again soon.
            QuotaSpent: The account's quota is used up for longer than a run waits.
        """
        # Outside the transaction, which holds up all other writers.
        packed, kept = pack_rows(rows), pack_payloads(payloads) if payloads else None

        def change(tx: Connection) -> OpenBatch:
            self._check_shard(tx, shard)
            now = self.now()
            expires = send_within + timeout
            granted = Granted() if use is None else self._grant(tx, use, now, idempotency_key, expires)
            send_before = now + granted.delay + send_within
            deadline = send_before + timeout
            id_ = int(
                _INSERT.first(
                    tx,
                    state_key=shard.lease.state_key,
                    run_id=shard.lease.run_id,
                    shard=shard.shard,
                    shard_fence=shard.fence,
                    attempt=1,
                    idempotency_key=idempotency_key,
                    repeatable=repeatable,
                    account=None if use is None else use.account,
                    payloads=kept,
                    host=shard.worker.host,
                    pid=shard.worker.pid,
                    pid_started=shard.worker.started,
                    opened=now,
                    deadline=deadline,
                    status=BatchStatus.OPEN,
                    rows=packed,
                ).id
            )
            slot = use is not None and use.concurrency is not None
            return OpenBatch(
                id_, shard, 1, idempotency_key, repeatable, rows, send_before, deadline, granted, slot, opened=now
            )

        return self._together(change)

    def renew_batch(
        self,
        batch: OpenBatch,
        shard: ShardLease,
        *,
        timeout: float,
        send_within: float = 5.0,
        use: Use | None = None,
    ) -> None:
        """Continue the record of an open batch before a further request of it: fence, attempt, deadline, grant.

        `shard` may be a later attempt of the write op that continues the batch of a dead one.

        Raises:
            LeaseLost: The run or this attempt has been replaced.
            AlreadyClosed: The batch was answered meanwhile, by the attempt that it was taken over from.
            CircuitOpen, NoSlot, QuotaSpent: See `open_batch`.
        """
        with self._transaction() as tx:
            self._check_shard(tx, shard)
            now = self.now()
            expires = send_within + timeout
            granted = Granted() if use is None else self._grant(tx, use, now, batch.idempotency_key, expires)
            batch.granted, batch.slot = granted, use is not None and use.concurrency is not None
            batch.send_before = now + granted.delay + send_within
            batch.deadline = batch.send_before + timeout
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
        told, cost = pack_outcomes(outcomes), pack(traffic.as_dict())

        def change(tx: Connection) -> bool:
            self._end_use(tx, batch)
            self._keep_quiet(tx, batch, quiet_until)
            status = BatchStatus.LATE if batch.reopened else BatchStatus.COMPLETED
            in_time = self._close(tx, batch, status, told, cost)
            if not in_time:
                self._insert_late(tx, batch, told, cost)
            if not batch.repeatable:
                # Whatever was in doubt about it is answered now.
                _SETTLED.changed(tx, batch=batch.id)
            return in_time

        return self._together(change)

    def _insert_late(self, tx: Connection, batch: OpenBatch, told: bytes, cost: bytes) -> None:
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
                outcomes=told,
                traffic=cost,
            )
        )

    def remember(self, batch: OpenBatch, reference: str) -> None:
        """Keep what names the batch's work at the destination, before anything else is asked about it."""
        with self._transaction() as tx:
            tx.execute(batches.update().where(batches.c.id == batch.id).values(reference=reference))
        batch.reference = reference

    def give_up_batch(self, batch: OpenBatch, traffic: Traffic, *, quiet_until: float = 0.0) -> None:
        """Record that no answer came and none is awaited: what the batch did is unknown.

        Args:
            quiet_until: See `complete_batch`.
        """
        with self._transaction() as tx:
            self._end_use(tx, batch)
            self._keep_quiet(tx, batch, quiet_until)
            self._close(tx, batch, BatchStatus.UNKNOWN, None, pack(traffic.as_dict()))

    def supersede_batch(self, batch: OpenBatch, traffic: Traffic) -> None:
        """Record that the batch had no effect: refused whole (its parts follow), or never sent.

        A writer that was replaced, and goes on, tells so even then: it resolves what was in doubt.
        """
        with self._transaction() as tx:
            self._end_use(tx, batch)
            packed = pack(traffic.as_dict())
            updated = tx.execute(
                batches.update()
                .where(batches.c.id == batch.id, batches.c.status == BatchStatus.OPEN, _written_by(batch.shard))
                .values(
                    status=BatchStatus.SUPERSEDED,
                    closed=self.now(),
                    traffic=packed,
                    payloads=None,
                    reference=None,
                )
            )
            # Refused under its key, or never sent by a writer that was replaced: what was in doubt is known.
            if (updated.rowcount == 0 or batch.reopened) and not batch.repeatable:
                absent = Outcome(Status.UNSENT, None, ABSENT, "The request had no effect.")
                outcomes = pack_outcomes((absent,) * len(batch.rows))
                self._insert_late(tx, batch, outcomes, packed)

    def _end_use(self, tx: Connection, batch: OpenBatch) -> None:
        if batch.slot:
            self._free_slot(tx, batch.idempotency_key)

    def _keep_quiet(self, tx: Connection, batch: OpenBatch, until: float) -> None:
        if until <= self.now():
            return
        where = quiet.c.state_key == batch.shard.lease.state_key
        known = tx.execute(sa.select(quiet.c.until).where(where)).scalar()
        if known is None:
            tx.execute(quiet.insert().values(state_key=batch.shard.lease.state_key, until=until))
        elif known < until:
            tx.execute(quiet.update().where(where).values(until=until))

    def _close(self, tx: Connection, batch: OpenBatch, status: BatchStatus, told: bytes | None, cost: bytes) -> bool:
        # A number that is not used after all leaves a gap, which means nothing. A batch that was taken up again and got
        # no answer has none: that its rows are in doubt was told when it was given up first.
        again = batch.reopened and status is BatchStatus.UNKNOWN
        number = None if again else self._next_number(tx, batch.shard.lease.state_key)
        values = {"to": status, "as_number": number, "at": self.now(), "told": told, "cost": cost}
        return _CLOSE.changed(tx, batch=batch.id, **values) == 1

    def _next_number(self, tx: Connection, state_key: str) -> int:
        row = _NUMBER.first(tx, state=state_key)
        if row is None:
            tx.execute(counters.insert().values(state_key=state_key, number=1))
            return 1
        return int(row.number)

    # Rows in doubt

    def reopen_batch(self, batch: BatchRecord, shard: ShardLease) -> OpenBatch:
        """Take a batch in doubt up again, to send it under its idempotency key or to ask for its job.

        It is open from now on, as if its first answer were still awaited. `renew_batch` follows before each request.

        Raises:
            LeaseLost: The run has been replaced.
            AlreadyClosed: Its answer came meanwhile.
        """
        with self._transaction() as tx:
            self._check_shard(tx, shard)
            updated = tx.execute(
                batches.update()
                .where(batches.c.id == batch.id, batches.c.status == BatchStatus.UNKNOWN)
                .values(
                    status=BatchStatus.OPEN,
                    number=None,
                    closed=None,
                    outcomes=None,
                    traffic=None,
                    reopened=True,
                    shard_fence=shard.fence,
                    host=shard.worker.host,
                    pid=shard.worker.pid,
                    pid_started=shard.worker.started,
                )
            )
            if updated.rowcount != 1:
                raise AlreadyClosed(f"A batch of the sync {shard.lease.state_key} has been answered.")
        return OpenBatch(
            batch.id,
            shard,
            batch.attempt,
            batch.idempotency_key,
            batch.repeatable,
            batch.rows,
            0.0,
            batch.deadline,
            reference=batch.reference,
            opened=batch.opened,
            reopened=True,
        )

    def settle(
        self, shard: ShardLease, rows: tuple[SentRow, ...], outcomes: tuple[Outcome, ...], idempotency_key: str
    ) -> None:
        """Record what was found out about rows in doubt, by a look-up or by a person, as a late answer.

        Raises:
            LeaseLost: The run has been replaced.
        """
        with self._transaction() as tx:
            self._check_shard(tx, shard)
            now = self.now()
            batch = OpenBatch(0, shard, 1, idempotency_key, False, rows, now, now)
            self._insert_late(tx, batch, pack_outcomes(outcomes), pack(Traffic().as_dict()))


def _written_by(shard: ShardLease) -> sa.ColumnElement[bool]:
    """That a batch is this writer's, and was not taken up by another since."""
    return sa.and_(
        batches.c.shard_fence == shard.fence,
        batches.c.host == shard.worker.host,
        batches.c.pid == shard.worker.pid,
        batches.c.pid_started == shard.worker.started,
    )
