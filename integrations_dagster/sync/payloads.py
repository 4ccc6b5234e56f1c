"""The payloads of rows as canonical JSON, made a column at a time.

A value is encoded once, and the text of a row is put together from those of its values: by Arrow, as long as every
value can be sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from integrations_dagster.destinations.base import Destination
from integrations_dagster.destinations.values import canonical_json, canonical_text
from integrations_dagster.planner.rows import texts as column_of
from integrations_dagster.sync.columns import plain_text, python_values
from integrations_dagster.sync.fields import CLEARED, FieldColumn, reason_of
from integrations_dagster.sync.spec import FieldRule, FieldSpec, SyncSpec


class Payloads:
    """Makes the payloads of one sync's rows."""

    def __init__(self, sync: SyncSpec, destination: Destination) -> None:
        self._sync = sync
        self._as_text = destination.as_text
        self.match_field = next(iter(sync.match)) if len(sync.match) == 1 else None
        fields = {field.target: field for field in sync.fields if field.source is not None or field.value is not None}
        if self.match_field is not None:
            fields.setdefault(self.match_field, FieldSpec(self.match_field, sync.match[self.match_field]))
        self.fields = [FieldColumn(fields[target], destination) for target in sorted(fields)]
        self.constants = {f.field.target: f.constant() for f in self.fields if f.field.source is None}
        self._members = _members([f.field.target for f in self.fields], nests=destination.nests)

    def dropped(self) -> list[str]:
        """Sentences on the fields of which values did not fit and were left out (`on_error: drop`) so far."""
        return [
            f"{f.dropped:,} value(s) of the field {f.field.target!r} did not fit and were left out (on_error: drop)."
            for f in self.fields
            if f.dropped
        ]

    def of(self, rows: pa.RecordBatch) -> Written:
        """The payloads of one Arrow batch of a shard file."""
        values = _Values(self, rows)
        try:
            pieces = [self._piece(member, values) for member in self._members]
            return Written(self._sync, values, _joined(pieces, rows.num_rows))
        except (_Unfit, UnicodeEncodeError, OverflowError, pa.ArrowException):
            texts = [_written(member, values.of) for member in self._members]
            each = zip(*texts, strict=True) if texts else [()] * rows.num_rows
            return Written(self._sync, values, [_object(text) for text in each])

    def _piece(self, member: _Member, values: _Values) -> pa.Array[Any]:
        """A member of each payload with a comma before it, null where it is left out."""
        if not member.members and (column := values.plain(member.place)) is not None:
            text = plain_text(column, self._as_text)
            if text is not None:
                return _join(_scalar(f',{canonical_text(member.name)}:"'), text, _QUOTE)
        texts = _written(member, values.of)
        if any(isinstance(text, ValueError) for text in texts):
            raise _Unfit
        return column_of([None if text is None else "," + text for text in texts])


class Written:
    """The payloads of a batch of rows.

    Attributes:
        texts: Of each row its payload in UTF-8, None where it has a value that cannot be sent.
    """

    def __init__(self, sync: SyncSpec, values: _Values, texts: Sequence[bytes | None]) -> None:
        self._sync = sync
        self._values = values
        self.texts = texts

    def problem(self, place: int) -> tuple[str, str]:
        """(code, reason) of a row without payload; all that is wrong with it."""
        found = []
        for index, column in enumerate(self._values.fields):
            value = self._values.of(index)[place]
            problem = value if isinstance(value, ValueError) else None
            if problem is None and value is not None and value is not CLEARED:
                try:
                    canonical_json(value)
                except ValueError as error:
                    problem = error
            if problem is not None:
                found.append(reason_of(column.field, problem, quote=self._sync.may_quote(column.field)))
        assert found, "a payload that cannot be written has a value that cannot"
        return found[0][0], " ".join(reason for _, reason in found)


class _Unfit(Exception):
    """A value cannot be sent, so that the rows are put together one by one."""


class _Values:
    """The values of each field in a batch of rows; each column is made once, when it is first asked for."""

    def __init__(self, payloads: Payloads, rows: pa.RecordBatch) -> None:
        self.fields = payloads.fields
        self._match_field = payloads.match_field
        self._constants = payloads.constants
        self._rows = rows
        self._made: dict[int, list[Any]] = {}
        # Fields that are made alike are made once.
        self._alike: dict[tuple[str, FieldRule], list[Any]] = {}

    def plain(self, place: int) -> pa.Array[Any] | None:
        """The column of a field whose values are only to be encoded, or None."""
        field = self.fields[place].field
        if field.source is None or field.rule != FieldRule() or f"p:{field.source}" in self._rows.schema.names:
            return None
        return self._rows.column("match" if field.target == self._match_field else f"c:{field.source}")

    def of(self, place: int) -> list[Any]:
        """The values of a field: see `FieldColumn.values`."""
        if place not in self._made:
            self._made[place] = self._values(self.fields[place])
        return self._made[place]

    def _values(self, column: FieldColumn) -> list[Any]:
        field, count = column.field, self._rows.num_rows
        matches = self._rows.column("match").to_pylist() if field.target == self._match_field else []
        if matches and field.rule == FieldRule():
            return matches
        if field.source is None:
            return [self._constants[field.target]] * count
        values = self._alike.get((field.source, field.rule))
        if values is None:
            kind = self._rows.column(f"c:{field.source}").type
            values = self._alike[field.source, field.rule] = column.values(
                python_values(self._rows, field.source), kind
            )
        if matches:
            # Its rule only judges it: what is sent is what the planner compared.
            return [v if isinstance(v, ValueError) else m for v, m in zip(values, matches, strict=True)]
        return values


def _scalar(text: str) -> pa.Scalar[Any]:
    # pyarrow imports pandas for a scalar made of a Python text.
    return column_of([text])[0]


_NOTHING, _QUOTE, _END, _EMPTY = map(_scalar, ("", '"', "}", "{}"))


def _joined(pieces: Sequence[pa.Array[Any]], count: int) -> list[bytes | None]:
    if not pieces:
        return [b"{}"] * count
    members = _join(*pieces, _END, nulls="replace")
    # The comma before the first member gives way to the brace.
    objects = pc.if_else(pc.equal(members, _END), _EMPTY, pc.binary_replace_slice(members, 0, 1, "{"))
    texts: list[bytes | None] = objects.cast(pa.binary()).to_pylist()
    return texts


def _join(*parts: Any, nulls: Literal["emit_null", "replace"] = "emit_null") -> pa.Array[Any]:
    """Columns of texts, and texts that are the same in each row, one behind the other."""
    joined: pa.Array[Any] = pc.binary_join_element_wise(*parts, _NOTHING, null_handling=nulls)
    return joined


def _object(texts: Sequence[Any]) -> bytes | None:
    try:
        return ("{" + ",".join(filter(None, texts)) + "}").encode()
    except (TypeError, UnicodeEncodeError):
        return None


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of the payload: a field (its place among the fields), or an object with members of its own."""

    name: str
    place: int = -1
    members: tuple[_Member, ...] = ()


def _members(targets: Sequence[str], *, nests: bool) -> tuple[_Member, ...]:
    """The members of a payload, in the order of canonical JSON."""
    paths = [tuple(target.split(".")) if nests else (target,) for target in targets]
    return _below(list(enumerate(paths)))


def _below(paths: Sequence[tuple[int, tuple[str, ...]]]) -> tuple[_Member, ...]:
    groups: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    for place, (first, *rest) in paths:
        groups.setdefault(first, []).append((place, tuple(rest)))
    return tuple(
        _Member(name, inside[0][0]) if inside == [(inside[0][0], ())] else _Member(name, members=_below(inside))
        for name, inside in sorted(groups.items())
    )


def _written(member: _Member, values: Callable[[int], list[Any]]) -> list[Any]:
    """A member of each payload as text; None where it is left out, the error for what cannot be sent."""
    if not member.members:
        return _texts(member.name, values(member.place))
    inner = [_written(part, values) for part in member.members]
    before = canonical_text(member.name) + ":{"
    texts: list[Any] = []
    for each in zip(*inner, strict=True):
        problem = next((text for text in each if isinstance(text, ValueError)), None)
        given = [text for text in each if text is not None]
        # An object without members is left out, as its members are.
        texts.append(problem or (before + ",".join(given) + "}" if given else None))
    return texts


def _texts(target: str, values: Sequence[Any]) -> list[Any]:
    """Each value as a member of a canonical JSON object; None for a null, the error for what cannot be sent."""
    name = canonical_text(target) + ":"
    result: list[Any] = []
    for value in values:
        # Most values are texts; a function call for each would cost more than its escaping.
        if type(value) is str:
            result.append(name + encode_basestring(value))
        elif value is None or isinstance(value, ValueError):
            result.append(value)
        elif value is CLEARED:
            result.append(name + "null")
        else:
            try:
                result.append(name + canonical_text(value))
            except ValueError as error:
                result.append(error)
    return result
