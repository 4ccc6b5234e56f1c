"""Request quotas of rolling windows and a cap on concurrent requests, and how a refusal says when to come back."""

from __future__ import annotations

import math
import time
from array import array
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

DEFAULT: Mapping[str, Any] = {"limit": 1000, "window": 1}
STYLES = ("none", "retry_after", "retry_after_date", "x_ratelimit_retry_after", "x_ratelimit_reset")
DAY = 86_400.0


class Window:
    """At most `limit` requests in any `window` seconds."""

    def __init__(self, limit: int, window: float) -> None:
        self.limit, self.window = limit, window
        self._taken: deque[float] = deque()

    @property
    def name(self) -> str:
        return f"{self.limit} requests per {self.window:g} s"

    def left(self, now: float) -> int:
        """Requests that would be taken now."""
        taken = self._taken
        while taken and taken[0] <= now - self.window:
            taken.popleft()
        return self.limit - len(taken)

    def reset(self, now: float) -> float:
        """Seconds until another request would be taken, if none would now; else until the oldest is forgotten."""
        return max(0.0, self._taken[0] + self.window - now) if self._taken else 0.0

    def take(self, now: float) -> None:
        """Count a request."""
        self._taken.append(now)


@dataclass(frozen=True, slots=True)
class Over:
    """Why a request is refused.

    Attributes:
        name: The limit, for a person.
        window: Seconds of the window, or None for the cap on concurrent requests.
        wait: Seconds until a request would be taken, or None where nobody can say.
    """

    name: str
    window: float | None
    wait: float | None


class Quotas:
    """Several windows that hold at once, and a cap on concurrent requests. Refused requests do not count.

    Args:
        windows: Each with `limit` (requests) and `window` (seconds); at least one.
        concurrency: Requests under way at once, or None.
        style: How a 429 says when to come back, one of `STYLES`.

    Raises:
        ValueError: What is wrong with the settings.
    """

    def __init__(
        self, windows: Sequence[Mapping[str, Any]] = (DEFAULT,), concurrency: int | None = None, style: str = "none"
    ) -> None:
        for window in windows:
            unknown = sorted(set(window) - {"limit", "window", "retry_after"})
            if unknown:
                raise ValueError(f"{', '.join(unknown)} is no setting of a quota; known: limit, window, retry_after.")
        self.windows = [Window(int(w.get("limit", 1000)), float(w.get("window", 1))) for w in windows]
        if not self.windows or any(w.limit < 1 or not 0 < w.window < math.inf for w in self.windows):
            raise ValueError("A quota needs a limit of at least 1 request and a window of more than 0 seconds.")
        if style not in STYLES:
            raise ValueError(f"{style!r} is no retry_style; known: {', '.join(STYLES)}.")
        if concurrency is not None and concurrency < 1:
            raise ValueError("concurrency is at least 1, or None.")
        self.concurrency = concurrency
        self.style = "retry_after" if style == "none" and any(w.get("retry_after") for w in windows) else style
        self.accepted = array("d")
        """Times of the accepted requests, in seconds since the epoch."""
        self.throttled: Counter[str] = Counter()
        """Refused requests, by the limit that they were over."""
        self.in_flight = 0
        self.most_in_flight = 0

    def enter(self) -> Over | None:
        """Take a request, which is under way until `leave`; or say why not."""
        over = self._over(time.monotonic())
        if over is not None:
            self.throttled[over.name] += 1
            return over
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        now = time.monotonic()
        for window in self.windows:
            window.take(now)
        self.accepted.append(time.time())
        return None

    def leave(self) -> None:
        """A request that was taken has ended."""
        self.in_flight -= 1

    def _over(self, now: float) -> Over | None:
        if self.concurrency is not None and self.in_flight >= self.concurrency:
            return Over(f"{self.concurrency} concurrent requests", None, None)
        full = [window for window in self.windows if window.left(now) <= 0]
        if not full:
            return None
        last = max(full, key=lambda window: window.reset(now))
        return Over(last.name, last.window, last.reset(now))

    def retry_headers(self, over: Over) -> dict[str, str]:
        """What a 429 says of when to come back, in the style that is set."""
        if over.wait is None or self.style == "none":
            return {}
        seconds = max(1, math.ceil(over.wait))
        until = math.ceil(time.time() + over.wait)
        if self.style == "retry_after":
            return {"Retry-After": str(seconds)}
        if self.style == "retry_after_date":
            return {"Retry-After": format_datetime(datetime.fromtimestamp(until, UTC), usegmt=True)}
        if self.style == "x_ratelimit_retry_after":
            return {"X-Ratelimit-Retry-After": str(seconds)}
        return {"X-RateLimit-Reset": str(until)}

    def tightest(self, windows: Sequence[Window] | None = None) -> Window:
        """The window with the smallest share left."""
        now = time.monotonic()
        return min(windows or self.windows, key=lambda window: window.left(now) / window.limit)

    def day(self) -> tuple[int, int] | None:
        """Requests used and allowed of the window of a day; None where none is configured."""
        now = time.monotonic()
        for window in self.windows:
            if window.window >= DAY:
                return window.limit - max(0, window.left(now)), window.limit
        return None

    def headers(self) -> dict[str, str]:
        """`RateLimit-*` headers (IETF draft): the window with the least left, and all windows as the policy."""
        now = time.monotonic()
        window = self.tightest()
        return {
            "RateLimit-Limit": str(window.limit),
            "RateLimit-Remaining": str(max(0, window.left(now))),
            "RateLimit-Reset": str(math.ceil(window.reset(now))),
            "RateLimit-Policy": ", ".join(f"{w.limit};w={w.window:g}" for w in self.windows),
        }

    def as_dict(self) -> dict[str, Any]:
        """The settings as `configure` takes them; one window as one mapping."""
        windows = [{"limit": window.limit, "window": window.window} for window in self.windows]
        return {
            "quota": windows[0] if len(windows) == 1 else windows,
            "concurrency": self.concurrency,
            "retry_style": self.style,
        }

    def stats(self) -> dict[str, Any]:
        """Counts since the quota was last configured."""
        return {
            "accepted": len(self.accepted),
            "throttled": self.throttled.total(),
            "throttled_by": dict(self.throttled),
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
        }

    def accepted_page(self, after: int, limit: int) -> list[float]:
        """Times of accepted requests, from the `after`-th on."""
        return list(self.accepted[after : after + limit])
