"""What a plan looks at: the rows that may differ, and whatever has to do with them; the others are only counted.

A row is *plainly the same* if its key has one record, with the row's digest and partition, and it is not held. The
digest is over the columns of the match value, so that row and record have one match value too. Rows have to do with
each other by key, by match value, and by the destination id of a record that may be removed. A row stays out if it is
plainly the same and no other row or record has to do with it. What is left is judged as if all had been there: by one
pass over the model's files and the snapshot, instead of one for each question.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from integrations_dagster.planner.computed import problem_of
from integrations_dagster.planner.model import (
    KEY,
    PARTITION,
    Source,
    check_keys,
    digest_text,
    files_sql,
    load_model,
    match_text,
    scalar,
    text_of,
    whole_model,
)
from integrations_dagster.planner.state import literal, quote

REST, ROWS = "rest.parquet", "rest-rows.parquet"
"""Keys of the rows and records that are not plainly the same, and those rows, in the folder of the plan."""
_DIGEST, _MATCH = "__digest", "__match"


@dataclass(frozen=True, slots=True)
class Stayed:
    """What the tables of a plan leave out: rows of the model that are unchanged, and keys of their records."""

    rows: int = 0
    keys: int = 0


def load_rest(
    connection: duckdb.DuckDBPyConnection, sync: str, source: Source, folder: Path, *, removes: bool
) -> tuple[frozenset[str], Stayed]:
    """`load_model`, but `model`, `snapshot` and `files` hold only what may differ and what has to do with it.

    Args:
        connection: Has the views `snapshot` and `held`.
        folder: Where `REST` and `ROWS` may stay as long as the connection is used.
        removes: Whether records that are not in the model are removed.

    Returns:
        What `load_model` returns, and what is left out.
    """
    # Of a model that is queried in part all rows are looked at, and there are few. A first plan has nothing to compare.
    if (
        source.cursor is not None
        or not {*source.match} <= {*source.primary_key, *source.columns}
        or not scalar(connection, "SELECT count(*) FROM (SELECT 1 FROM snapshot LIMIT 1)")
    ):
        return load_model(connection, sync, source), Stayed()
    narrowing = _Narrowing(connection, sync, source, folder / REST, removes=removes)
    problems = load_model(connection, sync, source, read=narrowing.compare)
    return problems, narrowing.follow()


class _Narrowing:
    def __init__(
        self, connection: duckdb.DuckDBPyConnection, sync: str, source: Source, rest: Path, *, removes: bool
    ) -> None:
        self._connection = connection
        self._sync = sync
        self._source = source
        self._path = rest
        self._rows_path = rest.with_name(ROWS)
        self._problems: frozenset[str] = frozenset()
        self._rest = f"read_parquet({literal(str(rest))})"
        self._removes = removes
        self._inside = f"partition IN ({', '.join(map(literal, source.files))})"
        # Where the match value is the key, it relates nothing more.
        is_key = source.match == source.primary_key and set(source.normalization) == {"exact"}
        self._by_match = bool(source.match) and not is_key

    def compare(self, connection: duckdb.DuckDBPyConnection, source: Source, problems: frozenset[str]) -> None:
        """The one pass over everything. Keys only: what does not fit into memory is written to disk and read again."""
        self._problems = problems
        # A partition is a text for each of all records; mostly it is enough to know whether it is the one compared.
        one = len(source.files) == 1
        where = f"{self._inside} AS inside" if one else "partition"
        inside = "s.inside" if one else f"s.{self._inside}"
        same = "s.inside" if one else "m.partition = s.partition"
        held = scalar(connection, "SELECT count(*) FROM held")
        join_held = "LEFT JOIN (SELECT DISTINCT key FROM held) h ON h.key = m.key" if held else ""
        digest = digest_text(source, source.columns, problems)
        connection.execute(
            f"""COPY (
            SELECT m.key, m.present IS NOT NULL AS present, s.key AS record
            FROM (
                SELECT {quote(KEY)} AS key, {quote(PARTITION)} AS partition, {digest} AS digest,
                    true AS present FROM files
            ) m FULL JOIN (SELECT key, source_digest, {where} FROM snapshot) s ON s.key = m.key {join_held}
            WHERE NOT coalesce(m.digest = s.source_digest AND {same}, false)
                AND (m.present IS NOT NULL OR {inside}) {"OR h.key IS NOT NULL" if held else ""}
            ) TO {literal(str(self._path))} (FORMAT parquet)"""
        )

    def follow(self) -> Stayed:
        """Make the tables of the rest, and of what has to do with it."""
        connection = self._connection
        total = scalar(connection, f"SELECT count(*) FROM ({files_sql(self._source)})")
        if scalar(connection, f"SELECT count(*) FROM {self._rest} WHERE present") * 2 > total:
            # Nothing is gained by leaving out the others.
            whole_model(connection, self._source, self._problems)
            return Stayed()
        connection.execute(
            f"""CREATE TEMP TABLE differing AS SELECT key FROM {self._rest} WHERE key IS NOT NULL
            UNION SELECT record FROM {self._rest} WHERE record IS NOT NULL"""
        )
        self._read_rows()
        connection.execute("ALTER VIEW snapshot RENAME TO records")
        self._take()
        # A row that is not in the rest is what its record says.
        connection.execute(
            f"""INSERT INTO model SELECT s.key, s.match, s.partition, s.source_digest
            FROM snapshot s ANTI JOIN differing d ON d.key = s.key WHERE s.{self._inside}"""
        )
        stayed = total - scalar(connection, "SELECT count(*) FROM model")
        counted = f"SELECT count(*) FROM {{}} WHERE {self._inside}"
        keys = scalar(connection, counted.format("records")) - scalar(connection, counted.format("snapshot"))
        if stayed != keys:
            # A key that stays out has one record, and so one row: another is a repeated key.
            rows = f"SELECT {text_of(self._source.primary_key)} AS key FROM ({files_sql(self._source)})"
            check_keys(connection, self._sync, self._source, f"({rows})")
        return Stayed(stayed, keys)

    def _read_rows(self) -> None:
        """View `files` and table `model`: the rows with the keys of the rest, and those without a key."""
        key, source = quote(KEY), self._source
        columns = dict.fromkeys([*source.primary_key, *source.columns, *map(problem_of, sorted(self._problems))])
        chosen = ", ".join(f"f.{quote(name)}" for name in [KEY, PARTITION, *columns])
        keyless = scalar(self._connection, f"SELECT count(*) FROM {self._rest} WHERE present AND key IS NULL")
        rows = f"SELECT {chosen} FROM files f SEMI JOIN differing d ON d.key = f.{key}"
        if keyless:
            rows += f" UNION ALL SELECT {chosen} FROM files f WHERE f.{key} IS NULL"
        self._connection.execute(
            f"""COPY (
            SELECT *, {match_text(source)} AS {quote(_MATCH)},
                {digest_text(source, source.columns, self._problems)} AS {quote(_DIGEST)} FROM ({rows})
            ) TO {literal(str(self._rows_path))} (FORMAT parquet);
            CREATE OR REPLACE TEMP VIEW files AS SELECT * FROM read_parquet({literal(str(self._rows_path))});
            CREATE TEMP TABLE model AS SELECT {key} AS key, {quote(_MATCH)} AS match,
                {quote(PARTITION)} AS partition, {quote(_DIGEST)} AS digest FROM files"""
        )

    def _take(self) -> None:
        """Table `snapshot`: the records that have to do with the rest."""
        self._connection.execute("CREATE TEMP TABLE snapshot AS SELECT * FROM records WHERE false")
        self._bring("key", "SELECT key FROM differing UNION SELECT key FROM held")
        if self._by_match:
            self._share()
            # A match value that is not shared has one record: if that is there already, nothing is missing.
            self._bring(
                "match",
                """SELECT match FROM model WHERE match IS NOT NULL AND match NOT IN (SELECT match FROM snapshot)
                UNION SELECT match FROM shared""",
            )
        if self._removes:
            # A record that may be removed, because no row has it: it may be one at the destination with another.
            self._bring(
                "destination_id",
                """SELECT s.destination_id FROM snapshot s SEMI JOIN differing d ON d.key = s.key
                ANTI JOIN model m ON m.key = s.key AND m.match = s.match WHERE s.destination_id IS NOT NULL""",
            )
        # Of whatever was found by match value or id, all that its key has.
        self._bring("key", "SELECT key FROM snapshot EXCEPT (SELECT key FROM differing UNION SELECT key FROM held)")

    def _share(self) -> None:
        """Table `shared`: match values that records of several keys have."""
        # Numbers first: they take less memory than texts, and mostly there are none.
        repeated = "SELECT hash(match) AS h FROM records GROUP BY h HAVING count(*) > 1"
        self._connection.execute(
            f"""CREATE TEMP TABLE repeated_hashes AS {repeated};
            CREATE TEMP TABLE shared (match VARCHAR)"""
        )
        if scalar(self._connection, "SELECT count(*) FROM repeated_hashes"):
            self._connection.execute(
                """INSERT INTO shared SELECT s.match FROM records s SEMI JOIN repeated_hashes r ON r.h = hash(s.match)
                GROUP BY s.match HAVING count(DISTINCT s.key) > 1"""
            )

    def _bring(self, name: str, wanted: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE wanted AS SELECT * FROM ({wanted}) w (value)")
        # A pass over the records only where there is something to look for.
        if scalar(self._connection, "SELECT count(*) FROM wanted"):
            there = scalar(self._connection, "SELECT count(*) FROM snapshot")
            new = "ANTI JOIN snapshot t ON t.key = s.key AND t.match = s.match" if there else ""
            self._connection.execute(
                f"INSERT INTO snapshot SELECT s.* FROM records s SEMI JOIN wanted w ON w.value = s.{name} {new}"
            )
