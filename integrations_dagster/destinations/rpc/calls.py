"""Calls and their answers, whatever the protocol; and what the result of a call says of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from integrations_dagster.destinations.answers import By, Listing, Told, judged
from integrations_dagster.destinations.error_table import shorten
from integrations_dagster.destinations.paths import as_text, probe
from integrations_dagster.destinations.rpc.errors import Failure
from integrations_dagster.destinations.rpc.forms import AnswerKeys

Call = tuple[str, list[Any] | dict[str, Any]]
"""Method and parameters."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request asks for, so that its answer can be read: `Request.command`.

    Attributes:
        calls: How many calls it has.
        together: Whether they are sent as one batch, and so answered.
    """

    calls: int
    together: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one call: a result or a failure."""

    result: Any = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request.

    Attributes:
        whole: Why none of its calls was made, or None.
        replies: For each call, in order, its reply; None where there is none.
    """

    whole: Failure | None = None
    replies: tuple[Reply | None, ...] = ()


def refused(place: int, failure: Failure) -> Told:
    return Told(place, accepted=False, code=failure.code, message=failure.message)


def told_of(answer: object, result: Any, place: int) -> Told:
    """What the result of a call of one row says of it; a call without an error has done it, unless paths say."""
    if not isinstance(answer, AnswerKeys):
        return Told(place, accepted=True)
    listing = listing_of(answer)
    created = probe(listing.created, result) if listing.created else None
    return Told(
        place,
        judged(listing, result) if answer.says else True,
        as_text(probe(listing.id, result)) or None if listing.id else None,
        shorten(as_text(probe(listing.code, result)) if listing.code else "", 64),
        shorten(as_text(probe(listing.message, result)) if listing.message else ""),
        created if isinstance(created, bool) else None,
    )


def listing_of(answer: AnswerKeys) -> Listing:
    by, at = (By.ORDER, "") if answer.by is None else answer.by.named
    return Listing(
        answer.results or "@",
        by,
        at,
        0 if answer.by is None else answer.by.first,
        answer.success or "",
        answer.status or "",
        tuple(answer.accepted),
        answer.error or "",
        answer.code or "",
        answer.message or "",
        answer.id or "",
        answer.created or "",
    )
