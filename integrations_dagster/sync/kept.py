"""What `keep_values` keeps: the payloads of the rows that a run has mapped, for the fold to take those acknowledged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from integrations_dagster.destinations.values import canonical_text
from integrations_dagster.planner.kept import PAYLOADS
from integrations_dagster.planner.rows import streamed
from integrations_dagster.planner.state import Home, literal, to_disk
from integrations_dagster.sync.mapping import Mapper
from integrations_dagster.sync.spec import SyncSpec

ROWS = 10_000
"""Rows that are mapped at a time."""


def keep_payloads(sync: SyncSpec, home: Home) -> None:
    """Write the payloads of all rows in the plan folders of a home, which the caller is about to fold.

    They are mapped once more, from the shard files, so that nothing is lost with a write step that was killed. What a
    changed mapping makes of them now has another digest, and is not taken.
    """
    if not sync.keep_values:
        return
    for plan in home.plan_folders():
        for shard in sorted(plan.glob("shard-*.parquet")):
            target = shard.with_name(shard.name.replace("shard-", "values-"))
            if not target.exists():
                _keep(sync, shard, target)


def _keep(sync: SyncSpec, shard: Path, target: Path) -> None:
    mapper = Mapper(sync, sync.destination.create(), None)
    draft = target.with_name(f".{target.name}")
    with streamed(shard) as file, pq.ParquetWriter(draft, PAYLOADS, compression="zstd") as writer:
        if not {f"c:{source}" for source in sync.sources} <= set(file.schema_arrow.names):
            return  # the sync uses other columns now
        for rows in file.iter_batches(ROWS):
            kept = [mapped.row for mapped in mapper.map(rows) if mapped.row.payload_digest]
            columns = [
                pa.array([row.key for row in kept], pa.string()),
                pa.array([row.payload_digest for row in kept], pa.string()),
                pa.array([_text(sync, row.payload, row.encoded) for row in kept], pa.string()),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=PAYLOADS))
    draft.replace(target)


def hide_payloads(sync: SyncSpec, home: Home) -> None:
    """Take fields that were marked as sensitive since out of the payloads that are kept."""
    name = home.manifest().values
    members = [canonical_text(member) + ":" for member in sorted(sync.sensitive)]
    if not name or not members:
        return
    path = home.folder / name
    with duckdb.connect() as connection:
        # A member's name may stand in a text too: then a payload is looked at in vain.
        found = f"read_parquet({literal(str(path))}) WHERE list_bool_or([contains(payload, m) FOR m IN $members])"
        if connection.execute(f"SELECT 1 FROM {found} LIMIT 1", {"members": members}).fetchone() is None:  # noqa: S608
            return
    draft = path.with_name(f".{name}")
    with streamed(path) as file, pq.ParquetWriter(draft, PAYLOADS, compression="zstd") as writer:
        for rows in file.iter_batches(ROWS):
            texts: list[Any] = rows.column("payload").to_pylist()
            payloads = [
                canonical_text({k: v for k, v in json.loads(text).items() if k not in sync.sensitive})
                if any(member in text for member in members)
                else text
                for text in texts
            ]
            columns = [rows.column("key"), rows.column("payload_digest"), pa.array(payloads, pa.string())]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=PAYLOADS))
    to_disk(draft)
    draft.replace(path)


def _text(sync: SyncSpec, payload: Mapping[str, Any], encoded: bytes) -> str:
    if not sync.sensitive:
        return encoded.decode()
    return canonical_text({name: value for name, value in payload.items() if name not in sync.sensitive})
