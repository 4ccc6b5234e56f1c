"""The processes of a measurement: how they are made, what they cost, and that none outlives it."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from integrations_dagster.vocabulary import Worker

ROOT = Path(__file__).parents[1]
LONGEST = 1800.0
"""Seconds that a process may take."""


def this_process() -> Worker:
    process = psutil.Process()
    return Worker(socket.gethostname(), process.pid, process.create_time())


def forkserver() -> ForkServerContext:
    """Processes as the default executor makes them: forked from a server that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.baselines", "benchmarks.runs"])
    return context


def cpu_seconds() -> float:
    """CPU time of this process so far, its threads included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_memory(pid: int | str = "self") -> float:
    """Peak resident memory of a process so far, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


@dataclass
class Used:
    """What the processes of a server used.

    Attributes:
        cpu: CPU seconds.
        memory: The greatest memory that they had at once in MB, without what they share, as seen ten times a second.
    """

    cpu: float = 0.0
    memory: float = 0.0


@contextmanager
def watched(pid: int) -> Iterator[Used]:
    """What a server with a process for each connection uses in the block; known at its end.

    Args:
        pid: Of the process that started the others; 0: there is no server.
    """
    used, done = Used(), threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            used.memory = max(used.memory, sum(map(_own_memory, _children(pid))))

    if not pid:
        yield used
        return
    before = _cpu_of_all(pid)
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield used
    finally:
        done.set()
        looking.join()
        used.cpu = _cpu_of_all(pid) - before


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def _own_memory(pid: int) -> float:
    with suppress(OSError):  # it has ended
        for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _cpu_of_all(pid: int) -> float:
    """CPU time of a process and its children, those that have ended included."""
    times = psutil.Process(pid).cpu_times()
    used: float = times.user + times.system + times.children_user + times.children_system
    for child in _children(pid):
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(child).cpu_times()
            used += times.user + times.system
    return used


Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A function, its arguments, its named arguments."""


def in_processes(calls: Sequence[Call]) -> list[Any]:
    """Call functions at once, each in a process of its own; returns their results in order.

    Raises:
        RuntimeError: A process died or its function raised; the others are ended.
    """
    context = forkserver()
    started = []
    try:
        for function, arguments, named in calls:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_call, args=(sender, function, arguments, named))
            # Whoever is started is known: what ends this process in between would leave it behind, writing.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            try:
                process.start()
                started.append((process, receiver))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            sender.close()
        results = []
        for _process, receiver in started:
            if not receiver.poll(LONGEST):
                raise RuntimeError(f"A process has not ended within {LONGEST:g} s.")
            try:
                fine, result = receiver.recv()
            except EOFError:
                fine, result = False, "A process died."
            if not fine:
                raise RuntimeError(result)
            results.append(result)
        return results
    except BaseException:
        for process, _receiver in started:
            process.kill()
        raise
    finally:
        for process, receiver in started:
            receiver.close()
            process.join()


def _call(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        sender.send((True, function(*arguments, **named)))
    except BaseException:  # noqa: BLE001 (told to the process that waits)
        sender.send((False, traceback.format_exc()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as an error does, so that what it started and wrote is cleaned up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class Server:
    """A running stand-in server."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid

    def control(self, **settings: Any) -> dict[str, Any]:
        """Change settings, and forget the counts where `reset=True`; returns the counts from before."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", "/control", json.dumps(settings))
            told: dict[str, Any] = json.loads(connection.getresponse().read())
            return told
        finally:
            connection.close()


@contextmanager
def serving(**settings: Any) -> Iterator[Server]:
    """A stand-in server in a process of its own; see `server.Settings`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        server = Server(int(process.stdout.readline()), process.pid)
        server.control(**settings)
        yield server
    finally:
        process.kill()
        process.communicate()


@contextmanager
def temporary() -> Iterator[str]:
    """A folder that ends with the block."""
    folder = tempfile.mkdtemp(prefix="integrations-benchmark-")
    try:
        yield folder
    finally:
        # A process that was about to begin when it was ended may make its files once more.
        quiet = 0
        while quiet < 5:
            quiet = 0 if Path(folder).exists() else quiet + 1
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.1)
