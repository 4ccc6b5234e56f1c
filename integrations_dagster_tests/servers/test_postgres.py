"""PostgreSQL as a destination: what every server must take."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg2  # type: ignore[import-untyped]
import pytest

from integrations_dagster.sync.spec import DestinationSpec, Env, FieldRule, FieldSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Mode
from integrations_dagster_tests.postgres import Postgres
from integrations_dagster_tests.servers import ten_thousand
from integrations_dagster_tests.sync.harness import Bench

pytestmark = pytest.mark.servers

TABLE = """
CREATE TABLE customers (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL UNIQUE, name varchar(100),
  amount numeric(12, 2), active boolean, born date, note text, written timestamptz NOT NULL DEFAULT now())
"""


def test_ten_thousand_rows(bench: Bench, postgres: Postgres) -> None:
    database = postgres.create_database()
    postgres.execute(database, TABLE)
    bench.env["PG_URL"] = postgres.url(database)
    columns = ("email", "name", "amount", "active", "born", "note")
    sync = SyncSpec(
        name="customers",
        model=ten_thousand.model(bench),
        destination=DestinationSpec("shop", "sql", TargetSpec("prod", base_url=Env("PG_URL"))),
        object="public.customers",
        mode=Mode.MIRROR,
        match={"email": "email"},
        fields=tuple(FieldSpec(name, name, rule=FieldRule(nulls="clear")) for name in columns),
        source="defs/customers/defs.yaml:1",
    )

    def read() -> dict[str, dict[str, Any]]:
        connection = psycopg2.connect(postgres.url(database))
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(columns)} FROM customers")
            return {row[0]: dict(zip(columns, row, strict=True)) for row in cursor.fetchall()}

    ten_thousand.check(bench, sync, read)
