"""Whole syncs to a GraphQL API over real HTTP: the examples of docs/destinations/graphql.md, and what may go wrong."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from integrations_dagster.components import Destination
from integrations_dagster.destinations.reading import FieldType
from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.spec import DestinationSpec, FieldRule, FieldSpec, LookupSpec, SyncSpec
from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.graphql_shop import Shop
from integrations_dagster_tests.http_apis import on, served
from integrations_dagster_tests.sync.harness import Bench

PAGE = Path(__file__).parents[2] / "docs" / "destinations" / "graphql.md"
COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "name": "VARCHAR", "age": "VARCHAR", "owner": "VARCHAR"}


def destination(name: str, url: str) -> DestinationSpec:
    """A destination of the docs page, at the address of a server of this test."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (text,) = [block for block in blocks if f"\n  name: {name}\n" in block]
    attributes = "\n".join(line[2:] for line in text.splitlines()[2:]).replace("http://127.0.0.1:8767", url)
    component: Destination = Destination.resolve_from_yaml(attributes)
    return dataclasses.replace(component.spec("sandbox"), timeout=5.0, in_flight=4, backoff=0.05)


@pytest.fixture
def shop() -> Iterator[Shop]:
    api = Shop()
    with served(api.app()) as url:
        api.url = url
        yield api


def customers(bench: Bench, shop: Shop, name: str = "shop", mode: Mode = Mode.MIRROR, **changes: Any) -> SyncSpec:
    bench.env["SHOP_TOKEN"] = Shop.TOKEN
    spec = SyncSpec(
        name="customers",
        model=bench.model("customers", "SELECT * FROM customers"),
        destination=destination(name, shop.url),
        object="customers",
        mode=mode,
        match={"email": "email"},
        fields=(FieldSpec("name", "name"),),
        removal_limit=1.0,
        source="defs/customers/defs.yaml:1",
    )
    return dataclasses.replace(spec, **changes)


def changed(sync: SyncSpec, before: str, after: str) -> SyncSpec:
    """The sync with other words in the documents of its destination."""
    option = sync.destination.option
    assert option is not None
    text = json.dumps(option.model_dump(mode="json", exclude_unset=True))
    assert before in text
    other = type(option).model_validate(json.loads(text.replace(before, after)), context={"destination": "shop"})
    return dataclasses.replace(sync, destination=dataclasses.replace(sync.destination, option=other))


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    made = [{"id": i, "email": f"c{i}@example.com", "name": f'Name {i} ü "quoted" {{id}}'} for i in range(count)]
    return [{**row, **changes} for row in made]


def done(report: RunReport) -> dict[Status, int]:
    return {status: count for status, count in report.outcomes.items() if count}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["shop", "shop_lists", "shop_searched"])
def test_create_change_and_remove(name: str, bench: Bench, shop: Shop) -> None:
    sync = customers(bench, shop, name)
    bench.load("customers", rows(120), COLUMNS)
    report = bench.run(sync)
    assert not report.failures
    assert done(report) == {Status.CREATED: 120}
    assert {email: c["name"] for email, c in shop.by_email().items()} == {r["email"]: r["name"] for r in rows(120)}
    assert not any("quoted" in text for text in shop.operations), "values travel as variables"
    sent = len(shop.asked)
    assert not bench.run(sync).failures
    assert len(shop.asked) == sent, "a run with nothing to do sends nothing"
    table = rows(110)
    for place in range(0, 60, 2):
        table[place]["name"] = f"Other {place}"
    bench.load("customers", table, COLUMNS)
    report = bench.run(sync)
    assert not report.failures
    assert done(report) == {Status.UPDATED: 30, Status.DELETED: 10}
    assert {email: c["name"] for email, c in shop.by_email().items()} == {r["email"]: r["name"] for r in table}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["shop", "shop_searched"])
def test_a_match_value_that_changes(name: str, bench: Bench, shop: Shop) -> None:
    """Renamed where there is an update by id; else made anew, and the record it was is deleted in the same run."""
    sync = customers(bench, shop, name)
    bench.load("customers", rows(5), COLUMNS)
    bench.run(sync)
    before = shop.by_email()["c2@example.com"]["id"]
    table = rows(5)
    table[2]["email"] = "new@example.com"
    bench.load("customers", table, COLUMNS)
    assert not bench.run(sync).failures
    assert shop.by_email().keys() == {row["email"] for row in table}
    assert (shop.by_email()["new@example.com"]["id"] == before) is (name == "shop_searched")
    sent = len(shop.operations)
    assert not bench.run(sync).failures
    assert len(shop.operations) == sent


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["shop", "shop_lists", "shop_searched"])
def test_refused_rows_among_accepted_ones(name: str, bench: Bench, shop: Shop) -> None:
    sync = customers(bench, shop, name)
    table = rows(60)
    for place in (5, 17, 59):
        table[place]["name"] = f"bad {place}"
    bench.load("customers", table, COLUMNS)
    report = bench.run(sync)
    assert not report.failures
    assert done(report) == {Status.CREATED: 57, Status.REJECTED: 3}
    assert {row.key for row in report.bad_rows} == {"5", "17", "59"}
    for row in report.bad_rows:
        assert row.code == "BAD_NAME"
        assert row.reason.endswith(f"shop says: 'bad {row.key}' is no name."), row.reason
    assert shop.by_email().keys() == {row["email"] for row in table if not row["name"].startswith("bad")}


@pytest.mark.slow
def test_a_field_that_may_not_be_null_takes_the_answers_of_the_other_rows_with_it(bench: Bench, shop: Shop) -> None:
    """The rows before the refused one were written, and the answer says nothing of them: they are sent again."""
    sync = customers(bench, shop)
    table = rows(10)
    table[4]["name"] = "bad"
    sync = changed(sync, "saveCustomer(", "saveStrictly(")
    bench.load("customers", table, COLUMNS)
    report = bench.run(sync)
    assert done(report) == {Status.REJECTED: 1, Status.UNSENT: 9}
    assert [row.key for row in report.bad_rows if row.code == "BAD_NAME"] == ["4"]
    assert len(shop.customers) == 4
    table[4]["name"] = "good"
    bench.load("customers", table, COLUMNS)
    assert not bench.run(sync).failures
    assert shop.by_email().keys() == {row["email"] for row in table}


def test_a_result_that_cannot_be_read_is_no_refusal(bench: Bench, shop: Shop) -> None:
    """The row is written, and its result is null for an error further down: it is sent again, not rejected."""
    sync = customers(bench, shop, "shop_lists")
    table = rows(4)
    table[2]["name"] = "no plan"
    bench.load("customers", table, COLUMNS)
    report = bench.run(sync)
    assert done(report) == {Status.CREATED: 3, Status.UNSENT: 1}
    assert len(shop.customers) == 4


@pytest.mark.slow
def test_a_value_of_the_wrong_type_is_found_by_halves(bench: Bench, shop: Shop) -> None:
    """The request is refused before anything is done."""
    fields = (FieldSpec("name", "name"), FieldSpec("age", "age"))
    sync = customers(bench, shop, fields=fields)
    bench.load("customers", rows(40), COLUMNS)
    table = rows(40)
    table[31]["age"] = "old"
    bench.load("customers", table, COLUMNS)
    report = bench.run(sync)
    assert not report.failures
    assert done(report) == {Status.CREATED: 39, Status.REJECTED: 1}
    (bad,) = report.bad_rows
    assert (bad.key, bad.code) == ("31", "BAD_USER_INPUT")
    assert "Int cannot represent non-integer value: 'old'" in bad.reason


def test_a_document_that_does_not_fit_the_schema_stops_the_run(bench: Bench, shop: Shop) -> None:
    sync = changed(customers(bench, shop), "saveCustomer(", "storeCustomer(")
    bench.load("customers", rows(30), COLUMNS)
    report = bench.run(sync)
    (told,) = report.failures[:1]
    assert "does not fit the API's schema" in told
    assert "Cannot query field 'storeCustomer' on type 'Mutation'" in told
    assert not shop.customers


def test_throttling_outage_and_garbage(bench: Bench, shop: Shop) -> None:
    sync = customers(bench, shop, "shop_lists")
    bench.load("customers", rows(30), COLUMNS)
    throttled = {"errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}]}
    cost = {"requestedQueryCost": 12, "throttleStatus": {"currentlyAvailable": 10, "restoreRate": 100}}
    shop.faults += on(
        "POST",
        "/api",
        JSONResponse({**throttled, "extensions": {"cost": cost}}),
        PlainTextResponse("", 503),
        PlainTextResponse("slow down", 429, {"Retry-After": "0"}),
    )
    # The rows are taken, and the answer is lost: they are sent again, for an upsert may be repeated.
    shop.after += on("POST", "/api", PlainTextResponse("<html>"))
    report = bench.run(sync)
    assert not report.failures
    assert shop.by_email().keys() == {row["email"] for row in rows(30)}
    assert report.traffic.throttled == 2
    assert report.traffic.retries == 2


def test_a_lost_answer_to_a_creation_is_looked_up_by_the_next_run(bench: Bench, shop: Shop) -> None:
    sync = customers(bench, shop, "shop_searched", Mode.INSERT)
    bench.load("customers", rows(3), COLUMNS)
    shop.after += on("POST", "/api", *[PlainTextResponse("<html>")] * 5)
    report = bench.run(sync)
    assert done(report) == {Status.IN_DOUBT: 3}
    shop.after.clear()
    assert len(shop.customers) == 3
    bench.run(sync)
    assert bench.doubtful(sync) == []
    assert len(shop.customers) == 3, "found, and not created again"


@pytest.mark.quick(1)
@pytest.mark.parametrize(("reference", "key"), [("owners", "login"), ("teams", "login")])
def test_lookups_read_all_pages(reference: str, key: str, bench: Bench, shop: Shop) -> None:
    lookup = LookupSpec("owners", reference=reference, key=key, value="id")
    fields = (FieldSpec("name", "owner", lookup="owners", rule=FieldRule(type="string")),)
    sync = customers(bench, shop, fields=fields, lookups=(lookup,))
    table = rows(3)
    for place, owner in enumerate(("owner 0", "owner 6", "nobody")):
        table[place]["owner"] = owner
    bench.load("customers", table, COLUMNS)
    report = bench.run(sync)
    found = {email: customer["name"] for email, customer in shop.by_email().items()}
    assert found == {"c0@example.com": "o0", "c1@example.com": "o6"}
    assert [row.key for row in report.bad_rows] == ["2"]
    assert sum(reference in text for text in shop.operations) == (3 if reference == "owners" else 4)


def test_fields_and_account_are_what_the_api_says(bench: Bench, shop: Shop) -> None:
    sync = customers(bench, shop)
    assert "shop-1" in bench.account(sync)
    from integrations_dagster_tests.destinations.flows import answer, drive

    made = sync.destination.create()
    assert made.describes
    flow = made.fields("customers")
    request: Any = next(flow)
    body = json.loads(request.body)
    response = shop.serve(request, body)
    fields, _ = drive(made, made.fields("customers"), [answer(200, json.loads(bytes(response.body)))])
    told = {field.name: (field.type, field.native, field.required, field.options) for field in fields}
    assert told == {
        "email": (FieldType.STRING, "String!", True, ()),
        "name": (FieldType.STRING, "String", False, ()),
        "nick": (FieldType.STRING, "String", False, ()),
        "tier": (FieldType.ENUM, "Tier", False, ("FREE", "PAID")),
        "age": (FieldType.INTEGER, "Int", False, ()),
        "tags": (FieldType.JSON, "[String!]", False, ()),
        "since": (FieldType.TIMESTAMP, "DateTime", False, ()),
    }
    assert [field.name for field in fields if field.unique] == ["email"]


def test_a_field_that_the_api_has_not_stops_the_plan(bench: Bench, shop: Shop) -> None:
    sync = customers(bench, shop, fields=(FieldSpec("nmae", "name"),))
    bench.load("customers", rows(1), COLUMNS)
    with pytest.raises(Exception, match="nmae") as caught:
        bench.run(sync)
    assert "name" in str(caught.value)
    assert not shop.customers


def test_credentials_that_are_refused_stop_the_run(bench: Bench, shop: Shop) -> None:
    sync = customers(bench, shop, "shop_lists")
    bench.env["SHOP_TOKEN"] = "wrong"
    bench.load("customers", rows(5), COLUMNS)
    report = bench.run(sync)
    told = " ".join(report.failures)
    assert "credentials were not accepted" in told
    assert "wrong" not in told
    assert not shop.customers
