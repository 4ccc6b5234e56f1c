"""Which row of a batch HubSpot's answer is about: by trace id, by record id, by match value; never by order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from integrations_dagster.destinations.base import GONE, NO_RECORD, Batch, Response
from integrations_dagster.destinations.errors import PoisonedBatch, Unavailable
from integrations_dagster.destinations.hubspot.bodies import trace_of
from integrations_dagster.destinations.hubspot.errors import codes_of, message_of, request_id, texts
from integrations_dagster.vocabulary import Action, Outcome, Row, Status

NOT_FOUND = "OBJECT_NOT_FOUND"
NO_ANSWER = "NO_ANSWER"
CONFLICT = "CONFLICT"


@dataclass(frozen=True, slots=True)
class Lookup:
    """What `batch/read` found.

    Attributes:
        found: Index of a row to its record's id.
        absent: Indexes of rows that HubSpot says have no record.
        request_id: HubSpot's id of the request.
    """

    found: Mapping[int, str]
    absent: frozenset[int]
    request_id: str


class _Rows:
    """The rows of a batch by everything that an answer may name them by."""

    def __init__(self, batch: Batch, indexes: Sequence[int], normalize: Callable[[str], str]) -> None:
        self._batch, self._indexes = batch, indexes
        # Without match fields the match value is the primary key, which HubSpot has never seen.
        self._field = batch.match_fields[0] if batch.match_fields else None
        self._normalize = normalize
        self._by_id = batch.action is Action.UPDATE
        self._traces = {trace_of(batch.rows[index]): index for index in indexes}

    @cached_property
    def _keys(self) -> dict[str, int]:
        """An update is sent by record id, anything else by match value; a key that two rows share names neither."""
        if self._field is None:
            return {}
        keys = [(self._key(self._batch.rows[index]), index) for index in self._indexes]
        count = Counter(key for key, _ in keys)
        return {key: index for key, index in keys if count[key] == 1}

    def _key(self, row: Row) -> str:
        return (row.destination_id or "") if self._by_id else self._normalize(row.match)

    def of_result(self, result: Mapping[str, Any]) -> int | None:
        index = self._traces.get(result.get("objectWriteTraceId") or "")
        if index is not None:
            return index
        if self._by_id:
            return self._keys.get(str(result.get("id")))
        properties = result.get("properties")
        value = properties.get(self._field) if isinstance(properties, dict) and self._field else None
        return self._keys.get(self._normalize(value)) if isinstance(value, str) else None

    def of_error(self, error: Mapping[str, Any]) -> list[int]:
        context = error.get("context")
        found = [self._traces.get(trace) for trace in texts(context, "objectWriteTraceId")]
        if not found:
            keys = texts(context, "ids") or texts(context, "id")
            found = [self._keys.get(key if self._by_id else self._normalize(key)) for key in keys]
        return [index for index in found if index is not None]


def read_write(batch: Batch, response: Response, normalize: Callable[[str], str]) -> list[Outcome]:
    """The outcomes that the answer to a batch/create, batch/upsert or batch/update tells, one for each row, in order.

    A row in `results` succeeded, one in `errors` is rejected. A row in neither is `UNSENT`: what became of it is
    unknown. After an upsert or update the next run sends it again whatever the model says by then; a create must not be
    repeated, so there the row is in doubt.

    Args:
        batch: What was sent.
        response: An answer with status 2xx.
        normalize: How HubSpot compares match values.

    Raises:
        Unavailable: The answer cannot be read, or mentions no row at all and no error: what the request did is unknown.
        PoisonedBatch: Nothing was written, and the error does not say whose it is.
    """
    results, errors, id_ = _document(response)
    rows = _Rows(batch, range(len(batch.rows)), normalize)
    creates = batch.action is Action.CREATE
    outcomes: dict[int, Outcome] = {}
    for result in results:
        index = rows.of_result(result)
        record = result.get("id")
        if index is None or index in outcomes or type(record) not in (str, int):
            continue
        status = Status.CREATED if creates or result.get("new") is True else Status.UPDATED
        outcomes[index] = Outcome(status, str(record))
    strangers = []
    for error in errors:
        indexes = rows.of_error(error)
        if not indexes:
            strangers.append(error)
        for index in indexes:
            # An answer that both confirms and refuses a row has not confirmed it.
            outcomes[index] = _rejected(batch, batch.rows[index], error, id_)
    if not outcomes and not strangers:
        raise Unavailable(
            f"HubSpot answered {response.status} without saying what became of any row.", "SILENT_ANSWER", id_
        )
    if not outcomes and not results:
        if len(batch.rows) > 1:
            raise PoisonedBatch(f"HubSpot says: {message_of(strangers[0])}", _code(strangers[0]), id_)
        return [_rejected(batch, batch.rows[0], strangers[0], id_)]
    unknown = _unanswered(batch.action, strangers, id_)
    return [outcomes.get(index, unknown) for index in range(len(batch.rows))]


def read_lookup(batch: Batch, indexes: Sequence[int], response: Response, normalize: Callable[[str], str]) -> Lookup:
    """What the answer to a batch/read by match value tells of some rows of a batch.

    Raises:
        Unavailable: The answer cannot be read, or says nothing.
    """
    results, errors, id_ = _document(response)
    if not results and not errors:
        raise Unavailable(f"HubSpot answered {response.status} without any record or error.", "SILENT_ANSWER", id_)
    rows = _Rows(batch, indexes, normalize)
    found: dict[int, str] = {}
    for result in results:
        index, record = rows.of_result(result), result.get("id")
        if index is not None and isinstance(record, str):
            found[index] = record
    absent: set[int] = set()
    for error in errors:
        if NOT_FOUND in codes_of(error):
            absent.update(rows.of_error(error))
    return Lookup(found, frozenset(absent - found.keys()), id_)


def document_of(response: Response) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        Unavailable: It is none, or only a part of one.
    """
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        kind = response.headers.get("content-type", "no content type").partition(";")[0]
        raise Unavailable(
            f"HubSpot answered {response.status} with {len(response.body)} bytes ({kind}) that are no JSON object.",
            "UNREADABLE_ANSWER",
            request_id(response),
        )
    return document


def _document(response: Response) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
    document = document_of(response)
    lists = []
    for name in ("results", "errors"):
        entries = document.get(name)
        if entries is None:
            entries = []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Unavailable(
                f"HubSpot answered {response.status} with `{name}` in an unknown shape.",
                "UNREADABLE_ANSWER",
                request_id(response, document),
            )
        lists.append(entries)
    return lists[0], lists[1], request_id(response, document)


def _code(error: Mapping[str, Any]) -> str:
    codes = codes_of(error)
    return codes[0] if codes else "REJECTED"


def _rejected(batch: Batch, row: Row, error: Mapping[str, Any], id_: str) -> Outcome:
    own = error.get("correlationId")
    id_ = own if isinstance(own, str) else id_
    if batch.action is Action.UPDATE and NOT_FOUND in codes_of(error):
        reason = (
            f"The record {row.destination_id} is no longer in HubSpot's {batch.object}: someone deleted or merged it. "
            "The next run creates it again."
        )
        return Outcome(Status.REJECTED, None, GONE, reason, id_)
    if batch.action is Action.MODIFY and NOT_FOUND in codes_of(error):
        reason = (
            f"HubSpot's {batch.object} have no record with the row's {batch.match_fields[0]}, and mode update creates "
            "none. It is tried again for as long as the row is in the model."
        )
        return Outcome(Status.REJECTED, None, NO_RECORD, reason, id_)
    reason = message_of(error) or "HubSpot gave no reason."
    if batch.action is Action.CREATE and CONFLICT in codes_of(error):
        reason = (
            f"HubSpot's {batch.object} already have a record with a unique value of this row, and mode insert only "
            f"creates: use mode upsert, or leave the row out of the model. HubSpot says: {reason}"
        )
    return Outcome(Status.REJECTED, None, _code(error), reason, id_)


def _unanswered(action: Action, strangers: list[dict[str, Any]], id_: str) -> Outcome:
    also = f" It reported an error without saying whose it is: {message_of(strangers[0])}" if strangers else ""
    then = "" if action is Action.CREATE else ", and the next run sends it again"
    reason = f"HubSpot's answer does not mention this row: what became of it is unknown{then}."
    return Outcome(Status.UNSENT, None, NO_ANSWER, reason + also, id_)
