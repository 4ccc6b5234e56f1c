"""query: run a model's SQL, and keep its rows as an immutable version."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import date, datetime
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from integrations_dagster.sync.cursors import start_of
from integrations_dagster.sync.results import ModelVersion
from integrations_dagster.sync.spec import ModelSpec
from integrations_dagster.sync.versions import drafted, folder_of, prune, publish, version_name
from integrations_dagster.vocabulary import Misconfigured, Partition
from integrations_dagster.warehouses.base import Warehouse
from integrations_dagster.warehouses.registry import PATIENCE, open_warehouse

PREVIEW_CELL = 80
"""Characters of a cell of a preview."""


def run_query(
    model: ModelSpec,
    storage: Path,
    run_id: str,
    partitions: Sequence[Partition] = (),
    log: Callable[[str], None] = lambda _: None,
    *,
    patience: float = PATIENCE,
    whole: bool = False,
) -> list[ModelVersion]:
    """Run the model's query, once for each partition, and keep the rows.

    Args:
        storage: Folder of all state.
        run_id: Part of the versions' names.
        partitions: The partitions to query; empty for an unpartitioned model, and only then.
        log: Told one sentence at a time.
        patience: Seconds to wait for a warehouse that another process holds.
        whole: Whether all rows are asked for, also of a model with a cursor.

    Returns:
        One version for each partition, in their order, or the one of an unpartitioned model.

    Raises:
        Misconfigured: Naming the file: the SQL fails, is no single SELECT, or lacks the primary key.
        WarehouseBusy: The warehouse could not be opened in time.
    """
    source = f"{model.sql_path.parent.name}/{model.sql_path.name} (model {model.name!r})"
    if model.partitioned != bool(partitions):
        given = "is partitioned, and no partition was given" if model.partitioned else "is not partitioned"
        raise Misconfigured(f"Model {model.name!r} {given}.", "Launch it with the partitions to query.")
    sql = _text(model, source)
    spec = model.warehouse
    cursor = None if whole else start_of(model, storage)
    versions = []
    scratch = storage / "scratch" / "duckdb"
    with open_warehouse(spec.name, spec.kind, spec.path, scratch=scratch, patience=patience) as warehouse:
        for partition in partitions or (None,):
            version = _run_one(model, warehouse, storage, run_id, partition, sql, source, cursor)
            versions.append(version)
            where = f", partition {version.partition}" if version.partition else ""
            log(f"Model {model.name!r}{where}: {version.rows:,} rows in {version.seconds:.1f} s.")
    for version in versions:
        prune(storage, model.name, version.partition)
    return versions


HIDDEN = "•••"
"""What a preview shows of a sensitive value."""


def preview(
    version: ModelVersion, rows: int = 10, sensitive: frozenset[str] = frozenset()
) -> tuple[list[str], list[list[str]]]:
    """The first rows of a version, for people.

    Args:
        rows: Rows at the most.
        sensitive: Columns whose values are not shown.

    Returns:
        Column names, and rows of texts of at most 80 characters; null is "null".
    """
    names = [name for name, _ in version.columns]
    shown: list[list[str]] = []
    for path in sorted(Path(version.path).glob("part-*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=max(rows, 1)):
                first = batch.slice(0, rows - len(shown)).to_pylist()
                shown.extend([HIDDEN if name in sensitive else _cell(row[name]) for name in names] for row in first)
                if len(shown) >= rows:
                    return names, shown
    return names, shown


def _text(model: ModelSpec, source: str) -> str:
    try:
        return model.sql_path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise Misconfigured(
            f"There is no {source}.", f"Create {model.sql_path}, or correct `sql` in the model's defs.yaml."
        ) from None
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{source} is not UTF-8 text: {error}.", "Save it as UTF-8.") from error


def _run_one(
    model: ModelSpec,
    warehouse: Warehouse,
    storage: Path,
    run_id: str,
    partition: Partition | None,
    sql: str,
    source: str,
    cursor: str | None,
) -> ModelVersion:
    key = partition.key if partition else ""
    parameters: dict[str, str | None] = {}
    if partition:
        parameters |= {"partition_start": partition.start, "partition_end": partition.end}
    if model.cursor:
        parameters["cursor"] = cursor
    started = time.time()
    name = version_name(started, run_id)
    with drafted(storage, model.name, key, name) as draft:
        result = warehouse.query_to_parquet(sql, parameters, draft, source)
        returned = [column for column, _ in result.columns]
        if missing := [column for column in model.primary_key if column not in returned]:
            raise Misconfigured(
                f"The query in {source} does not return the primary key column "
                f"{', '.join(repr(column) for column in missing)}.",
                f"It returns: {', '.join(returned)}. Add it, or correct `primary_key` in the model's defs.yaml.",
            )
        if model.cursor and model.cursor.column not in returned:
            raise Misconfigured(
                f"The query in {source} does not return the cursor column {model.cursor.column!r}.",
                f"It returns: {', '.join(returned)}. Add it, or correct `cursor` in the model's defs.yaml.",
            )
        version = ModelVersion(
            model=model.name,
            partition=key,
            name=name,
            path=str(folder_of(storage, model.name, key) / name),
            started=started,
            seconds=result.seconds,
            rows=result.rows,
            columns=result.columns,
            sql=sql,
            cursor=cursor,
        )
        publish(draft, version)
    return version


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    text = value.isoformat() if isinstance(value, date | datetime | time_of_day) else str(value)
    # A cell is one line.
    text = " ".join(text.split()) if any(c in text for c in "\n\r\t") else text
    return text if len(text) <= PREVIEW_CELL else f"{text[: PREVIEW_CELL - 1]}…"
