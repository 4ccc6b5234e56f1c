"""HubSpot: contacts and companies, over the CRM API v3 (developers.hubspot.com/docs/api-reference)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from integrations_dagster.destinations.base import (
    AccountLimits,
    Batch,
    Destination,
    Flow,
    Limits,
    Quota,
    Repeat,
    Request,
    Response,
    Usage,
)
from integrations_dagster.destinations.error_table import raise_for
from integrations_dagster.destinations.errors import Unavailable
from integrations_dagster.destinations.hubspot.answers import (
    NO_ANSWER,
    document_of,
    read_lookup,
    read_write,
)
from integrations_dagster.destinations.hubspot.bodies import (
    archive_body,
    create_body,
    read_body,
    update_body,
    upsert_body,
)
from integrations_dagster.destinations.hubspot.errors import TABLE, problem_of, request_id
from integrations_dagster.destinations.hubspot.reading import REFERENCES, SENSITIVE, read_page, read_properties
from integrations_dagster.destinations.reading import Page, Reference, TargetField
from integrations_dagster.destinations.usage import whole
from integrations_dagster.destinations.values import (
    decimal_text,
    finite,
    json_text,
    number_text,
    refuse,
    utc_text,
)
from integrations_dagster.vocabulary import Action, Misconfigured, Mode, Outcome, Status

OBJECTS = ("contacts", "companies")

MAX_ROWS = 100
"""Rows of a batch: HubSpot's limit (CRM API, "Batch" endpoints). Its OpenAPI file does not state it."""
MAX_BYTES = 1_000_000
"""Bytes of a body: our choice, for HubSpot publishes none. An ordinary batch has 50,000; this keeps an extraordinary
one well inside the request's timeout, its answer, which repeats the properties, included."""

# Only properties that HubSpot alone writes on every account; any other is found out by READ_ONLY_VALUE.
_READ_ONLY = frozenset(
    {
        "createdate",
        "hs_all_accessible_team_ids",
        "hs_all_owner_ids",
        "hs_all_team_ids",
        "hs_created_by_user_id",
        "hs_createdate",
        "hs_email_domain",
        "hs_lastmodifieddate",
        "hs_merged_object_ids",
        "hs_object_id",
        "hs_object_source",
        "hs_object_source_id",
        "hs_object_source_label",
        "hs_updated_by_user_id",
        "hs_was_imported",
        "lastmodifieddate",
    }
)
_READ_ONLY_PREFIXES = (
    "hs_analytics_",
    "hs_calculated_",
    "hs_date_entered_",
    "hs_date_exited_",
    "hs_num_",
    "hs_searchable_calculated_",
    "hs_time_in_",
    "num_associated_",
)
_NOT_UNIQUE: Mapping[str, frozenset[str]] = {
    "contacts": frozenset({"firstname", "lastname", "phone", "mobilephone", "company", "jobtitle", "website", "city"}),
    "companies": frozenset({"name", "domain", "website", "phone", "city", "country", "industry"}),
}
_UNIQUE_REMEDY = (
    "Create a text property with unique values for the warehouse's own id in HubSpot (Settings, Properties, Rules, "
    '"Require unique values"; in the API, hasUniqueValue), and match on that.'
)


class HubSpot(Destination):
    """HubSpot's CRM.

    A record is written by `batch/upsert` or (mode update) `batch/update` with a unique property, by `batch/update` with
    its record id, or made by `batch/create`, and removed by `batch/archive` (HubSpot keeps it restorable for 90 days).
    """

    kind: ClassVar[str] = "hubspot"
    label: ClassVar[str] = "HubSpot"
    modes: ClassVar[frozenset[Mode]] = frozenset({Mode.INSERT, Mode.UPDATE, Mode.UPSERT, Mode.MIRROR, Mode.DELETE})
    auth: ClassVar[str] = "bearer"
    as_text: ClassVar[frozenset[type]] = frozenset({str, int, Decimal, date})
    auth_kinds: ClassVar[frozenset[str] | None] = frozenset({"bearer", "client_credentials", "refresh_token"})

    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:
        if object_ not in OBJECTS:
            near = difflib.get_close_matches(object_.lower(), OBJECTS, 1, 0.5)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise Misconfigured(
                f"HubSpot object {object_!r} is not built.", f"{hint}Built objects: {', '.join(OBJECTS)}."
            )
        if mode not in self.modes:
            raise Misconfigured(
                f"HubSpot {object_} cannot be delivered in mode {mode.value!r}.",
                f"Possible modes: {', '.join(sorted(m.value for m in self.modes))}.",
            )
        if match or mode is not Mode.INSERT:
            self._check_match(object_, match)
        wrong = sorted({name for name in fields if _read_only(name)})
        if wrong:
            raise Misconfigured(
                f"HubSpot {object_}: only HubSpot writes {', '.join(wrong)}.",
                "Remove it from `fields`, or write to a property of your own.",
            )

    def _check_match(self, object_: str, match: Sequence[str]) -> None:
        example = "email" if object_ == "contacts" else "your_unique_property"
        if len(match) != 1:
            given = f"{len(match)} are given ({', '.join(match)})" if match else "none is given"
            raise Misconfigured(
                f"HubSpot {object_} are matched by exactly one property; {given}.",
                f"Write `match: {{{example}: <column>}}`.",
            )
        name = match[0]
        if object_ == "companies" and name == "domain":
            raise Misconfigured(
                "HubSpot companies cannot be matched by 'domain': HubSpot does not deduplicate companies by domain "
                "when they are created through its API, so that every match would be a guess.",
                _UNIQUE_REMEDY,
            )
        if name == "hs_object_id":
            raise Misconfigured(
                f"HubSpot {object_} cannot be matched by 'hs_object_id': HubSpot gives it, and no new record has one.",
                _UNIQUE_REMEDY,
            )
        if name in _NOT_UNIQUE[object_] or _read_only(name):
            also = " Contacts can also be matched by `email`." if object_ == "contacts" else ""
            raise Misconfigured(
                f"HubSpot {object_} cannot be matched by {name!r}: two records may have the same value.",
                _UNIQUE_REMEDY + also,
            )

    def limits(self, object_: str, action: Action) -> Limits:  # noqa: ARG002
        return Limits(rows=MAX_ROWS, bytes=MAX_BYTES)

    def match_normalization(self, object_: str, match_field: str) -> str:
        """HubSpot keeps emails in lower case; spaces around another unique value are taken for a mistake."""
        return "trim_lower" if object_ == "contacts" and match_field == "email" else "trim"

    def repeat(self, object_: str, action: Action) -> Repeat:  # noqa: ARG002
        """A create would be done twice: HubSpot has no idempotency key, and only a property with unique values could
        refuse the second. An upsert or update by unique value, an update by record id and an archive by record id each
        end in the same state however often the same batch is taken."""
        return Repeat.NEVER if action is Action.CREATE else Repeat.ALWAYS

    def account_limits(self) -> AccountLimits:
        """The lowest limit that HubSpot publishes (free and starter accounts); answers tell the account's own."""
        return AccountLimits((Quota(100, 10.0),))

    def usage(self, response: Response) -> tuple[Usage, ...]:
        """`X-HubSpot-RateLimit-*`: the interval, the second and the day, as far as the answer names them."""
        headers = response.headers
        milliseconds = whole(headers.get("x-hubspot-ratelimit-interval-milliseconds"))
        windows = (
            (milliseconds / 1000 if milliseconds else None, "max", "remaining"),
            (1.0, "secondly", "secondly-remaining"),
            (86_400.0, "daily", "daily-remaining"),
        )
        found = []
        for seconds, limit_name, remaining_name in windows:
            limit = whole(headers.get(f"x-hubspot-ratelimit-{limit_name}")) or None
            remaining = whole(headers.get(f"x-hubspot-ratelimit-{remaining_name}"))
            if limit is not None or remaining is not None:
                found.append(Usage(seconds, limit, remaining))
        return tuple(found)

    def request_id(self, response: Response) -> str:
        """HubSpot's correlation id: a header, and a member of errors."""
        header = response.headers.get("x-hubspot-correlation-id", "")
        return header if header or 200 <= response.status < 300 else problem_of(response).request_id

    def encode(self, value: Any) -> Any:
        """Text, for HubSpot takes every property value as text (its OpenAPI file: `additionalProperties: string`).

        Decimals are exact and without exponent, booleans "true" and "false", dates "2026-08-01", moments ISO 8601 in
        UTC with milliseconds (a datetime without a zone is taken as UTC), lists and dicts compact JSON. An empty text
        clears the property (HubSpot, "Update a batch of contacts").
        """
        encoder = _ENCODERS.get(type(value))
        if encoder is not None:
            return encoder(value)
        for kind, general in _ENCODERS.items():
            if isinstance(value, kind):
                return general(value)
        return refuse(value)

    def encode_number(self, value: float | Decimal) -> str:
        return number_text(value)

    def cleared(self) -> str:
        """An empty text (HubSpot, "Update a batch of contacts")."""
        return ""

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        if batch.action is Action.DELETE:
            return (yield from self._delete(batch))
        if batch.action is Action.CREATE:
            request = _post(batch.object, "create", create_body(batch.rows, next(iter(batch.match_fields), None)))
        elif batch.action is Action.UPDATE:
            # No idProperty: the id is the record's, and the match property takes its new value.
            request = _post(batch.object, "update", update_body(batch.rows, batch.match_fields[0]))
        elif batch.action is Action.MODIFY:
            request = _post(batch.object, "update", upsert_body(batch.rows, batch.match_fields[0]))
        else:
            request = _post(batch.object, "upsert", upsert_body(batch.rows, batch.match_fields[0]))
        response = yield request
        return read_write(batch, response, self._normalizer(batch))

    def can_verify(self, object_: str, match: Sequence[str]) -> bool:
        try:
            self._check_match(object_, match)
        except Misconfigured:
            return False
        return True

    def verify(self, batch: Batch) -> Flow[list[Outcome | None]]:
        """Look records up by their match value (`batch/read`). A record that has it may be older than the row's
        request, which HubSpot then refused as a conflict: either way the row must not be created.

        Returns:
            CREATED with the record's id, None where HubSpot says that there is no record, and IN_DOUBT, once more, for
            a row that the answer does not mention.
        """
        normalize = self._normalizer(batch)
        # Doubts of several batches may share a match value, and HubSpot refuses a look-up that names one twice.
        asked: dict[str, int] = {}
        same = [asked.setdefault(normalize(row.match), index) for index, row in enumerate(batch.rows)]
        indexes = list(asked.values())
        response = yield self._look_up(batch, indexes)
        lookup = read_lookup(batch, indexes, response, normalize)
        silent = Outcome(
            Status.IN_DOUBT,
            None,
            NO_ANSWER,
            "HubSpot neither showed a record with the row's match value nor said that there is none.",
            lookup.request_id,
        )
        return [
            Outcome(Status.CREATED, lookup.found[index], request_id=lookup.request_id)
            if index in lookup.found
            else None
            if index in lookup.absent
            else silent
            for index in same
        ]

    def _look_up(self, batch: Batch, indexes: Sequence[int]) -> Request:
        body = read_body([batch.rows[index].match for index in indexes], batch.match_fields[0])
        return _post(batch.object, "read", body, reads=True)

    def _delete(self, batch: Batch) -> Flow[list[Outcome]]:
        """Archive by record id; rows whose id is unknown are looked up by match value first.

        A record that is not there counts as deleted: its absence is what was wanted.
        """
        ids = {index: row.destination_id for index, row in enumerate(batch.rows) if row.destination_id}
        unknown = [index for index in range(len(batch.rows)) if index not in ids]
        absent: frozenset[int] = frozenset()
        looked_up = ""
        if unknown:
            response = yield self._look_up(batch, unknown)
            lookup = read_lookup(batch, unknown, response, self._normalizer(batch))
            ids.update(lookup.found)
            absent, looked_up = lookup.absent, lookup.request_id
        if ids:
            response = yield _post(batch.object, "archive", archive_body(dict.fromkeys(ids.values())))
            if response.status != 204:
                raise Unavailable(
                    f"HubSpot answered {response.status} to an archive, which it confirms with 204 only.",
                    "UNREADABLE_ANSWER",
                    request_id(response),
                )
        missing = Outcome(
            Status.REJECTED,
            None,
            NO_ANSWER,
            "HubSpot neither showed the record nor said that there is none, so nothing was archived. It may be merged "
            "into another record; the next run looks again.",
            looked_up,
        )
        return [
            Outcome(Status.DELETED, ids.get(index)) if index in ids or index in absent else missing
            for index in range(len(batch.rows))
        ]

    def references(self) -> tuple[Reference, ...]:
        """Owners, deactivated owners, companies and contacts."""
        return REFERENCES

    def read(self, reference: str, columns: Sequence[str], cursor: str | None) -> Flow[Page]:
        return read_page(reference, columns, cursor)

    @property
    def describes(self) -> bool:
        return True

    def fields(self, object_: str) -> Flow[list[TargetField]]:
        """The object's properties, but for sensitive ones."""
        return read_properties(object_)

    def restricted_fields(self, object_: str) -> tuple[Flow[list[TargetField]], ...]:
        """Sensitive properties, which take scopes of their own."""
        return tuple(read_properties(object_, sensitivity) for sensitivity in SENSITIVE)

    def identify(self) -> Flow[str]:
        """The portal, from "Retrieve account details" (Account information API v3)."""
        response = yield Request("GET", "/account-info/v3/details")
        portal = document_of(response).get("portalId")
        if isinstance(portal, bool) or not isinstance(portal, int | str) or not portal:
            raise Unavailable("HubSpot's account details name no portal.", "UNREADABLE_ANSWER", request_id(response))
        return f"portal {portal}"

    def classify(self, request: Request, response: Response) -> None:  # noqa: ARG002
        if not 200 <= response.status < 300:
            raise_for(TABLE, self.label, problem_of(response))

    def _normalizer(self, batch: Batch) -> Callable[[str], str]:
        if batch.match_fields and self.match_normalization(batch.object, batch.match_fields[0]) == "trim_lower":
            return lambda value: value.strip().lower()
        return str.strip


def _post(object_: str, operation: str, body: bytes, *, reads: bool = False) -> Request:
    return Request("POST", f"/crm/v3/objects/{object_}/batch/{operation}", body, reads=reads)


def _read_only(name: str) -> bool:
    return name in _READ_ONLY or name.startswith(_READ_ONLY_PREFIXES)


_ENCODERS: Mapping[type, Callable[[Any], str]] = {
    str: str,
    bool: lambda value: "true" if value else "false",
    int: lambda value: str(int(value)),
    float: lambda value: repr(finite(float(value))),
    Decimal: decimal_text,
    datetime: utc_text,
    date: date.isoformat,
    time: time.isoformat,
    UUID: str,
    dict: json_text,
    list: json_text,
    tuple: json_text,
}
