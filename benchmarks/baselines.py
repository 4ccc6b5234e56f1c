"""What a write is measured against: the same bodies, made before the clock starts, and nothing else to do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import TypeAlias

from benchmarks.processes import cpu_seconds, forkserver, in_processes

PATH = "/crm/v3/objects/contacts/batch/upsert"
Send: TypeAlias = Callable[[int, Sequence[bytes], int], None]
"""Sends bodies to a port over so many connections."""


@dataclass(frozen=True)
class Measured:
    """A baseline: seconds from the first request to the last answer, and CPU seconds of its processes in between."""

    seconds: float
    cpu: float


def bodies(first: int, last: int, rows: int) -> list[bytes]:
    """Bodies as a sync of `Setting.load`'s customers sends them, for the rows from `first` to before `last`."""
    made = []
    for start in range(first, last, rows):
        inputs = ",".join(
            f'{{"id":"c{i}@example.com","idProperty":"email","objectWriteTraceId":"{i}","properties":{{'
            f'"company":"Company {i % 5000}","email":"c{i}@example.com","firstname":"First {i}",'
            f'"jobtitle":"Title v0","last_order":"2026-01-01","lastname":"Last {i}",'
            f'"lifetime_value":"{i % 100000 / 100:.2f}"}}}}'
            for i in range(start, min(start + rows, last))
        )
        made.append(f'{{"inputs":[{inputs}]}}'.encode())
    return made


def prepared(port: int, rows: int, batch_rows: int = 100, connections: int = 16, processes: int = 4) -> Measured:
    """Send all rows over kept-alive raw connections as fast as they are answered; answers are read whole.

    Args:
        processes: They share the connections evenly.
    """
    return _parallel(_raw, port, rows, batch_rows, connections, processes)


def requests_pool(port: int, rows: int, batch_rows: int = 100, threads: int = 16) -> Measured:
    """Send all rows by one `requests.Session` and a pool of threads, as a script would."""
    return _parallel(_pool, port, rows, batch_rows, threads, 1)


def _parallel(send: Send, port: int, rows: int, batch_rows: int, connections: int, processes: int) -> Measured:
    batches = -(-rows // batch_rows)
    edges = [batches * i // processes * batch_rows for i in range(processes)] + [rows]
    ready = forkserver().Barrier(processes)
    parts = in_processes(
        [
            (_make_and_send, (send, ready, port, edges[i], edges[i + 1], batch_rows, connections // processes), {})
            for i in range(processes)
        ]
    )
    return Measured(max(p[1] for p in parts) - min(p[0] for p in parts), sum(p[2] for p in parts))


def _make_and_send(
    send: Send, ready: Barrier, port: int, first: int, last: int, batch_rows: int, connections: int
) -> tuple[float, float, float]:
    made = bodies(first, last, batch_rows)
    ready.wait(300)
    before, started = cpu_seconds(), time.monotonic()
    send(port, made, connections)
    return started, time.monotonic(), cpu_seconds() - before


def _raw(port: int, made: Sequence[bytes], connections: int) -> None:
    waiting = iter(made)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while True:
                    with lock:
                        body = next(waiting, None)
                    if body is None:
                        return
                    _exchange(connection, body)
        except BaseException as error:  # noqa: BLE001 (raised below)
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _exchange(connection: socket.socket, body: bytes) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % (PATH.encode(), len(body)) + body)
    answer = connection.recv(262_144)
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += connection.recv(262_144)
    length = int(answer[:end].rpartition(b"Content-Length: ")[2].split(b"\r\n")[0])
    missing = end + 4 + length - len(answer)
    while missing > 0:
        missing -= len(connection.recv(262_144))
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"The server answered {answer[:60]!r}.")


def _pool(port: int, made: Sequence[bytes], threads: int) -> None:
    import requests

    url = f"http://127.0.0.1:{port}{PATH}"
    with requests.Session() as session, ThreadPoolExecutor(threads) as pool:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=threads))

        def send(body: bytes) -> None:
            session.post(url, data=body, headers={"Content-Type": "application/json"}).raise_for_status()

        for _ in pool.map(send, made):
            pass
