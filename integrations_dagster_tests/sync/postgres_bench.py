"""The bench of the sync tests with a PostgreSQL warehouse, and users with the privileges that each home takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]

from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sync.spec import Env, ModelSpec, SyncSpec, WarehouseSpec
from integrations_dagster.vocabulary import Mode
from integrations_dagster_tests.postgres import Postgres
from integrations_dagster_tests.sync.harness import Bench

URL = "WAREHOUSE_URL"
PASSWORD = "planted-password"


class PostgresBench(Bench):
    """A bench whose models are queried by a user without more privileges than documented."""

    def __init__(self, folder: Path, endpoint: Endpoint, postgres: Postgres) -> None:
        super().__init__(folder, endpoint)
        self.postgres = postgres
        self.database = postgres.create_database()
        self.keeper, self.reader = f"keeper_{self.database}", f"reader_{self.database}"
        postgres.execute(
            self.database,
            f"REVOKE ALL ON DATABASE {self.database} FROM PUBLIC",
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            *(
                statement
                for user in (self.keeper, self.reader)
                for statement in (
                    f"CREATE USER {user} PASSWORD '{PASSWORD}'",
                    f"GRANT CONNECT ON DATABASE {self.database} TO {user}",
                    f"GRANT USAGE ON SCHEMA public TO {user}",
                )
            ),
            # What `home: warehouse` takes beside reading.
            f"CREATE SCHEMA integrations AUTHORIZATION {self.keeper}",
            f"GRANT TEMPORARY ON DATABASE {self.database} TO {self.keeper}",
        )
        self.login(self.keeper)

    def login(self, user: str) -> None:
        """Who queries from now on."""
        self.env[URL] = self.postgres.url(self.database, user, PASSWORD)

    def load(self, table: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
        declared = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        marks = ", ".join("%s" for _ in columns)
        with self._cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {table}")
            cursor.execute(f"CREATE TABLE {table} ({declared})")
            cursor.executemany(
                f"INSERT INTO {table} VALUES ({marks})", [[row.get(name) for name in columns] for row in rows]
            )
            cursor.execute(f"GRANT SELECT ON {table} TO {self.keeper}, {self.reader}")

    def model(self, name: str, sql: str, *key: str, partitioned: bool = False) -> ModelSpec:
        path = self.folder / f"{name}.sql"
        path.write_text(sql, "utf-8")
        return ModelSpec(name, path, key or ("id",), WarehouseSpec("dwh", "postgres", url=Env(URL)), partitioned)

    def sync_in(self, home: str, model: ModelSpec, mode: Mode = Mode.UPSERT, **changes: Any) -> SyncSpec:
        """The sync of contacts with its state in a home."""
        return self.contacts(replace(model, homes=frozenset({home})), mode, home=home, **changes)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the superuser sees."""
        with self._cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        connection = psycopg2.connect(self.postgres.url(self.database))
        with contextlib.closing(connection), connection, connection.cursor() as cursor:
            yield cursor

    def tables(self) -> set[str]:
        """Tables of the schema."""
        return {name for (name,) in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'integrations'")}
