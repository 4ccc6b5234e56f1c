"""What a plan looks at: the rows that may differ, and whatever has to do with them; the others are only counted.

A row is *plainly the same* if its key has one record, with the row's digest and partition, and it is not held. The
digest is over the columns of key and match value, so that row and record have the same of both. Rows have to do with
each other by key, by match value, and by the destination id of a record that may be removed. A row stays out if it is
plainly the same and no other row or record has to do with it. What is left is judged as if all had been there: by one
pass over the model's files and the snapshot, instead of one for each question.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from integrations_dagster.planner.computed import problem_of
from integrations_dagster.planner.model import (
    KEY,
    PARTITION,
    PLACE,
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

CARRIED = 12_000_000
"""Records up to which their digests fit into the memory of a join. Where they do not, part of the model's rows goes
through the disk as well: only keys and digests then, and the columns are read in a second pass."""
_DIGEST, _MATCH, _PRESENT = "__digest", "__match", "__present"
_HALVES = ("__first", "__second")


def _halves(digest: str) -> str:
    """SQL of a digest as two numbers: as good as its 128 bits, and joined with half the memory of its text."""
    whole, half = _HALVES
    return f"hash({digest}) AS {whole}, hash(right({digest}, 16)) AS {half}"


@dataclass(frozen=True, slots=True)
class Stayed:
    """What the tables of a plan leave out: rows of the model that are unchanged, and keys of their records."""

    rows: int = 0
    keys: int = 0


def load_rest(
    connection: duckdb.DuckDBPyConnection, sync: str, source: Source, *, removes: bool
) -> tuple[frozenset[str], Stayed]:
    """`load_model`, but `model`, `snapshot` and `files` hold only what may differ and what has to do with it.

    Args:
        connection: Has the views `snapshot` and `held`.
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
    narrowing = _Narrowing(connection, sync, source, removes=removes)
    problems = load_model(connection, sync, source, read=narrowing.compare)
    return problems, narrowing.follow()


class _Narrowing:
    def __init__(self, connection: duckdb.DuckDBPyConnection, sync: str, source: Source, *, removes: bool) -> None:
        self._connection = connection
        self._sync = sync
        self._source = source
        self._problems: frozenset[str] = frozenset()
        self._removes = removes
        self._inside = f"partition IN ({', '.join(map(literal, source.files))})"
        self._carries = scalar(connection, "SELECT count(*) FROM snapshot") <= CARRIED
        # Where the match value is the key, it relates nothing more.
        is_key = source.match == source.primary_key and set(source.normalization) == {"exact"}
        self._by_match = bool(source.match) and not is_key

    def compare(self, connection: duckdb.DuckDBPyConnection, source: Source, problems: frozenset[str]) -> None:
        """The one pass over everything: rows and records without a counterpart of the same digest.

        The records' side is kept in memory, and is nothing but digests for that reason; rows only pass by.
        """
        self._problems = problems
        whole, half = _HALVES
        # A row that moved from one of the partitions compared to another differs.
        several = len(source.files) > 1
        chosen = ", ".join(f"m.{quote(name)}" for name in [KEY, PARTITION, *(self._columns() if self._carries else ())])
        match = f"{match_text(source)} AS {quote(_MATCH)}," if self._carries else ""
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE rest AS
            SELECT {chosen}, {match} m.{_DIGEST}, m.{_PRESENT} IS NOT NULL AS {_PRESENT}, s.{whole}, s.{half}
            FROM (
                SELECT *, {_halves(_DIGEST)}, true AS {_PRESENT}
                FROM (SELECT *, {digest_text(source, source.columns, problems)} AS {_DIGEST} FROM files)
            ) m FULL JOIN (
                SELECT {_halves("source_digest")} {", partition AS __in" if several else ""} FROM snapshot
                WHERE source_digest IS NOT NULL AND {self._inside}
            ) s ON s.{whole} = m.{whole} AND s.{half} = m.{half} {f"AND s.__in = m.{PARTITION}" if several else ""}
            WHERE m.{_PRESENT} IS NULL OR s.{whole} IS NULL"""
        )

    def follow(self) -> Stayed:
        """Make the tables of the rest, and of what has to do with it."""
        connection = self._connection
        total = scalar(connection, f"SELECT count(*) FROM ({files_sql(self._source)})")
        rest = scalar(connection, f"SELECT count(*) FROM rest WHERE {_PRESENT}")
        if rest == total and self._carries:
            # Nothing is left out, and everything has been read.
            self._tell_rows()
            return Stayed()
        if rest * 2 > total:
            # Nothing is gained by leaving out the others.
            connection.execute("DROP TABLE rest")
            whole_model(connection, self._source, self._problems)
            return Stayed()
        connection.execute("ALTER VIEW snapshot RENAME TO records")
        self._take()
        self._read_rows()
        self._relate()
        # A row that is not in the rest is what its record says.
        connection.execute(
            f"""INSERT INTO model SELECT s.key, s.match, s.partition, s.source_digest, NULL
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

    def _columns(self) -> list[str]:
        source = self._source
        return list(dict.fromkeys([*source.primary_key, *source.columns, *map(problem_of, sorted(self._problems))]))

    def _take(self) -> None:
        """Tables `differing`: keys of what is not plainly the same; `snapshot`: the records that they have."""
        connection, inside = self._connection, self._inside
        whole, half = _HALVES
        key = quote(KEY)
        connection.execute(
            f"""CREATE TEMP TABLE lost AS SELECT {whole}, {half} FROM rest WHERE NOT {_PRESENT};
            CREATE TEMP TABLE differing AS
            SELECT {key} AS key FROM rest WHERE {_PRESENT} AND {key} IS NOT NULL UNION SELECT key FROM held;
            CREATE TEMP TABLE snapshot AS SELECT * FROM records WHERE false"""
        )
        self._bring("key", "SELECT key FROM differing")
        digests = f"(SELECT key, source_digest, {_halves('source_digest')} FROM {{}} WHERE {inside})"
        same = f"l.{whole} = s.{whole} AND l.{half} = s.{half}"
        unknown = f"source_digest IS NULL AND {inside}"
        found = scalar(connection, f"SELECT count(*) FROM {digests.format('snapshot')} s SEMI JOIN lost l ON {same}")
        without = scalar(connection, f"SELECT count(*) FROM snapshot WHERE {unknown}")
        if found < scalar(connection, "SELECT count(*) FROM lost") or without < scalar(
            connection, f"SELECT count(*) FROM records WHERE {unknown}"
        ):
            # Records without a row, or of a row that is the same as another record of its key.
            self._differ(
                f"""SELECT s.key FROM {digests.format("records")} s SEMI JOIN lost l ON {same}
                UNION ALL SELECT key FROM records WHERE {unknown}"""
            )
        if scalar(connection, f"SELECT count(*) FROM records WHERE ({inside}) IS NOT TRUE"):
            # Keys with a record elsewhere too.
            self._differ(
                f"""SELECT o.key FROM (SELECT key FROM records WHERE ({inside}) IS NOT TRUE) o
                SEMI JOIN (SELECT key FROM records WHERE {inside}) i ON i.key = o.key"""
            )
        if self._removes:
            # Left by another mode, when their rows left the model.
            self._differ("SELECT key FROM records WHERE partition IS NULL")
        connection.execute(
            f"""CREATE TEMP TABLE unread AS SELECT DISTINCT s.key FROM {digests.format("snapshot")} s
            ANTI JOIN lost l ON {same} WHERE s.source_digest IS NOT NULL"""
        )

    def _differ(self, keys: str) -> None:
        self._connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE further AS SELECT DISTINCT key FROM ({keys})
            EXCEPT SELECT key FROM differing;
            INSERT INTO differing SELECT key FROM further"""
        )
        self._bring("key", "SELECT key FROM further")

    def _read_rows(self) -> None:
        """View `files` and table `model`: the rows with the keys of the rest, and those without a key."""
        connection, key = self._connection, quote(KEY)
        if self._carries and not scalar(connection, "SELECT count(*) FROM unread"):
            self._tell_rows()
            return
        # `unread`: keys of the rest with a row that is the same as one of their records.
        chosen = ", ".join(f"f.{quote(name)}" for name in [KEY, PARTITION, *self._columns()])
        keys = "unread" if self._carries else "differing"
        rows = f"SELECT {chosen} FROM files f SEMI JOIN {keys} d ON d.key = f.{key}"
        if not self._carries and scalar(connection, f"SELECT count(*) FROM rest WHERE {_PRESENT} AND {key} IS NULL"):
            rows += f" UNION ALL SELECT {chosen} FROM files f WHERE f.{key} IS NULL"
        connection.execute(
            f"""CREATE TEMP TABLE rows_since AS
            SELECT *, {match_text(self._source)} AS {_MATCH},
                {digest_text(self._source, self._source.columns, self._problems)} AS {_DIGEST} FROM ({rows})"""
        )
        self._tell_rows(further=True)

    def _tell_rows(self, *, further: bool = False) -> None:
        """View `files` and table `model`: the rows that the pass has carried, and those that were read since."""
        chosen = ", ".join(map(quote, [KEY, PARTITION, *self._columns(), _MATCH, _DIGEST]))
        # A column of the model with the name of DuckDB's own hides it: then rows are found by their key.
        hidden = "rowid" in map(str.lower, self._columns())
        read, since = ("CAST(NULL AS BIGINT)",) * 2 if hidden else ("r.rowid", "-1 - rowid")
        parts = []
        if self._carries:
            # Of a key that was read since all rows were.
            but = f"ANTI JOIN unread u ON u.key = r.{quote(KEY)}" if further else ""
            parts.append(f"SELECT {chosen}, {read} AS {PLACE} FROM rest r {but} WHERE {_PRESENT}")
        if further:
            # Apart from the others.
            parts.append(f"SELECT {chosen}, {since} AS {PLACE} FROM rows_since")
        self._connection.execute(
            f"""CREATE OR REPLACE TEMP VIEW files AS {" UNION ALL ".join(parts)};
            CREATE TEMP TABLE model AS SELECT {quote(KEY)} AS key, {_MATCH} AS match,
                {quote(PARTITION)} AS partition, {_DIGEST} AS digest, {PLACE} AS place FROM files"""
        )

    def _relate(self) -> None:
        """Further records of `snapshot`: those that have to do with the rest."""
        if self._by_match:
            self._share()
            # A match value that is not shared has one record: if that is there already, nothing is missing.
            self._bring(
                "match",
                """SELECT match FROM model WHERE match IS NOT NULL AND match NOT IN (SELECT match FROM snapshot)
                UNION SELECT match FROM shared""",
            )
        # A record that no row has may be removed, or renamed: it may be one at the destination with another.
        stays = "" if self._removes else "SEMI JOIN model r ON r.key = s.key"
        self._bring(
            "destination_id",
            f"""SELECT s.destination_id FROM snapshot s SEMI JOIN differing d ON d.key = s.key {stays}
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
