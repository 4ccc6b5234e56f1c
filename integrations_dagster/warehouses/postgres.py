"""PostgreSQL as a warehouse: a query runs in a read-only transaction, and its rows are streamed as Arrow by COPY."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import tenacity

from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.base import QueryResult, WarehouseBusy
from integrations_dagster.warehouses.checks import check_columns
from integrations_dagster.warehouses.postgres_types import Column, column_of, kept, reading
from integrations_dagster.warehouses.statement import Statement, one_select

DIALECT = "postgres"
ROW_GROUP = 100_000
"""Rows of one Parquet row group: what a reader holds in memory at a time."""
CONNECT_TIMEOUT = 10
"""Seconds that one attempt to connect may take."""

# The result of a query must not depend on where it runs.
_SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
}
_PREFIX = "integrations."
_ASIDE = re.compile(
    r"^([A-Z_]+: )?(\[libpq\] )?(Execution error \[PGRES_FATAL_ERROR\]: )?|Query was: .*?(?=\. SQLSTATE|\Z)"
    r"|\.? ?SQLSTATE: \w{5}",
    re.DOTALL,
)
_ASKED = re.compile(r"\s+IS\s+(NOT\s+)?NULL\b", re.IGNORECASE)
_LATER = (
    "Connection refused",
    "timeout expired",
    "starting up",
    "too many",
    "remaining connection slots",
    "shutting down",
)


class StreamBroken(Exception):
    """The server ended a stream of rows with an error."""


class PostgresWarehouse:
    """An open connection.

    Args:
        name: Name in YAML, for messages.
        url: "postgresql://user:password@host:port/database?sslmode=require": a secret; no message repeats it.
        patience: Seconds to wait for a server that does not let us in now.

    Raises:
        Misconfigured: The driver is not installed, the URL is wrong, or the server refuses the user.
        WarehouseBusy: The server did not answer, or let nobody in, for longer than `patience`.
    """

    def __init__(self, name: str, url: str, *, patience: float) -> None:
        self._name = name
        self._secrets = secrets_of(url)
        self.connection = _connect(name, url, patience, self.told)

    def query_to_parquet(
        self, sql: str, parameters: Mapping[str, str | None], folder: Path, source: str
    ) -> QueryResult:
        """See `Warehouse.query_to_parquet`."""
        started = time.monotonic()
        statement = one_select(sql, set(parameters), source, DIALECT)
        with self.explained(source), self.read_only() as cursor:
            query = bound(cursor, statement, parameters)
            columns = self.columns(cursor, query, source)
            rows = write_parquet(cursor, query, columns, folder / "part-0.parquet", source)
        return QueryResult(rows, tuple((c.name, c.kind) for c in columns), time.monotonic() - started)

    def columns(self, cursor: Any, query: str, source: str) -> list[Column]:
        """How the columns of a query are read.

        Raises:
            Misconfigured: Two have one name.
        """

        def name_of(oid: int) -> str:
            cursor.execute("SELECT format_type($1::oid, NULL)", (oid,))
            return str(cursor.fetchone()[0])

        # On the first line, so that the line numbers in PostgreSQL's messages are those of the file.
        schema = cursor.adbc_execute_schema(f"SELECT * FROM ({query}\n) AS q")
        if not schema.names:
            raise Misconfigured(f"The query in {source} returns no columns.", "Name what it selects.")
        check_columns(schema.names, source)
        return [column_of(field, name_of, source) for field in schema]

    @contextlib.contextmanager
    def read_only(self) -> Iterator[Any]:
        """A cursor in a read-only transaction, which ends with the block."""
        cursor = self.connection.cursor()
        try:
            cursor.execute("SET TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ")
            settle_session(cursor)
            yield cursor
        finally:
            cursor.close()
            self.connection.rollback()

    @contextlib.contextmanager
    def explained(self, source: str) -> Iterator[None]:
        """What goes wrong in the block is the query's fault, and is told with the file's name."""
        try:
            yield
        except (driver().Error, StreamBroken) as error:
            raise Misconfigured(
                f"The query in {source} failed. {self.told(error)}\n",
                "Correct the SQL, and materialize the model again.",
            ) from None

    def told(self, error: BaseException) -> str:
        """The server's message without what the driver adds, and without the password."""
        text = _ASIDE.sub("", str(error)).strip()
        for secret in self._secrets:
            text = text.replace(secret, "•••")
        return text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.connection.close()


def driver() -> Any:
    """The driver, imported where a connection is made.

    Raises:
        Misconfigured: It is not installed.
    """
    try:
        import adbc_driver_postgresql.dbapi  # type: ignore[import-untyped]
    except ImportError:
        raise Misconfigured(
            "The driver for PostgreSQL (adbc-driver-postgresql) is not installed.",
            "Install it with the package: pip install 'integrations-dagster[postgres]'.",
        ) from None
    return adbc_driver_postgresql.dbapi


def secrets_of(url: str) -> list[str]:
    """What of a URL no message may repeat, the longest first."""
    found = {url}
    with contextlib.suppress(ValueError):
        written = urlsplit(url).password or ""
        found |= {written, unquote(written), quote(unquote(written), safe="")}
        # Also where it is no URL but keywords.
        found |= set(re.findall(r"password\s*=\s*'?([^\s'&]+)", url))
    if "@" in url:
        # A URL that cannot be parsed is quoted in pieces.
        found |= set(re.split(r"[\s@/]+", url.rpartition("@")[0].partition("://")[2].partition(":")[2]))
    return sorted((secret for secret in found if len(secret) > 2), key=len, reverse=True)


def _connect(name: str, url: str, patience: float, told: Callable[[BaseException], str]) -> Any:
    adbc = driver()
    if not url.startswith(("postgresql://", "postgres://")):
        raise Misconfigured(
            f"Warehouse {name!r}: its url is no URL of PostgreSQL.",
            "Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE into the environment variable that `url` names; "
            "characters such as @ or / in a password are written as %40 or %2F.",
        )

    def is_later(error: BaseException) -> bool:
        return isinstance(error, adbc.Error) and any(words in str(error) for words in _LATER)

    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_later),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
        stop=tenacity.stop_after_delay(patience),
        reraise=True,
    )
    given = url if "connect_timeout=" in url else f"{url}{'&' if '?' in url else '?'}connect_timeout={CONNECT_TIMEOUT}"
    try:
        return attempts(adbc.connect, given)
    except adbc.Error as error:
        if is_later(error):
            raise WarehouseBusy(
                f"Warehouse {name!r}: for {patience:g} s PostgreSQL has let nobody in. {told(error)}",
                "See that the server runs and has connections to spare, and launch the run again.",
            ) from None
        raise Misconfigured(
            f"Warehouse {name!r}: PostgreSQL cannot be reached. {told(error)}",
            "Correct the environment variable that `url` names.",
        ) from None


def settle_session(cursor: Any, more: Mapping[str, str] = MappingProxyType({})) -> None:
    """Make results independent of server and machine, until the transaction ends.

    Args:
        more: Further settings.
    """
    settings = {**_SESSION, **more}
    chosen = ", ".join(f"set_config(${2 * i + 1}, ${2 * i + 2}, true)" for i in range(len(settings)))
    cursor.execute(f"SELECT {chosen}", tuple(part for pair in settings.items() for part in pair))
    cursor.fetchall()


def bound(cursor: Any, statement: Statement, parameters: Mapping[str, str | None]) -> str:
    """The query with its parameters bound, as SQL that COPY takes, which knows no parameters itself.

    Each value becomes a setting of the transaction, and is read with the type that PostgreSQL infers for the parameter,
    as it does for a prepared statement.
    """
    if not parameters:
        return statement.text
    # Each place has a type of its own; whether a value is null can be asked without one.
    places = [
        f"CAST(${place} AS text)" if _ASKED.match(statement.text, found.end) else f"${place}"
        for place, found in enumerate(statement.parameters, 1)
    ]
    cursor.execute("PREPARE integrations_query AS " + statement.with_parameters(places))
    cursor.execute("SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'integrations_query'")
    kinds: Sequence[str] = cursor.fetchone()[0]
    cursor.execute("DEALLOCATE integrations_query")
    for name, value in parameters.items():
        if value is not None:
            cursor.execute("SELECT set_config($1, $2, true)", (_PREFIX + name, value))
            cursor.fetchall()
    return statement.with_parameters(
        [
            # The query's own names are identifiers.
            f"CAST({'NULL' if parameters[found.name] is None else _setting(found.name)} AS {kind})"
            for found, kind in zip(statement.parameters, kinds, strict=True)
        ]
    )


def _setting(name: str) -> str:
    return f"current_setting('{_PREFIX}{name}')"


def write_parquet(cursor: Any, query: str, columns: Sequence[Column], path: Path, source: str) -> int:
    """Stream the rows of a query to a file; returns how many.

    Raises:
        Misconfigured: A value cannot be kept.
    """
    select, checks = reading(columns, query)
    cursor.execute(select)
    rows = 0
    with cursor.fetch_record_batch() as reader:
        first = kept(_empty(reader.schema), columns, checks, source)
        with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
            for batch in _batches(reader):
                writer.write_batch(kept(batch, columns, checks, source), row_group_size=ROW_GROUP)
                rows += batch.num_rows
    return rows


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException) as error:
            # Errors of the server arrive as errors of Arrow's stream; those of our own file must not be taken for them.
            raise StreamBroken(str(error)) from None
        yield batch


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
