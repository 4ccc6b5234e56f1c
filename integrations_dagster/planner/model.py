"""The rows of a model version as SQL: key, match value, partition and source digest of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import duckdb

from integrations_dagster.planner.comparing import compared
from integrations_dagster.planner.computed import Computed, checked, problem_of, with_computed, with_problems
from integrations_dagster.planner.lookups import Lookup, with_lookups
from integrations_dagster.planner.state import literal, quote
from integrations_dagster.vocabulary import Misconfigured

DIGEST_VERSION = "1"
"""Part of every source digest: raising it makes all rows candidates once, and sends none whose payload is the same.
Raise it when match values are normalized in another way: a row whose digest is the same has the same match value."""
KEY, PARTITION = "__key", "__partition"
"""Columns of the view `files` beside those of the model: the primary key as text, and the partition."""
PLACE = "__place"
"""A further column where the rows of `files` are in a table: their number in it, found faster than their key."""


@dataclass(frozen=True, slots=True)
class Source:
    """The rows to compare.

    Attributes:
        files: Partition key ("" for an unpartitioned model) to the Parquet files of its newest version.
        primary_key: Columns of the primary key.
        match: Columns of the match value; empty: the primary key is the match value.
        normalization: Of each match column, a key of `comparing.NORMALIZED`.
        columns: All columns that the sync uses beside the primary key, computed ones among them.
        mapping_digest: Digest of the mapping, part of every source digest.
        computed: How those are computed that the model does not have.
        cursor: Column by which the model is queried in part: rows that are not there may be there all the same.
        lookups: And how those are looked up.
        tables: In a home in the warehouse: partition key to the table of its newest version; `files` is empty then.
        types: Likewise: types of the model's columns as the warehouse names them.
        inputs: Likewise: the model's own columns that `columns` are, or are computed from.
        whole: Likewise: every row leaves the warehouse, because what is computed here may change while `inputs` do not.
    """

    files: Mapping[str, Sequence[Path]]
    primary_key: tuple[str, ...]
    match: tuple[str, ...]
    normalization: tuple[str, ...]
    columns: tuple[str, ...]
    mapping_digest: str
    computed: tuple[Computed, ...] = ()
    cursor: str | None = None
    lookups: tuple[Lookup, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    whole: bool = False

    @property
    def partitions(self) -> list[str]:
        """The partitions compared; [""] of an unpartitioned model."""
        return list(self.tables or self.files)


def scalar(connection: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[Any] = ()) -> int:
    row = connection.execute(query, list(parameters)).fetchone()
    assert row is not None
    return int(row[0] or 0)


def files_sql(source: Source) -> str:
    parts = [
        f"SELECT *, {literal(partition)} AS {quote(PARTITION)} FROM read_parquet("
        f"[{', '.join(literal(str(path)) for path in paths)}])"
        for partition, paths in source.files.items()
    ]
    return " UNION ALL BY NAME ".join(parts)


def text_of(columns: Sequence[str], table: str = "") -> str:
    """SQL: one column (of a table's alias) as text; several as a JSON array of texts, null if any is null."""
    names = [f"{table}.{quote(column)}" if table else quote(column) for column in columns]
    texts = [f"CAST({name} AS VARCHAR)" for name in names]
    if len(texts) == 1:
        return texts[0]
    any_null = " OR ".join(f"{name} IS NULL" for name in names)
    return f"CASE WHEN {any_null} THEN NULL ELSE CAST(to_json([{', '.join(texts)}]) AS VARCHAR) END"


def match_text(source: Source) -> str:
    """SQL: the match value of a row of the model."""
    if not source.match:
        return text_of(source.primary_key)
    texts = [compared(quote(column), how) for column, how in zip(source.match, source.normalization, strict=True)]
    if len(texts) == 1:
        return texts[0]
    any_null = " OR ".join(f"{text} IS NULL" for text in texts)
    return f"CASE WHEN {any_null} THEN NULL ELSE CAST(to_json([{', '.join(texts)}]) AS VARCHAR) END"


def digest_text(source: Source, used: Sequence[str], problems: frozenset[str] = frozenset()) -> str:
    """SQL: the source digest of a row of the model, 128 bits as hexadecimal text.

    Args:
        used: The columns whose change makes a row a candidate, beside the primary key.
        problems: Computed columns that have a column of problems.
    """
    # Each value is led by its length, so that no two rows share a text by moving a character from column to column;
    # null is "-". A row without a value because of a problem is another row than one whose value is null.
    # How many columns are the key: with others the same values are another row.
    key = f"{len(source.primary_key)}/" if len(source.primary_key) > 1 else ""
    parts = [literal(f"{DIGEST_VERSION}/{source.mapping_digest}/{key}")]
    for column in dict.fromkeys([*source.primary_key, *used]):
        text = f"CAST({quote(column)} AS VARCHAR)"
        if source.tables:
            parts.append(f"coalesce(strlen({text}) || ':' || {text}, '-')")
        else:
            parts.append(f"strlen({text}), CASE WHEN {quote(column)} IS NULL THEN '-' ELSE ':' END, {text}")
    parts += [f"coalesce('!' || {quote(problem_of(name))}, '')" for name in sorted(problems)]
    if source.tables:
        return f"md5({' || '.join(parts)})"
    # The same text, several times as fast in DuckDB; other databases limit the arguments of concat.
    return f"md5(concat({', '.join(parts)}))"


LEFT_KEY, LEFT_MATCH, LEFT_DIGEST = "__row_key", "__match", "__digest"
"""Columns of rows that have left the warehouse, which computed them."""


def whole_model(connection: duckdb.DuckDBPyConnection, source: Source, problems: frozenset[str]) -> None:
    """Table `model`: key, match value, partition and digest of every row of `files`, which have no `PLACE`."""
    match, digest = match_text(source), digest_text(source, source.columns, problems)
    if source.tables:
        # What the warehouse compares is over the columns that a computed one is made from.
        match = quote(LEFT_MATCH)
        digest = digest if source.whole else quote(LEFT_DIGEST)
    cursor = f", {quote(source.cursor)} AS cursor" if source.cursor else ""
    connection.execute(
        f"""CREATE TEMP TABLE model AS SELECT {quote(KEY)} AS key, {match} AS match,
            {quote(PARTITION)} AS partition, {digest} AS digest, CAST(NULL AS BIGINT) AS place{cursor}
        FROM files"""
    )


Read: TypeAlias = Callable[[duckdb.DuckDBPyConnection, Source, frozenset[str]], None]
"""Reads the rows of `files`, given the columns that have one of problems."""


def load_model(
    connection: duckdb.DuckDBPyConnection,
    sync: str,
    source: Source,
    left: Path | None = None,
    read: Read = whole_model,
) -> frozenset[str]:
    """View `files` (the model's rows, with columns that are computed and looked up, and the key as text), and what
    `read` makes of it.

    Args:
        left: The file of the rows that have left the warehouse; None: the rows are in the files of the source.
        read: Called with the view, and again where an expression failed in it.

    Returns:
        The further columns that have a column of problems (`problem_of`) in `files`.

    Raises:
        Misconfigured: An expression does not fit the model.
    """
    files = files_sql(source) if left is None else f"SELECT * FROM read_parquet({literal(str(left))})"
    computed = checked(connection, files, source.computed, sync)
    files, unfound = with_lookups(connection, files, source.lookups)
    may_fail = any(column.may_fail for column in computed)
    # Of rows that have left the warehouse no digest is computed here, which would show that an expression fails.
    if left is None or source.whole or not may_fail:
        try:
            return _load(connection, source, files, computed, unfound, read, row_by_row=False)
        except (duckdb.DataError, duckdb.InvalidInputException):
            if not may_fail:
                raise
    # An expression fails on some row. Each row is tried by itself now, so that the others are delivered.
    connection.execute("SET disabled_optimizers = 'common_subexpressions'")
    try:
        return _load(connection, source, files, computed, unfound, read, row_by_row=True)
    except (duckdb.DataError, duckdb.ProgrammingError):
        # Not chained: DuckDB quotes values.
        labels = ", ".join(column.label for column in computed if column.may_fail)
        raise Misconfigured(
            f"Sync {sync!r}: the SQL of one of {labels} fails on some row, and DuckDB cannot try it row by row, as it "
            "cannot with functions that give another value each time.",
            "Nothing was sent. Correct the expression, or make it null where it fails, with TRY_CAST.",
        ) from None


def _load(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    files: str,
    computed: Sequence[Computed],
    unfound: frozenset[str],
    read: Read,
    *,
    row_by_row: bool,
) -> frozenset[str]:
    sql = with_computed(files, computed, row_by_row=row_by_row) if computed else files
    problems = with_problems(computed, row_by_row=row_by_row) | unfound
    key = quote(LEFT_KEY) if source.tables else text_of(source.primary_key)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW files AS SELECT *, {key} AS {quote(KEY)} FROM ({sql})")
    read(connection, source, problems)
    return problems


def check_keys(connection: duckdb.DuckDBPyConnection, sync: str, source: Source, rows: str = "model") -> None:
    """Refuse a repeated primary key in a relation with the column `key`.

    Raises:
        Misconfigured: There is one.
    """
    repeated = connection.execute(
        f"SELECT key, count(*) AS n FROM {rows} WHERE key IS NOT NULL GROUP BY key HAVING n > 1 ORDER BY key LIMIT 5"
    ).fetchall()
    if repeated:
        named = ", ".join(f"{key!r} ({count} rows)" for key, count in repeated)
        raise Misconfigured(
            f"Sync {sync!r}: the primary key {', '.join(source.primary_key)} of its model is not unique: {named}.",
            "Nothing was sent. Make the query return one row for each key, or name a primary key that is unique.",
        )
