"""Secrets and sensitive values are planted wherever one can be configured, and then looked for in all that was written.

Syncs run in processes of their own, as Dagster's runs, against the sandbox and against a server that answers with
everything it was sent: well, throttled, in outages, refused, with rejected rows whose reasons quote values.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import sqlite3
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow.parquet as pq
import pytest

from integrations_dagster.delivery.quotations import MASK
from integrations_dagster.delivery.request_log import read_lines
from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster_tests.components.project import ProjectFolder

PLANTED = {
    "ECHO_PASSWORD": 'pass-4f7a/Xq"+9w',
    "ECHO_KEY": "apikey-77c1d0ffee",
    "ECHO_SECRET": "whsec_" + base64.b64encode(b"planted signing secret").decode(),
    "ECHO_PATH": "path-secret-5be1",
    "WRONG_TOKEN": "pat-na1-wrong-0a1b2c3d",
}
SSN = "078-05-{:04}"
DIAGNOSIS = "Morbus Planted-{:02} of the Liver"
ROWS = 60

COMMON = """
type: integrations_dagster.Warehouse
attributes: {name: warehouse, kind: duckdb, path: warehouse.duckdb}
---
type: integrations_dagster.Model
attributes: {sql: people.sql, primary_key: id}
"""
SYNC = """
type: integrations_dagster.Sync
attributes:
  name: {name}
  model: people
  destination: {name}
  object: {object}
  mode: upsert
  batch: {{rows: 20}}
  schedule: 0 0 1 1 *
  {match}
  fields:
    firstname: name
    ssn: {{column: ssn, sensitive: true}}
    diagnosis: {{column: diagnosis, sensitive: true}}
"""
DESTINATION = """
type: integrations_dagster.Destination
attributes:
  name: {name}
  kind: {kind}
  retry: {{attempts: 2, base: 0.01, cap: 0.05}}
  request_log: {{bodies: all}}
  targets:
    sandbox: {{sandbox: true}}
    prod: {{base_url: {{env: {url}}}, {auth}}}
"""
ACCOUNTS = {
    "crm": ("hubspot", "CRM_URL", "token: {env: CRM_TOKEN}"),
    "crm_oauth": (
        "hubspot",
        "CRM_URL",
        "auth: {kind: client_credentials, token_url: {env: TOKEN_URL}, client_id: {env: CLIENT}, "
        "client_secret: {env: CLIENT_SECRET}}",
    ),
    "crm_wrong": ("hubspot", "CRM_URL", "token: {env: WRONG_TOKEN}"),
    "hook": ("webhook", "HOOK_URL", "secret: {env: HOOK_SECRET}"),
    "echo_basic": (
        "webhook",
        "ECHO_URL",
        "secret: {env: ECHO_SECRET}, auth: {kind: basic, username: me, password: {env: ECHO_PASSWORD}}",
    ),
    "echo_key": ("webhook", "ECHO_URL", "auth: {kind: api_key, key: {env: ECHO_KEY}, query: hapikey}"),
    "echo_header": ("webhook", "ECHO_URL", "auth: {kind: api_key, key: {env: ECHO_KEY}, header: X-Echo-Key}"),
}
DEFINITIONS = """\
from pathlib import Path

import dagster as dg
from integrations_dagster.components.load import load_definitions
from integrations_dagster.orchestration.executor import default_executor


@dg.definitions
def defs():
    return dg.Definitions.merge(load_definitions(Path(__file__).parent), dg.Definitions(executor=default_executor()))
"""


class Echo(BaseHTTPRequestHandler):
    """Answers with all it was sent, as page, as JSON, and with the statuses in turn."""

    answers = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        Echo.answers += 1
        status = (400, 429, 503, 401, 422, 200, 500)[Echo.answers % 7]
        told = {"error": f"You sent {body} to {self.path}", "headers": dict(self.headers), "body": body}
        raw = json.dumps(told).encode() if Echo.answers % 2 else repr(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("X-Request-Id", f"echo-{Echo.answers}")
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        return None


@pytest.fixture
def echo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


class Project:
    """A project whose runs know secrets by environment only; its storage is apart from the sandbox's."""

    def __init__(self, root: Path, sandbox: Endpoint, echo: str) -> None:
        self.root = root
        self.home = root / "home"
        self.home.mkdir()
        (self.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        folders = {"common": COMMON}
        for name, (kind, url, auth) in ACCOUNTS.items():
            match = "match: {email: email}" if kind == "hubspot" else ""
            # An object of its own: several webhooks are one account, and two syncs of one object undo each other.
            object_ = "contacts" if kind == "hubspot" else f"people_{name}"
            text = DESTINATION.format(name=name, kind=kind, url=url, auth=auth)
            folders[name] = f"{text}---{SYNC.format(name=name, object=object_, match=match)}"
        self.folder = ProjectFolder(root, folders, "planted_project")
        (root / "planted_project" / "definitions.py").write_text(DEFINITIONS)
        (root / "sql" / "people.sql").write_text("SELECT * FROM people ORDER BY id")
        self.secrets = {
            **PLANTED,
            "CRM_TOKEN": sandbox.token,
            "CLIENT_SECRET": sandbox.client_secret,
            "HOOK_SECRET": sandbox.secret,
        }
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("INTEGRATIONS_", "DAGSTER_"))},
            **self.secrets,
            "CRM_URL": sandbox.url,
            "HOOK_URL": f"{sandbox.url}/webhook/hook",
            "ECHO_URL": f"{echo}/{PLANTED['ECHO_PATH']}",
            "TOKEN_URL": f"{sandbox.url}/oauth/token",
            "CLIENT": sandbox.client_id,
            "INTEGRATIONS_TARGET": "prod",
            "DAGSTER_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join([str(root), str(Path(__file__).parents[1])]),
        }
        self.told = ""

    def people(self, version: int) -> None:
        with duckdb.connect(str(self.root / "warehouse.duckdb")) as connection:
            connection.execute(
                """CREATE OR REPLACE TABLE people AS SELECT i AS id, 'p' || i || '@example.com' AS email,
                'Person ' || i || ' v' || $version AS name, format('078-05-{:04d}', i) AS ssn,
                format('Morbus Planted-{:02d} of the Liver', i) AS diagnosis FROM range(60) r(i)""",
                {"version": version},
            )

    def call(self, *command: str) -> int:
        """Run a command of the project; what it tells is searched too."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=200,
        )
        self.told += done.stdout
        return done.returncode

    def integrations(self, *arguments: str) -> int:
        return self.call("integrations_dagster.cli", *arguments)


def texts(path: Path) -> Iterator[str]:
    """Everything that can be read in a file: its bytes, and what is packed in it."""
    raw = path.read_bytes()
    yield raw.decode("utf-8", "replace")
    if path.suffix == ".gz":
        yield "\n".join(line.decode("utf-8", "replace") for line in read_lines(path))
        with suppress(OSError, EOFError, zlib.error):
            yield gzip.decompress(raw).decode("utf-8", "replace")
    elif path.suffix == ".parquet":
        yield json.dumps(pq.read_table(path).to_pylist(), default=str, ensure_ascii=False)
    elif raw.startswith(b"SQLite format 3\0"):
        with closing(sqlite3.connect(path)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                for row in connection.execute(f'SELECT * FROM "{table}"'):
                    for value in row:
                        if isinstance(value, bytes):
                            with suppress(zlib.error):
                                yield zlib.decompress(value).decode("utf-8", "replace")
                        yield value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def forms(text: str) -> set[str]:
    inner = json.dumps(text)[1:-1]
    return {text, inner, json.dumps(inner)[1:-1], quote(text, safe="")}


def found(needles: Mapping[str, set[str]], folder: Path, told: str, skip: set[str]) -> list[str]:
    """ "name in file" of every needle that is anywhere."""
    places = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        where = path.relative_to(folder)
        if skip & set(where.parts):
            continue
        for text in texts(path):
            places += [f"{name} in {where}" for name, known in needles.items() if any(n in text for n in known)]
    places += [f"{name} in what was told" for name, known in needles.items() if any(n in told for n in known)]
    return sorted(set(places))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_secret_is_written_anywhere(tmp_path: Path, sandbox: Endpoint, echo: str) -> None:
    project = Project(tmp_path, sandbox, echo)
    client = SandboxClient(sandbox)
    for name in ("ssn", "diagnosis"):
        client.define_property("contacts", name)

    def quoting(row: int, message: str) -> dict[str, Any]:
        fault = {"kind": "reject_rows", "with": SSN.format(row), "message": message, "code": "INVALID_PROPERTY"}
        return {"fault": fault}

    rejecting = [
        quoting(41, f"Property ssn: {SSN.format(41)} is taken by {DIAGNOSIS.format(41).upper()}"),
        quoting(42, f"078 05 0042 is no number; '{DIAGNOSIS.format(42)[:24]}…' is too long"),
        quoting(43, f'{{\\"ssn\\": \\"{SSN.format(43)}\\"}}'),
    ]
    project.people(1)
    client.faults(
        [
            *rejecting,
            {"times": 2, "fault": {"kind": "status", "status": 429, "retry_after": 0}},
            {"after": 4, "times": 1, "fault": {"kind": "unauthorized"}},
            {"after": 5, "times": 2, "fault": {"kind": "reset", "applied": True}},
            {"after": 7, "times": 1, "fault": {"kind": "malformed"}},
        ]
    )
    project.call("dagster", "job", "execute", "-m", "planted_project.definitions", "-j", "sync_people")
    project.people(2)
    client.faults(rejecting)
    project.integrations("run", "crm")
    project.people(3)
    client.faults([{"fault": {"kind": "status", "status": 503}}])
    assert project.integrations("run", "crm") == 1
    client.clear_faults()
    for arguments in (
        ("preview", "crm"),
        ("retry", "crm"),
        ("retry", "echo_basic"),
        ("trace", "crm", "41", "--bodies"),
        ("trace", "echo_basic", "41", "--bodies"),
        ("list",),
    ):
        project.integrations(*arguments)
    print(project.told[-3000:])
    # It all happened: rows arrived, rows were rejected, requests were logged, and the server that tells all was asked.
    assert client.records("contacts")
    assert Echo.answers > 4
    storage = project.home / "integrations"
    logs = sorted(storage.glob("syncs/*/*/requests/*/*.gz"))
    # The wrong token is refused by the plan, which sends nothing.
    assert {path.relative_to(storage).parts[1] for path in logs} == {*ACCOUNTS} - {"crm_wrong"}
    kept = "\n".join(text for path in logs for text in texts(path))
    assert MASK in kept
    assert "You sent" in kept
    assert "Person 41" in kept
    assert "is taken by" in project.told

    # A token file per account is where tokens live; model versions are the warehouse's rows.
    secret = {name: forms(value) for name, value in project.secrets.items()}
    secret["ECHO_PASSWORD"].add(base64.b64encode(f"me:{PLANTED['ECHO_PASSWORD']}".encode()).decode())
    for number, token in enumerate(tokens(storage / "tokens")):
        secret[f"issued token {number}"] = forms(token)
    assert len(secret) > len(project.secrets)
    assert found(secret, project.home, project.told, {"tokens"}) == []

    sought = range(ROWS)
    sensitive = {f"ssn {n}": {SSN.format(n), SSN.format(n).replace("-", "")} for n in sought}
    sensitive |= {f"diagnosis {n}": {DIAGNOSIS.format(n), DIAGNOSIS.format(n).upper()} for n in sought}
    assert found(sensitive, project.home, project.told, {"tokens", "models", "plans"}) == []


def tokens(folder: Path) -> Iterator[str]:
    """Every text in the token files that is long enough to be a token."""

    def inside(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for inner in value.values():
                yield from inside(inner)
        elif isinstance(value, str) and len(value) >= 20 and " " not in value and "://" not in value:
            yield value

    for path in folder.glob("*.json"):
        yield from inside(json.loads(path.read_text("utf-8")))


def test_the_search_finds_what_is_hidden(tmp_path: Path) -> None:
    needle = {"x": {"planted-value"}}
    (tmp_path / "plain.txt").write_text("a planted-value")
    with gzip.open(tmp_path / "log.jsonl.gz", "wb") as file:
        file.write(b"planted-value\n")
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as database:
        database.execute("CREATE TABLE t (b BLOB)")
        database.execute("INSERT INTO t VALUES (?)", (zlib.compress(b"planted-value" * 3),))
        database.commit()
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 'planted-value' AS v) TO '{tmp_path / 'rows.parquet'}' (FORMAT parquet)")
    (tmp_path / "skipped").mkdir()
    (tmp_path / "skipped" / "file").write_text("planted-value")
    places = found(needle, tmp_path, "told planted-value", {"skipped"})
    files = ("db.sqlite", "log.jsonl.gz", "plain.txt", "rows.parquet", "what was told")
    assert places == [f"x in {file}" for file in files]
