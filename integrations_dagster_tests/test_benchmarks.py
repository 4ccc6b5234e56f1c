"""The benchmarks run, with tiny sizes; what they measure is not judged here. And their server is what it says."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from benchmarks.baselines import bodies
from benchmarks.processes import ROOT, Server, serving
from benchmarks.server import Window
from integrations_dagster.destinations import registry
from integrations_dagster.destinations.base import Batch, Request, Response
from integrations_dagster.destinations.values import canonical_json
from integrations_dagster.vocabulary import Action, Change, Outcome, Row, Status
from integrations_dagster_tests.postgres import binaries

WRITE = ("write", "--rows", "400", "--batch-rows", "10", "--latency", "0.002")
SIZES = ("--seconds", "0.5", "--again", "0.3", "--batch-rows", "1", "--shards", "2", "--timeline")


def run_scripts(folder: Path, *scripts: tuple[str, ...]) -> str:
    """Run benchmarks in one new process; returns what they printed, once nothing of them is left.

    Raises:
        AssertionError: One failed, or left a file or a process behind.
    """
    env = {**os.environ, "TMPDIR": str(folder)}
    calls = [f"from benchmarks import {name}; {name}.main({arguments!r})" for name, *arguments in scripts]
    command = [sys.executable, "-W", "error", "-c", "\n".join(calls)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.glob("integrations-benchmark-*")) == []
    await_no_process(folder)
    return done.stdout


def await_no_process(folder: Path) -> None:
    """Wait until no process has the folder as its TMPDIR."""
    deadline = time.monotonic() + 15
    while left := [
        p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("TMPDIR") == str(folder)
    ]:
        assert time.monotonic() < deadline, left
        psutil.wait_procs(left, timeout=0.2)


EACH = {
    "write": (*WRITE, "--no-dagster"),
    "memory": ("memory", "--rows", "100", "--factor", "2", "--shards", "1"),
    "quota": ("quota", "unknown-200-retry-after", *SIZES),
}


def check_runs(tmp_path: Path, *names: str) -> None:
    told = run_scripts(tmp_path, *(EACH[name] for name in names))
    expected = {"write": "sync, without Dagster, write phase", "memory": "(budget 1.2)", "quota": "second run"}
    for name in names:
        assert expected[name] in told


def test_one_runs(tmp_path: Path) -> None:
    check_runs(tmp_path, "write")


@pytest.mark.slow
def test_each_runs(tmp_path: Path) -> None:
    check_runs(tmp_path, *EACH)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["integer", "text"])
def test_plans_find_what_the_scripts_find(tmp_path: Path, key: str) -> None:
    """A plan or script that finds other rows, or a plan that sends something for nothing, ends the benchmark."""
    told = run_scripts(tmp_path, ("planner", "--rows", "3000", "--columns", "9", "--key", key, "--rounds", "1"))
    assert told.count("no request") == 2
    assert told.count("(budget 1.25)") == told.count("(budget 1.75)") == 1
    assert told.count("pandas.merge") == 3


@pytest.mark.slow
@pytest.mark.parametrize("key", ["integer", "text"])
@pytest.mark.skipif(binaries() is None, reason="no PostgreSQL server is installed (initdb not found)")
def test_plans_in_a_warehouse_find_what_plain_sql_finds(key: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server may have a user of its own
        told = run_scripts(folder, ("warehouse", "--rows", "3000", "--columns", "9", "--key", key, "--rounds", "1"))
        assert list(folder.glob("pg-*")) == []
    assert told.count("no request") == 2
    assert told.count("(budget 1.5)") == 2
    assert told.count("plain SQL  ") == 3


@pytest.mark.slow
def test_write_through_dagster(tmp_path: Path) -> None:
    told = run_scripts(tmp_path, ("write", "--rows", "2000", "--latency", "0.002"))
    assert "sync, Dagster run, plan + write + record" in told


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="cProfile tells threads apart up to Python 3.11 only")
def test_a_profile_of_a_write_op(tmp_path: Path) -> None:
    assert "sync/write.py" in run_scripts(tmp_path, (*WRITE, "--profile"))


@pytest.mark.slow
def test_what_is_ended_leaves_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.quota", "published-100/1"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    family: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while len(family) < 8:  # the write ops of two syncs
        assert time.monotonic() < deadline
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.wait(30)
    await_no_process(tmp_path)
    assert list(tmp_path.glob("integrations-benchmark-*")) == []


def test_a_window_slides_exactly() -> None:
    choice = random.Random(20260801)
    window, now, accepted = Window(7, 2.0), 100.0, list[float]()
    for _ in range(2000):
        now += choice.choice([0.0, 0.01, 0.4])
        within = sum(1 for moment in accepted if moment > now - 2.0)
        wait = window.wait(now)
        assert (wait == 0.0) == (within < 7)
        if wait == 0.0:
            window.take(now)
            accepted.append(now)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(latency=0.0) as server:
        yield server


def post(server: Server, body: bytes, operation: str = "upsert", **headers: str) -> requests.Response:
    url = f"http://127.0.0.1:{server.port}/crm/v3/objects/contacts/batch/{operation}"
    return requests.post(url, data=body, headers=headers, timeout=10)


def answered(server: Server, batch: Batch) -> list[Outcome]:
    """The outcomes of a batch that the HubSpot destination sends to the server."""
    flow = registry.create("hubspot", {}).deliver(batch)
    request = next(flow)
    assert isinstance(request, Request)
    assert request.body is not None
    answer = post(server, request.body, request.path.rpartition("/")[2])
    try:
        flow.send(Response(answer.status_code, {}, answer.content))
    except StopIteration as end:
        outcomes: list[Outcome] = end.value
        return outcomes
    raise AssertionError("the flow asks for more")


def contact(i: int) -> Row:
    payload: dict[str, Any] = {"email": f"c{i}@example.com", "firstname": f"First {i}"}
    encoded = canonical_json(payload)
    return Row(i, str(i), f"c{i}@example.com", Change.ADDED, Action.UPSERT, encoded)


def test_the_destination_reads_its_answers(server: Server) -> None:
    batch = Batch("contacts", "contacts", Action.UPSERT, ("email",), tuple(contact(i) for i in range(100)), "key")
    assert answered(server, batch) == [Outcome(Status.CREATED, str(i)) for i in range(100)]
    assert answered(server, batch) == [Outcome(Status.UPDATED, str(i)) for i in range(100)]
    counts = server.control(reset=True)
    assert (counts["requests"], counts["rows"], counts["distinct"]) == (2, 200, 100)
    assert server.control()["requests"] == 0


def test_it_reads_the_bodies_of_the_baselines(server: Server) -> None:
    first, second = bodies(0, 150, 100)
    assert len(post(server, first).json()["results"]) == 100
    assert len(post(server, gzip.compress(second), **{"Content-Encoding": "gzip"}).json()["results"]) == 50
    assert server.control()["distinct"] == 150
    assert {len(json.loads(body)["inputs"]) for body in (first, second)} == {100, 50}


def test_it_refuses_what_is_over_a_quota(server: Server) -> None:
    server.control(quotas=[[2, 60], [3, 600]], headers="retry_after")
    (body,) = bodies(0, 1, 1)
    assert [post(server, body).status_code for _ in range(3)] == [200, 200, 429]
    assert 1 <= int(post(server, body).headers["Retry-After"]) <= 60
    server.control(headers="none")
    assert "Retry-After" not in post(server, body).headers
    server.control(headers="hubspot")
    assert post(server, body).headers["X-HubSpot-RateLimit-Max"] == "2"
    counts = server.control()
    assert (len(counts["accepted"]), len(counts["throttled"]), counts["rows"]) == (2, 4, 2)
