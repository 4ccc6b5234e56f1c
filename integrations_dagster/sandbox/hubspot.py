"""The sandbox's HubSpot: CRM v3 contacts and companies, their properties, owners, and account information.

Paths and bodies follow HubSpot's published OpenAPI files; what those leave open follows answers that users of the API
have recorded. docs/sandbox.md lists what is not imitated.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from integrations_dagster.sandbox.answers import Answer, HubSpotError, json_answer, row_error, timestamp
from integrations_dagster.sandbox.api import Api, Call
from integrations_dagster.sandbox.hubspot_write import (
    MAX_BATCH,
    SINGULAR,
    TYPE_IDS,
    inputs_of,
    refuse_duplicates,
    result,
    write_batch,
    write_one,
)
from integrations_dagster.sandbox.owners import MAX_PAGE
from integrations_dagster.sandbox.properties import SENSITIVITIES
from integrations_dagster.sandbox.quota import DAY, Over, Quotas
from integrations_dagster.sandbox.store import OBJECTS, Record, Store

_DEFAULT_PROPERTIES = {"contacts": ("email", "firstname", "lastname"), "companies": ("name", "domain")}
_ALIASES = {name: object_ for object_, id_ in TYPE_IDS.items() for name in (id_, object_, SINGULAR[object_].lower())}
_DEFAULT_PAGE = 10
_DAILY = 1_000_000


def portal_id(sandbox: str) -> int:
    """The portal id of a sandbox: eight digits, made from the sandbox's id (hex)."""
    return 10_000_000 + int(sandbox[:8], 16) % 90_000_000


class HubSpot(Api):
    """Answers HubSpot's paths out of a store.

    Args:
        store: The state.
        portal: The portal id it answers with.
        url: Returns the server's own URL, for links.
    """

    prefix: ClassVar[str] = "/"

    def __init__(self, store: Store, portal: int, url: Callable[[], str]) -> None:
        self._store = store
        self._portal = portal
        self._url = url

    def handle(self, call: Call) -> Answer:
        try:
            if call.body and call.document is None:
                raise HubSpotError(400, "VALIDATION_ERROR", "Invalid input JSON on line 1, column 1")
            return self._answer(call.method, call.path, call.query, call.document, call.rejections)
        except HubSpotError as error:
            return error.answer(rows=call.rows)
        except UnicodeEncodeError:
            # JSON can name half a surrogate pair, which is no text.
            refusal = HubSpotError(400, "VALIDATION_ERROR", "Invalid input JSON: an unpaired surrogate.")
            return refusal.answer(rows=call.rows)

    def empty(self, call: Call) -> Answer:  # noqa: ARG002 an archive that says so is no archive
        now = timestamp()
        return json_answer(200, {"status": "COMPLETE", "results": [], "startedAt": now, "completedAt": now})

    def refusal(self, status: int, headers: Mapping[str, str]) -> Answer:
        if status == 429:
            return self._over("TEN_SECONDLY_ROLLING", headers)
        category = "INTERNAL_ERROR" if status >= 500 else "VALIDATION_ERROR"
        return HubSpotError(
            status, category, "internal error" if status >= 500 else "refused", headers=headers
        ).answer()

    def unauthorized(self) -> Answer:
        return HubSpotError(
            401,
            "INVALID_AUTHENTICATION",
            "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more "
            "details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
        ).answer()

    def throttled(self, over: Over, headers: Mapping[str, str]) -> Answer:
        if over.window is None:
            return self._over("CONCURRENT_REQUESTS", headers)
        policy = "SECONDLY" if over.window <= 1 else "DAILY" if over.window >= DAY else "TEN_SECONDLY_ROLLING"
        return self._over(policy, headers)

    @staticmethod
    def _over(policy: str, headers: Mapping[str, str]) -> Answer:
        extra = {"errorType": "RATE_LIMIT", "policyName": policy}
        message = f"You have reached your {policy.lower()} limit."
        return HubSpotError(429, "RATE_LIMITS", message, extra=extra, headers=headers).answer()

    def quota_headers(self, quotas: Quotas) -> dict[str, str]:
        """HubSpot's rate limit headers: the day, the interval, and the second where that is another limit."""
        now = time.monotonic()
        daily = [w for w in quotas.windows if w.window >= DAY]
        others = [w for w in quotas.windows if w.window < DAY]
        limit = daily[0].limit if daily else _DAILY
        left = daily[0].left(now) if daily else max(0, _DAILY - len(quotas.accepted))
        headers = {"X-HubSpot-RateLimit-Daily": str(limit), "X-HubSpot-RateLimit-Daily-Remaining": str(left)}
        if others:
            interval = max(others, key=lambda w: w.window)
            headers |= {
                "X-HubSpot-RateLimit-Interval-Milliseconds": str(int(interval.window * 1000)),
                "X-HubSpot-RateLimit-Max": str(interval.limit),
                "X-HubSpot-RateLimit-Remaining": str(interval.left(now)),
            }
            for second in others:
                if second is not interval and second.window == 1:
                    headers["X-HubSpot-RateLimit-Secondly"] = str(second.limit)
                    headers["X-HubSpot-RateLimit-Secondly-Remaining"] = str(second.left(now))
        return headers

    def request_id(self, call: Call) -> tuple[str, str]:  # noqa: ARG002
        return "x-hubspot-correlation-id", str(uuid.uuid4())

    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        document: Any,
        rejections: Sequence[Mapping[str, Any]],
    ) -> Answer:
        parts = path.strip("/").split("/")
        match parts:
            case ["crm", "v3", "objects", name, "batch", operation] if method == "POST":
                return self._batch(_object(name), operation, query, document, rejections)
            case ["crm", "v3", "objects", name]:
                return self._collection(method, _object(name), query, document)
            case ["crm", "v3", "objects", name, key]:
                return self._single(method, _object(name), key, query, document)
            case ["crm", "v3", "properties", name]:
                return self._properties(method, _object(name), query, document)
            case ["crm", "v3", "properties", name, property_] if method in ("GET", "DELETE"):
                return self._property(method, _object(name), property_)
            case ["crm", "v3", "owners"] if method == "GET":
                return self._owners(query)
            case ["crm", "v3", "owners", id_] if method == "GET":
                return self._owner(id_, query)
            case ["account-info", "v3", "details"] if method == "GET":
                return self._account()
        raise HubSpotError(404, "OBJECT_NOT_FOUND", f"The sandbox does not imitate {method} {path}.")

    def _batch(
        self,
        object_: str,
        operation: str,
        query: Mapping[str, str],
        document: Any,
        rejections: Sequence[Mapping[str, Any]],
    ) -> Answer:
        if operation in ("upsert", "create", "update"):
            return write_batch(self._store, object_, operation, document, rejections, self._portal)
        if operation == "read":
            return self._read(object_, query, document)
        if operation == "archive":
            keys = [entry["id"] for entry in inputs_of(document, ids=True)]
            self._archive(object_, keys)
            return Answer(204)
        raise HubSpotError(404, "OBJECT_NOT_FOUND", f"The sandbox does not imitate batch/{operation}.")

    def _archive(self, object_: str, keys: Sequence[str]) -> None:
        ids = {int(key) for key in keys if key.isascii() and key.isdigit() and len(key) < 19}
        with self._store.transaction():
            self._store.archive(object_, ids, timestamp())

    def _read(self, object_: str, query: Mapping[str, str], document: Any) -> Answer:
        started = timestamp()
        inputs = inputs_of(document, ids=True)
        names = document.get("properties")
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise HubSpotError(400, "VALIDATION_ERROR", "Invalid input JSON: properties must be an array of strings.")
        if query.get("archived") == "true":
            raise HubSpotError(400, "VALIDATION_ERROR", "The sandbox does not imitate reading archived records.")
        refuse_duplicates(entry["id"] for entry in inputs)
        found = self._find(object_, [entry["id"] for entry in inputs], document.get("idProperty"))
        missing = [entry["id"] for entry in inputs if entry["id"] not in found]
        records = {record.id: record for record in found.values()}
        body: dict[str, Any] = {
            "status": "COMPLETE",
            "results": [self._shown(object_, records[id_], names) for id_ in sorted(records, reverse=True)],
            "startedAt": started,
            "completedAt": timestamp(),
        }
        if missing:
            body["numErrors"] = 1
            body["errors"] = [
                row_error(
                    "OBJECT_NOT_FOUND",
                    f"Could not get some {SINGULAR[object_].upper()} objects, they may be deleted or not exist. "
                    "Check that ids are valid.",
                    context={"ids": missing},
                )
            ]
        return json_answer(207 if missing else 200, body, failed_rows=len(missing))

    def _find(self, object_: str, keys: Sequence[str], id_property: str | None) -> dict[str, Record]:
        if id_property in (None, "hs_object_id"):
            ids = {key: int(key) for key in keys if key.isascii() and key.isdigit() and len(key) < 19}
        else:
            definition = self._store.properties(object_).get(str(id_property))
            if definition is None or not definition.unique:
                raise HubSpotError(
                    400,
                    "VALIDATION_ERROR",
                    f"Unable to read by non-unique {TYPE_IDS[object_]} property {id_property}",
                )
            normal = {key: definition.normalize(key) for key in keys}
            holders = self._store.holders(object_, definition.name, set(normal.values()))
            ids = {key: holders[value] for key, value in normal.items() if value in holders}
        records = self._store.records(object_, ids.values())
        return {key: records[id_] for key, id_ in ids.items() if id_ in records}

    def _shown(self, object_: str, record: Record, names: Sequence[str] | None) -> dict[str, Any]:
        chosen = names or _DEFAULT_PROPERTIES[object_]
        properties = {name: record.properties[name] for name in chosen if name in record.properties}
        return result(record, properties, object_)

    def _collection(self, method: str, object_: str, query: Mapping[str, str], document: Any) -> Answer:
        if method == "POST":
            written = write_one(self._store, object_, "create", "", None, document, self._portal)
            return json_answer(201, result(written.record, written.record.properties, object_))
        if method != "GET":
            raise _method_not_allowed(method)
        limit, after = query.get("limit", str(_DEFAULT_PAGE)), query.get("after", "0")
        if not limit.isdigit() or not after.isdigit() or not 0 < int(limit) <= MAX_BATCH:
            raise HubSpotError(
                400, "VALIDATION_ERROR", f"limit is a number from 1 to {MAX_BATCH}, after a paging cursor."
            )
        page = self._store.page(object_, int(after), int(limit) + 1, archived=query.get("archived") == "true")
        shown = page[: int(limit)]
        results = []
        for row in shown:
            record = Record(row["id"], row["properties"], row["created"], row["updated"])
            entry = self._shown(object_, record, _listed(query.get("properties")))
            if row["archived"]:
                entry |= {"archived": True, "archivedAt": row["archived"]}
            results.append(entry)
        body: dict[str, Any] = {"results": results}
        if len(page) > len(shown):
            cursor = str(shown[-1]["id"])
            link = f"{self._url()}/crm/v3/objects/{object_}?limit={limit}&after={cursor}"
            body["paging"] = {"next": {"after": cursor, "link": link}}
        return json_answer(200, body)

    def _single(self, method: str, object_: str, key: str, query: Mapping[str, str], document: Any) -> Answer:
        id_property = query.get("idProperty")
        if method == "PATCH":
            written = write_one(self._store, object_, "update", key, id_property, document, self._portal)
            return json_answer(200, result(written.record, written.record.properties, object_))
        if method == "DELETE":
            self._archive(object_, [key])
            return Answer(204)
        if method != "GET":
            raise _method_not_allowed(method)
        record = self._find(object_, [key], id_property).get(key)
        if record is None:
            raise HubSpotError(404, "OBJECT_NOT_FOUND", "Object not found.  objectId are usually numeric.")
        return json_answer(200, self._shown(object_, record, _listed(query.get("properties"))))

    def _properties(self, method: str, object_: str, query: Mapping[str, str], document: Any) -> Answer:
        if method == "GET":
            wanted = query.get("dataSensitivity", "non_sensitive")
            if wanted not in SENSITIVITIES:
                raise HubSpotError(400, "VALIDATION_ERROR", f"{wanted} is no data sensitivity.")
            # None is archived: a property that was is gone.
            listed = [] if query.get("archived") == "true" else self._store.properties(object_).values()
            return json_answer(200, {"results": [p.as_json() for p in listed if p.sensitivity == wanted]})
        if method != "POST":
            raise _method_not_allowed(method)
        return json_answer(201, self.define_property(object_, document))

    def define_property(self, object_: str, document: Any) -> dict[str, Any]:
        """Add a custom property; returns it as HubSpot shows it.

        Raises:
            HubSpotError: 400 for a bad definition, 409 for a name that is taken.
        """
        if not isinstance(document, dict):
            raise HubSpotError(400, "VALIDATION_ERROR", "Invalid input JSON: a property definition is needed.")
        name = document.get("name")
        if name in self._store.properties(object_):
            raise HubSpotError(409, "OBJECT_ALREADY_EXISTS", f"A property named '{name}' already exists.")
        try:
            return self._store.define_property(object_, document).as_json()
        except (ValueError, KeyError, TypeError) as error:
            raise HubSpotError(400, "VALIDATION_ERROR", str(error)) from error

    def _property(self, method: str, object_: str, name: str) -> Answer:
        definition = self._store.properties(object_).get(name)
        if definition is None:
            raise HubSpotError(404, "OBJECT_NOT_FOUND", f"Property '{name}' was not found on object {object_}.")
        if method == "DELETE":
            if not definition.custom:
                raise HubSpotError(
                    400, "VALIDATION_ERROR", f"Property '{name}' is HubSpot's own and cannot be archived."
                )
            self._store.remove_property(object_, name)
            return Answer(204)
        return json_answer(200, definition.as_json())

    def _owners(self, query: Mapping[str, str]) -> Answer:
        limit, after = query.get("limit", str(MAX_BATCH)), query.get("after", "0")
        if not limit.isdigit() or not after.isdigit() or not 0 < int(limit) <= MAX_PAGE:
            raise HubSpotError(
                400, "VALIDATION_ERROR", f"limit is a number from 1 to {MAX_PAGE}, after a paging cursor."
            )
        archived = query.get("archived") == "true"
        page = self._store.owners.page(int(after), int(limit) + 1, query.get("email"), archived=archived)
        shown = page[: int(limit)]
        body: dict[str, Any] = {"results": shown}
        if len(page) > len(shown):
            cursor = shown[-1]["id"]
            link = f"{self._url()}/crm/v3/owners?limit={limit}&after={cursor}&archived={str(archived).lower()}"
            body["paging"] = {"next": {"after": cursor, "link": link}}
        return json_answer(200, body)

    def _owner(self, id_: str, query: Mapping[str, str]) -> Answer:
        owner = self._store.owners.one(int(id_)) if id_.isdigit() and len(id_) < 19 else None
        if owner is None or owner["archived"] != (query.get("archived") == "true"):
            raise HubSpotError(404, "OBJECT_NOT_FOUND", f"There is no owner with the id {id_}.")
        return json_answer(200, owner)

    def _account(self) -> Answer:
        return json_answer(
            200,
            {
                "portalId": self._portal,
                "accountType": "DEVELOPER_TEST",
                "timeZone": "UTC",
                "companyCurrency": "EUR",
                "additionalCurrencies": [],
                "utcOffset": "+00:00",
                "utcOffsetMilliseconds": 0,
                "uiDomain": "app.hubspot.com",
                "dataHostingLocation": "sandbox",
            },
        )


def _object(name: str) -> str:
    object_ = _ALIASES.get(name)
    if object_ is None:
        raise HubSpotError(
            400, "VALIDATION_ERROR", f"Unable to infer object type from: {name}. The sandbox has {', '.join(OBJECTS)}."
        )
    return object_


def _listed(value: str | None) -> list[str] | None:
    return value.split(",") if value else None


def _method_not_allowed(method: str) -> HubSpotError:
    return HubSpotError(405, "METHOD_NOT_ALLOWED", f"Method {method} is not allowed here.")
