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
    if field is None:
        return _inputs([before % row.ordinal + row.encoded for row in rows])
    member = _Member(field)
    return _inputs([before % row.ordinal + member.within(row, json_string(row.match)) for row in rows])


def upsert_body(rows: Sequence[Row], field: str) -> bytes:
    """The body of a batch/upsert, or of a batch/update, by the match property."""
    id_property = json_string(field).replace(b"%", b"%%")
    before = b'{"id":%b,"idProperty":' + id_property + b',"objectWriteTraceId":"%d","properties":'
    member = _Member(field)
    inputs = []
    for row in rows:
        value = json_string(row.match)
        inputs.append(before % (value, row.ordinal) + member.within(row, value))
    return _inputs(inputs)


def update_body(rows: Sequence[Row], field: str) -> bytes:
    """The body of a batch/update by record id; the match property takes the row's match value.

    Raises:
        ValueError: A row has no record id.
    """
    before = b'{"id":%b,"objectWriteTraceId":"%d","properties":'
    member = _Member(field)
    inputs = []
    for row in rows:
        if row.destination_id is None:
            raise ValueError(f"The row with key {row.key} is to be updated by record id, and has none.")
        id_ = json_string(row.destination_id)
        inputs.append(before % (id_, row.ordinal) + member.within(row, json_string(row.match)))
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


class _Member:
    """The match property in the payloads of rows, which mostly have it already."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._name = json_string(field) + b":"

    def within(self, row: Row, value: bytes) -> bytes:
        """The payload with the match property, whose value is the row's match value as JSON."""
        # Within a text a quotation mark is escaped, so that this is a member and no part of a value.
        member = self._name + value
        if b"," + member in row.encoded or row.encoded.startswith(b"{" + member):
            return row.encoded
        return canonical_json({**row.payload, self._field: row.match})
