"""Tables of a DuckDB file as destinations, and the sandbox of `sql`, end to end."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import duckdb
import pytest

from integrations_dagster.sync.schema import FieldsDoNotFit
from integrations_dagster.sync.spec import DestinationSpec, FieldRule, FieldSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.sync.harness import Bench
from integrations_dagster_tests.sync.test_sql import PEOPLE, TEXT, told

TABLE = "CREATE TABLE people (email VARCHAR PRIMARY KEY, name VARCHAR, age INTEGER CHECK (age > 0), tags VARCHAR[])"


def sync_of(bench: Bench, mode: Mode = Mode.UPSERT, **changes: Any) -> SyncSpec:
    spec = SyncSpec(
        name="people",
        model=bench.model("people", "SELECT *, [name, NULL] AS tags FROM people"),
        destination=DestinationSpec(
            "file", "sql", TargetSpec("prod", base_url=f"duckdb://{bench.folder}/out.duckdb"), timeout=5.0
        ),
        object="main.people",
        mode=mode,
        match={} if mode is Mode.APPEND else {"email": "email"},
        fields=tuple(FieldSpec(name, name, rule=FieldRule(nulls="clear")) for name in ("email", "name", "age", "tags")),
        source="defs/people/defs.yaml:1",
        removal_limit=1000,
    )
    return dataclasses.replace(spec, **changes)


def load(bench: Bench, *rows: tuple[Any, ...]) -> None:
    bench.load("people", [dict(zip(PEOPLE, row, strict=True)) for row in rows], PEOPLE)


def make(bench: Bench, *statements: str) -> None:
    with duckdb.connect(str(bench.folder / "out.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)


def rows(bench: Bench, query: str = "SELECT email, name, age FROM people ORDER BY email") -> list[tuple[Any, ...]]:
    with duckdb.connect(str(bench.folder / "out.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_modes_of_a_file(bench: Bench) -> None:
    make(bench, TABLE, "INSERT INTO people (email, name) VALUES ('p1@x.org', 'old'), ('other@x.org', 'stays')")
    sync = sync_of(bench, Mode.MIRROR)
    load(
        bench,
        (1, "p1@x.org", TEXT, 30),
        (2, "p2@x.org", "Bob", None),
        (3, "p3@x.org", "C", -1),
        (4, "p4@x.org", "D", 1),
    )
    report = bench.run(sync)
    assert told(report) == {Status.CREATED: 2, Status.UPDATED: 1, Status.REJECTED: 1}
    assert "breaks a rule of the table" in report.bad_rows[0].reason
    load(bench, (1, "p1@x.org", TEXT, 31), (2, "p2@x.org", "Bob", None))
    assert told(bench.run(sync)) == {Status.UPDATED: 1, Status.DELETED: 1}
    assert rows(bench) == [("other@x.org", "stays", None), ("p1@x.org", TEXT, 31), ("p2@x.org", "Bob", None)]
    assert rows(bench, "SELECT tags FROM people WHERE email = 'p1@x.org'") == [([TEXT, None],)]
    assert bench.run(sync).traffic.requests == 0
    assert told(bench.run(sync_of(bench, Mode.UPDATE, name="ages"))) == {Status.UPDATED: 2}
    assert told(bench.run(sync_of(bench, Mode.DELETE, name="leavers", fields=()))) == {Status.DELETED: 2}
    assert rows(bench) == [("other@x.org", "stays", None)]


def test_appended_rows_are_noted_with_their_batch(bench: Bench) -> None:
    make(bench, "CREATE TABLE people (email VARCHAR, name VARCHAR, age INTEGER, tags VARCHAR[])")
    load(bench, *((n, f"p{n}@x.org", "P", n) for n in range(30)))
    sync = sync_of(bench, Mode.APPEND, batch_rows=10, shards=2)
    assert told(bench.run(sync)) == {Status.CREATED: 30}
    assert len(rows(bench)) == 30
    assert rows(bench, "SELECT sum(records) FROM integrations_batches") == [(30,)]
    with pytest.raises(FieldsDoNotFit, match="CREATE UNIQUE INDEX"):
        bench.run(sync_of(bench, name="other"))
    make(bench, "CREATE UNIQUE INDEX by_email ON people (email)")
    assert told(bench.run(sync_of(bench, name="other"))) == {Status.UPDATED: 30}


def test_a_file_that_another_process_holds_is_waited_for(bench: Bench) -> None:
    make(bench, TABLE)
    load(bench, (1, "p1@x.org", "Ann", 30))
    sync = sync_of(bench)
    assert bench.account(sync).endswith("out.duckdb/main.people")
    holder = "import duckdb, sys\nheld = duckdb.connect(sys.argv[1])\nprint('held', flush=True)\nsys.stdin.readline()\n"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(bench.folder / "out.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        short = dataclasses.replace(sync, destination=dataclasses.replace(sync.destination, timeout=0.2))
        report = bench.run(short)
        assert told(report) == {Status.UNSENT: 1}
        assert "another process has held out.duckdb open" in str(report.failures)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(10) == 0
    assert told(bench.run(sync)) == {Status.CREATED: 1}


def test_the_sandbox_makes_tables_of_what_is_written(bench: Bench) -> None:
    load(bench, (1, "p1@x.org", "Ann", 30), (2, "p2@x.org", None, None))
    local = DestinationSpec("shop", "sql", TargetSpec("sandbox", sandbox=True))
    sync = sync_of(bench, Mode.MIRROR, destination=local, object="public.people")
    assert told(bench.run(sync)) == {Status.CREATED: 2}
    load(bench, (1, "p1@x.org", "Ann", 31))
    assert told(bench.run(sync)) == {Status.UPDATED: 1, Status.DELETED: 1}
    path = bench.folder / "sandbox" / "sql" / "shop" / "sandbox.duckdb"
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.execute("SELECT email, name, age FROM public.people").fetchall()
    assert found == [("p1@x.org", "Ann", "31")]
    assert bench.run(sync).traffic.requests == 0


WRITER = """
import sys
from integrations_dagster.delivery.accounts import Account
from integrations_dagster.delivery.credentials import Grant
from integrations_dagster.delivery.transports.duckdb import DuckDBSession
from integrations_dagster.destinations.base import Batch
from integrations_dagster.destinations.sql.destination import Sql
from integrations_dagster.vocabulary import Action, Change, Row

url, who = sys.argv[1:]
session = DuckDBSession(Account("sql:", url, 30.0, False))
for n in range(10):
    rows = tuple(
        Row(i, f"{who}{n}{i}", f"{who}{n}{i}", Change.ADDED, Action.UPSERT, b'{"age":1}') for i in range(20)
    )
    flow = Sql().deliver(Batch("s", "people", Action.UPSERT, ("email",), rows, f"{who}{n}"))
    answer = session.send(next(flow), Grant())
    assert answer.status == 200, answer
"""


@pytest.mark.slow
def test_processes_take_turns(bench: Bench) -> None:
    """As the write ops of several shards do: a file that is open excludes all others, for a moment."""
    make(bench, TABLE)
    url = f"duckdb://{bench.folder}/out.duckdb"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, url, who]) for who in ("a", "b", "c")]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert rows(bench, "SELECT count(*), count(DISTINCT email) FROM people") == [(600, 600)]
