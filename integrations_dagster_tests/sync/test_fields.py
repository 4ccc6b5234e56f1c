"""Fields of a sync through whole runs: expressions, types, invalid rows among good ones."""

from __future__ import annotations

import dataclasses
import gzip
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from integrations_dagster.delivery.quotations import MASK
from integrations_dagster.delivery.scrub import mask_payload
from integrations_dagster.planner.expressions import columns_of
from integrations_dagster.sync.preview import preview
from integrations_dagster.sync.spec import DestinationSpec, FieldRule, FieldSpec, ModelSpec, SyncSpec, TargetSpec
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


def test_an_expression_that_cannot_be_tried_row_by_row_stops_the_plan_without_its_values(
    bench: Bench, model: ModelSpec
) -> None:
    people(bench, [{"id": 1, "code": "confidential"}])
    sync = hook(model, [computed("code", "CAST(code AS INTEGER) + length(CAST(uuidv7() AS VARCHAR))")])
    with pytest.raises(Misconfigured, match=r"the SQL of one of fields\.code fails on some row") as error:
        bench.run(sync)
    assert "confidential" not in "".join(traceback.format_exception(error.value))


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


# Types and options


def typed(target: str, column: str, **rule: Any) -> FieldSpec:
    sensitive = rule.pop("sensitive", False)
    return FieldSpec(target, column, sensitive=sensitive, rule=FieldRule(**rule))


def test_invalid_rows_are_named_and_the_good_ones_delivered(bench: Bench) -> None:
    columns = {"id": "INTEGER", "mail": "VARCHAR", "phone": "VARCHAR", "age": "VARCHAR", "plan": "VARCHAR"}
    good: list[dict[str, object]] = [
        {"id": i, "mail": f" P{i}@Example.com", "phone": f"(202) 555-{i:04d}", "age": f"{i}.0", "plan": "f"}
        for i in range(30)
    ]
    bad: list[dict[str, object]] = [
        {"id": 100, "mail": "not-an-address", "phone": "+1 202 555 0143", "age": "abc", "plan": "f"},
        {"id": 101, "mail": "a@example.com", "phone": "1", "age": "7", "plan": "f"},
        {"id": 102, "mail": None, "phone": None, "age": None, "plan": None},
        {"id": 103, "mail": "b@example.com", "phone": None, "age": "3.5", "plan": "x"},
    ]
    bench.load("people", [*good, *bad], columns)
    sync = hook(
        bench.model("people", "SELECT * FROM people"),
        [
            typed("email", "mail", type="email", required=True),
            typed("phone", "phone", type="phone", region="US", sensitive=True),
            typed("age", "age", type="integer"),
            typed("plan", "plan", type="enum", values=(("f", "free"), ("p", "paid")), drop=True),
        ],
    )
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.INVALID]) == (30, 4)
    held = bench.client.webhook_records("events", "people")
    assert held["7"] == {"age": 7, "email": "p7@example.com", "phone": "+12025550007", "plan": "free"}
    reasons = {row.key: (row.code, row.reason) for row in report.bad_rows}
    assert reasons == {
        "100": (
            "VALUE",
            "Field 'age': the text \"abc\" is no integer. "
            "Field 'email': the text \"not-an-address\" is no email address: an email address must have an @-sign.",
        ),
        "101": ("VALUE", "Field 'phone': a text is no phone number."),
        "102": ("REQUIRED", "Field 'email': it is null or empty, and the field is required."),
        "103": ("VALUE", "Field 'age': the text \"3.5\" is no integer."),
    }
    assert any("1 value(s) of the field 'plan' did not fit and were left out" in line for line in bench.logged)
    again = bench.run(sync)
    assert (again.candidates, again.counts.invalid, again.counts.unchanged) == (0, 4, 30)
    bench.load("people", [*good, {**bad[3], "age": "4"}], columns)
    assert bench.run(sync).outcomes[Status.CREATED] == 1
    assert bench.client.webhook_records("events", "people")["103"] == {"age": 4, "email": "b@example.com"}


def test_values_that_are_equal_are_not_sent_again(bench: Bench) -> None:
    """The warehouse writes the same values in another way: candidates, and nothing to send."""
    fields = [
        typed("amount", "amount", type="number"),
        typed("at", "at", type="timestamp"),
        typed("doc", "doc", type="json"),
        FieldSpec("plain", "doc"),
        FieldSpec("zoned", "zoned"),
        FieldSpec("zero", "zero"),
    ]
    first = """SELECT 1 AS id, CAST(0.10 AS DECIMAL(9, 2)) AS amount, '2026-08-01T12:00:00+02:00' AS at,
        CAST('{"a": 1, "b": [1.50]}' AS JSON) AS doc, TIMESTAMPTZ '2026-08-01 12:00:00+02' AS zoned,
        CAST(0.0 AS DOUBLE) AS zero"""
    second = """SELECT 1 AS id, CAST(0.1 AS DOUBLE) AS amount, TIMESTAMP '2026-08-01 10:00:00' AS at,
        CAST('{"b":[1.5],  "a":1.0}' AS JSON) AS doc, TIMESTAMPTZ '2026-08-01 10:00:00Z' AS zoned,
        -CAST(0.0 AS DOUBLE) AS zero"""
    bench.load("people", [], COLUMNS)
    assert bench.run(hook(bench.model("a", first), fields)).outcomes[Status.CREATED] == 1
    assert bench.client.webhook_records("events", "people")["1"] == {
        "amount": 0.1,
        "at": "2026-08-01T10:00:00Z",
        "doc": {"a": 1, "b": [1.5]},
        "plain": '{"a":1,"b":[1.5]}',
        "zoned": "2026-08-01T10:00:00Z",
        "zero": 0.0,
    }
    report = bench.run(hook(bench.model("b", second), fields))
    assert (report.candidates, report.counts.unchanged, report.traffic.requests) == (1, 1, 0)
    other = second.replace("[1.5]", "[1.25]")
    assert bench.run(hook(bench.model("c", other), fields)).outcomes[Status.UPDATED] == 1


def test_an_empty_text_is_no_null(bench: Bench) -> None:
    sync = hook(bench.model("people", "SELECT * FROM people"), [FieldSpec("last", "last"), FieldSpec("id", "id")])
    people(bench, [{"id": 1, "last": None}])
    bench.run(sync)
    assert bench.client.webhook_records("events", "people")["1"] == {"id": 1}
    people(bench, [{"id": 1, "last": ""}])
    assert bench.run(sync).outcomes[Status.UPDATED] == 1
    assert bench.client.webhook_records("events", "people")["1"] == {"id": 1, "last": ""}


def test_paths_make_objects(bench: Bench) -> None:
    people(bench, [{"id": 1, "First": "Ada", "last": "x", "code": "10115"}, {"id": 2, "First": "Bob"}])
    sync = hook(
        bench.model("people", "SELECT *, [1, 2] AS tags, MAP {'b': 1, 'a': 2} AS marks FROM people"),
        [
            FieldSpec("name", "First"),
            FieldSpec("address.city", "last"),
            typed("address.geo.zip", "code", type="integer"),
            FieldSpec("address-2", value="none"),
            FieldSpec("tags", "tags"),
            FieldSpec("marks", "marks"),
            typed("left.out", "last", nulls="clear"),
        ],
    )
    bench.run(sync)
    held = bench.client.webhook_records("events", "people")
    both = {"address-2": "none", "tags": [1, 2], "marks": {"a": 2, "b": 1}}
    ada = {"name": "Ada", "address": {"city": "x", "geo": {"zip": 10115}}, "left": {"out": "x"}}
    assert held["1"] == both | ada
    assert held["2"] == both | {"name": "Bob", "left": {"out": None}}
    assert bench.run(sync).candidates == 0
    people(bench, [{"id": 1, "First": "Ada", "last": "x", "code": "?"}, {"id": 2, "First": "Bob"}])
    report = bench.run(sync)
    assert [(row.key, row.reason) for row in report.bad_rows] == [
        ("1", "Field 'address.geo.zip': the text \"?\" is no integer.")
    ]


def test_a_sensitive_path_is_told_nowhere(bench: Bench) -> None:
    people(bench, [{"id": 1, "last": "Kirchstr. 5"}, {"id": 2, "last": "Kirchstr. 6"}])
    model = bench.model("people", "SELECT * FROM people")
    sync = hook(model, [typed("home.street", "last", type="integer", sensitive=True), FieldSpec("code", "id")])
    assert {row.reason for row in bench.run(sync).bad_rows} == {"Field 'home.street': a text is no integer."}
    both = hook(model, [FieldSpec("home.street", "last", sensitive=True), typed("number", "last", type="integer")])
    assert {row.reason for row in bench.run(both).bad_rows} == {"Field 'number': a text is no integer."}
    sync = hook(model, [FieldSpec("home.street", "last", sensitive=True)])
    shown = preview(sync, bench.context())
    assert "home" in sync.sensitive
    assert [mask_payload(sample.payload, sync.sensitive) for sample in shown.samples] == [{"home": MASK}] * 2
    fault = {"match": {"path": "*", "rows_with": "Kirchstr. 5"}, "fault": {"kind": "status", "status": 400}}
    bench.client.faults([fault])
    report = bench.run(sync)
    assert report.outcomes[Status.REJECTED] == 1
    kept = [path for path in bench.folder.rglob("*.gz") if "requests" in path.parts]
    assert kept
    for path in kept:
        assert b"Kirchstr" not in gzip.decompress(path.read_bytes())


def test_clear_empties_a_property_at_hubspot(bench: Bench) -> None:
    columns = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"}
    bench.load("people", [{"id": 1, "email": "a@example.com", "firstname": "Ada"}], columns)
    model = bench.model("people", "SELECT * FROM people")
    for nulls, left in (("omit", "Ada"), ("clear", "")):
        sync = bench.contacts(model, fields=(FieldSpec("email", "email"), typed("firstname", "firstname", nulls=nulls)))
        bench.load("people", [{"id": 1, "email": "a@example.com", "firstname": "Ada"}], columns)
        bench.run(sync)
        bench.load("people", [{"id": 1, "email": "a@example.com", "firstname": None}], columns)
        bench.run(sync)
        assert (bench.emails()["a@example.com"] or "") == left


def test_a_match_value_is_checked_and_sent_as_it_is_compared(bench: Bench) -> None:
    columns = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"}
    bench.load("people", [{"id": 1, "email": " A@Example.com"}, {"id": 2, "email": "nobody"}], columns)
    model = bench.model("people", "SELECT * FROM people")
    report = bench.run(bench.contacts(model, fields=(typed("email", "email", type="email"),)))
    assert (report.outcomes[Status.CREATED], report.counts.invalid) == (1, 1)
    assert report.bad_rows[0].reason.startswith("Field 'email': the text \"nobody\" is no email address")
    assert set(bench.emails()) == {"a@example.com"}
