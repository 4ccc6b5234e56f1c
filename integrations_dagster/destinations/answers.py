"""Which row of a batch an answer is about, and what it says of it, for any API whose answers are JSON-like documents.

How to use it: a destination describes its answers once, as `AnswerPaths` made of JMESPath expressions (see `paths`);
the YAML of kind `http` gives them, a destination in Python writes them down. Its flow hands over the decoded answer:

    PATHS = AnswerPaths(results=Listing("result", status="status", accepted=("created", "updated"), id="id",
                                        code="reasons[0].code", message="reasons[0].message"))
    ...
    response = yield request
    return read_rows(PATHS, batch, document_of(response, "Marketo"), Reading("Marketo", request_id))

A protocol whose rows are told apart by other means (aliases of GraphQL, ids of JSON-RPC) makes one `Told` for each
thing that its answer says, and gives them to `outcomes`, which does the rest.

What holds for all of them:
- a row succeeded only if the answer says so of that row, by a path; what the paths do not find is not guessed;
- results that are told apart by their order alone are of no use if one is missing: another number of them than of rows
  is an answer that cannot be read (`Unavailable`), and never zipped short;
- a result that names no row, or one that two rows share, is about no row; rows that no result is about are `UNSENT`
  with the code `NO_ANSWER`: their state is unknown (they are sent again where that is safe, else in doubt);
- a row that is both confirmed and refused was refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from integrations_dagster.destinations.base import GONE, NO_RECORD, Batch, Response
from integrations_dagster.destinations.error_table import shorten
from integrations_dagster.destinations.errors import Unavailable
from integrations_dagster.destinations.paths import as_text, find, probe
from integrations_dagster.vocabulary import ABSENT, SUCCEEDED, Action, Change, Outcome, Row, Status, per_row

NO_ANSWER = "NO_ANSWER"
"""Outcome code of a row that the answer does not mention."""
LONGEST_CODE = 64
"""Characters of a vendor's code that are kept."""


class By(StrEnum):
    """How an entry of a list names its row."""

    ORDER = "order"
    """By its place in the list: there must be one entry for each row."""
    INDEX = "index"
    """By a number: the place of the row in the batch."""
    MATCH = "match"
    """By the row's match value."""
    KEY = "key"
    """By the row's primary key."""
    ID = "id"
    """By the id of the row's record at the destination."""
    TRACE = "trace"
    """By what was sent with the row for this purpose: `trace_of`."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of an answer whose entries are about rows, and where they say what. Expressions are JMESPath, "" for none;
    but for `path` they are applied to an entry.

    Attributes:
        path: The list, in the whole answer; "@" where the answer is the list.
        by: How an entry names its row.
        at: Where the name is, unless `by` is ORDER.
        first: INDEX: the number of the first row.
        success: True where the row was accepted, false where it was refused.
        status: The status of the row: one of `accepted`, or where that is empty a number from 200 to 299, where the row
            was accepted; any other where it was refused.
        accepted: Statuses of accepted rows.
        error: Something (no null, false, or empty text, list or object) where the row was refused.
        code, message: Why it was refused.
        id: Id of the record at the destination. Without `success` and `status` it proves that the row was accepted.
        created: True where a record was made, false where one was changed.
        refused: Whether being listed means being refused.
    """

    path: str
    by: By = By.ORDER
    at: str = ""
    first: int = 0
    success: str = ""
    status: str = ""
    accepted: tuple[str, ...] = ()
    error: str = ""
    code: str = ""
    message: str = ""
    id: str = ""
    created: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class AnswerPaths:
    """What an answer says of the rows, and where.

    Attributes:
        results: The list of results, or None.
        failures: The list of refused rows, where it is another list, or None. Its entries may name no row.
        rest_accepted: Whether rows that neither list mentions were accepted; only where the answer has the list of
            failures, and every entry of it is about a row.
        rest_missing: Whether rows that neither list mentions have no record there; only where the answer has the list
            of results, and every entry of it is about a row.
        count: Expression: how many rows were accepted. If another number is found, rows that are not mentioned are
            unknown. "" for none.
    """

    results: Listing | None = None
    failures: Listing | None = None
    rest_accepted: bool = False
    rest_missing: bool = False
    count: str = ""


class Meaning(StrEnum):
    """What becomes of a row that was refused."""

    REJECTED = "rejected"
    """It is held and tried again later."""
    IGNORED = "ignored"
    """What was wanted is so already: it counts as accepted."""
    MISSING = "missing"
    """Its record is not there: what was to be deleted is; an update makes it anew, or waits for it (mode update)."""
    NOT_TAKEN = "not_taken"
    """It had no effect for a reason that passes (a lock, a limit): it is sent again by the next run."""
    UNKNOWN = "unknown"
    """What became of it is unknown: it is sent again where that is safe, else it is in doubt."""


def _rejected(_told: Told) -> tuple[Meaning, str]:
    return Meaning.REJECTED, ""


@per_row
class Told:
    """What an answer says of one row.

    Attributes:
        place: Index of the row in the batch, or None where that is not known.
        accepted: Whether it was; None: the answer does not say.
        id: The record's id at the destination.
        code, message: Why it was refused.
        created: Whether a record was made; None: the answer does not say.
    """

    place: int | None
    accepted: bool | None
    id: str | None = None
    code: str = ""
    message: str = ""
    created: bool | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Who answered, and how its words are understood.

    Attributes:
        label: Who is quoted ("HubSpot").
        request_id: The vendor's id of the request.
        normalize: How it compares match values.
        meaning: What becomes of a row that was refused, and words of ours for a person ("" for none).
    """

    label: str
    request_id: str = ""
    normalize: Callable[[str], str] = str
    meaning: Callable[[Told], tuple[Meaning, str]] = _rejected


def trace_of(batch: Batch, place: int) -> str:
    """A text that names a row of a batch and no other, the same whenever the batch is sent again."""
    return f"{batch.idempotency_key}-{place}"


def document_of(response: Response, label: str, request_id: str = "") -> Any:
    """The JSON document of an answer.

    Raises:
        Unavailable: It is none: what the request did is unknown.
    """
    try:
        return response.json()
    except (ValueError, RecursionError):
        kind = response.headers.get("content-type", "no content type").partition(";")[0]
        what = f"{len(response.body)} bytes ({shorten(kind, 60)}) that are no JSON"
        raise unreadable(label, response.status, what, request_id, doubt="`base_url`") from None


def unreadable(label: str, status: int, what: str, request_id: str = "", *, doubt: str = "") -> Unavailable:
    """The error for an answer that cannot be read: what the request did is unknown.

    Args:
        doubt: Key of YAML that may be wrong instead.
    """
    reason = f"{label} answered {status} with {what}." + (f" Is {doubt} right?" if doubt else "")
    return Unavailable(reason, "UNREADABLE_ANSWER", request_id)


def read_rows(paths: AnswerPaths, batch: Batch, document: Any, reading: Reading, status: int = 200) -> list[Outcome]:
    """The outcome of each row of a batch, in order.

    Args:
        document: The decoded answer.
        status: Its status, for messages.

    Raises:
        Unavailable: It is not in the shape that the paths describe, or says nothing of any row.
    """
    return read_pages(paths, batch, [document], reading, status)


def read_pages(
    paths: AnswerPaths, batch: Batch, documents: Sequence[Any], reading: Reading, status: int = 200
) -> list[Outcome]:
    """`read_rows` of results that come in several documents, one list after the other."""
    told: list[Told] = []
    names = Names(batch, reading.normalize)
    found: list[Listing] = []
    for listing in (paths.results, paths.failures):
        entries = None if listing is None else _entries(listing, documents, reading, status)
        if listing is None or entries is None:
            continue
        found.append(listing)
        if listing.by is By.ORDER and len(entries) != len(batch.rows):
            what = f"{len(entries)} results for {len(batch.rows)} rows, which only their order tells apart"
            raise unreadable(reading.label, status, what, reading.request_id, doubt="`answer`")
        told += [_told(listing, entry, place, names) for place, entry in enumerate(entries)]
    if not found:
        wanted = " nor ".join(f"`{listing.path}`" for listing in (paths.results, paths.failures) if listing is not None)
        raise unreadable(reading.label, status, f"no list at {wanted}", reading.request_id, doubt="`answer`")
    whole = all(one.place is not None and one.accepted is not None for one in told)
    complete = whole and paths.rest_accepted and paths.failures in found
    if paths.count:
        refused = {one.place for one in told if one.accepted is False}
        complete &= _number(paths.count, documents[-1]) == len(batch.rows) - len(refused)
    missing = whole and paths.rest_missing and paths.results in found
    return outcomes(batch, told, reading, rest_accepted=complete, rest_missing=missing, status=status)


def outcomes(
    batch: Batch,
    told: Iterable[Told],
    reading: Reading,
    *,
    rest_accepted: bool = False,
    rest_missing: bool = False,
    status: int = 200,
) -> list[Outcome]:
    """The outcome of each row of a batch, in order, from what was told of them.

    Args:
        told: In any order; several may be about one row, and some about none that is known.
        rest_accepted: Whether rows that nothing was told of were accepted.
        rest_missing: Whether they have no record there.

    Raises:
        Unavailable: Nothing was told of any row, and no reason was given.
    """
    by_place: dict[int, Told] = {}
    stranger: Told | None = None
    for one in told:
        if one.place is None or one.accepted is None:
            if one.accepted is False and (one.message or one.code):
                stranger = stranger or one
            continue
        before = by_place.get(one.place)
        # What was refused is not confirmed by another entry.
        if before is None or before.accepted:
            by_place[one.place] = one
    if not by_place and not rest_accepted and not rest_missing and stranger is None:
        reason = f"{reading.label} answered {status} without saying what became of any row. Is `answer` right?"
        raise Unavailable(reason, "SILENT_ANSWER", reading.request_id)
    if rest_accepted:
        rest = [Told(place, accepted=True) for place in range(len(batch.rows))]
        return [outcome_of(row, by_place.get(p, rest[p]), reading) for p, row in enumerate(batch.rows)]
    if rest_missing:
        absent = replace(reading, meaning=lambda _told: (Meaning.MISSING, "The answer does not mention its record."))
        gone = Told(None, accepted=False, code="NOT_MENTIONED")
        return [
            outcome_of(row, by_place[p], reading) if p in by_place else outcome_of(row, gone, absent)
            for p, row in enumerate(batch.rows)
        ]
    silent = _silent(batch.action, stranger, reading)
    return [
        outcome_of(row, by_place[place], reading) if place in by_place else silent
        for place, row in enumerate(batch.rows)
    ]


def outcome_of(row: Row, told: Told, reading: Reading) -> Outcome:
    """The outcome of a row that was accepted or refused."""
    if told.accepted:
        return Outcome(accepted_status(row, told.created), told.id, request_id=reading.request_id)
    meaning, words = reading.meaning(told)
    quoted = f"{reading.label} says: {told.message}" if told.message else ""
    if meaning is Meaning.IGNORED or (meaning is Meaning.MISSING and row.action is Action.DELETE):
        return Outcome(accepted_status(row, created=False), told.id, request_id=reading.request_id)
    code = told.code or "REJECTED"
    if meaning is Meaning.NOT_TAKEN:
        reason = f"{reading.label} did not take the row this time; the next run sends it again. {quoted}".strip()
        return Outcome(Status.UNSENT, None, ABSENT, reason, reading.request_id)
    if meaning is Meaning.UNKNOWN:
        reason = f"{reading.label} could not say what became of the row ({code}). {quoted}".strip()
        return Outcome(Status.UNSENT, None, code, reason, reading.request_id)
    known = row.action is Action.UPDATE or (row.action is Action.UPSERT and row.destination_id is not None)
    if meaning is Meaning.MISSING and known:
        reason = f"The record {row.destination_id} is no longer there. The next run creates it again. {quoted}".strip()
        return Outcome(Status.REJECTED, None, GONE, reason, reading.request_id)
    if meaning is Meaning.MISSING and row.action is Action.MODIFY:
        return no_record(reading)
    reason = f"{words} {quoted}".strip() or f"{reading.label} gave no reason ({code})."
    return Outcome(Status.REJECTED, None, code, reason, reading.request_id)


def no_record(reading: Reading) -> Outcome:
    """Of a row that mode update found no record for."""
    reason = (
        f"{reading.label} has no record with the row's match value, and mode update creates none. It is tried again "
        "for as long as the row is in the model."
    )
    return Outcome(Status.REJECTED, None, NO_RECORD, reason, reading.request_id)


def as_another(outcome: Outcome) -> Outcome:
    """Of a row that was written under a new match value. Without an id from the answer its record would be taken for
    the one that it had before."""
    if outcome.status not in SUCCEEDED or outcome.destination_id:
        return outcome
    reason = "The answer does not name the record that the row has now: what became of it is unknown."
    return Outcome(Status.UNSENT, None, "NO_RECORD_ID", reason, outcome.request_id)


def accepted_status(row: Row, created: bool | None = None) -> Status:
    """What an accepted row became; where the answer does not say whether its record was made, the plan's view of it."""
    if row.action is Action.DELETE:
        return Status.DELETED
    if row.action is Action.CREATE:
        return Status.CREATED
    if row.action in (Action.UPDATE, Action.MODIFY):
        return Status.UPDATED
    made = row.change is Change.ADDED if created is None else created
    return Status.CREATED if made else Status.UPDATED


def judged(listing: Listing, entry: Any) -> bool | None:
    """Whether an entry says that its row was accepted; None where it does not say."""
    verdicts: list[bool | None] = []
    if listing.success:
        value = probe(listing.success, entry)
        verdicts.append(value if isinstance(value, bool) else None)
    if listing.status:
        verdicts.append(_by_status(listing, probe(listing.status, entry)))
    if listing.refused or (listing.error and probe(listing.error, entry) not in (None, False, "", [], {})):
        return False
    if not verdicts:
        verdicts.append(True if listing.id and as_text(probe(listing.id, entry)) else None)
    if False in verdicts:
        return False
    return True if True in verdicts else None


def _by_status(listing: Listing, value: Any) -> bool | None:
    text = as_text(value)
    if not text:
        return None
    if listing.accepted:
        return text in listing.accepted
    return 200 <= int(text) < 300 if text.isascii() and text.isdigit() else None


def _told(listing: Listing, entry: Any, place: int, names: Names) -> Told:
    row = place if listing.by is By.ORDER else names.place(listing.by, probe(listing.at, entry), listing.first)
    accepted = judged(listing, entry)
    id_ = _text(listing.id, entry) or None
    if accepted:
        created = probe(listing.created, entry) if listing.created else None
        return Told(row, accepted, id_, created=created if isinstance(created, bool) else None)
    # The next best code is the status.
    code = _text(listing.code, entry) or (_text(listing.status, entry) if accepted is False else "")
    return Told(row, accepted, id_, shorten(code, LONGEST_CODE), shorten(_text(listing.message, entry)))


class Names:
    """The rows of a batch by what an answer may name them by; what two rows share names neither."""

    def __init__(self, batch: Batch, normalize: Callable[[str], str]) -> None:
        self._batch = batch
        self._normalize = normalize
        self._places: dict[By, dict[Hashable, int | None]] = {}

    def place(self, by: By, value: Any, first: int = 0) -> int | None:
        """The index of the row that a value names, or None."""
        if by is By.INDEX:
            text = as_text(value)
            index = int(text) - first if text.isascii() and text.isdigit() else -1
            return index if 0 <= index < len(self._batch.rows) else None
        if by is By.KEY and isinstance(value, list):
            # A primary key of several columns is a JSON array of texts.
            value = json.dumps([as_text(part) for part in value], ensure_ascii=False, separators=(",", ":"))
        name = self._name(by, value)
        if name is None:
            return None
        if by not in self._places:
            self._places[by] = self._indexed(by)
        return self._places[by].get(name)

    def _indexed(self, by: By) -> dict[Hashable, int | None]:
        places: dict[Hashable, int | None] = {}
        for place, row in enumerate(self._batch.rows):
            name = self._name(by, self._of(by, row, place))
            if name is not None:
                places[name] = None if name in places else place
        return places

    def _of(self, by: By, row: Row, place: int) -> Any:
        if by is By.TRACE:
            return trace_of(self._batch, place)
        if by is By.ID:
            return row.destination_id
        text = row.match if by is By.MATCH else row.key
        several = by is By.MATCH and len(self._batch.match_fields) > 1
        return json.loads(text) if several else text

    def _name(self, by: By, value: Any) -> Hashable:
        if isinstance(value, list):
            # Of several columns.
            parts = tuple(self._name(by, part) for part in value)
            return None if not parts or None in parts else parts
        text = as_text(value)
        if not text:
            return None
        return self._normalize(text) if by is By.MATCH else text


def _entries(listing: Listing, documents: Sequence[Any], reading: Reading, status: int) -> list[Any] | None:
    """The entries of all documents; None where none has the list."""
    lists: list[list[Any]] = []
    for document in documents:
        try:
            found = find(listing.path, document)
        except ValueError:
            found = ""
        if found is not None and not isinstance(found, list):
            raise unreadable(reading.label, status, f"`{listing.path}` that is no list", reading.request_id)
        lists += [found] if found is not None else []
    if lists and len(lists) != len(documents):
        raise unreadable(reading.label, status, f"a page without `{listing.path}`", reading.request_id)
    return [entry for entries in lists for entry in entries] if lists else None


def _silent(action: Action, stranger: Told | None, reading: Reading) -> Outcome:
    also = f" It reported an error without saying whose it is: {stranger.message or stranger.code}" if stranger else ""
    then = "" if action is Action.CREATE else ", and the next run sends it again"
    reason = f"{reading.label}'s answer does not mention this row: what became of it is unknown{then}.{also}"
    return Outcome(Status.UNSENT, None, NO_ANSWER, reason, reading.request_id)


def _text(text: str, entry: Any) -> str:
    return as_text(probe(text, entry)) if text else ""


def _number(text: str, document: Any) -> int | None:
    value = as_text(probe(text, document))
    return int(value) if value.isascii() and value.isdigit() else None
