"""Numbers and moments read exactly, from texts and from each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from integrations_dagster.sync.unfit import Unfit

if TYPE_CHECKING:
    from integrations_dagster.sync.spec import FieldRule

Convert = Callable[[Any], Any]
"""From a non-null value to its one form, or to None for what counts as null.

Raises `Unfit`.
"""

LARGEST = 350
"""Powers of ten beyond which a number is refused: no API takes it, and its digits would fill the memory."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def blank_is_null(value: Any) -> Any:
    """A text without spaces around it, None if nothing is left; any other value as it is."""
    return (value.strip() or None) if isinstance(value, str) else value


def parsed(value: Any, what: str) -> Decimal:
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


def date_of(rule: FieldRule) -> Convert:
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


def timestamp_of(rule: FieldRule) -> Convert:
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
        value = blank_is_null(value)
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
    number = value if isinstance(value, int) else parsed(value, what)
    try:
        return _EPOCH + int(number * unit // 1) * _MICROSECOND
    except (OverflowError, InvalidOperation):
        raise Unfit(value, "lies outside the years 1 to 9999") from None


_COUNTS: Mapping[str, Callable[[datetime], int] | None] = {
    "iso": None,
    "epoch_seconds": lambda moment: (moment - _EPOCH) // timedelta(seconds=1),
    "epoch_ms": lambda moment: (moment - _EPOCH) // timedelta(milliseconds=1),
}
