"""What errors of calls mean: the lines that YAML gives, then those of the protocols, then the HTTP statuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from integrations_dagster.destinations.answers import Meaning, Told
from integrations_dagster.destinations.error_table import ErrorEntry, Problem, raise_for
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    Refused,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.destinations.rpc.forms import ErrorKeys

_ROW: dict[str, Meaning] = {"rejected": Meaning.REJECTED, "missing": Meaning.MISSING, "ignored": Meaning.IGNORED}
_WHOLE: dict[str, type[DestinationError]] = {
    "throttled": Throttled,
    "unavailable": Unavailable,
    "unauthorized": Unauthorized,
    "too_large": TooLarge,
    "misconfigured": Refused,
}
_TEXTS: dict[str, str] = {
    "throttled": "The API asks to be sent less.",
    "unavailable": "The API is out of order.",
    "unauthorized": "The API does not accept the credentials.",
    "too_large": "The request is larger than the API takes.",
    "misconfigured": "The API refused the call.",
    "rejected": "The API refused the row.",
    "missing": "The record is not there.",
    "ignored": "What was wanted is so already.",
}
_METHOD = "Check `method` and `params` in `api` of the destination against the API's documentation."

CODES: tuple[ErrorEntry, ...] = (
    ErrorEntry("", Refused, "The API could not read the request.", _METHOD, code="-32700|-32701|-32702"),
    ErrorEntry("", Refused, "The API takes no such request.", _METHOD, code="-32600"),
    ErrorEntry("", Refused, "The API has no such method.", _METHOD, code="-32601"),
    ErrorEntry("", PoisonedBatch, "The API refused the parameters of the call.", code="-32602"),
    ErrorEntry("", Unavailable, "The API failed within.", code="-32603"),
)
"""Codes that both protocols reserve: JSON-RPC 2.0, section 5.1 (jsonrpc.org), and the "Specification for Fault Code
Interoperability" of XML-RPC (xmlrpc-epi.sourceforge.net), which has the same numbers. `status` "" fits any."""

STATUSES: tuple[ErrorEntry, ...] = (
    ErrorEntry(
        "401",
        Unauthorized,
        "The API does not accept the credentials.",
        "Check `auth` and `secret` of the target.",
    ),
    ErrorEntry(
        "403", Refused, "The API does not allow the call.", "Check what the user may do there, and `method` in `api`."
    ),
    ErrorEntry("404", Refused, "There is nothing at this URL.", "Check `base_url` of the target and `api.path`."),
    ErrorEntry("413", TooLarge, "The request is larger than the API takes."),
    ErrorEntry("429", Throttled, "The API asks to be sent less."),
    ErrorEntry("408", Unavailable, "The API did not get the request in time."),
    ErrorEntry(
        "4xx",
        Refused,
        "The API refused the request.",
        "If this is about single rows, add a line to `api.errors` of the destination that says so.",
    ),
    ErrorEntry("5xx", Unavailable, "The API is out of order."),
    ErrorEntry(
        "3xx",
        Refused,
        "The URL answers with a redirect, which is not followed.",
        "Set `base_url` to the URL that the redirect names.",
    ),
    ErrorEntry(
        "2xx",
        Unavailable,
        "The call failed with an error that `api.errors` of the destination does not list, so that what it did is "
        "unknown.",
        code=".*",
    ),
    ErrorEntry("2xx", Unavailable, "The answer cannot be understood."),
    ErrorEntry("1xx", Unavailable, "The answer cannot be understood."),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that a call was answered with.

    Attributes:
        code: The API's code, or "".
        message: Its words, shortened, or "".
    """

    code: str
    message: str


class ErrorLines:
    """The error table of one destination.

    Args:
        given: What YAML says, in order.
        label: Who is quoted.
    """

    def __init__(self, given: Sequence[ErrorKeys], label: str) -> None:
        self._label = label
        self._lines: list[tuple[ErrorEntry, Meaning | None]] = []
        for keys in given:
            entry = ErrorEntry(
                keys.status or "",
                _WHOLE.get(keys.as_, PoisonedBatch),
                keys.says or _TEXTS[keys.as_],
                keys.fix,
                keys.code or "",
                keys.message or "",
                keys.wait,
            )
            self._add(entry, _ROW.get(keys.as_))
        for entry in CODES:
            self._add(entry, Meaning.REJECTED if entry.recovery is PoisonedBatch else None)
        self._lines += [(entry, None) for entry in STATUSES]

    def _add(self, entry: ErrorEntry, meaning: Meaning | None) -> None:
        statuses = [entry.status] if entry.status else ["2xx", "4xx", "5xx"]
        self._lines += [(replace(entry, status=status), meaning) for status in statuses]

    def of_row(self, problem: Problem) -> Meaning | None:
        """What becomes of the row that is at fault; None where the call as a whole is."""
        return self._find(problem)[1]

    def unknown(self, problem: Problem) -> bool:
        """Whether what the call did is unknown."""
        return self._find(problem)[0].recovery is Unavailable

    def raise_for(self, problem: Problem) -> None:
        """Raise what the table says.

        Raises:
            DestinationError: The class of the first line that fits.
        """
        raise_for([self._find(problem)[0]], self._label, problem)

    def recovery(self, problem: Problem) -> type[DestinationError]:
        """What to do about it."""
        return self._find(problem)[0].recovery

    def meaning(self, told: Told, status: int = 200) -> tuple[Meaning, str]:
        """What becomes of a row that was refused among others, and why.

        Args:
            status: Of the answer.
        """
        entry, meaning = self._find(Problem(status, (told.code,) if told.code else (), told.message))
        if meaning is not None:
            return meaning, entry.meaning
        if entry.recovery in (Throttled, Unauthorized):
            return Meaning.NOT_TAKEN, entry.meaning
        if entry.recovery is Refused:
            return Meaning.REJECTED, f"{entry.meaning} {entry.remedy}".strip()
        return Meaning.REJECTED, ""

    def _find(self, problem: Problem) -> tuple[ErrorEntry, Meaning | None]:
        return next((entry, meaning) for entry, meaning in self._lines if entry.fits(problem))
