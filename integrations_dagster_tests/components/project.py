"""A small project on disk, for tests of loading."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

PYPROJECT = """\
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{package}"
defs_module = "{package}.defs"
"""

WAREHOUSE = """
type: integrations_dagster.Warehouse
attributes:
  name: warehouse
  kind: duckdb
  path: warehouse.duckdb
"""
MODEL = """
type: integrations_dagster.Model
attributes:
  sql: people.sql
  primary_key: person_id
"""
DESTINATION = """
type: integrations_dagster.Destination
attributes:
  name: hook
  kind: webhook
  targets:
    sandbox: {sandbox: true}
    prod: {base_url: {env: HOOK_URL}, secret: {env: HOOK_SECRET}}
"""
SYNC = """
type: integrations_dagster.Sync
attributes:
  name: people_to_hook
  model: people
  destination: hook
  object: people
  mode: mirror
  fields:
    name: full_name
    source: {value: warehouse}
  schedule: "*/15 * * * *"
"""
FOLDERS = {"warehouse": WAREHOUSE, "people": MODEL, "hook": DESTINATION, "people_to_hook": SYNC}

_numbers = itertools.count()


class ProjectFolder:
    """A Dagster project in a temporary folder; its package has a name of its own, since modules are never unloaded.

    Args:
        root: An empty folder, which must be on the import path.
        folders: YAML by name of the folder in `defs/`.
    """

    def __init__(self, root: Path, folders: dict[str, str] | None = None, package: str = "") -> None:
        self.root = root
        self.package = package or f"project_of_test_{next(_numbers)}"
        self.defs = root / self.package / "defs"
        self.defs.mkdir(parents=True)
        (root / self.package / "__init__.py").touch()
        (self.defs / "__init__.py").touch()
        (root / "pyproject.toml").write_text(PYPROJECT.format(package=self.package))
        (root / "sql").mkdir()
        (root / "sql" / "people.sql").write_text("SELECT 1 AS person_id, 'Ada' AS full_name\n")
        for name, text in (FOLDERS if folders is None else folders).items():
            self.write(name, text)

    def write(self, folder: str, text: str, file: str = "defs.yaml") -> Path:
        """Write a file of a folder of `defs/`; returns its path."""
        path = self.defs / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def place(self, folder: str, line: int) -> str:
        """ "file:line" as messages say it."""
        return f"{self.package}/defs/{folder}/defs.yaml:{line}"
