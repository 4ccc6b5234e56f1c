"""`Warehouse` in YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import dagster as dg
from pydantic import BeforeValidator, Field

from integrations_dagster.components.attributes import NotBuilt, YamlComponent, near, problem
from integrations_dagster.components.scaffold import WarehouseScaffolder
from integrations_dagster.sync.spec import WarehouseSpec

KINDS = ("duckdb",)
KINDS_PLANNED = ("postgres",)


def _kind(value: Any) -> Any:
    if value in KINDS_PLANNED:
        raise problem(f'"{value}" is not built yet. Built: {", ".join(KINDS)}.')
    if value not in KINDS:
        raise problem(f'"{value}" is no kind of warehouse. {near(str(value), KINDS)}Known: {", ".join(KINDS)}.')
    return value


@dg.scaffold_with(WarehouseScaffolder)
class Warehouse(YamlComponent):
    """A warehouse that models query, read-only."""

    word: ClassVar[str] = "warehouse"
    not_built: ClassVar[NotBuilt] = {"url": 'It belongs to the kind "postgres".'}

    name: str = Field(default="warehouse", min_length=1, description="Models refer to it by this name.")
    kind: Annotated[Literal["duckdb"], BeforeValidator(_kind)] = Field(description="What it is: duckdb.")
    path: str = Field(min_length=1, description="The DuckDB file, relative to the project root.")

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(description="A warehouse that models query.", tags=["integrations", "warehouse"])

    @property
    def identity(self) -> str:
        return self.name

    def spec(self, root: Path) -> WarehouseSpec:
        """The warehouse as plain values.

        Args:
            root: The project root, absolute.
        """
        return WarehouseSpec(self.name, self.kind, root / self.path)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from integrations_dagster.components.names import Names

        Names.of(context.component_tree).check(self)
        return dg.Definitions()
