"""Launches jobs as the Dagster UI does: in a code server, by the instance's run launcher, with the default executor."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster import __version__ as dagster_version
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from integrations_dagster.orchestration.metadata import numbers_of
from integrations_dagster.vocabulary import IntegrationsError

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run config that keeps a run's log out of the terminal; the UI has it."""
POLL = 0.2
"""Seconds between two looks at a run."""


class RunFailed(IntegrationsError):
    """A run did not succeed."""


class Launcher:
    """Launches jobs of one workspace.

    Args:
        instance: Where the runs are stored.
        workspace: Its first code location is used.

    Raises:
        IntegrationsError: The code location does not load.
    """

    def __init__(self, instance: DagsterInstance, workspace: WorkspaceProcessContext) -> None:
        self._instance = instance
        self._request = workspace.create_request_context()
        errors = [entry.load_error for entry in self._request.get_code_location_entries().values() if entry.load_error]
        if errors:
            raise IntegrationsError(
                f"The project does not load: {errors[0].message.strip()}", "Run `dg check defs` to see where."
            )
        self._location = self._request.code_locations[0]

    def run(self, job: str, tags: Mapping[str, str], told: Callable[[str], None] = lambda _: None) -> DagsterRun:
        """Run a job to its end.

        Args:
            job: Name of the job.
            tags: Tags beside those of the job.
            told: Called with what the run is at, when that changes.

        Returns:
            The finished run, whatever became of it. Interrupted, the run is cancelled.
        """
        run = self._create(job, tags)
        self._instance.launch_run(run.run_id, self._request)
        try:
            return self._wait(run.run_id, told)
        except KeyboardInterrupt:
            self._instance.run_launcher.terminate(run.run_id)
            self._wait(run.run_id, told)
            raise

    def _create(self, job: str, tags: Mapping[str, str]) -> DagsterRun:
        repository = next(iter(self._location.get_repositories().values()))
        selector = JobSubsetSelector(
            location_name=self._location.name, repository_name=repository.name, job_name=job, op_selection=None
        )
        found = self._location.get_job(selector)
        steps = self._location.get_execution_plan(
            found, QUIET, step_keys_to_execute=None, known_state=None, instance=self._instance
        ).execution_plan_snapshot
        return self._instance.create_run(
            job_name=job,
            run_id=None,
            run_config=QUIET,
            status=DagsterRunStatus.NOT_STARTED,
            tags={**found.tags, **tags},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=steps.step_keys_to_execute,
            execution_plan_snapshot=steps,
            job_snapshot=found.job_snapshot,
            parent_job_snapshot=found.parent_job_snapshot,
            asset_selection=None,
            asset_check_selection=None,
            resolved_op_selection=found.resolved_op_selection,
            op_selection=None,
            remote_job_origin=found.get_remote_origin(),
            job_code_origin=found.get_python_origin(),
            asset_graph=repository.asset_graph,
        )

    def _wait(self, run_id: str, told: Callable[[str], None]) -> DagsterRun:
        said = ""
        while True:
            run = self._instance.get_run_by_id(run_id)
            assert run is not None
            if run.is_finished:
                return run
            steps = {step.step_key: step.status for step in self._instance.get_run_step_stats(run_id)}
            now = ", ".join(
                key for key, status in steps.items() if status is None or str(status).endswith("IN_PROGRESS")
            )
            if now != said:
                told(now)
                said = now
            time.sleep(POLL)


@contextmanager
def launcher(workspace: Path, log: Path) -> Iterator[tuple[Launcher, DagsterInstance]]:
    """A launcher for a workspace.yaml, on the instance of DAGSTER_HOME; the code server ends with the block.

    Args:
        workspace: The workspace.yaml.
        log: A file for what the code server and its runs write to standard error.
    """
    with DagsterInstance.get() as instance, ExitStack() as stack:
        with _standard_error_to(log):
            process = stack.enter_context(
                WorkspaceProcessContext(
                    instance,
                    WorkspaceFileTarget([str(workspace)]),
                    version=dagster_version,
                    code_server_log_level="WARNING",
                )
            )
            launch = Launcher(instance, process)
        yield launch, instance


@contextmanager
def _standard_error_to(path: Path) -> Iterator[None]:
    """Send this process's standard error, which children inherit, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def numbers_of_run(instance: DagsterInstance, run_id: str) -> dict[str, dict[str, float]]:
    """The numbers in the metadata of a run's assets, by asset; of a failed asset, those it observed before."""
    found: dict[str, dict[str, float]] = {}
    for kind in (DagsterEventType.ASSET_OBSERVATION, DagsterEventType.ASSET_MATERIALIZATION):
        for record in instance.get_records_for_run(run_id, of_type=kind).records:
            event = record.event_log_entry.dagster_event
            if event is None or event.asset_key is None:
                continue
            data = event.event_specific_data
            said = getattr(data, "materialization", None) or getattr(data, "asset_observation", None)
            if said is not None:
                found.setdefault(event.asset_key.to_user_string(), {}).update(numbers_of(said.metadata))
    return found


def failure_of_run(instance: DagsterInstance, run: DagsterRun) -> str:
    """Why a run failed: what its first failed step said."""
    for record in instance.get_records_for_run(run.run_id, of_type=DagsterEventType.STEP_FAILURE).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        data = event.step_failure_data
        if data.user_failure_data and data.user_failure_data.description:
            return str(data.user_failure_data.description)
        if data.error:
            cause = data.error.cause or data.error
            return str(cause.message).strip()
    return f"The run ended as {run.status.value}."
