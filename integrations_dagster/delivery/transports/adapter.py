"""The HTTP client's way to one host, over one connection that tells when a request leaves and when its answer comes."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPResponse
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.wait import wait_for_read

TOGETHER = 256 * 1024
"""Bytes of a body up to which it is copied behind its head."""
LATE_PARTS = 3
"""Parts of an answer that are read although the time is up: a process that was stopped finds the whole answer there."""


class _HeadInTime(io.RawIOBase):
    """What comes over a connection. It bounds the time of an answer's head, of which each part could come in time.

    Args:
        socket: Of the connection.
        until: The end of the time, by `time.monotonic()`.
    """

    def __init__(self, socket: Any, until: float) -> None:
        self._raw = socket.makefile("rb", buffering=0)
        self._until = until
        self._late = 0
        self.whole = False

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def readinto(self, buffer: Any) -> int | None:
        if not self.whole:
            self._late += time.monotonic() > self._until
            if self._late > LATE_PARTS:
                raise TimeoutError("the head of the answer took too long")
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reading:
    """Stands for a socket where an `HTTPResponse` asks for what is read from it."""

    def __init__(self, raw: _HeadInTime) -> None:
        self._raw = raw

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._raw)


class OneHost(HTTPAdapter):
    """All requests go to one host in one way: what leads there is found once, not for every request.

    One instance belongs to one thread. Retries are the engine's, which records each attempt before it is made.

    Args:
        timeout: Seconds from the first byte of a request to the first byte of its answer.

    Attributes:
        departed: When the first byte of the last request left, by `time.monotonic()`; 0.0 before the first.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)
        self._timeout = timeout
        self.departed = 0.0
        self._pool: Any = None
        self._flight: AbstractContextManager[None] | None = None
        self._flying = False

    @contextmanager
    def on(self, flight: AbstractContextManager[None]) -> Iterator[None]:
        """One request is sent within: its first byte enters the flight, the first byte of its answer leaves it.

        What comes before and after (connecting, writing the head, reading the answer) takes time of this process, and
        none of the destination's.
        """
        self._flight = flight
        try:
            yield
        finally:
            self._land()
            self._flight = None

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: Any = None,
    ) -> Any:
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
            self._pool.ConnectionCls = self._telling(self._pool.ConnectionCls)
        return self._pool

    def _take_off(self) -> None:
        if self._flight is not None and not self._flying:
            self._flight.__enter__()
            self._flying = True
            self.departed = time.monotonic()

    def _left(self) -> float:
        if not self._flying:
            return self._timeout
        # A socket takes 0 for "do not wait at all", which is another mode.
        return max(0.001, self.departed + self._timeout - time.monotonic())

    def _land(self) -> None:
        if self._flight is not None and self._flying:
            self._flying = False
            self._flight.__exit__(None, None, None)

    def _telling(self, connection: Any) -> Any:
        adapter = self

        class Telling(connection):  # type: ignore[misc]  # that of HTTP or of HTTPS
            _holds = False
            _head = b""

            def request(self, method: str, url: str, body: Any = None, *arguments: Any, **named: Any) -> None:
                # Head and body leave together: between two calls of the system, other threads take their turn.
                self._holds, self._head = bool(body), b""
                super().request(method, url, body, *arguments, **named)

            def send(self, data: Any) -> None:
                if self._holds:
                    self._holds, self._head = False, data
                    return
                head, self._head = self._head, b""
                if head and len(data) <= TOGETHER:
                    head, data = b"", head + data
                if self.sock is None and self.auto_open:
                    self.connect()
                # Until now it was that of connecting.
                self.sock.settimeout(adapter._left())
                adapter._take_off()
                if head:
                    super().send(head)
                super().send(data)

            def getresponse(self) -> Any:
                decrypted = getattr(self.sock, "pending", None)
                if not (decrypted is not None and decrypted()) and not wait_for_read(self.sock, adapter._left()):
                    raise TimeoutError("no answer")
                adapter._land()
                raw = _HeadInTime(self.sock, adapter.departed + adapter._timeout)
                source: Any = _Reading(raw)
                self.response_class = lambda _socket, *more, **named: HTTPResponse(source, *more, **named)
                try:
                    return super().getresponse()
                finally:
                    raw.whole = True
                    # A proxy's answer to the next connection is not read here.
                    del self.response_class

        return Telling
