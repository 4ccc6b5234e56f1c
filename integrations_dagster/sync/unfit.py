"""Values that do not fit their field: what kind of value it is, and its text, whole or quoted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from integrations_dagster.destinations.values import decimal_text, json_text, utc_text

QUOTED = 40
"""Characters of a value that a reason quotes."""


class Unfit(ValueError):
    """A value that does not fit its field.

    Args:
        value: The value.
        why: What is wrong, said of it ("is no integer").
        code: For grouping.
    """

    def __init__(self, value: Any, why: str, code: str = "VALUE") -> None:
        super().__init__(f"{_quoted(value)} {why}.")
        self.code = code
        self.bare = f"a {class_of(value)} {why}."
        """The same without the value."""


def class_of(value: Any) -> str:
    """What kind of value it is, for a person."""
    for kinds, name in (
        (bool, "boolean"),
        ((int, float, Decimal), "number"),
        ((str, UUID), "text"),
        (datetime, "timestamp"),
        (date, "date"),
        (time, "time"),
        (Mapping, "JSON object"),
        ((list, tuple), "list"),
        ((bytes, bytearray, memoryview), "binary value"),
    ):
        if isinstance(value, kinds):
            return name
    return type(value).__name__


def _quoted(value: Any) -> str:
    name = class_of(value)
    if isinstance(value, str):
        cut = value if len(value) <= QUOTED else f"{value[:QUOTED]}…"
        return f"the text {json.dumps(cut, ensure_ascii=False)}"
    if isinstance(value, bool | int | float | Decimal | date):
        text = str(value)
        return f"the {name} {text if len(text) <= QUOTED else f'{text[:QUOTED]}…'}"
    return f"a {name}"


def text_of(value: Any) -> str:
    """A value as text: numbers exact and without exponent, moments ISO 8601 in UTC, lists and objects compact JSON.

    Raises:
        Unfit: It has no text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    try:
        if isinstance(value, Decimal):
            return decimal_text(value)
        if isinstance(value, float):
            return decimal_text(Decimal(repr(value)))
        if isinstance(value, datetime):
            return utc_text(value, "microseconds" if value.microsecond else "seconds")
        if isinstance(value, date | time):
            return value.isoformat()
        if isinstance(value, UUID):
            return str(value)
        if isinstance(value, Mapping | list | tuple):
            return json_text(value)
    except ValueError:
        pass
    raise Unfit(value, "has no form as text")
