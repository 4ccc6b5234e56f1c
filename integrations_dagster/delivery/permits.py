"""Leave to send a request, and its way from there to the head of its answer."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from integrations_dagster.destinations.base import Response


class Stopped(Exception):
    """The run is being cancelled, or has given up: nothing new is sent."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one request.

    Attributes:
        delay: Seconds from now until it may be sent.
        send_before: Latest moment of sending, seconds since the epoch.
        serial: See `ledger.quotas.Granted`.
    """

    delay: float
    send_before: float
    serial: int = 0


class Permits(Protocol):
    """Gives leave to send, and is told what answers say of the account."""

    def ask(self) -> Permit:
        """Leave to send the next request; raises where sending is not allowed any more."""
        ...

    def flight(self) -> AbstractContextManager[None]:
        """Waits for a place among the requests in flight, and keeps it until the head of the answer is there."""
        ...

    def silenced(self) -> bool:
        """Whether the account asked for silence after leave was given."""
        ...

    def throttled(self, permit: Permit, wait: float | None) -> None:
        """The request was throttled; whoever asks next is told to wait."""
        ...

    def answered(self, response: Response, seconds: float) -> None:
        """An answer came, of whatever kind, so many seconds after its request."""
        ...

    def worked(self) -> None:
        """The destination did what it is for: it is not down."""
        ...

    def remember(self, reference: str) -> None:
        """The flow's work goes on at the destination under this name."""
        ...


class TooLate(Exception):
    """The place among the requests in flight came later than leave to send holds."""


class Departure:
    """The way of one request from its place among those in flight to the head of its answer.

    Attributes:
        at: When it left, seconds since the epoch; until then, when it was made ready.
        started: The same by `time.monotonic()`.
        gone: Whether it left.
    """

    def __init__(self, permits: Permits, permit: Permit, stop: threading.Event) -> None:
        self._flight = permits.flight()
        self._permit = permit
        self._stop = stop
        self.at, self.started = time.time(), time.monotonic()
        self.gone = False

    def __enter__(self) -> None:
        self._flight.__enter__()
        self.at, self.started = time.time(), time.monotonic()
        # Its turn may have come late.
        if self._stop.is_set() or self.at > self._permit.send_before:
            self._flight.__exit__(None, None, None)
            raise Stopped if self._stop.is_set() else TooLate
        self.gone = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._flight.__exit__(kind, error, trace)
