"""The life of a batch: recorded, sent, answered; split where it is refused whole; given up where no answer comes."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from integrations_dagster.delivery.accounts import Account
from integrations_dagster.delivery.engine import Drive, RetrySettings, Stopped
from integrations_dagster.delivery.session import HttpSession
from integrations_dagster.destinations.base import Batch, Destination
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    Refused,
    TooLarge,
    Unavailable,
)
from integrations_dagster.ledger.batches import SentRow
from integrations_dagster.ledger.leases import ShardLease
from integrations_dagster.ledger.store import AlreadyClosed, Ledger, OpenBatch
from integrations_dagster.vocabulary import Action, LeaseLost, Outcome, Row, Status, Traffic


@dataclass(slots=True)
class Sending:
    """What the senders of one shard share.

    Attributes:
        stop: Set when nothing new may be sent any more.
        reason: Why, as a sentence with the remedy; "" while sending goes on.
    """

    stop: threading.Event
    reason: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def halt(self, reason: str) -> None:
        """Stop sending; the first reason is kept."""
        with self.lock:
            self.reason = self.reason or reason
        self.stop.set()


class Sender:
    """Sends batches of one shard, one at a time. One instance belongs to one thread.

    Args:
        told: Called with the rows of a batch and their final outcomes, once each row has one.
    """

    def __init__(
        self,
        *,
        sync: str,
        object_: str,
        match_fields: tuple[str, ...],
        destination: Destination,
        account: Account,
        ledger: Ledger,
        shard: ShardLease,
        sending: Sending,
        told: Callable[[Sequence[Row], Sequence[Outcome]], None],
        retry: RetrySettings | None = None,
    ) -> None:
        self._sync = sync
        self._object = object_
        self._match_fields = match_fields
        self._destination = destination
        self._account = account
        self._ledger = ledger
        self._shard = shard
        self._sending = sending
        self._told = told
        self._retry = retry or RetrySettings()
        self._session = HttpSession(account, destination.auth)

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
        if self._sending.stop.is_set():
            self._tell(rows, Outcome(Status.UNSENT, reason=self._sending.reason))
            return
        try:
            self._send(action, rows, continued)
        except LeaseLost as error:
            self._sending.halt(str(error))
            self._tell(rows, Outcome(Status.UNSENT, code="LEASE_LOST", reason=str(error)))

    def _send(self, action: Action, rows: tuple[Row, ...], continued: OpenBatch | None) -> None:
        repeatable = self._destination.repeatable(self._object, action)
        record = continued or self._ledger.open_batch(
            self._shard,
            tuple(SentRow.of(row) for row in rows),
            idempotency_key=uuid.uuid4().hex,
            repeatable=repeatable,
            timeout=self._account.timeout,
        )
        batch = Batch(self._sync, self._object, action, self._match_fields, rows, record.idempotency_key)
        fresh = continued is None

        def permit(first: bool) -> float:
            if not (first and fresh):
                self._ledger.renew_batch(record, self._shard, timeout=self._account.timeout)
            return record.send_before

        drive = Drive(
            self._session, self._destination, permit, repeatable, self._sending.stop, self._retry, Traffic(),
            touched=continued is not None, quiet_until=0.0 if continued is None else continued.deadline,
        )  # fmt: skip
        try:
            outcomes = tuple(drive.run(lambda: self._destination.deliver(batch)))
        except (PoisonedBatch, TooLarge) as error:
            self._split(action, rows, record, drive, error)
        except AlreadyClosed:
            # The attempt that this batch was taken over from was alive after all, and has its answer.
            self._told(rows, self._ledger.outcomes(record) or [Outcome(Status.UNSENT)] * len(rows))
        except Stopped:
            self._end(
                rows, record, drive, Outcome(Status.UNSENT, reason=self._sending.reason or "The run was cancelled.")
            )
        except Unavailable as error:
            self._end(rows, record, drive, Outcome(Status.UNSENT, None, error.code, error.reason, error.request_id))
            self._sending.halt(self._unavailable(error))
        except DestinationError as error:
            self._end(rows, record, drive, Outcome(Status.UNSENT, None, error.code, error.reason, error.request_id))
            self._sending.halt(refusal(self._destination.label, error))
        else:
            self._complete(rows, record, drive, outcomes)

    def _complete(self, rows: tuple[Row, ...], record: OpenBatch, drive: Drive, outcomes: tuple[Outcome, ...]) -> None:
        if drive.touched and any(outcome.status is Status.REJECTED for outcome in outcomes):
            # An earlier attempt, whose answer was lost, may have been accepted: the rejected rows are unknown too.
            self._ledger.give_up_batch(record, Traffic(), quiet_until=drive.quiet_until)
            record = self._ledger.open_batch(
                self._shard,
                record.rows,
                idempotency_key=record.idempotency_key,
                repeatable=record.repeatable,
                timeout=self._account.timeout,
            )
        self._ledger.complete_batch(record, outcomes, drive.traffic, quiet_until=drive.quiet_until)
        self._told(rows, outcomes)

    def _split(
        self, action: Action, rows: tuple[Row, ...], record: OpenBatch, drive: Drive, error: DestinationError
    ) -> None:
        if len(rows) == 1:
            outcome = Outcome(Status.REJECTED, None, error.code, error.reason, error.request_id)
            self._complete(rows, record, drive, (outcome,))
            return
        if drive.touched:
            self._ledger.give_up_batch(record, drive.traffic, quiet_until=drive.quiet_until)
        else:
            # Refused whole means without effect: the parts replace the batch, under keys of their own.
            self._ledger.supersede_batch(record, drive.traffic)
        middle = len(rows) // 2
        self.send(action, rows[:middle])
        self.send(action, rows[middle:])

    def _unavailable(self, error: Unavailable) -> str:
        remedy = "launch the run again when it answers"
        if self._account.in_sandbox:
            remedy = "start the sandbox with `make ui` or `integrations sandbox`, and launch the run again"
        return (
            f"{self._destination.label} is unavailable: {error.reason} Nothing is lost: {remedy}; it delivers what is "
            "missing."
        )

    def _end(self, rows: tuple[Row, ...], record: OpenBatch, drive: Drive, outcome: Outcome) -> None:
        if not drive.touched:
            self._ledger.supersede_batch(record, drive.traffic)
        else:
            self._ledger.give_up_batch(record, drive.traffic, quiet_until=drive.quiet_until)
            if not record.repeatable:
                outcome = Outcome(Status.IN_DOUBT, None, outcome.code, outcome.reason, outcome.request_id)
        self._tell(rows, outcome)

    def _tell(self, rows: tuple[Row, ...], outcome: Outcome) -> None:
        self._told(rows, [outcome] * len(rows))


def refusal(label: str, error: DestinationError) -> str:
    """A sentence for what no retry mends, with the remedy where the error table has one."""
    remedy = error.remedy if isinstance(error, Refused) else ""
    request = f" (request {error.request_id})" if error.request_id else ""
    return f"{label} refused the request: {error.reason}{request} {remedy}".strip()
