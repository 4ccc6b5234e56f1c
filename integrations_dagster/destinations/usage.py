"""What answers say of quotas, in the headers that many APIs share; nothing here raises for what a header may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from integrations_dagster.destinations.base import Usage

_MOMENT = 1e8
"""A reset from this on (three years in seconds) is a moment since the epoch, a smaller one a time from now."""
_MILLISECONDS = 1e11
"""A moment from this on is counted in milliseconds."""
_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?", re.ASCII)
_WHOLE = re.compile(r"\d{1,18}", re.ASCII)
_POLICY = re.compile(r"(\d{1,18})\s*;[^,]*?\bw=(\d{1,9}(?:\.\d{1,9})?)", re.ASCII)


def number(text: str | None) -> float | None:
    """A plain decimal number, or None."""
    text = (text or "").strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def whole(text: str | None) -> int | None:
    """The number, 0 or more, that a header begins with ("100", "100, 100;w=10"), or None."""
    found = _WHOLE.match((text or "").strip())
    return int(found.group()) if found else None


def epoch(text: str | None) -> float | None:
    """An HTTP date as seconds since the epoch, or None."""
    try:
        moment = parsedate_to_datetime((text or "").strip())
        # A date without a zone is no HTTP date, and would be read in this machine's.
        return None if moment.tzinfo is None else moment.timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def date_of(headers: Mapping[str, str]) -> float | None:
    """When the answer was made, by its own clock: seconds since the epoch, or None."""
    return epoch(headers.get("date"))


def reset_of(text: str | None, now: float | None) -> float | None:
    """Seconds until a window ends, 0 or more, from a header that counts from now or from the epoch; None: unknown."""
    value = number(text)
    if value is None:
        return None
    if value >= _MOMENT:
        if now is None:
            return None
        value = (value / 1000 if value >= _MILLISECONDS else value) - now
    return max(value, 0.0)


def usage(headers: Mapping[str, str], now: float | None = None) -> tuple[Usage, ...]:
    """What `RateLimit-*` (IETF draft) and `X-RateLimit-*` tell, one entry for each of the two that is there.

    Args:
        headers: Header names in lower case.
        now: Seconds since the epoch, for answers without `Date`.
    """
    moment = date_of(headers)
    moment = now if moment is None else moment
    found = []
    for prefix in ("ratelimit-", "x-ratelimit-"):
        limit = whole(headers.get(f"{prefix}limit")) or None
        remaining = whole(headers.get(f"{prefix}remaining"))
        reset = reset_of(headers.get(f"{prefix}reset"), moment)
        if limit is not None or remaining is not None:
            found.append(Usage(_window(headers, prefix, limit), limit, remaining, reset))
    return tuple(found)


def _window(headers: Mapping[str, str], prefix: str, limit: int | None) -> float | None:
    """The window of the limit, from `RateLimit-Policy: 100;w=10` or the same within `RateLimit-Limit`."""
    policy = f"{headers.get(f'{prefix}limit', '')}, {headers.get(f'{prefix}policy', '')}"
    windows = {float(seconds) for requests, seconds in _POLICY.findall(policy) if int(requests) == limit}
    windows.discard(0.0)
    return windows.pop() if len(windows) == 1 else None
