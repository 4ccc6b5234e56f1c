"""From columns to payloads: the values of a shard's rows, encoded for the destination, a column at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring
from typing import Any

import pyarrow as pa

from integrations_dagster.destinations.base import Destination
from integrations_dagster.destinations.values import canonical_text
from integrations_dagster.sync.spec import SyncSpec
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
    if not pa.types.is_timestamp(kind):
        try:
            return column.to_pylist()
        except (ValueError, OverflowError):
            return [_value(scalar) for scalar in column]
    zoned = kind.tz is not None
    counted = column.cast(pa.timestamp("us", kind.tz), safe=False).view(pa.int64()).to_pylist()
    return [None if n is None else _moment(_EPOCH[zoned], n) for n in counted]


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


def _encoded(destination: Destination, values: Sequence[Any]) -> list[Any]:
    encode, as_is = destination.encode, str if destination.keeps_text else type(None)
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
        self._constants = {
            f.target: destination.encode(f.value) for f in sync.fields if f.source is None and f.value is not None
        }
        self._sources = {f.target: f.source for f in sync.fields if f.source is not None}
        self._match_field = next(iter(sync.match)) if len(sync.match) == 1 else None
        targets = {*self._constants, *self._sources, *([self._match_field] if self._match_field else [])}
        self._targets = sorted(targets)

    def map(self, rows: pa.RecordBatch) -> Iterator[Mapped]:
        """Map one Arrow batch of a shard file."""
        columns = {column: _encoded(self._destination, _source(rows, column)) for column in self._sync.sources}

        def fixed(name: str) -> list[Any]:
            return rows.column(name).to_pylist()

        matches = fixed("match")
        values = [self._column(target, matches, columns) for target in self._targets]
        texts = [_texts(target, column) for target, column in zip(self._targets, values, strict=True)]
        count = rows.num_rows
        each = zip(
            fixed("ordinal"), fixed("key"), matches, fixed("change"), fixed("action"), fixed("partition"),
            fixed("destination_id"), fixed("source_digest"), fixed("wave"), fixed("follows"),
            fixed("known_payload_digest"),
            zip(*values, strict=True) if values else [()] * count,
            zip(*texts, strict=True) if texts else [()] * count,
            strict=True,
        )  # fmt: skip
        for ordinal, key, match, change, action_, partition, id_, source, wave, follows, known, row, text in each:
            action = _ACTIONS[action_]
            fix = (ordinal, key, match, _CHANGES[change], action)
            if action is Action.DELETE:
                yield Mapped(Row(*fix, {}, partition, id_, source), wave, follows)
                continue
            outcome: Outcome | None = None
            encoded, digest, payload = b"", "", {}
            try:
                encoded = ("{" + ",".join(filter(None, text)) + "}").encode()
            except (TypeError, UnicodeEncodeError):
                outcome = self._unsendable(row, text)
            else:
                payload = {name: value for name, value in zip(self._targets, row, strict=True) if value is not None}
                digest = hashlib.blake2b(encoded, digest_size=16).hexdigest()
                if self._row_bytes is not None and len(encoded) > self._row_bytes:
                    outcome = self._too_large(len(encoded))
                    encoded, digest = b"", ""
                elif action is Action.UPSERT and known == digest:
                    outcome = Outcome(Status.UNCHANGED)
            yield Mapped(Row(*fix, payload, partition, id_, source, digest, encoded), wave, follows, outcome)

    def _column(self, target: str, matches: list[Any], columns: dict[str, list[Any]]) -> list[Any]:
        if target == self._match_field:
            return matches
        if target in self._sources:
            return columns[self._sources[target]]
        return [self._constants[target]] * len(matches)

    def _unsendable(self, row: Sequence[Any], texts: Sequence[Any]) -> Outcome:
        for target, value, text in zip(self._targets, row, texts, strict=True):
            problem = text if isinstance(text, ValueError) else value
            if isinstance(problem, ValueError):
                # Its own words may quote the value.
                why = "its value cannot be sent." if target in self._sync.sensitive else str(problem)
                return _invalid("VALUE", f"Field {target!r}: {why}")
        return _invalid("VALUE", "A text is not valid Unicode: it holds half of a surrogate pair.")

    def _too_large(self, size: int) -> Outcome:
        return _invalid(
            "TOO_LARGE", f"The row has {size:,} bytes, and {self._destination.label} takes {self._row_bytes:,}."
        )


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
        else:
            try:
                result.append(name + canonical_text(value))
            except ValueError as error:
                result.append(error)
    return result


def _invalid(code: str, reason: str) -> Outcome:
    return Outcome(Status.INVALID, None, code, reason)
