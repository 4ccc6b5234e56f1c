"""Fields of a sync through whole runs: expressions, types, invalid rows among good ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from integrations_dagster.planner.expressions import columns_of
from integrations_dagster.sync.plan import preview
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, ModelSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Misconfigured, Mode, Status
from integrations_dagster_tests.sync.harness import Bench

HOOK = DestinationSpec("events", "webhook", TargetSpec("sandbox", sandbox=True), timeout=5.0)


def computed(target: str, sql: str, **more: Any) -> FieldSpec:
    return FieldSpec(target, sql=sql, uses=columns_of(sql, "duckdb"), **more)


def hook(model: ModelSpec, fields: Sequence[FieldSpec]) -> SyncSpec:
    return SyncSpec(
        name="out",
        model=model,
        destination=HOOK,
        object="people",
        mode=Mode.UPSERT,
        fields=tuple(fields),
        source="defs/out/defs.yaml:1",
    )


COLUMNS = {"id": "INTEGER", "First": "VARCHAR", "last": "VARCHAR", "code": "VARCHAR", "other": "INTEGER"}


def people(bench: Bench, rows: Sequence[Mapping[str, object]]) -> None:
    bench.load("people", rows, COLUMNS)


@pytest.fixture
def model(bench: Bench) -> ModelSpec:
    people(bench, [{"id": i, "First": f"F{i}", "last": "L", "code": str(i), "other": i} for i in range(20)])
    return bench.model("people", "SELECT * FROM people")


def test_an_expression_is_computed_for_each_row(bench: Bench, model: ModelSpec) -> None:
    sync = hook(
        model, [computed("name", "first || ' ' || last -- both"), computed("same", "first || ' ' || last -- both")]
    )
    assert sync.columns == ("first", "last")
    assert len(sync.sources) == 1, "one expression is computed once"
    bench.query(model)
    shown = preview(sync, bench.context(), samples=20)
    assert {s.key: s.payload for s in shown.samples}["7"] == {"name": "F7 L", "same": "F7 L"}
    assert bench.run(sync).outcomes[Status.CREATED] == 20
    assert bench.client.webhook_records("events", "people")["7"] == {"name": "F7 L", "same": "F7 L"}
    assert bench.run(sync).candidates == 0


def test_a_column_that_no_field_uses_causes_no_candidate(bench: Bench, model: ModelSpec) -> None:
    sync = hook(model, [computed("name", "first || ' ' || last"), computed("even", "other % 2 = 0")])
    bench.run(sync)
    people(bench, [{"id": i, "First": f"F{i}", "last": "L", "code": "x", "other": i} for i in range(20)])
    assert bench.run(sync).candidates == 0
    # Of a column that is used only what comes of it counts.
    people(bench, [{"id": i, "First": f"F{i}", "last": "L", "code": "x", "other": i + 2} for i in range(20)])
    assert bench.run(sync).candidates == 0
    people(
        bench, [{"id": i, "First": f"F{i}", "last": "L", "code": "x", "other": 3 if i == 4 else i} for i in range(20)]
    )
    report = bench.run(sync)
    assert (report.candidates, report.outcomes[Status.UPDATED]) == (1, 1)
    assert bench.client.webhook_records("events", "people")["4"] == {"name": "F4 L", "even": False}


def test_a_row_on_which_an_expression_fails_is_invalid_and_no_other(bench: Bench, model: ModelSpec) -> None:
    fields = [computed("code", "CAST(code AS INTEGER)"), computed("next", "CAST(code AS INTEGER) + 1")]
    sync = hook(model, fields)
    bench.run(sync)
    bad: list[dict[str, object]] = [
        {"id": 3, "First": "F3", "code": "secret"},
        {"id": 50, "code": "?"},
        {"id": 51, "code": None},
    ]
    rows: list[dict[str, object]] = [{"id": i, "First": f"F{i}", "code": str(i)} for i in range(20) if i != 3]
    people(bench, [*rows, *bad])
    report = bench.run(sync)
    assert (report.counts.unchanged, report.counts.invalid, report.outcomes[Status.CREATED]) == (19, 2, 1)
    reasons = {row.key: row.reason for row in report.bad_rows}
    assert set(reasons) == {"3", "50"}
    assert "'code': its SQL expression fails on this row" in reasons["3"]
    assert "secret" not in reasons["3"]
    again = bench.run(sync)
    assert (again.candidates, again.counts.invalid, again.counts.unchanged) == (0, 2, 20)
    people(bench, [*rows, {"id": 3, "code": "4"}, *bad[1:]])
    assert bench.run(sync).outcomes[Status.UPDATED] == 1
    assert bench.client.webhook_records("events", "people")["3"] == {"code": 4, "next": 5}


def test_a_value_that_becomes_one_that_fails_is_noticed_even_if_it_was_null(bench: Bench, model: ModelSpec) -> None:
    sync = hook(model, [computed("code", "CAST(code AS INTEGER)"), FieldSpec("first", "First")])
    people(bench, [{"id": 1, "First": "F", "code": None}, {"id": 2, "First": "G", "code": "2"}])
    assert bench.run(sync).outcomes[Status.CREATED] == 2
    people(bench, [{"id": 1, "First": "F", "code": "none"}, {"id": 2, "First": "G", "code": "2"}])
    report = bench.run(sync)
    assert (report.counts.invalid, report.counts.unchanged) == (1, 1)


def test_an_expression_over_columns_that_are_not_there_stops_the_plan(bench: Bench, model: ModelSpec) -> None:
    with pytest.raises(Misconfigured, match=r"uses the column\(s\) 'middle'"):
        bench.run(hook(model, [computed("name", "first || middle")]))
    with pytest.raises(Misconfigured, match=r"the SQL of fields\.name cannot be computed: .*no_such_function"):
        bench.run(hook(model, [computed("name", "no_such_function(first)")]))
    assert bench.client.webhook_records("events", "people") == {}


def test_types_that_a_file_holds_inexactly_stay_exact(bench: Bench, model: ModelSpec) -> None:
    sql = "CAST(9007199254740993 AS HUGEINT) + other"
    bench.run(hook(model, [computed("big", sql), computed("wait", "INTERVAL 1 DAY")]))
    record = bench.client.webhook_records("events", "people")["2"]
    assert record == {"big": "9007199254740995", "wait": "1 day"}


def test_sensitive_expressions_are_masked(bench: Bench, model: ModelSpec) -> None:
    sync = hook(model, [computed("name", "first || last", sensitive=True)])
    bench.query(model)
    assert sync.sensitive == {"name"}
    bad = dataclasses.replace(sync, fields=(computed("name", "CAST(first AS INTEGER)", sensitive=True),))
    report = bench.run(bad)
    assert {row.reason for row in report.bad_rows} == {"Field 'name': its value cannot be sent."}
