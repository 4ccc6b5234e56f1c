"""From columns to payloads: the values of a shard's rows, encoded for the destination, a column at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

import pyarrow as pa

from integrations_dagster.destinations.base import Destination
from integrations_dagster.destinations.values import canonical_json, canonical_text, json_number
from integrations_dagster.sync.fields import CLEARED, FieldColumn, reason_of
from integrations_dagster.sync.spec import FieldRule, FieldSpec, SyncSpec
from integrations_dagster.vocabulary import Action, Change, Outcome, Row, Status, per_row


@per_row
class Mapped:
    """A candidate with its payload, or with the outcome that it has without a request.

    Attributes:
        wave: Rows of one wave are delivered before those of the next.
        follows: Key of the row in the shard that must have been accepted before, or None.
    """

    row: Row
    wave: int
    follows: str | None
    outcome: Outcome | None = None


_EPOCH = {True: datetime(1970, 1, 1, tzinfo=UTC), False: datetime(1970, 1, 1)}  # noqa: DTZ001 (timestamps without zone)


def _source(rows: pa.RecordBatch, name: str) -> list[Any]:
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


_CHANGES = {change.value: change for change in Change}
_ACTIONS = {action.value: action for action in Action}


class Mapper:
    """Maps the rows of one sync.

    A column at a time, and each value is encoded once: the text of a row is put together from those of its values, and
    goes into the digest and into the request.
    """

    def __init__(self, sync: SyncSpec, destination: Destination, row_bytes: int | None) -> None:
        self._sync = sync
        self._destination = destination
        self._row_bytes = row_bytes
        self._match_field = next(iter(sync.match)) if len(sync.match) == 1 else None
        fields = {field.target: field for field in sync.fields if field.source is not None or field.value is not None}
        if self._match_field is not None:
            fields.setdefault(self._match_field, FieldSpec(self._match_field, sync.match[self._match_field]))
        self._fields = [FieldColumn(fields[target], destination) for target in sorted(fields)]
        self._constants = {f.field.target: f.constant() for f in self._fields if f.field.source is None}
        self._members = _members([f.field.target for f in self._fields], nests=destination.nests)

    def dropped(self) -> list[str]:
        """Sentences on the fields of which values did not fit and were left out (`on_error: drop`) so far."""
        return [
            f"{f.dropped:,} value(s) of the field {f.field.target!r} did not fit and were left out (on_error: drop)."
            for f in self._fields
            if f.dropped
        ]

    def map(self, rows: pa.RecordBatch) -> Iterator[Mapped]:
        """Map one Arrow batch of a shard file."""

        def fixed(name: str) -> list[Any]:
            return rows.column(name).to_pylist()

        matches, count = fixed("match"), rows.num_rows
        flat = self._columns(rows, matches)
        names = [member.name for member in self._members]
        values, texts = [], []
        for member in self._members:
            made, written = _made(member, flat)
            values.append(made)
            texts.append(written)
        each = zip(
            fixed("ordinal"), fixed("key"), matches, fixed("change"), fixed("action"), fixed("partition"),
            fixed("destination_id"), fixed("source_digest"), fixed("wave"), fixed("follows"),
            fixed("known_payload_digest"),
            zip(*values, strict=True) if values else [()] * count,
            zip(*texts, strict=True) if texts else [()] * count,
            strict=True,
        )  # fmt: skip
        for place, fixed_ in enumerate(each):
            ordinal, key, match, change, action_, partition, id_, source, wave, follows, known, row, text = fixed_
            action = _ACTIONS[action_]
            fix = (ordinal, key, match, _CHANGES[change], action)
            if action is Action.DELETE:
                # In mode delete, a record of the state is a deletion: what was deleted is not deleted again.
                done = change != Change.REMOVED and known == ""
                gone = Outcome(Status.UNCHANGED) if done else None
                yield Mapped(Row(*fix, {}, partition, id_, source), wave, follows, gone)
                continue
            outcome: Outcome | None = None
            encoded, digest, payload = b"", "", {}
            try:
                encoded = ("{" + ",".join(filter(None, text)) + "}").encode()
            except (TypeError, UnicodeEncodeError):
                outcome = self._unsendable([column[place] for column in flat])
            else:
                payload = {
                    name: None if value is CLEARED else value
                    for name, value in zip(names, row, strict=True)
                    if value is not None
                }
                digest = hashlib.blake2b(encoded, digest_size=16).hexdigest()
                if self._row_bytes is not None and len(encoded) > self._row_bytes:
                    outcome = self._too_large(len(encoded))
                    encoded, digest = b"", ""
                elif action in (Action.UPSERT, Action.MODIFY) and known == digest:
                    outcome = Outcome(Status.UNCHANGED)
            yield Mapped(Row(*fix, payload, partition, id_, source, digest, encoded), wave, follows, outcome)

    def _columns(self, rows: pa.RecordBatch, matches: list[Any]) -> list[list[Any]]:
        """The values of each field, in the order of their names."""
        columns: list[list[Any]] = []
        made: dict[tuple[str, FieldRule], list[Any]] = {}
        for column in self._fields:
            field = column.field
            if field.target == self._match_field and field.rule == FieldRule():
                columns.append(matches)
            elif field.source is None:
                columns.append([self._constants[field.target]] * len(matches))
            else:
                # Fields that are made alike are made once.
                values = made.get((field.source, field.rule))
                if values is None:
                    kind = rows.column(f"c:{field.source}").type
                    values = made[field.source, field.rule] = column.values(_source(rows, field.source), kind)
                if field.target == self._match_field:
                    # Its rule only judges it: what is sent is what the planner compared.
                    values = [v if isinstance(v, ValueError) else m for v, m in zip(values, matches, strict=True)]
                columns.append(values)
        return columns

    def _unsendable(self, values: Sequence[Any]) -> Outcome:
        """The outcome of a row; all that is wrong with it."""
        found = []
        for column, value in zip(self._fields, values, strict=True):
            problem = value if isinstance(value, ValueError) else None
            if problem is None and value is not None and value is not CLEARED:
                try:
                    canonical_json(value)
                except ValueError as error:
                    problem = error
            if problem is not None:
                found.append(reason_of(column.field, problem, quote=self._sync.may_quote(column.field)))
        assert found, "a payload that cannot be written has a value that cannot"
        return _invalid(found[0][0], " ".join(reason for _, reason in found))

    def _too_large(self, size: int) -> Outcome:
        return _invalid(
            "TOO_LARGE", f"The row has {size:,} bytes, and {self._destination.label} takes {self._row_bytes:,}."
        )


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


def _made(member: _Member, flat: Sequence[list[Any]]) -> tuple[list[Any], list[Any]]:
    """The values of a member of the payload, and each as a member of a canonical JSON object."""
    if not member.members:
        values = flat[member.place]
        return values, _texts(member.name, values)
    inner = [_made(part, flat) for part in member.members]
    names = [part.name for part in member.members]
    objects: list[Any] = []
    texts: list[Any] = []
    before = canonical_text(member.name) + ":{"
    for values_, texts_ in zip(
        zip(*(v for v, _ in inner), strict=True), zip(*(t for _, t in inner), strict=True), strict=True
    ):
        problem = next((text for text in texts_ if isinstance(text, ValueError)), None)
        given = [text for text in texts_ if text is not None]
        # An object without members is left out, as its members are.
        texts.append(problem or (before + ",".join(given) + "}" if given else None))
        objects.append(
            {n: None if v is CLEARED else v for n, v in zip(names, values_, strict=True) if v is not None}
            if given and problem is None
            else None
        )
    return objects, texts


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


def _invalid(code: str, reason: str) -> Outcome:
    return Outcome(Status.INVALID, None, code, reason)
