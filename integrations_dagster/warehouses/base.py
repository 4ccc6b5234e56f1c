"""What a warehouse does for a model: run one query, and put its rows into Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from integrations_dagster.vocabulary import IntegrationsError


class WarehouseBusy(IntegrationsError):
    """The warehouse could not be opened in the time given, because someone else holds it."""


@dataclass(frozen=True, slots=True)
class WarehouseAddress:
    """Which warehouse, and where it is.

    Attributes:
        name: Its name in YAML, for messages.
        kind: A key of `registry.KINDS`.
        path: The file of a warehouse that is one.
        url: The URL of a warehouse that is a server, with its password: never shown.
    """

    name: str
    kind: str
    path: Path | None = None
    url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query has written.

    Attributes:
        rows: Rows in all files.
        columns: (name, the warehouse's type) in order.
        seconds: Duration of the query, files included.
    """

    rows: int
    columns: tuple[tuple[str, str], ...]
    seconds: float


class Warehouse(Protocol):
    """An open warehouse; leaving the `with` block gives it back."""

    def query_to_parquet(
        self, sql: str, parameters: Mapping[str, str | None], folder: Path, source: str
    ) -> QueryResult:
        """Run a query and write its rows to `part-*.parquet` in `folder`, which exists and is empty.

        Args:
            sql: Exactly one SELECT (or WITH) statement.
            parameters: Values of the parameters `$name` of the query; bound as text or null, never pasted.
            source: The file of the query, for messages.

        Raises:
            Misconfigured: The query is no single SELECT, uses other parameters, or fails: with the warehouse's message.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
