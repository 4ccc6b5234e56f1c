"""The sandbox's Salesforce: sObject Collections, queries and describe, below /services/data/vNN.N/.

Forms: Salesforce's REST API Developer Guide ("Using sObject Collections", "Query", "sObject Describe", "Status Codes
and Error Responses", "Limit Info Header").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from integrations_dagster.sandbox.answers import Answer, json_answer
from integrations_dagster.sandbox.api import Api, Call
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sandbox.identity import Identity
from integrations_dagster.sandbox.quota import DAY, Over, Quotas
from integrations_dagster.sandbox.salesforce_fields import PREFIXES, BadValue, SalesforceField, record_id
from integrations_dagster.sandbox.salesforce_query import BadQuery, parse, run
from integrations_dagster.sandbox.salesforce_rows import ROLLED_BACK, RowRefused, Rows
from integrations_dagster.sandbox.salesforce_state import SalesforceState
from integrations_dagster.sandbox.store import Store

MAX_ROWS = 200
MAX_HEAD = 16_384
"""Bytes of address and headers together ("Status Codes and Error Responses": 414, 431)."""
PAGE = 2_000
"""Records of a page of a query ("Query": the default and most of a batch)."""
DAILY = 1_000_000
"""Requests of a day that answers tell while no quota of a day is configured; nothing holds them to it."""
_KEPT = 50
_VERSION = re.compile(r"v(\d+)\.0")


class _Refused(Exception):
    """A whole request is refused."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _RolledBack(Exception):
    """A record of a request with `allOrNone` failed."""


@dataclass(slots=True)
class Salesforce(Api):
    """/services/data/.

    Attributes:
        store: The state, for its transactions.
        state: Records and fields.
        endpoint: Returns who the sandbox is.
    """

    prefix: ClassVar[str] = "/services/data/"
    store: Store
    state: SalesforceState
    endpoint: Callable[[], Endpoint]
    _cursors: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def organization(self) -> str:
        """The id of the organization; another sandbox has another."""
        number = int(hashlib.sha256(self.endpoint().id.encode()).hexdigest(), 16) % 10**12
        return "00D" + record_id("Account", number)[3:]

    def handle(self, call: Call) -> Answer:
        size = len(call.path) + sum(len(n) + len(v) for n, v in (*call.query.items(), *call.headers.items()))
        if size > MAX_HEAD:
            return _error(414, "URI_TOO_LONG", "The address is too long.")
        version, _, rest = call.path.removeprefix(self.prefix).partition("/")
        found = _VERSION.fullmatch(version)
        if found is None or int(found[1]) < 46:
            return _error(404, "NOT_FOUND", "The requested resource does not exist")
        try:
            return self._answer(call, version, rest.strip("/").split("/"))
        except _Refused as refusal:
            answer = _error(refusal.status, refusal.code, str(refusal))
        except BadValue as bad:
            answer = _error(400, "JSON_PARSER_ERROR", str(bad))
        except BadQuery as bad:
            answer = _error(400, bad.code, str(bad))
        answer.failed_rows = call.rows
        return answer

    def _answer(self, call: Call, version: str, parts: list[str]) -> Answer:
        match (call.method, *parts):
            case ("GET", "query"):
                return self._query(version, call.query.get("q", ""))
            case ("GET", "query", cursor):
                return self._page(version, cursor)
            case ("GET", "sobjects", object_, "describe"):
                fields = self._fields(object_)
                shown = [entry.as_json() for entry in fields.values()]
                return json_answer(
                    200, {"name": object_, "label": object_, "keyPrefix": PREFIXES.get(object_), "fields": shown}
                )
            case ("POST", "composite", "sobjects"):
                return self._collection(call, lambda rows, object_, entry: rows.create(object_, entry))
            case ("PATCH", "composite", "sobjects"):
                return self._collection(call, lambda rows, object_, entry: rows.update(object_, entry))
            case ("PATCH", "composite", "sobjects", object_, name):
                return self._upsert(call, object_, name)
            case ("DELETE", "composite", "sobjects"):
                return self._delete(call)
        raise _Refused(404, "NOT_FOUND", "The requested resource does not exist")

    def _fields(self, object_: str) -> dict[str, SalesforceField]:
        fields = self.state.fields(object_)
        if fields is None:
            raise _Refused(404, "NOT_FOUND", "The requested resource does not exist")
        return fields

    # Writing

    def _collection(self, call: Call, apply: Callable[[Rows, str, Mapping[str, Any]], dict[str, Any]]) -> Answer:
        entries = self._entries(call)
        rows = Rows(self.state, call.rejections)
        objects = [entry["attributes"]["type"] for entry in entries]
        for object_ in objects:
            if self.state.fields(object_) is None:
                raise _Refused(400, "INVALID_TYPE", f"sObject type '{object_}' is not supported.")
        steps = [lambda o=object_, e=entry: apply(rows, o, e) for object_, entry in zip(objects, entries, strict=True)]
        return self._each(steps, all_or_none=call.document.get("allOrNone") is True)

    def _upsert(self, call: Call, object_: str, name: str) -> Answer:
        known = self._fields(object_).get(name)
        if known is None or not (known.external_id or known.id_lookup):
            message = f"Provided external ID field does not exist or is not accessible: {name}"
            raise _Refused(404, "NOT_FOUND", message)
        entries = self._entries(call)
        if any(entry["attributes"]["type"] != object_ for entry in entries):
            raise _Refused(400, "INVALID_TYPE", f"The records of this request must be of type {object_}.")
        rows = Rows(self.state, call.rejections)
        given = rows.counted(known, entries)
        steps = [lambda e=entry: rows.upsert(object_, e, known, given) for entry in entries]
        return self._each(steps, all_or_none=call.document.get("allOrNone") is True)

    def _delete(self, call: Call) -> Answer:
        ids = [id_ for id_ in call.query.get("ids", "").split(",") if id_]
        if not ids:
            raise _Refused(400, "MISSING_ARGUMENT", "ids: missing")
        self._few(len(ids))
        rows = Rows(self.state, call.rejections)
        steps = [lambda i=id_: rows.delete(i) for id_ in ids]
        return self._each(steps, all_or_none=call.query.get("allOrNone") == "true")

    def _entries(self, call: Call) -> list[dict[str, Any]]:
        entries = call.document.get("records") if isinstance(call.document, dict) else None
        if not isinstance(entries, list):
            raise _Refused(400, "JSON_PARSER_ERROR", "The body must be JSON with a list of records.")
        self._few(len(entries))
        for entry in entries:
            attributes = entry.get("attributes") if isinstance(entry, dict) else None
            if not isinstance(attributes, dict) or not isinstance(attributes.get("type"), str):
                raise _Refused(400, "INVALID_FIELD", "Each record needs attributes with a type.")
        return entries

    def _few(self, count: int) -> None:
        if count > MAX_ROWS:
            message = f"record limit reached. cannot submit more than {MAX_ROWS} records in this request"
            raise _Refused(400, "EXCEEDED_ID_LIMIT", message)

    def _each(self, steps: Sequence[Callable[[], dict[str, Any]]], *, all_or_none: bool) -> Answer:
        """Take each step; one that is refused leaves the others, or undoes them all."""
        results: list[dict[str, Any]] = []
        try:
            with self.store.transaction():
                for step in steps:
                    try:
                        results.append(step())
                    except RowRefused as refusal:
                        results.append(refusal.result())
                if all_or_none and not all(result["success"] for result in results):
                    raise _RolledBack
        except _RolledBack:
            results = [ROLLED_BACK.result() if result["success"] else result for result in results]
        return json_answer(200, results, failed_rows=sum(not result["success"] for result in results))

    # Reading

    def _query(self, version: str, text: str) -> Answer:
        query = parse(text)
        if query.object == "Organization":
            records = [{"attributes": {"type": "Organization"}, "Id": self.organization}]
        else:
            records = run(self.state, query)
        cursor = f"01g{len(self._cursors):012d}AAA"
        if len(records) > PAGE:
            # A query that nobody reads to its end must not stay for ever.
            for old in list(self._cursors)[:-_KEPT]:
                self._cursors[old] = []
            self._cursors[cursor] = records
        return self._shown(version, cursor, records, 0)

    def _page(self, version: str, text: str) -> Answer:
        cursor, _, start = text.partition("-")
        records = self._cursors.get(cursor)
        if not records or not start.isdigit():
            raise _Refused(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._shown(version, cursor, records, int(start))

    def _shown(self, version: str, cursor: str, records: Sequence[Mapping[str, Any]], start: int) -> Answer:
        end = start + PAGE
        body: dict[str, Any] = {"totalSize": len(records), "done": end >= len(records)}
        if end < len(records):
            body["nextRecordsUrl"] = f"{self.prefix}{version}/query/{cursor}-{end}"
        return json_answer(200, {**body, "records": records[start:end]})

    # Refusals

    def empty(self, call: Call) -> Answer:  # noqa: ARG002
        return json_answer(200, [])

    def refusal(self, status: int, headers: Mapping[str, str]) -> Answer:
        code = "SERVER_UNAVAILABLE" if status == 503 else "UNKNOWN_EXCEPTION" if status >= 500 else "REQUEST_REFUSED"
        answer = _error(status, code, "Failed on demand.")
        answer.headers.update(headers)
        return answer

    def unauthorized(self) -> Answer:
        return _error(401, "INVALID_SESSION_ID", "Session expired or invalid")

    def throttled(self, over: Over, headers: Mapping[str, str]) -> Answer:
        """403: of a day's quota, or of requests at once; Salesforce has no quota of a shorter time."""
        day = over.window is not None and over.window >= DAY
        what = "TotalRequests" if day else "ConcurrentRequests (Concurrent API Requests)"
        answer = _error(403, "REQUEST_LIMIT_EXCEEDED", f"{what} Limit exceeded.")
        answer.headers.update(headers)
        return answer

    def quota_headers(self, quotas: Quotas) -> dict[str, str]:
        used, limit = quotas.day() or (min(len(quotas.accepted), DAILY), DAILY)
        return {"Sforce-Limit-Info": f"api-usage={used}/{limit}"}

    def request_id(self, call: Call) -> tuple[str, str]:
        return "x-sfdc-request-id", f"req-{call.seq}"


class SalesforceOAuth(Api):
    """POST /services/oauth2/token: the sandbox's OAuth server under Salesforce's address, and `instance_url`."""

    prefix: ClassVar[str] = "/services/oauth2/"
    guarded: ClassVar[bool] = False
    counted: ClassVar[bool] = False

    def __init__(self, identity: Identity, endpoint: Callable[[], Endpoint]) -> None:
        self._identity = identity
        self._endpoint = endpoint

    def handle(self, call: Call) -> Answer:
        if (call.method, call.path) != ("POST", f"{self.prefix}token"):
            return json_answer(404, {"error": "not_found"})
        return self._identity.token(call.headers, call.body, {"instance_url": self._endpoint().url})


def _error(status: int, code: str, message: str) -> Answer:
    return json_answer(status, [{"message": message, "errorCode": code}])
