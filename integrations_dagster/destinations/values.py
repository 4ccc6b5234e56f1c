"""Column values as JSON: exact, and the same bytes every time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any
from uuid import UUID

EXACT_INT = 2**53
"""Integers from this on are not exact for readers that keep JSON numbers as doubles (JavaScript)."""

_CANONICAL = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def canonical_json(payload: Any) -> bytes:
    """Encode JSON values with sorted keys and no spaces, as UTF-8: equal values give equal bytes.

    Args:
        payload: What an `encode` method returns, or a dict or list of it.

    Raises:
        ValueError: A float is NaN or infinite, or a text is no valid Unicode.
    """
    try:
        return _CANONICAL.encode(payload).encode()
    except UnicodeEncodeError:
        # The original error quotes the whole row.
        raise ValueError("A text is not valid Unicode: it holds half of a surrogate pair.") from None


def canonical_text(value: Any) -> str:
    """A JSON value as `canonical_json` writes it, as text.

    Raises:
        ValueError: A float is NaN or infinite.
    """
    # Most values are texts, and the encoder as a whole costs ten times what its escaping does.
    return encode_basestring(value) if type(value) is str else _CANONICAL.encode(value)


def json_string(text: str) -> bytes:
    """A text as canonical JSON.

    Raises:
        ValueError: It is no valid Unicode.
    """
    try:
        return encode_basestring(text).encode()
    except UnicodeEncodeError:
        raise ValueError("A text is not valid Unicode: it holds half of a surrogate pair.") from None


def decimal_text(value: Decimal) -> str:
    """The exact decimal, without exponent: "0.10", "1200".

    Raises:
        ValueError: NaN or infinity.
    """
    if not value.is_finite():
        raise ValueError(f"{value} is not a number that can be sent.")
    return format(value, "f")


def finite(value: float) -> float:
    """The float itself; zero without a sign, since 0.0 and -0.0 are equal.

    Raises:
        ValueError: NaN or infinity.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a number that can be sent.")
    return value + 0.0


def number_text(value: float | Decimal) -> str:
    """The exact number without exponent and trailing zeros: equal numbers, of whatever type, give equal texts.

    Raises:
        ValueError: NaN or infinity.
    """
    if isinstance(value, int):
        return str(int(value))
    text = decimal_text(Decimal(repr(value)) if isinstance(value, float) else value)
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def json_number(value: float | Decimal) -> int | float | str:
    """A JSON number where readers that keep numbers as doubles get it exactly, else its exact text; equal numbers, of
    whatever type, give equal values.

    Raises:
        ValueError: NaN or infinity.
    """
    if isinstance(value, int):
        return safe_int(int(value))
    if isinstance(value, float):
        if not value.is_integer():
            return finite(value)
        value = Decimal(repr(value))
    if value == value.to_integral_value():
        return safe_int(int(value))
    double = float(value)
    return double if Decimal(repr(double)) == value else number_text(value)


def utc_text(value: datetime, timespec: str = "milliseconds") -> str:
    """ISO 8601 in UTC, ending in "Z"; a datetime without a zone is taken as UTC.

    Raises:
        ValueError: The moment lies outside the years 1 to 9999 in UTC.
    """
    try:
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value.isoformat()} lies outside the years 1 to 9999 in UTC.") from None
    return moment.isoformat(timespec=timespec).removesuffix("+00:00") + "Z"


def safe_int(value: int) -> int | str:
    """The integer, or its text where a reader that keeps JSON numbers as doubles would change it."""
    return value if -EXACT_INT < value < EXACT_INT else str(value)


def refuse(value: Any) -> Any:
    """Refuse a value that has no form in JSON.

    Raises:
        ValueError: Always, with a reason for a person.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        raise ValueError("Binary values cannot be sent: encode the column as text (base64 or hex) in the model's SQL.")
    if isinstance(value, timedelta):
        raise ValueError("Intervals cannot be sent: turn the column into a number or text in the model's SQL.")
    raise ValueError(f"Values of type {type(value).__name__} cannot be sent: cast the column in the model's SQL.")


def json_value(value: Any) -> Any:
    """A column value as JSON that keeps it exact.

    bool, finite float, text, list and dict stay what they are; decimals and integers of 2**53 and more become text;
    dates and times ISO 8601, moments in UTC with "Z" and microseconds only where there are any (a datetime without a
    zone is taken as UTC). Nested values likewise; dict keys become text.

    Raises:
        ValueError: NaN, infinity, bytes, an interval or an unknown type, with a reason for a person.
    """
    encode = _JSON.get(type(value))
    if encode is not None:
        return encode(value)
    for kind, general in _JSON_GENERAL:
        if isinstance(value, kind):
            return general(value)
    return refuse(value)


def stored_value(value: Any) -> Any:
    r"""`json_value`, for what stores any value: beside it, bytes as "\x" and hexadecimal digits, and numbers that are
    none as "NaN", "Infinity" and "-Infinity"."""
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + bytes(value).hex()
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return json_value(value)


def _json_key(key: Any) -> str:
    encoded = json_value(key) if key is not None else "null"
    return encoded if isinstance(encoded, str) else json.dumps(encoded)


def _nested(value: Any) -> Any:
    return None if value is None else json_value(value)


def _json_dict(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {_json_key(k): _nested(v) for k, v in value.items()}


def _json_list(value: Any) -> list[Any]:
    return [_nested(item) for item in value]


def _json_datetime(value: datetime) -> str:
    return utc_text(value, "microseconds" if value.microsecond else "seconds")


_JSON_GENERAL: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (bool, bool),
    (int, lambda value: safe_int(int(value))),
    (float, lambda value: finite(float(value))),
    (str, str),
    (Decimal, decimal_text),
    (datetime, _json_datetime),
    (date, date.isoformat),
    (time, time.isoformat),
    (UUID, str),
    (Mapping, _json_dict),
    (list, _json_list),
    (tuple, _json_list),
)
_JSON: dict[type, Callable[[Any], Any]] = {
    **dict(_JSON_GENERAL),
    str: lambda value: value,
    dict: _json_dict,
}


def json_text(value: Any) -> str:
    """A list or dict as compact JSON text with sorted keys.

    Raises:
        ValueError: A value in it has no form in JSON.
    """
    return _CANONICAL.encode(json_value(value))
