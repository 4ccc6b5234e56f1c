"""The embedded home: where a sync's snapshot and held rows live as Parquet files, and the manifest that names them.

The manifest is the state: a file that no manifest names does not exist. It is replaced in one rename.

A snapshot row is one *record* believed to be at the destination, delivered under a primary key. A key has one record,
except while its match value changes and the answer is not known, or where a record was left behind.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb

MANIFEST = "manifest.json"
PLAN = "plan.json"
"""Of a plan's folder, the file that appears last: without it the plan was killed, and nothing of it counts."""
MEMORY = "850MB"
"""What DuckDB holds in memory before it spills to disk; with the rest of a process it stays below 1 GB."""

SNAPSHOT_COLUMNS = {
    "key": "VARCHAR",
    "match": "VARCHAR",
    "partition": "VARCHAR",
    "destination_id": "VARCHAR",
    "source_digest": "VARCHAR",
    "payload_digest": "VARCHAR",
    "number": "BIGINT",
}
HELD_COLUMNS = {
    "key": "VARCHAR",
    "match": "VARCHAR",
    "partition": "VARCHAR",
    "source_digest": "VARCHAR",
    "status": "VARCHAR",
    "attempts": "INTEGER",
    "not_before": "DOUBLE",
    "code": "VARCHAR",
    "reason": "VARCHAR",
    "since": "DOUBLE",
    "reference": "VARCHAR",
    "payload_digest": "VARCHAR",
    "action": "VARCHAR",
    "destination_id": "VARCHAR",
    "run_id": "VARCHAR",
}
"""`reference`, and the columns after it, tell of the request that the row was held for. State files of the
first version lack those after `reference`."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the state contains.

    Attributes:
        generation: Raised by every fold.
        last_number: The last batch number that the snapshot contains.
        snapshot: File name of the snapshot, or "" while there is none.
        held: File name of the held rows, or "".
        rows: Records in the snapshot.
        mapping_digest: The mapping that the newest plan used; "" before the first.
        cursor: How far the sync has come in a model with a cursor, as text; "" for nowhere: it needs all rows.
        passed: The farthest that the cursor ever was; rows before it were settled once.
        cursor_type: DuckDB's type of the cursor column.
        newest: The greatest value of the cursor column in any version that was delivered.
        marks: With a dedupe window: [seconds since the epoch, last number, newest] of earlier runs, oldest first.
        volumes: [partitions, rows queried, added, changed, removed] of earlier runs, oldest first.
        mode: The mode of the newest plan; "" before the first, and in manifests that are older than this field.
        values: File name of the payloads that are kept, or "".
        shared: Whether records of different keys may have one match value (kept for a home in the warehouse).
        several: Whether a key may have more than one record (likewise).
    """

    generation: int = 0
    last_number: int = 0
    snapshot: str = ""
    held: str = ""
    rows: int = 0
    mapping_digest: str = ""
    mode: str = ""
    cursor: str = ""
    passed: str = ""
    cursor_type: str = ""
    newest: str = ""
    marks: list[list[Any]] = field(default_factory=list)
    volumes: list[list[int]] = field(default_factory=list)
    values: str = ""
    shared: bool = False
    several: bool = False


def slug(text: str) -> str:
    """A folder name made of a name or an account id."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "_"


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one sync and account."""

    folder: Path

    @classmethod
    def of(cls, storage: Path, sync: str, account: str) -> Home:
        return cls(storage / "syncs" / slug(sync) / slug(account))

    def plan_folder(self, run_id: str) -> Path:
        """Shard and outcome files of one run, until they are folded."""
        return self.folder / "plans" / slug(run_id)

    def plan_folders(self) -> list[Path]:
        """Those of the plans that came to their end, and have not been dropped."""
        return sorted(path.parent for path in (self.folder / "plans").glob(f"*/{PLAN}"))

    def log_folder(self, run_id: str) -> Path:
        """Sync log of one run."""
        return self.folder / "log" / slug(run_id)

    def manifest(self) -> Manifest:
        """The state now; an empty one before the first fold, and where the state is in a warehouse."""
        path = self.folder / MANIFEST
        if not path.exists():
            return Manifest()
        data = json.loads(path.read_text("utf-8"))
        if "home" in data:
            # The state is in a warehouse; of the files here, logs up to that number are in it.
            return Manifest(last_number=data["last_number"])
        return Manifest(**data)

    @contextmanager
    def lasting(self) -> Iterator[Home]:
        """The home for a block, within which it is asked and changed by one thread, many times."""
        yield self

    def place(self) -> str | None:
        """Which home the manifest says that the state is in: "embedded" or "warehouse"; None: there is no state yet."""
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        return str(json.loads(path.read_text("utf-8")).get("home", "embedded"))

    @contextmanager
    def prepared(self, manifest: Manifest) -> Iterator[Callable[[], None]]:
        """Make a fold's result ready to become the state: what the block is given makes it so, at once.

        The block calls it within a ledger transaction that holds the lease.
        """
        yield lambda: self.swap(manifest)

    def records(self, path: Path) -> Path | None:  # noqa: ARG002 - for a home whose records are in no file
        """The file with the snapshot, or None while there is none.

        Args:
            path: Where a home puts it that has it in no file.
        """
        name = self.manifest().snapshot
        return self.folder / name if name else None

    def drafting(self, folder: Path) -> Home:
        """This home with the state whose new files a fold has put into `folder`, and that never is in force."""
        return Home(folder)

    def swap(self, manifest: Manifest) -> None:
        """Make a manifest the state, durably. The caller holds the lease."""
        path = self.folder / MANIFEST
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        with draft.open("w", encoding="utf-8") as file:
            json.dump(asdict(manifest), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        to_disk(self.folder)

    def clean(self) -> None:
        """Delete state files that the manifest does not name (what killed folds and earlier generations left)."""
        manifest = self.manifest()
        for path in [path for kind in ("snapshot", "held", "values") for path in self.folder.glob(f"{kind}-*")]:
            if path.name not in (manifest.snapshot, manifest.held, manifest.values):
                path.unlink(missing_ok=True)

    def attach(self, connection: duckdb.DuckDBPyConnection, manifest: Manifest, key: str | None = None) -> None:  # noqa: ARG002
        """Make the state readable as `snapshot` and `held`; columns that a file lacks are null.

        Args:
            key: The only primary key that is asked for: a home may leave the others out. Without it, a home may leave
                the snapshot out.
        """
        for view, name, columns in (
            ("snapshot", manifest.snapshot, SNAPSHOT_COLUMNS),
            ("held", manifest.held, HELD_COLUMNS),
        ):
            if name:
                source = f"read_parquet({literal(str(self.folder / name))})"
                present = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
            else:
                source, present = "(SELECT 1 LIMIT 0)", set()
            chosen = ", ".join(
                quote(column) if column in present else f"CAST(NULL AS {kind}) AS {quote(column)}"
                for column, kind in columns.items()
            )
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT {chosen} FROM {source}")


def connect(scratch: Path, *, threads: int = 0) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that spills to `scratch`; timestamps with zones read as UTC.

    Args:
        threads: How many it uses; 0: as many as there are cores.
    """
    connection = duckdb.connect(
        config={
            **({"threads": str(threads)} if threads else {}),
            "temp_directory": str(scratch / ".duckdb"),
            "memory_limit": MEMORY,
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
        }
    )
    # DuckDB draws a bar into standard output where a query takes seconds, also where that is a file or a pipe.
    connection.execute("SET enable_progress_bar = false")
    with suppress(duckdb.Error):  # the ICU extension is built in; without it there are no time zones to set
        connection.execute("SET TimeZone = 'UTC'")
    return connection


def to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def quote(identifier: str) -> str:
    """An SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string, for the places that take no parameter (file names in views and COPY)."""
    return "'" + text.replace("'", "''") + "'"
