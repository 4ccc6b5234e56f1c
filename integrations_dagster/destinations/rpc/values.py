"""Values of types that JSON has no form for, in the forms that an API gives them (`api.types`)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from integrations_dagster.destinations.rpc import templates
from integrations_dagster.destinations.values import decimal_text, json_value

TYPES = ("decimal", "date", "timestamp", "time", "bytes")
_DATE = ("year", "month", "day")
_TIME = ("hour", "minute", "second", "microsecond")
NAMES: dict[str, tuple[str, ...]] = {
    "decimal": ("value", "number"),
    "date": ("value", *_DATE),
    "timestamp": ("value", *_DATE, *_TIME),
    "time": ("value", *_TIME),
    "bytes": ("value",),
}
"""What the form of each type may name: `value` is its text (base64 of bytes), `number` the double next to a decimal."""


def kind_of(value: Any) -> str | None:
    """The type of a value that `api.types` may have a form for."""
    if isinstance(value, Decimal):
        return "decimal"
    if isinstance(value, datetime):
        return "timestamp"
    if isinstance(value, date):
        return "date"
    if isinstance(value, time):
        return "time"
    return "bytes" if isinstance(value, bytes | bytearray | memoryview) else None


def encoded(value: Any, types: Mapping[Any, Any], plain: Callable[[Any], Any] | None) -> Any:
    """A column value as the API takes it.

    Args:
        types: Forms by type.
        plain: What makes the values of other types; None: `values.json_value`.

    Raises:
        ValueError: The value has no form here.
    """
    kind = kind_of(value)
    if kind is None or kind not in types:
        return (plain or json_value)(value)
    return templates.fill(types[kind], _parts(kind, value).get)


def _parts(kind: str, value: Any) -> dict[str, Any]:
    if kind == "decimal":
        return {"value": decimal_text(value), "number": float(value)}
    if kind == "bytes":
        return {"value": base64.b64encode(value).decode()}
    if kind == "timestamp":
        # As everywhere: moments are sent in UTC, and one without a zone is taken as UTC.
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    parts = {name: getattr(value, name) for name in NAMES[kind] if name != "value"}
    return {"value": json_value(value), **parts}
