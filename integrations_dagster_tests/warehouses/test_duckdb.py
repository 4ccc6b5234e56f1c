"""A DuckDB file as a warehouse."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import IO

import duckdb
import pyarrow.parquet as pq
import pytest

from integrations_dagster.planner.state import connect
from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.base import QueryResult, WarehouseAddress, WarehouseBusy
from integrations_dagster.warehouses.registry import open_warehouse

HOLDER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE numbers AS SELECT i AS id, TIMESTAMPTZ '2026-06-01' + to_hours(i) AS moment "
                           "FROM range(100) r(i)")  # fmt: skip
    return path


def run(path: Path, sql: str, parameters: dict[str, str] | None = None, *, patience: float = 1.0) -> QueryResult:
    folder = path.parent / "out"
    folder.mkdir(exist_ok=True)
    scratch = path.parent / "scratch"
    with open_warehouse(WarehouseAddress("warehouse", "duckdb", path), scratch=scratch, patience=patience) as warehouse:
        return warehouse.query_to_parquet(sql, parameters or {}, folder, "sql/model.sql")


def rows(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(path.parent / "out").to_pylist()
    return found


@contextmanager
def held(path: Path) -> Iterator[IO[str]]:
    """Another process has the file open for writing until it is sent a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        yield process.stdin
    finally:
        process.communicate()


def test_rows_and_columns_arrive_as_they_are(path: Path) -> None:
    result = run(
        path, "SELECT id, CAST(id / 4 AS DECIMAL(9, 2)) AS quarter FROM numbers WHERE id < 3;\n-- done; really"
    )
    assert (result.rows, result.columns) == (3, (("id", "BIGINT"), ("quarter", "DECIMAL(9,2)")))
    assert rows(path)[1] == {"id": 1, "quarter": Decimal("0.25")}


def test_an_empty_result_keeps_its_columns(path: Path) -> None:
    assert run(path, "SELECT id FROM numbers WHERE false").rows == 0
    assert pq.read_schema(path.parent / "out" / "part-0.parquet").names == ["id"]


@pytest.mark.parametrize(
    "sql", ["WITH a AS (SELECT 1 AS x) SELECT x FROM a", "(SELECT 1 AS x)", "/* ü */ FROM (SELECT 1 AS x)"]
)
def test_forms_of_one_select(path: Path, sql: str) -> None:
    run(path, sql)
    assert rows(path) == [{"x": 1}]


def test_parameters_are_bound_and_never_pasted(path: Path) -> None:
    sql = "SELECT $a AS a, id FROM numbers WHERE moment >= CAST($b AS TIMESTAMPTZ) ORDER BY id LIMIT 1"
    run(path, sql, {"a": "'; DROP TABLE numbers; --", "b": "2026-06-01T12:00:00+02:00"})
    assert rows(path) == [{"a": "'; DROP TABLE numbers; --", "id": 10}]


def test_values_that_parquet_would_bend_are_kept(path: Path) -> None:
    run(
        path,
        """SELECT sum(9007199254740993 + 0 * id) AS huge, [9007199254740993::HUGEINT] AS many,
            '10:00:00+02'::TIMETZ AS at, INTERVAL 1 MONTH AS span, '0b1fdb0a-0d2c-4d38-9d3c-1f6f4ac4d1a5'::UUID AS id,
            '{"a": 1}'::JSON AS j FROM numbers WHERE id < 2""",
    )
    row = rows(path)[0]
    assert row["huge"] == Decimal(18014398509481986)
    assert row["many"] == [Decimal(9007199254740993)]
    assert (row["at"], row["span"]) == ("10:00:00+02", "1 month")
    assert row["id"] == "0b1fdb0a-0d2c-4d38-9d3c-1f6f4ac4d1a5"
    assert row["j"] == '{"a": 1}'


def test_results_do_not_depend_on_the_time_zone_of_the_machine(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    run(path, "SELECT CAST(CAST(moment AS DATE) AS VARCHAR) AS day FROM numbers WHERE id = 23")
    assert rows(path) == [{"day": "2026-06-01"}]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("", "0 SQL statements"),
        ("SELECT 1; SELECT 2", "2 SQL statements"),
        ("CREATE TABLE t AS SELECT 1 AS x", "not a SELECT"),
        ("COPY (SELECT 1) TO 'x.csv'", "not a SELECT"),
        ("DELETE FROM numbers RETURNING *", "not a SELECT"),
        ("DESCRIBE numbers", "not a SELECT"),
        ("SELECT", "cannot be parsed"),
        ("SELECT id,\n  nope\nFROM numbers", r"(?s)nope.*LINE 2:   nope"),
        ("SELECT id\nFROM missing", r"(?s)missing.*LINE 2"),
        ("SELECT\n  CAST('a' || id AS INTEGER) AS x FROM numbers", r"(?s)Conversion Error.*'a"),
        ("SELECT id, 1 AS ID FROM numbers", "two columns named 'id' and 'ID'"),
        ("SELECT $partition_start AS x", r"uses \$partition_start.*not partitioned"),
    ],
)
def test_wrong_queries_are_told_with_file_and_reason(path: Path, sql: str, told: str) -> None:
    with pytest.raises(Misconfigured, match=told) as caught:
        run(path, sql)
    assert "sql/model.sql" in str(caught.value)


def test_a_partitioned_query_must_use_its_window(path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"does not use \$b"):
        run(path, "SELECT $a AS x", {"a": "1", "b": "2"})


def test_the_warehouse_is_read_only(path: Path) -> None:
    with open_warehouse(WarehouseAddress("w", "duckdb", path), scratch=path.parent / "scratch") as warehouse:
        connection = warehouse._connection  # type: ignore[attr-defined]
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            connection.execute("CREATE TABLE t (x INTEGER)")


def test_a_warehouse_that_is_missing_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="make warehouse"):
        run(tmp_path / "none.duckdb", "SELECT 1 AS x")
    (tmp_path / "text.duckdb").write_text("not a database" * 1000)
    with pytest.raises(Misconfigured, match=r"text\.duckdb cannot be opened"):
        run(tmp_path / "text.duckdb", "SELECT 1 AS x")
    with pytest.raises(Misconfigured, match=r"'oracle' is no kind of warehouse.*duckdb"):
        open_warehouse(WarehouseAddress("w", "oracle", tmp_path), scratch=tmp_path)


def test_a_warehouse_held_for_writing_is_said_to_be(path: Path) -> None:
    with held(path), pytest.raises(WarehouseBusy, match=r"another process has held .*PID"):
        run(path, "SELECT 1 AS x", patience=0.2)


def test_a_warehouse_held_for_a_while_is_waited_for(path: Path) -> None:
    with held(path) as holder:
        release = threading.Timer(0.5, lambda: (holder.write("\n"), holder.flush()))
        release.start()
        assert run(path, "SELECT id FROM numbers", patience=30).rows == 100
        release.join()


def test_two_queries_at_once_in_one_process(path: Path) -> None:
    scratch = path.parent / "scratch"
    with open_warehouse(WarehouseAddress("w", "duckdb", path), scratch=scratch, patience=1):
        assert run(path, "SELECT id FROM numbers").rows == 100


def test_no_progress_bar_is_drawn_into_output(path: Path, tmp_path: Path) -> None:
    run(path, "SELECT current_setting('enable_progress_bar') AS bar")
    assert rows(path) == [{"bar": False}]
    with connect(tmp_path) as connection:
        assert connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (False,)
