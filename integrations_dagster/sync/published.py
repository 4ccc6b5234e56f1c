"""The sync log in the warehouse that keeps a sync's state, brought up to date by plan and record."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from integrations_dagster.planner.state import Home
from integrations_dagster.planner.warehouse_home import WarehouseHome
from integrations_dagster.sync.context import RunContext
from integrations_dagster.vocabulary import IntegrationsError


def publish_log(ctx: RunContext, home: Home) -> tuple[str, ...]:
    """Copy what is new in the sync log into the warehouse, if the state is there. Called under the lease.

    A copy that fails stops no delivery, since the files have it all: the next plan or record makes it.

    Returns:
        What a person should know.
    """
    if not isinstance(home, WarehouseHome):
        return ()
    try:
        home.publish()
    except (IntegrationsError, duckdb.Error, pa.ArrowException, OSError) as error:
        # What is no error of ours may quote anything.
        why = str(error) if isinstance(error, IntegrationsError) else type(error).__name__
        note = f"The sync log could not be copied into the warehouse; the next run tries again. {why}"
        ctx.log(note)
        return (note,)
    return ()
