"""Which process a run lives and dies with, and whether it still lives.

After the kill of a whole process tree Dagster keeps showing a run as started, so the process decides, not the status.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable

import dagster as dg
import psutil
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus

from integrations_dagster.ledger.leases import Holder
from integrations_dagster.vocabulary import Worker

WORKER_TAG = "integrations/worker"
HEARTBEAT_SILENCE = 60.0
"""Seconds without a heartbeat after which a run that Dagster does not know counts as dead."""
STARTING_LIMIT = 600.0
"""Seconds that a run may be starting before it counts as dead: its launcher may have died with it."""
CLOCK_SLACK = 2.0
"""Seconds by which two readings of one process's start may differ: they are computed from the boot time."""

NOBODY = Worker("", 0, 0.0)
"""Stands for a worker that could not be found: only the run's status tells whether it lives."""


def this_process() -> Worker:
    """The calling process."""
    process = psutil.Process()
    return Worker(socket.gethostname(), process.pid, process.create_time())


def process_alive(worker: Worker) -> bool | None:
    """Whether the process still runs; None where that cannot be seen from this host."""
    if worker.pid == 0 or worker.host != socket.gethostname():
        return None
    try:
        process = psutil.Process(worker.pid)
        same = abs(process.create_time() - worker.started) <= CLOCK_SLACK
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def worker_of(instance: DagsterInstance, run: DagsterRun) -> Worker | None:
    """The worker process of a run: the parent of its steps, or the process that executes it whole.

    Args:
        instance: The instance that has the run's event log.
        run: A run that has started.

    Returns:
        None if the run has no process yet, or if its process is on a host that cannot be told.
    """
    told = _from_tag(run)
    if told is not None:
        return told
    pid, logged = _logged_pid(instance, run)
    if pid is None:
        return None
    for process in [psutil.Process(), *psutil.Process().parents()]:
        if process.pid == pid:
            return Worker(socket.gethostname(), pid, process.create_time())
    if not _launched_here(run):
        return None
    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        started = logged
    # A process that started after the run's log named its id is another one; with this start it is told apart.
    return Worker(socket.gethostname(), pid, min(started, logged))


def mark_worker(instance: DagsterInstance, run: DagsterRun) -> Worker:
    """Find the worker of the run that calls this from one of its steps, and note it on the run, for other processes."""
    worker = worker_of(instance, run)
    if worker is None:
        pid, _ = _logged_pid(instance, run)
        # Without a process in the log the run has no executor of its own: the caller executes it.
        worker = this_process() if pid is None else NOBODY
    if worker is not NOBODY and WORKER_TAG not in run.tags:
        instance.add_run_tags(
            run.run_id, {WORKER_TAG: json.dumps([worker.host, worker.pid, worker.started], separators=(",", ":"))}
        )
    return worker


def run_alive(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Whether a queued or started run can still do anything."""
    if run.is_finished:
        return False
    if run.status == DagsterRunStatus.STARTING:
        record = instance.get_run_record_by_id(run.run_id)
        return record is not None and time.time() - record.update_timestamp.timestamp() < STARTING_LIMIT
    if run.status in (DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING):
        worker = worker_of(instance, run)
        return worker is None or process_alive(worker) is not False
    return True


def is_alive(instance: DagsterInstance) -> Callable[[Holder], bool]:
    """The liveness test of the ledger's leases.

    A run is dead if it has finished, or if its worker's process is gone from this host, whatever Dagster says of its
    status. A run that Dagster does not know is dead without a heartbeat for a minute, or if its process is gone.
    """

    def alive(holder: Holder) -> bool:
        process = process_alive(holder.worker)
        if process is False:
            return False
        run = instance.get_run_by_id(holder.run_id) if holder.known else None
        if run is None:
            # Runs of another Dagster instance that shares the storage give no heartbeat, but their process is seen.
            seen = holder.known and process is True
            return seen or time.time() - holder.heartbeat < HEARTBEAT_SILENCE
        return not run.is_finished

    return alive


def report_dead(instance: DagsterInstance, run_id: str) -> bool:
    """Mark a run failed that Dagster still shows as started although its worker is dead.

    Returns:
        Whether it was marked.
    """
    # Read after the process was seen dead: a run that ended well sets its status before its process exits.
    run = instance.get_run_by_id(run_id)
    if run is None or run.status not in (DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING):
        return False
    instance.report_run_failed(
        run,
        "The process of this run is gone: it was killed, or its host went down. Another run has taken over.",
    )
    return True


def taking_over(instance: DagsterInstance, log: Callable[[str], None]) -> Callable[[Holder], bool]:
    """`is_alive`, for a run about to take the lease: a dead holder is marked failed, so that the UI tells the truth."""
    test = is_alive(instance)

    def alive(holder: Holder) -> bool:
        if test(holder):
            return True
        if holder.known and report_dead(instance, holder.run_id):
            log(f"Run {holder.run_id} died without a word (process {holder.worker.pid}); this run takes over.")
        return False

    return alive


def _from_tag(run: DagsterRun) -> Worker | None:
    text = run.tags.get(WORKER_TAG)
    if not text:
        return None
    host, pid, started = json.loads(text)
    return Worker(host, pid, started)


def _logged_pid(instance: DagsterInstance, run: DagsterRun) -> tuple[int | None, float]:
    """The process id that the run's executor logged last, and when (seconds since the epoch)."""
    records = instance.get_records_for_run(run.run_id, of_type=DagsterEventType.ENGINE_EVENT).records
    for record in reversed(records):
        event = record.event_log_entry.dagster_event
        if event is None or event.step_key is not None:
            continue
        pid = event.engine_event_data.metadata.get("pid")
        if isinstance(pid, dg.TextMetadataValue) and pid.value and pid.value.isdigit():
            return int(pid.value), record.event_log_entry.timestamp
    return None, 0.0


def _launched_here(run: DagsterRun) -> bool:
    """Whether the run was started by a code server on this host."""
    info = json.loads(run.tags.get(".dagster/grpc_info", "{}"))
    return bool(info.get("socket")) or info.get("host") in ("localhost", "127.0.0.1", "::1")
