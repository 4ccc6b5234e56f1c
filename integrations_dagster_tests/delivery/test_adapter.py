"""When a request leaves, and when its answer counts as come: over plain sockets that do as they are told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from integrations_dagster.delivery.accounts import Account
from integrations_dagster.delivery.credentials import Grant
from integrations_dagster.delivery.transports.http import HttpSession, NoAnswer, NotSent
from integrations_dagster.destinations.base import Request

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
POST = Request("POST", "/rows", b'{"rows": []}')


class Flight:
    """Remembers what happened to it, and when."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextmanager
    def __call__(self, refuse: bool = False) -> Iterator[None]:
        if refuse:
            raise RuntimeError("no place")
        self.events.append("left")
        try:
            yield
        finally:
            self.events.append("came")


@contextmanager
def peer(serve: Callable[[socket.socket], object]) -> Iterator[tuple[str, threading.Thread]]:
    """A server of one connection: `serve` is given it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            taken, _ = listening.accept()
            with taken:
                serve(taken)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", thread


def session(url: str, timeout: float = 5.0) -> HttpSession:
    return HttpSession(Account("webhook:127.0.0.1", url, timeout, in_sandbox=False))


def test_a_place_is_free_again_with_the_first_byte_of_the_answer() -> None:
    flight, free = Flight(), threading.Event()

    def serve(taken: socket.socket) -> None:
        assert taken.recv(65536)
        taken.sendall(HEAD[:1])
        # The rest of the answer comes when the place was given back, or never.
        if free.wait(5):
            taken.sendall(HEAD[1:] + b"{}")

    with peer(serve) as (url, _):

        @contextmanager
        def place() -> Iterator[None]:
            with flight():
                yield
            free.set()

        opened = session(url)
        assert opened.send(POST, Grant(), place()).body == b"{}"
        opened.close()
    assert flight.events == ["left", "came"]


def test_who_gets_no_place_sends_nothing() -> None:
    received: list[bytes] = []
    with peer(lambda taken: received.append(taken.recv(65536))) as (url, thread):
        opened = session(url)
        with pytest.raises(RuntimeError, match="no place"):
            opened.send(POST, Grant(), Flight()(refuse=True))
        opened.close()
        thread.join(5)
    assert received == [b""]


def test_a_host_that_cannot_be_reached_takes_no_place() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    flight = Flight()
    with pytest.raises(NotSent):
        session(url).send(POST, Grant(), flight())
    assert flight.events == []


def test_a_connection_that_breaks_gives_its_place_back() -> None:
    flight = Flight()
    with peer(lambda taken: taken.recv(10)) as (url, _):
        opened = session(url)
        with pytest.raises(NoAnswer):
            opened.send(POST, Grant(), flight())
        opened.close()
    assert flight.events == ["left", "came"]


@pytest.mark.parametrize("size", [10, 64 * 1024 * 1024], ids=["answer", "upload"])
def test_sending_and_waiting_together_take_no_longer_than_the_timeout(size: int) -> None:
    """The peer reads nothing and says nothing; a large body does not even leave."""
    over = threading.Event()
    flight = Flight()
    with peer(lambda _taken: over.wait(10)) as (url, _):
        opened = session(url, timeout=0.4)
        began = time.monotonic()
        with pytest.raises(NoAnswer):
            opened.send(Request("POST", "/rows", b" " * size), Grant(), flight())
        assert time.monotonic() - began < 3
        opened.close()
        over.set()
    assert flight.events == ["left", "came"]
