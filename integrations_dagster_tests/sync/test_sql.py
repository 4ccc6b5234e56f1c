"""Tables of a PostgreSQL server as destinations, end to end: what is written, and what becomes of rows when not all is
well."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg2  # type: ignore[import-untyped]
import pytest

from integrations_dagster.destinations.sql.destination import TableKeys
from integrations_dagster.sync.record import record
from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.schema import FieldsDoNotFit
from integrations_dagster.sync.spec import DestinationSpec, Env, FieldRule, FieldSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Misconfigured, Mode, Status
from integrations_dagster_tests.delivery.proxy import proxy
from integrations_dagster_tests.postgres import Postgres
from integrations_dagster_tests.sync.harness import Bench


def told(report: RunReport) -> dict[Status, int]:
    """The outcomes that there are."""
    return {status: count for status, count in report.outcomes.items() if count}


PEOPLE = {"id": "BIGINT", "email": "VARCHAR", "name": "VARCHAR", "age": "INTEGER"}
TABLE = (
    "CREATE TABLE people (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL UNIQUE, "
    "name varchar(20), age integer CONSTRAINT age_is_positive CHECK (age > 0))"
)


class Shop:
    """A database of its own, and syncs to it."""

    def __init__(self, bench: Bench, server: Postgres, *statements: str) -> None:
        self.bench = bench
        self.server = server
        self.database = server.create_database()
        server.execute(self.database, *(statements or (TABLE,)))
        bench.env["PG_URL"] = server.url(self.database)

    def sync(
        self, mode: Mode = Mode.UPSERT, columns: tuple[str, ...] = ("email", "name", "age"), **changes: Any
    ) -> Any:
        spec = SyncSpec(
            name="people",
            model=self.bench.model("people", "SELECT * FROM people"),
            destination=DestinationSpec("shop", "sql", TargetSpec("prod", base_url=Env("PG_URL")), timeout=5.0),
            object="public.people",
            mode=mode,
            match={} if mode is Mode.APPEND else {"email": "email"},
            fields=tuple(FieldSpec(name, name, rule=FieldRule(nulls="clear")) for name in columns),
            source="defs/people/defs.yaml:1",
        )
        return dataclasses.replace(spec, **changes)

    def load(self, *rows: tuple[Any, ...], columns: Mapping[str, str] = PEOPLE) -> None:
        self.bench.load("people", [dict(zip(columns, row, strict=True)) for row in rows], columns)

    def rows(self, query: str = "SELECT email, name, age FROM people ORDER BY email") -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.server.url(self.database))
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())


@pytest.fixture
def shop(bench: Bench, postgres: Postgres) -> Shop:
    return Shop(bench, postgres)


def test_upsert_creates_updates_and_says_which(shop: Shop) -> None:
    shop.server.execute(shop.database, "INSERT INTO people (email, name) VALUES ('ann@x.org', 'old')")
    shop.load((1, "ann@x.org", "Ann", 30), (2, "bob@x.org", "Bob", None))
    report = shop.bench.run(shop.sync())
    assert told(report) == {Status.CREATED: 1, Status.UPDATED: 1}
    assert shop.rows() == [("ann@x.org", "Ann", 30), ("bob@x.org", "Bob", None)]
    shop.load((1, "ann@x.org", "Ann", None), (2, "bob@x.org", "Bob", None))
    assert shop.bench.run(shop.sync()).outcomes[Status.UPDATED] == 1
    assert shop.rows()[0] == ("ann@x.org", "Ann", None)
    assert shop.bench.run(shop.sync()).traffic.requests == 0


def test_fields_that_are_left_out_keep_their_value_and_get_their_default(bench: Bench, postgres: Postgres) -> None:
    shop = Shop(bench, postgres, "CREATE TABLE people (email text PRIMARY KEY, name text DEFAULT 'nobody', age int)")
    shop.server.execute(shop.database, "INSERT INTO people VALUES ('ann@x.org', 'Ann', 1)")
    shop.load((1, "ann@x.org", None, 30), (2, "bob@x.org", None, 31), (3, "cy@x.org", "Cy", None))
    fields = tuple(FieldSpec(name, name) for name in ("email", "name", "age"))
    shop.bench.run(shop.sync(fields=fields))
    assert shop.rows() == [("ann@x.org", "Ann", 30), ("bob@x.org", "nobody", 31), ("cy@x.org", "Cy", None)]


def test_mirror_removes_what_it_delivered_and_nothing_else(shop: Shop) -> None:
    shop.server.execute(shop.database, "INSERT INTO people (email) VALUES ('other@x.org')")
    sync = shop.sync(Mode.MIRROR, removal_limit=10)
    shop.load(*((n, f"p{n}@x.org", "P", n + 1) for n in range(5)))
    shop.bench.run(sync)
    shop.load((0, "p0@x.org", "P", 1), (1, "new@x.org", "P", 2))
    report = shop.bench.run(sync)
    # The second row keeps its record under its new match value: the primary key tells which it is.
    assert told(report) == {Status.DELETED: 3, Status.UPDATED: 1}
    assert [row[0] for row in shop.rows()] == ["new@x.org", "other@x.org", "p0@x.org"]
    assert shop.rows("SELECT id FROM people WHERE email = 'new@x.org'") == [(3,)]


def test_a_record_that_is_gone_is_created_again(shop: Shop) -> None:
    sync = shop.sync()
    shop.load((1, "ann@x.org", "Ann", 30))
    shop.bench.run(sync)
    shop.server.execute(shop.database, "DELETE FROM people")
    shop.load((1, "anna@x.org", "Ann", 30))
    assert told(shop.bench.run(sync)) == {Status.REJECTED: 1}
    assert told(shop.bench.run(sync)) == {Status.CREATED: 1}
    assert shop.rows() == [("anna@x.org", "Ann", 30)]


def test_update_creates_nothing_and_delete_deletes_what_is_listed(shop: Shop) -> None:
    shop.server.execute(shop.database, "INSERT INTO people (email) VALUES ('ann@x.org'), ('cy@x.org')")
    shop.load((1, "ann@x.org", "Ann", 30), (2, "bob@x.org", "Bob", 31))
    report = shop.bench.run(shop.sync(Mode.UPDATE))
    assert told(report) == {Status.UPDATED: 1, Status.REJECTED: 1}
    assert "no record with this match value" in report.bad_rows[0].reason
    assert shop.rows() == [("ann@x.org", "Ann", 30), ("cy@x.org", None, None)]
    shop.bench.run(shop.sync(Mode.DELETE, name="leavers", fields=(), removal_limit=10))
    assert shop.rows() == [("cy@x.org", None, None)]


TEXT = "ünï 👩‍🚀 o'quote \\ %s %(x)s \" line\n\ttab"
MOMENT = datetime(2026, 3, 29, 1, 30, 0, 123456, UTC)
VALUES: tuple[tuple[str, str, str, Any], ...] = (
    ("numeric(38,10)", "DECIMAL(38,10)", "1234567890123456789012345678.0123456789", None),
    ("bigint", "BIGINT", "9223372036854775807", 9223372036854775807),
    ("double precision", "DOUBLE", "0.1", 0.1),
    ("double precision", "DOUBLE", "'NaN'::DOUBLE", "NaN"),
    ("boolean", "BOOLEAN", "false", False),
    ("date", "DATE", "DATE '0001-01-01'", date(1, 1, 1)),
    ("timestamptz", "TIMESTAMPTZ", "TIMESTAMPTZ '2026-03-29 01:30:00.123456+00'", MOMENT),
    ("timestamp", "TIMESTAMP", "TIMESTAMP '2026-03-29 01:30:00.123456'", MOMENT.replace(tzinfo=None)),
    ("text", "VARCHAR", f"'{TEXT}'".replace("o'q", "o''q"), TEXT),
    ("text", "VARCHAR", "''", ""),
    ("uuid", "UUID", "UUID 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("bytea", "BLOB", "'\\x00\\xFF'::BLOB", b"\x00\xff"),
    ("integer[]", "INTEGER[]", "[1, NULL, 3]", [1, None, 3]),
    ("text[]", "VARCHAR[]", "['a,b', '\"', NULL]", ["a,b", '"', None]),
    ("jsonb", "JSON", "'{\"a\": [1, \"x\", null]}'::JSON", {"a": [1, "x", None]}),
    ("jsonb", "STRUCT(a INTEGER, b VARCHAR)", "{'a': 1, 'b': 'x'}", {"a": 1, "b": "x"}),
    ("numeric", "HUGEINT", "170141183460469231731687303715884105727 / 10000", None),
)  # fmt: skip


def test_values_are_exact(bench: Bench, postgres: Postgres) -> None:
    targets = ", ".join(f'"V{n} %" {kind}' for n, (kind, *_) in enumerate(VALUES))
    shop = Shop(bench, postgres, f"CREATE TABLE people (id text PRIMARY KEY, {targets})")
    sources = ", ".join(f"CAST({value} AS {kind}) AS v{n}" for n, (_, kind, value, _) in enumerate(VALUES))
    model = bench.model("values", f"SELECT 1 AS id, {sources} UNION ALL BY NAME SELECT 2 AS id")
    fields = [FieldSpec(f"V{n} %", f"v{n}", rule=FieldRule(nulls="clear")) for n in range(len(VALUES))]
    sync = shop.sync(model=model, match={"id": "id"}, fields=tuple(fields))
    bench.load("people", [], PEOPLE)
    report = bench.run(sync)
    assert told(report) == {Status.CREATED: 2}, report.bad_rows
    first, second = shop.rows("SELECT * FROM people ORDER BY id")
    assert second == ("2", *[None] * len(VALUES))
    for (kind, _, written, expected), found in zip(VALUES, first[1:], strict=True):
        if expected == "NaN":
            assert found != found
        elif kind == "bytea":
            assert bytes(found) == expected
        elif kind == "uuid":
            assert UUID(str(found)) == UUID(expected)
        elif expected is None:
            exact = Decimal(170141183460469231731687303715884105727) if "/" in written else Decimal(written)
            assert found == exact if "/" not in written else abs(found - exact / 10000) < Decimal("1e20")
        else:
            assert found == expected, kind
    assert bench.run(sync).traffic.requests == 0


def test_bad_rows_are_alone_and_their_reasons_can_be_read(bench: Bench, postgres: Postgres) -> None:
    shop = Shop(bench, postgres, TABLE, "ALTER TABLE people ADD UNIQUE (name)")
    shop.server.execute(shop.database, "INSERT INTO people (email, name) VALUES ('boss@x.org', 'The Boss')")
    good = [(n, f"p{n}@x.org", f"P{n}", 1) for n in range(60)]
    bad = [(100, "a@x.org", "Ann", -5), (101, "b@x.org", "B" * 21, 5), (102, "c@x.org", "The Boss", 5)]
    shop.load(*good, *bad, (103, "d@x.org", "zero \0 byte", 5))
    report = shop.bench.run(shop.sync())
    assert told(report) == {Status.CREATED: 60, Status.REJECTED: 4}
    assert len(shop.rows()) == 61
    reasons = {row.key: row.reason for row in report.bad_rows}
    assert "age_is_positive" in reasons["100"]
    assert "breaks a rule of the table" in reasons["100"]
    assert "value too long" in reasons["101"]
    assert "people_name_key" in reasons["102"]
    assert "same value" in reasons["102"]
    assert "does not fit" in reasons["103"]
    assert not any("boss@x.org" in reason or "P1" in reason for reason in reasons.values())
    # Once mended, it is delivered.
    shop.load(*good, (100, "a@x.org", "Ann", 5), *bad[1:])
    assert shop.bench.run(shop.sync()).outcomes[Status.CREATED] == 1


def test_an_insert_whose_answer_is_lost_is_done_once(shop: Shop) -> None:
    shop.load(*((n, f"p{n}@x.org", "P", 1) for n in range(10)))
    with proxy(shop.server.port, b"COMMIT\0") as way:
        shop.bench.env["PG_URL"] = shop.server.url(shop.database).replace(str(shop.server.port), str(way.port))
        sync = shop.sync(Mode.APPEND, batch_rows=5)
        way.cuts = 2
        report = shop.bench.run(sync)
        assert way.broken == 2
    assert told(report) == {Status.CREATED: 10}
    assert [row[0] for row in shop.rows()] == sorted(f"p{n}@x.org" for n in range(10))
    assert shop.rows("SELECT target, sum(records) FROM integrations_batches GROUP BY 1") == [("public.people", 10)]
    assert sync.destination.create().key_lifetime == 7 * 86_400


def test_without_a_table_of_batches_rows_are_in_doubt_and_looked_up(shop: Shop) -> None:
    shop.load(*((n, f"p{n}@x.org", "P", 1) for n in range(10)))
    with proxy(shop.server.port, b"COMMIT\0") as way:
        shop.bench.env["PG_URL"] = shop.server.url(shop.database).replace(str(shop.server.port), str(way.port))
        sync = shop.sync(Mode.INSERT)
        plain = dataclasses.replace(sync.destination, option=TableKeys(remember_batches=False), timeout=1.0)
        sync = dataclasses.replace(sync, destination=plain)
        way.cuts = 1
        assert told(shop.bench.run(sync)) == {Status.IN_DOUBT: 10}
        assert shop.bench.run(sync).outcomes.get(Status.CREATED, 0) == 0
    assert len(shop.rows()) == 10
    assert shop.bench.doubtful(sync) == []
    assert shop.rows("SELECT to_regclass('integrations_batches')::text") == [(None,)]


def test_a_commit_that_never_arrived_is_found_out(shop: Shop) -> None:
    shop.load((1, "ann@x.org", "Ann", 1))
    with proxy(shop.server.port, b"COMMIT\0") as way:
        shop.bench.env["PG_URL"] = shop.server.url(shop.database).replace(str(shop.server.port), str(way.port))
        sync = shop.sync(Mode.INSERT)
        sync = dataclasses.replace(
            sync, destination=dataclasses.replace(sync.destination, option=TableKeys(remember_batches=False))
        )
        sync = dataclasses.replace(sync, destination=dataclasses.replace(sync.destination, timeout=1.0))
        way.drops = 1
        # COMMIT was sent, for all the writer knows: an insert without a key is in doubt.
        assert told(shop.bench.run(sync)) == {Status.IN_DOUBT: 1}
        assert shop.rows() == []
        assert told(shop.bench.run(sync)) == {Status.CREATED: 1}
    assert len(shop.rows()) == 1


def test_a_transaction_that_the_server_ends_is_done_again(shop: Shop) -> None:
    """A row is locked until the server has ended our waiting transaction: it had no effect, and no row is in doubt."""
    shop.server.execute(shop.database, "INSERT INTO people (email) VALUES ('ann@x.org')")
    shop.load((1, "ann@x.org", "Ann", 1))
    other = psycopg2.connect(shop.server.url(shop.database))
    with contextlib.closing(other), other.cursor() as cursor:
        cursor.execute("SELECT * FROM people FOR UPDATE")

        def end() -> None:
            ours = "application_name = 'integrations-dagster' AND wait_event_type = 'Lock'"
            for _ in range(500):
                if shop.rows(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"):
                    break
                threading.Event().wait(0.01)
            other.rollback()

        thread = threading.Thread(target=end)
        thread.start()
        report = shop.bench.run(shop.sync())
        thread.join()
    assert told(report) == {Status.UPDATED: 1}
    assert report.traffic.retries == 1


def test_a_lock_that_is_held_too_long_ends_in_unsent_rows(shop: Shop) -> None:
    shop.server.execute(shop.database, "INSERT INTO people (email) VALUES ('ann@x.org')")
    shop.load((1, "ann@x.org", "Ann", 1))
    sync = shop.sync()
    sync = dataclasses.replace(sync, destination=dataclasses.replace(sync.destination, timeout=0.3))
    other = psycopg2.connect(shop.server.url(shop.database))
    with contextlib.closing(other), other.cursor() as cursor:
        cursor.execute("SELECT * FROM people FOR UPDATE")
        report = shop.bench.run(sync)
        assert told(report) == {Status.UNSENT: 1}
        assert "did not finish" in report.failures[0] or "did not finish" in str(report.bad_rows) + str(report.failures)
    assert told(shop.bench.run(sync)) == {Status.UPDATED: 1}


def test_match_columns_must_be_unique(bench: Bench, postgres: Postgres) -> None:
    shop = Shop(bench, postgres, "CREATE TABLE people (email text, name text, age int)")
    shop.load((1, "ann@x.org", "Ann", 1))
    with pytest.raises(FieldsDoNotFit, match=r"ALTER TABLE public\.people ADD UNIQUE \(email\)"):
        bench.run(shop.sync())
    both = {"email": "email", "name": "name"}
    with pytest.raises(FieldsDoNotFit, match=r"ADD UNIQUE \(email, name\)"):
        bench.run(shop.sync(match=both))
    shop.server.execute(shop.database, "ALTER TABLE people ADD UNIQUE (name, email)")
    assert told(bench.run(shop.sync(match=both))) == {Status.CREATED: 1}
    shop.load((1, "ann@x.org", "Ann", 2))
    assert told(bench.run(shop.sync(match=both))) == {Status.UPDATED: 1}
    assert shop.rows() == [("ann@x.org", "Ann", 2)]


def test_a_table_that_is_not_there_is_named(shop: Shop) -> None:
    shop.load((1, "ann@x.org", "Ann", 1))
    with pytest.raises(Misconfigured, match=r"The table public\.persons does not exist"):
        shop.bench.run(shop.sync(object="public.persons"))
    with pytest.raises(FieldsDoNotFit, match=r"'nam' does not exist\. Did you mean 'name'"):
        shop.bench.run(shop.sync(fields=(FieldSpec("nam", "name"),)))
    with pytest.raises(FieldsDoNotFit, match="'id' is read-only"):
        shop.bench.run(shop.sync(fields=(FieldSpec("id", "id"),)))


def test_a_wrong_password_is_told_without_it(shop: Shop) -> None:
    shop.load((1, "ann@x.org", "Ann", 1))
    shop.bench.env["PG_URL"] = shop.server.url(shop.database, password="wrong-pass-word")
    with pytest.raises(Misconfigured, match="lets nobody in with these settings") as raised:
        shop.bench.run(shop.sync())
    assert "wrong-pass-word" not in str(raised.value)
    shop.bench.env["PG_URL"] = "postgresql://tester:s3cret-word@127.0.0.1:notaport/x"
    with pytest.raises(Misconfigured) as raised:
        shop.bench.run(shop.sync())
    assert "s3cret-word" not in str(raised.value)


def test_the_account_stays_when_the_password_changes(shop: Shop) -> None:
    shop.load((1, "ann@x.org", "Ann", 1))
    shop.bench.run(shop.sync())
    shop.server.execute(
        shop.database,
        "CREATE ROLE writer LOGIN PASSWORD 'another-one'",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON people TO writer",
    )
    shop.bench.env["PG_URL"] = shop.server.url(shop.database, "writer", "another-one")
    report = shop.bench.run(shop.sync())
    assert (report.traffic.requests, report.counts.unchanged) == (0, 1)
    # This one may not make the table of batches.
    shop.load((1, "ann@x.org", "Ann", 1), (2, "bob@x.org", "Bob", 1))
    refused = shop.bench.run(shop.sync(Mode.APPEND, name="log"))
    assert told(refused) == {Status.UNSENT: 2}
    assert "may not do this" in str(refused.failures)


def test_sixteen_threads_of_four_shards_and_two_syncs_never_stand_in_each_others_way(
    bench: Bench, postgres: Postgres
) -> None:
    shop = Shop(bench, postgres)
    shop.load(*((n, f"p{n:04}@x.org", "P", n + 1) for n in range(800)))
    backwards = bench.model("people", "SELECT * FROM people ORDER BY id DESC")
    wide = DestinationSpec("shop", "sql", TargetSpec("prod", base_url=Env("PG_URL")), in_flight=64, concurrency=32)
    one = shop.sync(destination=wide, batch_rows=20, shards=4)
    two = shop.sync(
        destination=wide, name="ages", model=backwards, fields=(FieldSpec("age", "age"),), batch_rows=20, shards=4
    )
    reports: list[Any] = []
    before = shop.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    bench.query(one.model)
    threads = [threading.Thread(target=lambda s=s: reports.append(bench.run(s))) for s in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 2
    for report in reports:
        assert not report.failures, report.failures
        assert sum(report.outcomes.get(status, 0) for status in (Status.CREATED, Status.UPDATED)) == 800
        assert report.traffic.errors == {}
    assert sum(report.outcomes.get(Status.CREATED, 0) for report in reports) == 800
    assert shop.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == before
    assert len(shop.rows()) == 800


def test_batches_wait_for_a_connection(bench: Bench, postgres: Postgres) -> None:
    shop = Shop(bench, postgres)
    shop.server.execute(
        shop.database,
        "CREATE ROLE narrow LOGIN PASSWORD 'one-at-a-time' CONNECTION LIMIT 1",
        "GRANT SELECT, INSERT, UPDATE ON people TO narrow",
    )
    shop.load((1, "ann@x.org", "Ann", 1))
    bench.env["PG_URL"] = shop.server.url(shop.database, "narrow", "one-at-a-time")
    sync = shop.sync()
    made = bench.plan(sync, ctx := bench.context())
    other = psycopg2.connect(bench.env["PG_URL"])
    closing = threading.Timer(1.0, other.close)
    closing.start()
    (summary,) = bench.write(sync, ctx, made.shards)
    closing.join()
    report = record(sync, ctx, made, [summary])
    assert told(report) == {Status.CREATED: 1}
    assert report.traffic.throttled >= 1
    assert report.traffic.retries == 0


def test_partitioned_tables_triggers_and_deferred_constraints(bench: Bench, postgres: Postgres) -> None:
    shop = Shop(
        bench,
        postgres,
        "CREATE TABLE people (email text PRIMARY KEY, name text, age integer) PARTITION BY HASH (email)",
        "CREATE TABLE people_0 PARTITION OF people FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE people_1 PARTITION OF people FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "CREATE FUNCTION no_zed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.name = 'Zed' THEN RETURN NULL; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER no_zed BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION no_zed()",
        "CREATE TABLE towns (name text PRIMARY KEY)",
        "ALTER TABLE people ADD FOREIGN KEY (name) REFERENCES towns DEFERRABLE INITIALLY DEFERRED",
        "INSERT INTO towns VALUES ('Bonn'), ('Zed')",
    )
    shop.load(*((n, f"p{n}@x.org", "Bonn", n) for n in range(8)), (8, "z@x.org", "Zed", 1), (9, "y@x.org", "Rome", 1))
    report = bench.run(shop.sync())
    assert told(report) == {Status.CREATED: 8, Status.REJECTED: 2}
    reasons = {row.key: row.reason for row in report.bad_rows}
    assert "trigger" in reasons["8"]
    assert "another table that does not exist" in reasons["9"]
    shop.load(*((n, f"p{n}@x.org", "Bonn", n + 1) for n in range(8)))
    assert told(bench.run(shop.sync())) == {Status.UPDATED: 8}
