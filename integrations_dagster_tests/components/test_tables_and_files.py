"""What YAML says of destinations that are tables or files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from integrations_dagster.components.destination import Destination
from integrations_dagster.components.sync import Sync
from integrations_dagster.destinations.file import FileKeys
from integrations_dagster.destinations.sql.destination import TableKeys
from integrations_dagster.sync.spec import ModelSpec, WarehouseSpec

MODEL = ModelSpec("people", Path("people.sql"), ("id",), WarehouseSpec("warehouse", "duckdb", Path("w.duckdb")))


def destination(text: str) -> Destination:
    found: Any = Destination.resolve_from_yaml(f"name: shop\n{text}")
    assert isinstance(found, Destination)
    return found


def test_the_smallest_is_enough_and_begins_in_the_sandbox() -> None:
    tables = destination("kind: sql").spec("sandbox")
    assert (tables.target.sandbox, tables.option) == (True, TableKeys())
    files = destination("kind: file\nfiles: {format: csv, compression: gzip}").spec("sandbox")
    assert files.option == FileKeys(format="csv", compression="gzip")
    assert files.create().option == files.option


def test_real_ones_say_where() -> None:
    made = destination(
        "kind: sql\ntables: {batches_table: seen}\n"
        "targets:\n"
        "  prod: {base_url: {env: URL}}\n"
        "  dev:\n    base_url: postgresql://db.example.com/shop\n"
        "    auth: {kind: basic, username: me, password: {env: PW}}\n"
        "  local: {base_url: 'duckdb:///data/shop.duckdb'}\n"
    )
    assert made.spec("local").option == TableKeys(batches_table="seen")
    destination("kind: file\ntargets: {prod: {base_url: 's3://lake/exports'}, dev: {base_url: 'file:///data'}}")


def test_only_a_real_table_says_which_columns_it_has() -> None:
    made = destination("kind: sql\ntargets: {sandbox: {sandbox: true}, dev: {base_url: 'duckdb:///data/shop.duckdb'}}")
    assert (made.spec("sandbox").describes, made.spec("dev").describes) == (False, True)
    assert not destination("kind: webhook").spec("sandbox").describes


@pytest.mark.parametrize(("said", "writes"), [("", "json"), ("files: {format: parquet}", "parquet")])
def test_a_file_says_its_format(said: str, writes: str) -> None:
    assert destination(f"kind: file\n{said}").spec("sandbox").create().writes == writes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: postgres", 'It is called "sql" here.'),
        ("kind: s3", 'It is called "file" here.'),
        ("kind: file\ntargets: {prod: {base_url: /data}}", "A folder is file:///folder."),
        ("kind: sql\nfiles: {format: csv}", "files is nothing that SQL takes"),
        ("kind: file\ntables: {}", "tables is nothing that File takes"),
        ("kind: file\nfiles: {path: x}", "files.path lacks {batch}"),
        ("kind: sql\ntables: {remember: false}", 'tables.remember is no key here. Did you mean "remember_batches"?'),
        (
            "kind: sql\ntargets: {prod: {base_url: 'mysql://x/y'}}",
            "begins with duckdb:// or postgres:// or postgresql://",
        ),
        ("kind: sql\ntargets: {prod: {base_url: 'postgresql://u:p@x/y'}}", "give the URL as {env: NAME}"),
        ("kind: sql\ntargets: {prod: {token: {env: A}, base_url: {env: B}}}", "is of kind bearer, which SQL does not"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        destination(text)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "match", "said", "expected"),
    [
        ("sql", "match: {id: id}", "", "clear"),
        ("file", "", "", "clear"),
        ("webhook", "", "", "omit"),
        ("sql", "match: {id: id}", "nulls: omit", "omit"),
    ],
)
def test_nulls_are_written_to_tables_and_files(kind: str, match: str, said: str, expected: str) -> None:
    sync: Any = Sync.resolve_from_yaml(
        "name: s\nmodel: people\ndestination: shop\nobject: people\nmode: upsert\nfields: {name: name}\n"
        f"{match}\n{said}"
    )
    (field,) = sync.spec(MODEL, destination(f"kind: {kind}").spec("sandbox")).fields
    assert field.rule.nulls == expected
