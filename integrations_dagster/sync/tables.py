"""Model versions as tables of the warehouse, for syncs whose state is there: nothing but what differs leaves it.

A table belongs to the version of its name below the storage folder: a version that is not there, and is not being made,
has no table for long.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

from integrations_dagster.planner.state import quote, slug
from integrations_dagster.sync.storage import storage_id
from integrations_dagster.sync.versions import kept_versions
from integrations_dagster.warehouses.base import QueryResult
from integrations_dagster.warehouses.store import SCHEMA, Store

PREVIEW = "preview.parquet"
"""The first rows of a version that is a table alone, for people."""
PREVIEW_ROWS = 10


def _short(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def _prefix(storage: Path, model: str, partition: str) -> str:
    # Names are at most 63 bytes long; several storage folders may use one warehouse.
    return f"model_{slug(model)[:20].lower()}_{_short(f'{storage_id(storage)}/{model}/{partition}', 6)}_"


def table_name(storage: Path, model: str, partition: str, version: str) -> str:
    """The table of a version."""
    return f"{_prefix(storage, model, partition)}{_short(version, 6)}"


def make_table(
    store: Store, table: str, sql: str, parameters: Mapping[str, str | None], folder: Path, source: str, *, files: bool
) -> QueryResult:
    """Run a model's query into a table, and write its rows to files too, or the first of them.

    Args:
        folder: The draft of the version.
        source: The file of the query, for messages.
        files: Whether a sync wants files.

    Raises:
        Misconfigured: See `Warehouse.query_to_parquet`, and where the user may not make tables.
    """
    started = time.monotonic()
    with store.transaction():
        store.prepare_schema()
        rows = store.create_as(table, sql, parameters, source)
        store.settled(table, SCHEMA)
        columns = store.columns(table)
        everything = f"SELECT * FROM {quote(SCHEMA)}.{quote(table)}"
        if files:
            store.to_parquet(everything, folder / "part-0.parquet")
        else:
            store.to_parquet(f"{everything} LIMIT {PREVIEW_ROWS}", folder / PREVIEW)
    return QueryResult(rows, columns, time.monotonic() - started)


def prune_tables(store: Store, storage: Path, model: str, partition: str) -> None:
    """Drop the tables of versions that are gone."""
    with kept_versions(storage, model, partition) as names, store.transaction():
        kept = {table_name(storage, model, partition, name) for name in names}
        for table in store.tables(_prefix(storage, model, partition)):
            if table not in kept:
                store.execute(f"DROP TABLE IF EXISTS {quote(SCHEMA)}.{quote(table)}")
