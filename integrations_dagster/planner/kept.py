"""The last values of records (`keep_values`): of each payload digest in the state, the payload.

A kept payload is found by its key and digest, and a digest is of one payload only. So what is kept can be missing, and
can never be another version's: a kill, an unknown answer and a late one need no rule of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from integrations_dagster.planner.state import Home, Manifest, literal, to_disk

PAYLOADS = pa.schema({"key": pa.string(), "payload_digest": pa.string(), "payload": pa.string()})
"""A payload as JSON, without its sensitive fields."""


def _union(paths: Iterable[Path]) -> str:
    files = ", ".join(literal(str(path)) for path in paths)
    nothing = "SELECT NULL::VARCHAR AS key, NULL::VARCHAR AS payload_digest, NULL::VARCHAR AS payload WHERE false"
    return f"SELECT key, payload_digest, payload FROM read_parquet([{files}])" if files else nothing


def fold_payloads(
    connection: duckdb.DuckDBPyConnection, before: Path | None, told: Sequence[Path], state: Sequence[Path], path: Path
) -> None:
    """Write the payloads of a new state.

    Args:
        before: Those of the state before.
        told: Those that runs have mapped since (`PAYLOADS`).
        state: Files of the new snapshot and of the held rows: a row in doubt may yet turn out to be delivered.
        path: The file to write.
    """
    snapshot, held = (literal(str(part)) for part in state)
    connection.execute(
        f"""COPY (
            WITH wanted AS (
                SELECT key, payload_digest FROM read_parquet({snapshot}) WHERE payload_digest IS NOT NULL
                UNION SELECT key, payload_digest FROM read_parquet({held}) WHERE status = 'in_doubt'
            ), before AS (
                SELECT b.* FROM ({_union([before] if before else [])}) b SEMI JOIN wanted USING (key, payload_digest)
            ), told AS (
                SELECT DISTINCT ON (key, payload_digest) t.* FROM ({_union(told)}) t
                SEMI JOIN wanted USING (key, payload_digest)
            )
            SELECT * FROM before
            UNION ALL SELECT t.* FROM told t ANTI JOIN before b USING (key, payload_digest)
        ) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)"""
    )
    to_disk(path)


def kept_payloads(
    connection: duckdb.DuckDBPyConnection, home: Home, manifest: Manifest, keys: Sequence[str]
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The last acknowledged values, where they are kept, by key and match value. The state is attached."""
    if not manifest.values:
        return {}
    rows = connection.execute(
        f"""SELECT s.key, s.match, v.payload
        FROM snapshot s JOIN ({_union([home.folder / manifest.values])}) v USING (key, payload_digest)
        WHERE list_contains($keys, s.key) ORDER BY s.number""",
        {"keys": list(keys)},
    ).fetchall()
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for key, match, payload in rows:
        found.setdefault(key, {})[match] = json.loads(payload)
    return found
