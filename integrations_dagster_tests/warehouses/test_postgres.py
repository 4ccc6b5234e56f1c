"""PostgreSQL as a warehouse."""

from __future__ import annotations

import datetime as dt
import math
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import psycopg2  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest

from integrations_dagster.sync.query import address_of, run_query
from integrations_dagster.sync.spec import Env, ModelSpec, WarehouseSpec
from integrations_dagster.vocabulary import Misconfigured, Partition
from integrations_dagster.warehouses.base import QueryResult, WarehouseAddress, WarehouseBusy
from integrations_dagster.warehouses.registry import open_warehouse
from integrations_dagster_tests.postgres import Postgres

PASSWORD = "pl@nted/Secret"
"""Of the user that may only read; its URL writes it as %40 and %2F."""


class Reader:
    """A database with some numbers, and a user that may read them and nothing else."""

    def __init__(self, postgres: Postgres, folder: Path) -> None:
        self.server = postgres
        self.folder = folder
        self.database = postgres.create_database()
        self.user = f"reader_{self.database}"
        postgres.execute(
            self.database,
            f"CREATE USER {self.user} PASSWORD '{PASSWORD}'",
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            f"REVOKE ALL ON DATABASE {self.database} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {self.database} TO {self.user}",
            f"GRANT USAGE ON SCHEMA public TO {self.user}",
            "CREATE TABLE numbers AS "
            "SELECT i AS id, TIMESTAMPTZ '2026-06-01 00:00+00' + i * INTERVAL '1 hour' AS moment "
            "FROM generate_series(0, 99) i",
            "CREATE TYPE mood AS ENUM ('glad', 'so, so')",
            "CREATE DOMAIN price AS numeric(8, 3) CHECK (value >= 0)",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {self.user}",
        )
        self.url = postgres.url(self.database, self.user, PASSWORD.replace("@", "%40").replace("/", "%2F"))
        self.address = WarehouseAddress("dwh", "postgres", url=self.url)

    def run(self, sql: str, parameters: dict[str, str] | None = None, *, patience: float = 1.0) -> QueryResult:
        out = self.folder / "out"
        out.mkdir(exist_ok=True)
        for path in out.iterdir():
            path.unlink()
        with open_warehouse(self.address, scratch=self.folder / "scratch", patience=patience) as warehouse:
            return warehouse.query_to_parquet(sql, parameters or {}, out, "sql/model.sql")

    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(self.folder / "out").to_pylist()
        return found

    def value(self, expression: str) -> Any:
        self.run(f"SELECT {expression} AS x")
        return self.rows()[0]["x"]


@pytest.fixture(scope="module")
def reader(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(postgres, tmp_path_factory.mktemp("reader"))


def test_rows_and_columns_arrive_as_they_are(reader: Reader) -> None:
    result = reader.run(
        "SELECT id, CAST(id / 4.0 AS numeric(9, 2)) AS quarter FROM numbers WHERE id < 3 ORDER BY id;\n-- done; really"
    )
    assert (result.rows, result.columns) == (3, (("id", "integer"), ("quarter", "numeric(9,2)")))
    assert reader.rows()[1] == {"id": 1, "quarter": Decimal("0.25")}


def test_an_empty_result_keeps_its_columns(reader: Reader) -> None:
    assert reader.run("SELECT id, 1.5::price AS p FROM numbers WHERE false").rows == 0
    schema = pq.read_schema(reader.folder / "out" / "part-0.parquet")
    assert (schema.names, str(schema.field("p").type)) == (["id", "p"], "decimal128(8, 3)")


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
        "(SELECT 1 AS x)",
        "/* ü; */ SELECT 1 AS x -- $nothing",
        "SELECT x FROM (VALUES (1, $$;)$x$$)) v(x, y)",
        "SELECT 1 AS x UNION ALL SELECT 2 WHERE false",
    ],
)
def test_forms_of_one_select(reader: Reader, sql: str) -> None:
    reader.run(sql)
    assert reader.rows() == [{"x": 1}]


def test_parameters_are_bound_and_never_pasted(reader: Reader) -> None:
    sql = "SELECT $a AS a, id, $a || '!' AS b FROM numbers WHERE moment >= $b ORDER BY id LIMIT 1"
    reader.run(sql, {"a": "'; DROP TABLE numbers; --", "b": "2026-06-01T12:00:00+02:00"})
    assert reader.rows() == [{"a": "'; DROP TABLE numbers; --", "id": 10, "b": "'; DROP TABLE numbers; --!"}]


@pytest.mark.parametrize("cast", ["$b", "CAST($b AS timestamptz)", "$b::timestamptz"])
def test_a_parameter_has_the_type_that_its_place_asks_for(reader: Reader, cast: str) -> None:
    sql = f"SELECT count(*) AS n FROM numbers WHERE moment < {cast} AND id > $least"
    reader.run(sql, {"b": "2026-06-01T10:00:00+00:00", "least": "7"})
    assert reader.rows() == [{"n": 2}]


MOMENT = dt.datetime(2026, 3, 1, 12, 30, 15, 123456)  # noqa: DTZ001 - of a timestamp without time zone
VALUES: list[tuple[str, str, Any]] = [
    ("true", "boolean", True),
    ("1::smallint", "smallint", 1),
    ("9223372036854775807", "bigint", 2**63 - 1),
    ("4294967295::oid", "oid", 2**32 - 1),
    ("1.5::real", "real", 1.5),
    ("'-0'::float8", "double precision", -0.0),
    ("0.1::float8 + 0.2", "double precision", 0.1 + 0.2),
    ("'Infinity'::float8", "double precision", math.inf),
    (
        "12345678901234567890123456789012345.678::numeric(38, 3)",
        "numeric(38,3)",
        Decimal("12345678901234567890123456789012345.678"),
    ),
    ("1.50::numeric(10, 2)", "numeric(10,2)", Decimal("1.50")),
    ("1.5::price", "numeric(8,3)", Decimal("1.500")),
    ("sum(9007199254740993::bigint) OVER ()", "numeric", "9007199254740993"),
    ("1.50::numeric", "numeric", "1.50"),
    ("1.5::numeric(60, 30)", "numeric(60,30)", "1.500000000000000000000000000000"),
    ("150::numeric(2, -2)", "numeric(2,-2)", "200"),
    ("'NaN'::numeric", "numeric", "NaN"),
    ("'Infinity'::numeric", "numeric", "Infinity"),
    ("'ü \"'::text", "text", 'ü "'),
    ("''", "text", ""),
    ("NULL", "text", None),
    ("'a'::char(3)", "character", "a"),
    ("'a'::varchar(3)", "character varying", "a"),
    ("'a'::name", "name", "a"),
    ("'glad'::mood", "mood", "glad"),
    ("'\\x00ff'::bytea", "bytea", b"\x00\xff"),
    ("'2026-03-01'::date", "date", dt.date(2026, 3, 1)),
    ("'2026-03-01 12:30:15.123456'::timestamp", "timestamp without time zone", MOMENT),
    ("'2026-03-01 14:30:15.123456+02'::timestamptz", "timestamp with time zone", MOMENT.replace(tzinfo=dt.UTC)),
    ("'24:00:00'::time", "time without time zone", "24:00:00"),
    ("'10:00:00+02'::timetz", "time with time zone", "10:00:00+02"),
    ("'1 mon 2 days 3.5 s'::interval", "interval", "P1M2DT3.5S"),
    ("'0b1fdb0a-0d2c-4d38-9d3c-1f6f4ac4d1a5'::uuid", "uuid", "0b1fdb0a-0d2c-4d38-9d3c-1f6f4ac4d1a5"),
    ('\'{"b": 1,  "a": 1.50}\'::json', "json", '{"b": 1,  "a": 1.50}'),
    ('\'{"b": 1,  "a": 1.50}\'::jsonb', "jsonb", '{"a": 1.50, "b": 1}'),
    ("ARRAY[1, NULL, 3]", "integer[]", [1, None, 3]),
    ("ARRAY['a', '', NULL]", "text[]", ["a", "", None]),
    ("ARRAY[]::int[]", "integer[]", []),
    ("NULL::int[]", "integer[]", None),
    ("ARRAY[1.50, 2]::numeric(9, 2)[]", "numeric[]", ["1.50", "2.00"]),
    ("ARRAY['glad', 'so, so']::mood[]", "mood[]", ["glad", "so, so"]),
    ("ARRAY['2026-03-01'::date]", "date[]", ["2026-03-01"]),
    ("int4range(1, 5)", "int4range", "[1,5)"),
    ("ROW(1, 'a b')", "record", '(1,"a b")'),
    ("'(1,2)'::point", "point", "(1,2)"),
    ("inet '10.0.0.1'", "inet", "10.0.0.1"),
    ("12.5::money", "money", "12.50"),
    ("B'101'", "bit", "101"),
    ("'<a/>'::xml", "xml", "<a/>"),
]


@pytest.mark.parametrize(("expression", "kind", "value"), VALUES, ids=[v[0] for v in VALUES])
def test_each_type_keeps_its_value(reader: Reader, expression: str, kind: str, value: Any) -> None:
    result = reader.run(f"SELECT {expression} AS x")
    assert result.columns == (("x", kind),)
    found = reader.rows()[0]["x"]
    assert found == value
    assert type(found) is type(value)
    assert str(found) == str(value)  # -0.0, and digits of decimals


def test_a_float_that_is_no_number_stays_so(reader: Reader) -> None:
    assert math.isnan(reader.value("'NaN'::float8"))


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("'infinity'::timestamp", r"infinity in the column 'x' .*NULLIF"),
        ("'-infinity'::timestamptz", "infinity in the column 'x'"),
        ("'infinity'::date", "infinity in the column 'x' of the type date"),
        ("'-infinity'::date", "infinity in the column 'x'"),
        ("'NaN'::numeric(5, 2)", r"NaN in the column 'x' of the type numeric\(5,2\)"),
        ("ARRAY[[1, 2], [3, 4]]", r"more than one dimension in the column 'x'.*to_json"),
    ],
)
def test_values_that_nothing_can_keep_are_refused_by_name(reader: Reader, expression: str, told: str) -> None:
    with pytest.raises(Misconfigured, match=f"(?s)sql/model.sql.*{told}"):
        reader.run(f"SELECT {expression} AS x")


def test_the_first_days_that_postgres_knows_are_not_infinite(reader: Reader) -> None:
    reader.run("SELECT '4713-01-01 BC'::date AS d, '4713-01-01 BC'::timestamp AS t")
    assert pq.read_table(reader.folder / "out").num_rows == 1


def test_results_do_not_depend_on_settings_of_the_server(reader: Reader) -> None:
    reader.server.execute(
        reader.database,
        f"ALTER USER {reader.user} SET TimeZone = 'Asia/Tokyo'",
        f"ALTER USER {reader.user} SET DateStyle = 'German'",
        f"ALTER USER {reader.user} SET IntervalStyle = 'postgres_verbose'",
        f"ALTER USER {reader.user} SET extra_float_digits = -5",
    )
    try:
        reader.run(
            "SELECT CAST(moment AS date)::text || ' ' || (0.1::float8 + 0.2)::text || ' ' || INTERVAL '1 day' AS x "
            "FROM numbers WHERE id = 23"
        )
        assert reader.rows() == [{"x": "2026-06-01 0.30000000000000004 P1D"}]
    finally:
        reader.server.execute(reader.database, f"ALTER USER {reader.user} RESET ALL")


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("", "0 SQL statements"),
        ("SELECT 1; SELECT 2", "2 SQL statements"),
        ("CREATE TABLE t AS SELECT 1 AS x", "not a SELECT"),
        ("COPY (SELECT 1) TO 'x.csv'", "not a SELECT"),
        ("DELETE FROM numbers RETURNING *", "not a SELECT"),
        ("SELECT 1) AS q, (SELECT 2", "parentheses"),
        ("WITH gone AS (DELETE FROM numbers RETURNING *) SELECT * FROM gone", "failed"),
        ("SELECT", "returns no columns"),
        ("SELECT 'a", "cannot be parsed"),
        ("SELECT id,\n  nope\nFROM numbers", r"(?s)nope.*LINE 2:   nope"),
        ("SELECT id\nFROM missing", r"(?s)missing.*LINE 2"),
        ("SELECT\n  CAST('a' || id AS INTEGER) AS x FROM numbers", r"(?s)invalid input syntax.*a0"),
        ("SELECT 1 / (id - 99) AS x FROM numbers", "division by zero"),
        ("SELECT id, 1 AS ID FROM numbers", "two columns named 'id' and 'id'"),
        ('SELECT id, 1 AS "ID" FROM numbers', "two columns named 'id' and 'ID'"),
        ("SELECT $partition_start AS x", r"uses \$partition_start.*not partitioned"),
        ("SELECT $1 AS x", r"uses \$1"),
    ],
)
def test_wrong_queries_are_told_with_file_and_reason(reader: Reader, sql: str, told: str) -> None:
    with pytest.raises(Misconfigured, match=told) as caught:
        reader.run(sql)
    assert "sql/model.sql" in str(caught.value)
    assert "Query was" not in str(caught.value)


def test_a_partitioned_query_must_use_its_window(reader: Reader) -> None:
    with pytest.raises(Misconfigured, match=r"does not use \$b"):
        reader.run("SELECT $a AS x", {"a": "1", "b": "2"})


def test_the_warehouse_is_read_only_whatever_the_user_may(postgres: Postgres, tmp_path: Path) -> None:
    database = postgres.create_database()
    postgres.execute(
        database,
        "CREATE TABLE t (x integer)",
        "CREATE FUNCTION put() RETURNS integer LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING x'",
    )
    address = WarehouseAddress("dwh", "postgres", url=postgres.url(database))
    with open_warehouse(address, scratch=tmp_path) as warehouse:
        with pytest.raises(Misconfigured, match="read-only transaction"):
            warehouse.query_to_parquet("SELECT put() AS x", {}, tmp_path, "sql/model.sql")
        # The connection is good for the next query.
        assert warehouse.query_to_parquet("SELECT x FROM t", {}, tmp_path, "sql/model.sql").rows == 0


def test_the_rows_of_a_query_are_those_of_one_moment(reader: Reader) -> None:
    run = reader.run("SELECT pg_export_snapshot() AS x FROM generate_series(1, 2)")
    assert run.rows == 2


def test_memory_does_not_grow_with_the_rows(reader: Reader) -> None:
    reader.run("SELECT 1 AS x")
    process = psutil.Process()
    peak = [process.memory_info().rss]
    before = peak[0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        # About 450 MB of text.
        assert (
            reader.run("SELECT i AS id, repeat(md5(i::text), 14) AS t FROM generate_series(1, 1000000) i").rows == 10**6
        )
    finally:
        done.set()
        watcher.join()
    assert peak[0] - before < 200 << 20, f"{(peak[0] - before) >> 20} MB"


WRONG = {
    "password": ("{user}:pl%40nted%2FSecrex", "authentication failed"),
    "nobody": ("nobody:pl%40nted%2FSecret", "authentication failed"),
    "spaces": ("{user}:pl@nted/Sec ret", "cannot be reached"),
}


@pytest.mark.parametrize("case", WRONG)
def test_no_message_repeats_the_password(reader: Reader, case: str, tmp_path: Path) -> None:
    user, told = WRONG[case]
    url = f"postgresql://{user.format(user=reader.user)}@127.0.0.1:{reader.server.port}/{reader.database}"
    with pytest.raises(Misconfigured, match=told) as caught:
        open_warehouse(WarehouseAddress("dwh", "postgres", url=url), scratch=tmp_path, patience=0.1)
    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__} {WarehouseAddress('dwh', 'postgres', url=url)}"
    assert "'dwh'" in shown
    for part in ("nted", "Secre", "Sec ret"):
        assert part not in shown


def test_a_query_cannot_show_the_password(reader: Reader) -> None:
    with pytest.raises(Misconfigured, match="•••") as caught:
        reader.run(f"SELECT CAST('{PASSWORD}' AS integer) AS x")
    assert PASSWORD not in str(caught.value)


def test_a_url_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no URL of PostgreSQL") as caught:
        open_warehouse(WarehouseAddress("dwh", "postgres", url="mysql://a:secretpw@b/c"), scratch=tmp_path)
    assert "secretpw" not in str(caught.value)


def test_a_server_that_does_not_answer_is_waited_for(reader: Reader, tmp_path: Path) -> None:
    address = WarehouseAddress("dwh", "postgres", url="postgresql://a:secretpw@127.0.0.1:1/c")
    with pytest.raises(WarehouseBusy, match=r"for 0.2 s .*refused") as caught:
        open_warehouse(address, scratch=tmp_path, patience=0.2)
    assert "secretpw" not in str(caught.value)
    # One connection that the server has to spare, and it is taken.
    reader.server.execute(reader.database, f"ALTER USER {reader.user} CONNECTION LIMIT 1")
    try:
        taken = psycopg2.connect(reader.url)
        freed = threading.Timer(0.5, taken.close)
        freed.start()
        assert reader.run("SELECT 1 AS x", patience=30).rows == 1
        freed.join()
    finally:
        reader.server.execute(reader.database, f"ALTER USER {reader.user} CONNECTION LIMIT -1")


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql.dbapi", None)
    with pytest.raises(Misconfigured, match=r"integrations-dagster\[postgres\]"):
        open_warehouse(WarehouseAddress("dwh", "postgres", url="postgresql://a@b/c"), scratch=tmp_path)


def test_a_model_is_queried_by_a_user_that_may_only_read(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "numbers.sql"
    path.write_text("SELECT id FROM numbers WHERE moment >= $partition_start AND moment < $partition_end")
    spec = WarehouseSpec("dwh", "postgres", url=Env("WAREHOUSE_URL"))
    model = ModelSpec("numbers", path, ("id",), spec, partitioned=True)
    day = Partition("2026-06-02", "2026-06-02T00:00:00+00:00", "2026-06-03T00:00:00+00:00")
    with pytest.raises(Misconfigured, match=r"'dwh'.*WAREHOUSE_URL.*not set"):
        run_query(model, tmp_path, "run-0", [day], env={})
    (version,) = run_query(model, tmp_path, "run-1", [day], env={"WAREHOUSE_URL": reader.url})
    assert (version.rows, version.columns) == (24, (("id", "integer"),))
    assert PASSWORD not in repr(address_of(spec, {"WAREHOUSE_URL": reader.url}))
