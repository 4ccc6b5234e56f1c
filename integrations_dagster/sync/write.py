"""write: deliver one shard. Every trouble at the destination becomes an outcome; nothing of it is raised."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from integrations_dagster.delivery.engine import RetrySettings
from integrations_dagster.delivery.sender import Sender
from integrations_dagster.destinations.base import Repeat
from integrations_dagster.ledger.batches import BatchRecord, BatchStatus
from integrations_dagster.ledger.leases import Lease
from integrations_dagster.ledger.writing import OpenBatch
from integrations_dagster.planner.rows import streamed
from integrations_dagster.planner.state import Home
from integrations_dagster.sync.account import connect_account, identify
from integrations_dagster.sync.ahead import EventsAhead
from integrations_dagster.sync.collector import seldom
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.line import open_line
from integrations_dagster.sync.mapping import Mapped, Mapper
from integrations_dagster.sync.outcomes import OutcomeFile
from integrations_dagster.sync.packer import Packer, limits_of
from integrations_dagster.sync.pool import Pool
from integrations_dagster.sync.results import Progress, Shard, WriteSummary
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.state import state_key
from integrations_dagster.vocabulary import SUCCEEDED, Action, Misconfigured, Outcome, Row, Status

DRAIN = 10.0
"""Seconds that requests in flight are given when the run is cancelled."""
READ_ROWS = 2000
"""Rows read from the shard file at a time."""
LEARNED_FROM = 50
"""Batches of a shard from which the requests in flight that it came to are worth keeping."""
PROGRESS_EVERY = 5.0
"""Seconds between two reports of progress."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A batch on its way to a sender; `continued` is the open record of a dead attempt."""

    action: Action
    rows: tuple[Row, ...]
    continued: OpenBatch | None = None


@dataclass(slots=True)
class _Earlier:
    """What earlier, dead attempts of this write op have done.

    Attributes:
        settled: Ordinal to outcome of rows that are not sent again.
        continued: Ordinal to the open batch that is sent again under its own record.
        collected: Rows of such a batch, by its id, until it is whole.
    """

    settled: dict[int, Outcome] = field(default_factory=dict)
    continued: dict[int, BatchRecord] = field(default_factory=dict)
    collected: dict[int, list[Row]] = field(default_factory=dict)


def write(
    sync: SyncSpec,
    ctx: RunContext,
    shard: Shard,
    progress: Callable[[Progress], None] = lambda _progress: None,
    *,
    retry: RetrySettings | None = None,
) -> WriteSummary:
    """Deliver a shard; may be called again for a shard whose earlier attempt died.

    Args:
        progress: Told every few seconds, from this thread.
        retry: How long to try; the default is what the destination's settings say.

    Raises:
        Misconfigured: The account cannot be resolved any more.
        LeaseLost: The run does not hold the sync any more.
        BaseException: What interrupted the op; requests in flight are drained for at most ten seconds before.
    """
    with seldom():
        return _Write(sync, ctx, shard, progress, retry).run()


def _waiting(key: str) -> Outcome:
    """Of a row that takes, or leaves, a match value only once another row has been accepted."""
    reason = f"It waits for the row with the key {key}, which was not accepted; the next run tries again."
    return Outcome(Status.REJECTED, None, "WAITS_FOR_ANOTHER_ROW", reason)


def _followed(path: Path) -> frozenset[str]:
    """Keys whose acceptance others wait for."""
    keys: set[str] = set()
    for rows in streamed(path).iter_batches(100_000, columns=["follows"]):
        keys.update(str(key) for key in rows.column("follows").drop_null().to_pylist())
    return frozenset(keys)


class _Write:
    def __init__(
        self,
        sync: SyncSpec,
        ctx: RunContext,
        shard: Shard,
        progress: Callable[[Progress], None],
        retry: RetrySettings | None,
    ) -> None:
        self._sync = sync
        self._ctx = ctx
        self._shard = shard
        self._progress = progress
        self._connected = connect_account(sync, ctx)
        self._check_unchanged()
        lease = Lease(state_key(sync, shard.account), shard.run_id, shard.fence)
        self._lease = ctx.ledger.begin_shard(lease, shard.index, ctx.worker)
        destination = self._connected.destination
        limits = {
            action: limits_of(
                destination.limits(sync.object, action),
                rows=sync.batch_rows,
                most_bytes=sync.batch_bytes,
                row_bytes=sync.row_bytes,
            )
            for action in Action
        }
        self._mapper = Mapper(sync, destination, limits[Action.UPSERT].row_bytes)
        self._batch_rows = limits[Action.UPSERT].rows
        self._packer = Packer(limits)
        in_flight = max(1, sync.destination.in_flight // shard.of)
        # More threads than requests in flight: while some wait for answers, others record and read. Whoever is ready to
        # send has its batch in the ledger, and if the process dies its rows are in doubt where no request of it may be
        # repeated: then fewer are ready.
        repeats = all(destination.repeat(sync.object, action).safe for action in Action)
        threads = 3 * in_flight if repeats else in_flight + in_flight // 2
        self._pool: Pool[_Item] = Pool(threads, self._sender)
        home = Home.of(ctx.storage, sync.name, shard.account)
        self._sending = open_line(
            sync, ctx, self._connected, home, self._lease, self._count,
            in_flight=in_flight, shards=shard.of, retry=retry,
        )  # fmt: skip
        self._outcomes = OutcomeFile(Path(shard.path).parent, shard.index, self._lease.fence)
        self._ahead = EventsAhead(ctx.ledger, self._lease, Path(shard.path).parent, ctx.log)
        self._followed = _followed(Path(shard.path))
        self._accepted: set[str] = set()
        self._lock = threading.Lock()
        self._done = 0
        self._rejected = 0
        self._silent = ""
        self._started = time.monotonic()
        self._last_tick = self._started

    def _check_unchanged(self) -> None:
        """A step reads YAML and environment anew, and delivers what was planned or nothing."""
        account = identify(self._sync, self._ctx, self._connected)
        if account == self._shard.account and self._sync.mapping_digest == self._shard.mapping:
            return
        what = "account or object" if account != self._shard.account else "mapping"
        raise Misconfigured(
            f"Sync {self._sync.name!r} ({self._sync.source}): its {what} was changed while run {self._shard.run_id} "
            "was under way.",
            "Launch a new run.",
        )

    def run(self) -> WriteSummary:
        try:
            self._feed(self._earlier())
            self._pool.finish(self._tick)
            self._outcomes.finish()
        except BaseException:
            # Cancelled or broken: send nothing new; what is in flight gets time to be answered and recorded.
            self._sending.halt("The run was cancelled.")
            self._pool.abandon(DRAIN)
            self._outcomes.abandon()
            raise
        finally:
            self._end()
        self._tell()
        for told in self._mapper.dropped():
            self._ctx.log(f"Shard {self._shard.index}: {told}")
        seconds = time.monotonic() - self._started
        return WriteSummary(self._shard.index, self._sending.reason, seconds, self._silent)

    def _end(self) -> None:
        self._ahead.end()
        if self._sending.log is not None:
            self._sending.log.close()
        gate = self._sending.gate
        if self._done >= LEARNED_FROM * self._batch_rows:
            self._ctx.ledger.learn_concurrency(gate.use.account, gate.concurrency.limit * self._shard.of)

    # Earlier attempts of this op

    def _earlier(self) -> _Earlier:
        for batch in self._ctx.ledger.shard_batches(self._lease):
            if batch.status is BatchStatus.OPEN and not self._goes_on(batch):
                self._await_answer(batch)
        earlier, again = _Earlier(), 0
        for batch in self._ctx.ledger.shard_batches(self._lease):
            if batch.status is BatchStatus.COMPLETED:
                earlier.settled.update((r.ordinal, o) for r, o in zip(batch.rows, batch.outcomes, strict=True))
            elif batch.status is BatchStatus.OPEN and self._goes_on(batch):
                again += 1
                earlier.continued.update((row.ordinal, batch) for row in batch.rows)
            elif not batch.repeatable:
                earlier.settled.update((row.ordinal, Outcome(Status.IN_DOUBT)) for row in batch.rows)
        if earlier.settled or again:
            self._ctx.log(
                f"Shard {self._shard.index}: an earlier attempt settled {len(earlier.settled):,} rows, which are not "
                f"sent again; {again} batch(es) without an answer are."
            )
        return earlier

    def _goes_on(self, batch: BatchRecord) -> bool:
        """Whether a batch without an answer can be sent again, or asked for, under its own record."""
        if batch.repeatable or batch.reference:
            return True
        actions = {row.action for row in batch.rows}
        destination = self._connected.destination
        return all(destination.repeat(self._sync.object, action) is Repeat.WITH_KEY for action in actions)

    def _await_answer(self, batch: BatchRecord) -> None:
        """The dead attempt's request must not be repeated, and may take effect until its deadline."""
        state = self._lease.lease.state_key
        while self._ctx.ledger.now() <= batch.deadline and not self._ctx.stop.wait(0.1):
            if all(other.id != batch.id for other in self._ctx.ledger.open_batches(state)):
                return
        self._ctx.ledger.give_up_expired(state)

    # Feeding

    def _feed(self, earlier: _Earlier) -> None:
        wave = first = 0
        for rows in streamed(Path(self._shard.path)).iter_batches(READ_ROWS):
            for mapped in self._mapper.map(rows, first):
                if mapped.wave != wave:
                    self._put_rest()
                    self._pool.settle(self._tick)
                    wave = mapped.wave
                if self._sending.full.is_set():
                    return
                self._take(mapped, earlier)
            first += rows.num_rows
            self._tick()
        self._put_rest()

    def _take(self, mapped: Mapped, earlier: _Earlier) -> None:
        row = mapped.row
        if row.ordinal in earlier.settled:
            self._count((row,), (earlier.settled[row.ordinal],))
        elif mapped.outcome is not None:
            self._settle(row, mapped.outcome)
        elif mapped.follows is not None and mapped.follows not in self._accepted:
            self._settle(row, _waiting(mapped.follows))
        elif row.ordinal in earlier.continued:
            batch = earlier.continued[row.ordinal]
            collected = earlier.collected.setdefault(batch.id, [])
            collected.append(row)
            if len(collected) == len(batch.rows):
                self._pool.put(_Item(row.action, tuple(collected), self._continued(batch)), self._tick)
        else:
            for action, rows in self._packer.add(row):
                self._pool.put(_Item(action, rows), self._tick)

    def _put_rest(self) -> None:
        for action, rows in self._packer.rest():
            self._pool.put(_Item(action, rows), self._tick)

    def _continued(self, batch: BatchRecord) -> OpenBatch:
        return OpenBatch(
            batch.id,
            self._lease,
            batch.attempt,
            batch.idempotency_key,
            batch.repeatable,
            batch.rows,
            0.0,
            batch.deadline,
            reference=batch.reference,
            opened=batch.opened,
        )

    def _settle(self, row: Row, outcome: Outcome) -> None:
        self._outcomes.add(row, outcome)
        self._count((row,), (outcome,))

    def _sender(self) -> tuple[Callable[[_Item], None], Callable[[], None]]:
        sender = Sender(self._sending)
        return lambda item: sender.send(item.action, item.rows, item.continued), sender.close

    # Telling

    def _count(self, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> None:
        with self._lock:
            if self._followed:
                answered = zip(rows, outcomes, strict=True)
                self._accepted.update(row.key for row, o in answered if o.status in SUCCEEDED)
            self._rejected += [outcome.status for outcome in outcomes].count(Status.REJECTED)
            if not self._silent:
                silent = (o.reason for o in outcomes if o.status in (Status.UNSENT, Status.IN_DOUBT) and o.reason)
                self._silent = next(silent, "")
            self._done += len(rows)
            self._ahead.told(len(rows))

    def _tick(self) -> None:
        if self._ctx.stop.is_set() and not self._sending.stop.is_set():
            self._sending.halt("The run was cancelled.")
            self._ctx.log(f"Shard {self._shard.index}: cancelled; nothing new is sent.")
        if time.monotonic() - self._last_tick >= PROGRESS_EVERY:
            self._tell()

    def _tell(self) -> None:
        self._last_tick = time.monotonic()
        seconds = self._last_tick - self._started
        self._progress(Progress(self._shard.index, self._done, self._shard.candidates, self._rejected, seconds))
