"""PostgreSQL as the home of state: what the planner asks of it. See `Store`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.base import WarehouseAddress
from integrations_dagster.warehouses.postgres import (
    DIALECT,
    PostgresWarehouse,
    StreamBroken,
    bound,
    driver,
    settle_session,
    write_parquet,
)
from integrations_dagster.warehouses.postgres_types import quoted
from integrations_dagster.warehouses.statement import one_select
from integrations_dagster.warehouses.store import SCHEMA, WarehouseFailed, rendered

WORK_MEMORY = "128MB"
"""`work_mem` of the statements about state: a hash of a million keys fits."""

_GRANTS = (
    f"The user needs, once: CREATE SCHEMA {SCHEMA} AUTHORIZATION the_user; GRANT TEMPORARY ON DATABASE the_database TO "
    "the_user; and SELECT on what its models read. A user that may only read is enough for `home: embedded`."
)
# What PostgreSQL writes as DuckDB writes what was read from it.
_COMPARABLE = (
    "smallint", "integer", "bigint", "numeric", "text", "character", "name", "uuid", "boolean", "date", "timestamp",
)  # fmt: skip
_ICU = "und-x-icu"
_NO_PRIVILEGE = "42501"


class PostgresStore:
    """An open connection.

    Args:
        address: Which warehouse.
        patience: Seconds to wait for a server that does not let us in now.

    Raises:
        Misconfigured: The driver is not installed, the URL is wrong, or the server refuses the user.
        WarehouseBusy: The server did not answer, or let nobody in, for longer than `patience`.
    """

    dialect = DIALECT

    def __init__(self, address: WarehouseAddress, *, patience: float) -> None:
        self._name = address.name
        self._warehouse = PostgresWarehouse(address.name, address.url, patience=patience)
        self._connection = self._warehouse.connection
        self._cursor: Any = None
        self._collation: str | None = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """See `Store.transaction`."""
        with self._explained():
            self._cursor = self._connection.cursor()
            try:
                self._cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                settle_session(self._cursor, {"work_mem": WORK_MEMORY})
                yield
                self.commit()
            except BaseException:
                with contextlib.suppress(Exception):
                    self._connection.rollback()
                raise
            finally:
                self._cursor.close()
                self._cursor = None

    def commit(self) -> None:
        """See `Store.commit`."""
        with self._explained():
            self._connection.commit()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """See `Store.execute`."""
        with self._explained():
            self._cursor.execute(self._rendered(sql), tuple(parameters) or None)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """See `Store.rows`."""
        with self._explained():
            self._cursor.execute(self._rendered(sql), tuple(parameters) or None)
            return [tuple(row) for row in self._cursor.fetchall()]

    def to_parquet(self, sql: str, path: Path) -> int:
        """See `Store.to_parquet`."""
        query = self._rendered(sql)
        with self._explained():
            columns = self._warehouse.columns(self._cursor, query, f"the state in {self._name}")
            return write_parquet(self._cursor, query, columns, path, "the model")

    def ingest(self, path: Path, table: str, schema: str = "") -> int:
        """See `Store.ingest`."""
        with self._explained(), pq.ParquetFile(path, pre_buffer=False) as file:
            # Lists and texts of DuckDB's writing are as plain as the driver wants them.
            batches = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(50_000))
            where: dict[str, Any] = {"db_schema_name": schema} if schema else {"temporary": True}
            self._cursor.adbc_ingest(table, batches, mode="append" if schema else "create", **where)
            return int(file.metadata.num_rows)

    def create_as(self, table: str, query: str, parameters: Mapping[str, str | None], source: str) -> int:
        """See `Store.create_as`."""
        statement = one_select(query, set(parameters), source, DIALECT)
        with self._explained():
            self._cursor.execute("SELECT has_schema_privilege($1, 'CREATE')", (SCHEMA,))
            if not self._cursor.fetchone()[0]:
                raise Misconfigured(f"Warehouse {self._name!r}: its user may make no tables in {SCHEMA}.", _GRANTS)
        with self._warehouse.explained(source):
            text = bound(self._cursor, statement, parameters)
            # Looked at first: what it returns is told as of any other query.
            self._warehouse.columns(self._cursor, text, source)
            # In parentheses a statement that changes data is refused.
            self._cursor.execute(f"CREATE TABLE {quoted(SCHEMA)}.{quoted(table)} AS SELECT * FROM ({text}\n) AS q")
        return int(self.rows(f"SELECT count(*) FROM {quoted(SCHEMA)}.{quoted(table)}")[0][0])

    def columns(self, table: str) -> tuple[tuple[str, str], ...]:
        """See `Store.columns`."""
        with self._explained():
            query = f"SELECT * FROM {quoted(SCHEMA)}.{quoted(table)}"
            found = self._warehouse.columns(self._cursor, query, f"table {table}")
        return tuple((column.name, column.kind) for column in found)

    def tables(self, prefix: str) -> list[str]:
        """See `Store.tables`."""
        with self._explained():
            self._cursor.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = $1 AND starts_with(tablename, $2) ORDER BY 1",
                (SCHEMA, prefix),
            )
            return [str(row[0]) for row in self._cursor.fetchall()]

    def prepare_schema(self) -> None:
        """See `Store.prepare_schema`."""
        with self._explained():
            self._cursor.execute("SELECT count(*) FROM pg_namespace WHERE nspname = $1", (SCHEMA,))
            # Asked first: to create what is there takes the same privilege as to create it.
            if not self._cursor.fetchone()[0]:
                self._cursor.execute(f"CREATE SCHEMA {quoted(SCHEMA)}")

    def index(self, table: str, columns: Sequence[str]) -> None:
        """See `Store.index`."""
        with self._explained():
            self._cursor.execute(
                f"CREATE INDEX ON {quoted(SCHEMA)}.{quoted(table)} ({', '.join(map(quoted, columns))})"
            )

    def settled(self, table: str, schema: str = "") -> None:
        """See `Store.settled`."""
        with self._explained():
            self._cursor.execute(f"ANALYZE {f'{quoted(schema)}.' if schema else ''}{quoted(table)}")

    def computed_once(self, query: str) -> str:
        """See `Store.computed_once`."""
        # Keeps the planner from merging it with the query around it. As text: a number is converted first, and then
        # parallel processes are not considered.
        return f"SELECT * FROM ({query}) q OFFSET '0'"

    def comparable(self, kind: str) -> bool:
        """See `Store.comparable`."""
        return kind.startswith(_COMPARABLE) and not kind.endswith("[]")

    def renew(self) -> None:
        """See `Store.renew`."""
        with self._explained(), self._connection.cursor() as cursor:
            cursor.execute("DISCARD TEMP")
            self._connection.commit()

    def _rendered(self, sql: str) -> str:
        if self._collation is None:
            # In a database whose locale is C, only the letters of ASCII have small ones.
            self._cursor.execute("SELECT lower('ÀÜΩЖ') = 'àüωж'")
            self._collation = "" if self._cursor.fetchone()[0] else _ICU
        return rendered(sql, DIALECT, self._collation)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (driver().Error, StreamBroken) as error:
            told = self._told(error)
            if getattr(error, "sqlstate", None) == _NO_PRIVILEGE or "permission denied" in told:
                raise Misconfigured(f"Warehouse {self._name!r} refuses to keep state: {told}", _GRANTS) from None
            raise WarehouseFailed(
                f"Warehouse {self._name!r} failed over the state of a sync: {told}",
                "Nothing is lost: launch the run again when the warehouse is well.",
            ) from None

    @property
    def _told(self) -> Callable[[BaseException], str]:
        return self._warehouse.told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._connection.close()
