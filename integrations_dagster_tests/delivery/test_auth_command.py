"""`integrations auth`, with a test in the place of the browser."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from rich.console import Console

from integrations_dagster.cli.auth import authorize
from integrations_dagster.delivery.auth.authorize import Authorization
from integrations_dagster.delivery.auth.registry import authorizing, credentials, token_file
from integrations_dagster.destinations.errors import Refused
from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sync.spec import AuthSpec, DestinationSpec, Env, TargetSpec
from integrations_dagster.vocabulary import IntegrationsError, Misconfigured
from integrations_dagster_tests.delivery.auth import account, client, refreshing
from integrations_dagster_tests.delivery.test_auth import status

PROJECT = Path(__file__).parents[2]
PYPROJECT = """
[project]
name = "of_auth"
version = "0"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "of_auth"
defs_module = "of_auth.defs"
"""
DEFS = """
type: integrations_dagster.Destination
attributes:
  name: crm
  kind: hubspot
  targets:
    sandbox: {sandbox: true}
    prod:
      base_url: {env: CRM_URL}
      auth:
        kind: refresh_token
        authorize_url: {env: CRM_AUTHORIZE}
        token_url: {env: CRM_TOKENS}
        client_id: {env: CRM_CLIENT}
        client_secret: {env: CRM_SECRET}
        scope: crm.objects.contacts.read crm.objects.contacts.write
"""


def test_from_the_terminal(sandbox: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "of_auth" / "defs" / "all").mkdir(parents=True)
    (tmp_path / "of_auth" / "__init__.py").touch()
    (tmp_path / "of_auth" / "defs" / "__init__.py").touch()
    (tmp_path / "of_auth" / "defs" / "all" / "defs.yaml").write_text(DEFS)
    storage = tmp_path / "storage"
    env = {
        "PYTHONPATH": f"{PROJECT}:{tmp_path}",
        "DAGSTER_HOME": str(tmp_path),
        "INTEGRATIONS_STORAGE": str(storage),
        "CRM_URL": sandbox.url,
        "CRM_AUTHORIZE": f"{sandbox.url}/oauth/authorize",
        "CRM_TOKENS": f"{sandbox.url}/oauth/token",
        "CRM_CLIENT": sandbox.client_id,
        "CRM_SECRET": sandbox.client_secret,
    }
    arguments = ["auth", "crm", "--target", "prod", "--port", "0", "--no-browser", "--timeout", "60"]
    with subprocess.Popen(
        [sys.executable, "-m", "integrations_dagster.cli", *arguments],
        cwd=tmp_path,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "response_type=code" in line:
                page = requests.get(line.strip(), timeout=20)
                assert (page.status_code, "go back to the terminal" in page.text) == (200, True)
        assert process.wait(30) == 0, "".join(said)
    text = "".join(said)
    print(text)
    assert "Destination 'crm', target 'prod': the token is stored. It is for HubSpot, portal " in text
    (stored,) = (storage / "tokens").glob("*.json")
    kept = json.loads(stored.read_text())
    for secret in (sandbox.client_secret, kept["access_token"], kept["refresh_token"]):
        assert secret not in text
    assert SandboxClient(sandbox).tokens()["granted"] == {"authorization_code": 1}


@contextmanager
def walking(sandbox: Endpoint, storage: Path, timeout: float = 20.0) -> Iterator[tuple[Authorization, list[object]]]:
    """A walk that a thread waits for; what it ended with is in the list afterwards."""
    one = refreshing(sandbox)
    ended: list[object] = []
    with Authorization(authorizing(one), 0) as walk:

        def wait() -> None:
            try:
                ended.append(walk.wait(timeout, token_file(one, storage)))
            except Refused as error:
                ended.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        yield walk, ended
        thread.join()


def state_of(walk: Authorization) -> str:
    return parse_qs(urlsplit(walk.url).query)["state"][0]


def test_who_does_not_know_the_state_is_not_heard(sandbox: Endpoint, tmp_path: Path) -> None:
    one = refreshing(sandbox)
    with walking(sandbox, tmp_path) as (walk, ended):
        for query in ({"code": "x"}, {"code": "x", "state": "wrong"}, {"state": state_of(walk)}, {"error": "x"}):
            assert requests.get(walk.redirect_uri, query, timeout=10).status_code == 400
        assert requests.get(walk.redirect_uri + "x", timeout=10).status_code == 404
        assert ended == []
        assert requests.get(walk.url, timeout=10).status_code == 200
    assert ended == [token_file(one, tmp_path).read()]
    assert status(one, credentials(one, tmp_path)) == 200


def test_a_connection_that_says_nothing_stops_nobody(
    sandbox: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("integrations_dagster.delivery.auth.authorize._Handler.timeout", 0.2)
    with walking(sandbox, tmp_path) as (walk, ended):
        parts = urlsplit(walk.redirect_uri)
        with socket.create_connection((parts.hostname or "", parts.port or 0)):
            assert requests.get(walk.url, timeout=10).status_code == 200
    assert len(ended) == 1


def test_no_and_nobody(sandbox: Endpoint, tmp_path: Path) -> None:
    with walking(sandbox, tmp_path) as (walk, ended):
        requests.get(walk.redirect_uri, {"error": "access_denied", "state": state_of(walk)}, timeout=10)
    assert "The permission was not given (access_denied)." in str(ended[0])
    with walking(sandbox, tmp_path, timeout=0.1) as (_, ended):
        pass
    assert "Nobody came back from the vendor within 0.1 s." in str(ended[0])
    assert not (tmp_path / "tokens").exists()


def test_a_port_that_is_taken(sandbox: Endpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"Port {port} of 127.0.0.1 cannot be used"):
            Authorization(authorizing(refreshing(sandbox)), port)


def test_what_cannot_be_authorized(sandbox: Endpoint) -> None:
    with pytest.raises(Misconfigured, match="is authenticated by bearer, for which there is nothing to authorize"):
        authorizing(account(sandbox, "bearer", token="t"))
    with pytest.raises(Misconfigured, match="auth lacks authorize_url"):
        authorizing(account(sandbox, "refresh_token", **client(sandbox)))


def test_a_client_that_is_refused_in_the_end(
    sandbox: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The vendor's page accepts the client, and its token endpoint does not."""
    settings: dict[str, str | Env] = {
        "token_url": f"{sandbox.url}/oauth/token",
        "authorize_url": f"{sandbox.url}/oauth/authorize",
        "client_id": sandbox.client_id,
        "client_secret": Env("CRM_SECRET"),
    }
    target = TargetSpec("prod", base_url=sandbox.url, auth=AuthSpec("refresh_token", settings))
    spec = DestinationSpec("crm", "hubspot", target)
    monkeypatch.setenv("CRM_SECRET", "wrong-secret-55")
    opened = []

    def browser(url: str) -> bool:
        opened.append(threading.Thread(target=requests.get, args=(url,), kwargs={"timeout": 20}))
        opened[0].start()
        return True

    monkeypatch.setattr("webbrowser.open", browser)
    with pytest.raises(IntegrationsError, match="refused the credentials with invalid_client") as caught:
        authorize(spec, tmp_path, 0, 20.0, browser=True, console=Console(stderr=True))
    opened[0].join()
    assert "wrong-secret-55" not in str(caught.value) + "".join(capsys.readouterr())
    assert not (tmp_path / "tokens").exists()
