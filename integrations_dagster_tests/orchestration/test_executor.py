"""The default executor: a process for each step, forked; and what a kill of one leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus

from integrations_dagster.orchestration.executor import default_executor
from integrations_dagster.orchestration.worker import WORKER_TAG
from integrations_dagster_tests.orchestration.processes import environment, execute_job, home_with, start_job
from integrations_dagster_tests.orchestration.shop import Shop

JOB = "sync_customers_to_hook"


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def step_pids(instance: DagsterInstance, run_id: str) -> dict[str, list[int]]:
    """Process ids by step, in order."""
    found: dict[str, list[int]] = {}
    for record in instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_WORKER_STARTED).records:
        event = record.event_log_entry.dagster_event
        assert event is not None
        found.setdefault(event.step_key or "", []).append(int(str(event.engine_event_data.metadata["pid"].value)))
    return found


def test_it_takes_the_configuration_of_dagsters_own(instance: DagsterInstance) -> None:
    @dg.op
    def nothing() -> None: ...

    @dg.job(executor_def=default_executor())
    def some_job() -> None:
        nothing()

    config: dict[str, Any] = {"execution": {"config": {"in_process": {}}}}
    assert some_job.execute_in_process(instance=instance, run_config=config).success
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(some_job, {"execution": {"config": {"multiprocess": {"max_concurent": 2}}}})


def test_a_run_with_a_process_for_each_step(shop: Shop) -> None:
    shop.load_many_customers(3000)
    home = home_with(shop.folder / "home")
    process = start_job(JOB, environment(shop, home))
    _, log = process.communicate(timeout=100)
    assert process.returncode == 0, log[-5000:]
    assert len(shop.client.webhook_records("events", "customers")) == 3000
    with DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
        pids = step_pids(instance, run.run_id)
        assert set(pids) == {
            "customers",
            *(f"customers_to_hook.{step}" for step in ("plan", "write[0]", "write[1]", "record")),
        }
        assert len({pid for each in pids.values() for pid in each}) == 5
        # The run lives and dies with the process that was started, not with a step or the fork server.
        assert json.loads(run.tags[WORKER_TAG])[1] == process.pid


@pytest.mark.slow
def test_a_killed_write_step_runs_again(shop: Shop) -> None:
    shop.load_many_customers(3000)
    shop.client.configure(latency=0.05)
    home = home_with(shop.folder / "home")
    process = start_job(JOB, environment(shop, home))
    with DagsterInstance.from_config(str(home)) as instance:
        wait_for(lambda: len(instance.get_runs()) == 1)
        run_id = instance.get_runs()[0].run_id
        step = "customers_to_hook.write[0]"
        wait_for(lambda: step in step_pids(instance, run_id) and len(shop.client.received()) > 3)
        os.kill(step_pids(instance, run_id)[step][0], signal.SIGKILL)
        _, log = process.communicate(timeout=100)
        assert process.returncode == 0, log[-5000:]
        assert len(step_pids(instance, run_id)[step]) == 2
    assert len(shop.client.webhook_records("events", "customers")) == 3000


@pytest.mark.slow
def test_after_a_kill_of_the_whole_tree_the_next_run_takes_over(shop: Shop) -> None:
    shop.load_many_customers(3000)
    shop.client.configure(latency=0.2)
    home = home_with(shop.folder / "home")
    env = environment(shop, home)
    process = start_job(JOB, env)
    wait_for(lambda: len(shop.client.received()) > 3)
    for victim in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        victim.kill()
    process.communicate(timeout=60)
    shop.client.configure(latency=0)
    with DagsterInstance.from_config(str(home)) as instance:
        (killed,) = instance.get_runs()
        assert killed.status == DagsterRunStatus.STARTED
        log = execute_job(JOB, env)
        assert "takes over" in log
        after = instance.get_run_by_id(killed.run_id)
        assert after is not None
        assert after.status == DagsterRunStatus.FAILURE
    assert len(shop.client.webhook_records("events", "customers")) == 3000


@pytest.mark.slow
def test_a_cancelled_run_ends_soon_without_retrying(shop: Shop) -> None:
    shop.load_many_customers(6000)
    shop.client.configure(latency=0.5)
    home = home_with(shop.folder / "home")
    process = start_job(JOB, environment(shop, home))
    wait_for(lambda: len(shop.client.received()) > 3)
    with DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
        instance.report_run_canceling(run)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert time.monotonic() - started < 20
        after = instance.get_run_by_id(run.run_id)
        assert after is not None
        assert after.status == DagsterRunStatus.CANCELED
        retried = instance.get_records_for_run(run.run_id, of_type=DagsterEventType.STEP_UP_FOR_RETRY).records
        assert retried == []
    before = len(shop.client.webhook_records("events", "customers"))
    assert 0 < before < 6000
    shop.client.configure(latency=0)
    execute_job(JOB, environment(shop, home))
    assert len(shop.client.webhook_records("events", "customers")) == 6000


@pytest.mark.slow
def test_a_step_imports_no_pandas(tmp_path: Path) -> None:
    code = (
        "import sys, integrations_dagster.orchestration.syncs, integrations_dagster.orchestration.models, "
        "integrations_dagster.orchestration.jobs, integrations_dagster.orchestration.alerts; "
        "print([m for m in ('pandas', 'slack_sdk', 'zeep') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
