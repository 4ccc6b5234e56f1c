"""Warehouses by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.base import Warehouse, WarehouseAddress
from integrations_dagster.warehouses.store import Store

PATIENCE = 30.0
"""Seconds to wait for a warehouse that someone else holds."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What there is to know of a kind of warehouse before one is opened.

    Attributes:
        place: What says where it is: "path" (a file) or "url" (a server).
        open: Opens one, given its address, a scratch folder and the patience in seconds.
        store: Opens one to keep state in it, given its address and the patience in seconds; None: it keeps none.
    """

    place: str
    open: Callable[[WarehouseAddress, Path, float], Warehouse]
    store: Callable[[WarehouseAddress, float], Store] | None = None


def _duckdb(address: WarehouseAddress, scratch: Path, patience: float) -> Warehouse:
    # Imported where it is used: loading the code location stays light.
    from integrations_dagster.warehouses.duckdb import DuckDBWarehouse

    assert address.path is not None
    return DuckDBWarehouse(address.name, address.path, scratch=scratch, patience=patience)


def _postgres(address: WarehouseAddress, scratch: Path, patience: float) -> Warehouse:  # noqa: ARG001 - it spills itself
    from integrations_dagster.warehouses.postgres import PostgresWarehouse

    return PostgresWarehouse(address.name, address.url, patience=patience)


def _postgres_store(address: WarehouseAddress, patience: float) -> Store:
    from integrations_dagster.warehouses.postgres_store import PostgresStore

    return PostgresStore(address, patience=patience)


KINDS: Mapping[str, Kind] = {
    "duckdb": Kind("path", _duckdb),
    "postgres": Kind("url", _postgres, _postgres_store),
}


def open_store(address: WarehouseAddress, *, patience: float = PATIENCE) -> Store:
    """Open a warehouse to keep state in it, to be used in a `with` block.

    Raises:
        Misconfigured: It keeps none, its driver is not installed, or there is no warehouse at its address.
        WarehouseBusy: It let nobody in for longer than `patience`.
    """
    kind = KINDS.get(address.kind)
    if kind is None or kind.store is None:
        able = ", ".join(name for name, known in KINDS.items() if known.store)
        raise Misconfigured(
            f"Warehouse {address.name!r}: the kind {address.kind} keeps no state.",
            f"Write `home: embedded`; state can be kept in warehouses of the kind {able}.",
        )
    return kind.store(address, patience)


def open_warehouse(address: WarehouseAddress, *, scratch: Path, patience: float = PATIENCE) -> Warehouse:
    """Open a warehouse, to be used in a `with` block.

    Args:
        address: Which, and where.
        scratch: Where a query may spill what does not fit into memory; the same for all of a process.
        patience: Seconds to wait while it lets nobody in: another process holds the file, or the server is busy.

    Raises:
        Misconfigured: The kind is unknown, its driver is not installed, or there is no warehouse at its address.
        WarehouseBusy: It let nobody in for longer than `patience`.
    """
    kind = KINDS.get(address.kind)
    if kind is None:
        raise Misconfigured(
            f"Warehouse {address.name!r}: {address.kind!r} is no kind of warehouse.", f"Known: {', '.join(KINDS)}."
        )
    return kind.open(address, scratch, patience)
