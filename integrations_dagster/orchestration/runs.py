"""Which runs deliver which syncs: jobs of ours, materializations from the UI, backfills."""

from __future__ import annotations

from collections.abc import Collection

import dagster as dg
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from integrations_dagster.orchestration.worker import run_alive

SYNCS_TAG = "integrations/syncs"
UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]

RETRY_TAGS = {"dagster/max_retries": "1", "dagster/retry_strategy": "ALL_STEPS"}
"""A run whose worker crashed runs once more, from its beginning: re-execution from failure loses mapped steps."""


def run_tags(names: Collection[str]) -> dict[str, str]:
    """The tags of a run that delivers these syncs."""
    return {**RETRY_TAGS, SYNCS_TAG: ",".join(sorted(names))}


def assets_of(run: DagsterRun, repository: dg.RepositoryDefinition | None) -> set[str]:
    """Names of the assets that a run materializes, as far as they can be told."""
    if run.asset_selection is not None:
        return {key.to_user_string() for key in run.asset_selection}
    if SYNCS_TAG in run.tags:
        return set(run.tags[SYNCS_TAG].split(","))
    if repository is not None and repository.has_job(run.job_name):
        keys = repository.get_job(run.job_name).asset_layer.executable_asset_keys
        return {key.to_user_string() for key in keys}
    return set()


def busy_run(
    instance: DagsterInstance, names: Collection[str], repository: dg.RepositoryDefinition | None
) -> tuple[DagsterRun, str] | None:
    """A queued or running run of one of the syncs, and the name of that sync; None if there is none.

    Runs from the UI and of backfills carry no tags of ours; they are found by what they materialize. A run whose worker
    is dead does not count, whatever Dagster says of its status.
    """
    for run in instance.get_runs(filters=RunsFilter(statuses=UNFINISHED)):
        shared = assets_of(run, repository) & set(names)
        if shared and run_alive(instance, run):
            return run, min(shared)
    return None


def busy_reason(run: DagsterRun, name: str) -> str:
    """Why a tick launches nothing, for a person."""
    state = "queued" if run.status == DagsterRunStatus.QUEUED else "running"
    return f"Run {run.run_id} of the sync {name!r} is {state}. A later tick follows."
