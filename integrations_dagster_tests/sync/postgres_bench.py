"""The bench of the sync tests with a PostgreSQL warehouse, and users with the privileges that each home takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]

from integrations_dagster.planner.log import TABLES
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.log import select
from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.spec import WAREHOUSE, Env, ModelSpec, SyncSpec, WarehouseSpec
from integrations_dagster.vocabulary import Mode, Partition
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

    def run(
        self,
        sync: SyncSpec,
        partitions: Sequence[Partition] = (),
        options: PlanOptions | None = None,
        ctx: RunContext | None = None,
    ) -> RunReport:
        """See `Bench.run`; after every run the tables of the sync log in the warehouse have what the files have."""
        report = super().run(sync, partitions, options, ctx)
        if sync.home == WAREHOUSE:
            self.check_copy(sync.name)
        return report

    def check_copy(self, sync: str) -> None:
        """The tables of the sync log in the warehouse have what SQL over the files says."""
        for name, columns in TABLES.items():
            kept = ", ".join(f'"{column}"' for column in columns)
            inside = self.rows(f"SELECT {kept} FROM integrations.{name} WHERE sync = '{sync}'")
            files = select(self.folder, f"SELECT {kept} FROM {name}", sync=sync, env=self.env).to_pylist()
            assert sorted(map(repr, map(_plain, inside))) == sorted(repr(_plain(row.values())) for row in files), name

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


def _plain(row: Iterable[Any]) -> list[Any]:
    """Moments by their value, since each driver has a class of its own for UTC; texts as PostgreSQL can keep them."""
    texts = (value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row)
    return [value.timestamp() if isinstance(value, datetime) else value for value in texts]
