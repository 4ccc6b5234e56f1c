"""A sync from the terminal: query, plan, write and record in this process."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from integrations_dagster.ledger.leases import Holder, Lease
from integrations_dagster.ledger.store import Ledger
from integrations_dagster.planner.candidates import Release
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.preview import Preview, preview
from integrations_dagster.sync.query import run_query
from integrations_dagster.sync.record import record
from integrations_dagster.sync.results import Plan, RunReport, WriteSummary
from integrations_dagster.sync.results import Progress as Done
from integrations_dagster.sync.write import write
from integrations_dagster.vocabulary import LeaseLost, Partition, Worker

if TYPE_CHECKING:
    from integrations_dagster.sync.spec import SyncSpec

HEARTBEAT = 10.0
"""Seconds between two signs of life: nobody but the lease knows of a run of the command line."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a call of the command line asks for.

    Attributes:
        partitions: Windows of a partitioned model.
        limit: Candidates at the most, or None.
        keys: Only these primary keys, if any.
        query: Whether the model is queried first; else its newest version is used.
        release: Which held rows are sent again, and nothing else; None for a run of all.
        allow_removals: Whether the removal guard is lifted.
        allow_volume: Whether the guards on volume are lifted.
        full_resync: Whether every row is delivered anew.
        resync_keys: Primary keys whose rows are delivered anew.
    """

    partitions: Sequence[Partition] = ()
    limit: int | None = None
    keys: tuple[str, ...] = ()
    query: bool = True
    release: Release | None = None
    allow_removals: bool = False
    allow_volume: bool = False
    full_resync: bool = False
    resync_keys: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether rows are asked for that a cursor has passed."""
        return bool(self.keys or self.release or self.full_resync or self.resync_keys)

    @property
    def options(self) -> PlanOptions:
        return PlanOptions(
            limit=self.limit,
            keys=self.keys,
            release=self.release,
            allow_removals=self.allow_removals,
            allow_volume=self.allow_volume,
            full_resync=self.full_resync,
            resync_keys=self.resync_keys,
        )


def run_sync(sync: SyncSpec, storage: Path, launch: Launch, console: Console) -> tuple[Plan, RunReport]:
    """Deliver a sync, with a progress bar. Interrupted, it sends nothing new, and records what was answered.

    Args:
        console: Shows progress.

    Raises:
        IntegrationsError: What stopped it, for a person.
    """
    with surroundings(storage, console) as ctx:
        assert isinstance(ctx.ledger, _NotingLedger)
        if launch.query:
            run_query(sync.model, storage, ctx.run_id, launch.partitions, ctx.log, whole=launch.whole)
        with _heartbeats(ctx.ledger):
            try:
                made = plan(sync, ctx, launch.partitions, launch.options, known=False)
                summaries = _write_all(sync, ctx, made, console)
                return made, record(sync, ctx, made, summaries)
            finally:
                ctx.ledger.release_noted()


def preview_sync(sync: SyncSpec, storage: Path, launch: Launch, console: Console, samples: int = 5) -> Preview:
    """Compute what a run would send; sends nothing and changes no state.

    Args:
        samples: Payloads at the most.
    """
    with surroundings(storage, console) as ctx:
        if launch.query:
            run_query(sync.model, storage, ctx.run_id, launch.partitions, ctx.log, whole=launch.whole)
        return preview(sync, ctx, launch.partitions, launch.options, samples=samples)


def _write_all(sync: SyncSpec, ctx: RunContext, made: Plan, console: Console) -> list[WriteSummary]:
    total = sum(shard.candidates for shard in made.shards)
    done: dict[int, Done] = {}
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rejected]}"),
        TimeElapsedColumn(),
        console=console,
    )
    with bar, ThreadPoolExecutor(max(1, len(made.shards)), "shard") as threads:
        task = bar.add_task(sync.name, total=total, rejected="")

        def told(progress: Done) -> None:
            done[progress.shard] = progress
            parts = list(done.values())
            rejected = sum(part.rejected for part in parts)
            text = f"{rejected:,} rejected" if rejected else ""
            bar.update(task, completed=sum(part.done for part in parts), rejected=text)

        running = [threads.submit(write, sync, ctx, shard, told) for shard in made.shards]
        try:
            wait(running)
        except KeyboardInterrupt:
            console.print("Interrupted: sending nothing new, waiting for the answers on their way.")
            ctx.stop.set()
            wait(running)
        return [future.result() for future in running]


class _NotingLedger(Ledger):
    """A ledger that knows which lease was taken through it, so that signs of life begin with it."""

    noted: Lease | None = None

    def acquire(
        self, state_key: str, run_id: str, worker: Worker, *, alive: Callable[[Holder], bool], known: bool = True
    ) -> Lease:
        self.noted = super().acquire(state_key, run_id, worker, alive=alive, known=known)
        return self.noted

    def release_noted(self) -> None:
        """Give the lease back, if it is held still: after an error the next run should not have to wait."""
        if self.noted is not None:
            self.release(self.noted)
            self.noted = None


@contextmanager
def surroundings(storage: Path, console: Console) -> Iterator[RunContext]:
    """What a call of the command line knows of the world around it; the ledger is closed in the end."""
    from integrations_dagster.orchestration.worker import this_process

    ledger = _NotingLedger.open(storage)
    try:
        with _alive() as alive:
            yield RunContext(
                storage=storage,
                ledger=ledger,
                run_id=f"cli-{uuid.uuid4()}",
                worker=this_process(),
                alive=alive,
                log=lambda text: console.print(text, markup=False),
                env=os.environ,
            )
    finally:
        ledger.close()


@contextmanager
def _alive() -> Iterator[Callable[[Holder], bool]]:
    """Whether the holder of a lease is at work, as Dagster sees its run where there is a Dagster."""
    from dagster import DagsterInstance

    from integrations_dagster.orchestration.worker import is_alive

    if os.environ.get("DAGSTER_HOME"):
        with DagsterInstance.get() as instance:
            yield is_alive(instance)
    else:
        with DagsterInstance.ephemeral() as instance:
            yield is_alive(instance)


@contextmanager
def _heartbeats(ledger: _NotingLedger) -> Iterator[None]:
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            lease = ledger.noted
            if lease is not None:
                try:
                    ledger.heartbeat(lease)
                except LeaseLost:
                    return  # the writers find out themselves, and say so

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
