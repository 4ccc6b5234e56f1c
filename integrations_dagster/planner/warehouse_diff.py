"""The diff inside the warehouse: which rows leave it.

A row stays in the warehouse if it is unchanged and nothing else has to do with it: its key and match value are one
record's of the snapshot, with its digest and partition; and no row that leaves shares its key, its match value or its
record's destination id. Rows are related by these three alone, so what leaves is judged as if all had been there, by
the same SQL in the local DuckDB as in the embedded home. What stays is counted.
"""

from __future__ import annotations

import secrets
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
        several: Whether a key may have more than one record.
    """

    snapshot: str
    held: str
    shared: bool = False
    several: bool = False


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
        count_keys: Of modes that remove: whether `stayed_keys` is wanted, which takes a while; else it is 0.

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


@dataclass(frozen=True, slots=True)
class Tally:
    """How many keys there are, and the sum of their hashes."""

    count: int
    hashes: int

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.count - other.count, self.hashes - other.hashes)


class _Leaving:
    def __init__(self, store: Store, state: State, source: Source) -> None:
        self._store = store
        self._state = state
        self._source = source
        # Without match columns the match value is the key, and relates nothing more.
        self._relating = ("key", "match", "destination_id") if source.match else ("key", "destination_id")
        self._inside = f"partition IN ({', '.join(map(literal, source.partitions))})"
        self._key = text_of(source.primary_key)
        self._used = dict.fromkeys([*source.primary_key, *source.inputs, *filter(None, [source.cursor])])
        self._columns = ", ".join(map(quote, (LEFT_KEY, LEFT_MATCH, LEFT_DIGEST, *self._used, PARTITION)))
        self._seed = secrets.randbits(62)
        self._keys_of_all = f"({self._model(f'{self._key} AS key')}) m"
        # The sum of hashes is of use only where rows stay.
        sums = source.cursor is None and not source.whole
        self._all = self._tally(self._keys_of_all) if sums else Tally(self._count(self._keys_of_all), 0)

    def run(self, folder: Path, *, count_keys: bool) -> Left:
        whole = self._source.whole
        if not whole:
            self._compare()
            # Of a model that is queried in part every row leaves, and what has to do with it: there are few.
            whole = self._source.cursor is None and self._count("rest") * 2 > self._all.count
        lost = False
        if not whole:
            self._follow(departed=count_keys)
            self._choose()
            lost = self._source.cursor is None and self._complete()
        rows, snapshot, held = folder / "rows.parquet", folder / "snapshot.parquet", folder / "held.parquet"
        left = self._store.to_parquet(self._rows() if whole else "SELECT * FROM leaving", rows)
        records = f"{self._state.snapshot} s" if whole else "taken"
        self._store.to_parquet(f"SELECT {', '.join(SNAPSHOT_COLUMNS)} FROM {records}", snapshot)
        self._store.to_parquet(f"SELECT {', '.join(HELD_COLUMNS)} FROM {self._state.held} h", held)
        stayed_keys = 0
        # Where no record is without its row nothing can be removed, and nobody asks.
        if count_keys and lost:
            stayed_keys = self._keys(f"{self._state.snapshot} s") - self._keys("taken")
        return Left(rows, snapshot, held, self._all.count - left, stayed_keys)

    def _model(self, chosen: str) -> str:
        """SQL of expressions over all rows of the model, with their partition."""
        return " UNION ALL ".join(
            f"SELECT {chosen}, {literal(partition)} AS {quote(PARTITION)} FROM {table(name)}"
            for partition, name in self._source.tables.items()
        )

    def _compare(self) -> None:
        """Table `rest`: rows that are not plainly the same.

        The one pass over everything, with all columns, so that what differs need not be read again. Rows and records
        meet by digest alone, which is over the key and the match columns too: the texts of these are made for the rest
        only. Records without a row are not looked for here: PostgreSQL computes a left join by several processes,
        digests included, and a full join by one (before version 16).
        """
        if self._source.cursor is not None:
            self._store.execute(f"CREATE TEMP TABLE rest AS {self._rows()}")
            return
        columns = ", ".join(map(quote, self._used))
        digest = f"{digest_text(self._source, self._source.inputs)} AS {quote(LEFT_DIGEST)}"
        # Under names that no column of a model has, which are not qualified here.
        known = f'SELECT source_digest AS "__of_record", partition AS "__record_in" FROM {self._state.snapshot} s'
        # Said of the partition, beside the join: as a join without a counterpart it would be an anti join, whose size
        # PostgreSQL guesses so wrongly that it sorts both sides.
        self._store.execute(
            f"""CREATE TEMP TABLE rest AS
            SELECT {self._key} AS {quote(LEFT_KEY)}, {match_text(self._source)} AS {quote(LEFT_MATCH)}, m.*
            FROM ({self._store.computed_once(self._model(f"{columns}, {digest}"))}) m
            LEFT JOIN ({known}) s ON s."__of_record" = m.{quote(LEFT_DIGEST)}
            WHERE NOT coalesce(s."__record_in" = m.{quote(PARTITION)}, false)"""
        )

    def _follow(self, *, departed: bool) -> None:
        """Tables `taken` (records that have to do with `rest`, however far away) and `seen_key` (their keys, and its).

        A row that is plainly the same has its record's key and match value, so that it is enough to follow records.

        Args:
            departed: Whether records of no partition leave too.
        """
        begin: dict[str, list[str]] = {name: [] for name in self._relating}
        begin["key"] += [f"SELECT {quote(LEFT_KEY)} FROM rest", f"SELECT key FROM {self._state.held} h"]
        repeated = f"SELECT {{0}} FROM {self._state.snapshot} s GROUP BY {{0}} HAVING count(*) > 1"
        if self._state.several:
            # A row is plainly the same as one of them.
            begin["key"].append(repeated.format("key"))
        if departed:
            begin["key"].append(f"SELECT key FROM {self._state.snapshot} s WHERE partition IS NULL")
        if self._source.match:
            begin["match"].append(f"SELECT {quote(LEFT_MATCH)} FROM rest WHERE {quote(LEFT_KEY)} IS NOT NULL")
            if self._state.shared:
                begin["match"].append(repeated.format("match"))
        execute = self._store.execute
        execute(f"CREATE TEMP TABLE taken AS SELECT {', '.join(SNAPSHOT_COLUMNS)} FROM {NOTHING.snapshot} s")
        for name, parts in begin.items():
            found = " UNION ALL ".join(parts) or f"SELECT {name} FROM taken"
            # Each once, or a record that is related to it would be taken more than once.
            query = f"SELECT DISTINCT {name} FROM ({found}) n ({name}) WHERE {name} IS NOT NULL"
            execute(f"CREATE TEMP TABLE next_{name} AS {query}")
            execute(f"CREATE TEMP TABLE seen_{name} AS SELECT {name} FROM next_{name}")
            self._store.settled(f"next_{name}")
        self._go_on()

    def _go_on(self) -> None:
        while any(self._count(f"next_{name}") for name in self._relating):
            self._take_step()

    def _choose(self) -> None:
        """Table `leaving`: the rows that leave. Whatever leaves of a key leaves whole; rows without a key are told of,
        and nothing else."""
        key = quote(LEFT_KEY)
        keys = f"SELECT {key} FROM rest WHERE {key} IS NOT NULL"
        rows, different = self._count(f"({keys}) r"), self._count(f"(SELECT DISTINCT * FROM ({keys}) r) k")
        if not rows == different == self._count("seen_key"):
            self._read_leaving()
            return
        # They are in `rest`, unless a key is repeated and one of its rows is as its record, which is seen later.
        self._store.execute(f"CREATE TEMP TABLE leaving AS SELECT {self._columns} FROM rest")

    def _read_leaving(self) -> None:
        # Asked of the columns: the key's text would be made once more for each row.
        no_key = " OR ".join(f"m.{quote(column)} IS NULL" for column in self._source.primary_key)
        self._store.execute(
            f"""CREATE TEMP TABLE leaving AS
            SELECT m.* FROM ({self._rows()}) m
            LEFT JOIN (SELECT DISTINCT key FROM seen_key) t ON t.key = m.{quote(LEFT_KEY)}
            WHERE t.key IS NOT NULL OR {no_key}"""
        )

    def _complete(self) -> bool:
        """Let records leave that have no row, and rows of a repeated key, of which the diff tells.

        A key that stays should have one row and one record, so that the rows that stay are as many as the records, and
        hashes of their keys have the same sum. Only where they do not, what is amiss is looked for.

        Returns:
            Whether any record of the partitions compared has no row.
        """
        # A key that stays has no two records where it has a row: one of them would not be the same.
        records = f"{self._state.snapshot} s"
        left, taken = f"(SELECT {quote(LEFT_KEY)} AS key FROM leaving) l", f"taken t WHERE {self._inside}"
        rows_stay = self._all - self._tally(left)
        if rows_stay != self._tally(f"{records} WHERE {self._inside}") - self._tally(taken):
            # Said as an outer join: PostgreSQL would sort both sides for an anti join, which takes longer.
            self._take(
                f"""SELECT s.* FROM {records} LEFT JOIN (SELECT key, true AS present FROM {self._keys_of_all}) m
                ON m.key = s.key WHERE s.{self._inside} AND NOT coalesce(m.present, false)"""
            )
            self._go_on()
            repeated = f"SELECT key FROM {self._keys_of_all} WHERE key IS NOT NULL GROUP BY key HAVING count(*) > 1"
            self._store.execute(f"INSERT INTO seen_key {repeated}")
            self._store.execute("DROP TABLE leaving")
            self._read_leaving()
        rowless = f"taken t ANTI JOIN leaving l ON l.{quote(LEFT_KEY)} = t.key WHERE t.{self._inside}"
        return self._count(f"(SELECT t.key FROM {rowless}) t") > 0

    def _take_step(self) -> None:
        """Take records that are related to the last ones, one step away."""
        columns = ", ".join(f"s.{name}" for name in SNAPSHOT_COLUMNS)
        # One pass over the records, whatever they are related by.
        joins = " ".join(f"LEFT JOIN next_{name} n_{name} ON n_{name}.{name} = s.{name}" for name in self._relating)
        related = " OR ".join(f"n_{name}.{name} IS NOT NULL" for name in self._relating)
        self._take(f"SELECT {columns} FROM {self._state.snapshot} s {joins} WHERE {related}")

    def _take(self, records: str) -> None:
        """Take records that are not taken yet, given as SQL; what they relate to comes next."""
        execute = self._store.execute
        columns = ", ".join(f"s.{name}" for name in SNAPSHOT_COLUMNS)
        execute(
            f"""CREATE TEMP TABLE more AS SELECT {columns} FROM ({records}) s
            ANTI JOIN taken t ON t.key = s.key AND t.match = s.match"""
        )
        execute("INSERT INTO taken SELECT * FROM more")
        for name in self._relating:
            # Who else has the id is asked of records that may be removed: those that are not their row's any more.
            its_row = f"r.{quote(LEFT_KEY)} = f.key AND r.{quote(LEFT_MATCH)} = f.match"
            but = f"ANTI JOIN rest r ON {its_row}" if name == "destination_id" else ""
            execute(f"DROP TABLE next_{name}")
            execute(
                f"""CREATE TEMP TABLE next_{name} AS SELECT DISTINCT f.{name} FROM more f {but}
                ANTI JOIN seen_{name} t ON t.{name} = f.{name} WHERE f.{name} IS NOT NULL"""
            )
            execute(f"INSERT INTO seen_{name} SELECT {name} FROM next_{name}")
        execute("DROP TABLE more")

    def _rows(self) -> str:
        """SQL of all rows, with the columns of the model that the sync uses."""
        source = self._source
        chosen = f"{self._key} AS {quote(LEFT_KEY)}, {match_text(source)} AS {quote(LEFT_MATCH)}, "
        chosen += f"{digest_text(source, source.inputs)} AS {quote(LEFT_DIGEST)}, {', '.join(map(quote, self._used))}"
        return self._model(chosen)

    def _count(self, source: str) -> int:
        return int(self._store.rows(f"SELECT count(*) FROM {source}")[0][0])

    def _tally(self, keys: str) -> Tally:
        """Of a relation with the column `key`, as SQL."""
        query = f"SELECT count(*), CAST(coalesce(sum(hash(key, $1)), 0) AS VARCHAR) FROM {keys}"
        ((count, hashes),) = self._store.rows(query, (self._seed,))
        return Tally(int(count), int(hashes))

    def _keys(self, records: str) -> int:
        return self._count(f"(SELECT DISTINCT key FROM {records} WHERE {self._inside}) k")


def attach(connection: duckdb.DuckDBPyConnection, left: Left) -> None:
    """Make what has left the warehouse readable as the views `snapshot` and `held`."""
    for view, path in (("snapshot", left.snapshot), ("held", left.held)):
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * FROM read_parquet({literal(str(path))})")
