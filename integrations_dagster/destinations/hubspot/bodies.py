"""The bodies of HubSpot's batch endpoints, put together from rows that are encoded already.

Each is what `values.canonical_json` gives for the whole: members in alphabetical order, no spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from integrations_dagster.destinations.values import canonical_json, json_string
from integrations_dagster.vocabulary import Row


def trace_of(row: Row) -> str:
    """The `objectWriteTraceId` of a row: unique within its batch, and part of nothing that HubSpot stores."""
    return str(row.ordinal)


def create_body(rows: Sequence[Row], field: str | None) -> bytes:
    """The body of a batch/create; `field` is the match property, where the sync has one."""
    before = b'{"associations":[],"objectWriteTraceId":"%d","properties":'
    return _inputs([before % row.ordinal + _properties(row, field) for row in rows])


def upsert_body(rows: Sequence[Row], field: str) -> bytes:
    """The body of a batch/upsert, or of a batch/update, by the match property."""
    id_property = json_string(field).replace(b"%", b"%%")
    before = b'{"id":%b,"idProperty":' + id_property + b',"objectWriteTraceId":"%d","properties":'
    return _inputs([before % (json_string(row.match), row.ordinal) + _properties(row, field) for row in rows])


def update_body(rows: Sequence[Row], field: str) -> bytes:
    """The body of a batch/update by record id; the match property takes the row's match value.

    Raises:
        ValueError: A row has no record id.
    """
    inputs = []
    for row in rows:
        if row.destination_id is None:
            raise ValueError(f"The row with key {row.key} is to be updated by record id, and has none.")
        before = b'{"id":%b,"objectWriteTraceId":"%d","properties":'
        inputs.append(before % (json_string(row.destination_id), row.ordinal) + _properties(row, field))
    return _inputs(inputs)


def read_body(matches: Iterable[str], field: str) -> bytes:
    """The body of a batch/read by the match property."""
    return canonical_json(
        {
            "idProperty": field,
            "inputs": [{"id": match} for match in matches],
            "properties": [field],
            "propertiesWithHistory": [],
        }
    )


def archive_body(ids: Iterable[str]) -> bytes:
    """The body of a batch/archive."""
    return canonical_json({"inputs": [{"id": id_} for id_ in ids]})


def _inputs(inputs: Sequence[bytes]) -> bytes:
    return b'{"inputs":[' + b"},".join(inputs) + b"}]}"


def _properties(row: Row, field: str | None) -> bytes:
    if field is None:
        return row.encoded
    # Within a text a quotation mark is escaped, so that this is a member and no part of a value.
    member = json_string(field) + b":" + json_string(row.match)
    if b"," + member in row.encoded or row.encoded.startswith(b"{" + member):
        return row.encoded
    return canonical_json({**row.payload, field: row.match})
