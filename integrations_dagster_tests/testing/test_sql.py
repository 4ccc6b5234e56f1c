"""Kind `sql` conforms, with a table of PostgreSQL and one of a DuckDB file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import psycopg2  # type: ignore[import-untyped]
import pytest

from integrations_dagster.destinations.base import Destination, Request, Response
from integrations_dagster.destinations.errors import PoisonedBatch
from integrations_dagster.destinations.sql.destination import Sql
from integrations_dagster.testing import Subject, conformance_tests, results
from integrations_dagster_tests.postgres import Postgres, running_postgres


class Table(Subject):
    """A table with a unique column and a rule that some rows break."""

    destination: ClassVar[str | type[Destination]] = "sql"
    object = "people"
    match = ("email",)
    text = "name"
    not_numbers = True

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"email": f"{key}@example.com", "name": f"Name {version}", "age": 40 + version, "vip": True}

    def bad(self, key: str, version: int) -> dict[str, Any]:
        return {**self.good(key, version), "age": -1}


class PostgresTable(Table):
    """A table of PostgreSQL whose records have ids."""

    object = "public.people"
    server: Postgres
    database: str

    @contextmanager
    def serve(self) -> Iterator[str]:
        with running_postgres() as self.server:
            self.database = self.server.create_database()
            self.server.execute(
                self.database,
                "CREATE TABLE people (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text UNIQUE NOT NULL, "
                "name text, age integer CHECK (age > 0), vip boolean)",
            )
            yield self.server.url(self.database)

    def reset(self) -> None:
        self.server.execute(self.database, "TRUNCATE people", "DROP TABLE IF EXISTS integrations_batches")

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with closing(psycopg2.connect(self.server.url(self.database))) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT email, name, age, vip FROM people")
            for row in cursor.fetchall():
                yield row[0], dict(zip(("email", "name", "age", "vip"), row, strict=True))


class DuckDBTable(Table):
    """A table of a DuckDB file."""

    path: Path

    @contextmanager
    def serve(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="tables-") as folder:
            self.path = Path(folder, "out.duckdb")
            yield f"duckdb://{self.path}"

    def reset(self) -> None:
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("DROP TABLE IF EXISTS people")
            connection.execute("DROP TABLE IF EXISTS integrations_batches")
            connection.execute(
                "CREATE TABLE people (email VARCHAR PRIMARY KEY, name VARCHAR, age INTEGER CHECK (age > 0), "
                "vip BOOLEAN)"
            )

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with duckdb.connect(str(self.path), read_only=True) as connection:
            rows = connection.execute("SELECT email, name, age, vip FROM people").fetchall()
        for row in rows:
            yield row[0], dict(zip(("email", "name", "age", "vip"), row, strict=True))


class Wordless(Sql):
    """Does not say why a row is rejected."""

    kind: ClassVar[str] = "wordless"

    def classify(self, request: Request, response: Response) -> None:
        try:
            super().classify(request, response)
        except PoisonedBatch as error:
            raise PoisonedBatch("", error.code) from error


class WordlessTable(DuckDBTable):
    """A table whose destination is broken."""

    destination = Wordless


TestPostgresTable = conformance_tests(PostgresTable())
# A connection for each transaction: its file is opened some hundred times.
TestDuckDBTable = pytest.mark.slow(conformance_tests(DuckDBTable()))


def test_reasons_of_rejected_rows_are_checked_without_a_proxy() -> None:
    (good,) = results(DuckDBTable(), only=("messages",))
    assert (good.outcome, good.message) == ("passed", "")
    (bad,) = results(WordlessTable(), only=("messages",))
    assert (bad.outcome, bad.message.partition(".")[0]) == ("failed", "A reason is empty")
