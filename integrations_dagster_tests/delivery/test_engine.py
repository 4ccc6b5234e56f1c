"""What the engine does with each class of trouble, against a server on loopback that answers as it is told."""

from __future__ import annotations

import gzip
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from integrations_dagster.delivery.accounts import Account, bearer
from integrations_dagster.delivery.credentials import Fixed, Grant
from integrations_dagster.delivery.engine import Drive, RetrySettings
from integrations_dagster.delivery.gate import AccountGate, LoosePermits
from integrations_dagster.delivery.limits import Concurrency
from integrations_dagster.delivery.permits import Permit, Stopped
from integrations_dagster.delivery.transports.http import MAX_ANSWER, HttpSession, NoAnswer, NotSent
from integrations_dagster.destinations.base import Flow, Pause, Remember, Repeat, Request
from integrations_dagster.destinations.errors import Refused, Throttled, Unauthorized, Unavailable
from integrations_dagster.destinations.webhook import Webhook
from integrations_dagster.ledger.quotas import Use
from integrations_dagster.ledger.store import Ledger

FAST = RetrySettings(attempts=3, base=0.001, cap=0.002, patience=0.9)
Answer = tuple[int, Mapping[str, str], bytes]
ENDLESS, ENDLESS_HEAD = b"endless", b"endless head"
"""A body, and a head, that trickle in and never end."""
Driver = Callable[..., Drive]


class Script:
    """A server that gives the answers of a list, then 200s; remembers what it was asked."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str | None]] = []
        self.bodies: list[bytes] = []
        self.over = threading.Event()
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                script.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                script.asked.append((self.path, self.headers.get("Authorization")))
                status, headers, body = script.answers.pop(0) if script.answers else (200, {}, b"{}")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if body in (ENDLESS, ENDLESS_HEAD):
                    self.end_headers() if body is ENDLESS else self.flush_headers()
                    self._trickle()
                    return
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815 (the base class's name)

            def _trickle(self) -> None:
                self.close_connection = True
                while not script.over.wait(0.05):
                    try:
                        self.wfile.write(b" ")
                    except OSError:
                        return

            def log_message(self, *_args: object) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.over.set()
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


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Driver]:
    ledger = Ledger.open(tmp_path)

    def make(
        url: str, *, repeat: Repeat = Repeat.ALWAYS, stop: threading.Event | None = None, timeout: float = 2.0
    ) -> Drive:
        account = Account("webhook:127.0.0.1", url, timeout, in_sandbox=False, auth=bearer("the-token"))
        stop = stop or threading.Event()
        gate = AccountGate(ledger, Use("an account", "a run", ledger.now()), Webhook(), stop, Concurrency(4))
        credentials = Fixed({"Authorization": "Bearer the-token"}, None, "the-token")
        return Drive(HttpSession(account), Webhook(), credentials, LoosePermits(gate), repeat, stop, settings=FAST)

    yield make
    ledger.close()


def test_a_flow_is_driven_to_its_result_with_the_token(servers: list[Script], drive: Driver) -> None:
    servers.append(script := Script())
    driving = drive(script.url)
    assert driving.run(two_requests) == "200 200"
    assert script.asked == [("/first", "Bearer the-token"), ("/second", "Bearer the-token")]
    assert (driving.traffic.requests, driving.traffic.retries, driving.traffic.bytes) == (2, 0, 4)
    assert (driving.begun, driving.lost) == (True, False)


def test_an_outage_repeats_the_request_that_met_it_and_not_those_before(servers: list[Script], drive: Driver) -> None:
    servers.append(script := Script((200, {}, b"{}"), (503, {}, b"<html>"), (500, {}, b"")))
    driving = drive(script.url)
    assert driving.run(two_requests) == "200 200"
    assert [path for path, _ in script.asked] == ["/first", "/second", "/second", "/second"]
    assert (driving.traffic.retries, driving.traffic.errors) == (2, {"unavailable": 2})
    assert driving.lost


def test_attempts_end(servers: list[Script], drive: Driver) -> None:
    servers.append(script := Script(*[(503, {}, b"")] * 9))
    with pytest.raises(Unavailable):
        drive(script.url).run(two_requests)
    assert len(script.asked) == 3


def test_throttling_costs_no_attempt_and_has_no_effect(servers: list[Script], drive: Driver) -> None:
    servers.append(script := Script(*[(429, {"Retry-After": "0"}, b"")] * 4))
    driving = drive(script.url)
    assert driving.run(two_requests) == "200 200"
    assert (driving.traffic.throttled, driving.traffic.retries, driving.lost) == (4, 0, False)


def test_throttling_is_not_waited_out_for_ever(servers: list[Script], drive: Driver) -> None:
    servers.append(script := Script(*[(429, {"Retry-After": "1"}, b"")] * 9))
    with pytest.raises(Throttled):
        drive(script.url).run(two_requests)
    assert len(script.asked) == 2


def test_a_request_that_must_not_be_repeated_is_not(servers: list[Script], drive: Driver) -> None:
    servers.append(script := Script((503, {}, b"")))
    driving = drive(script.url, repeat=Repeat.NEVER)
    with pytest.raises(Unavailable):
        driving.run(two_requests)
    assert len(script.asked) == 1
    assert driving.lost


def looks_up_and_creates() -> Flow[str]:
    yield Request("POST", "/search", b"{}", reads=True)
    created = yield Request("POST", "/create", b"{}")
    return f"created {created.status}"


def test_a_create_after_a_look_up_begins_again_with_that_and_only_when_the_first_can_do_no_more(
    servers: list[Script], drive: Driver
) -> None:
    servers.append(Script((200, {}, b"{}"), (503, {}, b"")))
    driver = drive(servers[0].url, repeat=Repeat.WHEN_QUIET, timeout=0.5)
    began = time.monotonic()
    assert driver.run(looks_up_and_creates) == "created 200"
    assert [path for path, _ in servers[0].asked] == ["/search", "/create", "/search", "/create"]
    assert time.monotonic() - began >= 0.5, "the first create may have taken effect until its timeout"
    assert driver.lost


def test_a_look_up_without_an_answer_is_repeated_alone_and_at_once(servers: list[Script], drive: Driver) -> None:
    servers.append(Script((503, {}, b"")))
    driver = drive(servers[0].url, repeat=Repeat.WHEN_QUIET, timeout=30.0)
    assert driver.run(looks_up_and_creates) == "created 200"
    assert [path for path, _ in servers[0].asked] == ["/search", "/search", "/create"]
    assert not driver.unknown or driver.quiet_until == 0.0


def test_a_create_that_is_never_answered_is_given_up_after_the_attempts(servers: list[Script], drive: Driver) -> None:
    servers.append(Script(*[(200, {}, b"{}"), (503, {}, b"")] * 9))
    driver = drive(servers[0].url, repeat=Repeat.WHEN_QUIET, timeout=0.1)
    with pytest.raises(Unavailable):
        driver.run(looks_up_and_creates)
    assert [path for path, _ in servers[0].asked] == ["/search", "/create"] * FAST.attempts


def test_the_batch_of_a_dead_attempt_is_looked_up_when_its_requests_can_do_no_more(
    servers: list[Script], drive: Driver
) -> None:
    servers.append(Script())
    driver = drive(servers[0].url, repeat=Repeat.WHEN_QUIET)
    driver.lost, driver.quiet_until = True, time.time() + 0.4
    driver.run(looks_up_and_creates)
    assert time.time() >= driver.quiet_until


def test_refused_credentials_are_tried_once_more_and_then_final(servers: list[Script], drive: Driver) -> None:
    def classify_401() -> Flow[None]:
        yield Request("POST", "/first", b"{}")

    from integrations_dagster.destinations.hubspot.destination import HubSpot

    servers.append(script := Script(*[(401, {}, b"{}")] * 5))
    driving = drive(script.url)
    driving.destination = HubSpot()
    with pytest.raises(Unauthorized):
        driving.run(classify_401)
    assert len(script.asked) == 2


def test_a_redirect_is_refused_and_not_followed(servers: list[Script], drive: Driver) -> None:
    servers.append(other := Script())
    servers.append(script := Script((302, {"Location": other.url + "/elsewhere"}, b"")))
    with pytest.raises(Refused) as refused:
        drive(script.url).run(two_requests)
    print(refused.value)
    assert other.asked == []


def test_an_answer_that_is_too_long_is_not_read(servers: list[Script], drive: Driver) -> None:
    servers.append(script := Script((200, {}, b"x" * (MAX_ANSWER + 1))))
    session = HttpSession(Account("webhook:h", script.url, 20.0, in_sandbox=False))
    with pytest.raises(NoAnswer, match="longer than 32 MB") as refused:
        session.send(Request("POST", "/", b"{}"), Grant())
    print(refused.value)


def test_nobody_listening_is_told_apart_from_a_broken_connection(servers: list[Script], drive: Driver) -> None:
    servers.append(script := Script())
    url = script.url
    servers.remove(script)
    script.close()
    driving = drive(url)
    with pytest.raises(NotSent, match="nothing answers there"):
        driving.run(two_requests)
    assert not driving.unknown


def test_a_stop_ends_the_wait_for_the_next_attempt(servers: list[Script], drive: Driver) -> None:
    stop = threading.Event()
    servers.append(script := Script(*[(429, {"Retry-After": "30"}, b"")] * 2))
    driving = drive(script.url, stop=stop)
    driving.settings = RetrySettings()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        driving.run(two_requests)
    assert time.monotonic() - started < 10


def test_a_process_that_slept_past_its_moment_of_sending_asks_again(servers: list[Script], drive: Driver) -> None:
    servers.append(script := Script())
    driving = drive(script.url)
    given: list[Permit] = []
    ask = driving.permits.ask

    class Slept(LoosePermits):
        def ask(self) -> Permit:
            permit = ask()
            given.append(Permit(permit.delay, time.time() + (60 if given else -1), permit.serial))
            return given[-1]

    driving.permits.__class__ = Slept
    assert driving.run(two_requests) == "200 200"
    assert len(given) == 3


def test_silence_asked_of_one_holds_for_all_that_use_the_account(servers: list[Script], drive: Driver) -> None:
    servers.append(script := Script((429, {"Retry-After": "1"}, b"")))
    first, second = drive(script.url), drive(script.url)
    first.settings = RetrySettings(patience=0.0)
    with pytest.raises(Throttled):
        first.run(two_requests)
    started = time.monotonic()
    assert second.run(two_requests) == "200 200"
    assert time.monotonic() - started > 0.9


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_a_certificate_that_nobody_vouches_for_is_refused(servers: list[Script], drive: Driver, tmp_path: Path) -> None:
    servers.append(script := Script(tls=self_signed(tmp_path)))
    driving = drive(script.url)
    host = re.escape(script.url.removeprefix("https://"))
    with pytest.raises(Refused, match=f"certificate of {host} was not accepted") as refused:
        driving.run(two_requests)
    print(refused.value, refused.value.remedy)
    assert script.asked == []
    assert not driving.unknown


@pytest.mark.parametrize(("body", "told"), [(ENDLESS, r"longer than 0\.5 s"), (ENDLESS_HEAD, r"within 0\.5 s")])
def test_an_answer_without_end_is_given_up(servers: list[Script], drive: Driver, body: bytes, told: str) -> None:
    servers.append(script := Script(*[(200, {}, body)] * 3))
    driving = drive(script.url, timeout=0.5)
    with pytest.raises(NoAnswer, match=told) as refused:
        driving.run(two_requests)
    print(refused.value)
    assert driving.lost


def test_bodies_are_compressed_where_the_destination_takes_it(servers: list[Script]) -> None:
    servers.append(script := Script())
    session = HttpSession(Account("webhook:h", script.url, 5.0, in_sandbox=False), compress=True)
    long, short = b'{"rows": ["' + b"x" * 5000 + b'"]}', b"{}"
    for body in (long, long, short):
        session.send(Request("POST", "/", body), Grant())
    session.close()
    assert [gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body for body in script.bodies] == [long, long, short]
    assert len(script.bodies[0]) < 200


def test_a_grant_is_carried_in_headers_and_query(servers: list[Script]) -> None:
    servers.append(script := Script())
    session = HttpSession(Account("webhook:h", script.url, 5.0, in_sandbox=False))
    session.send(Request("GET", "/rows?after=1"), Grant({"Authorization": "Basic abc"}, {"key": "a b&c"}))
    session.close()
    assert script.asked == [("/rows?after=1&key=a+b%26c", "Basic abc")]


def test_proxies_of_the_environment_are_used(servers: list[Script], monkeypatch: pytest.MonkeyPatch) -> None:
    servers.append(proxy := Script())
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    session = HttpSession(Account("webhook:crm.example", "http://crm.example/api", 5.0, in_sandbox=False))
    assert session.send(Request("POST", "/rows", b"{}"), Grant()).status == 200
    session.close()
    assert proxy.asked == [("http://crm.example/api/rows", None)]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers.append(near := Script())
    session = HttpSession(Account("webhook:127.0.0.1", near.url, 5.0, in_sandbox=False))
    session.send(Request("POST", "/rows", b"{}"), Grant())
    session.close()
    assert near.asked == [("/rows", None)]


class Jobs:
    """A flow that submits a job, waits for it and reads it; and one that goes on with a remembered job."""

    def __init__(self) -> None:
        self.remembered: list[str] = []

    def deliver(self) -> Flow[str]:
        yield Request("POST", "/jobs", b"{}")
        yield Remember("job 1")
        return (yield from self.resume())

    def resume(self) -> Flow[str]:
        yield Pause(0.01)
        answer = yield Request("GET", "/jobs/1")
        return f"done {answer.status}"


def test_a_job_that_was_submitted_is_asked_for_again_and_not_submitted_again(
    servers: list[Script], drive: Driver
) -> None:
    """Polling meets an outage: what only reads is repeated although the submission must not be."""
    servers.append(script := Script((202, {}, b"{}"), (503, {}, b""), (500, {}, b"")))
    driving = drive(script.url, repeat=Repeat.NEVER)
    jobs = Jobs()
    remembered: list[str] = []

    class Remembering(LoosePermits):
        def remember(self, reference: str) -> None:
            remembered.append(reference)

    driving.permits.__class__ = Remembering
    assert driving.run(lambda: jobs.resume() if remembered else jobs.deliver()) == "done 200"
    assert [path for path, _ in script.asked] == ["/jobs", "/jobs/1", "/jobs/1", "/jobs/1"]
    assert remembered == ["job 1"]
    assert (driving.begun, driving.lost, driving.resumable) == (True, False, True)


def test_an_answer_in_an_odd_shape_is_one_that_cannot_be_read(servers: list[Script], drive: Driver) -> None:
    def odd() -> Flow[str]:
        answer = yield Request("POST", "/first", b"{}")
        return str(answer.json()["results"][0]["id"])

    servers.append(script := Script(*[(200, {}, b'{"results": 7}')] * 3))
    driving = drive(script.url)
    with pytest.raises(Unavailable, match=r"shape that cannot be read \(TypeError\)"):
        driving.run(odd)
    assert (len(script.asked), driving.lost) == (3, True)


def test_credentials_that_cannot_be_used_stop_the_run_with_a_remedy(servers: list[Script], drive: Driver) -> None:
    class Broken(Fixed):
        def grant(self) -> Grant:
            raise KeyError("kid")

    servers.append(script := Script())
    driving = drive(script.url)
    driving.credentials = Broken({})
    with pytest.raises(Refused, match=r"cannot be used \(KeyError\)"):
        driving.run(two_requests)
    assert script.asked == []
