"""Salesforce: records of any object, over sObject Collections of its REST API.

Facts are those of Salesforce's REST API Developer Guide, by the title of the page; what is not verified says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID
from zlib import crc32

from integrations_dagster.destinations.base import (
    Batch,
    Destination,
    Flow,
    Limits,
    Pause,
    Repeat,
    Request,
    Response,
    Usage,
)
from integrations_dagster.destinations.error_table import raise_for
from integrations_dagster.destinations.reading import Page, Reference, TargetField
from integrations_dagster.destinations.salesforce.answers import (
    SEVERAL,
    Result,
    no_record,
    outcome_of,
    read_results,
    several,
    unreadable,
)
from integrations_dagster.destinations.salesforce.bodies import delete_query, record, records_body
from integrations_dagster.destinations.salesforce.checks import (
    ID,
    SalesforceKeys,
    check_fields,
    check_match,
    check_object,
)
from integrations_dagster.destinations.salesforce.errors import TABLE, problem_of, request_id
from integrations_dagster.destinations.salesforce.reading import (
    page_of,
    read_fields,
    read_page,
    references,
    value_text,
)
from integrations_dagster.destinations.salesforce.soql import (
    number_literal,
    queries,
    quoted,
    text_literal,
)
from integrations_dagster.destinations.values import (
    decimal_text,
    finite,
    json_text,
    refuse,
    utc_text,
)
from integrations_dagster.keys import Keys
from integrations_dagster.vocabulary import Action, Misconfigured, Mode, Outcome, Status

MAX_ROWS = 200
"""Rows of a request: Salesforce's limit ("Upsert Records Using sObject Collections" and its sisters)."""
MAX_BYTES = 1_000_000
"""Bytes of a body: our choice; a limit of Salesforce's for these requests is not verified."""
LOCK_PAUSES = (1.0, 3.0)
"""Seconds before locked rows are sent a second and a third time: our choice. Salesforce itself waits up to ten seconds
for a lock before it gives up (unverified), so that most are free by then."""
DAY = 86_400.0
ORGANIZATION = "SELECT Id FROM Organization"
_USAGE = re.compile(r"(?<![\w-])api-usage=(\d{1,12})/(\d{1,12})")
_QUOTES = "should not be enclosed in quotes"
"""What Salesforce says of a text that is compared with a field of numbers (recorded by users of the API)."""


class Salesforce(Destination):
    """Salesforce's CRM, any object.

    A record is upserted by an external id, updated by its record id, created or deleted, up to 200 in a request, each
    of which succeeds or fails by itself (`allOrNone: false`). Where a record id is needed and not known, it is looked
    up by SOQL. Rows that failed because another change held their record, or its parent, are sent again after a pause.
    """

    kind: ClassVar[str] = "salesforce"
    label: ClassVar[str] = "Salesforce"
    modes: ClassVar[frozenset[Mode]] = frozenset({Mode.INSERT, Mode.UPDATE, Mode.UPSERT, Mode.MIRROR, Mode.DELETE})
    auth: ClassVar[str] = "bearer"
    auth_kinds: ClassVar[frozenset[str] | None] = frozenset(
        {"bearer", "client_credentials", "jwt_bearer", "refresh_token"}
    )
    options: ClassVar[tuple[str, type[Keys]] | None] = ("api", SalesforceKeys)
    as_text: ClassVar[frozenset[type]] = frozenset({str, int, Decimal, date})
    nests: ClassVar[bool] = True

    def __init__(self, secrets: Mapping[str, str] | None = None, option: Any = None) -> None:
        super().__init__(secrets, SalesforceKeys() if option is None else option)
        self._root = f"/services/data/v{self.option.version}"

    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:
        if mode not in self.modes:
            raise Misconfigured(
                f"Salesforce {object_} cannot be delivered in mode {mode.value!r}.",
                f"Possible modes: {', '.join(sorted(m.value for m in self.modes))}.",
            )
        check_object(object_)
        if match or mode is not Mode.INSERT:
            check_match(object_, mode, match)
        check_fields(object_, fields)

    def limits(self, object_: str, action: Action) -> Limits:  # noqa: ARG002
        return Limits(rows=MAX_ROWS, bytes=MAX_BYTES)

    def match_normalization(self, object_: str, match_field: str) -> str:  # noqa: ARG002
        """Salesforce keeps emails in lower case and texts without spaces around them (unverified). It compares an
        external id with or without case as its field is set up, which only an org knows: case is left as it is."""
        return "exact" if match_field == ID else "trim_lower" if match_field == "Email" else "trim"

    def repeat(self, object_: str, action: Action) -> Repeat:  # noqa: ARG002
        """A create would be done twice: Salesforce has no idempotency key. An upsert by external id, an update and a
        delete by record id each end in the same state however often the same batch is taken."""
        return Repeat.NEVER if action is Action.CREATE else Repeat.ALWAYS

    def usage(self, response: Response) -> tuple[Usage, ...]:
        """`Sforce-Limit-Info: api-usage=18/5000`: requests of the last 24 hours ("Limit Info Header"). What it may say
        of bursts names no window, and is left out."""
        found = _USAGE.search(response.headers.get("sforce-limit-info", ""))
        if found is None or not int(found[2]):
            return ()
        used, limit = int(found[1]), int(found[2])
        return (Usage(DAY, limit, max(0, limit - used)),)

    def request_id(self, response: Response) -> str:
        return request_id(response)

    def encode(self, value: Any) -> Any:
        """Text, but for booleans: Salesforce reads numbers and dates from text, and refuses a whole request where a
        field of text is given a number (JSON_PARSER_ERROR, "Cannot deserialize instance of string from
        VALUE_NUMBER_INT"; recorded by users of the API). That numeric fields take text is not documented.

        Decimals are exact and without exponent, dates "2026-08-01", moments ISO 8601 in UTC with milliseconds (one
        without a zone is taken as UTC), times with "Z", lists of texts joined by ";" as multi-select picklists take
        them ("Field Types": multipicklist), dicts compact JSON.
        """
        encoder = _ENCODERS.get(type(value))
        if encoder is not None:
            return encoder(value)
        for kind, general in _ENCODERS.items():
            if isinstance(value, kind):
                return general(value)
        return refuse(value)

    # Writing

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        rows = batch.rows
        if batch.action is Action.DELETE:
            return (yield from self._delete(batch))
        if batch.action is Action.MODIFY:
            return (yield from self._modify(batch))
        ids = {index: row.destination_id if batch.action is Action.UPDATE else None for index, row in enumerate(rows)}
        results = yield from self._send(batch, ids)
        return [outcome_of(batch, row, results[index]) for index, row in enumerate(rows)]

    def _modify(self, batch: Batch) -> Flow[list[Outcome]]:
        """Update by match value, which Salesforce does only together with creating: so ids are looked up first."""
        outcomes: dict[int, Outcome] = {}
        ids: dict[int, str] = {}
        taken: set[str] = set()
        found = yield from self._find(batch, range(len(batch.rows)))
        for index, records in found.items():
            if len(records) == 1 and records[0] not in taken:
                ids[index] = records[0]
                taken.add(records[0])
            elif records:
                outcomes[index] = several(batch, records) if len(records) > 1 else _twice(batch, records[0])
            else:
                outcomes[index] = no_record(batch)
        results = (yield from self._send(batch, ids)) if ids else {}
        outcomes |= {index: outcome_of(batch, batch.rows[index], result) for index, result in results.items()}
        return [outcomes[index] for index in range(len(batch.rows))]

    def _delete(self, batch: Batch) -> Flow[list[Outcome]]:
        """Delete by record id; rows whose id is unknown are looked up by match value first.

        A record that is not there counts as deleted: its absence is what was wanted.
        """
        outcomes: dict[int, Outcome] = {}
        ids = {index: row.destination_id for index, row in enumerate(batch.rows) if row.destination_id}
        unknown = [index for index in range(len(batch.rows)) if index not in ids]
        found = (yield from self._find(batch, unknown)) if unknown else {}
        for index, records in found.items():
            if len(records) == 1:
                ids[index] = records[0]
            else:
                outcomes[index] = several(batch, records) if records else Outcome(Status.DELETED)
        first: dict[str, int] = {}
        for index, id_ in ids.items():
            first.setdefault(id_, index)
        results = (yield from self._send(batch, {index: id_ for id_, index in first.items()})) if first else {}
        for index, id_ in ids.items():
            outcomes[index] = outcome_of(batch, batch.rows[index], results[first[id_]])
        return [outcomes[index] for index in range(len(batch.rows))]

    def _send(self, batch: Batch, ids: Mapping[int, str | None]) -> Flow[dict[int, Result | None]]:
        """Send some rows of a batch, and those that were locked again.

        Args:
            batch: The batch.
            ids: Index of each row that is sent, to its record's id where it is sent by that.
        """
        results: dict[int, Result | None] = {}
        waiting = list(ids)
        # If the answer to a second request were lost, what the first one created would be in doubt as well: so a create
        # is followed by another only where doubts can be looked up.
        pauses = LOCK_PAUSES if batch.action is not Action.CREATE or batch.match_fields else ()
        for turn in range(len(pauses) + 1):
            response = yield self._request(batch, {index: ids[index] for index in waiting})
            read = read_results(response, [ids[index] for index in waiting])
            results.update(zip(waiting, read, strict=True))
            waiting = [index for index in waiting if (result := results[index]) is not None and result.locked]
            if not waiting or turn == len(pauses):
                break
            # Shards that met at one parent must not meet again; the same batch waits the same time.
            spread = crc32(f"{batch.idempotency_key}/{turn}".encode()) % 1000 / 1000
            yield Pause(pauses[turn] * (0.5 + spread))
        return results

    def _request(self, batch: Batch, ids: Mapping[int, str | None]) -> Request:
        path = f"{self._root}/composite/sobjects"
        if batch.action is Action.DELETE:
            return Request("DELETE", path + delete_query([id_ for id_ in ids.values() if id_]))
        match = next(iter(batch.match_fields), None)
        # An update by record id gives the match field its new value; one by match value leaves it as it is.
        field = None if match == ID or batch.action is Action.MODIFY else match
        body = records_body(record(batch.object, batch.rows[index], id_, field) for index, id_ in ids.items())
        if batch.action is Action.UPSERT:
            return Request("PATCH", f"{path}/{batch.object}/{match}", body)
        return Request("POST" if batch.action is Action.CREATE else "PATCH", path, body)

    # Looking up

    def _find(self, batch: Batch, indexes: Sequence[int]) -> Flow[dict[int, list[str]]]:
        """The ids of the records that have the match values of some rows, by the row's index."""
        field = batch.match_fields[0]
        values = {index: batch.rows[index].match for index in indexes}
        if field == ID:
            return {index: [value] for index, value in values.items()}
        asked = list(dict.fromkeys(values.values()))
        records = yield from self._query_all(batch.object, field, [text_literal(value) for value in asked])
        if records is None:
            numbers = dict.fromkeys(number for value in asked if (number := number_literal(value)) is not None)
            found = (yield from self._query_all(batch.object, field, list(numbers))) if numbers else []
            records = found or []
            values = {index: number_literal(value) or value for index, value in values.items()}
        exact: dict[str, list[str]] = {}
        folded: dict[str, list[str]] = {}
        for value, id_ in records:
            for known, name in ((exact, value), (folded, value.casefold())):
                if id_ not in known.setdefault(name, []):
                    known[name].append(id_)
        # A field that is compared without case answers with its own spelling.
        return {index: exact.get(value) or folded.get(value.casefold(), []) for index, value in values.items()}

    def _query_all(self, object_: str, field: str, literals: Sequence[str]) -> Flow[list[tuple[str, str]] | None]:
        """Value and id of the records whose field has one of the values; None where the field has numbers and the
        literals are texts."""
        found: list[tuple[str, str]] = []
        for query in queries(object_, field, literals):
            following: str | None = f"{self._root}/query?q={quoted(query)}"
            before = 0
            while following is not None:
                response = yield Request("GET", following)
                if not 200 <= response.status < 300:
                    return None
                records, following = page_of(response, before)
                before += len(records)
                for entry in records:
                    value, id_ = value_text(entry.get(field)), entry.get(ID)
                    if value is None or not isinstance(id_, str) or not id_:
                        raise unreadable(response, f"a record without {ID} or {field}")
                    found.append((value, id_))
        return found

    def can_verify(self, object_: str, match: Sequence[str]) -> bool:
        try:
            check_match(object_, Mode.INSERT, match)
        except Misconfigured:
            return False
        return True

    def verify(self, batch: Batch) -> Flow[list[Outcome | None]]:
        """Look records up by their match value (SOQL). A record that has it may be older than the row's request: either
        way the row must not be created.

        Returns:
            CREATED with the record's id, None where there is no record, and IN_DOUBT, once more, where several have it.
        """
        found = yield from self._find(batch, range(len(batch.rows)))
        reason = f"Several records of Salesforce's {batch.object} have the row's match value."
        doubt = Outcome(Status.IN_DOUBT, None, SEVERAL, reason)
        return [
            None if not ids else Outcome(Status.CREATED, ids[0]) if len(ids) == 1 else doubt
            for ids in (found[index] for index in range(len(batch.rows)))
        ]

    # Reading

    def references(self) -> tuple[Reference, ...]:
        """Active users, the standard objects, and those that `api: {lookups: [...]}` names."""
        return references(self.option.lookups)

    def read(self, reference: str, columns: Sequence[str], cursor: str | None) -> Flow[Page]:
        return read_page(self._root, reference, columns, cursor)

    @property
    def describes(self) -> bool:
        return True

    def fields(self, object_: str) -> Flow[list[TargetField]]:
        """The object's fields that the token's user sees, and its references by relationship name."""
        return read_fields(self._root, object_)

    def identify(self) -> Flow[str]:
        """The organization, by SOQL: the token needs the scope `api` only, where OAuth's user info needs another."""
        response = yield Request("GET", f"{self._root}/query?q={quoted(ORGANIZATION)}")
        records, _ = page_of(response)
        id_ = records[0].get(ID) if len(records) == 1 else None
        if not isinstance(id_, str) or not id_:
            raise unreadable(response, "no organization")
        return f"organization {id_}"

    def classify(self, request: Request, response: Response) -> None:
        if 200 <= response.status < 300:
            return
        found = problem_of(response)
        # The field that is compared has numbers: the flow asks again without quotes.
        if request.method == "GET" and response.status == 400 and _QUOTES in found.message:
            return
        raise_for(TABLE, self.label, found)


def _twice(batch: Batch, id_: str) -> Outcome:
    reason = (
        f"Another row of the model leads to the same record of Salesforce's {batch.object} ({id_}): their match values "
        "differ in a way that Salesforce does not tell apart, as in case. Leave one out of the model."
    )
    return Outcome(Status.REJECTED, None, SEVERAL, reason)


def _choices(values: Sequence[Any]) -> str:
    texts = []
    for value in values:
        if not isinstance(value, str):
            raise ValueError("Lists can hold texts only: the values of a multi-select picklist.")
        if ";" in value:
            raise ValueError("A value of a multi-select picklist holds a semicolon, which separates the values.")
        texts.append(value)
    return ";".join(texts)


_ENCODERS: Mapping[type, Callable[[Any], Any]] = {
    str: str,
    bool: bool,
    int: lambda value: str(int(value)),
    float: lambda value: repr(finite(float(value))),
    Decimal: decimal_text,
    datetime: utc_text,
    date: date.isoformat,
    time: lambda value: value.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z",
    UUID: str,
    dict: json_text,
    list: _choices,
    tuple: _choices,
}
