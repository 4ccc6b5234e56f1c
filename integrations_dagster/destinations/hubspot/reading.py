"""What HubSpot can be asked for: owners, companies and contacts to look values up in, and the properties of an object.

Companies and contacts are listed whole, 100 a request ("List", CRM API v3). The search API could ask for single values,
but it allows 5 requests a second for the whole account, shows 10,000 results of a search at the most, and lags behind
what was written (HubSpot, "Search the CRM"); the list shares the ordinary limit and is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from integrations_dagster.destinations.base import Flow, Request, Response
from integrations_dagster.destinations.errors import Unavailable
from integrations_dagster.destinations.hubspot.answers import document_of
from integrations_dagster.destinations.hubspot.errors import request_id
from integrations_dagster.destinations.reading import FieldType, Page, Reference, TargetField

PAGE = 100
"""Records of a page: what the lists of objects allow at the most, and the default of owners (OpenAPI files)."""
SENSITIVE = ("sensitive", "highly_sensitive")
"""What `dataSensitivity` must say for HubSpot to list such properties (its OpenAPI file)."""

OWNER_COLUMNS = ("id", "email", "userId", "firstName", "lastName", "type")
_LOWER = {"email": "trim_lower", "domain": "trim_lower"}
REFERENCES = (
    Reference("owners", "id", "email", OWNER_COLUMNS, _LOWER, "users who can own records"),
    Reference("archived_owners", "id", "email", OWNER_COLUMNS, _LOWER, "owners who were deactivated"),
    Reference("companies", "id", "domain", None, _LOWER, "companies, by any of their properties"),
    Reference("contacts", "id", "email", None, _LOWER, "contacts, by any of their properties"),
)

_TYPES: Mapping[str, FieldType] = {
    "string": FieldType.STRING,
    "number": FieldType.NUMBER,
    "bool": FieldType.BOOLEAN,
    "enumeration": FieldType.ENUM,
    "date": FieldType.DATE,
    "datetime": FieldType.TIMESTAMP,
    "phone_number": FieldType.PHONE,
    "json": FieldType.JSON,
}


def read_page(reference: str, columns: Sequence[str], cursor: str | None) -> Flow[Page]:
    """One page of a reference of `REFERENCES`."""
    query: dict[str, str] = {"limit": str(PAGE)}
    if cursor is not None:
        query["after"] = cursor
    if reference in ("owners", "archived_owners"):
        query["archived"] = "true" if reference == "archived_owners" else "false"
        response = yield Request("GET", f"/crm/v3/owners?{urlencode(query)}")
        results, after = _page_of(response)
        return Page(tuple({name: _text(owner.get(name)) for name in OWNER_COLUMNS} for owner in results), after)
    wanted = [name for name in columns if name != "id"]
    if wanted:
        query["properties"] = ",".join(wanted)
    response = yield Request("GET", f"/crm/v3/objects/{reference}?{urlencode(query)}")
    results, after = _page_of(response)
    rows = []
    for record in results:
        properties = record.get("properties")
        if not isinstance(properties, dict):
            raise _unreadable(response, "a record without `properties`")
        rows.append({"id": _text(record.get("id")), **{name: _text(properties.get(name)) for name in wanted}})
    return Page(tuple(rows), after)


def read_properties(object_: str, sensitivity: str = "") -> Flow[list[TargetField]]:
    """The properties of an object, by name: ordinary ones, or those of one of `SENSITIVE`."""
    query = f"?{urlencode({'dataSensitivity': sensitivity})}" if sensitivity else ""
    response = yield Request("GET", f"/crm/v3/properties/{object_}{query}")
    results, _ = _page_of(response)
    fields = [_field(object_, definition, response) for definition in results if definition.get("archived") is not True]
    return sorted(fields, key=lambda field: field.name)


def _field(object_: str, definition: Mapping[str, Any], response: Response) -> TargetField:
    name, native = definition.get("name"), definition.get("type")
    if not isinstance(name, str) or not isinstance(native, str):
        raise _unreadable(response, "a property without name or type")
    # HubSpot does not call a contact's email unique, and still finds and deduplicates contacts by it.
    email = object_ == "contacts" and name == "email"
    modification = definition.get("modificationMetadata")
    read_only = isinstance(modification, dict) and modification.get("readOnlyValue") is True
    options = definition.get("options") or ()
    type_ = _TYPES.get(native, FieldType.UNKNOWN)
    listed = type_ is FieldType.ENUM and definition.get("externalOptions") is not True
    return TargetField(
        name=name,
        label=str(definition.get("label") or name),
        type=FieldType.EMAIL if email else type_,
        native=native,
        writable=not read_only and definition.get("calculated") is not True,
        options=tuple(str(option.get("value")) for option in options if isinstance(option, dict)) if listed else (),
        unique=email or definition.get("hasUniqueValue") is True,
    )


def _page_of(response: Response) -> tuple[list[dict[str, Any]], str | None]:
    document = document_of(response)
    results = document.get("results")
    if not isinstance(results, list) or not all(isinstance(entry, dict) for entry in results):
        raise _unreadable(response, "no list of `results`")
    paging = document.get("paging") or {}
    following = paging.get("next") if isinstance(paging, dict) else paging
    if following is None:
        return results, None
    after = following.get("after") if isinstance(following, dict) else None
    if not isinstance(after, str) or not after:
        raise _unreadable(response, "`paging` in an unknown shape")
    return results, after


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else str(value)


def _unreadable(response: Response, what: str) -> Unavailable:
    return Unavailable(f"HubSpot answered {response.status} with {what}.", "UNREADABLE_ANSWER", request_id(response))
