"""Python rows as Arrow tables."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.json


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


_ENCODE = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
