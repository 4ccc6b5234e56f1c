"""The diff inside the warehouse: which rows leave it.

A row stays in the warehouse if it is unchanged and nothing else has to do with it: its key and match value are one
record's of the snapshot, with its digest and partition; and no row that leaves shares its key, its match value or its
record's destination id. Rows are related by these three alone, so what leaves is judged as if all had been there, by
the same SQL in the local DuckDB as in the embedded home. What stays is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from integrations_dagster.planner.model import (
    LEFT_DIGEST,
    LEFT_KEY,
    LEFT_MATCH,
    Source,
    digest_text,
    match_text,
    text_of,
)
from integrations_dagster.planner.state import HELD_COLUMNS, SNAPSHOT_COLUMNS, literal, quote
from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.store import SCHEMA, Store

PARTITION = "__partition"


@dataclass(frozen=True, slots=True)
class State:
    """The relations of a sync's state in the warehouse, as SQL.

    Attributes:
        snapshot: Columns `SNAPSHOT_COLUMNS`.
        held: Columns `HELD_COLUMNS`.
        shared: Whether records of different keys may have one match value.
    """

    snapshot: str
    held: str
    shared: bool = False


def _no_rows(columns: Mapping[str, str]) -> str:
    return f"(SELECT {', '.join(f'CAST(NULL AS {kind}) AS {name}' for name, kind in columns.items())} WHERE false)"


NOTHING = State(_no_rows(SNAPSHOT_COLUMNS), _no_rows(HELD_COLUMNS))
"""Of a sync that has delivered nothing."""


@dataclass(frozen=True, slots=True)
class Left:
    """What has left the warehouse, as files, and the counts of what has not.

    Attributes:
        rows: Rows of the model: the source's columns, and `LEFT_KEY`, `LEFT_MATCH`, `LEFT_DIGEST`, `PARTITION`.
        snapshot: Records.
        held: All held rows.
        stayed: Rows of the model that stayed: unchanged.
        stayed_keys: Keys of the records in the partitions compared that stayed.
    """

    rows: Path
    snapshot: Path
    held: Path
    stayed: int
    stayed_keys: int


def table(name: str) -> str:
    """A table of the warehouse's schema, as SQL."""
    return f"{quote(SCHEMA)}.{quote(name)}"


def leave(store: Store, state: State, source: Source, sync: str, folder: Path, *, count_keys: bool) -> Left:
    """Bring what may differ out of the warehouse; the caller has begun a transaction.

    Args:
        source: With `tables` and `types`.
        sync: Name, for messages.
        folder: Where the files go.
        count_keys: Whether `stayed_keys` is wanted, which takes a while; else it is 0.

    Raises:
        Misconfigured: A column of the key or match value has a type whose text depends on who writes it.
    """
    _check_types(store, source, sync)
    return _Leaving(store, state, source).run(folder, count_keys=count_keys)


def _check_types(store: Store, source: Source, sync: str) -> None:
    for column in dict.fromkeys([*source.primary_key, *source.match]):
        kind = source.types.get(column, "")
        if not store.comparable(kind):
            raise Misconfigured(
                f"Sync {sync!r}: the column {column!r} is part of the key or match value and has the type {kind}, "
                "whose text is not the same everywhere.",
                f"Write CAST({column} AS text) AS {column} in the model's SQL, or `home: embedded`.",
            )


class _Leaving:
    def __init__(self, store: Store, state: State, source: Source) -> None:
        self._store = store
        self._state = state
        self._source = source
        # Without match columns the match value is the key, and relates nothing more.
        self._relating = ("key", "match", "destination_id") if source.match else ("key", "destination_id")
        self._inside = f"IN ({', '.join(map(literal, source.partitions))})"
        self._key = text_of(source.primary_key)
        self._total = sum(self._count(table(name)) for name in source.tables.values())

    def run(self, folder: Path, *, count_keys: bool) -> Left:
        whole = self._source.whole
        if not whole:
            self._compare()
            # Of a model that is queried in part every row leaves, and what has to do with it: there are few.
            whole = self._source.cursor is None and self._count("rest", "present IS NOT NULL") * 2 > self._total
        if not whole:
            self._follow()
        rows, snapshot, held = folder / "rows.parquet", folder / "snapshot.parquet", folder / "held.parquet"
        left = self._store.to_parquet(self._chosen(whole=whole), rows)
        stay = self._source.cursor is None and not whole
        if stay and self._total - left != self._records() - self._count("taken", f"partition {self._inside}"):
            # A key that stays has one record, and so one row: another is a repeated key, which the diff tells of.
            repeated = f"SELECT key FROM ({self._model(self._key + ' AS key')}) m GROUP BY key HAVING count(*) > 1"
            self._store.execute(f"INSERT INTO seen_key SELECT key FROM ({repeated}) r WHERE key IS NOT NULL")
            left = self._store.to_parquet(self._chosen(whole=False), rows)
        records = f"{self._state.snapshot} s" if whole else "taken"
        self._store.to_parquet(f"SELECT {', '.join(SNAPSHOT_COLUMNS)} FROM {records}", snapshot)
        self._store.to_parquet(f"SELECT {', '.join(HELD_COLUMNS)} FROM {self._state.held} h", held)
        stayed_keys = 0
        # Where no record is without its row nothing can be removed, and nobody asks.
        if count_keys and not whole and self._count("rest", "present IS NULL"):
            inside = f"partition {self._inside}"
            stayed_keys = self._keys(f"{self._state.snapshot} s", inside) - self._keys("taken", inside)
        return Left(rows, snapshot, held, self._total - left, stayed_keys)

    def _model(self, chosen: str) -> str:
        """SQL of expressions over all rows of the model, with their partition."""
        return " UNION ALL ".join(
            f"SELECT {chosen}, {literal(partition)} AS {quote(PARTITION)} FROM {table(name)}"
            for partition, name in self._source.tables.items()
        )

    def _compare(self) -> None:
        """Table `rest`: rows and records that are not plainly the same. The one pass over everything.

        The digest is over the match columns too, so that equal digests of one key mean equal match values.
        """
        model = self._model(f"{self._key} AS key, {digest_text(self._source, self._source.inputs)} AS digest")
        differing = f"""NOT coalesce(m.digest = s.source_digest AND m.{quote(PARTITION)} = s.partition, false)
            AND (m.present IS NOT NULL OR s.partition {self._inside})"""
        self._store.execute(
            f"""CREATE TEMP TABLE rest AS
            SELECT m.key, m.present, s.key AS record_key, s.match AS record_match,
                s.destination_id AS record_destination_id
            FROM (SELECT key, digest, {quote(PARTITION)}, true AS present FROM ({model}) i) m
            FULL JOIN {self._state.snapshot} s ON s.key = m.key
            WHERE {differing if self._source.cursor is None else "m.present IS NOT NULL"}"""
        )

    def _follow(self) -> None:
        """Tables `taken` (records that have to do with `rest`, however far away) and `seen_key` (their keys, and its).

        A row that is plainly the same has its record's key and match value, so that it is enough to follow records.
        """
        execute = self._store.execute
        begin = {name: [f"SELECT record_{name} FROM rest"] for name in self._relating}
        begin["key"] += ["SELECT key FROM rest", f"SELECT key FROM {self._state.held} h"]
        if self._source.match:
            model = self._model(f"{self._key} AS key, {match_text(self._source)} AS match")
            begin["match"].append(f"SELECT m.match FROM ({model}) m SEMI JOIN rest r ON r.key = m.key")
            if self._state.shared:
                begin["match"].append(f"SELECT match FROM {self._state.snapshot} s GROUP BY match HAVING count(*) > 1")
        execute(f"CREATE TEMP TABLE taken AS SELECT {', '.join(SNAPSHOT_COLUMNS)} FROM {NOTHING.snapshot} s")
        for name, parts in begin.items():
            found = " UNION ".join(parts)
            execute(f"CREATE TEMP TABLE next_{name} AS SELECT * FROM ({found}) n ({name}) WHERE {name} IS NOT NULL")
            execute(f"CREATE TEMP TABLE seen_{name} AS SELECT {name} FROM next_{name}")
            self._store.settled(f"next_{name}")
        while any(self._count(f"next_{name}") for name in self._relating):
            self._take_step()

    def _records(self) -> int:
        return self._count(f"{self._state.snapshot} s", f"partition {self._inside}")

    def _take_step(self) -> None:
        execute = self._store.execute
        columns = ", ".join(f"s.{name}" for name in SNAPSHOT_COLUMNS)
        # One pass over the records, whatever they are related by.
        joins = " ".join(f"LEFT JOIN next_{name} n_{name} ON n_{name}.{name} = s.{name}" for name in self._relating)
        related = " OR ".join(f"n_{name}.{name} IS NOT NULL" for name in self._relating)
        execute(
            f"""CREATE TEMP TABLE more AS SELECT {columns} FROM (
                SELECT {columns} FROM {self._state.snapshot} s {joins} WHERE {related}
            ) s ANTI JOIN taken t ON t.key = s.key AND t.match = s.match"""
        )
        execute("INSERT INTO taken SELECT * FROM more")
        for name in self._relating:
            execute(f"DROP TABLE next_{name}")
            execute(
                f"""CREATE TEMP TABLE next_{name} AS SELECT DISTINCT f.{name} FROM more f
                ANTI JOIN seen_{name} t ON t.{name} = f.{name} WHERE f.{name} IS NOT NULL"""
            )
            execute(f"INSERT INTO seen_{name} SELECT {name} FROM next_{name}")
        execute("DROP TABLE more")

    def _chosen(self, *, whole: bool) -> str:
        """SQL of the rows that leave, with the columns of the model that the sync uses."""
        source = self._source
        columns = dict.fromkeys([*source.primary_key, *source.inputs, *filter(None, [source.cursor])])
        chosen = f"{text_of(source.primary_key)} AS {quote(LEFT_KEY)}, {match_text(source)} AS {quote(LEFT_MATCH)}, "
        chosen += f"{digest_text(source, source.inputs)} AS {quote(LEFT_DIGEST)}, {', '.join(map(quote, columns))}"
        model = self._model(chosen)
        if whole:
            return model
        # Whatever leaves of a key leaves whole. Rows without a key are told of, and nothing else.
        key = f"m.{quote(LEFT_KEY)}"
        return f"""SELECT m.* FROM ({model}) m LEFT JOIN (SELECT DISTINCT key FROM seen_key) t ON t.key = {key}
            WHERE t.key IS NOT NULL OR {key} IS NULL"""

    def _count(self, source: str, where: str = "true") -> int:
        return int(self._store.rows(f"SELECT count(*) FROM {source} WHERE {where}")[0][0])

    def _keys(self, source: str, where: str) -> int:
        return int(self._store.rows(f"SELECT count(*) FROM (SELECT DISTINCT key FROM {source} WHERE {where}) k")[0][0])


def attach(connection: duckdb.DuckDBPyConnection, left: Left) -> None:
    """Make what has left the warehouse readable as the views `snapshot` and `held`."""
    for view, path in (("snapshot", left.snapshot), ("held", left.held)):
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * FROM read_parquet({literal(str(path))})")
