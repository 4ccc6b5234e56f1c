"""Rows in doubt: sent by a request that must not be repeated, and no answer came. What finds out what became of them.

- Under its idempotency key a batch is sent once more, with the same body: the destination answers what it did.
- A job that was remembered is asked for.
- Where the destination can look records up by match value, it is asked (`in_doubt: verify`).
- A person says it (`confirm`, or `integrations retry --key`).

What is found out is stored as an answer that came late, and folded like any other. Nothing is guessed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby

from integrations_dagster.delivery.permits import Stopped
from integrations_dagster.delivery.sender import Sender
from integrations_dagster.destinations.base import Batch, Flow, Repeat
from integrations_dagster.destinations.errors import DestinationError
from integrations_dagster.ledger.batches import BatchRecord, SentRow
from integrations_dagster.ledger.leases import ShardLease
from integrations_dagster.ledger.writing import AlreadyClosed
from integrations_dagster.planner.held import Doubt, doubts
from integrations_dagster.sync.account import Connected, account_key, ask, connect_account, identify
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.homes import home_of
from integrations_dagster.sync.kept import keep_payloads
from integrations_dagster.sync.line import open_line
from integrations_dagster.sync.runs import begin_run, log_confirmed
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.state import HeldState, fold_into, spacing_of, state_key, wait_for_open_batches
from integrations_dagster.vocabulary import ABSENT, Action, Change, IntegrationsError, LeaseLost, Outcome, Row, Status

SHARD = -1
"""The shard of batches that `plan` takes up again."""
GIVE_UP = 2
"""Batches in a row without an answer after which the others wait for the next run."""
NOT_THERE = Outcome(Status.UNSENT, None, ABSENT, "It was looked up and is not at the destination.")


def resolve(sync: SyncSpec, ctx: RunContext, connected: Connected, held: HeldState) -> tuple[str, ...]:
    """Find out what became of the rows in doubt, as far as the sync's settings and the destination allow.

    Called under the lease, once no request of an earlier run can take effect any more and everything is folded. An
    outage leaves the rest in doubt; the next run tries again.

    Returns:
        Sentences for a person.

    Raises:
        LeaseLost: Another run holds the sync now.
    """
    open_doubts = doubts(held.home, held.home.manifest())
    batches = ctx.ledger.doubtful_batches(held.lease.state_key)
    if not open_doubts and not batches:
        return ()
    shard = ctx.ledger.begin_shard(held.lease, SHARD, ctx.worker)
    before = {(doubt.key, doubt.reference) for doubt in open_doubts}
    if _take_up(sync, ctx, connected, held, shard, _of_interest(batches, before)):
        fold_into(ctx, held, spacing=spacing_of(sync))
        open_doubts = doubts(held.home, held.home.manifest())
    _forget(sync, ctx, connected, held, {(doubt.key, doubt.reference) for doubt in open_doubts})
    notes = []
    answered = len(before) - len({(doubt.key, doubt.reference) for doubt in open_doubts} & before)
    if answered:
        notes.append(f"{answered:,} row(s) that were in doubt have their answer now.")
    if verifies(sync, connected):
        notes += _verify(sync, ctx, connected, shard, [doubt for doubt in open_doubts if doubt.action is Action.CREATE])
    return tuple(notes)


def verifies(sync: SyncSpec, connected: Connected) -> bool:
    """Whether rows in doubt are looked up."""
    can = connected.destination.can_verify(sync.object, tuple(sync.match))
    return can and sync.in_doubt in (None, "verify")


def _of_interest(batches: Sequence[BatchRecord], open_: set[tuple[str, str]]) -> list[BatchRecord]:
    """Batches of which a row is still in doubt: a person may have decided meanwhile."""
    return [batch for batch in batches if any((row.key, batch.idempotency_key) in open_ for row in batch.rows)]


def _forget(
    sync: SyncSpec, ctx: RunContext, connected: Connected, held: HeldState, open_: set[tuple[str, str]]
) -> None:
    """Keep no payload of a batch that was resolved another way, or whose key the destination has forgotten."""
    batches = ctx.ledger.doubtful_batches(held.lease.state_key)
    wanted = {batch.id for batch in _of_interest(batches, open_)}
    now = ctx.ledger.now()
    useless = [
        batch.id
        for batch in batches
        if batch.id not in wanted or not (batch.reference or _remembered(sync, connected, batch, now))
    ]
    if useless:
        ctx.ledger.forget_doubts(useless)


# By idempotency key, and by job


def _take_up(
    sync: SyncSpec,
    ctx: RunContext,
    connected: Connected,
    held: HeldState,
    shard: ShardLease,
    batches: Sequence[BatchRecord],
) -> bool:
    """Send batches again under their key, or ask for their job; returns whether there was any."""
    usable = [batch for batch in batches if batch.reference or _remembered(sync, connected, batch, ctx.ledger.now())]
    if not usable:
        return False
    sending = open_line(sync, ctx, connected, held.home, shard, lambda _rows, _outcomes: None, in_flight=1)
    # One batch whose key or job has no answer says nothing of the others, nor of what is sent after them.
    sending.stops = False
    sender = Sender(sending)
    silent = 0
    try:
        for batch in usable:
            if ctx.stop.is_set() or silent >= GIVE_UP:
                break
            began = time.monotonic()
            rows = tuple(_row(row, payload) for row, payload in zip(batch.rows, _payloads(batch), strict=True))
            try:
                reopened = ctx.ledger.reopen_batch(batch, shard)
            except AlreadyClosed:
                continue
            sender.send(rows[0].action, rows, reopened)
            silent = 0 if sending.gate.worked_since(began) else silent + 1
            if sending.reason:
                ctx.log(f"Sync {sync.name!r}: {len(rows)} row(s) in doubt stay so. {sending.reason}")
                sending.resume()
    finally:
        sender.close()
        if sending.log is not None:
            sending.log.close()
    # What got no answer again is given up again, so that it is not waited for. A look-up must not come before it.
    wait_for_open_batches(sync, ctx, held.lease.state_key, quietly=verifies(sync, connected))
    ctx.ledger.check(held.lease)
    return True


def _remembered(sync: SyncSpec, connected: Connected, batch: BatchRecord, now: float) -> bool:
    """Whether the destination still knows the idempotency key of a batch."""
    destination = connected.destination
    if destination.repeat(sync.object, batch.rows[0].action) is not Repeat.WITH_KEY:
        return False
    return now - batch.opened < destination.key_lifetime - sync.destination.timeout


def _payloads(batch: BatchRecord) -> Sequence[bytes]:
    # A job is asked for by name, without its rows.
    return batch.payloads or (b"{}",) * len(batch.rows)


def _row(sent: SentRow, payload: bytes) -> Row:
    return Row(
        sent.ordinal,
        sent.key,
        sent.match,
        sent.change,
        sent.action,
        payload,
        sent.partition,
        sent.destination_id,
        sent.source_digest,
        sent.payload_digest,
    )


# By look-up


def _verify(
    sync: SyncSpec, ctx: RunContext, connected: Connected, shard: ShardLease, open_doubts: Sequence[Doubt]
) -> Iterator[str]:
    destination = connected.destination
    account = account_key(sync, ctx, connected)
    size = destination.limits(sync.object, Action.CREATE).rows
    found = absent = 0
    try:
        for start in range(0, len(open_doubts), size):
            part = open_doubts[start : start + size]
            rows = tuple(_row(_sent(place, doubt), b"{}") for place, doubt in enumerate(part))
            batch = Batch(sync.name, sync.object, Action.CREATE, tuple(sync.match), rows, part[0].reference)

            def flow(batch: Batch = batch) -> Flow[list[Outcome | None]]:
                return destination.verify(batch)

            told = ask(sync, ctx, connected, account, flow)
            known = [
                (doubt, outcome or NOT_THERE)
                for doubt, outcome in zip(part, told, strict=True)
                # What the answer does not mention stays in doubt.
                if outcome is None or outcome.status is not Status.IN_DOUBT
            ]
            _settle(ctx, shard, [doubt for doubt, _ in known], [outcome for _, outcome in known])
            found += sum(outcome is not NOT_THERE for _, outcome in known)
            absent += sum(outcome is NOT_THERE for _, outcome in known)
    except DestinationError as error:
        # Its own words may quote the rows that were asked for.
        told_by = f" (request {error.request_id})" if error.request_id else ""
        ctx.log(
            f"Sync {sync.name!r}: rows in doubt could not be looked up and stay so: {error.kind} {error.code}{told_by}."
        )
    except Stopped:
        ctx.log(f"Sync {sync.name!r}: rows in doubt were not looked up, for the run was cancelled.")
    except LeaseLost:
        raise
    except IntegrationsError as error:
        ctx.log(f"Sync {sync.name!r}: rows in doubt could not be looked up and stay so. {error}")
    if found or absent:
        yield (
            f"{found + absent:,} row(s) in doubt were looked up: {found:,} are at the destination, {absent:,} are not "
            "and are sent again."
        )


def _sent(place: int, doubt: Doubt) -> SentRow:
    return SentRow(
        place,
        doubt.key,
        doubt.match,
        Change.ADDED,
        doubt.action or Action.CREATE,
        doubt.partition,
        doubt.destination_id,
        doubt.source_digest,
        doubt.payload_digest,
    )


def _settle(ctx: RunContext, shard: ShardLease, part: Sequence[Doubt], outcomes: Sequence[Outcome]) -> None:
    """Store what was found out; each answer is about the doubt of one batch."""
    known = sorted(zip(part, outcomes, strict=True), key=lambda pair: pair[0].reference)
    for reference, pairs in groupby(known, key=lambda pair: pair[0].reference):
        rows, answers = zip(*pairs, strict=True)
        ctx.ledger.settle(
            shard, tuple(_sent(place, doubt) for place, doubt in enumerate(rows)), tuple(answers), reference
        )


# By a person


def confirm(sync: SyncSpec, ctx: RunContext, keys: Sequence[str], destination_id: str | None = None) -> list[str]:
    """A person says that rows in doubt are at the destination. Takes the sync's lease for a moment.

    Args:
        keys: Primary keys, as text.
        destination_id: The record's id, where there is one key and it is known.

    Returns:
        The keys that were confirmed, in order; the others are not in doubt.

    Raises:
        LeaseHeld: A run of the sync is under way.
        Misconfigured: The account cannot be resolved.
    """
    connected = connect_account(sync, ctx)
    account = identify(sync, ctx, connected)
    lease = ctx.ledger.acquire(state_key(sync, account), ctx.run_id, ctx.worker, alive=ctx.alive, known=False)
    try:
        held = HeldState(lease, home_of(sync, ctx, account), sync.keep_values)
        wait_for_open_batches(sync, ctx, lease.state_key, quietly=True)
        keep_payloads(sync, held.home)
        fold_into(ctx, held, spacing=spacing_of(sync))
        wanted = set(keys)
        part = [doubt for doubt in doubts(held.home, held.home.manifest()) if doubt.key in wanted]
        if part:
            began = ctx.ledger.now()
            begin_run(held.home, ctx.run_id, began)
            shard = ctx.ledger.begin_shard(lease, SHARD, ctx.worker)
            reason = "A person confirmed that it is at the destination."
            _settle(ctx, shard, part, [Outcome(Status.CREATED, destination_id, "CONFIRMED", reason)] * len(part))
            fold_into(ctx, held, spacing=spacing_of(sync))
            log_confirmed(sync, ctx, held.home, account, began, len(part))
        return [doubt.key for doubt in part]
    finally:
        ctx.ledger.release(lease)
