"""Who may send for a sync: leases of runs, and within a run those of the attempts at a shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from integrations_dagster.ledger.database import Database
from integrations_dagster.ledger.prepared import Prepared
from integrations_dagster.ledger.schema import leases, shards
from integrations_dagster.vocabulary import LeaseHeld, LeaseLost, Worker


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a sync's lease.

    Attributes:
        state_key: The sync and account, "<sync>@<account>".
        run_id: The run.
        worker: The run's worker process.
        fence: Raised each time the lease is taken.
        heartbeat: Last sign of life, seconds since the epoch.
        known: Whether an orchestrator knows the run (the command line's runs are known to nobody).
    """

    state_key: str
    run_id: str
    worker: Worker
    fence: int
    heartbeat: float
    known: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send for a sync, as long as `fence` is the newest."""

    state_key: str
    run_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class ShardLease:
    """The right to send the batches of one shard, as long as both fences are the newest."""

    lease: Lease
    shard: int
    fence: int
    worker: Worker


class RunHolds(LeaseHeld):
    """Another live run holds the sync's lease.

    Attributes:
        holder: Who.
    """

    def __init__(self, message: str, remedy: str, holder: Holder) -> None:
        super().__init__(message, remedy)
        self.holder = holder

    def __reduce__(self) -> Any:
        return (type(self), (self.message, self.remedy, self.holder))


class Leases(Database):
    """Takes, checks and gives back leases; raises their fences."""

    def acquire(
        self, state_key: str, run_id: str, worker: Worker, *, alive: Callable[[Holder], bool], known: bool = True
    ) -> Lease:
        """Take the lease of a sync and account; raises its fence.

        Args:
            state_key: "<sync>@<account>".
            run_id: The run that takes it.
            worker: The run's worker process.
            alive: Whether another holder may still be at work.
            known: Whether an orchestrator knows the run.

        Raises:
            RunHolds: Another run holds it and may be at work.
        """
        while True:
            holder, released = self._holder(state_key)
            if holder is not None and not released and holder.run_id != run_id and alive(holder):
                raise RunHolds(
                    f"The sync {state_key} is being run by {holder.run_id} "
                    f"(process {holder.worker.pid} on {holder.worker.host}).",
                    "Wait until it has finished, or end it.",
                    holder,
                )
            fence = holder.fence + 1 if holder else 1
            values = {
                "fence": fence,
                "run_id": run_id,
                "host": worker.host,
                "pid": worker.pid,
                "pid_started": worker.started,
                "heartbeat": self.now(),
                "known": known,
                "released": False,
            }
            with self._transaction() as tx:
                current = tx.execute(
                    sa.select(leases.c.fence).where(leases.c.state_key == state_key).with_for_update()
                ).scalar()
                if current is None:
                    tx.execute(leases.insert().values(state_key=state_key, **values))
                elif holder is not None and current == holder.fence:
                    tx.execute(leases.update().where(leases.c.state_key == state_key).values(**values))
                else:
                    continue  # someone else took it between the look and the taking
                # What runs before this one left: their attempts are fenced off by the lease itself.
                tx.execute(shards.delete().where(shards.c.state_key == state_key, shards.c.run_id != run_id))
            return Lease(state_key, run_id, fence)

    def _holder(self, state_key: str) -> tuple[Holder | None, bool]:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(leases).where(leases.c.state_key == state_key)).first()
        if row is None:
            return None, True
        worker = Worker(row.host, row.pid, row.pid_started)
        return Holder(state_key, row.run_id, worker, row.fence, row.heartbeat, row.known), row.released

    def holder(self, state_key: str) -> Holder | None:
        """Who holds the lease now; None if it is free."""
        holder, released = self._holder(state_key)
        return None if released else holder

    def heartbeat(self, lease: Lease) -> None:
        """Show that the holder lives.

        Raises:
            LeaseLost: A newer fence exists.
        """
        with self._transaction() as tx:
            self._check_lease(tx, lease)
            tx.execute(leases.update().where(leases.c.state_key == lease.state_key).values(heartbeat=self.now()))

    def release(self, lease: Lease) -> None:
        """Give the lease back; nothing happens if a newer fence exists."""
        with self._transaction() as tx:
            tx.execute(
                leases.update()
                .where(leases.c.state_key == lease.state_key, leases.c.fence == lease.fence)
                .values(released=True)
            )
            tx.execute(shards.delete().where(shards.c.state_key == lease.state_key, shards.c.run_id == lease.run_id))

    def check(self, lease: Lease) -> None:
        """Raise `LeaseLost` unless the lease is still the newest."""
        with self._engine.connect() as connection:
            self._check_lease(connection, lease)

    @contextmanager
    def guarded(self, lease: Lease) -> Iterator[None]:
        """A transaction in which the lease is the newest and cannot be taken: for a change outside the ledger.

        Raises:
            LeaseLost: A newer fence exists.
        """
        with self._transaction() as tx:
            tx.execute(sa.select(leases.c.fence).where(leases.c.state_key == lease.state_key).with_for_update())
            self._check_lease(tx, lease)
            yield

    def _check_lease(self, connection: Connection, lease: Lease) -> None:
        self._check_row(_LEASE.first(connection, state=lease.state_key), lease)

    def _check_row(self, row: Any, lease: Lease) -> None:
        if row is None or row.fence != lease.fence or row.released:
            taker = f"run {row.run_id} has taken it over" if row and row.fence != lease.fence else "it was released"
            raise LeaseLost(
                f"Run {lease.run_id} no longer holds the sync {lease.state_key}: {taker}.",
                "Launch a new run; it delivers what is missing.",
            )

    def begin_shard(self, lease: Lease, shard: int, worker: Worker) -> ShardLease:
        """Start an attempt of a shard's write op; earlier attempts can open no batch from now on.

        Raises:
            LeaseLost: The run no longer holds the sync.
        """
        with self._transaction() as tx:
            self._check_lease(tx, lease)
            where = sa.and_(
                shards.c.state_key == lease.state_key, shards.c.run_id == lease.run_id, shards.c.shard == shard
            )
            fence = (tx.execute(sa.select(shards.c.fence).where(where)).scalar() or 0) + 1
            if fence == 1:
                tx.execute(
                    shards.insert().values(state_key=lease.state_key, run_id=lease.run_id, shard=shard, fence=fence)
                )
            else:
                tx.execute(shards.update().where(where).values(fence=fence))
        return ShardLease(lease, shard, fence, worker)

    def _check_shard(self, tx: Connection, shard: ShardLease) -> None:
        lease = shard.lease
        row = _SHARD.first(tx, state=lease.state_key, run=lease.run_id, index=shard.shard)
        self._check_row(row, lease)
        if row is None or row.shard_fence != shard.fence:
            raise LeaseLost(
                f"Shard {shard.shard} of run {lease.run_id} is written by a later attempt.",
                "Nothing to do: the later attempt delivers it.",
            )


_LEASE = Prepared(
    sa.select(leases.c.fence, leases.c.run_id, leases.c.released).where(leases.c.state_key == sa.bindparam("state"))
)
_SHARD = Prepared(
    sa.select(leases.c.fence, leases.c.run_id, leases.c.released, shards.c.fence.label("shard_fence"))
    .select_from(
        leases.outerjoin(
            shards,
            sa.and_(
                shards.c.state_key == leases.c.state_key,
                shards.c.run_id == sa.bindparam("run"),
                shards.c.shard == sa.bindparam("index"),
            ),
        )
    )
    .where(leases.c.state_key == sa.bindparam("state"))
    # Where rows are locked, nobody takes the lease between this look and the commit.
    .with_for_update(read=True, of=leases)
)
