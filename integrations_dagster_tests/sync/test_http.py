"""The two APIs of docs/destinations/http.md, delivered to by the YAML of that page, over real HTTP."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from integrations_dagster.components import Destination
from integrations_dagster.sync.record import record
from integrations_dagster.sync.references import read_reference
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, LookupSpec, SyncSpec
from integrations_dagster.vocabulary import Misconfigured, Mode, Status
from integrations_dagster_tests.http_apis import Api, Contacts, Imports, Stockroom, on, served
from integrations_dagster_tests.sync.harness import Bench
from integrations_dagster_tests.sync.test_takeover import Writer, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "destinations" / "http.md"
MOST_LINES = 30
COLUMNS = {"id": "INTEGER", "sku": "VARCHAR", "name": "VARCHAR", "shelf": "VARCHAR", "price": "DECIMAL(9,2)"}


def example(name: str) -> str:
    """The YAML of a destination in the docs page."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if f"\n  name: {name}\n" in block]
    return str(found)


def destination(name: str, url: str) -> DestinationSpec:
    """The destination of the docs page, at the address of a server of this test."""
    text = re.sub(r'base_url: "http://127.0.0.1:\d+', f'base_url: "{url}', example(name))
    assert url in text
    component: Destination = Destination.resolve_from_yaml("\n".join(line[2:] for line in text.splitlines()[2:]))
    spec = component.spec("sandbox")
    return dataclasses.replace(spec, timeout=5.0, in_flight=4)


@pytest.mark.parametrize("name", ["stockroom", "imports"])
def test_the_examples_are_short(name: str) -> None:
    lines = [line for line in example(name).splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES


@pytest.fixture
def stockroom() -> Iterator[Stockroom]:
    api = Stockroom()
    with served(api.app()) as url:
        api.url = url
        yield api


@pytest.fixture
def imports() -> Iterator[Imports]:
    api = Imports()
    with served(api.app()) as url:
        api.url = url
        yield api


def articles(bench: Bench, api: Api, mode: Mode = Mode.MIRROR, **changes: Any) -> SyncSpec:
    bench.env["STOCKROOM_KEY"] = Stockroom.KEY
    spec = SyncSpec(
        name="articles",
        model=bench.model("articles", "SELECT * FROM articles"),
        destination=destination("stockroom", api.url),
        object="articles",
        mode=mode,
        match={"sku": "sku"},
        fields=(FieldSpec("name", "name"), FieldSpec("price", "price")),
        removal_limit=1.0,
        source="defs/articles/defs.yaml:1",
    )
    return dataclasses.replace(spec, **changes)


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    made = [{"id": i, "sku": f"sku-{i}", "name": f"Name {i} ü", "price": f"{i}.50"} for i in range(count)]
    return [{**row, **changes} for row in made]


def test_create_change_rename_and_remove(bench: Bench, stockroom: Stockroom) -> None:
    sync = articles(bench, stockroom)
    bench.load("articles", rows(250), COLUMNS)
    report = bench.run(sync)
    assert not report.failures
    assert report.outcomes[Status.CREATED] == 250
    assert {sku: a["name"] for sku, a in stockroom.by_sku().items()} == {r["sku"]: r["name"] for r in rows(250)}
    assert stockroom.by_sku()["sku-7"]["price"] == "7.50"
    assert max(len(body) for body in stockroom.bodies) < 100 * 100
    assert sum(method == "POST" for method, _ in stockroom.asked) == 3

    sent = len(stockroom.asked)
    assert not bench.run(sync).failures
    assert len(stockroom.asked) == sent, "a run with nothing to do sends nothing"

    changed = rows(240)
    changed[3]["name"] = "Another"
    changed[4]["sku"] = "sku-renamed"
    before = stockroom.by_sku()["sku-4"]
    bench.load("articles", changed, COLUMNS)
    report = bench.run(sync)
    assert not report.failures
    assert (report.outcomes[Status.UPDATED], report.outcomes[Status.DELETED]) == (2, 10)
    held = stockroom.by_sku()
    assert set(held) == {row["sku"] for row in changed}
    assert held["sku-3"]["name"] == "Another"
    assert held["sku-renamed"] is before, "renamed by its id, not made anew"


@pytest.mark.slow
def test_a_match_value_that_changes_without_an_update_by_id(bench: Bench, stockroom: Stockroom) -> None:
    """The row is written as another record, and the one it left is removed."""
    sync = articles(bench, stockroom)
    option = sync.destination.option
    form = option.objects["articles"].model_copy(update={"update": None})
    option = option.model_copy(update={"objects": {"articles": form}})
    sync = dataclasses.replace(sync, destination=dataclasses.replace(sync.destination, option=option))
    bench.load("articles", rows(3), COLUMNS)
    assert not bench.run(sync).failures
    changed = rows(3)
    changed[1]["sku"] = "sku-new"
    bench.load("articles", changed, COLUMNS)
    assert not bench.run(sync).failures
    assert "sku-new" in stockroom.by_sku()
    assert not bench.run(sync).failures
    assert set(stockroom.by_sku()) == {"sku-0", "sku-new", "sku-2"}
    sent = len(stockroom.asked)
    assert not bench.run(sync).failures
    assert len(stockroom.asked) == sent


def test_rows_that_are_refused_inside_a_200(bench: Bench, stockroom: Stockroom) -> None:
    sync = articles(bench, stockroom)
    table = rows(120)
    for place in (5, 17, 119):
        table[place]["name"] = f"bad {place}"
    bench.load("articles", table, COLUMNS)
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.REJECTED]) == (117, 3)
    assert {row.key: (row.code, row.reason) for row in report.bad_rows} == {
        str(place): ("BAD_NAME", f"stockroom says: 'bad {place}' is no name.") for place in (5, 17, 119)
    }
    assert set(stockroom.by_sku()) == {row["sku"] for row in table if not row["name"].startswith("bad")}


def test_a_lookup_reads_all_pages_of_a_cursor(bench: Bench, stockroom: Stockroom) -> None:
    lookup = LookupSpec("shelves", reference="shelves", key="label", value="id")
    fields = (FieldSpec("shelf", "shelf", lookup="shelves"),)
    sync = articles(bench, stockroom, fields=fields, lookups=(lookup,))
    table = rows(3)
    for place, shelf in enumerate(("Shelf 0", "Shelf 6", "No shelf")):
        table[place]["shelf"] = shelf
    bench.load("articles", table, COLUMNS)
    report = bench.run(sync)
    assert {sku: article["shelf"] for sku, article in stockroom.by_sku().items()} == {"sku-0": "s0", "sku-1": "s6"}
    assert [row.key for row in report.bad_rows] == ["2"]
    pages = [path for method, path in stockroom.asked if method == "GET"]
    assert pages == ["/v2/shelves", "/v2/shelves?after=3", "/v2/shelves?after=6"]


def test_throttling_outage_and_garbage(bench: Bench, stockroom: Stockroom) -> None:
    """Each is survived, and no row is lost or taken for delivered."""
    sync = articles(bench, stockroom)
    bench.load("articles", rows(30), COLUMNS)
    path = "/v2/articles"
    stockroom.faults += on(
        "POST", path, PlainTextResponse("slow down", 429, {"Retry-After": "0"}), PlainTextResponse("", 503)
    )
    # The rows are taken, and the answer is lost: they are sent again, for an upsert may be repeated.
    stockroom.after += on("POST", path, PlainTextResponse("<html>"))
    report = bench.run(sync)
    assert not report.failures
    assert set(stockroom.by_sku()) == {row["sku"] for row in rows(30)}
    assert report.traffic.throttled == 1
    assert report.traffic.retries == 2


def test_a_lasting_outage_leaves_rows_unsent_and_says_so(bench: Bench, stockroom: Stockroom) -> None:
    sync = articles(bench, stockroom)
    bench.load("articles", rows(5), COLUMNS)
    down = JSONResponse({"error": {"code": "DOWN", "message": "Back at noon."}}, 503)
    stockroom.faults += on("POST", "/v2/articles", *[down] * 9)
    report = bench.run(sync)
    assert report.outcomes[Status.UNSENT] == 5
    assert any("stockroom says: Back at noon." in failure for failure in report.failures)
    stockroom.faults.clear()
    assert not bench.run(sync).failures
    assert len(stockroom.articles) == 5


def test_credentials_that_are_refused_stop_the_run(bench: Bench, stockroom: Stockroom) -> None:
    sync = articles(bench, stockroom)
    bench.env["STOCKROOM_KEY"] = "wrong"
    bench.load("articles", rows(5), COLUMNS)
    report = bench.run(sync)
    told = " ".join(report.failures)
    assert "credentials were not accepted" in told
    assert "stockroom says: Who are you?" in told
    assert "wrong" not in told
    assert not stockroom.articles


@pytest.mark.slow
def test_a_record_that_someone_deleted_is_made_again(bench: Bench, stockroom: Stockroom) -> None:
    sync = articles(bench, stockroom)
    bench.load("articles", rows(2), COLUMNS)
    bench.run(sync)
    gone = next(id_ for id_, article in stockroom.articles.items() if article["sku"] == "sku-1")
    del stockroom.articles[gone]
    table = rows(2)
    table[1]["sku"] = "sku-new"
    bench.load("articles", table, COLUMNS)
    report = bench.run(sync)
    assert [row.code for row in report.bad_rows] == ["gone"]
    assert not bench.run(sync).failures
    assert set(stockroom.by_sku()) == {"sku-0", "sku-new"}


PEOPLE = {"id": "INTEGER", "email": "VARCHAR"}


def customers(bench: Bench, api: Api, **changes: Any) -> SyncSpec:
    bench.env["IMPORTS_PASSWORD"] = Imports.PASSWORD
    spec = SyncSpec(
        name="customers",
        model=bench.model("people", "SELECT * FROM people"),
        destination=destination("imports", api.url),
        object="customers",
        mode=Mode.MIRROR,
        fields=(FieldSpec("email", "email"),),
        removal_limit=1.0,
        source="defs/customers/defs.yaml:1",
    )
    return dataclasses.replace(spec, **changes)


def people(count: int) -> list[dict[str, Any]]:
    return [{"id": place, "email": f"p{place}@example.com"} for place in range(count)]


def test_rows_that_go_by_job(bench: Bench, imports: Imports) -> None:
    sync = customers(bench, imports)
    table = people(130)
    table[7]["email"] = None
    bench.load("people", table, PEOPLE)
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.REJECTED]) == (129, 1)
    (bad,) = report.bad_rows
    assert (bad.key, bad.code, bad.reason) == ("7", "NO_EMAIL", "imports says: Customer 7 has no email.")
    assert {key: kept["email"] for key, kept in imports.customers.items()} == {
        str(row["id"]): row["email"] for row in table if row["email"]
    }
    pages = [path for _, path in imports.asked if "/rows" in path]
    assert len(pages) == 4
    assert pages[-1].endswith("?from=120")

    table = people(100)
    table[3]["email"] = "new@example.com"
    bench.load("people", table, PEOPLE)
    report = bench.run(sync)
    assert not report.failures
    assert report.outcomes[Status.DELETED] == 30
    assert len(imports.customers) == 100
    assert imports.customers["3"]["email"] == "new@example.com"


def test_a_job_is_asked_for_again_and_not_submitted_again(bench: Bench, imports: Imports) -> None:
    """Once the job has a name, an outage of the server costs questions, and no second submission."""
    sync = customers(bench, imports)
    bench.load("people", people(10), PEOPLE)
    imports.after += on("GET", "/imports/job", PlainTextResponse("<html>"), PlainTextResponse("", 502))
    report = bench.run(sync)
    assert not report.failures
    assert [path for method, path in imports.asked if method == "POST"] == ["/imports"]
    assert len(imports.customers) == 10


@pytest.mark.slow
def test_a_job_that_fails_leaves_its_rows_unknown(bench: Bench, imports: Imports) -> None:
    sync = customers(bench, imports)
    bench.load("people", people(3), PEOPLE)
    imports.broken = True
    report = bench.run(sync)
    assert report.outcomes[Status.UNSENT] == 3
    imports.broken = False
    assert not bench.run(sync).failures
    assert len(imports.customers) == 3


CONTACTS = """
name: contacts_api
kind: http
timeout: 1
targets: {sandbox: {base_url: URL}}
api:
  errors: {404: missing}
  objects:
    contacts:
      match: {email: trim_lower}
      search: {request: GET /contacts, query: {email: "{match}"}, records: data, id: id, by: {match: email}}
      create: {request: POST /contacts, body: "{record}", answer: {id: id}}
      update: {request: "PATCH /contacts/{id}", body: "{record}", answer: all_rows}
      delete: {request: "DELETE /contacts/{id}", answer: all_rows}
"""


@pytest.fixture
def contacts() -> Iterator[Contacts]:
    api = Contacts()
    with served(api.app()) as url:
        api.url = url
        yield api


def searched(bench: Bench, api: Api, mode: Mode = Mode.MIRROR) -> SyncSpec:
    component: Destination = Destination.resolve_from_yaml(CONTACTS.replace("URL", api.url))
    return bench.contacts(
        bench.model("people", "SELECT * FROM people"),
        mode,
        destination=component.spec("sandbox"),
        fields=(FieldSpec("firstname", "firstname"),),
        removal_limit=1.0,
    )


NAMED = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"}


def named(*names: str) -> list[dict[str, Any]]:
    return [{"id": i, "email": f"P{i}@example.com", "firstname": name} for i, name in enumerate(names)]


def held(api: Contacts) -> dict[str, str]:
    assert len({kept["email"] for kept in api.contacts.values()}) == len(api.contacts), "a record is there twice"
    return {kept["email"]: kept["firstname"] for kept in api.contacts.values()}


def test_an_api_without_upsert_is_searched_first(bench: Bench, contacts: Contacts) -> None:
    contacts.contacts["x"] = {"email": "p1@example.com", "firstname": "Old"}
    sync = searched(bench, contacts)
    bench.load("people", named("Ann", "Bob", "Cy"), NAMED)
    report = bench.run(sync)
    assert not report.failures
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.UPDATED]) == (2, 1)
    assert held(contacts) == {"p0@example.com": "Ann", "p1@example.com": "Bob", "p2@example.com": "Cy"}
    asked = len(contacts.asked)
    bench.load("people", named("Anna", "Bob"), NAMED)
    assert not bench.run(sync).failures
    assert held(contacts) == {"p0@example.com": "Anna", "p1@example.com": "Bob"}
    assert sorted(method for method, _ in contacts.asked[asked:]) == ["DELETE", "PATCH"], "ids are known by now"


def test_a_creation_whose_answer_is_lost_is_looked_for_once_it_can_take_effect_no_more(
    bench: Bench, contacts: Contacts
) -> None:
    """It takes effect after its answer was lost: whoever looked at once would find nothing, and create it twice."""
    contacts.slow = 0.5
    sync = searched(bench, contacts, Mode.UPSERT)
    bench.load("people", named("Ann"), NAMED)
    report = bench.run(sync)
    assert not report.failures
    assert report.outcomes[Status.UPDATED] == 1
    assert [method for method, _ in contacts.asked] == ["GET", "POST", "GET", "PATCH"]
    assert held(contacts) == {"p0@example.com": "Ann"}


def test_a_second_attempt_at_a_shard_waits_before_it_searches(bench: Bench, contacts: Contacts) -> None:
    """A write step was killed while its creation was on the way; the step that follows must not look too early."""
    contacts.delay = 0.5
    sync = searched(bench, contacts, Mode.UPSERT)
    bench.load("people", named("Ann"), NAMED)
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    first = Writer(sync, ctx, made)
    wait_until(lambda: contacts.delayed == 1)
    second = Writer(sync, ctx, made)
    first.join()
    second.join()
    assert (first.error, second.error) == (None, None)
    assert held(contacts) == {"p0@example.com": "Ann"}
    assert not record(sync, ctx, made, [second.summary] if second.summary else []).failures


def test_a_creation_in_doubt_is_found_by_the_search(bench: Bench, contacts: Contacts) -> None:
    contacts.slow = 0.2
    sync = searched(bench, contacts, Mode.INSERT)
    bench.load("people", named("Ann"), NAMED)
    report = bench.run(sync)
    assert report.outcomes[Status.IN_DOUBT] == 1
    report = bench.run(sync)
    assert not report.failures
    assert bench.doubtful(sync) == []
    assert held(contacts) == {"p0@example.com": "Ann"}


def test_an_address_of_another_host_is_refused(bench: Bench, stockroom: Stockroom, contacts: Contacts) -> None:
    """A next page must not carry the credentials elsewhere."""
    spec = destination("stockroom", stockroom.url)
    paging = spec.option.references["shelves"].next.model_copy(update={"cursor": None, "param": None, "url": "next"})
    reference = spec.option.references["shelves"].model_copy(update={"next": paging})
    option = spec.option.model_copy(update={"references": {"shelves": reference}})
    spec = dataclasses.replace(spec, option=option)
    bench.env["STOCKROOM_KEY"] = Stockroom.KEY
    stockroom.faults += on("GET", "/v2/shelves", JSONResponse({"data": [], "next": f"{contacts.url}/contacts"}))
    with pytest.raises(Misconfigured, match="another host"):
        read_reference(spec, bench.context(), "shelves", ["id"], max_age=None, who="A test")
    assert not contacts.asked
    stockroom.faults += on("GET", "/v2/shelves", JSONResponse({"data": [], "next": "/v2/shelves?after=6"}))
    assert read_reference(spec, bench.context(), "shelves", ["id"], max_age=None, who="A test").version.rows == 1
