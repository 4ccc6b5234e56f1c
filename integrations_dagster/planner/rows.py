"""Python rows as Arrow tables, and the rows of Parquet files a part at a time."""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq


def streamed(path: Path) -> pq.ParquetFile:
    """Open a Parquet file whose rows are read a part at a time, in memory that does not grow with the file.

    By default pyarrow reads ahead, and keeps what it has read until the file is closed.
    """
    return pq.ParquetFile(path, pre_buffer=False)


def table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Make a table of JSON-ready rows.

    By way of JSON, because pyarrow's own conversion of Python objects imports pandas, which costs every step more than
    a second.
    """
    text = "\n".join(map(_ENCODE, rows)).encode()
    if not text:
        return schema.empty_table()
    return pyarrow.json.read_json(
        io.BytesIO(text),
        # One block: a row that is longer than a block is an error.
        read_options=pyarrow.json.ReadOptions(block_size=len(text) + 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    ).select(schema.names)


def texts(values: Sequence[str | None]) -> pa.StringArray:
    """Make a column of texts, as `table` does without pandas.

    Raises:
        UnicodeEncodeError: A text holds half of a surrogate pair.
        OverflowError: They are longer than 2 GB together.
    """
    encoded = [b"" if value is None else value.encode() for value in values]
    ends = array("i", accumulate(map(len, encoded), initial=0))
    valid = None
    if None in values:
        bits = bytearray((len(values) + 7) // 8)
        for place, value in enumerate(values):
            if value is not None:
                bits[place >> 3] |= 1 << (place & 7)
        valid = pa.py_buffer(bytes(bits))
    return pa.StringArray.from_buffers(
        len(values), pa.py_buffer(ends.tobytes()), pa.py_buffer(b"".join(encoded)), valid
    )


_ENCODE = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
