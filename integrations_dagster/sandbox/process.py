"""Starts, finds and stops the sandbox of a storage folder as a background process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
import requests

from integrations_dagster.sandbox.endpoint import Endpoint, read_endpoint, state_folder

_POLL = 0.02


def alive(endpoint: Endpoint) -> bool:
    """Whether the process that wrote the endpoint runs still (and its id was not given to another)."""
    process = _process(endpoint)
    return process is not None


def answering(endpoint: Endpoint) -> bool:
    """Whether the endpoint's process lives and answers as this sandbox."""
    if not endpoint.url or not alive(endpoint):
        return False
    try:
        answer = requests.get(
            f"{endpoint.url}/_sandbox/ping", headers={"Authorization": f"Bearer {endpoint.token}"}, timeout=5
        )
        return answer.status_code == 200 and answer.json()["id"] == endpoint.id
    except (requests.RequestException, ValueError, KeyError):
        return False


def ensure_running(storage: Path, timeout: float = 20) -> tuple[Endpoint, bool]:
    """Find the sandbox of a storage folder, or start it in the background.

    Args:
        storage: The storage folder.
        timeout: Seconds to wait for it to answer.

    Returns:
        Where it listens, and whether this call started it.

    Raises:
        TimeoutError: It ended, or does not answer in time; the message holds the end of its log.
        ValueError: The endpoint file is damaged.
    """
    storage = storage.resolve()
    endpoint = read_endpoint(storage)
    if endpoint is not None and answering(endpoint):
        return endpoint, False
    folder = state_folder(storage)
    folder.mkdir(parents=True, exist_ok=True)
    log_path = folder / "sandbox.log"
    command = [sys.executable, "-m", "integrations_dagster.sandbox", "--storage", str(storage), "--detach"]
    log_path.touch(mode=0o600)
    with log_path.open("ab") as log:
        begin = log.tell()
        launched = subprocess.run(  # noqa: S603 our own module
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, check=False, timeout=timeout
        )
    pid = int(launched.stdout or 0)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        ended = not _runs(pid)
        endpoint = read_endpoint(storage)
        # Where two start it at once, one of the processes ends when it sees the other.
        if endpoint is not None and answering(endpoint):
            return endpoint, endpoint.pid == pid
        if ended:
            break
        time.sleep(_POLL)
    tail = log_path.read_bytes()[begin:][-2000:].decode("utf-8", "replace").strip()
    raise TimeoutError(f"The sandbox of {storage} did not start within {timeout:g} seconds. Its log: {tail or 'empty'}")


def stop(storage: Path, timeout: float = 10) -> bool:
    """Stop the sandbox of a storage folder; its state stays.

    Args:
        storage: The storage folder.
        timeout: Seconds to wait before the process is killed.

    Returns:
        Whether one was running.
    """
    endpoint = read_endpoint(storage.resolve())
    process = _process(endpoint) if endpoint is not None else None
    if process is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        if not _ended(process.pid, timeout):
            process.kill()
            _ended(process.pid, timeout)
    return True


def _ended(pid: int, timeout: float) -> bool:
    # A process that has ended but was not collected by its parent counts as ended.
    deadline = time.monotonic() + timeout
    while _runs(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _runs(pid: int) -> bool:
    try:
        return bool(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _process(endpoint: Endpoint) -> psutil.Process | None:
    if not endpoint.pid:
        return None
    try:
        process = psutil.Process(endpoint.pid)
        # Start times are rounded differently by different readers.
        same = abs(process.create_time() - endpoint.pid_started) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
