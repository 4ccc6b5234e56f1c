"""A model's rows become immutable versions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from integrations_dagster.sync.query import preview, run_query
from integrations_dagster.sync.spec import ModelSpec, WarehouseSpec
from integrations_dagster.sync.versions import VersionGone, folder_of, in_use, newest_version, prune
from integrations_dagster.vocabulary import Misconfigured, Partition

READER = """
import sys
from pathlib import Path
from integrations_dagster.sync.versions import in_use, newest_version
with in_use(newest_version(Path(sys.argv[1]), "numbers")):
    print("reading", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def model(tmp_path: Path) -> ModelSpec:
    warehouse = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("CREATE TABLE numbers AS SELECT i AS id, 'n' || i AS name FROM range(25) r(i)")
    (tmp_path / "sql").mkdir()
    return _model(tmp_path, "SELECT id, name FROM numbers")


def _model(root: Path, sql: str, *, partitioned: bool = False) -> ModelSpec:
    path = root / "sql" / "numbers.sql"
    path.write_text(sql)
    return ModelSpec(
        "numbers", path, ("id",), WarehouseSpec("warehouse", "duckdb", root / "warehouse.duckdb"), partitioned
    )


def test_a_version_is_complete_and_says_where_it_comes_from(model: ModelSpec, tmp_path: Path) -> None:
    said: list[str] = []
    (version,) = run_query(model, tmp_path, "run-1", log=said.append)
    assert (version.model, version.partition, version.rows) == ("numbers", "", 25)
    assert version.columns == (("id", "BIGINT"), ("name", "VARCHAR"))
    assert version.sql == "SELECT id, name FROM numbers"
    assert version.name.endswith("Z-run-1")
    assert pq.read_table(version.path + "/part-0.parquet").num_rows == 25
    assert newest_version(tmp_path, "numbers") == version
    assert said[0].startswith("Model 'numbers': 25 rows")


def test_without_a_version_there_is_none(tmp_path: Path) -> None:
    assert newest_version(tmp_path, "numbers") is None
    assert prune(tmp_path, "numbers") == []


def test_the_newest_version_is_the_one_whose_query_started_last(model: ModelSpec, tmp_path: Path) -> None:
    run_query(model, tmp_path, "zzz")
    (second,) = run_query(model, tmp_path, "aaa")
    assert newest_version(tmp_path, "numbers") == second


def test_a_version_found_after_the_storage_was_moved(model: ModelSpec, tmp_path: Path) -> None:
    run_query(model, tmp_path / "a", "run")
    (tmp_path / "a").rename(tmp_path / "b")
    version = newest_version(tmp_path / "b", "numbers")
    assert version is not None
    assert Path(version.path, "part-0.parquet").exists()


def test_partitions_have_versions_of_their_own(model: ModelSpec, tmp_path: Path) -> None:
    sql = "SELECT id FROM numbers WHERE id >= CAST($partition_start AS INT) AND id < CAST($partition_end AS INT)"
    spec = _model(tmp_path, sql, partitioned=True)
    parts = [Partition("../b_/1", "0", "10"), Partition("_", "10", "12"), Partition("2026-06-01", "30", "40")]
    versions = run_query(spec, tmp_path, "run", parts)
    assert [(v.partition, v.rows) for v in versions] == [("../b_/1", 10), ("_", 2), ("2026-06-01", 0)]
    for part, version in zip(parts, versions, strict=True):
        assert newest_version(tmp_path, "numbers", part.key) == version
        assert Path(version.path).is_relative_to(tmp_path / "models" / "numbers")
    assert newest_version(tmp_path, "numbers") is None
    with pytest.raises(Misconfigured, match="no partition was given"):
        run_query(spec, tmp_path, "run")
    with pytest.raises(Misconfigured, match="not partitioned"):
        run_query(_model(tmp_path, sql), tmp_path, "run", parts)


def test_a_query_without_the_primary_key_leaves_nothing(model: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"sql/numbers\.sql.*'id'.*It returns: name, n\."):
        run_query(_model(tmp_path, "SELECT name, 1 AS n FROM numbers"), tmp_path, "run")
    assert newest_version(tmp_path, "numbers") is None
    assert not list(folder_of(tmp_path, "numbers").glob(".draft-*"))


def test_a_failed_query_keeps_the_version_before(model: ModelSpec, tmp_path: Path) -> None:
    (good,) = run_query(model, tmp_path, "run")
    with pytest.raises(Misconfigured, match="nowhere"):
        run_query(_model(tmp_path, "SELECT * FROM nowhere"), tmp_path, "run")
    assert newest_version(tmp_path, "numbers") == good


def test_a_missing_file_and_a_file_in_another_encoding(model: ModelSpec, tmp_path: Path) -> None:
    assert model.sql_path is not None
    model.sql_path.write_bytes("SELECT 1 AS id, 'ü' AS name".encode("latin-1"))
    with pytest.raises(Misconfigured, match="UTF-8"):
        run_query(model, tmp_path, "run")
    model.sql_path.unlink()
    with pytest.raises(Misconfigured, match=r"There is no sql/numbers\.sql"):
        run_query(model, tmp_path, "run")


def test_the_last_two_versions_and_those_in_use_are_kept(model: ModelSpec, tmp_path: Path) -> None:
    (first,) = run_query(model, tmp_path, "run-1")
    with in_use(first):
        later = [run_query(model, tmp_path, f"run-{n}")[0] for n in (2, 3, 4)]
        assert [Path(v.path).exists() for v in (first, *later)] == [True, False, True, True]
    assert prune(tmp_path, "numbers") == [first.name]
    assert not Path(first.path).exists()
    with pytest.raises(VersionGone, match="Launch the run again"), in_use(first):
        pass


def test_a_reader_that_was_killed_keeps_no_version(model: ModelSpec, tmp_path: Path) -> None:
    (first,) = run_query(model, tmp_path, "run-1")
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    try:
        assert reader.stdout.readline() == "reading\n"
        for n in (2, 3):
            run_query(model, tmp_path, f"run-{n}")
        assert Path(first.path).exists()
    finally:
        reader.kill()
        reader.communicate()
    assert prune(tmp_path, "numbers") == [first.name]


def test_what_a_killed_query_left_is_passed_over_and_cleaned(model: ModelSpec, tmp_path: Path) -> None:
    (good,) = run_query(model, tmp_path, "run")
    folder = folder_of(tmp_path, "numbers")
    for name in (".draft-29990101T000000.000000Z-dead", "29990101T000000.000000Z-half"):
        (folder / name).mkdir()
        (folder / name / "part-0.parquet").write_text("half")
    assert newest_version(tmp_path, "numbers") == good
    prune(tmp_path, "numbers")
    assert not list(folder.glob(".draft-*"))


def test_a_preview_is_short(model: ModelSpec, tmp_path: Path) -> None:
    sql = """SELECT id, CASE WHEN id = 0 THEN repeat('x', 100) WHEN id = 1 THEN 'a' || chr(10) || 'b' END AS name,
        TIMESTAMPTZ '2026-06-01 12:00:00+02' AS at, CAST(1.50 AS DECIMAL(5, 2)) AS d FROM numbers ORDER BY id"""
    (version,) = run_query(_model(tmp_path, sql), tmp_path, "run")
    columns, rows = preview(version, 3)
    assert columns == ["id", "name", "at", "d"]
    assert rows == [
        ["0", "x" * 79 + "…", "2026-06-01T10:00:00+00:00", "1.50"],
        ["1", "a b", "2026-06-01T10:00:00+00:00", "1.50"],
        ["2", "null", "2026-06-01T10:00:00+00:00", "1.50"],
    ]
    (empty,) = run_query(_model(tmp_path, "SELECT id FROM numbers WHERE false"), tmp_path, "run")
    assert preview(empty) == (["id"], [])


def test_the_description_is_plain_json(model: ModelSpec, tmp_path: Path) -> None:
    (version,) = run_query(model, tmp_path, "run")
    data = json.loads(Path(version.path, "version.json").read_text())
    assert type(version).from_dict(data) == version
