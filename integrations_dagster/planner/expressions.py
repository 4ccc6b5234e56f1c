"""SQL expressions over the columns of a model: read when the YAML is loaded, written in the dialect of a home."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot.expressions import Expr


def columns_of(sql: str, dialect: str) -> tuple[str, ...]:
    """The columns that an expression uses, each once, in order of their names.

    A name of several parts ("address.city") is a member of the column that its first part names.

    Args:
        sql: The expression, as a warehouse of this kind takes it.
        dialect: "duckdb" or "postgres".

    Raises:
        ValueError: It is not one expression over the columns of one row, with a reason for a person.
    """
    # Loading it takes a tenth of a second, which a project without expressions need not pay.
    from sqlglot import exp

    tree = _parsed(sql, dialect)
    variables = {
        name.name
        for node in tree.find_all(exp.Comprehension)
        for name in node.args["expression"].find_all(exp.Identifier)
    }
    return tuple(sorted({node.parts[0].name for node in tree.find_all(exp.Column)} - variables))


def render(sql: str, dialect: str, home: str, columns: Mapping[str, str] | None = None) -> str:
    """The expression in the dialect of a home; as it stands where that is its own.

    Args:
        columns: Types of the model's columns as the expression's dialect names them, by name. Where they are unknown,
            what depends on types is written as it stands: `a / b` is a whole number in Postgres if both are.

    Raises:
        ValueError: It cannot be written in that dialect.
    """
    if dialect == home:
        return sql
    from sqlglot import ErrorLevel, UnsupportedError

    tree = _typed(_parsed(sql, dialect), dialect, columns or {})
    try:
        return str(tree.sql(home, comments=False, unsupported_level=ErrorLevel.RAISE))
    except UnsupportedError as error:
        raise ValueError(f"cannot be written for {home}: {error}") from None


def tells_time(sql: str, dialect: str) -> bool:
    """Whether an expression, which has been read before, depends on when it is computed."""
    from sqlglot import exp

    kinds = (exp.CurrentDate, exp.CurrentTime, exp.CurrentTimestamp, exp.CurrentDatetime, exp.Localtime)
    names = {"age", "now", "today", "clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday"}
    return any(
        isinstance(node, kinds) or (isinstance(node, exp.Anonymous) and node.name.lower() in names)
        for node in _parsed(sql, dialect).walk()
    )


def _typed(tree: Expr, dialect: str, columns: Mapping[str, str]) -> Expr:
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.optimizer.annotate_types import annotate_types

    table = "the_model"
    query = exp.select(tree).from_(table)
    own = [column for column in query.find_all(exp.Column) if len(column.parts) == 1]
    for column in own:
        column.set("table", exp.to_identifier(table))
    # A type that sqlglot does not know is as good as none.
    with suppress(SqlglotError):
        query = annotate_types(query, schema={table: dict(columns)} if columns else None, dialect=dialect)
    for column in query.find_all(exp.Column):
        if column.table == table:
            column.set("table", None)
    return query.selects[0]


def _parsed(sql: str, dialect: str) -> Expr:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        trees = sqlglot.parse(sql, read=dialect)
    except SqlglotError as error:
        raise ValueError(f"cannot be read as {dialect} SQL: {_first_line(error)}") from None
    if not trees or trees[0] is None:
        raise ValueError("is empty")
    if len(trees) > 1:
        raise ValueError(f"holds {len(trees)} statements; it takes one expression")
    tree = trees[0]
    for node in tree.walk():
        for kinds, why in (
            (
                (exp.Query, exp.DML, exp.DDL, exp.Drop, exp.Command, exp.Subquery),
                "is a query or statement, or holds one",
            ),
            ((exp.AggFunc,), "aggregates rows"),
            ((exp.Window,), "looks at other rows"),
            ((exp.Star, exp.Columns), "names all columns at once"),
            ((exp.Placeholder, exp.Parameter), "has a parameter"),
            ((exp.Rand, exp.Randn, exp.Uuid), "gives another value each time"),
            ((exp.Alias,), "names its result; leave AS out"),
        ):
            if isinstance(node, kinds) and not (isinstance(node, exp.Alias) and node is not tree):
                raise ValueError(f"{why}. It takes one expression over the columns of the model")
    return tree


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(". ")
