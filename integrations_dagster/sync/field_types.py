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
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from integrations_dagster.destinations.values import (
    json_number,
    number_text,
)
from integrations_dagster.sync.exact import Convert, blank_is_null, date_of, parsed, timestamp_of
from integrations_dagster.sync.unfit import Unfit, text_of

if TYPE_CHECKING:
    from integrations_dagster.sync.spec import FieldRule

TYPES = ("string", "integer", "number", "boolean", "date", "timestamp", "email", "phone", "enum", "json")
HASHED = frozenset({"string", "integer", "date", "email", "phone", "enum"})
"""Types whose values have one text, which can be hashed."""

_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})


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
            why = "is no email address" if isinstance(error, UnicodeError) else f"is no email address: {_gist(error)}"
            raise Unfit(value, why) from None
        return found.lower() if lower else found

    return email


def _gist(error: Exception) -> str:
    # What follows a colon or a bracket quotes the address.
    text = re.split(r"[:(]", str(error))[0].rstrip(". ")
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
            if error.error_type != phonenumbers.NumberParseException.INVALID_COUNTRY_CODE:
                raise Unfit(value, "is no phone number") from None
            if text.strip().startswith("+"):
                raise Unfit(value, "has a country code that does not exist") from None
            raise Unfit(value, "has no country code, and the field no region") from None
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


def _integer(_rule: FieldRule) -> Convert:
    def integer(value: Any) -> int | None:
        if type(value) is int:
            whole = value
        else:
            value = blank_is_null(value)
            if value is None:
                return None
            if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
                raise Unfit(value, "is no integer")
            number = value if isinstance(value, int) else parsed(value, "integer")
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
        value = blank_is_null(value)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
            raise Unfit(value, "is no number")
        return value if isinstance(value, int) else parsed(value, "number")

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


# json


def _json(_rule: FieldRule) -> Convert:
    def document(value: Any) -> Any:
        value = blank_is_null(value)
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
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is int:
        return json_number(value)
    if kind is dict:
        return {name: _canonical(item) for name, item in value.items()}
    if kind is list or kind is tuple:
        return [_canonical(item) for item in value]
    return json_number(parsed(value, "number")) if kind is float or kind is Decimal else value


_TYPES: Mapping[str, Callable[[FieldRule], Convert]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date": date_of,
    "timestamp": timestamp_of,
    "email": _email,
    "phone": _phone,
    "enum": _enum,
    "json": _json,
}
assert tuple(_TYPES) == TYPES
