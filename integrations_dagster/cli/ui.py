"""`make ui`: the Dagster UI and its daemon, with the sandbox beside them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType

from integrations_dagster.cli import project, show
from integrations_dagster.vocabulary import IntegrationsError

HOST = "127.0.0.1"
TRIED = 50
"""Ports tried, one after the other."""


def run_ui(root: Path, port: int) -> int:
    """Serve until interrupted.

    Args:
        root: The project root, with its workspace.yaml.
        port: Where to begin to look for a free port.

    Returns:
        The exit code of `dagster dev`; 0 if it was interrupted.

    Raises:
        IntegrationsError: No port is free, or the sandbox does not start.
    """
    console = show.err()
    storage = project.prepare(root)
    free = free_port(port)
    with project.sandbox(storage) as (endpoint, _):
        console.print(f"Dagster UI: http://{HOST}:{free}" + ("" if free == port else f" (port {port} is taken)"))
        console.print(f"Sandbox:    {endpoint.url}")
        console.print("Stop both with Ctrl-C; what they hold is kept.")
        return _dagster_dev(root, free)


def free_port(first: int) -> int:
    """The first port of the loopback address from `first` upwards that nobody listens on.

    Raises:
        IntegrationsError: There is none among the next 50.
    """
    for port in range(first, min(first + TRIED, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise IntegrationsError(f"No port from {first} on is free.", "Choose another with `integrations ui --port`.")


def _dagster_dev(root: Path, port: int) -> int:
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(root / "workspace.yaml"), "-h", HOST, "-p", str(port)]
    # `dagster dev` says on every start that it has a successor, which would need another set-up than workspace.yaml.
    quiet = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:Function `dev_command`"]))
    process: subprocess.Popen[bytes] | None = None
    interrupted = False

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            if process is not None:
                process.send_signal(signal.SIGINT)

    # Before it starts: a shell's background job ignores SIGINT, and would hand that on to it.
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        # In a group of its own it is told to stop once, by us, whether Ctrl-C reached one process or all.
        env = {**os.environ, "PYTHONWARNINGS": quiet}
        process = subprocess.Popen(command, cwd=root, start_new_session=True, env=env)  # noqa: S603 (our own interpreter)
        if interrupted:
            process.send_signal(signal.SIGINT)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if interrupted else code
