"""`Model` in YAML."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

import dagster as dg
from pydantic import BeforeValidator, Field, model_validator

from integrations_dagster.components.attributes import AlsoTakes, Keys, NotBuilt, YamlComponent, near, problem
from integrations_dagster.components.durations import Duration
from integrations_dagster.components.scaffold import ModelScaffolder
from integrations_dagster.sync.spec import CursorSpec, ModelSpec, WarehouseSpec

SQL_FOLDER = "sql"


class Daily(Keys):
    """Partitions of a day each."""

    not_built: ClassVar[NotBuilt] = {"timezone": "Days are days of UTC."}

    start: datetime.date = Field(description="First day, as 2026-06-01.")
    end: datetime.date | None = Field(
        default=None, description="First day that is no partition any more; default: none."
    )

    @model_validator(mode="after")
    def _end_after_start(self) -> Daily:
        if self.end is not None and self.end <= self.start:
            raise problem(f"ends ({self.end}) before its first day ({self.start}) is over; `end` is excluded")
        return self


class Partitions(Keys):
    """How a model is cut into partitions."""

    not_built: ClassVar[NotBuilt] = dict.fromkeys(("hourly", "weekly", "monthly", "static"), "Built: daily.")

    daily: Daily = Field(description="One partition a day; the SQL uses $partition_start and $partition_end.")


def _columns(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Columns = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_columns), AlsoTakes({"type": "string"})]


class CursorKeys(Keys):
    """How a model is queried in part."""

    column: Annotated[str, Field(min_length=1)] = Field(description="Column that grows with every change of a row.")
    lookback: Duration = Field(
        default=0.0,
        description='How far each query goes back behind the cursor, for rows that appear late: "3h"; of a column of '
        "numbers, a number.",
    )


def _cursor(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


@dg.scaffold_with(ModelScaffolder)
class Model(YamlComponent):
    """A query and its primary key: an asset whose rows syncs deliver."""

    word: ClassVar[str] = "model"
    sql: str = Field(min_length=1, description="File in the folder sql/ of the project, one SELECT.")
    primary_key: Columns = Field(min_length=1, description="Column, or list of columns, that identifies a row.")
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_]+$",
        description="Name of the model and of its asset; default: the file's name without .sql.",
    )
    warehouse: str = Field(default="warehouse", description="Name of the warehouse that it queries.")
    partitions: Partitions | None = Field(default=None, description="Partitions, if its rows arrive by day.")
    cursor: Annotated[CursorKeys, BeforeValidator(_cursor), AlsoTakes({"type": "string"})] | None = Field(
        default=None,
        description="Column that grows with every change of a row, for a model that is too large to query whole: the "
        "SQL selects the rows from $cursor on, which is null the first time. Removed rows are not noticed.",
    )
    description: str | None = Field(default=None, description="Shown on the asset.")

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            description="A query and its primary key, as an asset.", tags=["integrations", "model"], produces=["asset"]
        )

    @property
    def identity(self) -> str:
        return self.name or Path(self.sql).stem

    def spec(self, root: Path, warehouse: WarehouseSpec) -> ModelSpec:
        """The model as plain values.

        Args:
            root: The project root, absolute.
            warehouse: The warehouse that `warehouse` names.

        Raises:
            Misconfigured: The SQL file does not exist.
        """
        folder = root / SQL_FOLDER
        path = folder / self.sql
        if not path.is_file():
            there = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.sql"))
            raise self.error(
                "sql",
                f'"{self.sql}" is no file in {SQL_FOLDER}/ of the project.',
                f"{near(self.sql, there)}Write the query in {path.relative_to(root)}; "
                f"there {'are' if there else 'is'}: {', '.join(there) or 'nothing'}.",
            )
        if not self.name and not self.identity.replace("_", "a").isalnum():
            raise self.error(
                "sql", f'"{self.sql}" makes no asset name.', "Give the model a `name` of letters and digits."
            )
        if self.cursor is not None and self.partitions is not None:
            raise self.error("cursor", "and partitions do not go together: a partition is a window of its own.")
        return ModelSpec(
            self.identity,
            path,
            tuple(self.primary_key),
            warehouse,
            partitioned=self.partitions is not None,
            cursor=CursorSpec(self.cursor.column, self.cursor.lookback) if self.cursor else None,
        )

    def partitions_def(self) -> dg.PartitionsDefinition | None:
        """The partitions of the model, shared by the syncs that deliver it."""
        if self.partitions is None:
            return None
        daily = self.partitions.daily
        return dg.DailyPartitionsDefinition(
            start_date=daily.start.isoformat(), end_date=daily.end.isoformat() if daily.end else None
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from integrations_dagster.components.names import Names
        from integrations_dagster.orchestration.models import model_asset

        names = Names.of(context.component_tree)
        names.check(self)
        asset = model_asset(names.model_spec(self), self.partitions_def())
        if self.description:
            description = self.description
            asset = asset.map_asset_specs(lambda spec: spec.replace_attributes(description=description))
        return dg.Definitions(assets=[asset])
