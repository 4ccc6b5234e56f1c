"""The sync log's tables in a warehouse that keeps state: shared by all syncs whose state is there.

    integrations.sync_runs, sync_log    the rows of runs (`log.TABLES`)
    integrations.sync_snapshot          a view over the snapshot tables of the states in force
    integrations.sync_published         which files of which run the tables contain
    integrations.sync_shown             the states that the view is over

The files of the log stay the truth, for both homes, and the tables are their copy. Copying compares each run's files
with those that were copied last, and replaces the rows of the runs that differ, each run whole, in one transaction with
the note of its files. So it can be repeated and overtaken at will: what a kill has left out, the next one copies. It is
not part of the fold's transaction, because what is a row's outcome, and what an earlier word about it, is known only
when the run has been recorded.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from integrations_dagster.planner.log import RUN, SETTLED, TABLES, RunFolder, run_folders, write_rows
from integrations_dagster.planner.state import Home, literal, quote
from integrations_dagster.planner.warehouse_diff import table
from integrations_dagster.warehouses.store import SCHEMA, Store, WarehouseFailed

RUNS_AT_ONCE = 100
"""Runs that are copied in one transaction."""

_COPIED = ("sync_runs", "sync_log")
_STATES, _PUBLISHED, _SHOWN = table("states"), table("sync_published"), table("sync_shown")
_NAMES = ("sync", "account", "run_id")


@dataclass(frozen=True, slots=True)
class Published:
    """A run whose rows are in the tables, and the version of its files."""

    sync: str
    account: str
    run_id: str
    version: str


def show(store: Store, state: str) -> None:
    """Make the tables that are missing, and put a state into `sync_snapshot`. A transaction of its own.

    Raises:
        WarehouseFailed: Also where another sync did so at the same moment; then again.
    """
    with store.transaction():
        there = set(store.tables("sync_"))
        for name in _COPIED:
            if name not in there:
                kinds = ", ".join(f"{quote(column)} {kind}" for column, kind in TABLES[name].items())
                store.execute(f"CREATE TABLE {table(name)} ({kinds})")
                store.index(name, ("run_id",))
        if "sync_published" not in there:
            # Without the key, two copyists at once would both insert a run.
            kinds = ", ".join(f"{name} VARCHAR NOT NULL" for name in ("state", "folder", *_NAMES, "version"))
            store.execute(f"CREATE TABLE {_PUBLISHED} ({kinds}, PRIMARY KEY (state, folder))")
        if not there.issuperset((*_COPIED, "sync_published")):
            # New; or somebody dropped one: every sync copies its runs again.
            for name in (*_COPIED, "sync_published"):
                store.execute(f"DELETE FROM {table(name)}")
        if "sync_shown" not in there:
            store.execute(f"CREATE TABLE {_SHOWN} (states VARCHAR NOT NULL, changed_by VARCHAR)")
            store.execute(f"INSERT INTO {_SHOWN} (states) VALUES ('[]')")
            _view(store, ())
        shown = _shown(store)
        if state not in shown:
            _replace_shown(store, shown, (*shown, state))


def hide(store: Store, state: str) -> None:
    """Take a state, and its runs, out of the tables, within the transaction that drops it."""
    there = store.tables("sync_")
    if "sync_shown" in there:
        shown = _shown(store)
        if state in shown:
            _replace_shown(store, shown, tuple(other for other in shown if other != state))
    if "sync_published" in there:
        for name in _COPIED:
            if name in there:
                same = " AND ".join(f"p.{column} = t.{column}" for column in _NAMES)
                store.execute(
                    f"DELETE FROM {table(name)} AS t "
                    f"WHERE EXISTS (SELECT 1 FROM {_PUBLISHED} p WHERE p.state = $1 AND {same})",
                    (state,),
                )
        store.execute(f"DELETE FROM {_PUBLISHED} WHERE state = $1", (state,))


def copy_runs(store: Store, state: str, home: Home) -> int:
    """Bring `sync_runs` and `sync_log` up to date: the tables of `show` are there, the caller holds the lease.

    A run without its row of `sync_runs` is under way, or the next plan writes that: it is copied then.

    Returns:
        Runs whose rows were replaced or deleted.
    """
    with store.transaction():
        asked = f"SELECT folder, sync, account, run_id, version FROM {_PUBLISHED} WHERE state = $1"
        published = {str(row[0]): Published(*map(str, row[1:])) for row in store.rows(asked, (state,))}
    found = {folder.folder.name: folder for folder in run_folders(home) if folder.row}
    # Before the files are read: if they change meanwhile, the next time tells.
    versions = {name: _version(folder) for name, folder in found.items()}
    gone = sorted(published.keys() - found.keys())
    fresh = [name for name in found if name not in published or published[name].version != versions[name]]
    work = [(name, None) for name in gone] + [(name, found[name]) for name in fresh]
    for at in range(0, len(work), RUNS_AT_ONCE):
        _replace_runs(store, state, home, published, versions, work[at : at + RUNS_AT_ONCE])
    return len(work)


def _replace_runs(
    store: Store,
    state: str,
    home: Home,
    published: Mapping[str, Published],
    versions: Mapping[str, str],
    work: Sequence[tuple[str, RunFolder | None]],
) -> None:
    folders = [name for name, folder in work if folder is not None]
    with tempfile.TemporaryDirectory(prefix="integrations-publish-") as scratch:
        files = {name: Path(scratch) / f"{name}.parquet" for name in _COPIED}
        if folders:
            for name, path in files.items():
                write_rows(home, folders, name, path)
        with store.transaction():
            for name, folder in work:
                before = published.get(name)
                if before is not None:
                    store.execute(f"DELETE FROM {_PUBLISHED} WHERE state = $1 AND folder = $2", (state, name))
                    same = " AND ".join(f"{column} = ${place}" for place, column in enumerate(_NAMES, 1))
                    for copied in _COPIED:
                        store.execute(
                            f"DELETE FROM {table(copied)} WHERE {same}", (before.sync, before.account, before.run_id)
                        )
                if folder is not None:
                    store.execute(
                        f"INSERT INTO {_PUBLISHED} (state, folder, sync, account, run_id, version) "
                        "VALUES ($1, $2, $3, $4, $5, $6)",
                        (state, name, *(str(folder.row[column]) for column in _NAMES), versions[name]),
                    )
            if folders:
                for name, path in files.items():
                    if store.ingest(path, name, SCHEMA) > 10_000:
                        store.settled(name, SCHEMA)


def _version(folder: RunFolder) -> str:
    """What tells that a run's rows may have changed: the files that they are made of. A rename replaces a file."""
    paths = [*folder.files("rows"), *folder.files("batches"), folder.folder / RUN, folder.folder / SETTLED]
    stats = [(path.name, path.stat()) for path in paths if path.exists()]
    told = [(name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


# The view


def _shown(store: Store) -> tuple[str, ...]:
    return tuple(json.loads(str(store.rows(f"SELECT states FROM {_SHOWN}")[0][0])))


def _replace_shown(store: Store, before: Sequence[str], after: Sequence[str]) -> None:
    token = uuid.uuid4().hex
    # Whoever comes second finds other states, and begins again: no state is lost from the view.
    store.execute(
        f"UPDATE {_SHOWN} SET states = $1, changed_by = $2 WHERE states = $3",
        (json.dumps(after), token, json.dumps(before)),
    )
    if not store.rows(f"SELECT states FROM {_SHOWN} WHERE changed_by = $1", (token,)):
        raise WarehouseFailed("Another sync changed sync_snapshot at the same moment.", "Launch the run again.")
    _view(store, after)


def _view(store: Store, states: Iterable[str]) -> None:
    """`CREATE OR REPLACE` keeps the privileges that readers were granted."""
    columns = TABLES["sync_snapshot"]
    made = {"sync": "t.sync", "account": "t.account", "match_value": "s.match"}
    made |= {"partition": "coalesce(s.partition, '')", "acknowledged": "s.payload_digest IS NOT NULL"}
    chosen = ", ".join(f"CAST({made.get(name, f's.{name}')} AS {kind}) AS {name}" for name, kind in columns.items())
    parts = [
        f"SELECT {chosen} FROM {table(f'snapshot_{state}')} s CROSS JOIN {_STATES} t WHERE t.id = {literal(state)}"
        for state in states
    ]
    nothing = ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in columns.items())
    query = " UNION ALL ".join(parts) or f"SELECT {nothing} WHERE false"
    store.execute(f"CREATE OR REPLACE VIEW {table('sync_snapshot')} AS {query}")
