"""The sync log in the terminal: tables of rows, CSV, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.csv
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from integrations_dagster.cli.show import print_wide
from integrations_dagster.planner.log import homes
from integrations_dagster.vocabulary import Misconfigured

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 1000
"""Rows of a table in the terminal; CSV and JSON have them all."""


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def check_logged(storage: Path, sync: str) -> None:
    """Tell a name that is mistyped from a log without rows.

    Raises:
        Misconfigured: The storage folder has nothing of a sync with this name.
    """
    if sync and not homes(storage, [sync]):
        known = sorted({home.folder.parent.name for home in homes(storage)})
        raise Misconfigured(
            f"The sync log has nothing of a sync {sync!r}.",
            f"It has: {', '.join(known)}." if known else "No sync has been run yet.",
        )


def print_rows(console: Console, rows: pa.Table, format_: Format) -> None:
    """Print rows: as a table, as CSV with a header, or as a line of JSON each."""
    match format_:
        case Format.CSV:
            sys.stdout.flush()
            pyarrow.csv.write_csv(rows, sys.stdout.buffer)
        case Format.JSON:
            for batch in rows.to_batches(10_000):
                for row in batch.to_pylist():
                    sys.stdout.write(json.dumps(row, ensure_ascii=False, default=_json) + "\n")
        case Format.TABLE:
            _print_table(console, rows.column_names, rows.slice(0, MOST).to_pylist())
            more = rows.num_rows - MOST
            hidden = f"; the last {more:,} are not shown, use --format csv" if more > 0 else ""
            console.print(f"{rows.num_rows:,} row(s){hidden}", style="dim", markup=False)


def _print_table(console: Console, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        number = bool(rows) and all(isinstance(row[name], int | float | None) for row in rows)
        table.add_column(name, no_wrap=True, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(_cell(row[name])) for name in names))
    print_wide(console, table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(" ", "milliseconds").removesuffix("+00:00")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _json(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else str(value)
