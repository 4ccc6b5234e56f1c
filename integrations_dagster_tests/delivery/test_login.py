"""A login that is a call: its body in a form of its own, and a token that is put together from the answer."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from integrations_dagster.components.auth import read_auth
from integrations_dagster.delivery.accounts import Account, Auth
from integrations_dagster.delivery.auth.registry import credentials
from integrations_dagster.destinations.errors import Refused

CALL = '{"id": 0, "method": "common.db.login", "params": ["{username}", {"password": "{password}"}]}'
PASSWORD = 'p"{username}\\ß'
SETTINGS = {
    "login_path": "/erp/rpc/",
    "username": "admin",
    "password": PASSWORD,
    "login_json": CALL,
    "token": "{username}:{result.0}:{result.1}",
    "token_encoding": "base64",
    "header": "Authorization: Session {token}",
}
Serve = Callable[[Any], tuple[str, list[Any]]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ThreadingHTTPServer] = []

    def make(answer: Any) -> tuple[str, list[Any]]:
        asked: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                return None

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}", asked

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def account(url: str, **settings: str) -> Account:
    return Account("jsonrpc:x", url, 5.0, in_sandbox=False, auth=Auth("session", SETTINGS | settings))


def test_a_login_that_is_a_call_gives_a_token_of_several_parts(serve: Serve, tmp_path: Path) -> None:
    url, asked = serve({"id": 0, "result": [7, "tok", None]})
    grant = credentials(account(url), tmp_path).grant()
    # What a password holds is sent as it is, and nothing in it is taken for a part to be filled in.
    assert asked == [{"id": 0, "method": "common.db.login", "params": ["admin", {"password": PASSWORD}]}]
    assert grant.headers == {"Authorization": "Session " + base64.b64encode(b"admin:7:tok").decode()}


def test_a_login_that_is_refused_in_a_200_is_refused(serve: Serve, tmp_path: Path) -> None:
    url, _ = serve({"id": 0, "error": {"code": 200, "message": f"No user with {PASSWORD}"}})
    with pytest.raises(Refused, match="refused the credentials with 200: No user with •••") as caught:
        credentials(account(url), tmp_path).grant()
    assert "username and password" in caught.value.remedy


@pytest.mark.parametrize("result", [[7], [7, None], [7, {"a": 1}], {"0": 7}, None, [True, "tok"]])
def test_a_part_that_is_not_in_the_answer_is_named(serve: Serve, tmp_path: Path, result: Any) -> None:
    url, _ = serve({"id": 0, "result": result})
    with pytest.raises(Refused, match=r'no token at "\{username\}:\{result\.0\}') as caught:
        credentials(account(url), tmp_path).grant()
    assert caught.value.remedy == "Correct auth.token of the target."


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"login_json": '{"a": "{username}"}'}, r"has no \{password\} in it"),
        ({"login_json": "{"}, "is no JSON"),
        ({"token": "plain"}, "no part of the answer"),
        ({"token_path": "result.1"}, "exactly one of token_path and cookie and token"),
        ({"token_encoding": "hex"}, "must be one of plain, base64"),
    ],
)
def test_mistakes_are_named_when_the_yaml_is_loaded(change: dict[str, str], what: str) -> None:
    given = {"kind": "session", **SETTINGS, "password": {"env": "PASSWORD"}}
    assert read_auth(given).settings["token"] == SETTINGS["token"]
    with pytest.raises(ValueError, match=what):
        read_auth(given | change)
