"""Values that are looked up: reference data joined to the model's rows, as further columns of them.

What a lookup finds goes into the source digest, so that a record whose owner has another id there is a candidate, and
no other record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from integrations_dagster.planner.comparing import compared
from integrations_dagster.planner.computed import problem_of
from integrations_dagster.planner.state import literal, quote


@dataclass(frozen=True, slots=True)
class Lookup:
    """A column of the plan's rows whose values are looked up.

    A row whose column is null or empty looks nothing up, and has null.

    Attributes:
        name: Name of the computed column.
        column: Column of the model that is compared.
        files: Parquet files of the reference data; none: there is no record.
        key: Their column that is compared with it.
        value: Their column whose value is taken. Records without a value count as not there.
        normalization: How both sides are compared: "exact", "trim" or "trim_lower".
        no_match: "reject" (the row is invalid) or "null".
        several: What becomes of a row where records with different values match, likewise.
        newest: Column of the files; of the records with one key only that with its highest value counts. "": all do.
        records: What a reason calls the reference ("owners of crm").
        missing: What a reason says where nothing matches, with "{}" in the place of the value.
    """

    name: str
    column: str
    files: tuple[Path, ...]
    key: str
    value: str
    normalization: str = "exact"
    no_match: str = "reject"
    several: str = "reject"
    newest: str = ""
    records: str = "the reference"
    missing: str = "no record matches {}"


def with_lookups(
    connection: duckdb.DuckDBPyConnection, files: str, lookups: Sequence[Lookup]
) -> tuple[str, frozenset[str]]:
    """The model's rows with the columns that are looked up, and the problems of those that may have any.

    The reference data is read into tables, once: from then on its files may go.

    Args:
        files: SQL of the model's rows.

    Returns:
        SQL of the rows, and the names of the columns that have one of problems (`problem_of`).
    """
    if not lookups:
        return files, frozenset()
    tables: dict[tuple[object, ...], str] = {}
    asked, columns, joins = [], [], []
    for index, lookup in enumerate(lookups):
        content = (lookup.files, lookup.key, lookup.value, lookup.normalization, lookup.newest)
        if content not in tables:
            tables[content] = quote(f"lookup {len(tables)}")
            _load(connection, tables[content], lookup)
        asks = quote(f"a:{lookup.name}")
        asked.append(f"{compared(quote(lookup.column), lookup.normalization)} AS {asks}")
        columns.append(f"CASE WHEN l{index}.matches = 1 THEN l{index}.value END AS {quote(lookup.name)}")
        if problem := _problem(lookup, f"l{index}.matches", f"f.{asks}"):
            columns.append(f"{problem} AS {quote(problem_of(lookup.name))}")
        joins.append(f"LEFT JOIN {tables[content]} l{index} ON l{index}.key = f.{asks}")
    sql = f"SELECT f.*, {', '.join(columns)} FROM (SELECT *, {', '.join(asked)} FROM ({files})) f {' '.join(joins)}"
    rejecting = (lookup.name for lookup in lookups if "reject" in (lookup.no_match, lookup.several))
    return sql, frozenset(rejecting)


def _load(connection: duckdb.DuckDBPyConnection, table: str, lookup: Lookup) -> None:
    # One row for each key, so that a look-up never multiplies rows.
    key = compared(quote(lookup.key), lookup.normalization)
    rows = f"read_parquet([{', '.join(literal(str(file)) for file in lookup.files)}])" if lookup.files else ""
    value = quote(lookup.value)
    if rows:
        chosen = f"arg_max({value}, {quote(lookup.newest)})" if lookup.newest else f"min({value})"
        matches = "1" if lookup.newest else f"count(DISTINCT {value})"
        content = f"""SELECT {key} AS key, CAST({chosen} AS VARCHAR) AS value, {matches} AS matches
            FROM {rows} WHERE {key} IS NOT NULL AND {value} IS NOT NULL GROUP BY 1"""
    else:
        content = "SELECT '' AS key, '' AS value, 0 AS matches WHERE false"
    connection.execute(f"CREATE TEMP TABLE {table} AS {content}")


def _problem(lookup: Lookup, matches: str, asked: str) -> str:
    """SQL of why a row has no value; "" where it always may have none."""
    reasons = []
    if lookup.no_match == "reject":
        before, _, after = lookup.missing.partition("{}")
        text = f"{literal(before + chr(39))} || {asked} || {literal(chr(39) + after + '.')}"
        reasons.append(f"WHEN {matches} IS NULL THEN {text}")
    if lookup.several == "reject":
        before, after = f" {lookup.records} match '", "'; which one is meant cannot be told."
        reasons.append(f"WHEN {matches} > 1 THEN {matches} || {literal(before)} || {asked} || {literal(after)}")
    # A row that asks for nothing has no problem.
    return f"CASE WHEN {asked} IS NULL THEN NULL {' '.join(reasons)} END" if reasons else ""
