"""Rows that come from an asset or a table: the same plan as from a SQL file, and the same values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.query import run_query
from integrations_dagster.sync.spec import NO_WAREHOUSE, FieldSpec, ModelSpec, SyncSpec
from integrations_dagster.sync.versions import newest_version
from integrations_dagster.vocabulary import Misconfigured, Partition, Status
from integrations_dagster_tests.sync.harness import Bench

COLUMNS = {
    "id": "INTEGER",
    "email": "VARCHAR",
    "firstname": "VARCHAR",
    "spent": "DECIMAL(18, 4)",
    "score": "DOUBLE",
    "born": "DATE",
    "seen": "TIMESTAMPTZ",
    "plan": "VARCHAR",
    "active": "BOOLEAN",
}


def people(count: int) -> list[dict[str, object]]:
    return [
        {
            "id": i,
            "email": f"source-{i}@example.com",
            "firstname": None if i % 5 == 0 else f"Zoë {i}",
            "spent": None if i % 7 == 0 else Decimal(i) / 16,
            "score": i / 3,
            "born": date(1990, 1, 1) + timedelta(days=i),
            "seen": datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(seconds=i, microseconds=i),
            "plan": ("free", "pro")[i % 2],
            "active": None if i % 11 == 0 else i % 2 == 0,
        }
        for i in range(count)
    ]


def table(bench: Bench) -> pa.Table:
    with duckdb.connect(str(bench.warehouse), read_only=True) as connection:
        rows: pa.Table = connection.sql("SELECT * FROM people").to_arrow_table()
        return rows


def as_pandas(rows: pa.Table) -> pd.DataFrame:
    frame = rows.to_pandas()
    assert str(frame.dtypes["spent"]) == "object"  # Decimal
    return frame.astype({"plan": "category"}).sample(frac=1, random_state=1)


def as_polars(rows: pa.Table) -> pl.DataFrame:
    frame = pl.DataFrame(rows)
    return frame.with_columns(pl.col("plan").cast(pl.Categorical)).reverse()


def as_arrow(rows: pa.Table) -> pa.Table:
    columns = [column.cast(pa.large_string()) if pa.types.is_string(column.type) else column for column in rows.columns]
    columns[rows.schema.get_field_index("plan")] = rows.column("plan").dictionary_encode()
    return pa.Table.from_arrays(columns, names=rows.column_names)


SOURCES: dict[str, Callable[[pa.Table], Any]] = {
    "pandas": as_pandas,
    "polars": as_polars,
    "polars lazy": lambda rows: as_polars(rows).lazy(),
    "arrow table": as_arrow,
    "arrow reader": lambda rows: as_arrow(rows).to_reader(max_chunksize=13),
    "table name": lambda _: "main.people",
    "table mapping": lambda _: {"schema": "main", "table": "people"},
}


def sync_of(bench: Bench, model: ModelSpec) -> SyncSpec:
    fields = tuple(FieldSpec(name, name) for name in COLUMNS if name != "id")
    hook = dataclasses.replace(bench.crm(), name="hook", kind="webhook")
    return bench.contacts(model, name="people", object="people", match={}, destination=hook, fields=fields)


def shard_rows(bench: Bench, sync: SyncSpec) -> list[dict[str, Any]]:
    """Plan, and give back the candidates with their values; the plan is left as a dead run leaves it."""
    made = plan(sync, bench.context())
    rows = [row for shard in made.shards for row in pq.read_table(shard.path).to_pylist()]
    assert made.counts.queried == 100
    return sorted(rows, key=lambda row: int(row["key"]))


@pytest.fixture
def sql_model(bench: Bench) -> ModelSpec:
    bench.load("people", people(100), COLUMNS)
    return bench.model("people", "SELECT * FROM people")


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_plan_of_the_sql_file(bench: Bench, sql_model: ModelSpec, name: str) -> None:
    bench.query(sql_model)
    expected = shard_rows(bench, sync_of(bench, sql_model))
    assert len(expected) == 100

    model = dataclasses.replace(sql_model, sql_path=None, asset="raw/people")
    value = SOURCES[name](table(bench))
    run_query(model, bench.folder, "run-of-asset", load=lambda _: value)
    found = shard_rows(bench, sync_of(bench, model))
    # Everything: keys, changes, source digests, values.
    assert found == expected


def test_a_delivered_sql_file_replaced_by_a_frame_sends_nothing(bench: Bench, sql_model: ModelSpec) -> None:
    sync = sync_of(bench, sql_model)
    assert bench.run(sync).outcomes[Status.CREATED] == 100
    model = dataclasses.replace(sql_model, sql_path=None, asset="raw/people", warehouse=NO_WAREHOUSE)
    frame = as_polars(table(bench))
    run_query(model, bench.folder, "run-of-asset", load=lambda _: frame)
    made = plan(dataclasses.replace(sync, model=model), bench.context())
    assert (made.counts.unchanged, made.shards) == (100, ())


def stored(bench: Bench, value: Any) -> list[dict[str, Any]]:
    """The rows of a version made of a value, as DuckDB reads them."""
    model = ModelSpec("things", None, ("id",), NO_WAREHOUSE, asset="things_made")
    (version,) = run_query(model, bench.folder, "run-1", load=lambda _: value)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(f"SELECT * FROM '{version.path}/part-*.parquet' ORDER BY id")
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_what_pandas_counts_as_missing_is_null_and_a_named_index_is_a_column(bench: Bench) -> None:
    frame = pd.DataFrame(
        {
            "number": [1.5, float("nan"), 3.0],
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "text": ["a", None, float("nan")],
            "late": [None, None, {"deep": [1, 2]}],
            "when": pd.to_datetime(
                pd.Series(["2026-01-01T00:00:00.123456789Z", None, "2026-01-02T00:00:00.000000001Z"])
            ).array,
            "zone": pd.Series(pd.to_datetime(["2026-07-01 12:00"]))
            .reindex(range(3))
            .dt.tz_localize("Europe/Berlin")
            .array,
        },
        index=pd.Index(["x", "y", "z"], name="id"),
    )
    rows = stored(bench, frame)
    assert [row["id"] for row in rows] == ["x", "y", "z"]
    assert [row["number"] for row in rows] == [1.5, None, 3.0]
    assert [row["whole"] for row in rows] == [1, None, 3]
    assert [row["text"] for row in rows] == ["a", None, None]
    assert rows[2]["late"] == {"deep": [1, 2]}
    assert [row["when"] is None for row in rows] == [False, True, False]
    assert rows[0]["zone"] == datetime(2026, 7, 1, 10, tzinfo=UTC)


def test_in_polars_and_arrow_nan_is_a_number_and_null_is_not(bench: Bench) -> None:
    for value in (
        pl.DataFrame({"id": [1, 2], "number": [float("nan"), None]}),
        pa.table({"id": [1, 2], "number": pa.array([float("nan"), None], pa.float64())}),
    ):
        rows = stored(bench, value)
        assert math.isnan(rows[0]["number"])
        assert rows[1]["number"] is None


def test_types_keep_their_values(bench: Bench) -> None:
    rows = stored(
        bench,
        pa.table(
            {
                "id": pa.array([2**63], pa.uint64()),
                "half": pa.array([0.5], pa.float16()),
                "huge": pa.array([Decimal("1" * 45 + ".25")], pa.decimal256(50, 2)),
                "wide": pa.array([Decimal("1.25")], pa.decimal256(20, 2)),
                "exact": pa.array([Decimal("9" * 36 + ".25")], pa.decimal128(38, 2)),
                "span": pa.array([90_000_000], pa.duration("us")),
                "bytes": pa.array([b"\x00\xff"], pa.large_binary()),
                "view": pa.array(["v"], pa.string_view()),
                "list": pa.array([[1, None]], pa.large_list(pa.int32())),
                "code": pa.array([7], pa.int32()).dictionary_encode(),
                "none": pa.nulls(1),
            }
        ),
    )
    assert rows == [
        {
            "id": 2**63,
            "half": 0.5,
            "huge": "1" * 45 + ".25",
            "wide": Decimal("1.25"),
            "exact": Decimal("9" * 36 + ".25"),
            "span": "00:01:30",
            "bytes": b"\x00\xff",
            "view": "v",
            "list": [1, None],
            "code": 7,
            "none": None,
        }
    ]


def test_a_big_frame_is_stored_in_row_groups(bench: Bench) -> None:
    frame = pd.DataFrame({"id": range(250_001), "late": [None] * 250_000 + ["only the last"]})
    assert stored(bench, frame)[-1] == {"id": 250_000, "late": "only the last"}
    version = newest_version(bench.folder, "things")
    assert version is not None
    assert version.rows == 250_001
    groups = pq.ParquetFile(Path(version.path) / "part-0.parquet").metadata
    assert groups.num_row_groups >= 2
    assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) <= 130_000


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "yields a builtins.NoneType, not rows"),
        (pd.DataFrame({"id": [1, 2], "mixed": [1, "a"]}), "mixed"),
        (pd.DataFrame({0: [1]}), "whose name is no text"),
        (pa.table({"ID": [1], "id": [1]}), "two columns named"),
        (pa.table({"other": [1]}), "does not return the primary key column 'id'"),
        ("no; table", "is no name of a table"),
        ({"tabel": "people"}, "names no table"),
        ("main.nothing", "no warehouse"),
    ],
    ids=["none", "mixed", "unnamed", "twice", "no key", "no name", "no mapping", "no warehouse"],
)
def test_what_is_wrong_with_a_value_is_said(bench: Bench, value: Any, said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        stored(bench, value)
    assert said in str(caught.value)
    assert "things" in str(caught.value)


def test_a_table_is_cut_into_partitions_by_its_column(bench: Bench) -> None:
    rows = [{"id": day * 10 + i, "day": date(2026, 1, 1 + day)} for day in range(3) for i in range(day + 1)]
    bench.load('"odd ""name"', rows, {"id": "INTEGER", "day": "DATE"})
    model = dataclasses.replace(
        bench.model("days", ""), sql_path=None, table='"odd ""name"', window="day", partitioned=True
    )
    days = [
        Partition(f"2026-01-0{d}", f"2026-01-0{d}T00:00:00+00:00", f"2026-01-0{d + 1}T00:00:00+00:00")
        for d in (1, 2, 3)
    ]
    assert [version.rows for version in run_query(model, bench.folder, "run-1", days)] == [1, 2, 3]
    with pytest.raises(Misconfigured, match="Name the column"):
        run_query(dataclasses.replace(model, window=""), bench.folder, "run-2", days)


def test_the_command_line_says_that_it_cannot_load_an_asset(bench: Bench) -> None:
    model = ModelSpec("things", None, ("id",), NO_WAREHOUSE, asset="raw/things")
    with pytest.raises(Misconfigured, match="which only a run in Dagster can load"):
        run_query(model, bench.folder, "run-1")
