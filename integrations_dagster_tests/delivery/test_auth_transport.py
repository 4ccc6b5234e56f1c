"""Requests to token endpoints: TLS, proxies, and servers that do not answer as they should."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from integrations_dagster.delivery.auth import http
from integrations_dagster.delivery.auth.registry import credentials
from integrations_dagster.delivery.transports.http import NotSent
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster_tests.delivery.auth import account, client

TOKEN = json.dumps({"access_token": "given", "token_type": "bearer", "expires_in": "3600"}).encode()


class Answering(BaseHTTPRequestHandler):
    """Gives a token to whoever asks, and remembers what for."""

    asked: list[str]
    endless = False

    def do_POST(self) -> None:
        self.asked.append(self.path)
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        if not self.endless:
            self.send_header("Content-Length", str(len(TOKEN)))
        self.end_headers()
        try:
            while self.endless:
                self.wfile.write(b" ")
                time.sleep(0.01)
            self.wfile.write(TOKEN)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def server(*, endless: bool = False, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """host:port of a server, and the paths that it is asked for."""
    asked: list[str] = []
    handler = type("Handler", (Answering,), {"asked": asked, "endless": endless})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        if tls is not None:
            found.socket = tls.wrap_socket(found.socket, server_side=True)
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{found.server_address[1]}", asked
        finally:
            found.shutdown()
            thread.join()


def asking(sandbox: Endpoint, storage: Path, url: str) -> str:
    """The access token that a token endpoint at this URL gives."""
    one = account(sandbox, "client_credentials", **client(sandbox) | {"token_url": url})
    return credentials(one, storage).grant().headers["Authorization"]


def test_nobody_there(sandbox: Endpoint, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    one = account(sandbox, "client_credentials", **client(sandbox) | {"token_url": f"http://127.0.0.1:{port}/"})
    with pytest.raises(NotSent, match=r"The token endpoint \(127\.0\.0\.1\) does not answer"):
        credentials(one, tmp_path).grant()


def test_an_endless_answer_is_given_up(sandbox: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.5)
    with server(endless=True) as (host, _), pytest.raises(NotSent, match=r"took longer than 0\.5 s"):
        asking(sandbox, tmp_path, f"http://{host}/")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody has vouched for, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + pem)
    return path


def test_a_certificate_must_be_vouched_for(
    sandbox: Endpoint, tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with server(tls=tls) as (host, asked):
        with pytest.raises(NotSent, match=r"The TLS certificate of 127\.0\.0\.1 was not accepted") as caught:
            asking(sandbox, tmp_path, f"https://{host}/")
        assert caught.value.code == "TLS"
        assert asked == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert asking(sandbox, tmp_path, f"https://{host}/") == "Bearer given"


def test_the_proxy_of_the_environment_is_used(
    sandbox: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with server() as (proxy, asked):
        monkeypatch.setenv("http_proxy", f"http://{proxy}")
        assert asking(sandbox, tmp_path, "http://127.0.0.2:9/token") == "Bearer given"
    assert asked == ["http://127.0.0.2:9/token"]
