"""`Warehouse` in YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import dagster as dg
from pydantic import BeforeValidator, Field, model_validator

from integrations_dagster.components.attributes import YamlComponent
from integrations_dagster.components.scaffold import WarehouseScaffolder
from integrations_dagster.keys import Secret, mistake, near, problem
from integrations_dagster.sync.spec import Env, WarehouseSpec
from integrations_dagster.warehouses.registry import KINDS

WHERE = {
    "path": "path, the file, relative to the project root",
    "url": "url: {env: NAME}, the environment variable that has its URL",
}


def _kind(value: Any) -> Any:
    if value not in KINDS:
        raise problem(f'"{value}" is no kind of warehouse. {near(str(value), KINDS)}Known: {", ".join(KINDS)}.')
    return value


@dg.scaffold_with(WarehouseScaffolder)
class Warehouse(YamlComponent):
    """A warehouse that models query, read-only."""

    word: ClassVar[str] = "warehouse"

    name: str = Field(default="warehouse", min_length=1, description="Models refer to it by this name.")
    kind: Annotated[Literal["duckdb", "postgres"], BeforeValidator(_kind)] = Field(
        description="What it is: duckdb or postgres."
    )
    path: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="duckdb: the file, relative to the project root."
    )
    url: Secret | None = Field(
        default=None,
        description="postgres: {env: NAME}, the environment variable that holds "
        "postgresql://user:password@host:port/database.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Warehouse:
        place = KINDS[self.kind].place
        for key, value in (("path", self.path), ("url", self.url)):
            if key == place and value is None:
                raise problem(f"is of the kind {self.kind} and lacks {WHERE[place]}")
            if key != place and value is not None:
                raise mistake((key,), f"has no meaning for the kind {self.kind}, which takes {WHERE[place]}.")
        return self

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
        return WarehouseSpec(
            self.name,
            self.kind,
            root / self.path if self.path is not None else None,
            Env(self.url.env) if self.url is not None else None,
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from integrations_dagster.components.names import Names

        Names.of(context.component_tree).check(self)
        return dg.Definitions()
