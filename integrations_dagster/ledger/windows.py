"""A published quota of a short window, as a pace. Pure: times come in as arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HEADROOM = 0.985
"""The share of a paced quota that is used: the rest is for requests that do not arrive as evenly as they are sent."""


@dataclass(frozen=True, slots=True)
class Window:
    """A short window: one request after the other (GCRA).

    After a window without requests a tenth of them may go at once, and for a window after those the others come a
    little slower, so that no window holds too many. What a writer missed is not caught up: it would come on top of a
    full window.

    Attributes:
        seconds: Length of the window.
        allowed: Requests in any such window.
        arrival: Theoretical arrival time of the next request, seconds since the epoch.
        started: When the last request went that did not have to wait its turn.
        credit: Requests that still do not have to.
    """

    seconds: float
    allowed: int
    arrival: float
    started: float
    credit: int

    @classmethod
    def of(cls, seconds: float, allowed: int, arrival: float, started: float, used: int, now: float) -> Window:
        """The window as it is now, from the columns of the ledger."""
        if now - arrival > seconds:
            return cls(seconds, allowed, now, now, allowed // 10)
        return cls(seconds, allowed, arrival, started, used)

    def earliest(self, at: float) -> float:
        """When the next request may be sent, at `at` or later."""
        return at if self.credit else max(at, self.arrival)

    def after(self, at: float) -> dict[str, Any]:
        """The columns of the window once a request was granted for `at`."""
        if self.credit:
            return {"arrival": at + self._interval(slower=True), "started": at, "used": self.credit - 1}
        slower = self.allowed >= 10 and at - self.started < self.seconds
        return {"arrival": at + self._interval(slower=slower), "started": self.started, "used": 0}

    def _interval(self, *, slower: bool) -> float:
        at_once = self.allowed // 10 if slower else 0
        return self.seconds / max(self.allowed * HEADROOM - at_once, 0.5)
