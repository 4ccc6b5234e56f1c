"""Runs of a sync without Dagster, each write op in a process of its own."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

from benchmarks.processes import Call, cpu_seconds, forkserver, in_processes, peak_memory, this_process
from benchmarks.profiling import profiled
from benchmarks.setting import Setting
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.record import record
from integrations_dagster.sync.results import Plan, RunReport, Shard, WriteSummary
from integrations_dagster.sync.write import write
from integrations_dagster.vocabulary import Worker


@dataclass(frozen=True)
class Op:
    """One write op, as its process saw it.

    Attributes:
        summary: What it returned.
        started: Start on the machine's monotonic clock, imports and connections to the ledger excluded.
        ended: End.
        cpu: CPU seconds of its process.
        memory: Peak resident memory of its process, in MB.
    """

    summary: WriteSummary
    started: float
    ended: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Span:
    """When a write op begins and is cancelled: with the others that wait at `ready`, and after so many seconds."""

    ready: Barrier
    seconds: float


def write_op(
    setting: Setting, sync: str, shard: Shard, worker: Worker, span: Span | None = None, *, profile: str = ""
) -> Op:
    """Deliver a shard; call it in a process of its own.

    Args:
        span: None: it begins at once and ends when it is done.
        profile: A file for cProfile's statistics of all threads, or "".
    """
    with setting.context(shard.run_id, worker) as ctx:
        if span is not None:
            span.ready.wait(60)
        before, started = cpu_seconds(), time.monotonic()
        if span is not None:
            timer = threading.Timer(span.seconds, ctx.stop.set)
            timer.daemon = True
            timer.start()
        if profile:
            with profiled(profile):
                summary = write(setting.sync(sync), ctx, shard)
        else:
            summary = write(setting.sync(sync), ctx, shard)
        return Op(summary, started, time.monotonic(), cpu_seconds() - before, peak_memory())


@dataclass(frozen=True)
class Run:
    """One run without Dagster.

    Attributes:
        made: Its plan.
        ops: Its write ops.
        report: Its account.
        plan_seconds: Wall time of `plan`.
        record_seconds: Wall time of `record`.
        seconds: Wall time from the start of `plan` to the end of `record`.
    """

    made: Plan
    ops: tuple[Op, ...]
    report: RunReport
    plan_seconds: float
    record_seconds: float
    seconds: float

    @property
    def write_seconds(self) -> float:
        """From the start of the first write op to the end of the last."""
        return max(op.ended for op in self.ops) - min(op.started for op in self.ops)


def run(setting: Setting, sync: str = "contacts", *, profile: str = "") -> Run:
    """Plan, write each shard in a process of its own, record. The model has been queried.

    Args:
        profile: A file for cProfile's statistics of the first write op, or "".
    """
    run_id, worker = f"run-{uuid.uuid4().hex[:12]}", this_process()
    with setting.context(run_id, worker) as ctx:
        started = time.monotonic()
        made = plan(setting.sync(sync), ctx)
        planned = time.monotonic()
        ops = in_processes(
            [
                (write_op, (setting, sync, shard, worker), {"profile": profile if shard.index == 0 else ""})
                for shard in made.shards
            ]
        )
        written = time.monotonic()
        report = record(setting.sync(sync), ctx, made, [op.summary for op in ops])
        ended = time.monotonic()
    return Run(made, tuple(ops), report, planned - started, ended - written, ended - started)


def run_together(setting: Setting, syncs: Sequence[str], seconds: float) -> float:
    """Run syncs at once, each write op in a process of its own, and cancel them; what is unsent stays so.

    Args:
        seconds: From the moment when all write ops are ready to their cancellation.

    Returns:
        When they were cancelled, on the machine's monotonic clock.

    Raises:
        RuntimeError: A write op ended before.
    """
    worker = this_process()
    with ExitStack() as stack:
        runs = []
        for sync in syncs:
            ctx = stack.enter_context(setting.context(f"run-{uuid.uuid4().hex[:12]}", worker))
            runs.append((sync, ctx, plan(setting.sync(sync), ctx)))
        span = Span(forkserver().Barrier(sum(len(made.shards) for _, _, made in runs)), seconds)
        calls: list[Call] = [
            (write_op, (setting, sync, shard, worker, span), {}) for sync, _, made in runs for shard in made.shards
        ]
        ops: list[Op] = in_processes(calls)
        until = min(op.started for op in ops) + seconds
        for sync, ctx, made in runs:
            own, ops = ops[: len(made.shards)], ops[len(made.shards) :]
            record(setting.sync(sync), ctx, made, [op.summary for op in own])
            if any(op.ended - op.started < seconds for op in own):
                stopped = {op.summary.stopped for op in own} - {""}
                raise RuntimeError(f"A write op of {sync} ended early: {' '.join(stopped) or 'it ran out of rows.'}")
    return until
