"""Payloads that Arrow puts together are those that the values make one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations_dagster.destinations.registry import KINDS
from integrations_dagster.destinations.values import canonical_json
from integrations_dagster.sync.columns import plain_text
from integrations_dagster.sync.payloads import Payloads
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, ModelSpec, SyncSpec, TargetSpec, WarehouseSpec
from integrations_dagster.vocabulary import Mode

TEXT = st.text(max_size=8)
COLUMNS: Mapping[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "text": (pa.string(), TEXT),
    "plain": (pa.string(), st.text("abcäß 漢\x7f\u2028", max_size=8)),
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "small": (pa.uint8(), st.integers(0, 255)),
    "money": (pa.decimal128(12, 2), st.decimals(-(10**9), 10**9, places=2)),
    "fine": (pa.decimal128(20, 9), st.decimals(-(10**9), 10**9, places=9)),
    "round": (pa.decimal128(18, 0), st.decimals(-(10**9), 10**9, places=0)),
    "day": (pa.date32(), st.dates()),
    "float": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "yes": (pa.bool_(), st.booleans()),
}


def sync_of(kind: str, targets: Mapping[str, str]) -> SyncSpec:
    """A sync whose fields are columns of the same name."""
    warehouse = WarehouseSpec("w", "duckdb", Path("w"))
    return SyncSpec(
        "s",
        ModelSpec("m", Path("m.sql"), ("id",), warehouse),
        DestinationSpec("d", kind, TargetSpec("sandbox")),
        "things",
        Mode.UPSERT,
        tuple(FieldSpec(target, column) for target, column in targets.items()),
    )


def batch_of(columns: Mapping[str, pa.Array[Any]], count: int) -> pa.RecordBatch:
    """Rows of a shard file, as far as payloads are made of them."""
    arrays = {"match": pa.array([str(i) for i in range(count)])} | {f"c:{name}": c for name, c in columns.items()}
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


@pytest.mark.parametrize("kind", ["hubspot", "webhook", "sandbox_insert"])
@settings(deadline=None, derandomize=True, max_examples=120)
@given(data=st.data(), names=st.lists(st.sampled_from(sorted(COLUMNS)), unique=True), count=st.integers(1, 5))
def test_columns_and_values_make_the_same_payload(kind: str, data: st.DataObject, names: list[str], count: int) -> None:
    destination = KINDS[kind]()
    values = {
        name: data.draw(st.lists(st.none() | COLUMNS[name][1], min_size=count, max_size=count), name) for name in names
    }
    rows = batch_of({name: pa.array(values[name], COLUMNS[name][0]) for name in names}, count)
    # Targets in another order than the columns, with a name that JSON escapes.
    targets = {f'f"{len(names) - place}': name for place, name in enumerate(names)}
    made = Payloads(sync_of(kind, targets), destination).of(rows).texts
    for place, text in enumerate(made):
        row = {target: values[name][place] for target, name in targets.items()}
        assert text == canonical_json({t: destination.encode(v) for t, v in row.items() if v is not None})


@pytest.mark.parametrize("nul", [[None, None], [None, "x"], ['"', None]])
def test_a_row_of_nulls_is_an_empty_object(nul: list[str | None]) -> None:
    rows = batch_of({"text": pa.array(nul, pa.string())}, 2)
    made = Payloads(sync_of("webhook", {"a": "text"}), KINDS["webhook"]()).of(rows).texts
    assert [json.loads(text or b"") for text in made] == [{} if value is None else {"a": value} for value in nul]


def test_a_value_that_cannot_be_sent_leaves_the_other_rows_alone() -> None:
    columns: dict[str, pa.Array[Any]] = {
        "text": pa.array(["a", "b", None]),
        "float": pa.array([1.5, float("nan"), None]),
    }
    written = Payloads(sync_of("webhook", {"t": "text", "n": "float"}), KINDS["webhook"]()).of(batch_of(columns, 3))
    assert written.texts == [b'{"n":1.5,"t":"a"}', None, b"{}"]
    code, reason = written.problem(1)
    assert code == "VALUE"
    assert "'n'" in reason


@pytest.mark.parametrize(
    ("column", "as_text"),
    [
        (pa.array(["a\nb"]), {str}),
        (pa.array(["a"]), set()),
        (pa.array([1]), {str}),
        (pa.array([Decimal("0.0000001")], pa.decimal128(10, 7)), {Decimal}),
        (pa.array([4_000_000], pa.int32()).cast(pa.date32()), {date}),
        (pa.array([1.5]), {float}),
        (pa.array([True]), {int, bool}),
    ],
    ids=["escaped", "no-text", "no-number", "exponent", "year-12921", "float", "boolean"],
)
def test_what_is_not_plain_goes_the_other_way(column: pa.Array[Any], as_text: set[type]) -> None:
    assert plain_text(column, frozenset(as_text)) is None
