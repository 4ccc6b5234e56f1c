"""A field of a sync in YAML: what it is made from."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from integrations_dagster.components.attributes import TEMPLATE, Keys, NotBuilt, problem
from integrations_dagster.planner.expressions import columns_of
from integrations_dagster.sync.spec import FieldSpec

SOURCES = ("column", "value", "sql")
"""Keys that say where a field comes from."""


class FieldProblem(ValueError):
    """What is wrong with a field, told at one of its keys.

    Args:
        key: The key.
        text: A sentence about it, without its subject.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


class FieldMapping(Keys):
    """What one field of the destination is made from."""

    not_built: ClassVar[NotBuilt] = {
        "lookup": "Join it in the model's SQL.",
        "type": "Cast the column in the model's SQL.",
        "nulls": "Nulls are left out.",
    }

    column: Annotated[str, Field(min_length=1)] | None = Field(default=None, description="Column of the model.")
    value: Any = Field(default=None, description="A constant, the same for every row.")
    sql: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="An expression over the model's columns, in the SQL of its warehouse; computed for all rows at "
        "once when a run is planned.",
    )
    sensitive: Annotated[bool, TEMPLATE] = Field(
        default=False, description="Its values are kept out of request logs, reasons of rows and previews."
    )

    @model_validator(mode="after")
    def _one_source(self) -> FieldMapping:
        given = [source for source in SOURCES if source in self.model_fields_set]
        if len(given) != 1:
            raise problem("takes one of `column`, `value` and `sql`")
        if getattr(self, given[0]) is None:
            raise problem("is null, which would be left out of every row. Give a column, a value or an expression.")
        return self

    def columns(self, dialect: str) -> tuple[str, ...]:
        """The columns of the model that it is made from; none where its expression is wrong, which `spec` tells."""
        try:
            return columns_of(self.sql, dialect) if self.sql else tuple(filter(None, (self.column,)))
        except ValueError:
            return ()

    def spec(self, target: str, dialect: str) -> FieldSpec:
        """The field as plain values.

        Args:
            target: Its name at the destination.
            dialect: Kind of the model's warehouse, whose SQL an expression is written in.

        Raises:
            FieldProblem: A key is wrong.
        """
        try:
            uses = () if self.sql is None else columns_of(self.sql, dialect)
        except ValueError as error:
            raise FieldProblem("sql", f"{error}.") from None
        return FieldSpec(target, self.column, self.value, self.sensitive, self.sql, uses)


def field_mapping(value: Any) -> Any:
    """The long form of a field's short one."""
    if isinstance(value, str):
        return {"column": value}
    if not isinstance(value, dict | FieldMapping):
        raise problem("takes the name of a column, {column: NAME}, {value: CONSTANT} or {sql: EXPRESSION}")
    return value
