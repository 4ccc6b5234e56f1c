"""The request log: what a line holds, which bodies are kept, what is left of a file after a kill, retention."""

from __future__ import annotations

import gzip
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from integrations_dagster.delivery import request_log
from integrations_dagster.delivery.exchange import Exchange
from integrations_dagster.delivery.quotations import MASK
from integrations_dagster.delivery.request_log import (
    FIRST,
    LONGEST_BODY,
    RequestLogFile,
    find_exchanges,
    prune,
    read_log,
)

BODY = b'{"rows": [{"key": "1", "name": "Ada"}]}'


def exchange(number: int = 0, **changes: Any) -> Exchange:
    values: dict[str, Any] = {
        "at": 1_785_000_000.25 + number,
        "shard": 0,
        "batch": f"batch-{number}",
        "attempt": 1,
        "method": "POST",
        "path": "/people",
        "keys": (str(number), "x"),
        "status": 200,
        "error": "",
        "milliseconds": 51,
        "request_id": f"vendor-{number}",
        "sent": len(BODY),
        "received": 2,
        "request": BODY,
        "response": b"{}",
    }
    return Exchange(**{**values, **changes})


def one(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_a_line_tells_all_of_an_exchange(tmp_path: Path) -> None:
    log = RequestLogFile(tmp_path / "run", 3, 2, secrets=lambda: ("s3cr3t-token",))
    log.write(exchange(status=None, error="unavailable s3cr3t-token", path="/x/s3cr3t-token"), failed=True)
    log.close()
    path = one(tmp_path / "run")
    assert path.name == "requests-3-2.jsonl.gz"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(gzip.decompress(path.read_bytes())) == {
        "at": "2026-07-25T17:20:00.250+00:00",
        "shard": 0,
        "batch": "batch-0",
        "attempt": 1,
        "method": "POST",
        "path": f"/x/{MASK}",
        "status": None,
        "error": f"unavailable {MASK}",
        "milliseconds": 51,
        "request_id": "vendor-0",
        "sent": len(BODY),
        "received": 2,
        "keys": ["0", "x"],
        "request": BODY.decode(),
        "response": "{}",
    }


@pytest.mark.parametrize(("bodies", "kept"), [("failed", {*range(FIRST), 30}), ("all", {*range(40)}), ("none", set())])
def test_which_bodies_are_kept(tmp_path: Path, bodies: str, kept: set[int]) -> None:
    log = RequestLogFile(tmp_path, 0, 1, bodies=bodies)
    for number in range(40):
        log.write(exchange(number), failed=number == 30)
    log.close()
    assert {n for n, line in enumerate(read_log(one(tmp_path))) if "request" in line} == kept


def test_a_long_body_is_cut_after_it_was_scrubbed(tmp_path: Path) -> None:
    log = RequestLogFile(tmp_path, 0, 1, secrets=lambda: ("s3cr3t-token",))
    body = b"x" * (LONGEST_BODY - 6) + b"s3cr3t-token" + b"y" * 100
    log.write(exchange(response=body), failed=True)
    log.close()
    (line,) = read_log(one(tmp_path))
    assert line["response"].endswith(f"{MASK}yyy… (cut: {len(body) - 9:,} characters)")
    assert "s3cr3t" not in line["response"]


def test_later_answers_of_a_batch_are_scrubbed_by_what_it_sent(tmp_path: Path) -> None:
    log = RequestLogFile(tmp_path, 0, 1, sensitive=frozenset({"name"}), bodies="all")
    log.write(exchange(7), failed=False)
    log.write(exchange(7, method="GET", request=b"", response=b'{"error": "ADA is refused"}'), failed=True)
    log.write(exchange(8, method="GET", request=b"", response=b'{"error": "ADA is refused"}'), failed=True)
    log.close()
    first, second, third = read_log(one(tmp_path))
    assert json.loads(first["request"]) == {"rows": [{"key": "1", "name": MASK}]}
    assert json.loads(second["response"]) == {"error": f"{MASK} is refused"}
    assert third["response"].startswith("(withheld")


def test_no_file_without_an_exchange(tmp_path: Path) -> None:
    log = RequestLogFile(tmp_path / "run", 0, 1)
    log.flush()
    log.close()
    log.close()
    log.write(exchange(), failed=True)
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    for _ in range(3):
        log = RequestLogFile(tmp_path, -1, 1)
        log.write(exchange(), failed=False)
        log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "requests--1-1.2.jsonl.gz",
        "requests--1-1.3.jsonl.gz",
        "requests--1-1.jsonl.gz",
    ]


def test_threads_share_a_log(tmp_path: Path) -> None:
    log = RequestLogFile(tmp_path, 0, 1)

    def write(first: int) -> None:
        for i in range(200):
            log.write(exchange(first + i), failed=i % 9 == 0)

    threads = [threading.Thread(target=write, args=(n * 1000,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    batches = [line["batch"] for line in read_log(one(tmp_path))]
    assert sorted(batches) == sorted(f"batch-{n * 1000 + i}" for n in range(8) for i in range(200))


WRITER = """
import os, sys, time
from pathlib import Path
from integrations_dagster_tests.delivery.test_request_log import exchange
from integrations_dagster.delivery.request_log import RequestLogFile

log = RequestLogFile(Path(sys.argv[1]), 0, 1)
for number in range(30):
    log.write(exchange(number), failed=False)
print("written", flush=True)
time.sleep(60)
"""


def test_a_killed_writer_leaves_what_is_older_than_a_second(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        deadline = time.monotonic() + 20
        # Nothing is written any more, and yet the lines reach the disk.
        while len(list(read_log(one(tmp_path)))) < 30:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(writer.pid, signal.SIGKILL)
    assert [line["batch"] for line in read_log(one(tmp_path))] == [f"batch-{n}" for n in range(30)]


def test_a_file_that_is_cut_anywhere_gives_its_whole_lines(tmp_path: Path) -> None:
    log = RequestLogFile(tmp_path / "whole", 0, 1)
    sizes = []
    for number in range(12):
        log.write(exchange(number), failed=True)
        sizes.append(one(tmp_path / "whole").stat().st_size)
    log.close()
    whole = one(tmp_path / "whole").read_bytes()
    torn = tmp_path / "torn.gz"
    for size in range(0, len(whole), 7):
        torn.write_bytes(whole[:size])
        found = [line["batch"] for line in read_log(torn)]
        assert found == [f"batch-{n}" for n in range(len(found))]
        assert len(found) >= sum(flushed <= size for flushed in sizes)
    # After a crash of the machine, a file system may have the length of a file and not its end.
    torn.write_bytes(whole[: sizes[5]] + b"\0" * 100)
    assert len(list(read_log(torn))) >= 6


class FullDisk:
    """A file on a disk that has no room."""

    def write(self, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        return None

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "_created", lambda *_: FullDisk())


def test_a_full_disk_costs_one_warning(tmp_path: Path, full_disk: None) -> None:
    told: list[str] = []
    log = RequestLogFile(tmp_path, 0, 1, warn=told.append)
    for number in range(50):
        log.write(exchange(number), failed=True)
    log.close()
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert "the delivery goes on" in told[0]


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told: list[str] = []
    log = RequestLogFile(tmp_path / "file" / "run", 0, 1, warn=told.append)
    log.write(exchange(), failed=False)
    log.write(exchange(), failed=False)
    log.close()
    assert len(told) == 1


def test_the_exchanges_of_a_row_are_found(tmp_path: Path) -> None:
    for shard in range(3):
        log = RequestLogFile(tmp_path, shard, 1)
        for number in range(50):
            log.write(exchange(number, keys=(f"{shard}-{number}", '["a","ä"]' if number == 3 else "b")), failed=False)
        log.close()
    assert [line["batch"] for line in find_exchanges(tmp_path, "1-17")] == ["batch-17"]
    assert [line["shard"] for line in find_exchanges(tmp_path, '["a","ä"]')] == [0, 0, 0]
    assert len(list(find_exchanges(tmp_path, "no such key", ["batch-8"]))) == 3
    assert list(find_exchanges(tmp_path, "1-1")) == [*find_exchanges(tmp_path, "1-1")]
    assert list(find_exchanges(tmp_path / "none", "1")) == []


def test_what_cannot_be_encoded_does_not_stop_the_delivery(tmp_path: Path) -> None:
    log = RequestLogFile(tmp_path, 0, 1)
    log.write(exchange(keys=("\ud800", "1"), response=b'"\\ud800"'), failed=True)
    log.write(exchange(1), failed=True)
    log.close()
    assert [line["batch"] for line in read_log(one(tmp_path))] == ["batch-0", "batch-1"]


def test_old_logs_are_pruned(tmp_path: Path) -> None:
    now = time.time()
    for days in (0, 1, 13.9, 14.1, 100):
        folder = tmp_path / f"run-{days}"
        log = RequestLogFile(folder, 0, 1)
        log.write(exchange(), failed=False)
        log.close()
        os.utime(one(folder), (now - days * 86_400,) * 2)
    (tmp_path / "stray").touch()
    assert prune(tmp_path, 14, now) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-0", "run-1", "run-13.9", "stray"]
    assert prune(tmp_path / "none", 14, now) == 0


def test_a_line_is_cheap(tmp_path: Path) -> None:
    body = json.dumps(
        {"rows": [{"key": str(i), "name": f"Name {i}", "email": f"p{i}@x.io"} for i in range(100)]}
    ).encode()
    log = RequestLogFile(tmp_path, 0, 1, secrets=lambda: ("s3cr3t-token",), sensitive=frozenset({"email"}))
    lines = [exchange(n, keys=tuple(map(str, range(100))), request=body, response=body) for n in range(520)]
    for line in lines[:20]:
        log.write(line, failed=False)
    started = time.thread_time()
    for line in lines[20:]:
        log.write(line, failed=False)
    each = (time.thread_time() - started) / 500
    log.close()
    print(f"{each * 1e6:.0f} µs a line of 100 keys, {one(tmp_path).stat().st_size / 520:.0f} bytes")
    assert each < 300e-6  # twice the budget, for a machine that is busy
