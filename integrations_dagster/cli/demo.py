"""`make demo`: the project's syncs, run by Dagster into the sandbox, before and after the warehouse changes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus
from rich.console import Console

from integrations_dagster.cli import project as projects
from integrations_dagster.cli import show
from integrations_dagster.cli.launch import Launcher, RunFailed, failure_of_run, launcher, numbers_of_run
from integrations_dagster.components.load import Project
from integrations_dagster.orchestration.jobs import groups
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sandbox.shop import change_some, create_shop, describe_shop

DAYS = 3
"""Partitions that the demo delivers of a partitioned model."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job of the demo.

    Attributes:
        syncs: The syncs it runs.
        tags: Which partitions, as Dagster's tags; empty for an unpartitioned model.
        which: The same for a person.
    """

    name: str
    syncs: tuple[str, ...]
    tags: dict[str, str]
    which: str


def run_demo(root: Path) -> None:
    """Run the demo in a project.

    Raises:
        IntegrationsError: What stopped it.
    """
    console = show.out()
    # Whatever the environment says: a demo must not touch a real account.
    os.environ["INTEGRATIONS_TARGET"] = "sandbox"
    storage = projects.prepare(root)
    project = projects.load(root)
    for folder, error in project.broken.items():
        console.print(f"Left out, because it is broken: {folder}: {error}", style="red", markup=False)
    paths = {spec.model.warehouse.path for spec in project.specs}
    warehouses = sorted(path for path in paths if path is not None)
    for path in warehouses:
        _sample(path, console)
    log = storage / "demo.log"
    with _sandbox(storage, console), launcher(root / "workspace.yaml", log) as (launch, instance):
        jobs = _jobs(project)
        _run_all(jobs, launch, instance, console)
        for path in warehouses:
            shop = change_some(path)
            console.print(
                f"\nThe warehouse changes, for the {_ordinal(shop.rounds)} time: some customers move, mend their email "
                "or leave, others come, late orders arrive.\n"
            )
        _run_all(jobs, launch, instance, console)
    _say_what_next(project, console)


def _sample(path: Path, console: Console) -> None:
    if path.exists():
        shop = describe_shop(path)
        console.print(f"Sample warehouse {path.name}: there, changed {shop.rounds} time(s).")
    else:
        shop = create_shop(path)
        console.print(f"Sample warehouse {path.name}: {shop.customers:,} customers, {shop.orders:,} orders.")


@contextmanager
def _sandbox(storage: Path, console: Console) -> Iterator[Endpoint]:
    with projects.sandbox(storage) as (endpoint, ours):
        console.print(f"Sandbox: {endpoint.url}{'' if ours else ' (it was running)'}\n")
        yield endpoint


def _jobs(project: Project) -> list[Job]:
    jobs = []
    for group in groups(project.specs):
        definition = project.partitions.get(group.model)
        tags, which = {}, ""
        if definition is not None:
            keys = definition.get_partition_keys()[:DAYS]
            tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
            which = f"{keys[0]} to {keys[-1]}"
        jobs.append(Job(group.job, group.names, tags, which))
    return jobs


def _run_all(jobs: Sequence[Job], launch: Launcher, instance: DagsterInstance, console: Console) -> None:
    for job in jobs:
        with console.status(f"{job.name} ...") as status:

            def told(steps: str, job: Job = job, status: object = status) -> None:
                status.update(f"{job.name}: {steps or '...'}")  # type: ignore[attr-defined]

            run = launch.run(job.name, job.tags, told)
        stats = instance.get_run_stats(run.run_id)
        seconds = (stats.end_time or 0) - (stats.launch_time or stats.start_time or 0)
        ended = "succeeded" if run.status is DagsterRunStatus.SUCCESS else "FAILED"
        title = " ".join(filter(None, [job.name, job.which and f"({job.which})"]))
        numbers = numbers_of_run(instance, run.run_id)
        syncs = {name: _named(numbers[name]) for name in job.syncs if name in numbers}
        show.print_run(console, f"{title}: {ended} in {seconds:.1f} s, run {run.run_id[:8]}", syncs)
        if run.status is not DagsterRunStatus.SUCCESS:
            raise RunFailed(
                f"The run {run.run_id} of {job.name} failed. {failure_of_run(instance, run)}", "See it with `make ui`."
            )


def _named(numbers: dict[str, float]) -> dict[str, float]:
    """The numbers of a run's metadata by the names that the table uses."""
    seconds = sum(numbers.get(f"seconds_{part}", 0) for part in ("query", "plan", "write", "record"))
    return {**numbers, "queried": numbers.get("rows_queried", 0), "seconds": seconds}


def _say_what_next(project: Project, console: Console) -> None:
    some = project.specs[0].name if project.specs else "SYNC"
    console.print("Next:")
    for command, shows in (
        ("make ui", "the asset graph, these runs step by step, each sync's numbers over time"),
        (f".venv/bin/integrations preview {some}", "what its next run would send"),
        ("README.md", "a first sync of your own"),
    ):
        console.print(f"  {command}\n      {shows}")


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0, "th")
    return f"{number}{ending}"
