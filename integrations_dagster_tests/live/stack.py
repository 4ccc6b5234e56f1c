"""The webserver, the daemon and their code server as processes that end together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil

MARK = "INTEGRATIONS_LIVE_STACK"
"""Names the stack in the environment of all its processes, whoever their parent has become."""
POLL = 0.25
"""Seconds between two looks at something awaited."""

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], timeout: float) -> T:
    """Look until there is something.

    Args:
        what: Named when it does not come.
        look: Returns what is awaited, or None (False, an empty list) as long as there is nothing.
        timeout: Seconds.

    Raises:
        TimeoutError: It did not come.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"Still no {what} after {timeout:g} seconds.")
        time.sleep(POLL)


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """A Dagster command with everything it starts.

    Args:
        command: The arguments after `python -m`.
        folder: Where it works.
        log: File for what it says.
        env: Variables beside those of this process; Dagster's and this project's own are not inherited.
    """

    def __init__(self, command: list[str], folder: Path, log: Path, env: dict[str, str]) -> None:
        self.log = log
        self._mark = uuid.uuid4().hex
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("INTEGRATIONS_", "DAGSTER_", "SLACK_", "HUBSPOT_", "EVENTS_", "PYTEST_"))
        }
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                env={**kept, "DAGSTER_DISABLE_TELEMETRY": "1", **env, MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def said(self, last: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-last:].decode("utf-8", "replace")

    def processes(self) -> list[psutil.Process]:
        """All processes of the stack that live: also those whose parent died before them."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def stop(self, patience: float = 10) -> None:
        """End everything: first as Ctrl-C would, then by force.

        Args:
            patience: Seconds for an orderly end.
        """
        if self.running:
            with suppress(ProcessLookupError):
                self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        # A process that is killed may have begun another one just before.
        while alive := self.processes():
            for process in alive:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(alive, timeout=5)
        self._process.wait(5)
