"""The way to an account: leave to send, from the ledger, and what answers say of its limits, back to the ledger."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from integrations_dagster.delivery.limits import Concurrency
from integrations_dagster.delivery.permits import Permit, Stopped
from integrations_dagster.destinations.base import Destination, Response, Usage
from integrations_dagster.ledger.leases import ShardLease
from integrations_dagster.ledger.quotas import PACED, Circuit, Granted, NoSlot, Use
from integrations_dagster.ledger.store import Ledger
from integrations_dagster.ledger.writing import OpenBatch

SLOT_WAIT = 0.02
"""Seconds between two looks for a free place among the account's requests in flight."""
COUNTED_EVERY = 5.0
"""Seconds between two corrections of a counted quota by the same process."""


class AccountGate:
    """What the threads of one process share on their way to one account.

    Args:
        ledger: Grants requests.
        use: Who uses which account.
        destination: Reads usage out of answers.
        stop: When set, nobody waits any longer.
        concurrency: Requests in flight of this process.
    """

    def __init__(
        self, ledger: Ledger, use: Use, destination: Destination, stop: threading.Event, concurrency: Concurrency
    ) -> None:
        self.ledger = ledger
        self.use = use
        self.concurrency = concurrency
        self._destination = destination
        self._stop = stop
        self._circuit: Circuit | None = ledger.circuit(use.account)
        self._probing = threading.Lock()
        self._waiting = threading.Lock()
        self._reported: dict[float, int | None] = {}
        self._counted: dict[float, float] = {}
        self._worked = 0.0

    @contextmanager
    def passage(self) -> Iterator[None]:
        """The time of one delivery. While the circuit of an earlier outage is open, one at a time tries."""
        if self._circuit is None:
            yield
        else:
            with self._probing:
                yield

    def flight(self) -> AbstractContextManager[None]:
        """The time of one request, from its first byte sent to the head of its answer."""
        return self.concurrency.slot(self._stop)

    def worked_since(self, moment: float) -> bool:
        """Whether the destination answered anything as it should after a moment of `time.monotonic()`."""
        return self._worked > moment

    def open_circuit(self, reason: str, began: float) -> bool:
        """The destination answered nobody of this process since `began` (`time.monotonic()`).

        Returns:
            Whether it is down: False if it answered another process meanwhile.
        """
        return self.ledger.open_circuit(self.use, reason, self.ledger.now() - (time.monotonic() - began))

    def grant(self, ask: Callable[[], Granted]) -> Granted:
        """Ask the ledger until there is a free place among the account's requests in flight.

        Raises:
            Stopped: Nobody wants it any more.
        """
        while True:
            try:
                return ask()
            except NoSlot:
                # One of the threads looks for a place at a time: many looking would hold up those that have one.
                with self._waiting:
                    if self._stop.wait(SLOT_WAIT):
                        raise Stopped from None

    def silenced(self) -> bool:
        """Whether the account has asked for silence."""
        return self.ledger.blocked(self.use.account) > 0

    def throttled(self, permit: Permit, wait: float | None) -> None:
        """Tell everybody."""
        self.ledger.refused(self.use, permit.serial, wait)

    def worked(self) -> None:
        """The destination is not down; a circuit that was open is closed."""
        self._worked = time.monotonic()
        circuit, self._circuit = self._circuit, None
        if circuit is not None:
            self.ledger.close_circuit(self.use.account, circuit.opened)

    def answered(self, response: Response, seconds: float) -> None:
        """Learn from an answer."""
        if response.status < 400:
            self.concurrency.answered(seconds)
        try:
            told = self._destination.usage(response)
        except Exception:  # noqa: BLE001 (an answer in an odd shape tells nothing of quotas)
            return
        for usage in told:
            self._learn(usage)

    def _learn(self, usage: Usage) -> None:
        if usage.seconds is None:
            # A quota of unknown length says something only when it is empty.
            if usage.remaining == 0 and usage.reset and not self.use.quotas:
                self.ledger.hold_back(self.use.account, usage.reset)
            return
        news = usage.limit is not None and self._reported.get(usage.seconds) != usage.limit
        counts = usage.seconds > PACED and usage.remaining is not None
        due = counts and time.monotonic() - self._counted.get(usage.seconds, 0.0) > COUNTED_EVERY
        if news or due:
            self._reported[usage.seconds] = usage.limit
            if counts:
                self._counted[usage.seconds] = time.monotonic()
            self.ledger.reported(self.use, usage.seconds, requests=usage.limit, remaining=usage.remaining)


class _GatePermits:
    """What is the same for all leave that a gate gives."""

    def __init__(self, gate: AccountGate) -> None:
        self._gate = gate
        self.silenced = gate.silenced
        self.throttled = gate.throttled
        self.answered = gate.answered
        self.worked = gate.worked
        self.flight = gate.flight


class BatchPermits(_GatePermits):
    """Leave for the requests of one recorded batch; each but the first renews its record.

    Args:
        granted: Whether the batch was just opened, so that its first request has leave already.
        timeout: Seconds after which a request can no longer take effect.
        lifetime: Seconds for which the destination remembers the batch's idempotency key; None: it has none.
    """

    def __init__(
        self,
        gate: AccountGate,
        record: OpenBatch,
        shard: ShardLease,
        timeout: float,
        *,
        granted: bool,
        lifetime: float | None = None,
    ) -> None:
        super().__init__(gate)
        self._record = record
        self._shard = shard
        self._timeout = timeout
        self._fresh = granted
        self._not_after = None if lifetime is None else record.opened + lifetime - timeout

    def ask(self) -> Permit:
        """Leave for the next request.

        Raises:
            LeaseLost, AlreadyClosed, CircuitOpen, QuotaSpent: See `Ledger.renew_batch`.
            Stopped: The destination may have forgotten the batch's key by the time it would be sent.
        """
        if not self._fresh:
            self._gate.grant(self._renew)
        self._fresh = False
        granted = self._record.granted
        if self._not_after is not None and self._record.send_before > self._not_after:
            raise Stopped
        return Permit(granted.delay, self._record.send_before, granted.serial)

    def _renew(self) -> Granted:
        self._gate.ledger.renew_batch(self._record, self._shard, timeout=self._timeout, use=self._gate.use)
        return self._record.granted

    def remember(self, reference: str) -> None:
        """Store it with the batch."""
        self._gate.ledger.remember(self._record, reference)


class LoosePermits(_GatePermits):
    """Leave for requests that change nothing and belong to no batch: who the account is, look-ups."""

    def ask(self) -> Permit:
        """Leave for the next request.

        Raises:
            CircuitOpen, QuotaSpent: See `Quotas.grant`.
        """
        granted = self._gate.ledger.grant(self._gate.use)
        return Permit(granted.delay, time.time() + granted.delay + 60.0, granted.serial)

    def remember(self, reference: str) -> None:
        """Never asked: what only reads has nothing to take up again."""
        raise AssertionError(reference)
