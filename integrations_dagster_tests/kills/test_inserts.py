"""SIGKILL at random moments of syncs that make records: none lost, none made twice, those in doubt named."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from integrations_dagster.ledger.batches import unpack_rows
from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint, state_folder
from integrations_dagster_tests.kills.insert_victim import sync_of
from integrations_dagster_tests.sync.flows import COLUMNS, JOB, KEYED, PLAIN, VERIFIED, Kind, Place
from integrations_dagster_tests.sync.harness import Bench, check_runs

PROJECT = Path(__file__).parents[2]
SEED = 20261121
KILLS = 25
"""Kills of each of the four kinds: a hundred in all."""
MORE = 420
"""Rows that the model gains before each run."""
LATENCY = 0.03
"""Seconds of each of the sandbox's answers: the write phase takes half a second."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Scene:
    """One kind of sync in a storage folder of its own, run by processes."""

    def __init__(self, folder: Path, storage: Path, sandbox: Endpoint, kind: Kind, name: str) -> None:
        self.folder = folder
        (folder / "sandbox").mkdir(parents=True)
        shutil.copy(state_folder(storage) / "sandbox.json", folder / "sandbox" / "sandbox.json")
        self.bench = Bench(folder, sandbox)
        self.place = Place(kind, name, SandboxClient(sandbox))
        self.count = 0
        self.output = folder / "output.txt"

    def grow(self, more: int = MORE) -> None:
        self.count += more
        self.bench.load("people", self.place.rows(range(self.count)), COLUMNS)

    def launch(self, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "integrations_dagster_tests.kills.insert_victim"]
        with self.output.open("wb") as output:
            return subprocess.Popen(
                [*command, str(self.folder), self.place.kind.name, self.place.name, *more],
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def run(self) -> None:
        assert self.launch().wait(120) == 0, self.output.read_text("utf-8", "replace")[-3000:]

    def _ask(self, query: str) -> list[tuple[object, ...]]:
        path = f"file:{self.folder / 'ledger.sqlite'}?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True, timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def highest(self) -> int:
        """The highest number of a batch ever."""
        return int(str(self._ask("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'batches'")[0][0]))

    def open_keys(self) -> set[str]:
        blobs = self._ask("SELECT rows FROM batches WHERE status = 'open'")
        return {row.key for (blob,) in blobs for row in unpack_rows(blob)}  # type: ignore[arg-type]


def kill_somewhere(scene: Scene, choice: random.Random) -> tuple[str, set[str]]:
    """Launch, kill at a random moment; what the moment was, and the keys in flight at it."""
    before = scene.highest()
    process = scene.launch()
    if choice.random() < 0.2:
        seconds = choice.uniform(0.3, 3.0)
        what, ends = f"after {seconds:.2f} s", time.monotonic() + seconds
        reached: Callable[[], bool] = lambda: time.monotonic() >= ends  # noqa: E731
    else:
        batches = choice.randint(1, MORE // 7 + 3)
        what = f"once {batches} batches were opened"
        reached = lambda: scene.highest() >= before + batches  # noqa: E731
    deadline = time.monotonic() + 60
    while not reached() and process.poll() is None:
        assert time.monotonic() < deadline, scene.output.read_text("utf-8", "replace")[-3000:]
        time.sleep(0.002)
    if process.poll() is not None:
        what += " (it had ended)"
    process.kill()
    process.wait(30)
    return what, scene.open_keys()


def killed_again_and_again(scene: Scene, seed: int) -> list[str]:
    """Kill run after run, each of which goes on where the last one was; then let one through, and compare."""
    choice = random.Random(seed)
    lines: list[str] = []
    flying: set[str] = set()
    for number in range(1, KILLS + 1):
        scene.grow()
        what, keys = kill_somewhere(scene, choice)
        flying |= keys
        lines.append(f"{scene.place.kind.name} {number:2}. killed {what}: {len(keys)} rows in flight")
    scene.run()
    scene.run()
    keys = {str(key) for key in range(scene.count)}
    made = scene.place.made()
    doubtful = set(scene.bench.doubtful(sync_of(scene.bench, scene.place.kind.name, scene.place.name)))
    doubled = {key for key, count in made.items() if count > 1}
    lost = keys - set(made) - doubtful
    lines.append(
        f"{scene.place.kind.name}: {KILLS} kills, {len(keys)} rows, {len(flying)} in flight at a kill, "
        f"{len(doubled)} made twice, {len(lost)} lost, {len(doubtful)} in doubt, of which "
        f"{len(doubtful & set(made))} are there"
    )
    assert len(check_runs(scene.folder, scene.place.name)) > KILLS / 2, lines
    assert not doubled, lines
    assert not lost, lines
    assert doubtful <= flying, lines
    if scene.place.kind.exact:
        assert not doubtful, lines
    elif scene.place.kind is PLAIN:
        assert doubtful == flying, lines
    return lines


def test_a_hundred_kills_lose_nothing_and_make_nothing_twice(
    tmp_path: Path, sandbox: Endpoint, sandbox_storage: Path
) -> None:
    print(f"seed {SEED}")
    SandboxClient(sandbox).configure(latency=LATENCY)
    kinds = (PLAIN, KEYED, JOB, VERIFIED)
    scenes = [
        Scene(tmp_path / kind.name, sandbox_storage, sandbox, kind, f"k{place}") for place, kind in enumerate(kinds)
    ]
    try:
        with ThreadPoolExecutor(len(scenes)) as threads:
            told = [threads.submit(killed_again_and_again, scene, SEED + i) for i, scene in enumerate(scenes)]
            for future in told:
                print("\n".join(future.result()))
    finally:
        for scene in scenes:
            scene.bench.close()


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.name) for kind in (PLAIN, KEYED, VERIFIED)])
def test_a_writer_stopped_behind_its_fence_check_sends_nothing_once_it_goes_on(
    tmp_path: Path, sandbox: Endpoint, sandbox_storage: Path, kind: Kind
) -> None:
    """Stopped between the record of a batch and its request; its lease is taken over; then it goes on."""
    scene = Scene(tmp_path / kind.name, sandbox_storage, sandbox, kind, "stopped")
    scene.grow(140)
    process = scene.launch("--stop-after", "5")
    try:
        deadline = time.monotonic() + 60
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            assert process.poll() is None, scene.output.read_text("utf-8", "replace")[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        sync = sync_of(scene.bench, kind.name, "stopped")
        # Somebody marked the run as failed: its process is there, and not believed in any more.
        ctx = scene.bench.context(alive=lambda _holder: False)
        scene.bench.run(sync, ctx=ctx)
        process.send_signal(signal.SIGCONT)
        code = process.wait(60)
        print(f"the stopped writer went on and ended with {code}: {scene.output.read_text('utf-8', 'replace')[-300:]}")
        assert code != 0
        for _ in range(2):
            report = scene.bench.run(sync)
        assert (report.candidates, report.counts.held, report.failures) == (0, 0, ())
        assert scene.place.made() == {str(key): 1 for key in range(140)}
    finally:
        process.kill()
        process.wait(30)
        scene.bench.close()
