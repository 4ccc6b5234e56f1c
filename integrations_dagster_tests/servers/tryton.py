"""A Tryton server of a test session's own: its database is a copy of the one that was installed."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from integrations_dagster_tests.servers.install import TRYTON, TRYTON_CONFIG, TRYTON_PASSWORD

STARTS = 60.0
"""Seconds that it may take to start."""


class Tryton:
    """A running server, and a client of it that shares nothing with the package.

    Args:
        port: Where it listens on this machine.
        log: What it wrote.
    """

    password = TRYTON_PASSWORD

    def __init__(self, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._session = requests.Session()

    def call(self, method: str, *params: Any) -> Any:
        """The result of a call, by JSON-RPC with a session of its own.

        Raises:
            AssertionError: It is an error.
        """
        if "Authorization" not in self._session.headers:
            user, token, _ = self._call("common.db.login", ["admin", {"password": self.password}])
            login = base64.b64encode(f"admin:{user}:{token}".encode()).decode()
            self._session.headers["Authorization"] = f"Session {login}"
        return self._call(method, list(params))

    def _call(self, method: str, params: list[Any]) -> Any:
        answer = self._session.post(
            f"{self.url}/erp/rpc/", json={"id": 1, "method": method, "params": params}, timeout=60
        )
        document = answer.json()
        assert "error" not in document, document["error"]
        return document["result"]

    def read(self, model: str, fields: list[str]) -> list[dict[str, Any]]:
        """All records of a model, inactive ones too."""
        records = self.call(f"model.{model}.search_read", [], 0, None, None, fields, {"active_test": False})
        assert isinstance(records, list)
        return records

    def end_sessions(self) -> None:
        """Log everybody out, the client itself too."""
        with contextlib.closing(sqlite3.connect(self.log.with_name("erp.sqlite"), timeout=10)) as database, database:
            database.execute("DELETE FROM ir_session")
        self._session.headers.pop("Authorization", None)


@contextlib.contextmanager
def running_tryton(folder: Path) -> Iterator[Tryton]:
    """Run Tryton on a free port until the context ends.

    Args:
        folder: An empty folder of its own.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.copy(TRYTON / "erp.sqlite", folder / "erp.sqlite")
    with contextlib.closing(sqlite3.connect(folder / "erp.sqlite")) as database, database:
        # The user that every database begins with may do little until it is given groups.
        database.execute('INSERT INTO "res_user-res_group" ("user", "group") SELECT 1, id FROM res_group')
    config = folder / "trytond.conf"
    config.write_text(TRYTON_CONFIG.format(port=port, folder=folder, session=300), "utf-8")
    log = folder / "trytond.log"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TRYTOND_", "PYTHON"))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(TRYTON / "bin" / "trytond"), "-c", str(config), "-d", "erp"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
        )
    try:
        _await(process, port, log)
        yield Tryton(port, log)
    finally:
        process.terminate()
        process.wait(20)


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + STARTS
    while time.monotonic() < until:
        assert process.poll() is None, f"trytond ended:\n{log.read_text('utf-8', 'replace')[-2000:]}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"trytond does not listen after {STARTS:g} s")
