"""Which fields fit which columns, and what counts as drift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from integrations_dagster.destinations.reading import FieldType, TargetField
from integrations_dagster.sync.schema import Description, column_type, drift, misfits, sight
from integrations_dagster.sync.spec import (
    DestinationSpec,
    FieldRule,
    FieldSpec,
    ModelSpec,
    SyncSpec,
    TargetSpec,
    WarehouseSpec,
)
from integrations_dagster.vocabulary import Mode


def field(name: str, type_: FieldType = FieldType.STRING, **more: Any) -> TargetField:
    return TargetField(name, name, type_, **more)


def sync(*fields: FieldSpec, kind: str = "hubspot", **changes: Any) -> SyncSpec:
    model = ModelSpec("m", Path("m.sql"), ("id",), WarehouseSpec("w", "duckdb", Path("w.duckdb")))
    crm = DestinationSpec("crm", kind, TargetSpec("sandbox", sandbox=True))
    return SyncSpec("s", model, crm, "contacts", Mode.UPSERT, fields, **changes)


def told(spec: SyncSpec, *fields: TargetField, **columns: str) -> list[tuple[str, bool]]:
    return [(str(found), found.fatal) for found in misfits(spec, {f.name: f for f in fields}, columns)]


@pytest.mark.parametrize(
    ("native", "type_"),
    [
        ("VARCHAR", "string"), ("character varying(20)", "string"), ("text", "string"), ("UUID", "string"),
        ("BIGINT", "integer"), ("int4", "integer"), ("DECIMAL(18,0)", "integer"), ("HUGEINT", "integer"),
        ("DECIMAL(18,3)", "number"), ("double precision", "number"), ("numeric", "number"), ("FLOAT", "number"),
        ("BOOLEAN", "boolean"), ("bool", "boolean"), ("DATE", "date"), ("timestamptz", "timestamp"),
        ("TIMESTAMP WITH TIME ZONE", "timestamp"), ("JSON", "json"), ("jsonb", "json"), ("VARCHAR[]", "json"),
        ("STRUCT(a INTEGER)", "json"), ("INTERVAL", "unknown"), ("", "unknown"),
    ],
)  # fmt: skip
def test_types_of_warehouses(native: str, type_: str) -> None:
    assert column_type(native) == type_


def test_what_does_not_fit() -> None:
    spec = sync(
        FieldSpec("gone", "a"),
        FieldSpec("locked", "a"),
        FieldSpec("price", "a"),
        FieldSpec("tier", value="gold"),
        FieldSpec("text", "a"),
        match={"ref": "r"},
    )
    fields = (
        field("gones"), field("locked", writable=False), field("price", FieldType.NUMBER, native="currency"),
        field("tier", FieldType.ENUM, options=("a", "b")), field("text"), field("ref"), field("must", required=True),
    )  # fmt: skip
    assert told(spec, *fields, a="BOOLEAN", r="VARCHAR") == [
        ("ref is no field with unique values, so no record can be matched by it.", True),
        ("gone does not exist. Did you mean 'gones'?", True),
        ("locked is read-only.", True),
        ("price takes values of type currency, and the column a is BOOLEAN.", False),
        ("tier takes one of a, b, and the constant is 'gold'.", False),
        ("must is required for new records, and is not in `fields`.", False),
    ]
    assert told(spec, *fields, a="VARCHAR", r="VARCHAR")[-2:] == told(spec, *fields, a="BOOLEAN", r="VARCHAR")[-2:]


@pytest.mark.parametrize(
    ("rule", "type_", "fits"),
    [
        (FieldRule(type="number"), FieldType.NUMBER, True),
        (FieldRule(type="number"), FieldType.DATE, False),
        (FieldRule(type="timestamp"), FieldType.NUMBER, False),
        (FieldRule(type="timestamp", format="epoch_ms"), FieldType.NUMBER, True),
        (FieldRule(type="email", hash="sha256"), FieldType.STRING, True),
        (FieldRule(type="enum", values=(("f", "free"),)), FieldType.ENUM, True),
        (FieldRule(type="enum", values=(("f", "gratis"),)), FieldType.ENUM, False),
    ],
)
def test_a_rule_decides_what_is_sent(rule: FieldRule, type_: FieldType, fits: bool) -> None:
    options = ("free", "paid") if type_ is FieldType.ENUM else ()
    # The column's own type would never fit a number, a date or an enum.
    spec = sync(FieldSpec("x", "a", rule=rule))
    assert (told(spec, field("x", type_, options=options), a="VARCHAR") == []) is fits


def test_of_a_path_the_first_part_is_a_field() -> None:
    spec = sync(FieldSpec("address.city", "a"), FieldSpec("adress.zip", "a"), kind="webhook")
    found = told(spec, field("address", FieldType.JSON, required=True), a="VARCHAR")
    assert [text.partition(" ")[0] for text, _ in found] == ["adress.zip"]


def test_drift_names_what_the_sync_uses_and_lists_the_rest() -> None:
    spec = sync(FieldSpec("x", "a"), FieldSpec("y", "b"))

    def seen(columns: dict[str, str], *fields: TargetField) -> dict[str, Any]:
        return sight(Description({f.name: f for f in fields}, 0.0), list(columns.items()))

    before = seen(
        {"id": "INT", "a": "INT", "b": "INT", "c": "INT"}, field("x", options=("1", "2")), field("y"), field("z")
    )
    now = seen(
        {"id": "INT", "a": "TEXT", "c": "TEXT", "d": "INT"},
        field("x", options=("2", "3")), field("y", writable=False), field("z", FieldType.DATE),
        field("new", required=True),
    )  # fmt: skip
    found = drift(spec, before, now)
    assert found.used == (
        "new is new, and required",
        "x has lost the option(s) 1",
        "x has the new option(s) 3",
        "y is read-only now",
        "column a was INT and is TEXT",
        "column b is returned no more",
    )
    assert found.other == ("z was of type string and is date", "column c was INT and is TEXT", "column d is new")
    assert drift(spec, before, before) == drift(spec, {}, now) == drift(spec, now, now)
    assert drift(spec, before, sight(None, [("id", "INT"), ("a", "INT"), ("b", "INT"), ("c", "INT")])).used == ()
