"""SOQL, as far as the flows need it: names that may stand in a query, literals, and lists of values cut to size.

Literals and their escapes: Salesforce, "Quoted String Escape Sequences" and "Reserved Characters" (SOQL and SOSL
Reference).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from urllib.parse import quote

from integrations_dagster.destinations.values import number_text

QUERY_BYTES = 8_000
"""Bytes of a query in an address: our choice. Salesforce takes 16,384 bytes of address and headers together
(Salesforce, "Status Codes and Error Responses": 414 and 431), and a token may have some thousand of them."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_LONGEST_EXPONENT = 400


def is_name(text: str) -> bool:
    """Whether a text has the form of an API name of an object or field ("Account", "Plan__c")."""
    return _NAME.fullmatch(text) is not None


def is_path(text: str) -> bool:
    """Whether a text is an API name, or several joined by dots ("Account.ExternalId__c")."""
    return all(is_name(part) for part in text.split("."))


def text_literal(value: str) -> str:
    """A text as a literal: in single quotes, with escapes."""
    return "'" + "".join(_ESCAPES.get(character, character) for character in value) + "'"


def number_literal(value: str) -> str | None:
    """A text as the literal of the number that it is, or None where it is none."""
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    # A number that is written with a huge exponent would become a text of that many digits.
    if not number.is_finite() or abs(number.adjusted()) > _LONGEST_EXPONENT:
        return None
    return number_text(number)


def queries(object_: str, field: str, literals: Iterable[str]) -> Iterator[str]:
    """Queries for id and field of the records whose field has one of the values; each fits into an address.

    Args:
        object_, field: API names.
        literals: The values, as literals.
    """
    fields = "Id" if field == "Id" else f"Id, {field}"
    head = f"SELECT {fields} FROM {object_} WHERE {field} IN ("  # noqa: S608 names are checked
    room = QUERY_BYTES - len(quoted(head))
    chunk: list[str] = []
    used = 0
    for literal in literals:
        size = len(quoted(literal)) + len(quoted(","))
        if chunk and used + size > room:
            yield f"{head}{','.join(chunk)})"
            chunk, used = [], 0
        chunk.append(literal)
        used += size
    if chunk:
        yield f"{head}{','.join(chunk)})"


def quoted(query: str) -> str:
    """A query as part of an address."""
    return quote(query, safe="")
