"""The executor of runs: a process for each step, forked from a server that has imported everything.

`Definitions(executor=default_executor())` makes it the executor of a project's jobs, of materializations from the UI,
and of backfills. A step then costs a fork instead of an interpreter's start and all imports.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements

OWN_MODULES = (
    "integrations_dagster.orchestration.alerts",
    "integrations_dagster.orchestration.broken",
    "integrations_dagster.orchestration.jobs",
    "integrations_dagster.orchestration.models",
    "integrations_dagster.orchestration.syncs",
    "integrations_dagster.sync.query",
)
STEP_MODULES = (
    "dagster._core.instance.factory",
    "dagster._core.secrets.env_file",
    "dagster._core.workspace.autodiscovery",
    "dagster._core.storage.fs_io_manager",
    "dagster._utils.test.definitions",
    "upath.implementations.local",
)
"""What Dagster imports in each step, found by comparing a step with its fork server; a missing one is passed over."""
CONCURRENT_STEPS = 4
"""Steps of a run at once where the machine has fewer cores: a write step mostly waits for its destination."""


def _requirements(config: Mapping[str, Any]) -> Sequence[Any]:
    return multiple_process_executor_requirements() if "multiprocess" in config else []


def preload_modules(job: Any, instance: dg.DagsterInstance) -> list[str]:
    """What the fork server imports: Dagster, the instance's storages, our rooms, the code location's module."""
    parts = (
        instance.event_log_storage,
        instance.run_storage,
        instance.schedule_storage,
        instance.compute_log_manager,
    )
    stored = instance.get_ref().storage_data if instance.is_persistent else None
    location = job.get_module() if hasattr(job, "get_module") else None
    modules = [
        "dagster",
        *(type(part).__module__ for part in parts),
        *([stored.module_name] if stored else []),
        *STEP_MODULES,
        *OWN_MODULES,
        *([location] if location else []),
    ]
    return list(dict.fromkeys(modules))


def _create(init_context: dg.InitExecutorContext) -> dg.Executor:
    config = dict(init_context.executor_config)
    chosen = config.get("multiprocess")
    if isinstance(chosen, Mapping):
        settings = dict(chosen)
        if not settings.get("start_method") and "forkserver" in multiprocessing.get_all_start_methods():
            modules = preload_modules(init_context.job, init_context.instance)
            settings["start_method"] = {"forkserver": {"preload_modules": modules}}
        if not settings.get("max_concurrent") and not os.environ.get("DAGSTER_MULTIPROCESS_EXECUTOR_MAX_CONCURRENT"):
            settings["max_concurrent"] = max(CONCURRENT_STEPS, multiprocessing.cpu_count())
        config["multiprocess"] = settings
    create = dg.multi_or_in_process_executor.executor_creation_fn
    assert create is not None
    return create(init_context._replace(executor_config=config))


_FORKING_EXECUTOR = dg.ExecutorDefinition(
    name="multi_or_in_process_executor",
    config_schema=dg.multi_or_in_process_executor.config_field,
    executor_creation_fn=_create,
    requirements=_requirements,
)


def default_executor() -> dg.ExecutorDefinition:
    """The executor that runs of syncs are meant for; configured as Dagster's own default one.

    `multiprocess: {max_concurrent, start_method, ...}` and `in_process: {}` are taken in the launchpad as ever.
    """
    return _FORKING_EXECUTOR
