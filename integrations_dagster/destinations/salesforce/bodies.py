"""The bodies and addresses of sObject Collections, put together from rows that are encoded already."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from integrations_dagster.destinations.values import canonical_json, json_string
from integrations_dagster.vocabulary import Row


def record(object_: str, row: Row, id_: str | None = None, field: str | None = None) -> bytes:
    """One entry of `records`.

    Args:
        object_: The object's API name.
        row: The row.
        id_: The record's id, for an update.
        field: The match field, which then has the row's match value.
    """
    members = [b'"attributes":{"type":%b}' % json_string(object_)]
    if id_ is not None:
        members.append(b'"id":%b' % json_string(id_))
    encoded = row.encoded or b"{}"
    # Decoding costs more than all the rest, and is needed where a reference may have to be cleared only.
    if b":null" in encoded and b":{" in encoded:
        encoded = canonical_json({name: _emptied(value) for name, value in row.payload.items()})
    if field is not None:
        name = json_string(field) + b":"
        if name not in encoded:
            members.append(name + json_string(row.match))
        elif name + json_string(row.match) not in encoded:
            payload = row.payload
            # A number stays one, where it is the match value.
            if str(payload.get(field)) != row.match:
                encoded = canonical_json({**payload, field: row.match})
    if encoded != b"{}":
        members.append(encoded[1:-1])
    return b"{" + b",".join(members) + b"}"


def records_body(records: Iterable[bytes]) -> bytes:
    """The body of a create, update or upsert of several records, each of which succeeds or fails by itself."""
    return b'{"allOrNone":false,"records":[' + b",".join(records) + b"]}"


def delete_query(ids: Iterable[str]) -> str:
    """The query of a delete."""
    return f"?ids={','.join(quote(id_, safe='') for id_ in ids)}&allOrNone=false"


def _emptied(value: Any) -> Any:
    """A reference of which nothing is left is cleared as a whole: `{"Account": {"Code__c": null}}` names no record."""
    if isinstance(value, dict):
        inner = {name: _emptied(part) for name, part in value.items()}
        return inner if any(part is not None for part in inner.values()) else None
    return value
