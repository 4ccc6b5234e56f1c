"""Versions of models and of reference data on disk: immutable, complete or absent, kept while someone reads them.

    <storage>/models/<model>/<partition, or "_">/<version>/part-*.parquet, version.json
    <storage>/lookups/<account>/<reference>/<version>/part-0.parquet, version.json

A version is written under a name that readers pass over, and renamed once it is complete. Its rows may also, or only,
be a table of the warehouse (`sync/tables.py`), which `version.json` names.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import psutil

from integrations_dagster.planner.state import to_disk
from integrations_dagster.sync.results import ModelVersion
from integrations_dagster.sync.spec import WAREHOUSE, SyncSpec
from integrations_dagster.vocabulary import IntegrationsError, Misconfigured

KEPT = 2
"""Versions of a model (of each partition) that are kept although nobody reads them."""
FOREIGN_MARKER_LIFE = 7 * 86_400.0
"""Seconds for which another host's mark on a version is honoured: its process cannot be seen from here."""

_DESCRIPTION = "version.json"
_DRAFT, _TRASH, _MARKS, _LOCK = ".draft-", ".trash-", ".in-use", ".lock"


class VersionGone(IntegrationsError):
    """A version was cleaned up before it could be read."""


MODELS, LOOKUPS = "models", "lookups"
"""Shelves: folders of versions below the storage folder. On the shelf of lookups an account stands for a model, and
the name of a reference for a partition."""


def folder_of(storage: Path, model: str, partition: str = "", *, shelf: str = MODELS) -> Path:
    """The folder of a model's versions (of one partition)."""
    name = quote(partition, safe="").replace(".", "%2E").replace("_", "%5F") if partition else "_"
    return storage / shelf / model / name


def version_name(started: float, run_id: str) -> str:
    """Names sort by the start of the query."""
    return f"{datetime.fromtimestamp(started, UTC).strftime('%Y%m%dT%H%M%S.%fZ')}-{run_id}"


def newest_version(storage: Path, model: str, partition: str = "", *, shelf: str = MODELS) -> ModelVersion | None:
    """The version whose query started last, or None if there is none."""
    names = _complete(folder_of(storage, model, partition, shelf=shelf))
    return _read(names[-1]) if names else None


def version_files(version: ModelVersion) -> list[Path]:
    """The Parquet files of a version; none if it is a table of its warehouse alone."""
    return sorted(Path(version.path).glob("part-*.parquet"))


def check_kept(sync: SyncSpec, versions: Sequence[ModelVersion]) -> None:
    """Versions are where the sync's home looks for them.

    Raises:
        Misconfigured: One was made before the sync had its home.
    """
    for version in versions:
        if not (version.table if sync.home == WAREHOUSE else version_files(version)):
            which = f", partition {version.partition}," if version.partition else ""
            where = "a table of the warehouse" if sync.home == WAREHOUSE else "files"
            raise Misconfigured(
                f"The newest version of the model {version.model!r}{which} is not kept as {where}, where the sync "
                f"{sync.name!r} (`home: {sync.home}`) looks for it.",
                "Materialize the model again, or run the sync's job, which does.",
            )


@contextmanager
def drafted(storage: Path, model: str, partition: str, name: str, *, shelf: str = MODELS) -> Iterator[Path]:
    """An empty folder to write a version's files into; dropped if the block raises, left for `publish` otherwise."""
    parent = folder_of(storage, model, partition, shelf=shelf)
    draft = parent / f"{_DRAFT}{name}"
    with _marked(parent, name):
        draft.mkdir(parents=True)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def publish(draft: Path, version: ModelVersion) -> None:
    """Make a complete draft the version: from now on readers find it."""
    for path in draft.iterdir():
        to_disk(path)
    description = draft / _DESCRIPTION
    description.write_text(json.dumps(version.as_dict(), indent=1), "utf-8")
    to_disk(description)
    draft.rename(version.path)
    to_disk(draft.parent)


@contextmanager
def in_use(version: ModelVersion) -> Iterator[None]:
    """Keep a version from clean-up while it is read.

    Raises:
        VersionGone: It has been cleaned up since it was found.
    """
    folder = Path(version.path)
    with _marked(folder.parent, folder.name):
        if not (folder / _DESCRIPTION).exists():
            raise VersionGone(
                f"Version {version.name} of {version.model!r} was cleaned up before it was read.",
                "Launch the run again.",
            )
        yield


def prune(storage: Path, model: str, partition: str = "", keep: int = KEPT, *, shelf: str = MODELS) -> list[str]:
    """Delete versions that nobody reads, but the newest `keep`, and what dead queries left half-written.

    Returns:
        Names of the deleted versions.
    """
    parent = folder_of(storage, model, partition, shelf=shelf)
    if not parent.is_dir():
        return []
    deleted: list[str] = []
    # Under the lock nobody can begin to read a version between the look at its marks and its end.
    with _locked(parent):
        used = _used(parent)
        for folder in _complete(parent)[:-keep] if keep else _complete(parent):
            if folder.name not in used:
                folder.rename(parent / f"{_TRASH}{folder.name}")
                deleted.append(folder.name)
        drafts = [path for path in parent.glob(f"{_DRAFT}*") if path.name.removeprefix(_DRAFT) not in used]
    for rubbish in (*parent.glob(f"{_TRASH}*"), *drafts):
        shutil.rmtree(rubbish, ignore_errors=True)
    return deleted


@contextmanager
def kept_versions(storage: Path, model: str, partition: str) -> Iterator[frozenset[str]]:
    """Names of the versions that are there or being made; in the block none begins or ends."""
    parent = folder_of(storage, model, partition)
    with _locked(parent):
        yield frozenset(_used(parent) | {folder.name for folder in _complete(parent)})


def _complete(parent: Path) -> list[Path]:
    """Version folders, oldest first."""
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.name[0] != "." and (path / _DESCRIPTION).exists())


def _read(folder: Path) -> ModelVersion:
    data = json.loads((folder / _DESCRIPTION).read_text("utf-8"))
    # The storage folder may have been moved since.
    return ModelVersion.from_dict({**data, "path": str(folder)})


@contextmanager
def _locked(parent: Path) -> Iterator[None]:
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / _LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _marked(parent: Path, name: str) -> Iterator[None]:
    """A mark of this process on a version, there or to come."""
    process = psutil.Process()
    mark = parent / _MARKS / f"{name}--{uuid.uuid4().hex}"
    with _locked(parent):
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(
            json.dumps({"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}), "utf-8"
        )
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _used(parent: Path) -> set[str]:
    """Names of the versions with a mark whose process lives; marks of dead processes are removed."""
    used: set[str] = set()
    for mark in (parent / _MARKS).glob("*"):
        if _lives(mark):
            used.add(mark.name.rpartition("--")[0])
        else:
            mark.unlink(missing_ok=True)
    return used


def _lives(mark: Path) -> bool:
    try:
        data = json.loads(mark.read_text("utf-8"))
        if data["host"] != socket.gethostname():
            return datetime.now(UTC).timestamp() - mark.stat().st_mtime < FOREIGN_MARKER_LIFE
        # Two readings of a process's start may differ: it is computed from the boot time.
        return bool(abs(psutil.Process(data["pid"]).create_time() - data["started"]) <= 2.0)
    except (FileNotFoundError, psutil.NoSuchProcess, ValueError, KeyError):
        return False
