"""Columns that a plan computes beside those of the model: a field's SQL expression, and whatever else is SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import duckdb

from integrations_dagster.planner.state import literal, quote
from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.duckdb import stored_as

FAILED = "its SQL expression fails on this row."


@dataclass(frozen=True, slots=True)
class Computed:
    """A column of the plan's rows that the model does not have.

    Its values go into the source digest and into the shards like those of any other column.

    Attributes:
        name: Its name among the columns of `Source`; no column of the model has it.
        sql: Its value, in the dialect of the home, over the columns of the model.
        problem: A text that says why a row has no value, null where it has one, likewise; "": there is always one. A
            row with a problem is invalid with that reason.
        may_fail: Whether `sql` is a person's: it may name columns that are not there, or fail on a row.
        label: What messages call it ("fields.full_name").
    """

    name: str
    sql: str
    problem: str = ""
    may_fail: bool = False
    label: str = ""


def problem_of(name: str) -> str:
    """The column that holds the problems of a computed one."""
    return f"p:{name}"


def checked(
    connection: duckdb.DuckDBPyConnection, files: str, computed: Sequence[Computed], sync: str
) -> list[Computed]:
    """The columns, each with a type that a file can hold exactly.

    Args:
        files: SQL of the model's rows.
        sync: Name, for messages.

    Raises:
        Misconfigured: An expression does not fit the model's columns.
    """
    result = []
    for column in computed:
        if column.may_fail:
            try:
                described = connection.execute(f"DESCRIBE SELECT ({column.sql}\n) AS x FROM ({files}) f").fetchone()
            except duckdb.Error as error:
                raise Misconfigured(
                    f"Sync {sync!r}: the SQL of {column.label} cannot be computed: {str(error).splitlines()[0]}",
                    "Nothing was sent. Correct the expression; it sees the columns that the model returns.",
                ) from error
            assert described is not None
            kind = str(described[1])
            column = replace(column, sql=f"CAST(({column.sql}\n) AS {stored_as(kind)})")
        result.append(column)
    return result


def with_computed(files: str, computed: Sequence[Computed], *, row_by_row: bool) -> str:
    """SQL of the model's rows with the computed columns, and the problems of those that have any.

    Args:
        row_by_row: Whether an expression that fails on a row is that row's problem instead of an error. It costs more,
            and the connection must not share common parts of expressions: DuckDB would take them out of their TRY.
    """
    tried = [column for column in computed if column.may_fail and row_by_row]
    inner = "".join(f", TRY(struct_pack(v := {column.sql})) AS {quote('t:' + column.name)}" for column in tried)
    parts = ["f.*"]
    for column in computed:
        name, problem = quote(column.name), quote(problem_of(column.name))
        if column in tried:
            attempt = quote("t:" + column.name)
            parts += [
                f"struct_extract({attempt}, 'v') AS {name}",
                f"CASE WHEN {attempt} IS NULL THEN {literal(FAILED)} END AS {problem}",
            ]
        else:
            parts.append(f"{column.sql} AS {name}")
            parts += [f"{column.problem} AS {problem}"] if column.problem else []
    return f"SELECT {', '.join(parts)} FROM (SELECT *{inner} FROM ({files})) f"


def with_problems(computed: Sequence[Computed], *, row_by_row: bool) -> frozenset[str]:
    """Names of the columns that `with_computed` gives a column of problems."""
    return frozenset(column.name for column in computed if column.problem or (column.may_fail and row_by_row))
