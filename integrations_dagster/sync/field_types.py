"""Types of fields: from whatever a column holds to one form for each value, or a reason why it does not fit.

Values that are equal become the same, so that a row is not sent again because the warehouse writes a number, a moment
or a JSON document in another way.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any
from uuid import UUID

from integrations_dagster.destinations.values import (
    decimal_text,
    json_number,
    json_text,
    number_text,
    utc_text,
)

if TYPE_CHECKING:
    from integrations_dagster.sync.spec import FieldRule

Convert = Callable[[Any], Any]
"""From a non-null value to its one form, or to None for what counts as null.

Raises `Unfit`.
"""

TYPES = ("string", "integer", "number", "boolean", "date", "timestamp", "email", "phone", "enum", "json")
HASHED = frozenset({"string", "integer", "date", "email", "phone", "enum"})
"""Types whose values have one text, which can be hashed."""
QUOTED = 40
"""Characters of a value that a reason quotes."""
LARGEST = 350
"""Powers of ten beyond which a number is refused: no API takes it, and its digits would fill the memory."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?", re.ASCII)
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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


def converter(rule: FieldRule) -> Convert:
    """What turns a value into the form that a field's rule asks for."""
    steps = [_TYPES[rule.type](rule)] if rule.type else []
    if rule.max_length is not None:
        steps.append(_length(rule))
    if rule.hash:
        steps.append(_sha256)
    if len(steps) == 1:
        return steps[0]

    def convert(value: Any) -> Any:
        for step in steps:
            value = step(value)
            if value is None:
                break
        return value

    return convert


def _length(rule: FieldRule) -> Convert:
    most, truncate, trim = rule.max_length or 0, rule.truncate, rule.trim

    def limited(value: str) -> str:
        if len(value) <= most:
            return value
        if not truncate:
            raise Unfit(value, f"has {len(value):,} characters, and max_length is {most:,}", "TOO_LONG")
        return value[:most].rstrip() if trim else value[:most]

    return limited


def _sha256(value: Any) -> str:
    try:
        return hashlib.sha256(text_of(value).encode()).hexdigest()
    except UnicodeEncodeError:
        raise Unfit(value, "is not valid Unicode") from None


def _blank_is_null(value: Any) -> Any:
    """A text without spaces around it, None if nothing is left; any other value as it is."""
    return (value.strip() or None) if isinstance(value, str) else value


# string, email, phone, enum


def _string(rule: FieldRule) -> Convert:
    trim, lower = rule.trim, rule.lower

    def string(value: Any) -> str:
        text = value if type(value) is str else text_of(value)
        if trim:
            text = text.strip()
        return text.lower() if lower else text

    return string


# What the library takes as it stands, in the form that it would give; anything else is left to it.
_PLAIN_EMAIL = re.compile(
    r"(?=[^@]{1,64}@)[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*"
    r"@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+([a-z]{2,63})",
    re.ASCII,
)
_PLAIN_EMAIL_LENGTH = 200


def _email(rule: FieldRule) -> Convert:
    from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

    lower = rule.lower is not False

    def email(value: Any) -> str | None:
        if not isinstance(value, str):
            raise Unfit(value, "is no email address")
        text = value.strip()
        if lower:
            text = text.lower()
        if not text:
            return None
        plain = _PLAIN_EMAIL.fullmatch(text)
        if (
            plain is not None
            and len(text) <= _PLAIN_EMAIL_LENGTH
            and "--" not in text
            and plain[1] not in SPECIAL_USE_DOMAIN_NAMES
        ):
            return text
        try:
            found = validate_email(text, check_deliverability=False).normalized
        except (EmailNotValidError, UnicodeError) as error:
            # The library's words may quote a part of the address.
            why = "is no email address" if isinstance(error, UnicodeError) else f"is no email address: {_gist(error)}"
            raise Unfit(value, why) from None
        return found.lower() if lower else found

    return email


def _gist(error: Exception) -> str:
    text = str(error).split(":")[0].rstrip(". ")
    return text[:1].lower() + text[1:]


def _phone(rule: FieldRule) -> Convert:
    import phonenumbers

    region = rule.region

    def phone(value: Any) -> str | None:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str):
            raise Unfit(value, "is no phone number")
        if not text.strip():
            return None
        try:
            number = phonenumbers.parse(text, region)
        except phonenumbers.NumberParseException as error:
            if error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE and region is None:
                raise Unfit(value, "has no country code, and the field no region") from None
            raise Unfit(value, "is no phone number") from None
        if not phonenumbers.is_possible_number(number):
            raise Unfit(value, "is too long or too short for a phone number of its country")
        return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)

    return phone


def _enum(rule: FieldRule) -> Convert:
    pairs = rule.values or ()
    lower = rule.lower
    known = {_enum_key(given, lower): sent for given, sent in pairs}
    shown = ", ".join(text_of(given) for given, _ in pairs[:10]) + (", …" if len(pairs) > 10 else "")
    # What was sent is taken too, so that a value that is normalized already stays what it is.
    known = {_enum_key(sent, lower): sent for _, sent in pairs if isinstance(sent, str | int | float)} | known

    def enum(value: Any) -> Any:
        key = _enum_key(value, lower)
        if not key:
            return None
        try:
            return known[key]
        except KeyError:
            raise Unfit(value, f"is none of: {shown}", "NOT_IN_ENUM") from None

    return enum


def _enum_key(value: Any, lower: bool | None) -> str:
    text = number_text(value) if isinstance(value, float | Decimal) and _is_finite(value) else text_of(value)
    text = text.strip()
    return text.lower() if lower else text


def _is_finite(value: float | Decimal) -> bool:
    return math.isfinite(value)


# integer, number, boolean


def _parsed(value: Any, what: str) -> Decimal:
    """The number that a text or a float says, exactly."""
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None:
            raise Unfit(value, f"is no {what}")
        number = Decimal(value)
    elif isinstance(value, float):
        number = Decimal(repr(value))
    else:
        number = value
    if not number.is_finite():
        raise Unfit(value, f"is no {what}")
    if not number:
        return Decimal(0)
    if abs(number.adjusted()) > LARGEST:
        raise Unfit(value, "is out of range")
    return number


def _integer(_rule: FieldRule) -> Convert:
    def integer(value: Any) -> int | None:
        if type(value) is int:
            whole = value
        else:
            value = _blank_is_null(value)
            if value is None:
                return None
            if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
                raise Unfit(value, "is no integer")
            number = value if isinstance(value, int) else _parsed(value, "integer")
            whole = int(number)
            if whole != number:
                raise Unfit(value, "is no integer")
        if not -(2**63) <= whole < 2**63:
            raise Unfit(value, "is out of range: an integer has 64 bits")
        return whole

    return integer


def _number(_rule: FieldRule) -> Convert:
    def number(value: Any) -> int | float | Decimal | None:
        if type(value) is int:
            return value
        value = _blank_is_null(value)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
            raise Unfit(value, "is no number")
        return value if isinstance(value, int) else _parsed(value, "number")

    return number


def _boolean(_rule: FieldRule) -> Convert:
    def boolean(value: Any) -> bool | None:
        if value is True or value is False:
            return value
        if isinstance(value, str):
            word = value.strip().lower()
            if not word:
                return None
            if word in _TRUE:
                return True
            if word in _FALSE:
                return False
        elif isinstance(value, int | float | Decimal) and value in (0, 1):
            return bool(value)
        raise Unfit(value, "is no boolean")

    return boolean


# date, timestamp


def _date(rule: FieldRule) -> Convert:
    count = _COUNTS[rule.format]
    moment = _moment(rule, "date")

    def a_date(value: Any) -> Any:
        if type(value) is not date:
            if isinstance(value, str) and len(value.strip()) <= 10 and rule.source_format == "iso":
                text = value.strip()
                if not text:
                    return None
                try:
                    value = date.fromisoformat(text)
                except ValueError:
                    raise Unfit(value, "is no ISO 8601 date") from None
            else:
                found = moment(value)
                if found is None:
                    return None
                value = found.date()
        if count is None:
            return value
        return count(datetime(value.year, value.month, value.day, tzinfo=UTC))

    return a_date


def _timestamp(rule: FieldRule) -> Convert:
    count = _COUNTS[rule.format]
    moment = _moment(rule, "timestamp")

    def timestamp(value: Any) -> Any:
        found = moment(value)
        return found if found is None or count is None else count(found)

    return timestamp


def _moment(rule: FieldRule, what: str) -> Callable[[Any], datetime | None]:
    """A moment in UTC; one without a zone is taken as UTC."""
    unit = {"iso": None, "epoch_seconds": 10**6, "epoch_ms": 10**3}[rule.source_format]

    def moment(value: Any) -> datetime | None:
        value = _blank_is_null(value)
        if value is None:
            return None
        found = value
        if not isinstance(value, date):
            if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
                raise Unfit(value, f"is no {what}")
            if unit is not None:
                return _from_epoch(value, unit, what)
            if not isinstance(value, str):
                raise Unfit(value, f"is no {what}; for a count since 1970 set source_format")
            try:
                found = datetime.fromisoformat(value.removesuffix(" UTC"))
            except ValueError:
                raise Unfit(value, f"is no ISO 8601 {what}") from None
        if not isinstance(found, datetime):
            return datetime(found.year, found.month, found.day, tzinfo=UTC)
        try:
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except OverflowError:
            raise Unfit(value, "lies outside the years 1 to 9999 in UTC") from None

    return moment


def _from_epoch(value: Any, unit: int, what: str) -> datetime:
    number = value if isinstance(value, int) else _parsed(value, what)
    try:
        return _EPOCH + int(number * unit // 1) * _MICROSECOND
    except (OverflowError, InvalidOperation):
        raise Unfit(value, "lies outside the years 1 to 9999") from None


_COUNTS: Mapping[str, Callable[[datetime], int] | None] = {
    "iso": None,
    "epoch_seconds": lambda moment: (moment - _EPOCH) // timedelta(seconds=1),
    "epoch_ms": lambda moment: (moment - _EPOCH) // timedelta(milliseconds=1),
}


# json


def _json(_rule: FieldRule) -> Convert:
    def document(value: Any) -> Any:
        value = _blank_is_null(value)
        if isinstance(value, str):
            try:
                value = json.loads(value, parse_float=Decimal, parse_constant=_no_constant)
            except (ValueError, RecursionError):
                raise Unfit(value, "is no JSON") from None
        try:
            return _canonical(value)
        except RecursionError:
            raise Unfit(value, "is nested too deeply") from None

    return document


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _canonical(value: Any) -> Any:
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, int | float | Decimal):
        if not isinstance(value, int):
            value = _parsed(value, "number")
        return json_number(value)
    if isinstance(value, Mapping):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value


_TYPES: Mapping[str, Callable[[FieldRule], Convert]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "email": _email,
    "phone": _phone,
    "enum": _enum,
    "json": _json,
}
assert tuple(_TYPES) == TYPES
