"""From columns to payloads: the values of a shard's rows, encoded for the destination, a column at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from integrations_dagster.destinations.base import Destination
from integrations_dagster.destinations.values import canonical_json
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.vocabulary import Action, Change, Outcome, Row, Status


@dataclass(frozen=True, slots=True)
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


def _encoded(encode: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    result: list[Any] = []
    for value in values:
        if value is None or isinstance(value, ValueError):
            result.append(value)
            continue
        try:
            result.append(encode(value))
        except ValueError as error:
            result.append(error)
    return result


class Mapper:
    """Maps the rows of one sync."""

    def __init__(self, sync: SyncSpec, destination: Destination, row_bytes: int | None) -> None:
        self._sync = sync
        self._destination = destination
        self._row_bytes = row_bytes
        self._constants = {
            f.target: destination.encode(f.value) for f in sync.fields if f.column is None and f.value is not None
        }
        self._from_columns = [(f.target, f.column) for f in sync.fields if f.column is not None]
        self._match_fields = tuple(sync.match)

    def map(self, rows: pa.RecordBatch) -> Iterator[Mapped]:
        """Map one Arrow batch of a shard file."""
        fixed = {name: rows.column(name).to_pylist() for name in rows.schema.names if not name.startswith("c:")}
        columns = {
            column: _encoded(self._destination.encode, _values(rows.column(f"c:{column}")))
            for column in self._sync.columns
        }
        for i in range(rows.num_rows):
            yield self._map_row({name: values[i] for name, values in fixed.items()}, columns, i)

    def _map_row(self, fixed: dict[str, Any], columns: dict[str, list[Any]], i: int) -> Mapped:
        action = Action(fixed["action"])
        base: dict[str, Any] = {
            "ordinal": fixed["ordinal"],
            "key": fixed["key"],
            "match": fixed["match"],
            "change": Change(fixed["change"]),
            "action": action,
            "partition": fixed["partition"],
            "destination_id": fixed["destination_id"],
            "source_digest": fixed["source_digest"],
        }
        wave, follows = fixed["wave"], fixed["follows"]
        if action is Action.DELETE:
            return Mapped(Row(**base), wave, follows)
        payload = dict(self._constants)
        for target, column in self._from_columns:
            value = columns[column][i]
            if isinstance(value, ValueError):
                return Mapped(Row(**base), wave, follows, _invalid("VALUE", f"Field {target!r}: {value}"))
            if value is not None:
                payload[target] = value
        if len(self._match_fields) == 1:
            payload[self._match_fields[0]] = fixed["match"]
        try:
            text = canonical_json(payload)
        except ValueError as error:
            return Mapped(Row(**base), wave, follows, _invalid("VALUE", str(error)))
        if self._row_bytes is not None and len(text) > self._row_bytes:
            reason = f"The row has {len(text):,} bytes, and {self._destination.label} takes {self._row_bytes:,}."
            return Mapped(Row(**base), wave, follows, _invalid("TOO_LARGE", reason))
        digest = hashlib.blake2b(text, digest_size=16).hexdigest()
        row = Row(**base, payload=payload, payload_digest=digest, size=len(text))
        unchanged = action is Action.UPSERT and fixed["known_payload_digest"] == digest
        return Mapped(row, wave, follows, Outcome(Status.UNCHANGED) if unchanged else None)


def _invalid(code: str, reason: str) -> Outcome:
    return Outcome(Status.INVALID, None, code, reason)
