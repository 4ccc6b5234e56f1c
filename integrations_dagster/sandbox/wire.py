"""Answers that HTTP would not allow, or that do not end: connections cut, heads that trickle, bodies without end."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Transports = dict[tuple[str, int], asyncio.Transport]
"""The open connections by the client's address."""

_PIECE = 64 * 1024


class Cut(Response):
    """Ends the connection: abruptly, or after bytes that HTTP would not allow.

    Args:
        transport: The connection, None where it is gone.
        data: What to send first; None: nothing, and a reset.
        status: The status that `data` begins with.
    """

    def __init__(self, transport: asyncio.Transport | None, data: bytes | None, status: int = 200) -> None:
        super().__init__(status_code=status)
        self.silent = data is None
        self._transport = transport
        self._data = data

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 starlette's signature
        if self._transport is None:
            return
        if self._data is None:
            raw = self._transport.get_extra_info("socket")
            # Closing with a linger time of zero sends RST instead of FIN.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.write(self._data)
            self._transport.close()
        await _closed(receive)


class SlowHead(Response):
    """Sends the status line and the headers byte by byte, then the body at once, and closes the connection.

    Each wait of a client for a further part is short; only a client that bounds the whole gives up.

    Args:
        transport: The connection, None where it is gone.
        head: Status line and headers, with the empty line.
        body: The body.
        seconds: What the head takes altogether.
        status: The status.
    """

    def __init__(
        self, transport: asyncio.Transport | None, head: bytes, body: bytes, seconds: float, status: int
    ) -> None:
        super().__init__(status_code=status)
        self._transport = transport
        self._head, self._body = head, body
        self._pause = seconds / len(head)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 starlette's signature
        if self._transport is None:
            return
        gone = asyncio.ensure_future(_closed(receive))
        try:
            for byte in self._head:
                self._transport.write(bytes([byte]))
                done, _ = await asyncio.wait({gone}, timeout=self._pause)
                if done or self._transport.is_closing():
                    return
            self._transport.write(self._body)
            self._transport.close()
            # The server counts the request as unanswered unless the disconnection is seen first.
            await gone
        finally:
            gone.cancel()


def recording_protocol(base: Any, transports: Transports) -> Any:
    """A uvicorn HTTP protocol class that keeps the open connections in `transports`."""

    class Recording(base):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            self._address = tuple(transport.get_extra_info("peername")[:2])
            transports[self._address] = transport
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            transports.pop(self._address, None)
            super().connection_lost(exc)

    return Recording


def head(status: int, length: int) -> bytes:
    """Status line and headers of a JSON answer."""
    lines = [f"HTTP/1.1 {status} OK", "content-type: application/json", f"content-length: {length}"]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode()


async def padding(total: int) -> AsyncIterator[bytes]:
    """A JSON body of so many bytes."""
    begin, end = b'{"status":"COMPLETE","results":[],"padding":"', b'"}'
    yield begin
    left = total - len(begin) - len(end)
    while left > 0:
        yield b"x" * min(left, _PIECE)
        left -= _PIECE
    yield end


async def endless(piece: int, pause: float) -> AsyncIterator[bytes]:
    """A JSON body that never ends: so many bytes, then so many seconds of silence, and again."""
    yield b'{"status":"COMPLETE","results":[],"padding":"'
    while True:
        yield b"x" * piece
        # Even without a pause, other requests get their turn.
        await asyncio.sleep(pause)


async def _closed(receive: Receive) -> None:
    # The server counts the request as unanswered unless the disconnection is seen first.
    while (await receive())["type"] != "http.disconnect":
        pass
