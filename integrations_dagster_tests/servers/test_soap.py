"""Salesforce's Partner WSDL, served by the npm package `soap`, as a destination with the YAML of the documentation."""

from __future__ import annotations

import dataclasses
import gzip
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from integrations_dagster.components.auth import read_auth
from integrations_dagster.destinations.soap.forms import SoapApi
from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.spec import DestinationSpec, FieldRule, FieldSpec, LookupSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.servers import ten_thousand
from integrations_dagster_tests.servers.install import missing
from integrations_dagster_tests.servers.partner import WSDL, Partner, running_partner, specs
from integrations_dagster_tests.sync.harness import Bench

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(bool(missing("soap")), reason=missing("soap")),
    pytest.mark.skipif(specs() is None, reason=f"INTEGRATIONS_SPECS names no folder with {WSDL}"),
]
PAGE = Path(__file__).parents[2] / "docs" / "destinations" / "soap.md"
FIELDS = {"LastName": "name", "Amount__c": "amount", "Active__c": "active", "Birthdate": "born", "Note__c": "note"}


@pytest.fixture(scope="module")
def server() -> Iterator[Partner]:
    folder = specs()
    assert folder is not None
    with running_partner(folder) as partner:
        yield partner


@pytest.fixture
def partner(server: Partner, bench: Bench) -> Partner:
    """The server without records or sessions."""
    bench.env["SALESFORCE_PASSWORD"] = server.control(clear=True)["password"]
    return server


def destination(partner: Partner) -> DestinationSpec:
    """The destination of the documentation, at this server."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    documents = [document for block in blocks for document in yaml.safe_load_all(block)]
    attributes = next(d["attributes"] for d in documents if d.get("attributes", {}).get("kind") == "soap")
    folder = specs()
    assert folder is not None
    api = attributes["api"] | {"wsdl": WSDL}
    # The page asks for patience that a test has not.
    api["errors"] = api["errors"] | {"REQUEST_LIMIT_EXCEEDED": {"as": "throttled", "wait": "0.2s"}}
    option = SoapApi.model_validate(api, context={"read": lambda path: (folder / path).read_bytes()})
    target = TargetSpec("sandbox", base_url=partner.url, auth=read_auth(attributes["targets"]["sandbox"]["auth"]))
    return DestinationSpec("crm", "soap", target, in_flight=4, option=option, backoff=0.1)


def contacts(bench: Bench, partner: Partner, **changes: Any) -> SyncSpec:
    spec = SyncSpec(
        name="contacts",
        model=ten_thousand.model(bench),
        destination=destination(partner),
        object="Contact",
        mode=Mode.MIRROR,
        match={"Ext__c": "email"},
        fields=tuple(FieldSpec(name, column, rule=FieldRule(nulls="clear")) for name, column in FIELDS.items()),
    )
    return dataclasses.replace(spec, **changes)


def held(partner: Partner) -> Mapping[str, Mapping[str, Any]]:
    """What the server has: external id to values, by the names of the model."""
    records = partner.read("Contact", ["Ext__c", *FIELDS])
    found = {}
    for record in records:
        values: dict[str, Any] = {column: record[name] for name, column in FIELDS.items()}
        values["amount"] = Decimal(values["amount"])
        found[record["Ext__c"] or ""] = {"email": record["Ext__c"], **values}
    assert len(found) == len(records)
    return found


def done(report: RunReport) -> dict[Status, int]:
    return {status: count for status, count in report.outcomes.items() if count}


def test_ten_thousand_customers_are_written_changed_and_deleted(
    bench: Bench, partner: Partner, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ten_thousand.check(bench, contacts(bench, partner), lambda: held(partner))
    with capsys.disabled():
        print(f"\nPartner WSDL on npm soap, {capsys.readouterr().out.strip()}")
    assert told.reports[0].outcomes[Status.CREATED] == ten_thousand.ROWS
    counted = partner.control()
    assert counted["most"] == 200
    assert counted["calls"]["upsert"] < 60


def test_refused_rows_among_others_sessions_that_end_and_limits(bench: Bench, partner: Partner) -> None:
    rows = [ten_thousand.customer(number) for number in range(600)]
    for number in (3, 250, 599):
        rows[number]["name"] = f"bad {number}"
    ten_thousand.load(bench, rows)
    # The description of fields and the first batch are let in; then the session has ended.
    partner.control(after=2)
    sync = contacts(bench, partner, destination=dataclasses.replace(destination(partner), in_flight=1))
    report = bench.run(sync)
    assert done(report) == {Status.CREATED: 597, Status.REJECTED: 3}, report.failures
    assert {row.key: row.code for row in report.bad_rows} == dict.fromkeys(
        ("3", "250", "599"), "FIELD_CUSTOM_VALIDATION_EXCEPTION"
    )
    assert {row.reason for row in report.bad_rows} == {
        f"Salesforce says: Last Name: bad {number} is no name" for number in (3, 250, 599)
    }
    assert partner.control()["logins"] >= 2
    partner.control(faults=["upsert:REQUEST_LIMIT_EXCEEDED", "upsert:SERVER_UNAVAILABLE"])
    for row in rows:
        row["name"] = str(row["name"]).replace("bad", "good")
        row["note"] = None
    ten_thousand.load(bench, rows)
    report = bench.run(sync)
    assert not report.failures, report.failures
    assert report.traffic.errors == {"throttled": 1, "unavailable": 1}
    assert {email: (r["name"], r["note"]) for email, r in held(partner).items()} == {
        row["email"]: (row["name"], None) for row in rows
    }


def test_no_session_is_in_the_request_log(bench: Bench, partner: Partner) -> None:
    ten_thousand.load(bench, [ten_thousand.customer(number) for number in range(20)])
    target = dataclasses.replace(destination(partner), log_bodies="all")
    assert done(bench.run(contacts(bench, partner, destination=target))) == {Status.CREATED: 20}
    session = partner.control()["session"]
    logs = [gzip.decompress(path.read_bytes()).decode() for path in bench.folder.rglob("requests-*.jsonl.gz")]
    assert any("SessionHeader" in log for log in logs), "bodies are logged"
    assert session.startswith("00D")
    for log in logs:
        assert "secret" not in log
        assert session not in log


def test_a_lookup_reads_page_after_page_by_query_more(bench: Bench, partner: Partner) -> None:
    ten_thousand.load(bench, [ten_thousand.customer(number) for number in range(2100)])
    ids = partner.users([f"user{number}@example.com" for number in range(2100)])
    lookup = LookupSpec("users", reference="users", key="username", value="id")
    fields = (FieldSpec("LastName", "name"), FieldSpec("OwnerId", "email", lookup="users"))
    report = bench.run(contacts(bench, partner, fields=fields, lookups=(lookup,)))
    assert done(report) == {Status.CREATED: 2100}, report.reasons
    owners = {record["Ext__c"]: record["OwnerId"] for record in partner.read("Contact", ["Ext__c", "OwnerId"])}
    assert owners == ids
