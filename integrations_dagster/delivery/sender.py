"""The life of a batch: recorded, sent, answered; split where it is refused whole; given up where no answer comes."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from integrations_dagster.delivery.accounts import Account
from integrations_dagster.delivery.credentials import Credentials
from integrations_dagster.delivery.engine import Drive, RetrySettings, refusal
from integrations_dagster.delivery.exchange import RequestLog
from integrations_dagster.delivery.gate import AccountGate, BatchPermits
from integrations_dagster.delivery.permits import Stopped
from integrations_dagster.delivery.transports.registry import open_session
from integrations_dagster.destinations.base import Batch, Destination, Flow, Repeat
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    TooLarge,
    Unavailable,
)
from integrations_dagster.ledger.leases import ShardLease
from integrations_dagster.ledger.quotas import CircuitOpen, Granted, QuotaSpent
from integrations_dagster.ledger.store import Ledger
from integrations_dagster.ledger.writing import AlreadyClosed, OpenBatch
from integrations_dagster.vocabulary import (
    SUCCEEDED,
    Action,
    IntegrationsError,
    LeaseLost,
    Outcome,
    Row,
    Status,
    Traffic,
)


def _as_it_is(_rows: Sequence[Row], text: str) -> str:
    return text


@dataclass(slots=True)
class Sending:
    """What the senders of one shard share.

    Attributes:
        told: Called with the rows of a batch and their final outcomes, once each row has one.
        scrub_all: Takes secrets, and sensitive values of a batch's rows, out of a text before it is stored.
        stops: Whether a batch without an answer may open the circuit and stop the others.
        log: Where requests and answers are kept, or None.
        stop: Set when no request may leave any more.
        full: Set when no batch may begin any more; those that have leave already, which counted, still use it.
        reason: Why, as a sentence with the remedy; "" while sending goes on.
    """

    sync: str
    object: str
    match_fields: tuple[str, ...]
    destination: Destination
    account: Account
    credentials: Credentials
    ledger: Ledger
    shard: ShardLease
    gate: AccountGate
    stop: threading.Event
    told: Callable[[Sequence[Row], Sequence[Outcome]], None]
    scrub_all: Callable[[Sequence[Row], str], str] = _as_it_is
    stops: bool = True
    log: RequestLog | None = None
    retry: RetrySettings = field(default_factory=RetrySettings)
    full: threading.Event = field(default_factory=threading.Event)
    reason: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def halt(self, reason: str, *, at_once: bool = True) -> None:
        """Stop sending; the first reason is kept.

        Args:
            at_once: Whether requests that have leave already are held back too.
        """
        with self.lock:
            self.reason = self.reason or self.scrub_all((), reason)
        self.full.set()
        if at_once:
            self.stop.set()

    def refused(self, error: IntegrationsError) -> None:
        """No leave was given, for this reason: nobody asks for any again."""
        # A quota that is spent was spent by others, who may be on their way.
        self.halt(str(error), at_once=not isinstance(error, QuotaSpent))

    def resume(self) -> None:
        """Send again, as if nothing had stopped it."""
        self.full.clear()
        self.stop.clear()
        self.reason = ""


class Sender:
    """Sends batches of one shard, one at a time. One instance belongs to one thread."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        self._session = open_session(sending.destination, sending.account)
        # Work that a request began (a job) may go on after its answer.
        self._timeout = sending.account.timeout + sending.destination.settles

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def send(self, action: Action, rows: tuple[Row, ...], continued: OpenBatch | None = None) -> None:
        """Deliver rows; every trouble at the destination becomes an outcome or stops the shard.

        Args:
            action: How all of the rows are delivered.
            rows: The rows of the batch.
            continued: The open record of a dead attempt whose batch this is; its idempotency key is kept.
        """
        with self._sending.gate.passage():
            self._deliver(action, rows, continued)

    def _deliver(
        self, action: Action, rows: tuple[Row, ...], continued: OpenBatch | None = None, *, poisoned: bool = False
    ) -> bool:
        """Deliver rows, whole or in parts; returns whether all of them were accepted."""
        try:
            if self._sending.full.is_set():
                raise Stopped
            if poisoned and len(rows) > 1:
                # The other half was accepted, so the bad row is in this one: its parts are sent, not the whole.
                return self._deliver_parts(action, rows, poisoned=True)
            return self._send(action, rows, continued)
        except Stopped:
            self._tell(rows, Outcome(Status.UNSENT, reason=self._sending.reason or "The run was cancelled."))
        except (LeaseLost, CircuitOpen, QuotaSpent) as error:
            self._sending.refused(error)
            self._tell(rows, _unsent(error))
        return False

    def _deliver_parts(self, action: Action, rows: tuple[Row, ...], *, poisoned: bool) -> bool:
        """Deliver the halves; `poisoned`: the whole was refused for what is in it."""
        middle = len(rows) // 2
        first = self._deliver(action, rows[:middle])
        second = self._deliver(action, rows[middle:], poisoned=poisoned and first)
        return first and second

    def _send(self, action: Action, rows: tuple[Row, ...], continued: OpenBatch | None) -> bool:
        sending = self._sending
        repeat = sending.destination.repeat(sending.object, action)
        record = continued or self._open(rows, repeat)
        batch = Batch(sending.sync, sending.object, action, sending.match_fields, rows, record.idempotency_key)
        drive = Drive(
            self._session,
            sending.destination,
            sending.credentials,
            BatchPermits(
                sending.gate,
                record,
                sending.shard,
                self._timeout,
                granted=continued is None,
                lifetime=sending.destination.key_lifetime if repeat is Repeat.WITH_KEY else None,
            ),
            repeat,
            sending.stop,
            sending.retry,
            shard=sending.shard.shard,
            batch=record.idempotency_key,
            keys=tuple(row.key for row in rows),
            lost=continued is not None and not record.reference,
            begun=continued is not None and bool(record.reference),
            resumable=bool(record.reference),
            quiet_until=0.0 if continued is None else continued.deadline,
        )

        def start() -> Flow[list[Outcome]]:
            if record.reference:
                return sending.destination.resume(batch, record.reference)
            return sending.destination.deliver(batch)

        began = time.monotonic()
        outcomes: tuple[Outcome, ...] = ()
        try:
            outcomes = tuple(drive.run(start))
            if len(outcomes) != len(rows):
                drive.lost, outcomes = True, ()
                label = sending.destination.label
                raise Unavailable(f"{label}'s answer was read as outcomes of another number of rows.", "UNREADABLE")
        except (PoisonedBatch, TooLarge) as error:
            return self._split(action, rows, record, drive, error)
        except AlreadyClosed:
            # The attempt that this batch was taken over from was alive after all, and has its answer; or it was given
            # up while it waited for its turn.
            if not drive.unknown:
                sending.ledger.supersede_batch(record, drive.traffic)
            sending.told(rows, sending.ledger.outcomes(record) or [Outcome(Status.UNSENT)] * len(rows))
        except Stopped:
            reason = sending.reason or "The run was cancelled."
            self._end(rows, record, drive, Outcome(Status.UNSENT, reason=reason))
        except (LeaseLost, CircuitOpen, QuotaSpent) as error:
            sending.refused(error)
            self._end(rows, record, drive, _unsent(error))
        except Unavailable as error:
            error.reason = sending.scrub_all(rows, error.reason)
            self._end(rows, record, drive, Outcome(Status.UNSENT, None, error.code, error.reason, error.request_id))
            # A destination that answers others is not down: then this batch alone waits for the next run.
            if sending.stops and not sending.gate.worked_since(began):
                reason = self._unavailable(error)
                if sending.gate.open_circuit(reason, began):
                    sending.halt(reason)
        except DestinationError as error:
            error.reason = sending.scrub_all(rows, error.reason)
            self._end(rows, record, drive, Outcome(Status.UNSENT, None, error.code, error.reason, error.request_id))
            sending.halt(refusal(sending.destination.label, error))
        else:
            return self._complete(rows, record, drive, outcomes)
        finally:
            self._log(drive, outcomes)
        return False

    def _open(self, rows: tuple[Row, ...], repeat: Repeat) -> OpenBatch:
        sending = self._sending
        payloads = tuple(row.encoded for row in rows) if repeat is Repeat.WITH_KEY else ()
        key = _new_key()
        opened: list[OpenBatch] = []

        def ask() -> Granted:
            opened.append(
                sending.ledger.open_batch(
                    sending.shard,
                    rows,
                    idempotency_key=key,
                    repeatable=repeat.safe,
                    timeout=self._timeout,
                    use=sending.gate.use,
                    payloads=payloads,
                )
            )
            return opened[0].granted

        sending.gate.grant(ask)
        return opened[0]

    def _complete(self, rows: tuple[Row, ...], record: OpenBatch, drive: Drive, outcomes: tuple[Outcome, ...]) -> bool:
        sending = self._sending
        good = _good(outcomes)
        if not good:
            outcomes = self._scrubbed(rows, outcomes)
        refused_again = not good and any(outcome.status is Status.REJECTED for outcome in outcomes)
        if drive.lost and drive.repeat.safe and refused_again:
            # An earlier attempt, whose answer was lost, may have been accepted: the rejected rows are unknown too.
            sending.ledger.give_up_batch(record, Traffic(), quiet_until=drive.quiet_until)
            record = sending.ledger.open_batch(
                sending.shard,
                record.rows,
                idempotency_key=record.idempotency_key,
                repeatable=record.repeatable,
                timeout=self._timeout,
            )
        sending.ledger.complete_batch(record, outcomes, drive.traffic, quiet_until=drive.quiet_until)
        sending.told(rows, outcomes)
        return good

    def _split(
        self, action: Action, rows: tuple[Row, ...], record: OpenBatch, drive: Drive, error: DestinationError
    ) -> bool:
        error.reason = self._sending.scrub_all(rows, error.reason)
        if len(rows) == 1:
            outcome = Outcome(Status.REJECTED, None, error.code, error.reason, error.request_id)
            return self._complete(rows, record, drive, (outcome,))
        # Under one key the destination repeats its first answer: then this one tells of the lost one too.
        if drive.begun or (drive.lost and drive.repeat is not Repeat.WITH_KEY):
            self._sending.ledger.give_up_batch(record, drive.traffic, quiet_until=drive.silence)
            if not record.repeatable:
                self._tell(rows, Outcome(Status.IN_DOUBT, None, error.code, error.reason, error.request_id))
                return False
        else:
            # Refused whole means without effect: the parts replace the batch, under keys of their own.
            self._sending.ledger.supersede_batch(record, drive.traffic)
        return self._deliver_parts(action, rows, poisoned=isinstance(error, PoisonedBatch))

    def _unavailable(self, error: Unavailable) -> str:
        remedy = "launch the run again when it answers"
        if self._sending.account.in_sandbox:
            remedy = "start the sandbox with `make ui` or `integrations sandbox`, and launch the run again"
        return (
            f"{self._sending.destination.label} is unavailable: {error.reason} Nothing is lost: {remedy}; it delivers "
            "what is missing."
        )

    def _end(self, rows: tuple[Row, ...], record: OpenBatch, drive: Drive, outcome: Outcome) -> None:
        if not drive.unknown:
            self._sending.ledger.supersede_batch(record, drive.traffic)
        else:
            self._sending.ledger.give_up_batch(record, drive.traffic, quiet_until=drive.silence)
            if not record.repeatable:
                outcome = Outcome(Status.IN_DOUBT, None, outcome.code, outcome.reason, outcome.request_id)
        self._tell(rows, outcome)

    def _log(self, drive: Drive, outcomes: tuple[Outcome, ...]) -> None:
        log = self._sending.log
        if log is None:
            return
        good = bool(outcomes) and _good(outcomes)
        for exchange in drive.exchanges:
            log.write(exchange, failed=bool(exchange.error) or not good)

    def _tell(self, rows: tuple[Row, ...], outcome: Outcome) -> None:
        self._sending.told(rows, [outcome] * len(rows))

    def _scrubbed(self, rows: tuple[Row, ...], outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
        # What an answer says of one row may quote another.
        clean = {text: self._sending.scrub_all(rows, text) for text in {outcome.reason for outcome in outcomes} if text}
        return tuple(
            Outcome(o.status, o.destination_id, o.code, clean[o.reason], o.request_id) if o.reason else o
            for o in outcomes
        )


def _new_key() -> str:
    """An idempotency key: keys sort by when their batches were made, as UUIDs of version 7 do."""
    return f"{time.time_ns() // 1_000_000:012x}{uuid.uuid4().hex[12:]}"


def _good(outcomes: Sequence[Outcome]) -> bool:
    """Whether all rows were accepted."""
    return SUCCEEDED.issuperset([outcome.status for outcome in outcomes])


def _unsent(error: IntegrationsError) -> Outcome:
    return Outcome(Status.UNSENT, None, _CODES[type(error)], str(error))


_CODES: dict[type[IntegrationsError], str] = {
    LeaseLost: "LEASE_LOST",
    CircuitOpen: "CIRCUIT_OPEN",
    QuotaSpent: "QUOTA_SPENT",
}
