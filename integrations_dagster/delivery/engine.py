"""Drives a flow: sends its requests, waits where the destination asks, retries outages, and hands it the answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import tenacity

from integrations_dagster.delivery.credentials import Credentials, Grant
from integrations_dagster.delivery.exchange import Exchange
from integrations_dagster.delivery.permits import Departure, Permit, Permits, Stopped, TooLate
from integrations_dagster.delivery.transports.registry import Session
from integrations_dagster.delivery.transports.unanswered import NotSent
from integrations_dagster.destinations.base import Destination, Flow, Pause, Remember, Repeat, Request, Response
from integrations_dagster.destinations.errors import (
    DestinationError,
    Refused,
    Throttled,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.vocabulary import IntegrationsError, Traffic

T = TypeVar("T")

RENEWALS = 12
"""Refusals of its credentials in a row that a request survives: a token may be used up by others before it arrives."""
UNKNOWN_WAIT = 1.0
"""Seconds to wait for a token endpoint that throttles and does not say how long."""
RECHECK = 0.05
"""Seconds of waiting after which leave to send is asked for again if the account was silenced meanwhile."""


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
        repeat: Whether the flow's requests may be sent again when what they did is unknown.
        stop: When set, nothing new is sent.
        shard, batch, keys: What the exchanges are about, for the request log.
        traffic: What it cost so far.
        exchanges: Requests and answers, for the request log.
        lost: Whether the answer to a request that changes something was lost.
        begun: Whether the flow went on after the answer to a request that changes something: it has taken effect,
            wholly or in part.
        resumable: Whether `start` goes on with remembered work instead of sending rows again.
        quiet_until: When such a request can no longer take effect (seconds since the epoch); 0 if there is none.
    """

    session: Session
    destination: Destination
    credentials: Credentials
    permits: Permits
    repeat: Repeat
    stop: threading.Event
    settings: RetrySettings = field(default_factory=RetrySettings)
    shard: int = -1
    batch: str = ""
    keys: tuple[str, ...] = ()
    traffic: Traffic = field(default_factory=Traffic)
    exchanges: list[Exchange] = field(default_factory=list)
    lost: bool = False
    begun: bool = False
    resumable: bool = False
    quiet_until: float = 0.0
    _begun_until: float = 0.0
    _failures: int = 0
    _restarts: int = 0
    _refusals: int = 0
    _sent: float = 0.0
    _token_wait: float = 0.0
    _throttled_since: float | None = None

    @property
    def unknown(self) -> bool:
        """Whether the flow may have had an effect that no result tells."""
        return self.lost or self.begun

    @property
    def silence(self) -> float:
        """When nothing of a flow that is given up can take effect any more (seconds since the epoch)."""
        return max(self.quiet_until, self._begun_until)

    def run(self, start: Callable[[], Flow[T]]) -> T:
        """Drive the flow that `start` makes to its result. `start` is called again where an answer was unreadable.

        Raises:
            DestinationError: A class that retrying does not mend, or that it did not.
            Stopped: `stop` was set before the flow was through.
            LeaseLost, CircuitOpen, QuotaSpent and others: From `permits`.
        """
        if self.lost and self.repeat is Repeat.WHEN_QUIET:
            # What an attempt that died has sent may still create what the look-up would not find.
            self.sleep(max(self.quiet_until - time.time(), 0.0))
        walk = _Walk(self, start)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_retry), wait=self._wait, sleep=self.sleep, reraise=True
        )
        return retrying(walk.advance)

    def send(self, request: Request) -> Response:
        """Send one request as soon as the account allows."""
        while True:
            permit, grant = self._permit()
            departure = Departure(self.permits, permit, self.stop)
            try:
                return self._exchange(request, permit, grant, departure)
            except TooLate:
                continue

    def _exchange(self, request: Request, permit: Permit, grant: Grant, departure: Departure) -> Response:
        response: Response | None = None
        error: DestinationError | None = None
        try:
            response = self.session.send(self._signed(request, grant), grant, departure)
            self.permits.answered(response, time.monotonic() - departure.started)
            with _readable(self.destination.label):
                self.destination.classify(request, response)
        except DestinationError as raised:
            error = raised
            self._failed(raised, request, departure.at)
            if isinstance(raised, Throttled):
                self.permits.throttled(permit, raised.wait)
            elif isinstance(raised, Unauthorized):
                self._renew(grant)
            raise
        finally:
            if departure.gone or error is not None:
                self.traffic.requests += 1
                self.traffic.bytes += len(request.body or b"")
                milliseconds = round((time.monotonic() - departure.started) * 1000)
                self.traffic.latencies_ms.append(milliseconds)
                self._note(departure.at, request, response, error, milliseconds)
        self._sent = departure.at
        return response

    def _permit(self) -> tuple[Permit, Grant]:
        while True:
            if self.stop.is_set():
                raise Stopped
            permit = self.permits.ask()
            if permit.delay > 0:
                self.sleep(permit.delay)
            # Only now: a token may expire while its request waits for its turn.
            grant = self._grant()
            # The process may have slept between leave and sending; and the account may have been silenced meanwhile.
            if time.time() <= permit.send_before and not (permit.delay > RECHECK and self.permits.silenced()):
                return permit, grant

    def _grant(self) -> Grant:
        try:
            return self.credentials.grant()
        except Throttled as error:
            # The ledger knows nothing of the token endpoint's limits.
            self._token_wait = UNKNOWN_WAIT if error.wait is None else error.wait
            raise
        except (DestinationError, IntegrationsError):
            raise
        except Exception as error:  # noqa: BLE001 (a key in a form that its library does not take, for one)
            reason = f"The credentials cannot be used ({type(error).__name__})."
            raise Refused(reason, "INVALID_CREDENTIALS", remedy="Check `auth` of the target.") from None

    def _failed(self, error: DestinationError, request: Request, at: float) -> None:
        self.traffic.errors[error.kind] = self.traffic.errors.get(error.kind, 0) + 1
        if isinstance(error, Throttled):
            self.traffic.throttled += 1
        elif isinstance(error, Unavailable) and not isinstance(error, NotSent) and not request.changes_nothing:
            self.lost = True
            self.quiet_until = max(self.quiet_until, at + self.session.timeout + self.destination.settles)

    def _renew(self, grant: Grant) -> None:
        self._refusals += 1
        try:
            if self.credentials.renew(grant):
                return
        except Throttled as error:
            self._token_wait = UNKNOWN_WAIT if error.wait is None else error.wait
            return
        if self._refusals > 1:
            # Credentials may reach a vendor's servers one after the other; a second refusal is final.
            self._refusals = RENEWALS

    def _note(
        self,
        at: float,
        request: Request,
        response: Response | None,
        error: DestinationError | None,
        milliseconds: int,
    ) -> None:
        self.exchanges.append(
            Exchange(
                at=at,
                shard=self.shard,
                batch=self.batch,
                attempt=self.traffic.requests,
                method=request.method,
                path=request.path.partition("?")[0],
                keys=self.keys,
                status=response.status if response else None,
                error=f"{error.kind} {error.code}".strip() if error else "",
                milliseconds=milliseconds,
                request_id=self._request_id(response),
                sent=len(request.body or b""),
                received=len(response.body) if response else 0,
                request=request.body or b"",
                response=response.body if response else b"",
            )
        )

    def _signed(self, request: Request, grant: Grant) -> Request:
        try:
            signed = self.destination.sign(request)
            return self.destination.carry(signed, grant.token) if grant.token else signed
        except Exception as error:  # noqa: BLE001 (whatever it is, no request can be made)
            reason = f"The request could not be signed ({type(error).__name__})."
            raise Refused(reason, "INVALID_REQUEST", remedy="Check the secret of the target.") from None

    def _request_id(self, response: Response | None) -> str:
        # Only for people: an answer in an odd shape has none.
        with suppress(Exception):
            return self.destination.request_id(response) if response else ""
        return ""

    def _may_retry(self, error: BaseException) -> bool:
        if isinstance(error, Throttled):
            if self._throttled_since is None:
                self._throttled_since = time.monotonic()
            return time.monotonic() - self._throttled_since < self.settings.patience
        if isinstance(error, Unauthorized):
            return self._refusals < RENEWALS
        if not isinstance(error, Unavailable):
            return False
        self._failures += 1
        if self._failures >= self.settings.attempts:
            return False
        if self.lost and self.repeat is Repeat.NEVER:
            return False
        self.traffic.retries += 1
        return True

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if not isinstance(error, Unavailable):
            # Leave to send brings the wait that the account asked for.
            wait, self._token_wait = self._token_wait, 0.0
            return wait
        backoff = tenacity.wait_exponential_jitter(
            multiplier=self.settings.base, max=self.settings.cap, jitter=self.settings.base
        )
        state.attempt_number = max(1, self._failures)
        pause: float = backoff(state)
        if self.repeat is Repeat.WHEN_QUIET:
            pause = max(pause, self.quiet_until - time.time())
        return pause

    def sleep(self, seconds: float) -> None:
        """Wait, unless there is nothing to wait for any more.

        Raises:
            Stopped: `stop` was set.
        """
        if self.stop.wait(seconds):
            raise Stopped

    def went_on(self, step: Request | Remember | Pause | None) -> None:
        """The flow has read the answer to a step and goes on: what failed before is over."""
        if isinstance(step, Request):
            # Not those that made the flow start again, or it might do so for ever.
            self._failures = self._restarts
            self._refusals = 0
            self._throttled_since = None
            self.permits.worked()
            if not step.changes_nothing:
                self.begun = True
                self._begun_until = self._sent + self.session.timeout + self.destination.settles
        elif isinstance(step, Remember):
            self.resumable = True

    def looks_again(self, error: Unavailable, step: Request | Remember | Pause | None) -> bool:
        """Whether a flow whose request has no answer starts again, with its look-up, instead of repeating that."""
        if self.repeat is not Repeat.WHEN_QUIET or isinstance(error, NotSent):
            return False
        if not isinstance(step, Request) or step.changes_nothing:
            return False
        self._restarts += 1
        return True

    def restarted(self, error: Unavailable, step: Request | Remember | Pause | None) -> None:
        """The flow could not read an answer, and starts again."""
        self._restarts += 1
        if isinstance(step, Request):
            self._failed(error, step, self._sent)
        # What was begun and cannot be taken up again by name would be done twice.
        self.lost |= self.begun and not self.resumable


class _Walk(Generic[T]):
    """A flow under way: where it is, so that a retry repeats the request that failed and not those before it."""

    def __init__(self, drive: Drive, start: Callable[[], Flow[T]]) -> None:
        self._drive = drive
        self._start = start
        self._flow: Flow[T] | None = None
        self._step: Request | Remember | Pause | None = None

    def advance(self) -> T:
        """Go on to the end of the flow."""
        try:
            if self._flow is None:
                self._flow = self._start()
                self._step = next(self._flow)
            while True:
                try:
                    response, taken = self._take(), self._step
                except Unavailable as error:
                    if self._drive.looks_again(error, self._step):
                        self._flow = None
                    raise
                try:
                    with _readable(self._drive.destination.label):
                        self._step = self._flow.send(response)
                except Unavailable as error:
                    # An answer that the flow could not read has ended its generator: the whole flow starts again.
                    self._flow = None
                    self._drive.restarted(error, taken)
                    raise
                self._drive.went_on(taken)
        except StopIteration as end:
            self._drive.permits.worked()
            result: T = end.value
            return result

    def _take(self) -> Response:
        step = self._step
        if isinstance(step, Remember):
            self._drive.permits.remember(step.reference)
        elif isinstance(step, Pause):
            self._drive.sleep(step.seconds)
        elif step is not None:
            return self._drive.send(step)
        return Response(0)


@contextmanager
def _readable(label: str) -> Iterator[None]:
    """An answer in a shape that the destination's code does not expect is one that cannot be read."""
    try:
        yield
    except (DestinationError, IntegrationsError, StopIteration):
        raise
    except Exception as error:
        reason = f"{label} answered in a shape that cannot be read ({type(error).__name__})."
        raise Unavailable(reason, "UNREADABLE_ANSWER") from error


def refusal(label: str, error: DestinationError) -> str:
    """A sentence for what no retry mends, with the remedy where the error table has one."""
    remedy = error.remedy if isinstance(error, Refused) else ""
    request = f" (request {error.request_id})" if error.request_id else ""
    return f"{label} refused the request: {error.reason}{request} {remedy}".strip()
