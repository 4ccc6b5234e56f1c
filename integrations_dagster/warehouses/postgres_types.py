"""How columns of PostgreSQL are read, so that every value keeps what it is.

Numbers, booleans, texts, bytes, dates and moments, and lists of the simple ones, are read as what they are. What Arrow
or Parquet would bend is read as PostgreSQL writes it: `numeric` without a precision, `interval`, `time`, `uuid`,
`json`, enums, ranges, composites, addresses. A `numeric` with a precision becomes a decimal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from integrations_dagster.vocabulary import Misconfigured

_NAMES = {
    "bool": "boolean",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "bpchar": "character",
    "varchar": "character varying",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "time": "time without time zone",
    "timetz": "time with time zone",
    "varbit": "bit varying",
    "char": '"char"',
}
"""Names of types as PostgreSQL's documentation writes them."""

_AS_THEY_ARE = {"bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bytea", "date"}
_MOMENTS = {"timestamp", "timestamptz"}
_LIST_ITEMS = {"bool", "int2", "int4", "int8", "float4", "float8", "text"}
_DECIMAL_DIGITS = 38
# The driver has no infinity: it counts from 1970 instead of 2000, and the sum overflows. PostgreSQL's own first day is
# in 4714 BC, so nothing else lies before these.
_BEFORE_ALL_DAYS = -3_000_000
_BEFORE_ALL_MOMENTS = -300_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a query.

    Attributes:
        name: Its name.
        kind: PostgreSQL's type, as people write it.
        sql: The expression that reads it.
        check: SQL that is true where its value cannot be kept; "" if there is no such value.
        convert: What becomes of an array that was read.
    """

    name: str
    kind: str
    sql: str
    check: str = ""
    convert: Callable[[pa.Array[Any]], pa.Array[Any]] | None = None


def quoted(name: str) -> str:
    """An identifier."""
    return '"' + name.replace('"', '""') + '"'


def column_of(field: pa.Field[Any], name_of: Callable[[int], str], source: str) -> Column:
    """How a column is read.

    Args:
        field: What the driver says of it.
        name_of: The name of a type that the driver knows by its number (OID) alone.
        source: The file of the query, for messages.
    """
    said: Mapping[bytes, bytes] = field.metadata or {}
    kind = said.get(b"POSTGRESQL:type", b"").decode()
    modifier = int(said.get(b"POSTGRESQL:typmod", b"-1"))
    column = quoted(field.name)
    if kind == "numeric":
        return _numeric(field.name, column, modifier, source)
    written = _written(kind, name_of)
    if kind in _AS_THEY_ARE | _MOMENTS:
        convert = _finite(field.name, kind, source) if kind in _MOMENTS or kind == "date" else None
        return Column(field.name, written, column, convert=convert)
    if kind.startswith("_"):
        read = column if kind[1:] in _LIST_ITEMS else f"CAST({column} AS text[])"
        return Column(field.name, written, read, check=f"array_ndims({column}) > 1")
    if kind == "money":
        # As text it would depend on the locale.
        return Column(field.name, written, f"CAST(CAST({column} AS numeric) AS text)")
    if kind == "inet":
        # The cast would add the length of the mask to every address.
        return Column(field.name, written, f"abbrev({column})")
    if kind in ("oid", "xid", "cid"):
        return Column(field.name, written, f"CAST(CAST({column} AS text) AS bigint)")
    return Column(field.name, written, f"CAST({column} AS text)")


def _written(kind: str, name_of: Callable[[int], str]) -> str:
    if kind.startswith("_"):
        return f"{_written(kind[1:], name_of)}[]"
    if kind.startswith("unnamed<oid:"):
        return name_of(int(kind.removeprefix("unnamed<oid:").rstrip(">")))
    return _NAMES.get(kind, kind)


def _numeric(name: str, column: str, modifier: int, source: str) -> Column:
    text = f"CAST({column} AS text)"
    if modifier < 4:
        return Column(name, "numeric", text)
    # As PostgreSQL packs them (src/backend/utils/adt/numeric.c): eleven bits of scale, signed.
    precision = ((modifier - 4) >> 16) & 0xFFFF
    scale = (((modifier - 4) & 0x7FF) ^ 1024) - 1024
    kind = f"numeric({precision},{scale})"
    if not 0 <= scale <= precision <= _DECIMAL_DIGITS:
        return Column(name, kind, text)
    decimal = pa.decimal128(precision, scale)

    def convert(texts: pa.Array[Any]) -> pa.Array[Any]:
        try:
            return texts.cast(decimal)
        except pa.ArrowInvalid:
            raise Misconfigured(
                f"The query in {source} returns NaN in the column {name!r} of the type {kind}, which no decimal can "
                "hold.",
                f"Write NULLIF({column}, 'NaN'), or CAST({column} AS text) to deliver it as text.",
            ) from None

    return Column(name, kind, text, convert=convert)


def _finite(name: str, kind: str, source: str) -> Callable[[pa.Array[Any]], pa.Array[Any]]:
    integer, least = (pa.int32(), _BEFORE_ALL_DAYS) if kind == "date" else (pa.int64(), _BEFORE_ALL_MOMENTS)

    def convert(values: pa.Array[Any]) -> pa.Array[Any]:
        first = pc.min(values.view(integer)).as_py()
        if first is not None and first < least:
            raise Misconfigured(
                f"The query in {source} returns infinity in the column {name!r} of the type {_NAMES.get(kind, kind)}, "
                "which is no day that a destination could take.",
                f"Write NULLIF({quoted(name)}, 'infinity'), or CAST({quoted(name)} AS text) to deliver it as text.",
            )
        return values

    return convert


def reading(columns: Sequence[Column], query: str) -> tuple[str, list[int]]:
    """The SELECT that reads the columns of a query, and which of its columns tell of values that cannot be kept.

    Returns:
        SQL, and for each column after the query's own the index of the column that it is about.
    """
    checks = [index for index, column in enumerate(columns) if column.check]
    chosen = [f"{column.sql} AS {quoted(column.name)}" for column in columns]
    chosen += [f"({columns[index].check}) AS {quoted(f'check {index}')}" for index in checks]
    return f"SELECT {', '.join(chosen)} FROM ({query}\n) AS q", checks


def kept(batch: pa.RecordBatch, columns: Sequence[Column], checks: Sequence[int], source: str) -> pa.RecordBatch:
    """A batch of such a SELECT as it is stored.

    Raises:
        Misconfigured: A value cannot be kept.
    """
    for place, index in enumerate(checks):
        if pc.any(batch.column(len(columns) + place)).as_py():
            name = columns[index].name
            raise Misconfigured(
                f"The query in {source} returns arrays of more than one dimension in the column {name!r}.",
                f"Write to_json({quoted(name)}), which keeps them apart.",
            )
    arrays = [
        column.convert(array) if column.convert else array
        for column, array in zip(columns, batch.columns[: len(columns)], strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])
