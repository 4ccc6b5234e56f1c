"""Tryton as a destination, over JSON-RPC and XML-RPC, with the YAML of the documentation."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from integrations_dagster.components.auth import read_auth
from integrations_dagster.destinations.registry import KINDS
from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.spec import DestinationSpec, FieldRule, FieldSpec, LookupSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.servers import ten_thousand
from integrations_dagster_tests.servers.install import missing
from integrations_dagster_tests.servers.tryton import Tryton, running_tryton
from integrations_dagster_tests.sync.harness import Bench

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(bool(missing("tryton")), reason=missing("tryton")),
]
DOCS = Path(__file__).parents[2] / "docs" / "destinations"
KINDS_OF_CALLS = ("jsonrpc", "xmlrpc")


@pytest.fixture
def tryton(bench: Bench) -> Iterator[Tryton]:
    """A server without parties, and its password where the destination looks for it."""
    folder = bench.folder / "tryton"
    folder.mkdir()
    with running_tryton(folder) as server:
        bench.env["TRYTON_PASSWORD"] = server.password
        yield server


def destination(kind: str, tryton: Tryton) -> DestinationSpec:
    """The destination of the documentation, at this server."""
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / f"{kind}.md").read_text("utf-8"), re.DOTALL)
    given = next(document for document in yaml.safe_load_all(blocks[0]) if document["type"].endswith("Destination"))
    attributes = given["attributes"]
    assert attributes["kind"] == kind
    options = KINDS[kind].options
    assert options is not None
    auth = read_auth(attributes["targets"]["sandbox"]["auth"])
    target = TargetSpec("sandbox", base_url=tryton.url, auth=auth)
    return DestinationSpec(
        "erp", kind, target, in_flight=2, option=options[1].model_validate(attributes["api"]), backoff=0.1
    )


def parties(kind: str, bench: Bench, tryton: Tryton, **changes: Any) -> SyncSpec:
    """Customers as parties: their email is the code, and the language of the active ones English."""
    model = bench.model("customers", "SELECT *, CASE WHEN active THEN 'en' ELSE 'fr' END AS language FROM customers")
    spec = SyncSpec(
        name="parties",
        model=model,
        destination=destination(kind, tryton),
        object="party.party",
        mode=Mode.MIRROR,
        match={"code": "email"},
        fields=(
            FieldSpec("name", "name"),
            FieldSpec("lang", "language", lookup="languages", rule=FieldRule(type="integer")),
        ),
        lookups=(LookupSpec("languages", reference="languages", key="code", value="id"),),
    )
    return dataclasses.replace(spec, **changes)


def done(report: RunReport) -> dict[Status, int]:
    """Outcomes that there are."""
    return {status: count for status, count in report.outcomes.items() if count}


def held(tryton: Tryton) -> Mapping[str, Mapping[str, Any]]:
    """What Tryton has: code to values."""
    languages = {record["id"]: record["code"] for record in tryton.read("ir.lang", ["code"])}
    records = tryton.read("party.party", ["code", "name", "lang"])
    found = {
        record["code"]: {"email": record["code"], "name": record["name"], "active": languages[record["lang"]] == "en"}
        for record in records
    }
    assert len(found) == len(records)
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS_OF_CALLS)
def test_ten_thousand_customers_are_written_changed_and_deleted(
    kind: str, bench: Bench, tryton: Tryton, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ten_thousand.check(
        bench, parties(kind, bench, tryton), lambda: held(tryton), columns=("email", "name", "active")
    )
    with capsys.disabled():
        print(f"\nTryton, {capsys.readouterr().out.strip()}")
    assert told.reports[0].outcomes[Status.CREATED] == ten_thousand.ROWS


@pytest.mark.parametrize("kind", KINDS_OF_CALLS)
def test_a_bad_row_is_found_in_a_batch_that_tryton_takes_whole_or_not_at_all(
    kind: str, bench: Bench, tryton: Tryton
) -> None:
    bad = {17, 18, 203}
    rows = [ten_thousand.customer(number) for number in range(250)]
    ten_thousand.load(bench, rows)
    # An identifier of a party is checked when it is made.
    identifier = '[["create", [{"type": "be_vat", "code": "BE0000000000"}]]]'
    sql = f"SELECT *, CASE WHEN id IN (17, 18, 203) THEN '{identifier}' END AS identifiers FROM customers"
    model = bench.model("with_identifiers", sql)
    sync = parties(
        kind,
        bench,
        tryton,
        model=model,
        lookups=(),
        fields=(FieldSpec("name", "name"), FieldSpec("identifiers", "identifiers", rule=FieldRule(type="json"))),
    )
    report = bench.run(sync)
    assert done(report) == {Status.CREATED: 247, Status.REJECTED: 3}
    wanted = {row["email"] for row in rows if row["id"] not in bad}
    assert {record["code"] for record in tryton.read("party.party", ["code"])} == wanted
    assert {json.loads(row.key)[0] if row.key.startswith("[") else row.key for row in report.bad_rows} == {
        str(number) for number in bad
    }
    assert all(
        "Tryton refused the row. The API says: The Belgian VAT Number" in reason for reason, _ in report.reasons
    ), report.reasons
    again = bench.run(sync)
    assert done(again) == {Status.REJECTED: 3}, "the others are known to be there"


@pytest.mark.parametrize("kind", KINDS_OF_CALLS)
def test_decimals_and_dates_arrive_in_the_types_that_tryton_asks_for(kind: str, bench: Bench, tryton: Tryton) -> None:
    wanted = {f"X{number:02}": Decimal(number * 7 + 1).scaleb(-2) for number in range(40)}
    columns = {"id": "BIGINT", "code": "VARCHAR", "rounding": "DECIMAL(9,2)", "since": "DATE"}
    since = {code: date(2026, 1, 1 + number % 28) for number, code in enumerate(wanted)}
    rows = [{"id": n, "code": c, "rounding": wanted[c], "since": since[c]} for n, c in enumerate(wanted)]
    bench.load("currencies", rows, columns)
    sync = parties(
        kind,
        bench,
        tryton,
        object="currency.currency",
        model=bench.model("currencies", "SELECT * FROM currencies"),
        lookups=(),
        match={"code": "code"},
        fields=(FieldSpec("name", "code"), FieldSpec("symbol", "code"), FieldSpec("rounding", "rounding")),
    )
    report = bench.run(sync)
    assert done(report) == {Status.CREATED: 40}, report.reasons
    found = tryton.read("currency.currency", ["code", "rounding"])
    assert {record["code"]: Decimal(record["rounding"]["decimal"]) for record in found} == wanted
    ids = {record["code"]: str(record["id"]) for record in found}
    bench.load("rates", [row | {"currency": ids[row["code"]]} for row in rows], columns | {"currency": "VARCHAR"})
    rates = parties(
        kind,
        bench,
        tryton,
        name="rates",
        object="currency.currency.rate",
        mode=Mode.APPEND,
        model=bench.model("rates", "SELECT * FROM rates"),
        lookups=(),
        match={},
        fields=(
            FieldSpec("currency", "currency", rule=FieldRule(type="integer")),
            FieldSpec("rate", "rounding"),
            FieldSpec("date", "since"),
        ),
    )
    assert done(bench.run(rates)) == {Status.CREATED: 40}
    records = tryton.read("currency.currency.rate", ["currency", "rate", "date"])
    by_id = {int(id_): code for code, id_ in ids.items()}
    dates = {by_id[r["currency"]]: date(r["date"]["year"], r["date"]["month"], r["date"]["day"]) for r in records}
    assert dates == since
    assert {by_id[r["currency"]]: Decimal(r["rate"]["decimal"]) for r in records} == wanted


@pytest.mark.parametrize("kind", KINDS_OF_CALLS)
def test_a_session_that_has_ended_is_opened_anew(kind: str, bench: Bench, tryton: Tryton) -> None:
    ten_thousand.load(bench, [ten_thousand.customer(number) for number in range(10)])
    sync = parties(kind, bench, tryton)
    assert done(bench.run(sync)) == {Status.CREATED: 10}
    tryton.end_sessions()
    renamed = [ten_thousand.customer(number) | {"name": f"New {number}"} for number in range(10)]
    ten_thousand.load(bench, renamed)

    report = bench.run(sync)
    assert done(report) == {Status.UPDATED: 10}
