"""The command line: a sync from the terminal, and errors as messages."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import duckdb
import pytest

from integrations_dagster.cli.project import parse_keys, prepare
from integrations_dagster.cli.rows import parse_since
from integrations_dagster.cli.ui import free_port
from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint, read_endpoint, state_folder
from integrations_dagster.sandbox.process import answering, ensure_running, stop
from integrations_dagster.vocabulary import IntegrationsError
from integrations_dagster_tests.postgres import Postgres

PYPROJECT = """
[project]
name = "shop_syncs"
version = "0"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "shop_syncs"
defs_module = "shop_syncs.defs"
"""
DEFS = """
type: integrations_dagster.Warehouse
attributes: {name: warehouse, kind: duckdb, path: warehouse.duckdb}
---
type: integrations_dagster.Model
attributes: {sql: people.sql, primary_key: id}
---
type: integrations_dagster.Model
attributes:
  sql: visits.sql
  primary_key: id
  partitions: {daily: {start: 2026-06-01, end: 2026-06-04}}
---
type: integrations_dagster.Destination
attributes: {name: crm, kind: hubspot, targets: {sandbox: {sandbox: true}}}
---
type: integrations_dagster.Destination
attributes: {name: hook, kind: webhook, targets: {sandbox: {sandbox: true}}}
---
type: integrations_dagster.Sync
attributes:
  name: contacts
  model: people
  destination: crm
  object: contacts
  mode: upsert
  match: {email: email}
  fields: {firstname: name}
---
type: integrations_dagster.Destination
attributes: {name: book, kind: sandbox_insert, timeout: 2, targets: {sandbox: {sandbox: true}}}
---
type: integrations_dagster.Sync
attributes:
  name: entries
  model: people
  destination: book
  object: entries
  mode: insert
  fields: {name: {column: name, sensitive: true}}
---
type: integrations_dagster.Sync
attributes:
  name: visits_to_hook
  model: visits
  destination: hook
  object: visits
  mode: upsert
  fields: {id: id}
"""


class Shell:
    """Runs `integrations` in a project of its own, in this process."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.storage = root / ".dagster_home" / "integrations"
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        with warnings.catch_warnings():
            # This version of typer and the newest click do not agree on a name.
            warnings.simplefilter("ignore", DeprecationWarning)
            from integrations_dagster.cli import main

            self._capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        told = self._capsys.readouterr()
        assert ended.value.code == code, told.out + told.err
        return told.out + told.err

    @property
    def environment(self) -> dict[str, str]:
        """For a process of its own."""
        return {**os.environ, "PYTHONPATH": str(self.root)}

    def people(self, sql: str) -> None:
        with duckdb.connect(str(self.root / "warehouse.duckdb")) as connection:
            connection.execute(sql)

    @property
    def sandbox(self) -> SandboxClient:
        return SandboxClient(ensure_running(self.storage)[0])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The package of another module's project is not this one.
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop_syncs"]:
        del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if not (Path(entry) / "shop_syncs").is_dir()]
    root = tmp_path_factory.mktemp("project")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "shop_syncs" / "defs" / "all").mkdir(parents=True)
    (root / "shop_syncs" / "__init__.py").touch()
    (root / "shop_syncs" / "defs" / "__init__.py").touch()
    (root / "shop_syncs" / "defs" / "all" / "defs.yaml").write_text(DEFS)
    (root / "sql").mkdir()
    (root / "sql" / "people.sql").write_text("SELECT id, email, name FROM people")
    (root / "sql" / "visits.sql").write_text(
        "SELECT id FROM visits WHERE day >= CAST($partition_start AS TIMESTAMPTZ) "
        "AND day < CAST($partition_end AS TIMESTAMPTZ)"
    )
    return root


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A folder that is no project."""
    return _in(tmp_path, monkeypatch, capsys)


@pytest.fixture
def shell(
    root: Path,
    sandbox: Endpoint,
    sandbox_storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    """A project with 200 people, and a sandbox that knows none of them."""
    shell = _in(root, monkeypatch, capsys)
    shell.people(
        """CREATE OR REPLACE TABLE people AS
            SELECT i AS id, 'p' || i || '@example.com' AS email, 'Person ' || i AS name FROM range(200) r(i);
        CREATE OR REPLACE TABLE visits AS
            SELECT i AS id, TIMESTAMPTZ '2026-06-01 00:00:00+00' + to_days(CAST(i % 3 AS INTEGER)) AS day
            FROM range(30) r(i)"""
    )
    # A new storage folder, which knows the session's sandbox, and nothing of what others have delivered there.
    shutil.rmtree(shell.storage, ignore_errors=True)
    folder = state_folder(shell.storage)
    folder.mkdir(parents=True)
    shutil.copy(state_folder(sandbox_storage) / "sandbox.json", folder / "sandbox.json")
    return shell


def _in(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    for name in ("INTEGRATIONS_STORAGE", "INTEGRATIONS_TARGET"):
        monkeypatch.delenv(name, raising=False)
    home = folder / ".dagster_home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return Shell(folder, capsys)


def _count(text: str, label: str) -> int:
    found = re.search(rf"^\s*{label}\s+([\d,]+)", text, re.MULTILINE)
    assert found, f"{label} is not in:\n{text}"
    return int(found[1].replace(",", ""))


def test_preview_sends_nothing_and_run_sends_what_it_showed(shell: Shell) -> None:
    text = shell("preview", "contacts", "--samples", "1")
    assert "Nothing is sent" in text
    assert re.search(r"^\s*200\s+200\s+0\s+0\s+0\s+0\s+0\s+200\s*$", text, re.MULTILINE), text
    sample = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert sample["email"].endswith("@example.com")
    assert sample["firstname"].startswith("Person ")
    assert shell.sandbox.records("contacts") == []

    text = shell("run", "contacts")
    assert (_count(text, "queried"), _count(text, "created"), _count(text, "rejected")) == (200, 200, 0)
    assert len(shell.sandbox.records("contacts")) == 200

    before = shell.sandbox.last_seq()
    text = shell("run", "contacts")
    assert (_count(text, "unchanged"), _count(text, "requests")) == (200, 0)
    writes = [r for r in shell.sandbox.received(since=before) if r["method"] == "POST" and "batch" in r["path"]]
    assert writes == []


def test_home_tells_where_the_state_is_and_moves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], postgres: Postgres
) -> None:
    database = postgres.create_database()
    postgres.execute(
        database,
        "CREATE TABLE people AS SELECT i AS id, 'h' || i || '@example.com' AS email, 'Person ' || i AS name "
        "FROM generate_series(1, 20) i",
    )
    monkeypatch.setenv("HOME_TEST_URL", postgres.url(database))
    # A package of its own: modules are never unloaded.
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace("shop_syncs", "home_syncs"))
    folder = tmp_path / "home_syncs" / "defs" / "all"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder.parent.parent):
        (package / "__init__.py").touch()
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "people.sql").write_text("SELECT id, email, name FROM people")
    defs = DEFS.replace("kind: duckdb, path: warehouse.duckdb", "kind: postgres, url: {env: HOME_TEST_URL}")
    documents = [part for part in defs.split("---") if "visits" not in part and "book" not in part]
    yaml = folder / "defs.yaml"
    yaml.write_text("---".join(documents))
    shell = _in(tmp_path, monkeypatch, capsys)
    try:
        ensure_running(shell.storage)
        assert "begins with its first run (YAML: home: embedded)" in " ".join(shell("home", "contacts").split())
        assert "has no state yet" in shell("home", "contacts", "warehouse")
        shell("run", "contacts")
        assert "is in files below the storage folder" in " ".join(shell("home", "contacts").split())
        told = " ".join(shell("home", "contacts", "warehouse").split())
        assert "20 record(s) of sync 'contacts'" in told
        assert "Write `home: warehouse` in" in told
        assert "Move it with `integrations home contacts embedded`" in " ".join(
            shell("run", "contacts", code=1).split()
        )
        yaml.write_text(yaml.read_text().replace("  mode: upsert\n", "  mode: upsert\n  home: warehouse\n"))
        text = shell("run", "contacts")
        assert (_count(text, "unchanged"), _count(text, "requests")) == (20, 0)
        (row,) = shell("sql", "SELECT count(*) AS n FROM sync_snapshot", "--format", "json").splitlines()
        assert json.loads(row) == {"n": 20}
        assert "already" in shell("home", "contacts", "warehouse")
        assert "20 record(s)" in shell("home", "contacts", "embedded")
        assert "is in files" in " ".join(shell("home", "contacts").split())
        assert "Invalid value" in shell("home", "contacts", "cloud", code=2)
    finally:
        stop(shell.storage)


def test_a_test_send_of_a_few_rows(shell: Shell) -> None:
    text = shell("run", "contacts", "--keys", "7,8", "--keys", "9")
    assert (_count(text, "created"), _count(text, "excluded")) == (3, 197)
    emails = {record["properties"]["email"] for record in shell.sandbox.records("contacts")}
    assert emails == {"p7@example.com", "p8@example.com", "p9@example.com"}
    shell("run", "contacts", "--limit", "5")
    assert len(shell.sandbox.records("contacts")) == 8


@pytest.mark.slow
def test_without_a_query_the_newest_version_is_used(shell: Shell) -> None:
    shell("run", "contacts", "--limit", "1")
    shell.people("DELETE FROM people")
    assert _count(shell("run", "contacts", "--no-query"), "queried") == 200
    assert _count(shell("run", "contacts"), "queried") == 0


@pytest.mark.slow
def test_a_partitioned_sync_runs_by_partition(shell: Shell) -> None:
    text = shell("run", "visits_to_hook", code=1)
    assert "--partition" in text
    assert "2026-06-01 to 2026-06-03" in text
    assert "no partition 2027-01-01" in shell("run", "visits_to_hook", "--partition", "2027-01-01", code=1)
    text = shell("run", "visits_to_hook", "--partition", "2026-06-01", "--partition", "2026-06-02")
    assert _count(text, "queried") == 20
    assert len(shell.sandbox.webhook_records("hook", "visits")) == 20
    assert "not partitioned" in shell("run", "contacts", "--partition", "2026-06-01", code=1)


@pytest.mark.slow
def test_rejected_rows_are_shown_with_their_reason(shell: Shell) -> None:
    shell.people("UPDATE people SET email = 'not an email' WHERE id = 3")
    text = shell("run", "contacts")
    assert _count(text, "rejected") == 1
    assert re.search(r"3\s+rejected\s+.*not an email", text), text


def test_a_rejected_row_is_traced_and_retried(shell: Shell) -> None:
    shell.people("UPDATE people SET email = 'not an email' WHERE id = 3")
    shell("run", "contacts")
    text = shell("trace", "contacts", "3")
    assert re.search(r"change +added \(upsert\), match not an email, shard \d, in a batch of 100\n", text), text
    request = re.search(r"request +POST \S+/upsert -> 207 in \d+ ms, attempt 1, 100 rows, request id (\S+)\n", text)
    assert request, text
    assert re.search(rf"outcome +rejected: INVALID_EMAIL: .*not an email.* \(request id {request[1]}\)\n", text), text
    assert re.search(r"held +rejected since .*, rejected once; tried again by the next run: INVALID_EMAIL", text), text
    assert "record    none is known" in text
    assert '> {"inputs"' in shell("trace", "contacts", "3", "--bodies")

    shell.people("UPDATE people SET email = 'mended@example.com', name = 'Mended' WHERE id = 3")
    shell.people("UPDATE people SET name = 'Not held' WHERE id = 4")
    text = shell("retry", "contacts", "--key", "3", "--key", "4", "--key", "x")
    assert (_count(text, "created"), _count(text, "requests")) == (1, 1)
    assert "1 held row was released and sent again." in text
    assert "Not held: 4, x." in text
    assert not any(r["properties"].get("firstname") == "Not held" for r in shell.sandbox.records("contacts"))
    text = shell("trace", "contacts", "3")
    assert text.count("\nrun cli-") == 2
    assert re.search(r"record +match mended@example.com, id \d+, as acknowledged", text), text

    assert "No held row fits" in shell("retry", "contacts", "--reason", "email", "--since", "2h")
    assert "--since 'yesterday' is no time" in shell("retry", "contacts", "--since", "yesterday", code=1)
    assert "knows nothing of a row with the key 'x'" in shell("trace", "contacts", "x", code=1)


def test_the_sync_log_in_the_terminal(shell: Shell) -> None:
    assert "0 row(s)" in shell("sql", "SELECT * FROM sync_log")
    assert "No sync has been run yet" in shell("runs", "contacts", code=1)
    shell("run", "contacts", "--limit", "3")
    for command in ("runs", "log"):
        assert "nothing of a sync 'contact'.\nIt has: contacts." in shell(command, "contact", code=1)
    rows = shell("log", "contacts", "--outcome", "created", "--since", "1h", "--format", "json")
    found = [json.loads(line) for line in rows.splitlines()]
    assert len(found) == 3
    assert {row["outcome"] for row in found} == {"created"}
    runs = shell("runs", "contacts")
    assert "succeeded" in runs
    counted = shell("sql", "SELECT sync, count(*) AS n FROM sync_log GROUP BY sync", "--format", "csv")
    assert counted.replace('"', "").split() == ["sync,n", "contacts,3"]
    assert "only read" in shell("sql", "DROP TABLE sync_log", code=1)
    assert "The query failed" in shell("sql", "SELECT nothing FROM sync_log", code=1)


def test_a_row_in_doubt_is_confirmed_or_sent_again(shell: Shell) -> None:
    shell.people("DELETE FROM people WHERE id > 3")
    reset = {"kind": "reset", "applied": True}
    shell.sandbox.faults([{"match": {"path": "/inserts/*"}, "times": 1, "fault": reset}])
    shell("run", "entries", code=1)
    assert "in doubt since" in shell("trace", "entries", "1")
    assert "--id names one record" in shell("confirm", "entries", "--key", "1", "--key", "2", "--id", "7", code=1)
    text = shell("confirm", "entries", "--key", "1", "--key", "2", "--key", "99", code=1)
    assert "Row 1: recorded as delivered." in text
    assert "not in doubt: 99" in text
    text = shell("trace", "entries", "1")
    assert "created (late" in text
    assert "as acknowledged" in text
    assert _count(shell("retry", "entries"), "requests") == 0
    assert _count(shell("retry", "entries", "--key", "3"), "created") == 1
    counts = shell.sandbox.insert_counts("book", "entries")
    assert counts == {"0": 1, "1": 1, "2": 1, "3": 2}
    assert "not in doubt: 3" in shell("confirm", "entries", "--key", "3", code=1)


def test_a_preview_shows_nothing_of_sensitive_fields(shell: Shell) -> None:
    text = shell("preview", "entries")
    assert '"name": "•••"' in text
    assert "Person" not in text


@pytest.mark.slow
def test_a_run_that_is_interrupted_records_and_the_next_delivers_the_rest(shell: Shell) -> None:
    shell.sandbox.configure(latency=1.0)
    process = subprocess.Popen(
        [sys.executable, "-m", "integrations_dagster.cli", "run", "contacts"],
        cwd=shell.root,
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not any("upsert" in request["path"] for request in shell.sandbox.received()):
            assert time.monotonic() < deadline, "no request arrived"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in text
    assert "sending nothing new" in text, text
    shell.sandbox.configure(latency=0)
    shell("run", "contacts")
    assert {record["writes"] for record in shell.sandbox.records("contacts")} == {1}
    assert len(shell.sandbox.records("contacts")) == 200


def test_errors_are_one_message_and_exit_code_1(shell: Shell) -> None:
    assert "Known: contacts, entries, visits_to_hook" in shell("run", "contact", code=1)
    (shell.root / "sql" / "people.sql").write_text("SELECT nothing")
    try:
        text = shell("run", "contacts", code=1)
    finally:
        (shell.root / "sql" / "people.sql").write_text("SELECT id, email, name FROM people")
    assert "sql/people.sql" in text
    assert "nothing" in text
    shutil.rmtree(state_folder(shell.storage))
    ensure_running(shell.storage)
    stop(shell.storage)
    assert "integrations sandbox" in shell("run", "contacts", code=1)


@pytest.mark.slow
def test_a_failed_run_gives_its_lease_back(shell: Shell) -> None:
    shell.people("INSERT INTO people VALUES (1, 'again@example.com', 'Again')")
    assert "not unique" in shell("run", "contacts", code=1)
    shell.people("DELETE FROM people WHERE email = 'again@example.com'")
    assert _count(shell("run", "contacts"), "created") == 200


def test_list_names_every_sync(shell: Shell) -> None:
    text = shell("list")
    assert re.search(r"contacts\s+people\s+crm: contacts\s+upsert\s+sandbox", text), text
    assert "visits_to_hook" in text


def test_the_sample_warehouse_is_made_once(outside: Shell) -> None:
    sizes = ("--customers", "50", "--orders", "60", "--path", "sample.duckdb")
    assert "created; made with 50 customers and 60 orders" in outside("warehouse", *sizes)
    assert "is there already, changed 0 time(s)" in outside("warehouse", "--path", "sample.duckdb")
    assert "with 70 customers" in outside("warehouse", *sizes[2:], "--customers", "70", "--force")


def test_outside_of_a_project_it_says_so(outside: Shell) -> None:
    assert "in no Dagster project" in outside("list", code=1)
    assert "pyproject.toml" in outside("sandbox", code=1)


def test_without_any_variable_the_home_is_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAGSTER_HOME", "INTEGRATIONS_STORAGE"):
        monkeypatch.setenv(name, "")
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert prepare(tmp_path) == tmp_path / ".dagster_home" / "integrations"
    assert (tmp_path / ".dagster_home" / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"
    assert os.environ["DAGSTER_HOME"] == str(tmp_path / ".dagster_home")


def test_the_sandbox_serves_until_it_is_told_to_stop(outside: Shell) -> None:
    (outside.root / "pyproject.toml").touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "integrations_dagster.cli", "sandbox"], cwd=outside.root, env=outside.environment
    )
    try:
        deadline = time.monotonic() + 60
        while (endpoint := read_endpoint(outside.storage)) is None or not answering(endpoint):
            assert time.monotonic() < deadline, "it does not answer"
            assert process.poll() is None, "it ended"
            time.sleep(0.05)
        assert endpoint.pid == process.pid
    finally:
        process.terminate()
        process.wait(20)
    assert not answering(endpoint)


def test_keys_are_separated_by_commas_but_for_composite_ones() -> None:
    assert parse_keys(["1,2", " 3 ", '["a,b","c"]']) == ("1", "2", "3", '["a,b","c"]')
    assert parse_keys(None) == ()


def test_since_is_a_time_or_a_time_ago() -> None:
    assert parse_since("2h", 10_000.0) == 2800.0
    assert parse_since("90", 100.0) == 10.0
    assert parse_since("1970-01-02", 0.0) == 86_400.0
    assert parse_since("1970-01-01T02:00+02:00", 0.0) == 0.0


def test_a_taken_port_is_passed_over() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
    with pytest.raises(IntegrationsError, match="No port"):
        free_port(65_536)
