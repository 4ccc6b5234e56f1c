"""A lean HTTP/1.1 server that stands in for HubSpot's batch endpoints: fixed latency, exact quotas, cheap counting.

It runs in a process of its own and answers several hundred requests a second in a fraction of a core, so that what is
measured is the client. It ends when its standard input closes, so it never outlives who started it.

    python -m benchmarks.server

prints its port. `POST /control` with a JSON object changes its settings (`Settings`) and, with `"reset": true`, forgets
its counts; `GET /control` tells them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import re
import resource
import sys
import time
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

TRACES = re.compile(rb'"objectWriteTraceId":\s*"([^"]+)"')
IDS = re.compile(rb'"id":\s*"[^"\d]*(\d+)')
"""The number in a row's match value, which is the record's id here."""
LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
GZIP = re.compile(rb"\r\ncontent-encoding:\s*gzip", re.IGNORECASE)
ROW = (
    b'{"id":"%b","properties":{"hs_object_id":"%b"},"createdAt":"2026-08-01T12:00:00.000Z",'
    b'"updatedAt":"2026-08-01T12:00:00.000Z","archived":false,"new":%b,"objectWriteTraceId":"%b"}'
)
ANSWER = b'{"status":"COMPLETE","results":[%b],"startedAt":"2026-08-01T12:00:00.000Z"}'
REASONS = {200: b"OK", 201: b"Created", 204: b"No Content", 404: b"Not Found", 429: b"Too Many Requests"}
REFUSAL_LATENCY = 0.005
"""Seconds until a 429: servers refuse faster than they work."""


@dataclass(frozen=True)
class Settings:
    """What the control path can change.

    Attributes:
        latency: Seconds from the last byte of a request to its answer.
        quotas: (requests, seconds) pairs: so many accepted requests in any window of so many seconds; all hold at once.
        headers: What answers say of the quotas: "none"; "retry_after" (429 only, whole seconds, rounded up); "hubspot"
            (the first quota's `X-HubSpot-RateLimit-*` on every answer, and its policy's name in a 429).
    """

    latency: float = 0.05
    quotas: tuple[tuple[int, float], ...] = ()
    headers: str = "none"


class Window:
    """One quota, as an exact sliding window over the times of accepted requests."""

    def __init__(self, requests: int, seconds: float) -> None:
        self.requests = requests
        self.seconds = seconds
        self._times: deque[float] = deque()

    def wait(self, now: float) -> float:
        """Seconds until one more request is accepted; 0 if now."""
        times = self._times
        while times and times[0] <= now - self.seconds:
            times.popleft()
        return times[0] + self.seconds - now if len(times) >= self.requests else 0.0

    def take(self, now: float) -> None:
        """Count an accepted request."""
        self._times.append(now)

    @property
    def remaining(self) -> int:
        return self.requests - len(self._times)


@dataclass
class Counts:
    """What has been seen since the last reset. Times are of the machine's monotonic clock, which processes share."""

    requests: int = 0
    rows: int = 0
    received: int = 0
    connections: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    seen: dict[bytes, set[int]] = field(default_factory=dict)
    accepted: list[float] = field(default_factory=list)
    throttled: list[float] = field(default_factory=list)
    cpu: float = field(default_factory=lambda: _cpu())

    def as_dict(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "rows": self.rows,
            "distinct": sum(len(numbers) for numbers in self.seen.values()),
            "bytes": self.received,
            "connections": self.connections,
            "most_in_flight": self.most_in_flight,
            "accepted": self.accepted,
            "throttled": self.throttled,
            "cpu": _cpu() - self.cpu,
        }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class State:
    """Settings, quotas and counts; shared by all connections."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.windows: list[Window] = []
        self.counts = Counts()
        self.next_id = 1_000_000_000

    def control(self, body: bytes) -> bytes:
        """Apply what the body says; returns the counts from before."""
        told = json.dumps(self.counts.as_dict()).encode()
        wanted = json.loads(body) if body else {}
        if wanted.pop("reset", False):
            self.counts = Counts(connections=self.counts.connections, in_flight=self.counts.in_flight)
        if "quotas" in wanted:
            wanted["quotas"] = tuple((requests, seconds) for requests, seconds in wanted["quotas"])
            self.windows = [Window(*quota) for quota in wanted["quotas"]]
        self.settings = replace(self.settings, **wanted)
        return told

    def admit(self, now: float) -> float:
        """0 if a request is accepted now, and then it counts; else seconds until one may be."""
        wait = max((window.wait(now) for window in self.windows), default=0.0)
        if wait > 0:
            self.counts.throttled.append(now)
            return wait
        for window in self.windows:
            window.take(now)
        self.counts.accepted.append(now)
        return 0.0

    def refusal(self, wait: float) -> tuple[bytes, bytes]:
        """Headers and body of a 429."""
        body: dict[str, Any] = {"status": "error", "message": "Too many requests.", "errorType": "RATE_LIMIT"}
        if self.settings.headers == "retry_after":
            return b"Retry-After: %d\r\n" % math.ceil(wait), json.dumps(body).encode()
        if self.settings.headers == "hubspot":
            name = "SECONDLY" if self.windows[0].seconds <= 1 else "TEN_SECONDLY_ROLLING"
            return self.told(), json.dumps({**body, "policyName": name}).encode()
        return b"", json.dumps(body).encode()

    def told(self) -> bytes:
        """Headers of every answer."""
        if self.settings.headers != "hubspot" or not self.windows:
            return b""
        window = self.windows[0]
        return (
            b"X-HubSpot-RateLimit-Max: %d\r\nX-HubSpot-RateLimit-Remaining: %d\r\n"
            b"X-HubSpot-RateLimit-Interval-Milliseconds: %d\r\n"
        ) % (window.requests, window.remaining, int(window.seconds * 1000))

    def batch(self, object_: bytes, operation: bytes, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a batch of rows, each accepted."""
        traces: Sequence[bytes] = TRACES.findall(body)
        ids: Sequence[bytes] = IDS.findall(body)
        if len(ids) != len(traces):  # a create names no id, an archive no trace
            ids = [b"%d" % (self.next_id + i) for i in range(max(len(traces), len(ids)))]
            self.next_id += len(ids)
        counts = self.counts
        counts.rows += len(ids)
        seen = counts.seen.setdefault(object_, set())
        before = len(seen)
        seen.update(map(int, ids))
        new = b"true" if len(seen) > before else b"false"
        if operation == b"archive":
            return 204, b""
        rows = b",".join([ROW % (id_, id_, new, trace) for id_, trace in zip(ids, traces, strict=True)])
        return (201 if operation == b"create" else 200), ANSWER % rows


class Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self, state: State, loop: asyncio.AbstractEventLoop) -> None:
        self._state = state
        self._loop = loop
        self._buffer = bytearray()
        self._needed = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._state.counts.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= self._needed:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(buffer[:end])
            length = LENGTH.search(head)
            self._needed = end + 4 + (int(length[1]) if length else 0)
            if len(buffer) < self._needed:
                return
            body = bytes(memoryview(buffer)[end + 4 : self._needed])
            del buffer[: self._needed]
            self._needed = 0
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        state = self._state
        method, path, _ = head.split(b" ", 2)
        path = path.partition(b"?")[0]
        if path == b"/control":
            self._answer(200, b"", state.control(body))
            return
        if path == b"/account-info/v3/details":
            self._answer(200, b"", b'{"portalId":4242}')
            return
        parts = path.split(b"/")  # /crm/v3/objects/<object>/batch/<operation>
        if method != b"POST" or len(parts) != 7 or parts[5] != b"batch":
            self._answer(404, b"", b'{"status":"error","message":"There is no such path here."}')
            return
        counts = state.counts
        counts.requests += 1
        counts.received += len(body)
        counts.in_flight += 1
        counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
        wait = state.admit(time.monotonic())
        if wait > 0:
            headers, refusal = state.refusal(wait)
            self._loop.call_later(min(REFUSAL_LATENCY, state.settings.latency), self._done, 429, headers, refusal)
            return
        if GZIP.search(head):
            body = zlib.decompress(body, 31)
        status, answer = state.batch(parts[4], parts[6], body)
        if state.settings.latency > 0:
            self._loop.call_later(state.settings.latency, self._done, status, state.told(), answer)
        else:
            self._done(status, state.told(), answer)

    def _done(self, status: int, headers: bytes, body: bytes) -> None:
        self._state.counts.in_flight -= 1
        self._answer(status, headers, body)

    def _answer(self, status: int, headers: bytes, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(
                b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
                % (status, REASONS[status], headers, len(body), body)
            )


async def serve() -> None:
    """Serve on a free port of loopback, which is printed, until standard input closes."""
    loop = asyncio.get_running_loop()
    state = State()
    server = await loop.create_server(lambda: Connection(state, loop), "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    over = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(over), sys.stdin)
    await over.read()
    server.close()


if __name__ == "__main__":
    # Connections make no cycles worth a pause of the clock.
    gc.disable()
    asyncio.run(serve())
