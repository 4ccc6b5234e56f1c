"""Reverse ETL that lives in Dagster.

`Sync`, `Model`, `Destination` and `Warehouse` (components), `read_log` and `sync_log` (the sync log in notebooks) are
imported when they are first asked for, so that importing a room (a write step, a test of the ledger) does not import
Dagster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from integrations_dagster.components import Destination, Model, Sync, Warehouse
    from integrations_dagster.sync.log import read_log, sync_log

__all__ = ["Destination", "Model", "Sync", "Warehouse", "read_log", "sync_log"]


def __getattr__(name: str) -> Any:
    if name in ("read_log", "sync_log"):
        from integrations_dagster.sync import log

        return getattr(log, name)
    if name in __all__:
        from integrations_dagster import components

        return getattr(components, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
