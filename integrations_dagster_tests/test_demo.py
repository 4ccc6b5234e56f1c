"""`integrations demo` and `integrations ui`, in a checkout of their own, with a small warehouse."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest
import requests

import integrations_dagster
from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import read_endpoint
from integrations_dagster.sandbox.process import answering, ensure_running, stop
from integrations_dagster.sandbox.properties import predefined
from integrations_dagster.sandbox.shop import create_shop

ROOT = Path(integrations_dagster.__file__).parents[1]
NEEDED = ("pyproject.toml", "workspace.yaml", "dagster.yaml", "sql", "integrations_dagster")
TABLES = 6
"""Runs of one demo: three jobs, before and after the change."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not (ROOT / "workspace.yaml").exists(), reason="the package is installed without its project"),
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    create_shop(tmp_path / "warehouse.duckdb", customers=600, orders=2_000)
    return tmp_path


def _environment(checkout: Path) -> dict[str, str]:
    dropped = ("DAGSTER_HOME", "INTEGRATIONS_STORAGE", "INTEGRATIONS_TARGET")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "PYTHONPATH": str(checkout), "COLUMNS": "120", "NO_COLOR": "1"}


def _demo(checkout: Path, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "integrations_dagster.cli", "demo"],
        cwd=checkout,
        env={**_environment(checkout), **more},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def _numbers(text: str, label: str) -> list[list[int]]:
    """The line `label` of each table."""
    lines = re.findall(rf"^\s*{label}((?:\s+[\d,]+)+)\s*$", text, re.MULTILINE)
    return [[int(number.replace(",", "")) for number in line.split()] for line in lines]


def test_a_demo_delivers_everything_twice_over(checkout: Path) -> None:
    storage = checkout / ".dagster_home" / "integrations"
    # A demo never touches a real account, whatever is set.
    first = _demo(checkout, INTEGRATIONS_TARGET="prod", HUBSPOT_TOKEN="no", EVENTS_URL="http://127.0.0.1:9")
    assert first.count("succeeded in") == TABLES
    assert len(_numbers(first, "queried")) == TABLES
    assert all(sum(line) > 0 for line in _numbers(first, "created")[:3])
    endpoint = read_endpoint(storage)
    assert endpoint is not None
    assert not answering(endpoint), "the sandbox that the demo started still runs"

    second = _demo(checkout)
    assert "changed 1 time(s)" in second
    again = [_numbers(second, label)[:3] for label in ("created", "updated", "deleted")]
    assert sum(number for label in again for line in label for number in line) == 0, second

    try:
        client = SandboxClient(ensure_running(storage)[0])
        assert {r["properties"]["email"] for r in client.records("contacts")} >= _valid_emails(checkout)
        companies = {r["properties"]["company_ref"]: r["properties"].get("name") for r in client.records("companies")}
        assert set(companies.items()) == set(_model(checkout, "SELECT company_ref, name FROM m", "companies"))
        customers = {str(key) for (key,) in _model(checkout, "SELECT customer_id FROM m", "customers")}
        assert set(client.webhook_records("events", "customers")) == customers
    finally:
        stop(storage)
    left = {path.name for path in checkout.iterdir()} - {*NEEDED, "warehouse.duckdb", ".dagster_home"}
    assert not left


def _model(checkout: Path, sql: str, name: str) -> list[tuple[object, ...]]:
    query = (checkout / "sql" / f"{name}.sql").read_text()
    with duckdb.connect(str(checkout / "warehouse.duckdb"), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(f"WITH m AS ({query}) {sql}").fetchall()


def _valid_emails(checkout: Path) -> set[str]:
    """The emails that only one customer has, and that the sandbox takes."""
    rows = _model(
        checkout,
        "SELECT lower(trim(email)) AS e FROM m WHERE length(coalesce(notes, '')) <= 65536 "
        "AND e IN (SELECT lower(trim(email)) FROM m GROUP BY ALL HAVING count(*) = 1)",
        "customers",
    )
    email = predefined("contacts")["email"]
    return {str(value) for (value,) in rows if value and email.problem(str(value)) is None}


def _answer(url: str) -> dict[str, object]:
    deadline = time.monotonic() + 120
    while True:
        try:
            found: dict[str, object] = requests.get(url, timeout=20).json()
            return found
        except requests.ConnectionError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.2)


def test_the_ui_finds_a_free_port_and_stops_with_its_sandbox(checkout: Path) -> None:
    storage = checkout / ".dagster_home" / "integrations"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        drain = threading.Thread()
        command = [sys.executable, "-m", "integrations_dagster.cli"]
        process = subprocess.Popen(
            # As a shell's background job, which ignores SIGINT and hands that on to what it starts.
            ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command, "ui", "--port", str(port)],
            cwd=checkout,
            env=_environment(checkout),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        try:
            url = ""
            for line in process.stdout:
                if found := re.search(r"Dagster UI: (\S+) \(port \d+ is taken\)", line):
                    url = found[1]
                    break
            assert url
            assert not url.endswith(f":{port}")
            drain = threading.Thread(target=process.stdout.read)
            drain.start()
            assert _answer(f"{url}/server_info")["dagster_version"]
            endpoint = read_endpoint(storage)
            assert endpoint is not None
            assert answering(endpoint)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(120)
            if drain.ident is not None:
                drain.join()
            process.stdout.close()
    assert code == 0
    deadline = time.monotonic() + 10
    while answering(endpoint):
        assert time.monotonic() < deadline, "the sandbox still runs"
        time.sleep(0.1)
