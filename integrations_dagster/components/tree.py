"""A component tree whose folders load by themselves: a broken one is left out and remembered with its error."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import dagster as dg
import yaml
from dagster import ComponentTree
from dagster.components.core.decl import (
    ComponentDecl,
    ComponentRootDecl,
    build_filesystem_component_decl_from_context,
)
from dagster.components.core.defs_module import (
    EXPLICITLY_IGNORED_GLOB_PATTERNS,
    ComponentFileModel,
    ComponentPath,
    ComponentRootLoc,
    find_defs_or_component_yaml,
)
from dagster_shared.error import DagsterUnresolvableSymbolError
from dagster_shared.seven import load_module_object
from dagster_shared.yaml_utils import parse_yamls_with_source_position
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from integrations_dagster.components.attributes import YamlComponent, relative
from integrations_dagster.keys import near
from integrations_dagster.vocabulary import IntegrationsError

C = TypeVar("C", bound=dg.Component)
TYPES = tuple(f"integrations_dagster.{name}" for name in ("Destination", "Model", "Sync", "Warehouse"))


class IsolatingTree(ComponentTree):
    """The components of the folders that are not broken.

    A folder is what lies directly in `defs/`: a directory with all that is in it, or a file. Where `defs/` itself holds
    a defs.yaml, all of it is one folder.
    """

    @cached_property
    def broken(self) -> dict[str, str]:
        """Error by name of the folder; `mark` adds to it."""
        return {}

    @cached_property
    def _paths(self) -> Mapping[str, Path]:
        top = self.defs_module_path
        paths = [top] if find_defs_or_component_yaml(top) else sorted(top.iterdir())
        return {
            path.name if path.is_dir() else path.stem: path
            for path in paths
            if not any(Path(path.name).match(pattern) for pattern in EXPLICITLY_IGNORED_GLOB_PATTERNS)
        }

    @cached_property
    def folders(self) -> Mapping[str, ComponentDecl]:  # type: ignore[type-arg]
        """What each folder declares, by name; folders that cannot even be read are `broken` instead."""
        found = {}
        for name, path in self._paths.items():
            context = self.decl_load_context.for_component_loc(ComponentPath.from_path(path))
            try:
                declared = build_filesystem_component_decl_from_context(context)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a folder does must not stop the others
                self.broken[name] = describe(error, path, self.project_root)
                continue
            if declared is not None:
                found[name] = declared
        return found

    @property
    def whole(self) -> Mapping[str, ComponentDecl]:  # type: ignore[type-arg]
        """The folders that are not broken."""
        return {name: declared for name, declared in self.folders.items() if name not in self.broken}

    def mark(self, name: str, error: BaseException) -> None:
        """Leave a folder out from now on."""
        self.broken[name] = describe(error, self._paths[name], self.project_root)
        self.__dict__.pop("_integrations_names", None)

    def broken_with(self, word: str) -> str:
        """Which broken folders' YAML has this word, with their errors, as sentences; "" where none has."""
        found = []
        for name, error in self.broken.items():
            texts = (file.read_text(encoding="utf-8", errors="replace") for file in yaml_files(self._paths[name]))
            if any(re.search(rf"\b{re.escape(word)}\b", text) for text in texts):
                found.append(f'The folder "{name}", which has that word, is broken: {error.rstrip(".")}. ')
        return "".join(found)

    def find_root_decl(self) -> ComponentRootDecl:
        return ComponentRootDecl(
            context=self.decl_load_context, loc=ComponentRootLoc(), decls=list(self.whole.values())
        )

    def components(self, folder: str, of_type: type[C]) -> list[C]:
        """The components of one folder.

        Raises:
            Exception: Whatever loading one of them raised.
        """
        declared = self.folders[folder].iterate_all_component_decls()
        found = [self.load_component(d.loc) for d in declared if _is_subclass(d.component_type, of_type)]
        return [component for component in found if isinstance(component, of_type)]

    def get_all_components(self, of_type: type[C]) -> list[C]:
        """As Dagster's; a folder in which a component does not load is broken and left out."""
        found: list[C] = []
        for name in self.whole:
            try:
                self.components(name, YamlComponent)  # type: ignore[type-abstract]
                found += self.components(name, of_type)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
                self.mark(name, error)
        return found


def _is_subclass(candidate: object, of_type: type) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, of_type)


def describe(error: BaseException, folder: Path, root: Path) -> str:
    """What is wrong in a folder, for a person, with file and line.

    Args:
        error: What loading raised.
        folder: The folder or file.
        root: The project root, which paths are given relative to.
    """
    chain = _chain(error)
    ours = next((e for e in chain if isinstance(e, IntegrationsError)), None)
    if ours is not None:
        return str(ours)
    first = chain[-1]
    files = yaml_files(folder)
    at = relative(files[0] if files else folder, root)
    if isinstance(first, yaml.MarkedYAMLError) and first.problem_mark is not None:
        named = Path(first.problem_mark.name or "")
        where = relative(named, root) if named.is_file() else at
        return f"{where}:{first.problem_mark.line + 1}: this is no YAML: {first.problem}."
    if isinstance(first, ValidationError):
        return "\n".join(_outside_attributes(item, at, root) for item in first.errors(include_input=False))
    if isinstance(first, DagsterUnresolvableSymbolError | ImportError):
        unknown = _unknown_type(files, root)
        if unknown:
            return unknown
    inside = _where(first, root)
    at = inside if inside.startswith(relative(folder, root)) else f"{at}{f' (in {inside})' if inside else ''}"
    return f"{at}: {type(first).__name__}: {first}"


def yaml_files(folder: Path) -> list[Path]:
    """The component files in a folder, or none for a Python file."""
    return sorted([*folder.rglob("defs.yaml"), *folder.rglob("defs.yml")]) if folder.is_dir() else []


def _outside_attributes(item: ErrorDetails, at: str, root: Path) -> str:
    # Dagster's check of what stands beside `attributes`; it puts the position into the context.
    position = item.get("ctx", {}).get("source_position")
    place = f"{relative(Path(position.filename), root)}:{position.start.line}" if position else at
    key = str(item["loc"][0]).split(" at ")[0] if item["loc"] else ""
    keys = list(ComponentFileModel.model_fields)
    known = f" {near(key, keys)}Known keys: {', '.join(keys)}." if item["type"] == "extra_forbidden" else ""
    return f"{place}: {key}: {item['msg']}.{known}"


def _chain(error: BaseException) -> list[BaseException]:
    """The error and those that caused it, outermost first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or (None if chain[-1].__suppress_context__ else chain[-1].__context__)) and (
        cause not in chain
    ):
        chain.append(cause)
    return chain


def _unknown_type(files: Iterable[Path], root: Path) -> str:
    for file in files:
        for document in parse_yamls_with_source_position(file.read_text(encoding="utf-8"), str(file)):
            type_ = document.value.get("type") if isinstance(document.value, dict) else None
            if not isinstance(type_, str) or "." not in type_ or type_.startswith("."):
                continue
            module, _, name = type_.rpartition(".")
            try:
                load_module_object(module, name)
            except (DagsterUnresolvableSymbolError, ImportError) as error:
                line = document.source_position_tree.children["type"].position.start.line
                return (
                    f'{relative(file, root)}:{line}: type "{type_}" cannot be imported: {str(error).rstrip(".")}. '
                    f"{near(type_, TYPES)}`dg list components` shows what there is."
                )
    return ""


def _where(error: BaseException, root: Path) -> str:
    """ "file:line" of the innermost frame in the project, or of a syntax error; "" where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{relative(Path(error.filename), root)}:{error.lineno}"
    inside = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(root) and "site-packages" not in frame.filename
    ]
    return f"{relative(Path(inside[-1].filename), root)}:{inside[-1].lineno}" if inside else ""
