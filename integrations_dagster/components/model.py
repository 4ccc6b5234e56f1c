"""`Model` in YAML."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import dagster as dg
from pydantic import BeforeValidator, Field, model_validator

from integrations_dagster.components.attributes import YamlComponent
from integrations_dagster.components.scaffold import ModelScaffolder
from integrations_dagster.keys import AlsoTakes, Duration, Keys, NotBuilt, mistake, near, problem
from integrations_dagster.sync.spec import CursorSpec, ModelSpec, WarehouseSpec

SQL_FOLDER = "sql"


class Daily(Keys):
    """Partitions of a day each."""

    not_built: ClassVar[NotBuilt] = {"timezone": "Days are days of UTC."}

    start: datetime.date = Field(description="First day, as 2026-06-01.")
    end: datetime.date | None = Field(
        default=None, description="First day that is no partition any more; default: none."
    )
    column: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Of a table: the column by which its partitions are told apart, a date or timestamp."
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
    """Rows and their primary key: an asset whose rows syncs deliver. They come from a query, a table or an asset."""

    word: ClassVar[str] = "model"
    sql: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="File in the folder sql/ of the project, one SELECT."
    )
    table: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description='Instead of sql: a table of the warehouse, as "schema.table".'
    )
    asset: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description='Instead of sql: key of an upstream asset, as "raw/customers", yielding a data frame, Arrow data '
        "or the name of a table. With table: the asset that makes this table.",
    )
    read: Literal["auto", "value", "table"] | None = Field(
        default=None,
        description="How the asset is read. value: as its IO manager loads it; table: by the table that its metadata "
        "names (dagster/table_name); auto, the default: by its table if it names one, else as a value.",
    )
    primary_key: Columns = Field(min_length=1, description="Column, or list of columns, that identifies a row.")
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_]+$",
        description="Name of the model and of its asset; default: the file's name without .sql, or the table's.",
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
            description="A query, table or asset, and its primary key.",
            tags=["integrations", "model"],
            produces=["asset"],
        )

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        given = [key for key in ("sql", "table", "asset") if getattr(self, key)]
        if not given:
            raise problem("has no rows: give it `sql`, `table` or `asset`")
        if self.sql and len(given) > 1:
            raise mistake((given[1],), "and sql contradict each other: the rows come from one of them.")
        if self.read and (self.asset is None or self.table is not None):
            why = "the table is named" if self.table else "it says how an `asset` is read"
            raise mistake(("read",), f"has no meaning: {why}. Leave it out.")
        if self.read == "value" and "warehouse" in self.model_fields_set:
            raise mistake(("warehouse",), "has no meaning: the value of an asset needs no warehouse. Leave it out.")
        if self.cursor is not None and not self.sql:
            raise mistake(("cursor",), "belongs to a query, which selects the rows from $cursor on. Write it as `sql`.")
        if self.asset and not self.name and not self.table:
            raise mistake(("name",), "is missing. Name the model otherwise than the asset, for both are assets.")
        if self.asset and self.asset == self.name:
            raise mistake(("name",), f'is the key of the asset "{self.asset}". Name the model otherwise.')
        column = self.partitions.daily.column if self.partitions else None
        if column and (self.sql or self.read == "value"):
            why = (
                "the SQL selects the rows from $partition_start" if self.sql else "the asset has partitions of its own"
            )
            raise mistake(("partitions", "daily", "column"), f"has no meaning: {why}. Leave it out.")
        if self.partitions and self.table and not column:
            raise mistake(
                ("partitions", "daily", "column"), "is missing: which column of the table tells its days apart?"
            )
        return self

    @property
    def identity(self) -> str:
        return self.name or (Path(self.sql).stem if self.sql else str(self.table).rpartition(".")[2])

    def spec(self, root: Path, warehouse: WarehouseSpec) -> ModelSpec:
        """The model as plain values.

        Args:
            root: The project root, absolute.
            warehouse: The warehouse that `warehouse` names.

        Raises:
            Misconfigured: The SQL file does not exist.
        """
        path = self._sql_path(root, self.sql) if self.sql else None
        if not self.name and not self.identity.replace("_", "a").isalnum():
            raise self.error(
                "sql" if self.sql else "table",
                f'"{self.sql or self.table}" makes no asset name.',
                "Give the model a `name` of letters and digits.",
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
            table=self.table or "",
            asset=self.asset or "",
            read=self.read or "auto",
            window=(self.partitions.daily.column or "") if self.partitions else "",
        )

    def _sql_path(self, root: Path, sql: str) -> Path:
        folder = root / SQL_FOLDER
        path = folder / sql
        if not path.is_file():
            there = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.sql"))
            raise self.error(
                "sql",
                f'"{sql}" is no file in {SQL_FOLDER}/ of the project.',
                f"{near(sql, there)}Write the query in {path.relative_to(root)}; "
                f"there {'are' if there else 'is'}: {', '.join(there) or 'nothing'}.",
            )
        return path

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
