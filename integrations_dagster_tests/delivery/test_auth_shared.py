"""One token for many threads and processes: refreshed once, early, and whole on disk whenever a process dies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integrations_dagster.delivery.auth.registry import credentials, token_file
from integrations_dagster.delivery.auth.tokens import Busy, Token, TokenFile
from integrations_dagster.delivery.transports.http import NotSent
from integrations_dagster.destinations.errors import Refused
from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sandbox.process import ensure_running
from integrations_dagster_tests.delivery.auth import account, client, refreshing
from integrations_dagster_tests.delivery.test_auth import allowed, status

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def storage(sandbox_storage: Path, sandbox: Endpoint) -> Path:
    """The session's storage folder, which child processes find the sandbox by; without tokens."""
    for path in (sandbox_storage / "tokens").glob("*"):
        path.unlink()
    return sandbox_storage


@contextmanager
def child(storage: Path, *arguments: object, module: str = "auth") -> Iterator[subprocess.Popen[str]]:
    """A process of this room's helpers that has started and waits for a line on its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"integrations_dagster_tests.delivery.{module}", str(storage), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait(30)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def result(process: subprocess.Popen[str]) -> dict[str, int]:
    assert process.stdout is not None
    found: dict[str, int] = json.loads(process.stdout.readline())
    assert process.wait(30) == 0
    return found


def test_one_refresh_per_expiry_for_16_threads_in_2_processes(storage: Path, sandbox: Endpoint) -> None:
    """A token that ends every 50 requests, under 2,000 requests."""
    control = SandboxClient(sandbox)
    control.configure(token_requests=50, token_seconds=0, quota={"limit": 100_000, "window": 1})
    allowed(refreshing(sandbox), storage)
    with child(storage, 8, 1000) as one, child(storage, 8, 1000) as other:
        go(one)
        go(other)
        counts = [result(one), result(other)]
    seen = control.tokens()
    refreshes = seen["granted"].get("refresh_token", 0)
    print(f"2 processes: {counts}; tokens expired: {seen['expired']}; refreshes: {refreshes}")
    assert [c["done"] for c in counts] == [1000, 1000]
    assert [c.get("failed", 0) for c in counts] == [0, 0]
    assert refreshes == seen["expired"]
    assert refreshes in (39, 40)
    assert seen["refused"] == {}


def test_a_kill_between_rotation_and_storing(storage: Path, sandbox: Endpoint) -> None:
    """The sandbox has replaced the refresh token, and the process that should have stored the new one is dead."""
    control = SandboxClient(sandbox)
    one = refreshing(sandbox)
    allowed(one, storage)
    lets_in = credentials(one, storage)
    assert status(one, lets_in) == 200
    before = token_file(one, storage).read()
    control.expire_tokens()
    control.faults([{"match": {"path": "/oauth/token"}, "times": 1, "fault": {"kind": "hold", "applied": True}}])
    with child(storage, 1, 1) as process:
        go(process)
        control.wait_held()
        assert control.tokens()["granted"]["refresh_token"] == 1
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert token_file(one, storage).read() == before
    assert status(one, lets_in) == 401
    assert lets_in.renew(lets_in.grant())
    assert status(one, lets_in) == 200
    after = token_file(one, storage).read()
    assert before is not None
    assert after is not None
    assert before.refresh != after.refresh
    assert control.tokens()["granted"]["refresh_token"] == 2
    assert control.tokens()["refused"] == {}
    print("killed between rotation and storing: the old refresh token was used again, and replaced")


def test_a_vendor_without_overlap_needs_a_person_after_such_a_kill(storage: Path, sandbox: Endpoint) -> None:
    control = SandboxClient(sandbox)
    control.configure(refresh_token_overlap=False)
    one = refreshing(sandbox)
    allowed(one, storage)
    control.faults([{"match": {"path": "/oauth/token"}, "times": 1, "fault": {"kind": "reset", "applied": True}}])
    lets_in = credentials(one, storage)
    with pytest.raises(NotSent):
        lets_in.renew(lets_in.grant())
    with pytest.raises(Refused, match="invalid_grant") as caught:
        credentials(one, storage).renew(lets_in.grant())
    assert "Run `integrations auth crm --target prod`" in caught.value.remedy
    allowed(one, storage)
    assert status(one, credentials(one, storage)) == 200


def test_a_token_is_refreshed_before_it_expires(
    storage: Path, sandbox: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = SandboxClient(sandbox)
    control.configure(token_seconds=1000.0)
    one = account(sandbox, "client_credentials", **client(sandbox))
    lets_in = credentials(one, storage)
    first = lets_in.grant()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 930.0)
    assert lets_in.grant().serial == first.serial
    monkeypatch.setattr(time, "time", lambda: now + 950.0)  # less than 60 s of its life are left
    assert lets_in.grant().serial != first.serial
    assert credentials(one, storage).grant().serial == lets_in.grant().serial
    assert control.tokens() == {"granted": {"client_credentials": 2}, "refused": {}, "expired": 0}


def test_while_a_token_is_good_an_outage_of_its_endpoint_stops_nobody(
    storage: Path, sandbox: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = SandboxClient(sandbox)
    control.configure(token_seconds=1000.0)
    one = account(sandbox, "client_credentials", **client(sandbox))
    lets_in = credentials(one, storage)
    good = lets_in.grant()
    control.faults([{"match": {"path": "/oauth/token"}, "fault": {"kind": "status", "status": 503}}])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 950.0)
    since = control.last_seq()
    assert {lets_in.grant().serial for _ in range(20)} == {good.serial}
    assert control.last_seq() == since + 1  # and the endpoint is left alone for some seconds
    monkeypatch.setattr(time, "time", lambda: now + 1001.0)
    with pytest.raises(NotSent, match="is out of order: it answered 503"):
        lets_in.grant()


def test_threads_that_wait_for_a_refresh_do_not_repeat_its_failure(storage: Path, sandbox: Endpoint) -> None:
    control = SandboxClient(sandbox)
    control.faults(
        [
            {"match": {"path": "/oauth/token"}, "fault": {"kind": "latency", "seconds": 0.3}},
            {"match": {"path": "/oauth/token"}, "fault": {"kind": "status", "status": 503}},
        ]
    )
    lets_in = credentials(account(sandbox, "client_credentials", **client(sandbox)), storage)
    failed = []

    def ask() -> None:
        try:
            lets_in.grant()
        except NotSent as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 16
    assert [request["status"] for request in control.received()] == [503]


def test_a_token_that_could_not_be_stored_is_stored_later_and_not_asked_for_again(
    storage: Path, sandbox: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = SandboxClient(sandbox)
    control.configure(refresh_token_overlap=False)
    one = refreshing(sandbox)
    allowed(one, storage)
    lets_in = credentials(one, storage)
    old = lets_in.grant()
    kept = token_file(one, storage).read()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(NotSent, match=r"could not be stored below .*: No space left on device"):
            lets_in.renew(old)
    assert token_file(one, storage).read() == kept
    assert lets_in.renew(old)
    assert status(one, lets_in) == 200
    assert control.tokens()["granted"]["refresh_token"] == 1
    again = credentials(one, storage)
    assert again.renew(again.grant())
    assert control.tokens()["refused"] == {}


# The file


def token(number: int) -> Token:
    return Token(f"access-{number}" * 50, f"refresh-{number}" * 50, None, float(number), "g", "s")


def test_the_lock_excludes_and_its_wait_ends(tmp_path: Path) -> None:
    one, other = TokenFile(tmp_path / "tokens", "a"), TokenFile(tmp_path / "tokens", "a")
    with one.locked():
        with pytest.raises(Busy), other.locked(timeout=0.05):
            pass
        with TokenFile(tmp_path / "tokens", "b").locked(timeout=0.05):
            pass
    with other.locked(timeout=0.05):
        pass


def test_a_folder_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir(mode=0o755)
    with TokenFile(tmp_path / "tokens", "a").locked():
        assert (tmp_path / "tokens").stat().st_mode & 0o777 == 0o700


def test_a_draft_that_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    file = TokenFile(tmp_path, "a")
    with file.locked():
        file.write(token(1))
    (tmp_path / "a.tmp").write_text("half a tok")
    assert file.read() == token(1)
    with file.locked():
        file.write(token(2))
    assert file.read() == token(2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.lock"]
    assert "access-2" not in repr(file.read())


@pytest.mark.parametrize(
    ("life", "skew"), [(1800.0, 60.0), (600.0, 60.0), (100.0, 10.0), (1.0, 0.1)], ids=lambda value: f"{value:g}"
)
def test_how_early_a_token_is_refreshed(life: float, skew: float) -> None:
    one = Token("a", None, 1000.0 + life, 1000.0)
    assert not one.stale(1000.0 + life - skew - 0.001)
    assert one.stale(1000.0 + life - skew + 0.001)
    assert not one.expired(1000.0 + life - 0.001)
    assert one.expired(1000.0 + life)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigkill_at_random_moments_of_rotation(storage: Path) -> None:
    """60 kills of two processes that do nothing but rotate: the file is whole each time, and the next goes on."""
    endpoint, _ = ensure_running(storage)
    control = SandboxClient(endpoint)
    control.configure(token_requests=1, token_seconds=0, quota={"limit": 100_000, "window": 1})
    one = refreshing(endpoint)
    allowed(one, storage)
    chance = random.Random(20_261_121)
    rotations = 0
    for _ in range(30):
        with child(storage, 4, 100_000) as first, child(storage, 4, 100_000) as second:
            go(first)
            go(second)
            was = control.tokens()["granted"].get("refresh_token", 0)
            while control.tokens()["granted"].get("refresh_token", 0) < was + 3:
                time.sleep(0.005)
            time.sleep(chance.uniform(0.0, 0.05))  # the moment is what is random here
            for process in (first, second):
                process.send_signal(signal.SIGKILL)
        stored = token_file(one, storage).read()
        assert stored is not None
        assert stored.refresh
        lets_in = credentials(one, storage)
        assert status(one, lets_in) == 200 or (lets_in.renew(lets_in.grant()) and status(one, lets_in) == 200)
        rotations = control.tokens()["granted"]["refresh_token"]
    print(f"60 kills, {rotations} rotations, refused: {control.tokens()['refused']}")
    assert control.tokens()["refused"] == {}
