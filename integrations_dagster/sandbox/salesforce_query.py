"""The part of SOQL that the sandbox's Salesforce understands:

    SELECT field, field FROM Object [WHERE field = literal | field IN (literal, ...)]

A field may be a path through one reference ("Account.Name"); a literal a text in quotes, a number, true, false or null.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from integrations_dagster.sandbox.salesforce_fields import NUMBERS, SalesforceField, number_of
from integrations_dagster.sandbox.salesforce_state import Record, SalesforceState

_QUERY = re.compile(
    r"\s*SELECT\s+(.+?)\s+FROM\s+(\w+)(?:\s+WHERE\s+(\w+)\s*(=|IN)\s*(.+?))?\s*", re.DOTALL | re.IGNORECASE
)
_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'|([+-]?[\d.]+)|(true|false|null)", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}


class BadQuery(Exception):
    """A query that is refused.

    Args:
        code: Error code.
        message: For a person.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Query:
    """A query as it was read: fields, object, and (field, texts or numbers) of the condition."""

    fields: tuple[str, ...]
    object: str
    where: str = ""
    values: tuple[Any, ...] = ()


def parse(text: str) -> Query:
    """Read a query.

    Raises:
        BadQuery: It is none.
    """
    found = _QUERY.fullmatch(text)
    if found is None:
        raise BadQuery("MALFORMED_QUERY", f"unexpected token in: {text[:80]}")
    fields = tuple(name.strip() for name in found[1].split(","))
    if found[3] is None:
        return Query(fields, found[2])
    literals = found[5].strip()
    if found[4].upper() == "IN":
        if not (literals.startswith("(") and literals.endswith(")")):
            raise BadQuery("MALFORMED_QUERY", "IN takes a list in parentheses")
        literals = literals[1:-1]
    return Query(fields, found[2], found[3], tuple(_literals(literals)))


def run(state: SalesforceState, query: Query) -> list[dict[str, Any]]:
    """The records of a query, as answers show them.

    Raises:
        BadQuery: Object or fields do not exist, or a literal does not fit its field.
    """
    known = state.fields(query.object)
    if known is None:
        raise BadQuery("INVALID_TYPE", f"sObject type '{query.object}' is not supported.")
    relations = {field.relation: field for field in known.values() if field.relation}
    for name in query.fields:
        head, _, rest = name.partition(".")
        inner = (state.fields(relations[head].refers) or {}) if rest and head in relations else {}
        if (rest not in inner) if rest else (name not in known):
            raise BadQuery("INVALID_FIELD", f"No such column '{name}' on entity '{query.object}'.")
    records = _matching(state, query, known)
    return [_shown(state, record, query.fields, relations) for record in records]


def _literals(text: str) -> list[Any]:
    values: list[Any] = []
    position = 0
    while True:
        found = _LITERAL.match(text, position)
        if found is None:
            raise BadQuery("MALFORMED_QUERY", f"unexpected token: {text[position : position + 20]!r}")
        if found[1] is not None:
            values.append(_ESCAPE.sub(_unescape, found[1]))
        elif found[2] is not None:
            values.append(float(found[2]))
        else:
            values.append({"true": True, "false": False, "null": None}[found[3]])
        position = found.end()
        rest = text[position:].lstrip()
        if not rest:
            return values
        if not rest.startswith(","):
            raise BadQuery("MALFORMED_QUERY", f"unexpected token: {rest[:20]!r}")
        position = len(text) - len(rest.removeprefix(",").lstrip())


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    if len(code) == 5:
        return chr(int(code[1:], 16))
    if code.lower() not in _ESCAPED:
        raise BadQuery("MALFORMED_QUERY", f"Illegal escape \\{code}")
    return _ESCAPED[code.lower()]


def _matching(state: SalesforceState, query: Query, known: Mapping[str, SalesforceField]) -> list[Record]:
    if not query.where:
        return list(state.live(query.object))
    field = known.get(query.where)
    if field is None:
        raise BadQuery("INVALID_FIELD", f"No such column '{query.where}' on entity '{query.object}'.")
    kind = "double" if field.type in NUMBERS else field.type
    for value in query.values:
        if kind == "double" and isinstance(value, str):
            message = f"value of filter criterion for field '{field.name}' must be of type double and should not be "
            raise BadQuery("INVALID_FIELD", message + "enclosed in quotes")
        if kind not in ("double", "boolean") and not isinstance(value, str | None):
            message = f"value of filter criterion for field '{field.name}' must be of type string and should be "
            raise BadQuery("INVALID_FIELD", message + "enclosed in quotes")
    if field.name == "Id":
        numbers = dict.fromkeys(number for value in query.values if (number := number_of(value)) is not None)
        found = (state.one(number) for number in numbers)
        return [record for record in found if record and record.object == query.object and not record.deleted]
    if field.indexed:
        wanted = {r.number: r for value in query.values for r in state.holders(query.object, field, value)}
        return [wanted[number] for number in sorted(wanted)]
    keys = {None if value is None else field.key(value) for value in query.values}
    return [
        record
        for record in state.live(query.object)
        if (None if (value := record.value(field.name)) is None else field.key(value)) in keys
    ]


def _shown(
    state: SalesforceState, record: Record, names: tuple[str, ...], relations: Mapping[str, SalesforceField]
) -> dict[str, Any]:
    shown: dict[str, Any] = {"attributes": {"type": record.object, "url": f"/sobjects/{record.object}/{record.id}"}}
    for name in names:
        head, _, rest = name.partition(".")
        if not rest:
            shown[name] = record.value(name)
            continue
        number = number_of(record.fields.get(relations[head].name))
        referred = None if number is None else state.one(number)
        if referred is None:
            shown[head] = None
        else:
            inner = shown.setdefault(head, {"attributes": {"type": referred.object}})
            inner[rest] = referred.value(rest)
    return shown
