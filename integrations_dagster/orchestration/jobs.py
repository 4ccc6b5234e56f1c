"""Jobs and schedules: syncs of one model with one schedule share a job, and so one query."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from integrations_dagster.orchestration.runs import busy_reason, busy_run, run_tags
from integrations_dagster.orchestration.triggers import model_trigger
from integrations_dagster.sync.spec import SyncSpec


@dataclass(frozen=True, slots=True)
class Group:
    """Syncs that run in one job.

    Attributes:
        job: Name of the job.
        syncs: At least one; all have the same model and schedule.
    """

    job: str
    syncs: tuple[SyncSpec, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sync.name for sync in self.syncs)

    @property
    def model(self) -> str:
        return self.syncs[0].model.name

    @property
    def schedule(self) -> str | None:
        return self.syncs[0].schedule


def groups(syncs: Iterable[SyncSpec]) -> list[Group]:
    """Syncs by the job that they run in.

    A sync without a schedule has a job of its own, and so has one whose target lets schedules run, beside others of the
    same schedule whose targets do not. A job is named after its sync, or after the model that its syncs share.
    """
    found: dict[tuple[str, ...], list[SyncSpec]] = {}
    for sync in syncs:
        live = str(sync.destination.target.schedules)
        key = (sync.model.name, sync.schedule, live) if sync.schedule else (sync.name,)
        found.setdefault(key, []).append(sync)
    shared = [members[0].model.name for members in found.values() if len(members) > 1]
    result = []
    for members in found.values():
        first = members[0]
        name = first.name
        if len(members) > 1:
            name = first.model.name
            if shared.count(name) > 1:
                name = f"{name}_{_slug(first.schedule or '')}" + ("_live" if first.destination.target.schedules else "")
        result.append(Group(f"sync_{name}", tuple(members)))
    return result


def job_definitions(
    syncs: Sequence[SyncSpec], partitions: Mapping[str, dg.PartitionsDefinition | None]
) -> dg.Definitions:
    """Jobs, schedules and triggers of all syncs of a project.

    Args:
        syncs: Every sync; each gets into exactly one job.
        partitions: Partitions by name of the model.
    """
    jobs, schedules = [], []
    for group in groups(syncs):
        job = _job(group)
        jobs.append(job)
        if group.schedule is not None:
            schedules.append(_schedule(group, job, group.schedule, partitions.get(group.model)))
    sensors = [model_trigger(sync, partitions.get(sync.model.name)) for sync in syncs if sync.on_model]
    return dg.Definitions(jobs=jobs, schedules=schedules, sensors=sensors)


def _job(group: Group) -> dg.JobDefinition:
    named = ", ".join(f"`{name}`" for name in group.names)
    return dg.define_asset_job(  # type: ignore[return-value]
        group.job,
        selection=dg.AssetSelection.assets(group.model, *group.names),
        description=f"Query the model `{group.model}`, then deliver it: {named}.",
        tags=run_tags(group.names),
    )


def _schedule(
    group: Group, job: dg.JobDefinition, cron: str, partitions_def: dg.PartitionsDefinition | None
) -> dg.ScheduleDefinition:
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        busy = busy_run(context.instance, group.names, _repository(context))
        if busy is not None:
            return dg.SkipReason(busy_reason(*busy))
        if partitions_def is None:
            return dg.RunRequest()
        with dg.partition_loading_context(effective_dt=context.scheduled_execution_time):
            newest = partitions_def.get_last_partition_key()
        if newest is None:
            return dg.SkipReason(f"The model {group.model!r} has no partition yet.")
        return dg.RunRequest(partition_key=newest)

    runs = all(sync.destination.target.schedules for sync in group.syncs)
    return dg.ScheduleDefinition(
        name=f"{group.job}_schedule",
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        execution_fn=tick,
        default_status=dg.DefaultScheduleStatus.RUNNING if runs else dg.DefaultScheduleStatus.STOPPED,
        description=f"Runs `{group.job}`" + (", for the newest partition." if partitions_def else "."),
    )


def _repository(context: dg.ScheduleEvaluationContext) -> dg.RepositoryDefinition | None:
    try:
        return context.repository_def
    except dg.DagsterInvariantViolationError:
        return None  # a context that was built by hand has none


def _slug(cron: str) -> str:
    """A cron schedule as part of a name: "*/15 * * * *" → "every15_x_x_x_x"."""
    text = cron.replace("*/", "every").replace("*", "x").replace(",", "and").replace("-", "to")
    return re.sub(r"\W+", "_", text)
