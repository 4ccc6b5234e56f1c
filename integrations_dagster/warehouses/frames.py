"""Data frames and Arrow data as the rows of a model: written as a query's result is, by the same rules of types."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.base import QueryResult
from integrations_dagster.warehouses.checks import check_columns
from integrations_dagster.warehouses.duckdb import MEMORY, ROW_GROUP, copy_to_parquet

YIELDS = "Return a pandas DataFrame, a Polars DataFrame or LazyFrame, Arrow data, or the name of a table."


def write_frame(value: Any, folder: Path, scratch: Path, source: str) -> QueryResult:
    """Write rows to `part-0.parquet` in `folder`, a row group at a time.

    Args:
        value: A pandas DataFrame, a Polars DataFrame or LazyFrame, a PyArrow Table, RecordBatch or RecordBatchReader,
            or anything else that exports an Arrow stream (`__arrow_c_stream__`).
        scratch: Where DuckDB may spill.
        source: Where the rows come from, for messages.

    Raises:
        Misconfigured: It is none of these, or a column has a type that no Parquet file or no query result can have.
    """
    started = time.monotonic()
    scratch.mkdir(parents=True, exist_ok=True)
    lazy = folder / "lazy.parquet"
    connection = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": str(scratch)})
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        connection.register("frame", _plain(_stream(value, lazy, source), source))
        rows, columns = copy_to_parquet(connection, "SELECT * FROM frame", None, folder, source)
    except (pa.ArrowException, duckdb.Error) as error:
        raise Misconfigured(
            f"The rows of {source} cannot be stored. {error}", "Give the column another type."
        ) from error
    finally:
        connection.close()
        lazy.unlink(missing_ok=True)
    return QueryResult(rows, columns, time.monotonic() - started)


def _stream(value: Any, lazy: Path, source: str) -> pa.RecordBatchReader:
    # A library that was never imported made no value of its own.
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _of_pandas(value, source)
    if polars is not None and isinstance(value, polars.LazyFrame):
        # Polars streams it to a file, so that it is never in memory as a whole.
        value.sink_parquet(lazy, row_group_size=ROW_GROUP)
        file = pq.ParquetFile(lazy, pre_buffer=False)
        return pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(ROW_GROUP))
    if isinstance(value, pa.RecordBatch):
        value = pa.Table.from_batches([value])
    if hasattr(value, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(value)
    raise Misconfigured(f"{source} yields a {type(value).__module__}.{type(value).__qualname__}, not rows.", YIELDS)


def _of_pandas(frame: Any, source: str) -> pa.RecordBatchReader:
    """The rows of a frame; a named index is columns too, and what pandas counts as missing (NaN, NaT, NA) is null."""
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    check_columns([str(column) for column in frame.columns], source)
    unnamed = [column for column in frame.columns if not isinstance(column, str)]
    if unnamed:
        raise Misconfigured(
            f"{source} yields a frame with the column {unnamed[0]!r}, whose name is no text.", "Rename its columns."
        )
    # The types of the whole frame before its first rows: a column of objects may begin with nulls.
    schema = pa.schema([_field(frame, column, source) for column in frame.columns])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(frame), ROW_GROUP):
            part = frame.iloc[start : start + ROW_GROUP]
            yield pa.RecordBatch.from_pandas(part, schema=schema, preserve_index=False)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _field(frame: Any, column: str, source: str) -> pa.Field[Any]:
    try:
        return pa.Schema.from_pandas(frame[[column]], preserve_index=False).field(0)
    except pa.ArrowException as error:
        # Arrow's own words quote a value.
        raise Misconfigured(
            f"The column {column!r} of {source} holds values of several types.", "Give it one type, with `astype`."
        ) from error


def _plain(rows: pa.RecordBatchReader, source: str) -> pa.RecordBatchReader:
    """The rows with the types that DuckDB does not know made into ones that hold the same values."""
    check_columns(rows.schema.names, source)
    fields = []
    for field in rows.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_float16(kind):
            field = field.with_type(pa.float32())
        elif pa.types.is_decimal256(kind):
            exact = pa.decimal128(kind.precision, kind.scale) if kind.precision <= 38 else pa.string()
            field = field.with_type(exact)
        fields.append(field.remove_metadata())
    schema = pa.schema(fields)
    if schema.equals(rows.schema):
        return rows
    return pa.RecordBatchReader.from_batches(schema, (_cast(batch, schema, source) for batch in rows))


def _cast(batch: pa.RecordBatch, schema: pa.Schema, source: str) -> pa.RecordBatch:
    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowException as error:
            raise Misconfigured(
                f"The column {field.name!r} of {source} cannot be stored. {error}", "Give it another type."
            ) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)
