"""Rows as JSON lines, made into the bytes of a file."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from integrations_dagster.destinations.file import Put


class DoesNotFit(Exception):
    """A value has no place in its column.

    Args:
        reason: Which, as a sentence.
    """


def encoded(command: Put, body: bytes) -> bytes:
    """The bytes of the file.

    Raises:
        DoesNotFit: A value is not of its column's type.
    """
    if command.format == "jsonl":
        return _packed(body, command.compression)
    rows = [json.loads(line) for line in body.splitlines()]
    columns = {name: _column(name, kind, [row.get(name) for row in rows]) for name, kind in command.columns}
    table = pa.table(columns)
    sink = io.BytesIO()
    if command.format == "csv":
        # All values are quoted and nulls are not, so that no value and an empty one can be told apart.
        arrow_csv.write_csv(table, sink, arrow_csv.WriteOptions(quoting_style="all_valid"))
        return _packed(sink.getvalue(), command.compression)
    pq.write_table(table, sink, compression=command.compression)  # type: ignore[arg-type]  # the stubs want literals
    return sink.getvalue()


def _packed(data: bytes, compression: str) -> bytes:
    if compression == "gzip":
        # No time in it: the same rows give the same bytes.
        return gzip.compress(data, 6, mtime=0)
    if compression == "zstd":
        packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
        return packed
    return data


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _boolean(value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise ValueError
    return str(value).lower() == "true"


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    number = Decimal(str(value))
    if number != number.to_integral_value():
        raise ValueError
    return int(number)


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _binary(value: Any) -> bytes:
    text = _text(value)
    return bytes.fromhex(text[2:]) if text.startswith("\\x") else text.encode()


_READ: dict[str, tuple[pa.DataType, Callable[[Any], Any]]] = {
    "string": (pa.string(), _text),
    "boolean": (pa.bool_(), _boolean),
    "int32": (pa.int32(), _integer),
    "int64": (pa.int64(), _integer),
    "float": (pa.float32(), float),
    "double": (pa.float64(), float),
    "date": (pa.date32(), date.fromisoformat),
    "timestamp": (pa.timestamp("us", tz="UTC"), _moment),
    "json": (pa.string(), lambda value: _text(json.loads(value) if isinstance(value, str) else value)),
    "binary": (pa.binary(), _binary),
}


def _column(name: str, kind: str, values: Sequence[Any]) -> pa.Array[Any]:
    arrow, read = _type(kind)
    made: list[Any] = []
    for value in values:
        try:
            made.append(None if value is None else read(value))
        except (ValueError, TypeError, ArithmeticError):
            raise DoesNotFit(f"Column {name!r} is {kind}, and {_text(value)[:60]!r} is not.") from None
    try:
        return pa.array(made, arrow)
    except (pa.ArrowException, OverflowError):
        for value, one in zip(values, made, strict=True):
            try:
                pa.array([one], arrow)
            except (pa.ArrowException, OverflowError):
                raise DoesNotFit(f"Column {name!r} is {kind}, and {_text(value)[:60]!r} does not fit.") from None
        raise


def _type(kind: str) -> tuple[pa.DataType, Callable[[Any], Any]]:
    found = re.fullmatch(r"decimal\((\d+),(\d+)\)", kind)
    if found is None:
        return _READ[kind]
    return pa.decimal128(int(found[1]), int(found[2])), lambda value: Decimal(_text(value))
