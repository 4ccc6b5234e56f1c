"""Warehouses by kind."""

from __future__ import annotations

from pathlib import Path

from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.base import Warehouse
from integrations_dagster.warehouses.duckdb import DuckDBWarehouse

KINDS = ("duckdb",)

PATIENCE = 30.0
"""Seconds to wait for a warehouse that someone else holds."""


def open_warehouse(name: str, kind: str, path: Path, *, scratch: Path, patience: float = PATIENCE) -> Warehouse:
    """Open a warehouse, to be used in a `with` block.

    Args:
        name: Its name in YAML, for messages.
        kind: One of `KINDS`.
        path: The DuckDB file.
        scratch: Where a query may spill what does not fit into memory; the same for all of a process.
        patience: Seconds to wait while another process holds it open for writing.

    Raises:
        Misconfigured: The kind is unknown, or there is no warehouse at `path`.
        WarehouseBusy: It was held for longer than `patience`.
    """
    if kind not in KINDS:
        raise Misconfigured(f"Warehouse {name!r}: {kind!r} is no kind of warehouse.", f"Known: {', '.join(KINDS)}.")
    return DuckDBWarehouse(name, path, scratch=scratch, patience=patience)
