"""Drives a flow: sends its requests, waits where the destination asks, retries outages, and hands it the answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import tenacity

from integrations_dagster.delivery.session import HttpSession, NotSent
from integrations_dagster.destinations.base import Destination, Flow, Request, Response
from integrations_dagster.destinations.errors import (
    DestinationError,
    Throttled,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.vocabulary import Traffic

T = TypeVar("T")

UNKNOWN_THROTTLE_WAIT = 1.0
"""Seconds to wait where a destination throttles and does not say how long."""


class Stopped(Exception):
    """The run is being cancelled, or has given up: nothing new is sent."""


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How long to try.

    Attributes:
        attempts: Attempts at a request that meets an outage.
        base: Seconds before the first retry; doubled, with jitter, for each further one.
        cap: Seconds between two attempts at the most.
        patience: Seconds that one request may spend waiting because it was throttled.
    """

    attempts: int = 5
    base: float = 0.5
    cap: float = 15.0
    patience: float = 900.0


@dataclass(slots=True)
class Drive:
    """The driving of one flow.

    Attributes:
        permit: Called before each request with whether it is the first; raises where sending is not allowed any more,
            and returns the latest moment of sending (`time.time()`).
        repeatable: Whether the flow's requests may be sent again when what they did is unknown.
        stop: When set, nothing new is sent.
        traffic: What it cost so far.
        touched: Whether a request may have had an effect that no answer tells.
        quiet_until: When such a request can no longer take effect (seconds since the epoch); 0 if there is none.
    """

    session: HttpSession
    destination: Destination
    permit: Callable[[bool], float]
    repeatable: bool
    stop: threading.Event
    settings: RetrySettings = field(default_factory=RetrySettings)
    traffic: Traffic = field(default_factory=Traffic)
    touched: bool = False
    quiet_until: float = 0.0
    _failures: int = 0
    _waited: float = 0.0
    _sent: float = 0.0
    _refreshed: bool = False

    def run(self, start: Callable[[], Flow[T]]) -> T:
        """Drive the flow that `start` makes to its result.

        Raises:
            DestinationError: A class that retrying does not mend, or that it did not.
            Stopped: `stop` was set before the flow was through.
            LeaseLost: From `permit`.
        """
        walk = _Walk(self, start)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_retry), wait=self._wait, sleep=self._sleep, reraise=True
        )
        return retrying(walk.advance)

    def _send(self, request: Request) -> Response:
        if self.stop.is_set():
            raise Stopped
        send_before = self.permit(self.traffic.requests == 0)
        if time.time() > send_before:
            # The process slept between the record and the sending; ask again, with a new deadline.
            send_before = self.permit(False)
        started = time.monotonic()
        self._sent = time.time()
        self.traffic.requests += 1
        self.traffic.bytes += len(request.body or b"")
        try:
            response = self.session.send(self.destination.sign(request))
            self.destination.classify(request, response)
        except DestinationError as error:
            self._failed(error)
            raise
        finally:
            self.traffic.latencies_ms.append(round((time.monotonic() - started) * 1000))
        return response

    def _failed(self, error: DestinationError) -> None:
        self.traffic.errors[error.kind] = self.traffic.errors.get(error.kind, 0) + 1
        if isinstance(error, Throttled):
            self.traffic.throttled += 1
        elif isinstance(error, Unavailable) and not isinstance(error, NotSent):
            self.touched = True
            self.quiet_until = max(self.quiet_until, self._sent + self.session.timeout)

    def _may_retry(self, error: BaseException) -> bool:
        if isinstance(error, Throttled):
            return self._waited < self.settings.patience
        if isinstance(error, Unauthorized) and not self._refreshed:
            # Credentials may reach a vendor's servers one after the other; a second refusal is final.
            self._refreshed = True
            return True
        if not isinstance(error, Unavailable):
            return False
        self._failures += 1
        if self._failures >= self.settings.attempts or (self.touched and not self.repeatable):
            return False
        self.traffic.retries += 1
        return True

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Throttled):
            wait = UNKNOWN_THROTTLE_WAIT if error.wait is None else error.wait
            self._waited += max(wait, 0.05)
            return max(wait, 0.05)
        if isinstance(error, Unauthorized):
            return 0.0
        backoff = tenacity.wait_exponential_jitter(
            multiplier=self.settings.base, max=self.settings.cap, jitter=self.settings.base
        )
        return backoff(state)

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Stopped


class _Walk(Generic[T]):
    """A flow under way: where it is, so that a retry repeats the request that failed and not those before it."""

    def __init__(self, drive: Drive, start: Callable[[], Flow[T]]) -> None:
        self._drive = drive
        self._start = start
        self._flow: Flow[T] | None = None
        self._request: Request | None = None

    def advance(self) -> T:
        """Go on to the end of the flow."""
        try:
            if self._flow is None or self._request is None:
                self._flow = self._start()
                self._request = next(self._flow)
            while True:
                response = self._drive._send(self._request)
                try:
                    self._request = self._flow.send(response)
                except Unavailable as error:
                    # An answer that the flow could not read has ended its generator: the whole flow starts again.
                    self._flow = None
                    self._drive._failed(error)
                    raise
        except StopIteration as end:
            result: T = end.value
            return result
