"""The columns of a shard file as Python values, and as the text that most of them are sent as."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from integrations_dagster.destinations.values import canonical_text, json_number

_EPOCH = {True: datetime(1970, 1, 1, tzinfo=UTC), False: datetime(1970, 1, 1)}  # noqa: DTZ001 (timestamps without zone)


def python_values(rows: pa.RecordBatch, name: str) -> list[Any]:
    """A column of the plan's rows; where computing it met a problem, the error."""
    values = _values(rows.column(f"c:{name}"))
    problems = f"p:{name}"
    if problems not in rows.schema.names:
        return values
    told = rows.column(problems).to_pylist()
    return [value if problem is None else ValueError(problem) for value, problem in zip(values, told, strict=True)]


def _values(column: pa.Array[Any]) -> list[Any]:
    """A column as Python values.

    Timestamps are counted from the epoch here, in microseconds, because pyarrow imports pandas for them.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json":
        return [None if text is None else _document(text) for text in column.to_pylist()]
    if not pa.types.is_timestamp(kind):
        try:
            # DuckDB's maps have no key twice, and a map without order is a JSON object.
            return column.to_pylist(maps_as_pydicts="lossy") if "map<" in str(kind) else column.to_pylist()
        except (ValueError, OverflowError):
            return [_value(scalar) for scalar in column]
    zoned = kind.tz is not None
    counted = column.cast(pa.timestamp("us", kind.tz), safe=False).view(pa.int64()).to_pylist()
    return [None if n is None else _moment(_EPOCH[zoned], n) for n in counted]


def _document(text: str) -> str:
    """A JSON document of a JSON column, written the same way whenever its value is the same; a text, as ever.

    One that holds a number which a double would change stays as it is written.
    """
    try:
        return canonical_text(json.loads(text, parse_float=_exact, parse_constant=_exact))
    except (ValueError, RecursionError, ArithmeticError):
        return text


def _exact(text: str) -> int | float:
    number = json_number(Decimal(text))
    if isinstance(number, str):
        raise ValueError(text)
    return number


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return ValueError("the value is outside what can be sent")


def _moment(epoch: datetime, microseconds: int) -> datetime | ValueError:
    try:
        return epoch + timedelta(microseconds=microseconds)
    except OverflowError:
        return ValueError("the time is outside the years 1 to 9999")


_ESCAPED = '["\\\\\x00-\x1f]'
"""What a JSON string does not hold as it is, as a regular expression."""
_DAYS = (date.min - date(1970, 1, 1)).days, (date.max - date(1970, 1, 1)).days
_LONGEST_FRACTION = 6
"""Digits behind the point up to which Arrow writes a decimal without exponent."""


def plain_text(column: pa.Array[Any], as_text: frozenset[type]) -> pa.Array[Any] | None:
    """A column as texts that may stand between quotation marks in JSON as they are; None where that cannot be told.

    Args:
        as_text: See `Destination.as_text`.
    """
    kind = column.type
    if pa.types.is_string(kind):
        if str not in as_text or pc.any(pc.match_substring_regex(column, _ESCAPED)).as_py():
            return None
        return column
    if pa.types.is_integer(kind):
        return column.cast(pa.string()) if int in as_text else None
    if pa.types.is_decimal128(kind):
        return column.cast(pa.string()) if Decimal in as_text and 0 <= kind.scale <= _LONGEST_FRACTION else None
    if pa.types.is_date32(kind) and date in as_text:
        days = pc.min_max(column.view(pa.int32()))
        first, last = days["min"].as_py(), days["max"].as_py()
        if first is None or (first >= _DAYS[0] and last <= _DAYS[1]):
            return column.cast(pa.string())
    return None
