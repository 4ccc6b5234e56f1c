"""What the engine does with each class of trouble, against a server on loopback that answers as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from integrations_dagster.delivery.accounts import Account
from integrations_dagster.delivery.engine import Drive, RetrySettings, Stopped
from integrations_dagster.delivery.session import MAX_ANSWER, HttpSession, NoAnswer, NotSent
from integrations_dagster.destinations.base import Flow, Request
from integrations_dagster.destinations.errors import Refused, Throttled, Unauthorized, Unavailable
from integrations_dagster.destinations.webhook import Webhook

FAST = RetrySettings(attempts=3, base=0.001, cap=0.002, patience=1.0)
Answer = tuple[int, Mapping[str, str], bytes]


class Script:
    """A server that gives the answers of a list, then 200s; remembers what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str | None]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                script.asked.append((self.path, self.headers.get("Authorization")))
                status, headers, body = script.answers.pop(0) if script.answers else (200, {}, b"{}")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def servers() -> Iterator[list[Script]]:
    made: list[Script] = []
    yield made
    for script in made:
        script.close()


def two_requests() -> Flow[str]:
    first = yield Request("POST", "/first", b"{}")
    second = yield Request("POST", "/second", b"{}")
    return f"{first.status} {second.status}"


def drive(url: str, *, repeatable: bool = True, stop: threading.Event | None = None, timeout: float = 2.0) -> Drive:
    account = Account("webhook:127.0.0.1", url, timeout, in_sandbox=False, token="the-token")
    return Drive(
        HttpSession(account, "bearer"),
        Webhook(),
        permit=lambda _first: time.time() + 60,
        repeatable=repeatable,
        stop=stop or threading.Event(),
        settings=FAST,
    )


def test_a_flow_is_driven_to_its_result_with_the_token(servers: list[Script]) -> None:
    servers.append(script := Script())
    driving = drive(script.url)
    assert driving.run(two_requests) == "200 200"
    assert script.asked == [("/first", "Bearer the-token"), ("/second", "Bearer the-token")]
    assert (driving.traffic.requests, driving.traffic.retries, driving.traffic.bytes) == (2, 0, 4)
    assert not driving.touched


def test_an_outage_repeats_the_request_that_met_it_and_not_those_before(servers: list[Script]) -> None:
    servers.append(script := Script((200, {}, b"{}"), (503, {}, b"<html>"), (500, {}, b"")))
    driving = drive(script.url)
    assert driving.run(two_requests) == "200 200"
    assert [path for path, _ in script.asked] == ["/first", "/second", "/second", "/second"]
    assert (driving.traffic.retries, driving.traffic.errors) == (2, {"unavailable": 2})
    assert driving.touched


def test_attempts_end(servers: list[Script]) -> None:
    servers.append(script := Script(*[(503, {}, b"")] * 9))
    with pytest.raises(Unavailable):
        drive(script.url).run(two_requests)
    assert len(script.asked) == 3


def test_throttling_costs_no_attempt_and_has_no_effect(servers: list[Script]) -> None:
    servers.append(script := Script(*[(429, {"Retry-After": "0"}, b"")] * 8))
    driving = drive(script.url)
    assert driving.run(two_requests) == "200 200"
    assert (driving.traffic.throttled, driving.traffic.retries, driving.touched) == (8, 0, False)


def test_throttling_is_not_waited_out_for_ever(servers: list[Script]) -> None:
    servers.append(script := Script(*[(429, {"Retry-After": "1"}, b"")] * 9))
    with pytest.raises(Throttled):
        drive(script.url).run(two_requests)
    assert len(script.asked) == 2


def test_a_request_that_must_not_be_repeated_is_not(servers: list[Script]) -> None:
    servers.append(script := Script((503, {}, b"")))
    driving = drive(script.url, repeatable=False)
    with pytest.raises(Unavailable):
        driving.run(two_requests)
    assert len(script.asked) == 1
    assert driving.touched


def test_refused_credentials_are_tried_once_more_and_then_final(servers: list[Script]) -> None:
    def classify_401() -> Flow[None]:
        yield Request("POST", "/first", b"{}")

    from integrations_dagster.destinations.hubspot import HubSpot

    servers.append(script := Script(*[(401, {}, b"{}")] * 5))
    driving = drive(script.url)
    driving.destination = HubSpot()
    with pytest.raises(Unauthorized):
        driving.run(classify_401)
    assert len(script.asked) == 2


def test_a_redirect_is_refused_and_not_followed(servers: list[Script]) -> None:
    servers.append(other := Script())
    servers.append(script := Script((302, {"Location": other.url + "/elsewhere"}, b"")))
    with pytest.raises(Refused):
        drive(script.url).run(two_requests)
    assert other.asked == []


def test_an_answer_that_is_too_long_is_not_read(servers: list[Script]) -> None:
    servers.append(script := Script((200, {}, b"x" * (MAX_ANSWER + 1))))
    session = HttpSession(Account("webhook:h", script.url, 20.0, in_sandbox=False), "none")
    with pytest.raises(NoAnswer, match="longer than 32 MB"):
        session.send(Request("POST", "/", b"{}"))


def test_nobody_listening_is_told_apart_from_a_broken_connection(servers: list[Script]) -> None:
    servers.append(script := Script())
    url = script.url
    servers.remove(script)
    script.close()
    driving = drive(url)
    with pytest.raises(NotSent, match="nothing answers there"):
        driving.run(two_requests)
    assert not driving.touched


def test_a_stop_ends_the_wait_for_the_next_attempt(servers: list[Script]) -> None:
    stop = threading.Event()
    servers.append(script := Script(*[(429, {"Retry-After": "30"}, b"")] * 2))
    driving = drive(script.url, stop=stop)
    driving.settings = RetrySettings()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        driving.run(two_requests)
    assert time.monotonic() - started < 10


def test_a_process_that_slept_past_its_moment_of_sending_asks_again(servers: list[Script]) -> None:
    servers.append(script := Script())
    asked: list[bool] = []
    driving = drive(script.url)

    def permit(first: bool) -> float:
        asked.append(first)
        return time.time() + (60 if len(asked) > 1 else -1)

    driving.permit = permit
    assert driving.run(two_requests) == "200 200"
    assert asked == [True, False, False]
