"""A way to a server on this machine that breaks off at a chosen moment."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Passes bytes on, both ways.

    Attributes:
        port: Where it listens, on loopback.
        cuts: How many more connections break off once the server has answered `after`.
        drops: How many more break off before `after` reaches the server.
        after: What the client sends when it is time.
        broken: Connections that were broken off.
    """

    def __init__(self, port: int, after: bytes) -> None:
        self.after = after
        self.cuts = self.drops = self.broken = 0
        self._target = port
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with self._listener:
            while not self._ended.is_set():
                try:
                    client, _ = self._listener.accept()
                except TimeoutError:
                    continue
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        client.setblocking(True)
        with (
            client,
            socket.create_connection(("127.0.0.1", self._target)) as server,
            selectors.DefaultSelector() as ready,
            contextlib.suppress(OSError),
        ):
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            cut = False
            while not self._ended.is_set():
                for key, _ in ready.select(0.05):
                    source, other = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client and self.after in data:
                        if self.drops > 0:
                            self.drops -= 1
                            self.broken += 1
                            return
                        cut = self.cuts > 0
                        self.cuts -= cut
                    if source is server and cut:
                        self.broken += 1
                        return  # the answer is there, and the client never sees it
                    other.sendall(data)


@contextlib.contextmanager
def proxy(port: int, after: bytes) -> Iterator[Proxy]:
    """A proxy before a port."""
    running = Proxy(port, after)
    try:
        yield running
    finally:
        running.close()
