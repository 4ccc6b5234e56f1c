"""Runs the sandbox of a storage folder: one server at a time, on loopback."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from integrations_dagster.sandbox.app import Sandbox
from integrations_dagster.sandbox.endpoint import (
    new_endpoint,
    read_endpoint,
    started,
    state_folder,
    write_endpoint,
)
from integrations_dagster.sandbox.process import answering
from integrations_dagster.sandbox.store import Store
from integrations_dagster.sandbox.wire import Transports, recording_protocol
from integrations_dagster.vocabulary import IntegrationsError

HOST = "127.0.0.1"
_BACKLOG = 256
_STARTING = 10.0
"""Seconds that a sandbox which holds the lock may take until it answers."""


class SandboxError(IntegrationsError):
    """The sandbox cannot be started."""


def serve(storage: Path, port: int = 0, *, quiet: bool = True) -> None:
    """Serve the sandbox of a storage folder until the process is told to stop (SIGINT, SIGTERM).

    Returns at once, saying so, where a sandbox of this storage already answers.

    Args:
        storage: The storage folder; the state is in its `sandbox` folder.
        port: A port of 127.0.0.1, or 0 for the last one if it is free, else any.
        quiet: Whether requests are left out of the log.

    Raises:
        SandboxError: The port is taken, or another process holds the state and does not answer.
        ValueError: The endpoint file is damaged.
    """
    storage = storage.resolve()
    state_folder(storage).mkdir(parents=True, exist_ok=True)
    with _lock(storage) as mine:
        if mine:
            _serve(storage, port, quiet=quiet)
        else:
            _report_running(storage)


def _serve(storage: Path, port: int, *, quiet: bool) -> None:
    endpoint = read_endpoint(storage) or new_endpoint()
    with _bind(port, endpoint.url) as listening:
        url = f"http://{HOST}:{listening.getsockname()[1]}"
        endpoint = started(endpoint, url, os.getpid(), psutil.Process().create_time())
        store = Store(state_folder(storage) / "state.sqlite")
        try:
            transports: Transports = {}
            sandbox = Sandbox(store, endpoint, transports)
            config = uvicorn.Config(
                sandbox.app,
                http=recording_protocol(AutoHTTPProtocol, transports),
                ws="none",
                lifespan="off",
                log_level="warning" if quiet else "info",
                access_log=not quiet,
                timeout_keep_alive=120,
                timeout_graceful_shutdown=2,
            )
            server = _Server(config, storage, sandbox)
            # uvicorn ends by the interrupt that it was ended by; here it is the way to stop.
            with suppress(KeyboardInterrupt):
                server.run(sockets=[listening])
        finally:
            store.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, storage: Path, sandbox: Sandbox) -> None:
        super().__init__(config)
        self._storage = storage
        self._sandbox = sandbox

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        # Only now does someone answer who reads the file.
        write_endpoint(self._storage, self._sandbox.endpoint)
        sys.stderr.write(f"The sandbox listens on {self._sandbox.endpoint.url} (state: {self._storage}).\n")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._sandbox.faults.release()
        await super().shutdown(sockets=sockets)


@contextmanager
def _lock(storage: Path) -> Iterator[bool]:
    # The kernel frees the lock when its holder dies, however it dies.
    descriptor = os.open(state_folder(storage) / "sandbox.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _report_running(storage: Path) -> None:
    deadline = time.monotonic() + _STARTING
    while time.monotonic() < deadline:
        endpoint = read_endpoint(storage)
        if endpoint is not None and answering(endpoint):
            sys.stderr.write(f"The sandbox of {storage} is already running on {endpoint.url}.\n")
            return
        time.sleep(0.05)
    raise SandboxError(
        f"Another process holds the sandbox of {storage} and does not answer.", "End that process, and start again."
    )


def _bind(port: int, last_url: str) -> socket.socket:
    last = int(last_url.rpartition(":")[2]) if last_url else 0
    for wanted in [port] if port else [last, 0]:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # A port whose last server has just ended is free, although old connections linger.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, wanted))
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            if wanted == port:
                raise SandboxError(
                    f"The sandbox cannot listen on {HOST}:{wanted}: {error.strerror}.", "Choose another port."
                ) from error
            continue
        return listening
    raise SandboxError(f"The sandbox found no free port on {HOST}.")
