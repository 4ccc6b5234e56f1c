"""What every server must take: 10,000 rows written, some changed, some deleted; the end state read back and compared.

A test gives a sync in mode mirror over `model`, and a function that reads all records back. Values are compared as
texts, as `text` makes them, so that a server may give a number where another gives its digits.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa

from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.spec import ModelSpec, SyncSpec
from integrations_dagster.vocabulary import Status
from integrations_dagster_tests.sync.harness import Bench

ROWS = 10_000
CHANGED, DELETED, ADDED = 1_000, 500, 250
COLUMNS = {
    "id": "BIGINT",
    "email": "VARCHAR",
    "name": "VARCHAR",
    "amount": "DECIMAL(12,2)",
    "active": "BOOLEAN",
    "born": "DATE",
    "note": "VARCHAR",
}
NAMES = ("Zoë Ångström", "李小龍", "O'Brien; DROP TABLE", 'quo"te', "back\\slash", "наташа", "👩‍🚀", "<b>&amp;</b>")

Record: TypeAlias = dict[str, str | None]


def customer(number: int, seed: int = 0) -> dict[str, Any]:
    """The row of a customer; another seed gives it other values under the same id and email."""
    dice = random.Random(f"{number}/{seed}")
    return {
        "id": number,
        "email": f"user{number}@example.com",
        "name": f"{dice.choice(NAMES)} {number}",
        "amount": Decimal(dice.randrange(-(10**9), 10**9)).scaleb(-2),
        "active": dice.random() < 0.5,
        "born": date(1950, 1, 1) + timedelta(days=dice.randrange(20_000)),
        "note": None if dice.random() < 0.3 else f"note {dice.randrange(1000)}",
    }


def text(value: Any) -> str | None:
    """A value in the form that is compared: numbers without trailing zeros, "true" and "false", "" as no value."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal):
        digits = format(Decimal(str(value)), "f")
        digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
        return "0" if digits == "-0" else digits
    return str(value)


def model(bench: Bench) -> ModelSpec:
    """The model of the customers."""
    return bench.model("customers", "SELECT * FROM customers")


@dataclass(frozen=True, slots=True)
class Told:
    """What was measured.

    Attributes:
        reports: Of the first run, the one with changes, and the one with nothing to do.
        seconds: Of each.
    """

    reports: tuple[RunReport, RunReport, RunReport]
    seconds: tuple[float, float, float]


def check(
    bench: Bench,
    sync: SyncSpec,
    read: Callable[[], Mapping[str, Mapping[str, Any]]],
    *,
    rows: int = ROWS,
    columns: Sequence[str] = ("email", "name", "amount", "active", "born", "note"),
) -> Told:
    """Deliver the customers, change them and deliver again; assert that what is read back is what the model says.

    Args:
        sync: In mode mirror, over `model(bench)`, with a field for each of `columns`, under the same name. Nulls are to
            be cleared at the server.
        read: Reads every record: email to column to value.
        rows: Rows at first; of the other numbers, the same share.
        columns: Those that are compared.
    """
    changed, deleted, added = (share * rows // ROWS for share in (CHANGED, DELETED, ADDED))
    state = {number: customer(number) for number in range(rows)}
    reports: list[RunReport] = []
    seconds: list[float] = []

    def run() -> RunReport:
        load(bench, list(state.values()))
        started = time.monotonic()
        report = bench.run(sync)
        seconds.append(time.monotonic() - started)
        reports.append(report)
        assert not report.failures, report.failures
        _compare(read(), state.values(), columns)
        return report

    first = run()
    assert _done(first) == (rows, 0)
    before = dict(state)
    for number in range(0, changed * 7, 7):
        state[number] = customer(number, seed=1)
    # Of few columns some have their old values again.
    changed = sum(any(state[number][name] != before[number][name] for name in columns) for number in before)
    for number in range(rows - deleted, rows):
        del state[number]
    for number in range(rows, rows + added):
        state[number] = customer(number)
    second = run()
    assert _done(second) == (added + changed, deleted)
    third = run()
    assert third.traffic.requests == 0, "a run with nothing to do sends nothing"
    print(
        f"{sync.destination.kind}: {rows:,} rows in {seconds[0]:.1f} s, {changed:,} changed, {deleted:,} deleted and "
        f"{added:,} added in {seconds[1]:.1f} s; {first.traffic.requests} and {second.traffic.requests} requests; the "
        f"{len(state):,} records read back are those of the model"
    )
    return Told((reports[0], reports[1], reports[2]), (seconds[0], seconds[1], seconds[2]))


def load(bench: Bench, rows: Sequence[Mapping[str, Any]]) -> None:
    """Make the table `customers` of the warehouse hold these rows."""
    given = pa.Table.from_pylist([dict(row) for row in rows])
    columns = ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in COLUMNS.items())
    with duckdb.connect(str(bench.warehouse)) as connection:
        connection.register("given", given)
        connection.execute(f"CREATE OR REPLACE TABLE customers AS SELECT {columns} FROM given")


def _done(report: RunReport) -> tuple[int, int]:
    """Rows that were written, and rows that were deleted."""
    written = report.outcomes.get(Status.CREATED, 0) + report.outcomes.get(Status.UPDATED, 0)
    return written, report.outcomes.get(Status.DELETED, 0)


def _compare(found: Mapping[str, Mapping[str, Any]], rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    wanted: dict[str, Record] = {row["email"]: {name: text(row[name]) for name in columns} for row in rows}
    held: dict[str, Record] = {
        email: {name: text(record.get(name)) for name in columns} for email, record in found.items()
    }
    assert held.keys() == wanted.keys(), (
        f"{len(held.keys() - wanted.keys())} too many, {len(wanted.keys() - held.keys())} missing"
    )
    wrong = [(email, held[email], wanted[email]) for email in wanted if held[email] != wanted[email]]
    assert not wrong, f"{len(wrong)} records differ, the first: {wrong[0]}"
