"""What the answers of sObject Collections say of each row: results come in the order of the records.

Salesforce, "Upsert Records Using sObject Collections", "Update ...", "Create ...", "Delete ...": a request that is
well formed is answered 200 with one result for each record, in the same order: `id`, `success`, `errors`, and `created`
of an upsert. So an answer of another length, or about other ids than were sent, tells nothing of any row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from integrations_dagster.destinations.base import GONE, NO_RECORD, Batch, Response
from integrations_dagster.destinations.error_table import shorten
from integrations_dagster.destinations.errors import Unavailable
from integrations_dagster.destinations.salesforce.errors import LOCKED, RowError, request_id
from integrations_dagster.vocabulary import Action, Outcome, Row, Status

NO_ANSWER = "NO_ANSWER"
SEVERAL = "DUPLICATE_EXTERNAL_ID"
"""Salesforce's own code of a match value that several records have."""
_ID = 15
"""Characters of an id that tell records apart; the three further ones are a check sum of these (Salesforce, "ID Field
Type")."""
_NO_SUCH = frozenset({"ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY", "NOT_FOUND"})


@dataclass(frozen=True, slots=True)
class Result:
    """One result.

    Attributes:
        success: Whether Salesforce says that the row succeeded, without any error beside it.
        id: The record's id, or None.
        created: Whether an upsert created the record.
        errors: Why it failed.
        request_id: The vendor's id of the request, or "".
    """

    success: bool
    id: str | None
    created: bool
    errors: tuple[RowError, ...]
    request_id: str = ""

    @property
    def locked(self) -> bool:
        """Whether the row failed only because another change held its record or that one's parent."""
        return not self.success and bool(self.errors) and all(error.code == LOCKED for error in self.errors)

    @property
    def absent(self) -> bool:
        """Whether the record that was named does not exist: an error about no field of it."""
        return any(error.code in _NO_SUCH and not error.fields for error in self.errors)


def read_results(response: Response, sent: Sequence[str | None]) -> list[Result | None]:
    """The results of an answer, one for each record that was sent, in order; None where one says nothing.

    Args:
        response: An answer with status 2xx.
        sent: The id that each record was sent with, or None.

    Raises:
        Unavailable: The answer cannot be read, has another number of results, is about other records, or says nothing
            of any row: what the request did is unknown.
    """
    entries = _decoded(response)
    if not isinstance(entries, list):
        raise unreadable(response, f"{len(response.body)} bytes that are no list of results")
    if len(entries) != len(sent):
        raise unreadable(response, f"{len(entries)} results for {len(sent)} records")
    id_ = request_id(response)
    results = [_result(entry, wanted, id_) for entry, wanted in zip(entries, sent, strict=True)]
    if not any(results):
        raise unreadable(response, "results in an unknown shape")
    for result, wanted in zip(results, sent, strict=True):
        if result is not None and wanted is not None and result.id is not None and not _same(result.id, wanted):
            raise unreadable(response, f"a result about record {result.id} where {wanted} was sent")
    return results


def document_of(response: Response) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        Unavailable: It is none, or only a part of one.
    """
    document = _decoded(response)
    if isinstance(document, dict):
        return document
    kind = response.headers.get("content-type", "no content type").partition(";")[0]
    raise unreadable(response, f"{len(response.body)} bytes ({kind}) that are no JSON object")


def unreadable(response: Response, what: str) -> Unavailable:
    """The error for an answer that cannot be read."""
    return Unavailable(f"Salesforce answered {response.status} with {what}.", "UNREADABLE_ANSWER", request_id(response))


def outcome_of(batch: Batch, row: Row, result: Result | None) -> Outcome:
    """What a result says of its row."""
    if result is None:
        then = "" if batch.action is Action.CREATE else ", and the next run sends it again"
        reason = f"Salesforce's answer does not say what became of this row: it is unknown{then}."
        return Outcome(Status.UNSENT, None, NO_ANSWER, reason)
    if batch.action is Action.DELETE and (result.success or result.absent):
        # Where there is no record, what was wanted is so.
        return Outcome(Status.DELETED, result.id)
    if result.success:
        new = batch.action is Action.CREATE or result.created
        return Outcome(Status.CREATED if new else Status.UPDATED, result.id)
    if batch.action is Action.UPDATE and result.absent:
        reason = (
            f"The record {row.destination_id} is no longer in Salesforce's {batch.object}: someone deleted or merged "
            "it. The next run creates it again."
        )
        return Outcome(Status.REJECTED, None, GONE, reason, result.request_id)
    if batch.action is Action.MODIFY and result.absent:
        return no_record(batch)
    code = next((error.code for error in result.errors if error.code), "REJECTED")
    reason = " ".join(dict.fromkeys(_ended(error.sentence) for error in result.errors))
    reason = shorten(reason) or "Salesforce gave no reason."
    if batch.action is Action.CREATE and code in ("DUPLICATE_VALUE", "DUPLICATES_DETECTED"):
        hint = (
            f"Salesforce's {batch.object} already have such a record, and mode insert only creates: use mode upsert, "
            "or leave the row out of the model."
        )
        reason = f"{hint} {reason}"
    return Outcome(Status.REJECTED, None, code, reason, result.request_id)


def no_record(batch: Batch) -> Outcome:
    """The outcome of a row of mode update whose record is not there."""
    reason = (
        f"Salesforce's {batch.object} have no record with the row's {batch.match_fields[0]}, and mode update creates "
        "none. It is tried again for as long as the row is in the model."
    )
    return Outcome(Status.REJECTED, None, NO_RECORD, reason)


def several(batch: Batch, ids: Sequence[str]) -> Outcome:
    """The outcome of a row whose match value several records have."""
    named = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
    reason = (
        f"{len(ids)} records of Salesforce's {batch.object} have the row's {batch.match_fields[0]} ({named}), so that "
        "nobody can say which is meant; nothing was changed. Merge them, or match on a field that is unique."
    )
    return Outcome(Status.REJECTED, None, SEVERAL, reason)


def _decoded(response: Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _result(entry: Any, wanted: str | None, id_: str) -> Result | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("success"), bool):
        return None
    errors = entry.get("errors")
    if errors is not None and not isinstance(errors, list):
        return None
    read = tuple(RowError.of(error) for error in errors or ())
    record = entry.get("id")
    record = record if isinstance(record, str) and record else None
    # A result that both confirms and refuses a row has not confirmed it.
    success = entry["success"] and not read
    if success and record is None:
        # What was sent with an id has that one; a new record without an id cannot be told from none.
        if wanted is None:
            return None
        record = wanted
    return Result(success, record, entry.get("created") is True, read, id_)


def _same(one: str, other: str) -> bool:
    return one[:_ID] == other[:_ID]


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?", "…")) else f"{sentence}."
