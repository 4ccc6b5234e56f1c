from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import requests

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint, new_endpoint, read_endpoint, state_folder, write_endpoint
from integrations_dagster.sandbox.process import alive, answering, ensure_running, stop
from integrations_dagster.sandbox.server import SandboxError, serve
from integrations_dagster_tests.sandbox.conftest import Api


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop(tmp_path)


def kill(endpoint: Endpoint) -> None:
    process = psutil.Process(endpoint.pid)
    process.send_signal(signal.SIGKILL)
    process.wait(20)


def test_a_sandbox_is_started_once_and_stopped(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stop(storage) is False
    endpoint, started = ensure_running(storage)
    assert started
    assert endpoint.url.startswith("http://127.0.0.1:")
    assert ensure_running(storage) == (endpoint, False)
    serve(storage)
    assert "already running" in capsys.readouterr().err
    assert stop(storage) is True
    assert not alive(endpoint)
    assert not answering(endpoint)
    assert stop(storage) is False


def test_state_identity_and_port_survive_a_kill(storage: Path) -> None:
    before, _ = ensure_running(storage)
    client = SandboxClient(before)
    client.define_property("contacts", "ref")
    api = Api(before)
    with api.session:
        id_ = api.upsert("a@example.com", ref="1").json()["results"][0]["id"]
    kill(before)
    assert not answering(before)
    after, started = ensure_running(storage)
    assert started
    assert (after.id, after.token, after.secret, after.url) == (before.id, before.token, before.secret, before.url)
    client = SandboxClient(after)
    assert [(r["id"], r["properties"]["ref"], r["writes"]) for r in client.records("contacts")] == [(id_, "1", 1)]
    assert client.received()[0]["rows"] == 1
    api = Api(after)
    with api.session:
        again = api.upsert("a@example.com", "b@example.com").json()["results"]
    assert {entry["objectWriteTraceId"]: entry["new"] for entry in again} == {
        "a@example.com": False,
        "b@example.com": True,
    }
    assert len({entry["id"] for entry in again}) == 2
    assert len(client.records("contacts")) == 2


def test_a_kill_leaves_whole_batches(storage: Path) -> None:
    """Writers are under way when the server dies; each batch is there whole or not at all."""
    endpoint, _ = ensure_running(storage)
    client = SandboxClient(endpoint)
    client.configure(latency=0.002)
    acknowledged: set[str] = set()

    def write(thread: int) -> None:
        api = Api(endpoint)
        with api.session:
            for batch in range(1000):
                plan = f"{thread}-{batch}"
                try:
                    answer = api.upsert(*(f"{plan}-{n}@example.com" for n in range(50)), plan=plan)
                except requests.RequestException:
                    return
                if answer.status_code == 200:
                    acknowledged.add(plan)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 20:
        threads[0].join(0.005)
    kill(endpoint)
    for thread in threads:
        thread.join(20)
    endpoint, _ = ensure_running(storage)
    counts: dict[str, int] = {}
    for record in SandboxClient(endpoint).records("contacts"):
        plan = record["properties"]["plan"]
        counts[plan] = counts.get(plan, 0) + 1
    assert set(counts.values()) == {50}
    assert acknowledged <= set(counts)
    assert len(set(counts) - acknowledged) <= 4


def test_a_port_that_is_taken(storage: Path) -> None:
    endpoint, _ = ensure_running(storage)
    stop(storage)
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(endpoint.url.rpartition(":")[2])))
        other.listen()
        moved, _ = ensure_running(storage)
        assert moved.url != endpoint.url
        assert moved.id == endpoint.id
        stop(storage)
        with pytest.raises(SandboxError, match="Choose another port"):
            serve(storage, other.getsockname()[1])


def test_of_two_starts_at_once_one_wins(storage: Path) -> None:
    results: list[tuple[Endpoint, bool]] = []
    threads = [threading.Thread(target=lambda: results.append(ensure_running(storage))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 3
    assert len({endpoint.pid for endpoint, _ in results}) == 1
    assert sum(started for _, started in results) == 1


def test_a_stranger_with_the_same_process_id_is_no_sandbox(storage: Path) -> None:
    stranger = replace(new_endpoint(), url="http://127.0.0.1:1", pid=os.getpid(), pid_started=1.0)
    write_endpoint(storage, stranger)
    assert not alive(stranger)
    assert stop(storage) is False
    endpoint, started = ensure_running(storage)
    assert started
    assert endpoint.id == stranger.id


def test_a_sandbox_that_cannot_start_says_why(storage: Path) -> None:
    folder = state_folder(storage)
    folder.mkdir()
    (folder / "state.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(TimeoutError, match="not a database"):
        ensure_running(storage)
    assert read_endpoint(storage) is None


def test_nothing_secret_is_readable_by_others(storage: Path) -> None:
    endpoint, _ = ensure_running(storage)
    for path in state_folder(storage).iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name
    assert endpoint.token not in (state_folder(storage) / "sandbox.log").read_text()
