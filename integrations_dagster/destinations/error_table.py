"""A destination's error table: data that decides how to recover, and that its documentation is made from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from integrations_dagster.destinations.errors import DestinationError, Refused, Throttled, Unauthorized
from integrations_dagster.destinations.usage import date_of, epoch, number, reset_of, whole

LONGEST_WAIT = 900.0
"""Seconds beyond which an asked wait stops the run instead of keeping a run worker asleep."""
LONGEST_REASON = 300
"""Characters of a vendor's message that are kept."""


@dataclass(frozen=True, slots=True)
class ErrorEntry:
    """One line of an error table; the first that fits an answer decides.

    Attributes:
        status: HTTP status ("429"), or a class of them ("4xx").
        recovery: What to do, as an error class.
        meaning: What happened, as a sentence for a business user.
        remedy: What to do about it, as a sentence; "" where nothing has to be done.
        code: Regular expression that one of the answer's codes must match whole; "" fits any answer.
        message: Regular expression that the answer's message must contain; "" fits any answer.
        wait: For `Throttled`: seconds to wait where the answer does not say.
    """

    status: str
    recovery: type[DestinationError]
    meaning: str
    remedy: str = ""
    code: str = ""
    message: str = ""
    wait: float | None = None

    def fits(self, problem: Problem) -> bool:
        """Whether this line is about the answer."""
        status = str(problem.status)
        if self.status != status and (self.status[1:] != "xx" or self.status[0] != status[0]):
            return False
        if self.code and not any(re.fullmatch(self.code, code) for code in problem.codes):
            return False
        return not self.message or re.search(self.message, problem.message, re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True)
class Problem:
    """What an answer says of its failure.

    Attributes:
        status: HTTP status.
        codes: The vendor's codes, most specific first.
        message: The vendor's words, shortened, or "".
        names: Names the answer is about (properties, scopes).
        request_id: The vendor's id of the request.
        wait: Seconds the answer asks to wait, or None.
    """

    status: int
    codes: tuple[str, ...] = ()
    message: str = ""
    names: tuple[str, ...] = ()
    request_id: str = ""
    wait: float | None = None


def raise_for(table: Sequence[ErrorEntry], vendor: str, problem: Problem) -> None:
    """Raise what the table says of a failed answer.

    Args:
        table: Lines that together fit every status except 2xx.
        vendor: Who is quoted ("HubSpot").
        problem: The answer.

    Raises:
        DestinationError: The class of the first line that fits.
    """
    entry = next(entry for entry in table if entry.fits(problem))
    known = (*problem.names, *(() if problem.message else (f"status {problem.status}",)))
    names = f" ({', '.join(known)})" if known else ""
    said = closed(problem.message) if entry.remedy else problem.message
    quoted = f" {vendor} says: {said}" if said else ""
    reason = f"{entry.meaning.removesuffix('.')}{names}.{quoted}"
    code = problem.codes[0] if problem.codes else f"HTTP_{problem.status}"
    if entry.recovery is Throttled:
        wait = problem.wait if problem.wait is not None else entry.wait
        if wait is not None and wait > LONGEST_WAIT:
            remedy = f"Nothing is lost: launch the run again in {_duration(wait)}, and it delivers what is missing."
            raise Refused(reason, code, problem.request_id, remedy=remedy)
        raise Throttled(reason, code, problem.request_id, wait=wait)
    if entry.recovery is Refused:
        raise Refused(reason, code, problem.request_id, remedy=entry.remedy)
    if entry.recovery is Unauthorized:
        # This class carries no remedy of its own.
        reason = f"{reason} {entry.remedy}"
    raise entry.recovery(reason, code, problem.request_id)


def closed(text: str) -> str:
    """A vendor's words as a sentence that another may follow."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.0f} minutes"


def asked_wait(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that an answer's headers ask to wait, or None; never negative.

    Read in this order: `Retry-After` (seconds or a date), `X-RateLimit-Retry-After` (seconds), and, unless requests are
    said to remain, `X-RateLimit-Reset` (seconds from now, or since the epoch) and `RateLimit-Reset` (seconds). Dates
    and moments are read against the answer's own `Date` header: clocks of two machines need not agree.

    Args:
        headers: Header names in lower case.
        now: Seconds since the epoch, for answers without `Date`; without either, dates and moments say nothing.
    """
    moment = date_of(headers)
    moment = now if moment is None else moment
    asked = headers.get("retry-after", "").strip()
    if asked:
        wait = number(asked)
        if wait is None:
            until = epoch(asked)
            wait = None if until is None or moment is None else until - moment
        if wait is not None:
            return max(wait, 0.0)
    wait = number(headers.get("x-ratelimit-retry-after"))
    if wait is not None:
        return max(wait, 0.0)
    # Where requests remain, the reset is that of a window which is not the one that is used up.
    if not whole(headers.get("x-ratelimit-remaining")):
        wait = reset_of(headers.get("x-ratelimit-reset"), moment)
        if wait is not None:
            return wait
    if not whole(headers.get("ratelimit-remaining")):
        return reset_of(headers.get("ratelimit-reset"), moment)
    return None


def shorten(text: str, most: int = LONGEST_REASON) -> str:
    """One line of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


RECOVERIES: Mapping[str, str] = {
    "throttled": "waits as asked and sends the same request again",
    "unavailable": "tries again with growing pauses, then stops; the next run delivers what is missing",
    "unauthorized": "renews the credentials and tries again, then stops the run",
    "too_large": "splits the batch",
    "poisoned_batch": "halves the batch until the bad row is alone; that row is rejected, the others are delivered",
    "misconfigured": "stops the run at once",
}
"""What the delivery engine does, by `DestinationError.kind`."""


def markdown(table: Sequence[ErrorEntry]) -> Iterator[str]:
    """The table as the lines of a Markdown table."""
    yield "| answer | what it means | what the project does | what you do |"
    yield "|---|---|---|---|"
    for entry in table:
        also = [f"code `{entry.code}`"] if entry.code else []
        also += [f"message has `{entry.message}`"] if entry.message else []
        answer = ", ".join([entry.status, *also]).replace("|", "\\|")
        yield f"| {answer} | {entry.meaning} | {RECOVERIES[entry.recovery.kind]} | {entry.remedy or 'nothing'} |"
