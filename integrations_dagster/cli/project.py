"""Where the command line works: the project, its Dagster home, its storage folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from integrations_dagster.sync.storage import storage_path
from integrations_dagster.vocabulary import IntegrationsError, Misconfigured, Partition

if TYPE_CHECKING:
    from integrations_dagster.components.load import Project
    from integrations_dagster.sandbox.endpoint import Endpoint
    from integrations_dagster.sync.spec import SyncSpec

HOME = ".dagster_home"


def prepare(root: Path) -> Path:
    """Find the project's storage folder; without DAGSTER_HOME and INTEGRATIONS_STORAGE it is where `make` keeps it.

    Args:
        root: The project root. A home made here gets the project's dagster.yaml.

    Returns:
        The storage folder, absolute; it may not exist yet.
    """
    if not os.environ.get("DAGSTER_HOME"):
        home = root / HOME
        home.mkdir(exist_ok=True)
        settings = root / "dagster.yaml"
        with suppress(FileNotFoundError):
            if not (home / settings.name).exists() or (home / settings.name).read_bytes() != settings.read_bytes():
                shutil.copyfile(settings, home / settings.name)
        os.environ["DAGSTER_HOME"] = str(home)
    Path(os.environ["DAGSTER_HOME"]).mkdir(parents=True, exist_ok=True)
    return storage_path(os.environ)


def project_root(path: Path) -> Path:
    """The nearest folder from `path` upwards that has a pyproject.toml.

    Raises:
        Misconfigured: There is none.
    """
    path = path.absolute()
    for folder in (path, *path.parents):
        if (folder / "pyproject.toml").is_file():
            return folder
    raise Misconfigured(f"{path} is in no project: no folder above it has a pyproject.toml.", "Change to the project.")


def load(root: Path) -> Project:
    """The syncs of the project."""
    # Dagster takes a second or two to import, which `--help` should not cost.
    from integrations_dagster.components.load import load_project

    return load_project(root)


def windows(project: Project, sync: SyncSpec, keys: Sequence[str]) -> list[Partition]:
    """The partitions with these keys, of the sync's model.

    Raises:
        Misconfigured: The model has no partitions, or none with such a key; or it has some, and none is named.
    """
    from dagster import TimeWindowPartitionsDefinition

    definition = project.partitions.get(sync.model.name)
    if definition is None:
        if keys:
            raise Misconfigured(f"Model {sync.model.name!r} is not partitioned.", "Leave --partition out.")
        return []
    assert isinstance(definition, TimeWindowPartitionsDefinition)
    known = definition.get_partition_keys()
    some = f"It has {len(known)}, from {known[0]} to {known[-1]}." if known else "It has none yet."
    if not keys:
        raise Misconfigured(
            f"Model {sync.model.name!r} is partitioned. {some}", "Say which with --partition; it may be repeated."
        )
    if unknown := [key for key in keys if key not in set(known)]:
        raise Misconfigured(f"Model {sync.model.name!r} has no partition {', '.join(unknown)}.", some)
    found = [(key, definition.time_window_for_partition_key(key)) for key in keys]
    return [Partition(key, window.start.isoformat(), window.end.isoformat()) for key, window in found]


def parse_keys(values: Sequence[str] | None) -> tuple[str, ...]:
    """Keys as text; a composite key is a JSON array of texts, whose commas separate nothing."""
    found: list[str] = []
    for value in values or ():
        found += [value] if value.lstrip().startswith("[") else value.split(",")
    return tuple(key.strip() for key in found if key.strip())


@contextmanager
def sandbox(storage: Path) -> Iterator[tuple[Endpoint, bool]]:
    """The sandbox of a storage folder, running, and whether it was started for this; then it is stopped in the end.

    Raises:
        IntegrationsError: It does not start.
    """
    # Brings the HTTP client, which `--help` does without.
    from integrations_dagster.sandbox.process import ensure_running, stop

    try:
        endpoint, ours = ensure_running(storage)
    except (TimeoutError, ValueError) as error:
        raise IntegrationsError(
            str(error), "The rest of its log is beside its state, in sandbox/sandbox.log."
        ) from error
    try:
        yield endpoint, ours
    finally:
        if ours:
            stop(storage)
