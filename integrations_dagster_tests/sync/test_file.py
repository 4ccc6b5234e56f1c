"""Files as a destination, end to end: what is in them, and that nothing is lost or there twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from integrations_dagster.destinations.file import FileKeys
from integrations_dagster.sync.spec import DestinationSpec, FieldRule, FieldSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.sync.harness import Bench
from integrations_dagster_tests.sync.test_sql import told

COLUMNS = {"id": "BIGINT", "name": "VARCHAR", "amount": "DECIMAL(12,2)", "at": "TIMESTAMPTZ", "tags": "VARCHAR[]"}
TEXT = 'ünï 👩‍🚀, "quote" \\ ; line\nbreak'


def sync_of(bench: Bench, url: str, mode: Mode = Mode.UPSERT, **changes: Any) -> SyncSpec:
    spec = SyncSpec(
        name="exports",
        model=bench.model("exports", "SELECT * FROM exports"),
        destination=DestinationSpec("lake", "file", TargetSpec("prod", base_url=url), timeout=2.0, option=FileKeys()),
        object="sales/orders",
        mode=mode,
        fields=tuple(FieldSpec(name, name, rule=FieldRule(nulls="clear")) for name in COLUMNS),
        shards=2,
        removal_limit=1000,
        source="defs/exports/defs.yaml:1",
    )
    return dataclasses.replace(spec, **changes)


def with_files(sync: SyncSpec, **keys: Any) -> SyncSpec:
    return dataclasses.replace(sync, destination=dataclasses.replace(sync.destination, option=FileKeys(**keys)))


def load(bench: Bench, *rows: tuple[Any, ...]) -> None:
    bench.load("exports", [dict(zip(COLUMNS, row, strict=True)) for row in rows], COLUMNS)


ROWS: tuple[tuple[Any, ...], ...] = (
    (1, TEXT, "12.30", "2026-03-29 01:30:00.123456+00", ["a", None]),
    (2, "", None, None, None),
    (3, None, "-0.01", "1999-12-31 23:59:59+00", []),
)


def test_change_files_tell_what_was_added_changed_and_removed(bench: Bench) -> None:
    folder = bench.folder / "lake"
    folder.mkdir()
    sync = sync_of(bench, folder.as_uri(), Mode.MIRROR)
    load(bench, *ROWS)
    assert told(bench.run(sync)) == {Status.CREATED: 3}
    load(bench, ROWS[0], (2, "now", "1.00", None, None))
    assert told(bench.run(sync)) == {Status.UPDATED: 1, Status.DELETED: 1}
    assert bench.run(sync).traffic.requests == 0
    read = f"read_json_auto('{folder}/**/*.jsonl', union_by_name = true)"
    latest = duckdb.execute(
        f"SELECT name, amount FROM (SELECT * FROM {read} "
        "QUALIFY row_number() OVER (PARTITION BY _key ORDER BY _at DESC) = 1) WHERE _change <> 'removed' ORDER BY _key"
    ).fetchall()
    assert [(name, str(amount)) for name, amount in latest] == [(TEXT, "12.30"), ("now", "1.00")]
    changes = duckdb.execute(f"SELECT _key, _change FROM {read} ORDER BY _at, _key").fetchall()
    assert [(str(key), change) for key, change in changes] == [
        *((str(n), "added") for n in (1, 2, 3)),
        *(("2", "changed"), ("3", "removed")),
    ] or sorted((str(key), change) for key, change in changes[3:]) == [("2", "changed"), ("3", "removed")]
    assert [path for path in folder.rglob("*") if path.name.startswith(".")] == [], "no draft is left"


@pytest.mark.quick(1)
@pytest.mark.parametrize(("packed", "ending"), [(None, ".csv"), ("gzip", ".csv.gz"), ("zstd", ".csv.zst")])
def test_csv_tells_no_value_from_an_empty_one(bench: Bench, packed: str | None, ending: str) -> None:
    folder = bench.folder / "lake"
    folder.mkdir()
    load(bench, *ROWS)
    sync = with_files(sync_of(bench, folder.as_uri(), Mode.APPEND), format="csv", compression=packed, about=False)
    sync = dataclasses.replace(sync, shards=1)
    assert told(bench.run(sync)) == {Status.CREATED: 3}
    (path,) = folder.rglob("*.csv*")
    assert path.name.endswith(ending)
    if packed is None:
        assert path.read_text("utf-8").splitlines()[0] == '"amount","at","id","name","tags"'
    found = duckdb.execute(
        f"SELECT id, name, amount, \"at\", tags FROM read_csv('{path}', header = true, all_varchar = true, "
        "allow_quoted_nulls = false) ORDER BY id"
    ).fetchall()
    assert found == [
        ("1", TEXT, "12.30", "2026-03-29T01:30:00.123456Z", '["a",null]'),
        ("2", "", None, None, None),
        ("3", None, "-0.01", "1999-12-31T23:59:59Z", "[]"),
    ]


def test_parquet_has_the_types_that_are_named(bench: Bench) -> None:
    folder = bench.folder / "lake"
    folder.mkdir()
    load(bench, *ROWS, (4, "too much", "123456.78", None, None))
    types = {"amount": "decimal(7,2)", "id": "int64", "at": "timestamp", "tags": "json"}
    sync = with_files(
        sync_of(bench, folder.as_uri(), Mode.INSERT), format="parquet", types=types, path="{sync}/{batch}"
    )
    report = bench.run(sync)
    assert told(report) == {Status.CREATED: 3, Status.REJECTED: 1}
    assert "decimal(7,2)" in report.bad_rows[0].reason
    assert report.bad_rows[0].key == "4"
    paths = list((folder / "exports").glob("*.parquet"))
    tables = [pq.read_table(path) for path in paths]
    assert {str(table.schema) for table in tables} == {str(tables[0].schema)}, "one schema, whatever is in a batch"
    assert str(tables[0].schema.field("amount").type) == "decimal128(7, 2)"
    assert str(tables[0].schema.field("at").type) == "timestamp[us, tz=UTC]"
    names = sorted(str(name) for table in tables for name in table.column("name").to_pylist())
    assert names == sorted(["", "None", TEXT])


class Unsteady(MemoryFileSystem):  # type: ignore[misc]
    """An object store whose answers get lost: what was put is there."""

    protocol = "memory"
    cachable = False
    lost = 0

    def pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        super().pipe_file(path, value, **kwargs)
        if Unsteady.lost > 0:
            Unsteady.lost -= 1
            raise ConnectionResetError(104, "Connection reset by peer")


@pytest.fixture
def store() -> Iterator[type[Unsteady]]:
    known = fsspec.get_filesystem_class("memory")
    fsspec.register_implementation("memory", Unsteady, clobber=True)
    MemoryFileSystem.store.clear()
    yield Unsteady
    fsspec.register_implementation("memory", known, clobber=True)
    MemoryFileSystem.store.clear()


def test_a_file_whose_answer_is_lost_is_there_once(bench: Bench, store: type[Unsteady]) -> None:
    load(bench, *((n, f"n{n}", None, None, None) for n in range(40)))
    sync = sync_of(bench, "memory://bucket/prefix", Mode.APPEND, batch_rows=10, shards=1)
    store.lost = 2
    report = bench.run(sync)
    assert told(report) == {Status.CREATED: 40}
    assert report.traffic.retries == 2
    store.lost = 100
    load(bench, *((n, f"n{n}", None, None, None) for n in range(50)))
    # No answer at all: the run gives up, and the next one writes the same file under the same name.
    assert told(bench.run(sync)) == {Status.IN_DOUBT: 10}
    store.lost = 0
    bench.run(sync)
    lines = [line for file in MemoryFileSystem.store.values() for line in file.getvalue().splitlines()]
    assert len(lines) == len(set(lines)) == 50
    assert len(MemoryFileSystem.store) == 5
    assert all(path.startswith("/bucket/prefix/sales/orders/20") for path in MemoryFileSystem.store)


def test_a_folder_that_is_not_there_stops_the_run(bench: Bench) -> None:
    load(bench, *ROWS)
    report = bench.run(sync_of(bench, (bench.folder / "nowhere").as_uri(), shards=1))
    assert told(report) == {Status.UNSENT: 3}
    assert "Create the folder or bucket" in report.failures[0]
    assert not (bench.folder / "nowhere").exists()


def test_the_sandbox_is_a_folder(bench: Bench) -> None:
    load(bench, *ROWS)
    sync = sync_of(bench, "")
    local = DestinationSpec("lake", "file", TargetSpec("sandbox", sandbox=True), option=FileKeys())
    sync = dataclasses.replace(sync, destination=local)
    assert told(bench.run(sync)) == {Status.CREATED: 3}
    files = list(Path(bench.folder, "sandbox", "file", "lake", "files").rglob("*.jsonl"))
    assert sum(len(file.read_bytes().splitlines()) for file in files) == 3
    assert bench.run(sync).traffic.requests == 0
