"""A warehouse as the home of state: what the planner asks of its driver, and SQL that is written once for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from integrations_dagster.vocabulary import IntegrationsError

SCHEMA = "integrations"
"""The schema that holds state and model versions."""


class WarehouseFailed(IntegrationsError):
    """The warehouse refused a statement about the state, or the connection broke."""


class Store(Protocol):
    """An open warehouse that state is written to; leaving the `with` block gives it back.

    Statements are in DuckDB's dialect and are rendered for the warehouse (`rendered`); `$1`, `$2` are their parameters.
    Every method raises `WarehouseFailed` with the warehouse's message, or `Misconfigured` where a privilege is missing.
    """

    dialect: str

    def transaction(self) -> AbstractContextManager[None]:
        """All statements of the block see one moment, and take effect at its end, or never if it raises."""
        ...

    def commit(self) -> None:
        """End the transaction before its block does: what was done takes effect now."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Execute a statement."""
        ...

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a small result."""
        ...

    def to_parquet(self, sql: str, path: Path) -> int:
        """Stream a result into a file; returns its rows. Values are kept as a model's query keeps them."""
        ...

    def ingest(self, path: Path, table: str, schema: str = "") -> int:
        """Append the rows of a Parquet file to a table; without a schema, to a new temporary one. Returns its rows."""
        ...

    def create_as(self, table: str, query: str, parameters: Mapping[str, str | None], source: str) -> int:
        """Make a table of `SCHEMA` from a model's query, in the warehouse's own dialect; returns its rows.

        Raises:
            Misconfigured: See `Warehouse.query_to_parquet`.
        """
        ...

    def columns(self, table: str) -> tuple[tuple[str, str], ...]:
        """(name, the warehouse's type) of the columns of a table of `SCHEMA`."""
        ...

    def tables(self, prefix: str) -> list[str]:
        """Names of the tables of `SCHEMA` that begin so."""
        ...

    def prepare_schema(self) -> None:
        """Make `SCHEMA`, unless it is there."""
        ...

    def index(self, table: str, columns: Sequence[str]) -> None:
        """Make a table of `SCHEMA` quick to search by columns, where the warehouse is not by itself."""
        ...

    def settled(self, table: str, schema: str = "") -> None:
        """A table was filled or changed much: whatever the warehouse wants to know of it before it is queried."""
        ...

    def computed_once(self, query: str) -> str:
        """A query whose columns are computed once for each row, however often what is around it uses them."""
        ...

    def comparable(self, kind: str) -> bool:
        """Whether values of a type have the same text in the warehouse as in files, so that keys agree in both."""
        ...

    def renew(self) -> None:
        """Forget the temporary tables of earlier transactions; outside of one. Fails where the connection has ended."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


@lru_cache(maxsize=512)
def rendered(sql: str, dialect: str, collation: str = "") -> str:
    """A statement in DuckDB's dialect as another warehouse takes it, with all identifiers quoted.

    Args:
        collation: By whose rules letters become small, where the warehouse's own rules know ASCII alone.
    """
    from sqlglot import exp, parse_one

    def adapted(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Placeholder | exp.Parameter):
            return exp.Var(this=f"${node.name}")
        if isinstance(node, exp.Lower) and collation:
            by = exp.Collate(this=exp.paren(node.this), expression=exp.to_identifier(collation, quoted=True))
            return exp.Lower(this=by)
        # Bytes of a text, by the name that the standard gives them.
        if isinstance(node, exp.Anonymous) and node.name.lower() == "strlen" and dialect != "duckdb":
            return exp.Anonymous(this="OCTET_LENGTH", expressions=node.expressions)
        # 64 bits of a text, mixed with a number.
        if isinstance(node, exp.Anonymous) and node.name.lower() == "hash" and dialect == "postgres":
            node.set("this", "HASHTEXTEXTENDED")
        return node

    return parse_one(sql, read="duckdb").transform(adapted).sql(dialect, identify=True)
