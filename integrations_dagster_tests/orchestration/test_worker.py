"""Which process a run lives and dies with, and when it counts as dead."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.events import EngineEventData
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.test_utils import create_run_for_test

from integrations_dagster.ledger.leases import Holder
from integrations_dagster.orchestration.worker import (
    HEARTBEAT_SILENCE,
    NOBODY,
    WORKER_TAG,
    is_alive,
    mark_worker,
    process_alive,
    report_dead,
    run_alive,
    this_process,
    worker_of,
)
from integrations_dagster.vocabulary import Worker
from integrations_dagster_tests.orchestration.shop import queued_run

HERE = this_process().host


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits until its input ends."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.communicate()


def worker(process: subprocess.Popen[bytes]) -> Worker:
    return Worker(HERE, process.pid, psutil.Process(process.pid).create_time())


def started_run(instance: DagsterInstance, **tags: str) -> DagsterRun:
    run: DagsterRun = create_run_for_test(instance, status=DagsterRunStatus.STARTED, tags=tags)
    return run


def holder(run_id: str, process: Worker, *, known: bool = True, age: float = 0.0) -> Holder:
    return Holder("sync@account", run_id, process, 1, time.time() - age, known)


def engine_event(instance: DagsterInstance, run: DagsterRun, pid: int) -> None:
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))


def tag_of(process: Worker) -> dict[str, str]:
    return {WORKER_TAG: json.dumps([process.host, process.pid, process.started])}


def test_a_process_is_told_from_a_later_one_with_its_id(child: subprocess.Popen[bytes]) -> None:
    alive = worker(child)
    assert process_alive(alive) is True
    assert process_alive(Worker(HERE, alive.pid, alive.started - 100)) is False
    assert process_alive(Worker("another-host", alive.pid, alive.started)) is None
    assert process_alive(NOBODY) is None
    child.kill()
    # Not waited for yet: a process that only its parent remembers is dead.
    deadline = time.monotonic() + 10
    while process_alive(alive) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process_alive(alive) is False


def test_the_worker_is_the_logged_process_among_the_callers_parents(instance: DagsterInstance) -> None:
    run = started_run(instance)
    parent = psutil.Process().parent()
    assert parent is not None
    engine_event(instance, run, parent.pid)
    assert worker_of(instance, run) == Worker(HERE, parent.pid, parent.create_time())
    marked = mark_worker(instance, run)
    again = instance.get_run_by_id(run.run_id)
    assert again is not None
    assert json.loads(again.tags[WORKER_TAG]) == [marked.host, marked.pid, marked.started]
    # Any process reads it from the run now.
    assert worker_of(instance, again) == marked


def test_a_run_without_a_logged_process_is_executed_by_its_caller(instance: DagsterInstance) -> None:
    run = started_run(instance)
    assert worker_of(instance, run) is None
    assert mark_worker(instance, run) == this_process()


def test_a_logged_process_of_another_host_is_nobody_here(
    instance: DagsterInstance, child: subprocess.Popen[bytes]
) -> None:
    run = started_run(instance)
    engine_event(instance, run, child.pid)
    assert worker_of(instance, run) is None
    assert mark_worker(instance, run) == NOBODY
    assert run_alive(instance, run)
    assert is_alive(instance)(holder(run.run_id, NOBODY))


def test_a_run_of_the_local_code_server_is_seen_from_outside(
    instance: DagsterInstance, child: subprocess.Popen[bytes]
) -> None:
    info: dict[str, Any] = {".dagster/grpc_info": json.dumps({"host": "localhost", "socket": "/tmp/x"})}
    run = started_run(instance, **info)
    engine_event(instance, run, child.pid)
    assert worker_of(instance, run) == worker(child)
    assert run_alive(instance, run)
    child.kill()
    child.wait()
    assert not run_alive(instance, run)


def test_a_reused_process_id_is_not_the_worker(instance: DagsterInstance, child: subprocess.Popen[bytes]) -> None:
    info: dict[str, Any] = {".dagster/grpc_info": json.dumps({"host": "localhost", "socket": "/tmp/x"})}
    run = started_run(instance, **info)
    started = psutil.Process(child.pid).create_time()
    entry = dg.EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level=10,
        user_message="",
        run_id=run.run_id,
        timestamp=started - 3600,
        dagster_event=dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.ENGINE_EVENT.value,
            job_name=run.job_name,
            event_specific_data=EngineEventData.in_process(child.pid),
        ),
    )
    instance.store_event(entry)
    assert not run_alive(instance, run)


@pytest.mark.parametrize(
    ("status", "lives"),
    [
        (DagsterRunStatus.STARTED, True),
        (DagsterRunStatus.CANCELING, True),
        (DagsterRunStatus.SUCCESS, False),
        (DagsterRunStatus.FAILURE, False),
        (DagsterRunStatus.CANCELED, False),
    ],
)
def test_a_finished_run_is_dead_though_its_process_lives(
    instance: DagsterInstance, child: subprocess.Popen[bytes], status: DagsterRunStatus, lives: bool
) -> None:
    run = create_run_for_test(instance, status=status)
    assert is_alive(instance)(holder(run.run_id, worker(child))) is lives


def test_a_started_run_is_dead_when_its_process_is(instance: DagsterInstance, child: subprocess.Popen[bytes]) -> None:
    process = worker(child)
    run = started_run(instance, **tag_of(process))
    assert is_alive(instance)(holder(run.run_id, process))
    assert run_alive(instance, run)
    child.kill()
    child.wait()
    assert not is_alive(instance)(holder(run.run_id, process))
    assert not run_alive(instance, run)
    assert report_dead(instance, run.run_id)
    after = instance.get_run_by_id(run.run_id)
    assert after is not None
    assert after.status == DagsterRunStatus.FAILURE
    assert not report_dead(instance, run.run_id)


def test_a_run_that_ended_well_is_never_marked(instance: DagsterInstance) -> None:
    run = create_run_for_test(instance, status=DagsterRunStatus.SUCCESS)
    assert not report_dead(instance, run.run_id)
    after = instance.get_run_by_id(run.run_id)
    assert after is not None
    assert after.status == DagsterRunStatus.SUCCESS


def test_a_run_nobody_knows_lives_by_its_heartbeat(instance: DagsterInstance, child: subprocess.Popen[bytes]) -> None:
    alive, process = is_alive(instance), worker(child)
    assert alive(holder("cli", process, known=False, age=HEARTBEAT_SILENCE - 10))
    assert not alive(holder("cli", process, known=False, age=HEARTBEAT_SILENCE + 10))
    elsewhere = Worker("another-host", 1, 1.0)
    assert alive(holder("cli", elsewhere, known=False))
    assert not alive(holder("cli", elsewhere, known=False, age=HEARTBEAT_SILENCE + 10))
    # A run whose record was deleted is one that nobody knows.
    assert not alive(holder("deleted", elsewhere, age=HEARTBEAT_SILENCE + 10))
    child.kill()
    child.wait()
    assert not alive(holder("cli", process, known=False))


def test_a_run_that_never_got_to_start_counts_as_dead_after_a_while(instance: DagsterInstance) -> None:
    run = create_run_for_test(instance, status=DagsterRunStatus.STARTING)
    assert run_alive(instance, run)
    with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        connection.execute(
            RunsTable.update().values(update_timestamp=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
        )
    assert not run_alive(instance, run)


def test_a_queued_run_lives(instance: DagsterInstance) -> None:
    queued = queued_run(instance, "__ASSET_JOB", "customers_to_hook")
    assert run_alive(instance, queued)
