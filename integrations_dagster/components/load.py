"""Load a project: each folder of `defs/` by itself, so that a broken one leaves the others as they are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import dagster as dg
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType
from dagster._core.definitions.utils import is_valid_name
from dagster._utils.warnings import suppress_dagster_warnings
from dagster.components.core.load_defs import get_library_json_enriched_defs
from dagster_shared.error import DagsterError

from integrations_dagster.components.attributes import YamlComponent
from integrations_dagster.components.destination import Destination
from integrations_dagster.components.model import Model
from integrations_dagster.components.names import Names, shared_definitions
from integrations_dagster.components.sync import Sync
from integrations_dagster.components.tree import IsolatingTree
from integrations_dagster.keys import near
from integrations_dagster.sync.spec import ModelSpec, SyncSpec
from integrations_dagster.vocabulary import Misconfigured

T = TypeVar("T")

VALIDATING = "DAGSTER_IS_DEFS_VALIDATION_CLI"
"""Set by `dg check defs` and `dagster definitions validate`, which must not pass over a broken folder."""


@dataclass(frozen=True)
class Project:
    """What a project's YAML says.

    Attributes:
        root: The project root.
        specs: The syncs of the folders that are not broken.
        partitions: Partitions by name of the model, None for an unpartitioned one.
        broken: Error by name of the folder.
        destinations: The destinations of the folders that are not broken.
        models: And the models.
    """

    root: Path
    specs: tuple[SyncSpec, ...]
    partitions: Mapping[str, dg.PartitionsDefinition | None]
    broken: Mapping[str, str]
    destinations: tuple[Destination, ...] = ()
    models: tuple[ModelSpec, ...] = ()

    def sync(self, name: str) -> SyncSpec:
        """The sync with this name.

        Raises:
            Misconfigured: There is none; where folders are broken, with their errors.
        """
        return self._named({spec.name: spec for spec in self.specs}, "sync", name)

    def destination(self, name: str) -> Destination:
        """The destination with this name.

        Raises:
            Misconfigured: There is none; where folders are broken, with their errors.
        """
        return self._named({found.name: found for found in self.destinations}, "destination", name)

    def model(self, name: str) -> ModelSpec:
        """The model with this name.

        Raises:
            Misconfigured: There is none; where folders are broken, with their errors.
        """
        return self._named({found.name: found for found in self.models}, "model", name)

    def _named(self, names: Mapping[str, T], word: str, name: str) -> T:
        if name in names:
            return names[name]
        broken = "".join(f"\nThe folder {folder} is broken: {error}" for folder, error in self.broken.items())
        raise Misconfigured(
            f'"{name}" is no {word} of the project in {self.root}.',
            f"{near(name, names)}Known: {', '.join(sorted(names)) or 'none'}.{broken}",
        )


@suppress_dagster_warnings
def load_project(project_root: Path | None = None) -> Project:
    """Read the syncs of a project, without making assets.

    Args:
        project_root: Any folder of the project; default: the working directory.

    Raises:
        Misconfigured: There is no project.
    """
    tree = _tree(project_root or Path.cwd())
    _settle(tree)
    names = Names.of(tree)
    specs, destinations = tuple(names.sync_specs()), tuple(names.destinations)
    models = tuple(names.model_spec(model) for model in names.models)
    return Project(tree.project_root, specs, names.partitions(), dict(tree.broken), destinations, models)


def load_specs(project_root: Path | None = None) -> list[SyncSpec]:
    """The syncs of the folders that are not broken; see `load_project`, which also tells what is broken."""
    return list(load_project(project_root).specs)


@suppress_dagster_warnings
def load_definitions(defs: Path | ModuleType) -> dg.Definitions:
    """Load the definitions of a project; a broken folder becomes an asset that cannot run and says why.

    Under `dg check defs` a broken folder is an error instead.

    Args:
        defs: Any path of the project, or its defs module.

    Raises:
        Misconfigured: There is no project; or, while checking, a folder is broken.
    """
    from integrations_dagster.orchestration.broken import broken_asset

    if isinstance(defs, ModuleType):
        defs = Path(next(iter(defs.__path__)))
    tree = _tree(defs)
    definitions = _assemble(tree)
    if tree.broken and os.environ.get(VALIDATING):
        raise Misconfigured("\n".join(f"{name}: {error}" for name, error in tree.broken.items()))
    taken = definitions.resolve_asset_graph().get_all_asset_keys() if tree.broken else set()
    broken = []
    for name, error in sorted(tree.broken.items()):
        free = re.sub(r"\W", "_", name)
        while dg.AssetKey([free]) in taken or not is_valid_name(free):
            free = f"{free}_broken"
        broken.append(broken_asset(free, error))
    parts = [definitions, dg.Definitions(assets=broken)]
    if DefinitionsLoadContext.get().load_type == DefinitionsLoadType.INITIALIZATION:
        # For the UI's page of component types; a run's steps do without, and start sooner.
        parts.append(get_library_json_enriched_defs(tree))
    return dg.Definitions.merge(*parts)


def _tree(path: Path) -> IsolatingTree:
    try:
        return IsolatingTree.for_project(path.absolute())
    except DagsterError as error:
        raise Misconfigured(
            f"{path} is in no Dagster project: {error}",
            "Run this in a folder whose pyproject.toml has [tool.dg.project].",
        ) from error


def _settle(tree: IsolatingTree) -> None:
    """Mark folders as broken until the rest agrees: a sync breaks with the folder of its model."""
    while True:
        names = Names.of(tree)
        found: dict[str, BaseException] = {}
        for folder in tree.whole:
            try:
                for component in tree.components(folder, YamlComponent):  # type: ignore[type-abstract]
                    names.check(component)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - one folder must not stop the others
                found[folder] = error
        if not found:
            return
        for folder, cause in found.items():
            tree.mark(folder, cause)


def _assemble(tree: IsolatingTree) -> dg.Definitions:
    """All definitions of the folders that are not broken, jobs included."""
    while True:
        _settle(tree)
        known = len(tree.broken)
        for folder, declared in tree.whole.items():
            try:
                tree.build_defs(declared.loc)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
                tree.mark(folder, error)
        if len(tree.broken) > known:
            continue
        try:
            return _merge(tree, tree.whole)
        except Exception:
            # Folders that load by themselves may not go together: those that spoil the rest are broken.
            _mark_spoilers(tree)
            if len(tree.broken) == known:
                raise


def _mark_spoilers(tree: IsolatingTree) -> None:
    good: list[str] = []
    # A sync needs the asset of its model, so folders with models come first.
    for folder in sorted(tree.whole, key=lambda name: not tree.components(name, Model)):
        try:
            _merge(tree, [*good, folder])
        except Exception as error:  # noqa: BLE001 - as above
            tree.mark(folder, error)
        else:
            good.append(folder)


def _merge(tree: IsolatingTree, folders: Iterable[str]) -> dg.Definitions:
    names = Names.of(tree)
    specs = [names.sync_spec(sync) for folder in folders for sync in tree.components(folder, Sync)]
    merged = dg.Definitions.merge(
        *(tree.build_defs(tree.folders[folder].loc) for folder in folders),
        shared_definitions(specs, names.partitions()),
    )
    dg.Definitions.validate_loadable(merged)
    return merged
