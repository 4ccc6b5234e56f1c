"""The sync log for people: SQL over its tables, and data frames for notebooks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from integrations_dagster.planner.log import homes, query
from integrations_dagster.planner.warehouse_home import WarehouseHome
from integrations_dagster.sync.storage import storage_path
from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.base import WarehouseAddress
from integrations_dagster.warehouses.registry import open_store
from integrations_dagster.warehouses.store import Store

if TYPE_CHECKING:
    DataFrame: TypeAlias = Any


def select(
    storage: Path,
    sql: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    sync: str = "",
    env: Mapping[str, str] | None = None,
) -> pa.Table:
    """The result of a SELECT over `sync_runs`, `sync_log` and `sync_snapshot`, as they are now.

    Safe at any time: nothing is written, and runs may fold meanwhile.

    Args:
        storage: The storage folder.
        parameters: Values of the `$name` in it.
        sync: Read only this sync's tables.
        env: Has the URLs of warehouses that keep state, which are asked for `sync_snapshot` alone; default: the
            process's environment.

    Raises:
        Misconfigured: It is no single SELECT, or it fails: with DuckDB's message. Or records are in a warehouse whose
            URL is not known, or that refuses them.
        WarehouseBusy: Such a warehouse lets nobody in.
    """
    known = os.environ if env is None else env

    def open_named(name: str, kind: str, variable: str) -> Store:
        if not known.get(variable):
            raise Misconfigured(
                f"Records of syncs are in the warehouse {name!r}, and the environment variable "
                f"{variable or 'that has its URL'} is not set.",
                "Set it (older state is named by the next run of its sync), or ask there: integrations.sync_snapshot.",
            )
        return open_store(WarehouseAddress(name, kind, url=known[variable].strip()))

    found = homes(storage, [sync] if sync else ())
    return query([WarehouseHome.found(home.folder, open_named) or home for home in found], sql, parameters)


def read_log(sql: str, storage: Path | str | None = None, **parameters: Any) -> DataFrame:
    """The result of a SELECT over `sync_runs`, `sync_log` and `sync_snapshot` as a pandas DataFrame.

    Args:
        sql: One SELECT, in DuckDB's SQL.
        storage: The storage folder; default: what INTEGRATIONS_STORAGE or DAGSTER_HOME say.
        parameters: Values of the `$name` in it.

    Raises:
        Misconfigured: There is no storage folder; it is no single SELECT, or it fails.
    """
    return select(_storage(storage), sql, parameters).to_pandas()


def sync_log(
    sync: str,
    *,
    run_id: str | None = None,
    key: str | None = None,
    outcome: str | None = None,
    since: datetime | None = None,
    storage: Path | str | None = None,
) -> DataFrame:
    """A sync's rows of `sync_log` as a pandas DataFrame, in order of time.

    Args:
        run_id: Only this run's.
        key: Only the row with this primary key, as text (a JSON array of texts for a composite one).
        outcome: Only rows with this outcome ("rejected").
        since: Only rows since then.
        storage: The storage folder; default: what INTEGRATIONS_STORAGE or DAGSTER_HOME say.

    Raises:
        Misconfigured: There is no storage folder.
    """
    return rows(_storage(storage), sync, run_id=run_id, key=key, outcome=outcome, since=since).to_pandas()


def rows(
    storage: Path,
    sync: str,
    *,
    columns: Sequence[str] = ("*",),
    run_id: str | None = None,
    key: str | None = None,
    outcome: str | None = None,
    since: datetime | None = None,
    most: int | None = None,
) -> pa.Table:
    """A sync's rows of `sync_log`, in order of time; the arguments are those of `sync_log`.

    Args:
        columns: Of `SYNC_LOG`.
        most: The newest rows, so many.
    """
    wanted = {"run_id": run_id, "key": key, "outcome": outcome, "since": since}
    given: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    conditions = ["time >= $since" if name == "since" else f"{name} = ${name}" for name in given]
    newest = "ORDER BY time DESC LIMIT $most" if most is not None else ""
    if most is not None:
        given["most"] = most
    where = " AND ".join(["sync = $sync", *conditions])
    # The names are those of arguments and columns; values are bound.
    found = f"(SELECT * FROM sync_log WHERE {where} {newest})"  # noqa: S608
    sql = f"SELECT {', '.join(columns)} FROM {found} ORDER BY time, key"  # noqa: S608
    return select(storage, sql, {"sync": sync, **given}, sync=sync)


def _storage(storage: Path | str | None) -> Path:
    return storage_path(os.environ) if storage is None else Path(storage)
