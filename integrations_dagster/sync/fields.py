"""One field of a sync, a column at a time: from what its source holds to what the destination takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa

from integrations_dagster.destinations.base import Destination
from integrations_dagster.sync.field_types import converter
from integrations_dagster.sync.spec import FieldRule, FieldSpec
from integrations_dagster.sync.unfit import Unfit


class Cleared:
    """Stands in a column for a null that is sent, since None is left out."""


CLEARED: Final = Cleared()
_DROPPED: Final = object()

_FITS: dict[str, Callable[[pa.DataType], bool]] = {
    "string": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "integer": lambda kind: pa.types.is_integer(kind) and kind != pa.uint64(),
    "boolean": pa.types.is_boolean,
    "date": pa.types.is_date32,
    "timestamp": pa.types.is_timestamp,
}
"""Columns whose values have the type already."""


class FieldColumn:
    """Makes the values of one field.

    Attributes:
        dropped: Values that did not fit and were left out.
    """

    def __init__(self, field: FieldSpec, destination: Destination) -> None:
        rule = field.rule
        self.field = field
        self.dropped = 0
        self._rule = rule
        self._destination = destination
        self._encode = destination.encode_number if rule.type == "number" else destination.encode
        # A text need not be encoded, and where nothing else is to be done, a column of texts is ready as it is.
        self._texts_ready = str in destination.as_text
        self._convert = converter(rule) if rule.type or rule.max_length or rule.hash else None
        self._default = self._one(rule.default) if rule.nulls == "default" and rule.default is not None else None
        cleared = destination.cleared()
        self._cleared = CLEARED if cleared is None else cleared

    def constant(self) -> Any:
        """What a field made from a constant sends in every row."""
        return None if self.field.value is None else self.values([self.field.value], None)[0]

    def values(self, values: Sequence[Any], kind: pa.DataType | None) -> list[Any]:
        """What is sent of each row: None where nothing is, `CLEARED` for a null, a ValueError for what cannot be.

        Args:
            values: What the source holds, a ValueError where it has none.
            kind: The Arrow type of the column, None for a constant.
        """
        rule = self._rule
        plain = rule == FieldRule() or (rule == FieldRule(type=rule.type) and self._fits(kind))
        encoded = self._encoded(values) if plain or self._convert is None else self._converted(values)
        if rule.drop:
            encoded = [_DROPPED if isinstance(value, ValueError) else value for value in encoded]
            self.dropped += sum(value is _DROPPED for value in encoded)
        if rule.drop or rule.required or rule.nulls != "omit":
            encoded = [self._or_else(value) for value in encoded]
        return encoded

    def _fits(self, kind: pa.DataType | None) -> bool:
        return kind is not None and self._rule.type in _FITS and _FITS[self._rule.type](kind)

    def _encoded(self, values: Sequence[Any]) -> list[Any]:
        encode, as_is = self._encode, str if self._texts_ready else type(None)
        result: list[Any] = []
        for value in values:
            if type(value) is as_is or value is None or isinstance(value, ValueError):
                result.append(value)
                continue
            try:
                result.append(encode(value))
            except ValueError as error:
                result.append(error)
        return result

    def _converted(self, values: Sequence[Any]) -> list[Any]:
        convert, encode, as_is = self._convert, self._encode, str if self._texts_ready else type(None)
        assert convert is not None
        result: list[Any] = []
        for value in values:
            if value is None or isinstance(value, ValueError):
                result.append(value)
                continue
            try:
                made = convert(value)
                result.append(made if made is None or type(made) is as_is else encode(made))
            except ValueError as error:
                result.append(error)
        return result

    def _one(self, value: Any) -> Any:
        return (self._converted if self._convert else self._encoded)([value])[0]

    def _or_else(self, value: Any) -> Any:
        """The value, or what is sent where there is none."""
        required = self._rule.required
        if value is _DROPPED:
            # It stays as it is at the destination: neither the default nor nothing at all is what the row says.
            return Missing("its value does not fit") if required else None
        if value is None and self._default is not None:
            return self._default
        if required and (value is None or value == ""):
            return Missing("it is null or empty")
        return self._cleared if value is None and self._rule.nulls == "clear" else value


class Missing(ValueError):
    """A required field without a value."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}, and the field is required.")
        self.code = "REQUIRED"
        self.bare = str(self)


def reason_of(field: FieldSpec, problem: ValueError, *, quote: bool) -> tuple[str, str]:
    """(code, reason) of a value that cannot be sent.

    Args:
        quote: Whether the reason may quote it.
    """
    if quote:
        why = str(problem)
    else:
        # Words that are not ours may quote the value.
        why = problem.bare if isinstance(problem, Unfit | Missing) else "its value cannot be sent."
    code = problem.code if isinstance(problem, Unfit | Missing) else "VALUE"
    return code, f"Field {field.target!r}: {why}"
