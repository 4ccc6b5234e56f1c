"""A Directus server of a test session's own: its database is a copy of the empty one that was installed."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from integrations_dagster_tests.servers.install import DIRECTUS, DIRECTUS_TOKEN, directus_env

STARTS = 120.0
"""Seconds that it may take to start."""
FIELDS: tuple[dict[str, Any], ...] = (
    {"field": "email", "type": "string", "schema": {"is_primary_key": True, "has_auto_increment": False}},
    {
        "field": "name",
        "type": "string",
        "schema": {},
        "meta": {
            "validation": {"name": {"_nstarts_with": "bad"}},
            "validation_message": "A name must not begin with bad.",
        },
    },
    {"field": "amount", "type": "decimal", "schema": {"numeric_precision": 12, "numeric_scale": 2}},
    {"field": "active", "type": "boolean", "schema": {}, "meta": {"special": ["cast-boolean"]}},
    # On SQLite a field of type date gives the first of January 1970 back as 0.
    {"field": "born", "type": "string", "schema": {}},
    {"field": "note", "type": "text", "schema": {}},
)


class Directus:
    """A running server, and a client of it that shares nothing with the package.

    Args:
        port: Where it listens on this machine.
    """

    token = DIRECTUS_TOKEN

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {self.token}"

    def ask(self, method: str, path: str, **given: Any) -> Any:
        """What is under `data` of an answer.

        Raises:
            AssertionError: It is an error.
        """
        answer = self._session.request(method, f"{self.url}{path}", timeout=120, **given)
        assert answer.ok, answer.text
        return answer.json()["data"] if answer.content else None

    def new_collection(self, name: str) -> None:
        """An empty collection of customers whose primary key is their email."""
        if name in {one["collection"] for one in self.ask("GET", "/collections")}:
            self.ask("DELETE", f"/collections/{name}")
        fields = [{"meta": {}, **field} for field in FIELDS]
        self.ask("POST", "/collections", json={"collection": name, "schema": {}, "meta": {}, "fields": fields})

    def read(self, name: str) -> dict[str, dict[str, Any]]:
        """All items of a collection: email to values."""
        return {item["email"]: item for item in self.ask("GET", f"/items/{name}", params={"limit": -1})}


@contextlib.contextmanager
def running_directus(folder: Path) -> Iterator[Directus]:
    """Run Directus on a free port until the context ends.

    Args:
        folder: An empty folder of its own.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.copy(DIRECTUS / "empty.sqlite", folder / "directus.sqlite")
    log = folder / "directus.log"
    env = directus_env(folder / "directus.sqlite") | {"PORT": str(port)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(DIRECTUS / "node_modules/.bin/directus"), "start"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=folder,
        )
    try:
        _await(process, port, log)
        yield Directus(port)
    finally:
        process.terminate()
        process.wait(20)


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + STARTS
    while time.monotonic() < until:
        assert process.poll() is None, f"directus ended:\n{log.read_text('utf-8', 'replace')[-2000:]}"
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"http://127.0.0.1:{port}/server/ping", timeout=2).text == "pong":
                return
        time.sleep(0.1)
    raise AssertionError(f"directus does not answer after {STARTS:g} s")
