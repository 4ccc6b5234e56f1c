"""A rolling-window request quota, answered as HubSpot answers."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from integrations_dagster.sandbox.answers import HubSpotError

DEFAULT: dict[str, Any] = {"limit": 1000, "window": 1, "retry_after": False}
_DAILY = 1_000_000


class Quota:
    """At most `limit` requests in any `window` seconds; refused ones do not count.

    Args:
        settings: `limit` (requests), `window` (seconds), and `retry_after` (whether a 429 says how long to wait).

    Raises:
        ValueError: What is wrong with the settings.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        unknown = sorted(set(settings) - set(DEFAULT))
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is no setting of a quota; known: {', '.join(DEFAULT)}.")
        merged = DEFAULT | dict(settings)
        self.limit, self.window = int(merged["limit"]), float(merged["window"])
        if self.limit < 1 or self.window <= 0:
            raise ValueError("A quota needs a limit of at least 1 request and a window of more than 0 seconds.")
        self._retry_after = bool(merged["retry_after"])
        self._taken: deque[float] = deque()
        self._total = 0

    def take(self) -> None:
        """Count a request.

        Raises:
            HubSpotError: 429.
        """
        now = time.monotonic()
        taken = self._taken
        while taken and taken[0] <= now - self.window:
            taken.popleft()
        if len(taken) >= self.limit:
            headers = dict(self.headers())
            if self._retry_after:
                headers["Retry-After"] = str(max(1, math.ceil(taken[0] + self.window - now)))
            raise HubSpotError(
                429,
                "RATE_LIMITS",
                f"You have reached your {self._policy.lower()} limit.",
                extra={"errorType": "RATE_LIMIT", "policyName": self._policy},
                headers=headers,
            )
        taken.append(now)
        self._total += 1

    @property
    def _policy(self) -> str:
        return "SECONDLY" if self.window <= 1 else "TEN_SECONDLY_ROLLING"

    def headers(self) -> dict[str, str]:
        """HubSpot's rate limit headers, as things are now."""
        limit, left = str(self.limit), str(self.limit - len(self._taken))
        return {
            "X-HubSpot-RateLimit-Daily": str(_DAILY),
            "X-HubSpot-RateLimit-Daily-Remaining": str(max(0, _DAILY - self._total)),
            "X-HubSpot-RateLimit-Interval-Milliseconds": str(int(self.window * 1000)),
            "X-HubSpot-RateLimit-Max": limit,
            "X-HubSpot-RateLimit-Remaining": left,
        }
