"""From Dagster's op context to what the sync room asks for, and from its errors to what Dagster shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster import DagsterExecutionInterruptedError, DagsterInstance, DagsterRunStatus

from integrations_dagster.ledger.store import Ledger
from integrations_dagster.orchestration.worker import mark_worker, taking_over
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.storage import storage_path
from integrations_dagster.vocabulary import IntegrationsError, Partition

CANCELLED = "The run was cancelled. What was acknowledged is recorded; a new run delivers the rest."


@contextmanager
def run_context(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Iterator[RunContext]:
    """The surroundings of the run that a step belongs to.

    Raises:
        Misconfigured: There is no place for state.
        dagster.Failure: The run has been cancelled.
    """
    stop_if_cancelled(context)
    storage = storage_path(os.environ)
    instance: DagsterInstance = context.instance
    log = context.log.info
    ledger = Ledger.open(storage)
    try:
        yield RunContext(
            storage=storage,
            ledger=ledger,
            run_id=context.run.run_id,
            worker=mark_worker(instance, context.run),
            alive=taking_over(instance, log),
            log=log,
            env=os.environ,
        )
    finally:
        ledger.close()


def stop_if_cancelled(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> None:
    """Refuse to start a step of a run that has been cancelled: steps that share a process begin all the same.

    Raises:
        dagster.Failure: The run has been cancelled.
    """
    run = context.instance.get_run_by_id(context.run.run_id)
    if run is not None and run.status in (DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED):
        raise dg.Failure(description=CANCELLED, allow_retries=False)


@contextmanager
def readable_failures() -> Iterator[None]:
    """Turn the errors that this package raises on purpose into a message, and interruptions into an end without retry.

    Raises:
        dagster.Failure: Never retried: what is wrong stays wrong, and a cancelled run is meant to end.
    """
    try:
        yield
    except IntegrationsError as error:
        text = f"{error.message}\n\n{error.remedy}" if error.remedy else error.message
        raise dg.Failure(description=text, allow_retries=False) from None
    except (DagsterExecutionInterruptedError, KeyboardInterrupt):
        # An op with a retry policy would be tried again after a cancellation.
        raise dg.Failure(description=CANCELLED, allow_retries=False) from None


def partitions_of(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, partitions_def: dg.PartitionsDefinition | None
) -> list[Partition]:
    """The partitions that a run covers; empty for an unpartitioned model.

    Args:
        partitions_def: A time window definition, or None.
    """
    if partitions_def is None:
        return []
    if not isinstance(partitions_def, dg.TimeWindowPartitionsDefinition):
        raise dg.Failure(description="Partitions of a model are windows of time.", allow_retries=False)
    windows = [(key, partitions_def.time_window_for_partition_key(key)) for key in context.partition_keys]
    return [Partition(key, window.start.isoformat(), window.end.isoformat()) for key, window in windows]
