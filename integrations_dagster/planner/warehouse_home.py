"""The home inside the warehouse: a sync's snapshot, held rows and state row as tables of the schema `integrations`.

    integrations.states             one row a sync and account: generation, and the manifest as JSON
    integrations.snapshot_<state>   records
    integrations.held_<state>       held rows

Beside them are the tables of the sync log (`warehouse_log.py`).

The manifest in the storage folder names the state row, and so says that this home is in force; without it the tables
do not exist for anybody. A fold computes in the local DuckDB what changes, over the records that its events may touch,
and one transaction of the warehouse replaces them together with the state row, if that still has the generation that
the fold began with.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb

from integrations_dagster.planner.model import Source
from integrations_dagster.planner.state import (
    HELD_COLUMNS,
    MANIFEST,
    SNAPSHOT_COLUMNS,
    Home,
    Manifest,
    literal,
    quote,
    to_disk,
)
from integrations_dagster.planner.warehouse_diff import NOTHING, Left, State, leave, table
from integrations_dagster.planner.warehouse_log import copy_runs, hide, show
from integrations_dagster.vocabulary import IntegrationsError, Misconfigured
from integrations_dagster.warehouses.lasting import Lasting
from integrations_dagster.warehouses.store import SCHEMA, Store, WarehouseFailed

T = TypeVar("T")

PENDING = "pending-state.json"
"""Names tables that were made, or are to be dropped, while they are not in force."""
STATES = table("states")
WHOLE = 3
"""A fold that touches more than one in so many records reads them all."""
ATTEMPTS = 5
"""Tries of what syncs may do at the same moment with the tables that they share."""


class StateMoved(IntegrationsError):
    """The state changed while a fold was computed."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a fold changes, as files below `folder`; none of them exists without a change."""

    folder: Path

    def file(self, kind: str, what: str) -> Path:
        """The rows of "snapshot" or "held" that are "gone" or "fresh"."""
        return self.folder / f"{kind}-{what}.parquet"


@dataclass(frozen=True, slots=True)
class WarehouseHome(Home):
    """The state of one sync and account in its warehouse; plans and logs are files, as everywhere.

    Attributes:
        sync: Name, for messages and the state row.
        account: The account's id, likewise.
        warehouse: Name of the warehouse in YAML.
        open: Opens it.
        drafts: Where changes are that are computed and not in force; None: in `folder`.
        kind: The warehouse's kind, kept in the manifest for those who read the sync log without YAML.
        url: Likewise the environment variable that has its URL.
    """

    sync: str
    account: str
    warehouse: str
    open: Callable[[], AbstractContextManager[Store]]
    drafts: Path | None = None
    kind: str = ""
    url: str = ""

    # The manifest

    @classmethod
    def found(
        cls, folder: Path, open_named: Callable[[str, str, str], AbstractContextManager[Store]]
    ) -> WarehouseHome | None:
        """The home that a manifest in the storage folder names; None: the state is not in a warehouse.

        Args:
            open_named: Opens a warehouse by its name, its kind, and the environment variable that has its URL.
        """
        data = _read(folder / MANIFEST)
        if data is None or "state" not in data:
            return None
        told = {name: str(data.get(name, "")) for name in ("sync", "account", "warehouse", "kind", "url")}
        opens = partial(open_named, told["warehouse"], told["kind"], told["url"])
        return cls(
            folder,
            told["sync"] or folder.parent.name,
            told["account"] or folder.name,
            told["warehouse"],
            opens,
            kind=told["kind"],
            url=told["url"],
        )

    def state(self) -> str | None:
        """The id of the state, or None before there is one."""
        data = _read(self.folder / MANIFEST)
        return str(data["state"]) if data and "state" in data else None

    def manifest(self) -> Manifest:
        """The state now; an empty one before the first fold.

        Raises:
            Misconfigured: The state is not in this warehouse.
        """
        state = self.state()
        if state is None:
            return Manifest()
        with self.open() as store, store.transaction():
            return self._manifest(store, state)

    def _manifest(self, store: Store, state: str) -> Manifest:
        found = []
        if store.tables("states"):
            found = store.rows(f"SELECT manifest FROM {STATES} WHERE id = $1", (state,))
        if not found:
            data = _read(self.folder / MANIFEST) or {}
            raise Misconfigured(
                f"The state of the sync {self.sync!r} (account {self.account}) was kept in the warehouse "
                f"{data.get('warehouse')!r}, as {SCHEMA}.snapshot_{state}; it is not in the warehouse "
                f"{self.warehouse!r}.",
                "Restore the schema, or name the warehouse that has it. To move the state, run `integrations home "
                f"{self.sync} embedded` while the model still uses the old warehouse.",
            )
        return Manifest(**json.loads(found[0][0]))

    def swap(self, manifest: Manifest) -> None:
        raise NotImplementedError("the state in a warehouse changes by `prepared`")

    def clean(self) -> None:
        """Delete changes that are in force or were never to be, and files of a home that is no longer in force."""
        for path in self.folder.glob("fold-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in [*self.folder.glob("snapshot-*.parquet"), *self.folder.glob("held-*.parquet")]:
            path.unlink(missing_ok=True)

    def drafting(self, folder: Path) -> WarehouseHome:
        """See `Home.drafting`."""
        return replace(self, drafts=folder)

    @contextmanager
    def lasting(self) -> Iterator[WarehouseHome]:
        """See `Home.lasting`: with one connection."""
        with closing(Lasting(self.open)) as opens:
            yield replace(self, open=opens)

    # Reading

    def attach(self, connection: duckdb.DuckDBPyConnection, manifest: Manifest, key: str | None = None) -> None:  # noqa: ARG002
        """See `Home.attach`; without a key only the held rows are brought, and the snapshot is empty."""
        state, where = self.state(), "true" if key is None else f"key = {literal(key)}"
        found = _tables(state) if state else NOTHING
        with self.open() as store, store.transaction():
            snapshot = where if key is not None else "false"
            self._bring(connection, store, "snapshot", f"SELECT * FROM {found.snapshot} s WHERE {snapshot}")
            self._bring(connection, store, "held", f"SELECT * FROM {found.held} h WHERE {where}")

    def _bring(self, connection: duckdb.DuckDBPyConnection, store: Store, view: str, query: str) -> None:
        columns = SNAPSHOT_COLUMNS if view == "snapshot" else HELD_COLUMNS
        names = ", ".join(map(quote, columns))
        path = self._scratch / f"{view}-{uuid.uuid4().hex}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            store.to_parquet(f"SELECT {names} FROM ({query}) q", path)
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {view} AS SELECT * FROM read_parquet({literal(str(path))})"
            )
        finally:
            path.unlink(missing_ok=True)

    @property
    def _scratch(self) -> Path:
        return self.folder / ".from-warehouse"

    def records(self, path: Path) -> Path | None:
        """See `Home.records`: they are brought."""
        state = self.state()
        if state is None:
            return None
        columns = ", ".join(map(quote, SNAPSHOT_COLUMNS))
        with self.open() as store, store.transaction():
            store.to_parquet(f"SELECT {columns} FROM {_tables(state).snapshot} t", path)
        return path

    # The sync log

    def publish(self) -> int:
        """Bring the sync log's tables in the warehouse up to date. The caller holds the lease.

        Returns:
            Runs whose rows were replaced or deleted.
        """
        state = self.state()
        if state is None:
            return 0

        def up_to_date() -> int:
            with self.open() as store:
                with store.transaction():
                    stored = self._manifest(store, state)
                # A kill between the warehouse's commit and ours has left an earlier number; earlier versions less.
                if _read(self.folder / MANIFEST) != self._naming(state, stored.last_number):
                    _write(self.folder / MANIFEST, self._naming(state, stored.last_number))
                show(store, state)
                return copy_runs(store, state, self)

        return _tried(up_to_date)

    # The diff

    def leave(self, manifest: Manifest, source: Source, sync: str, folder: Path, *, count_keys: bool) -> Left:
        """See `warehouse_diff.leave`: against the state that a manifest describes, which need not be in force."""
        state = self.state()
        with self.open() as store, store.transaction():
            now = self._manifest(store, state) if state else Manifest()
            relations = _tables(state) if state else NOTHING
            if manifest.snapshot:
                relations = self._overlaid(store, relations, Changes(self._drafts / manifest.snapshot))
            elif now.generation != manifest.generation:
                raise StateMoved(
                    f"A run of the sync {self.sync!r} has changed its state meanwhile.",
                    "Look again when it has finished.",
                )
            return leave(
                store,
                replace(relations, shared=manifest.shared, several=manifest.several),
                source,
                sync,
                folder,
                count_keys=count_keys,
            )

    def _overlaid(self, store: Store, state: State, changes: Changes) -> State:
        """The state with changes that are not in force."""
        overlaid: list[str] = []
        for kind, relation, names in (
            ("snapshot", state.snapshot, SNAPSHOT_COLUMNS),
            ("held", state.held, HELD_COLUMNS),
        ):
            for what in ("gone", "fresh"):
                store.ingest(changes.file(kind, what), f"{kind}_{what}")
            columns = ", ".join(names)
            gone = "t.key = g.key AND t.match = g.match" if kind == "snapshot" else "t.key = g.key"
            store.execute(
                f"""CREATE TEMP TABLE {kind}_now AS
                SELECT {columns} FROM {relation} t ANTI JOIN {kind}_gone g ON {gone}
                UNION ALL SELECT {columns} FROM {kind}_fresh"""
            )
            overlaid.append(f"{kind}_now")
        return State(overlaid[0], overlaid[1])

    @property
    def _drafts(self) -> Path:
        return self.drafts or self.folder

    # The fold

    def touched(self, connection: duckdb.DuckDBPyConnection, manifest: Manifest, *, whole: bool = False) -> None:
        """Bring what a fold may touch, as the tables `snapshot` and `held`.

        Args:
            connection: Has `touching` (kind, value): keys, match values ("match") and destination ids ("id").
            whole: Bring everything.
        """
        state = self.state()
        if state is None:
            self._bring_nothing(connection)
            return
        found = _tables(state)
        counted = connection.execute("SELECT count(*) FROM touching").fetchall()[0][0]
        path = self._scratch / f"touching-{uuid.uuid4().hex}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.open() as store, store.transaction():
            snapshot, held = f"SELECT * FROM {found.snapshot} s", f"SELECT * FROM {found.held} h"
            if not whole and counted * WHOLE < manifest.rows:
                connection.execute(f"COPY touching TO {literal(str(path))} (FORMAT parquet)")
                try:
                    store.ingest(path, "touching")
                finally:
                    path.unlink(missing_ok=True)
                columns = ", ".join(f"s.{name}" for name in SNAPSHOT_COLUMNS)
                snapshot = " UNION ".join(
                    f"SELECT {columns} FROM {found.snapshot} s "
                    f"JOIN touching t ON t.value = s.{name} AND t.kind = '{name}'"
                    for name in ("key", "match", "destination_id")
                )
                wanted = "(SELECT value FROM touching WHERE kind = 'key')"
                held = f"SELECT h.* FROM {found.held} h SEMI JOIN {wanted} t ON t.value = h.key"
            self._bring(connection, store, "snapshot", snapshot)
            self._bring(connection, store, "held", held)

    def _bring_nothing(self, connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW snapshot AS SELECT * FROM {NOTHING.snapshot}")
        connection.execute(f"CREATE OR REPLACE TEMP VIEW held AS SELECT * FROM {NOTHING.held}")

    @contextmanager
    def prepared(self, manifest: Manifest) -> Iterator[Callable[[], None]]:
        """See `Home.prepared`: all but the commit is done when the block begins.

        Raises:
            StateMoved: Another fold was faster.
        """
        state = self.state()
        if state is None:
            with self._created(manifest) as commit:
                yield commit
            return
        stored = _stored(manifest)
        with self.open() as store, store.transaction():
            # First: whoever comes second waits here, and then finds another generation.
            token = uuid.uuid4().hex
            store.execute(
                f"UPDATE {STATES} SET generation = $1, manifest = $2, changed_by = $3 "
                "WHERE id = $4 AND generation = $5",
                # Files of changes raise the generation by one.
                (stored.generation, _text(stored), token, state, stored.generation - bool(manifest.snapshot)),
            )
            if not store.rows(f"SELECT id FROM {STATES} WHERE id = $1 AND changed_by = $2", (state, token)):
                raise StateMoved(
                    f"The state of the sync {self.sync!r} changed while answers were folded into it.",
                    "Launch a new run; it delivers what is missing.",
                )
            if manifest.snapshot:
                _apply(store, state, Changes(self._drafts / manifest.snapshot))

            def commit() -> None:
                store.commit()
                self.in_force(state, stored.last_number)

            yield commit

    # Beginning, and moving

    @contextmanager
    def _created(self, manifest: Manifest) -> Iterator[Callable[[], None]]:
        with self.created(manifest) as (store, state):
            if manifest.snapshot:
                _apply(store, state, Changes(self._drafts / manifest.snapshot))
        # The tables are there; the manifest of the storage folder makes them the state.
        yield lambda: self.in_force(state, manifest.last_number)

    @contextmanager
    def created(self, manifest: Manifest) -> Iterator[tuple[Store, str]]:
        """Make the tables of a state that is not in force yet; filled in the block, there at its end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.drop_pending()
        state = uuid.uuid4().hex[:12]
        self.note_pending(state)
        with self.open() as store, store.transaction():
            store.prepare_schema()
            if not store.tables("states"):
                store.execute(
                    f"""CREATE TABLE {STATES} (id VARCHAR NOT NULL, sync VARCHAR NOT NULL, account VARCHAR NOT NULL,
                    generation BIGINT NOT NULL, manifest VARCHAR NOT NULL, changed_by VARCHAR)"""
                )
            for kind, columns in (("snapshot", SNAPSHOT_COLUMNS), ("held", HELD_COLUMNS)):
                kinds = ", ".join(f"{quote(name)} {sql}" for name, sql in columns.items())
                store.execute(f"CREATE TABLE {table(f'{kind}_{state}')} ({kinds})")
            stored = _stored(manifest)
            store.execute(
                f"INSERT INTO {STATES} (id, sync, account, generation, manifest) VALUES ($1, $2, $3, $4, $5)",
                (state, self.sync, self.account, stored.generation, _text(stored)),
            )
            yield store, state

    def in_force(self, state: str, last_number: int) -> None:
        """Make a state of the warehouse the sync's, durably. The caller holds the lease.

        Args:
            last_number: The last batch number that it contains, for whoever reads logs without asking the warehouse.
        """
        _write(self.folder / MANIFEST, self._naming(state, last_number))
        (self.folder / PENDING).unlink(missing_ok=True)

    def _naming(self, state: str, last_number: int) -> dict[str, str | int]:
        """What the manifest says."""
        return {
            "home": "warehouse",
            "warehouse": self.warehouse,
            "state": state,
            "last_number": last_number,
            "sync": self.sync,
            "account": self.account,
            "kind": self.kind,
            "url": self.url,
        }

    def note_pending(self, state: str) -> None:
        """Remember tables that are not in force, or soon will not be, so that they are dropped whatever happens."""
        _write(self.folder / PENDING, {"state": state})

    def pending(self) -> str | None:
        """Tables that a move made, or left, and that are not in force."""
        data = _read(self.folder / PENDING)
        return str(data["state"]) if data and data["state"] != self.state() else None

    def drop_pending(self) -> None:
        """Drop what is `pending`."""
        pending = self.pending()
        if pending is not None:
            self.drop(pending)
        (self.folder / PENDING).unlink(missing_ok=True)

    def drop(self, state: str) -> None:
        """Drop the tables of a state, its row, and its part of the sync log's tables."""

        def dropped() -> None:
            with self.open() as store, store.transaction():
                hide(store, state)
                for kind in ("snapshot", "held"):
                    store.execute(f"DROP TABLE IF EXISTS {table(f'{kind}_{state}')}")
                if store.tables("states"):
                    store.execute(f"DELETE FROM {STATES} WHERE id = $1", (state,))

        _tried(dropped)

    def take(self, state: str, snapshot: Path, held: Path) -> None:
        """Write the records and held rows of a state to files."""
        found = _tables(state)
        with self.open() as store, store.transaction():
            for relation, columns, path in (
                (found.snapshot, SNAPSHOT_COLUMNS, snapshot),
                (found.held, HELD_COLUMNS, held),
            ):
                store.to_parquet(f"SELECT {', '.join(columns)} FROM {relation} t", path)
                to_disk(path)


def _tables(state: str) -> State:
    return State(table(f"snapshot_{state}"), table(f"held_{state}"))


def _apply(store: Store, state: str, changes: Changes) -> None:
    for kind, same in (("snapshot", "g.key = t.key AND g.match = t.match"), ("held", "g.key = t.key")):
        name = f"{kind}_{state}"
        gone = store.ingest(changes.file(kind, "gone"), f"{kind}_gone")
        if gone:
            store.execute(f"DELETE FROM {table(name)} AS t WHERE EXISTS (SELECT 1 FROM {kind}_gone g WHERE {same})")
        fresh = store.ingest(changes.file(kind, "fresh"), name, SCHEMA)
        if gone + fresh > 10_000:
            store.settled(name, SCHEMA)


def write_changes(connection: duckdb.DuckDBPyConnection, kind: str, before: str, after: str, folder: Path) -> int:
    """Write how a relation changes, and return by how many rows it grows.

    Args:
        kind: "snapshot" or "held".
        before: The relation as it was.
        after: As it becomes.
        folder: Where the changes go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    changes = Changes(folder)
    # PostgreSQL's texts have no zero characters, which a destination's message may have.
    texts = ", ".join(f"replace({name}, chr(0), chr(65533)) AS {name}" for name in ("code", "reason"))
    columns = f"* REPLACE ({texts})" if kind == "held" else "*"
    grown = 0
    for what, one, other in (("gone", before, after), ("fresh", after, before)):
        path = changes.file(kind, what)
        written = connection.execute(
            f"COPY (SELECT {columns} FROM (SELECT * FROM {one} EXCEPT SELECT * FROM {other})) "
            f"TO {literal(str(path))} (FORMAT parquet)"
        ).fetchall()[0][0]
        grown += written if what == "fresh" else -written
    return grown


def repeats(connection: duckdb.DuckDBPyConnection, records: str, column: str) -> bool:
    """Whether two records of a relation have the same value."""
    query = f"SELECT 1 FROM {records} GROUP BY {column} HAVING count(*) > 1 LIMIT 1"
    return bool(connection.execute(query).fetchall())


def _tried(work: Callable[[], T]) -> T:
    """Do what fails where another sync does so at the same moment."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except WarehouseFailed:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _stored(manifest: Manifest) -> Manifest:
    return replace(manifest, snapshot="", held="", values="")


def _text(manifest: Manifest) -> str:
    return json.dumps(asdict(manifest), sort_keys=True)


def _read(path: Path) -> dict[str, object] | None:
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def _write(path: Path, data: dict[str, str | int]) -> None:
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    to_disk(path.parent)
