"""A run in processes of its own, watched from outside and killed at an observed moment."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psutil

from integrations_dagster.ledger.batches import unpack_rows
from integrations_dagster_tests.kills import FOLDER, SYNC
from integrations_dagster_tests.orchestration.shop import Shop

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Kill:
    """What was there when the run was killed.

    Attributes:
        open_keys: Primary keys of the rows in batches without an answer.
        processes: Processes killed.
    """

    open_keys: frozenset[str]
    processes: int


class Scene:
    """A shop whose sync is run by processes."""

    def __init__(self, folder: Path, sandbox_storage: Path) -> None:
        self.shop = Shop(folder)
        self.shop.use_sandbox(sandbox_storage)
        self.dagster_home = folder / "dagster_home"
        self.dagster_home.mkdir()
        shutil.copy(PROJECT / "dagster.yaml", self.dagster_home / "dagster.yaml")
        self.env = {
            **os.environ,
            FOLDER: str(folder),
            "DAGSTER_HOME": str(self.dagster_home),
            "INTEGRATIONS_STORAGE": str(self.shop.storage),
            "PYTHONPATH": str(PROJECT),
        }
        self.outputs = folder / "outputs"
        self.outputs.mkdir()
        self.launched = 0

    # The model

    def load(self, rows: int, version: int) -> dict[str, str]:
        """Replace the model: every row differs from the version before; returns email to name."""
        with duckdb.connect(str(self.shop.warehouse.path)) as connection:
            connection.execute(
                "CREATE OR REPLACE TABLE customers AS SELECT i::INTEGER AS id, 'c' || i || '@example.com' AS email, "
                f"'name ' || i || ' v{version}' AS name FROM range({rows}) t(i)"
            )
        return {f"c{i}@example.com": f"name {i} v{version}" for i in range(rows)}

    def delivered(self) -> Mapping[str, str]:
        """What the destination holds: email to name."""
        return {r["properties"]["email"]: r["properties"]["firstname"] for r in self.shop.client.records("contacts")}

    # Runs

    def launch(self) -> subprocess.Popen[bytes]:
        self.launched += 1
        with (self.outputs / f"{self.launched}.txt").open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "integrations_dagster_tests.kills.launch"],
                env=self.env,
                cwd=PROJECT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self) -> None:
        """Run the sync to its end.

        Raises:
            AssertionError: It failed; with the end of what it printed.
        """
        process = self.launch()
        assert process.wait(300) == 0, self.last_output()

    def last_output(self) -> str:
        """The end of what the last run printed."""
        return (self.outputs / f"{self.launched}.txt").read_text("utf-8", "replace")[-4000:]

    def kill(self, process: subprocess.Popen[bytes]) -> Kill:
        """SIGKILL the run's whole process tree at once."""
        parent = psutil.Process(process.pid)
        # Stopped first, so that no process sees another one's end and does something about it.
        tree = [parent, *parent.children(recursive=True)]
        for member in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGSTOP)
        for member in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait(30)
        psutil.wait_procs(tree, timeout=30)
        return Kill(self.open_keys(), len(tree))

    def await_moment(self, process: subprocess.Popen[bytes], moment: Callable[[], bool]) -> bool:
        """Wait until something is observed; False if the run ended before it was."""
        while not moment():
            if process.poll() is not None:
                return False
            time.sleep(0.002)
        return True

    # What can be seen of a run from outside

    @property
    def home(self) -> Path:
        (home,) = (self.shop.storage / "syncs" / SYNC).glob("*")
        return home

    def _ask(self, query: str) -> list[tuple[object, ...]]:
        path = self.shop.storage / "ledger.sqlite"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'batches'").fetchall():
                return []
            return connection.execute(query).fetchall()

    def open_keys(self) -> frozenset[str]:
        blobs = self._ask("SELECT rows FROM batches WHERE status = 'open'")
        return frozenset(row.key for (blob,) in blobs for row in unpack_rows(blob))  # type: ignore[arg-type]

    def fence(self) -> int:
        found = self._ask("SELECT fence FROM leases WHERE released = 0")
        return int(str(found[0][0])) if found else 0

    def lease_released(self) -> bool:
        return bool(self._ask("SELECT 1 FROM leases WHERE released = 1"))

    def answered(self) -> int:
        found = self._ask("SELECT count(*) FROM batches WHERE status = 'completed'")
        return int(str(found[0][0])) if found else 0

    def plan_folders(self) -> set[str]:
        return {path.name for path in (self.shop.storage / "syncs" / SYNC).glob("*/plans/*")}

    def plan_files(self) -> set[str]:
        return {path.name for path in (self.shop.storage / "syncs" / SYNC).glob("*/plans/*/*")}

    def state_files(self) -> set[str]:
        return {path.name for path in (self.shop.storage / "syncs" / SYNC).glob("*/*") if path.name != "plans"}

    def manifest(self) -> str:
        path = self.home / "manifest.json"
        return path.read_text("utf-8") if path.exists() else ""
