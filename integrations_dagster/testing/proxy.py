"""A proxy on loopback between the delivery engine and the server: sees every request, and answers in its place."""

from __future__ import annotations

import gzip
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import urllib3

from integrations_dagster.testing.subject import Answer

READS = "x-conformance-reads"
"""Header by which the engine's side tells whether a request changes nothing; the server never sees it."""
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", READS})


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that went through the proxy.

    Attributes:
        at: When it arrived, seconds of `time.monotonic()`.
        ended: When its answer was there (or the connection closed).
        method: HTTP method.
        path: Path and query.
        headers: Names in lower case.
        body: Uncompressed.
        reads: Whether it changes nothing.
        faulted: Whether the suite answered, or changed the answer.
        forwarded: Whether the server got it.
        status: What was answered; 0: the connection was closed.
        answer: The body that was answered, uncompressed where the suite changed it.
        told: Headers of the answer, names in lower case.
    """

    at: float
    ended: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    reads: bool
    faulted: bool
    forwarded: bool
    status: int
    answer: bytes
    told: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Fault:
    """What goes wrong with requests, until it has happened so many times.

    Attributes:
        answer: What is answered; None: the connection is closed without an answer.
        effect: Whether the server gets the request first.
        change: Turns the server's answer into another, in place of `answer`.
        reads: Only requests that change nothing (True), only others (False), or any (None).
        times: How many requests, or None: all.
        skip: Requests that pass first.
        when: Further condition on method, path and body.
    """

    answer: Answer | None = None
    effect: bool = False
    change: Callable[[Answer], Answer] | None = None
    reads: bool | None = False
    times: int | None = 1
    skip: int = 0
    when: Callable[[str, str, bytes], bool] | None = None
    fired: int = 0

    def takes(self, method: str, path: str, body: bytes, *, reads: bool) -> bool:
        """Whether this request goes wrong; counts it."""
        if self.reads is not None and self.reads != reads:
            return False
        if self.when is not None and not self.when(method, path, body):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None and self.fired >= self.times:
            return False
        self.fired += 1
        return True


@dataclass(slots=True)
class Proxy:
    """What the proxy does and has seen.

    Attributes:
        target: Base URL of the server.
        url: Base URL of the proxy, which stands for it.
        faults: Asked in order; the first that takes a request decides.
        seen: Requests in the order of their answers.
        delay: Seconds that each request takes longer.
        in_flight, most_in_flight: Requests between arrival and answer, now and at the most.
    """

    target: str
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    delay: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=64, retries=False))

    @property
    def writes(self) -> list[Seen]:
        """The requests that change something."""
        return [seen for seen in self.seen if not seen.reads]

    def clear(self, faults: Sequence[Fault] = ()) -> None:
        """Forget what was seen, and have these faults from now on."""
        with self.lock:
            self.seen.clear()
            self.faults = list(faults)
            self.delay, self.most_in_flight = 0.0, 0

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """The server's own answer, undecoded; 502 where there is none."""
        parts = urlsplit(self.target)
        try:
            answer = self.pool.request(
                method,
                urlunsplit((parts.scheme, parts.netloc, "", "", "")) + path,
                body=body if body or method in ("POST", "PUT", "PATCH") else None,
                headers={name: value for name, value in headers.items() if name not in _HOP},
                redirect=False,
                decode_content=False,
                timeout=30.0,
            )
        except urllib3.exceptions.HTTPError as error:
            return Answer(502, f"The server under test did not answer: {type(error).__name__}".encode())
        kept = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in _HOP}
        return Answer(answer.status, answer.data, kept)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of ours."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def _do(self) -> None:
        proxy, at = self.server.proxy, time.monotonic()
        headers = {name.lower(): value for name, value in self.headers.items()}
        raw = self.rfile.read(int(headers.get("content-length") or 0))
        body = gzip.decompress(raw) if headers.get("content-encoding") == "gzip" else raw
        reads = headers.pop(READS, "0") == "1"
        with proxy.lock:
            proxy.in_flight += 1
            proxy.most_in_flight = max(proxy.most_in_flight, proxy.in_flight)
            found = (f for f in proxy.faults if f.takes(self.command, self.path, body, reads=reads))
            fault = next(found, None)
        if proxy.delay:
            time.sleep(proxy.delay)
        answer: Answer | None = None
        forwarded = fault is None or fault.effect or fault.change is not None
        if forwarded:
            answer = proxy.forward(self.command, self.path, headers, raw)
        if fault is not None:
            answer = fault.change(_decoded(answer)) if fault.change is not None and answer else fault.answer
        status, said = (answer.status, answer.body) if answer is not None else (0, b"")
        told = {name.lower(): value for name, value in answer.headers.items()} if answer is not None else {}
        with proxy.lock:
            proxy.in_flight -= 1
            proxy.seen.append(
                Seen(at, time.monotonic(), self.command, self.path, headers, body, reads, fault is not None,
                     forwarded, status, said, told)
            )  # fmt: skip
        self._reply(answer)

    def _reply(self, answer: Answer | None) -> None:
        if answer is None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD" and answer.status not in (204, 304):
            self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _do  # noqa: N815


def _decoded(answer: Answer) -> Answer:
    if answer.headers.get("content-encoding") != "gzip":
        return answer
    headers = {name: value for name, value in answer.headers.items() if name != "content-encoding"}
    return Answer(answer.status, gzip.decompress(answer.body), headers)


@contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    """A proxy that stands for a base URL.

    Args:
        target: Base URL of the server (http or https), which may have a path.
    """
    proxy = Proxy(target)
    server = _Server(proxy)
    parts = urlsplit(target)
    proxy.url = urlunsplit(("http", f"127.0.0.1:{server.server_port}", parts.path, parts.query, ""))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        proxy.pool.clear()
