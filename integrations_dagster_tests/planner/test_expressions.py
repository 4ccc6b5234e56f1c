"""SQL expressions of fields: what they may be, what they use, and how they are written elsewhere."""

from __future__ import annotations

import duckdb
import pytest

from integrations_dagster.planner.expressions import columns_of, render


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize(
    ("sql", "used"),
    [
        ("first_name || ' ' || last_name", ("first_name", "last_name")),
        ("coalesce(nickname, first_name, nickname)", ("first_name", "nickname")),
        ("CASE WHEN age >= 18 THEN 'adult' END -- by law", ("age",)),
        ('"Email"', ("Email",)),
        ("address.city", ("address",)),
        ("tags[1]", ("tags",)),
        ("date '2026-08-01'", ()),
        ("signup_at > now()", ("signup_at",)),
        ("age::TEXT", ("age",)),
    ],
)
def test_the_columns_that_an_expression_uses(sql: str, used: tuple[str, ...], dialect: str) -> None:
    assert columns_of(sql, dialect) == used


@pytest.mark.parametrize(
    "sql",
    ["list_transform(tags, x -> upper(x))", "list_transform(tags, lambda x: upper(x))", "[upper(x) for x in tags]"],
)
def test_variables_are_no_columns(sql: str) -> None:
    assert columns_of(sql, "duckdb") == ("tags",)


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("a, b", "cannot be read as"),
        ("a) FROM people; DROP TABLE people --", "cannot be read as"),
        ("'half", "cannot be read as"),
        ("a +", "cannot be read as"),
        ("-- only a comment", "is empty"),
        ("a; b", "holds 2 statements"),
        ("SELECT a", "is a query"),
        ("(SELECT max(a) FROM people)", "is a query"),
        ("a IN (SELECT b FROM people)", "is a query"),
        ("EXISTS (SELECT 1)", "is a query"),
        ("DROP TABLE people", "is a query or statement"),
        ("DELETE FROM people", "is a query or statement"),
        ("sum(a)", "aggregates rows"),
        ("1 + count(*)", "aggregates rows"),
        ("row_number() OVER ()", "looks at other rows"),
        ("*", "names all columns"),
        ("a.*", "names all columns"),
        ("$partition_start", "has a parameter"),
        ("random()", "gives another value each time"),
        ("a AS b", "names its result; leave AS out"),
    ],
)
def test_what_is_no_expression_over_one_row(sql: str, why: str, dialect: str) -> None:
    with pytest.raises(ValueError, match=why):
        columns_of(sql, dialect)


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("'a' || NULL::TEXT IS NULL", True),
        ("to_char(TIMESTAMP '2026-08-01 12:30:00', 'YYYY-MM-DD')", "2026-08-01"),
        ("'abc' ~ '^a'", True),
        ("split_part('a-b', '-', 2)", "b"),
        ("'{\"a\": 1}'::jsonb ->> 'a'", "1"),
        ("EXTRACT(year FROM DATE '2026-08-01')", 2026),
        ("7 / 2", 3),
    ],
)
def test_an_expression_of_postgres_means_the_same_in_duckdb(sql: str, value: object) -> None:
    row = duckdb.execute(f"SELECT {render(sql, 'postgres', 'duckdb')}").fetchone()
    assert row == (value,)


@pytest.mark.parametrize(
    ("types", "value"), [({"a": "integer", "b": "bigint"}, 3), ({"a": "numeric(10,2)", "b": "integer"}, 3.5), ({}, 3.5)]
)
def test_what_depends_on_the_types_of_columns(types: dict[str, str], value: float) -> None:
    rendered = render("a / b", "postgres", "duckdb", types)
    row = duckdb.execute(f"SELECT {rendered} FROM (SELECT 7 AS a, 2 AS b)").fetchone()
    assert row == (value,)


def test_an_expression_is_not_rewritten_for_its_own_dialect() -> None:
    assert render("a||b  -- as written", "duckdb", "duckdb") == "a||b  -- as written"
