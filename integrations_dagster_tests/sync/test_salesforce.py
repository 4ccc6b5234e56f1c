"""Whole syncs to the sandbox's Salesforce, in each mode, with faults, locked rows, limits and tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from joserfc import jwk

from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sync.spec import AuthSpec, DestinationSpec, Env, FieldRule, FieldSpec, LookupSpec, SyncSpec
from integrations_dagster.sync.spec import TargetSpec as Target
from integrations_dagster.vocabulary import Misconfigured, Mode, Status
from integrations_dagster_tests.sync.harness import Bench

FIELD = "Customer_Id__c"
COLLECTIONS = "/services/data/v66.0/composite/sobjects*"
COLUMNS = {"id": "INTEGER", "ref": "VARCHAR", "name": "VARCHAR", "email": "VARCHAR", "ltv": "DECIMAL(12,2)",
           "day": "DATE", "paying": "BOOLEAN", "account": "VARCHAR"}  # fmt: skip
FIELDS = (
    FieldSpec("LastName", "name"),
    FieldSpec("Email", "email"),
    FieldSpec("Lifetime_Value__c", "ltv"),
    FieldSpec("Last_Order__c", "day"),
    FieldSpec("Subscriber__c", "paying"),
)


def person(number: int, **changes: Any) -> dict[str, Any]:
    row = {"id": number, "ref": f"C-{number}", "name": f"Náme {number}", "email": f"p{number}@example.com",
           "ltv": f"{number}.50", "day": "2026-08-01", "paying": number % 2 == 0}  # fmt: skip
    return row | changes


def load(bench: Bench, rows: Iterable[Mapping[str, Any]]) -> None:
    bench.load("people", list(rows), COLUMNS)


def crm(**changes: Any) -> DestinationSpec:
    spec = DestinationSpec("crm", "salesforce", Target("sandbox", sandbox=True), 5.0, 4)
    return dataclasses.replace(spec, **changes)


def contacts(bench: Bench, mode: Mode = Mode.UPSERT, **changes: Any) -> SyncSpec:
    spec = bench.contacts(bench.model("people", "SELECT * FROM people"), mode)
    whole: dict[str, Any] = {"destination": crm(), "object": "Contact", "match": {FIELD: "ref"}, "fields": FIELDS}
    whole["removal_limit"] = 1_000.0 if mode is Mode.DELETE else 1.0
    return dataclasses.replace(spec, **(whole | changes))


def held(bench: Bench, field: str = "LastName") -> dict[str, Any]:
    """What Salesforce holds: customer id to a field."""
    return {r["fields"][FIELD]: r["fields"].get(field) for r in bench.client.salesforce_records("Contact")}


def outcomes(report: Any) -> dict[str, int]:
    return {str(status): count for status, count in report.outcomes.items() if count}


def lock(bench: Bench, *names: str, times: int = 1) -> None:
    """Each of the named rows is locked for the first requests that hold it."""
    fault = {"kind": "reject_rows", "code": "UNABLE_TO_LOCK_ROW", "message": "unable to obtain exclusive access"}
    bench.client.faults(
        [{"match": {"path": COLLECTIONS, "rows_with": n}, "times": times, "fault": fault | {"with": n}} for n in names]
    )


def test_upsert_change_and_nothing_to_do(bench: Bench) -> None:
    load(bench, [person(i) for i in range(450)])
    sync = contacts(bench, shards=1)
    assert outcomes(bench.run(sync)) == {"created": 450}
    (first,) = (r for r in bench.client.salesforce_records("Contact") if r["fields"][FIELD] == "C-0")
    assert first["fields"] == {
        FIELD: "C-0", "LastName": "Náme 0", "Email": "p0@example.com", "Lifetime_Value__c": 0.5,
        "Last_Order__c": "2026-08-01", "Subscriber__c": True,
    }  # fmt: skip
    load(bench, [person(i, name=f"New {i}" if i < 10 else f"Náme {i}") for i in range(450)])
    assert outcomes(bench.run(sync)) == {"updated": 10}
    since = bench.client.last_seq()
    assert outcomes(bench.run(sync)) == {}
    assert bench.client.received(since=since) == []
    assert held(bench) == {f"C-{i}": f"New {i}" if i < 10 else f"Náme {i}" for i in range(450)}


def test_rows_that_fail_are_told_and_the_others_are_delivered(bench: Bench) -> None:
    bad: dict[int, dict[str, Any]] = {3: {"email": "nobody"}, 4: {"name": None}, 5: {"name": "x" * 81}}
    load(bench, [person(i, **bad.get(i, {})) for i in range(20)])
    report = bench.run(contacts(bench))
    assert outcomes(report) == {"created": 17, "rejected": 3}
    told = {row.key: row.reason for row in report.bad_rows}
    assert told["3"] == "The email address is invalid (Email). Salesforce says: Email: invalid email address: nobody."
    assert told["4"].startswith("A required field has no value (LastName).")
    assert told["5"].startswith("The text is longer than the field holds (LastName).")


def test_a_value_that_refuses_its_whole_request_is_found(bench: Bench) -> None:
    bench.client.define_salesforce("Contact", "Score__c", "double")
    load(bench, [person(i, account="many" if i == 7 else str(i)) for i in range(20)])
    report = bench.run(contacts(bench, fields=(*FIELDS, FieldSpec("Score__c", "account"))))
    assert outcomes(report) == {"created": 19, "rejected": 1}
    assert [row.key for row in report.bad_rows] == ["7"]


def test_a_mirror_removes_and_renames(bench: Bench) -> None:
    load(bench, [person(i) for i in range(30)])
    sync = contacts(bench, Mode.MIRROR)
    bench.run(sync)
    ids = {r["fields"][FIELD]: r["id"] for r in bench.client.salesforce_records("Contact")}
    load(bench, [person(i, ref=f"N-{i}" if i < 3 else f"C-{i}") for i in range(20)])
    assert outcomes(bench.run(sync)) == {"updated": 3, "deleted": 10}
    after = {r["fields"][FIELD]: r["id"] for r in bench.client.salesforce_records("Contact")}
    assert after == {f"{'N' if i < 3 else 'C'}-{i}": ids[f"C-{i}"] for i in range(20)}


@pytest.mark.slow
def test_a_record_that_is_gone_is_created_again(bench: Bench) -> None:
    load(bench, [person(i) for i in range(5)])
    sync = contacts(bench)
    bench.run(sync)
    bench.client.faults([])
    delete(bench, "C-2")
    load(bench, [person(i, ref=f"N-{i}") for i in range(5)])
    assert outcomes(bench.run(sync)) == {"updated": 4, "rejected": 1}
    assert outcomes(bench.run(sync)) == {"created": 1}
    assert set(held(bench)) == {f"N-{i}" for i in range(5)}


def delete(bench: Bench, ref: str) -> None:
    """Delete a record as a person would."""
    import requests

    (id_,) = (r["id"] for r in bench.client.salesforce_records("Contact") if r["fields"][FIELD] == ref)
    url = f"{bench.endpoint.url}/services/data/v66.0/composite/sobjects?ids={id_}"
    answer = requests.delete(url, headers={"Authorization": f"Bearer {bench.endpoint.token}"}, timeout=10)
    assert answer.json()[0]["success"]


@pytest.mark.slow
def test_mode_update_creates_nothing(bench: Bench) -> None:
    load(bench, [person(i) for i in range(10)])
    bench.run(contacts(bench, name="seed"))
    load(bench, [person(i, name="new") for i in range(15)])
    sync = contacts(bench, Mode.UPDATE, name="update")
    assert outcomes(bench.run(sync)) == {"updated": 10, "rejected": 5}
    assert held(bench) == {f"C-{i}": "new" for i in range(10)}


@pytest.mark.slow
def test_mode_update_and_delete_by_record_id(bench: Bench) -> None:
    ids = [bench.client.create_salesforce("Contact", LastName="old", Customer_Id__c=f"C-{i}") for i in range(3)]
    load(bench, [person(i, ref=id_) for i, id_ in enumerate(ids)])
    by_id: dict[str, Any] = {"match": {"Id": "ref"}, "fields": (FieldSpec("LastName", "name"),)}
    since = bench.client.last_seq()
    assert outcomes(bench.run(contacts(bench, Mode.UPDATE, **by_id))) == {"updated": 3}
    assert held(bench) == {f"C-{i}": f"Náme {i}" for i in range(3)}
    load(bench, [person(0, ref=ids[0])])
    assert outcomes(bench.run(contacts(bench, Mode.DELETE, name="ends", match={"Id": "ref"}, fields=()))) == {
        "deleted": 1
    }
    assert set(held(bench)) == {"C-1", "C-2"}
    assert not [r for r in bench.client.received(since=since) if r["path"].endswith("/query")]


@pytest.mark.slow
def test_mode_delete_looks_records_up(bench: Bench) -> None:
    load(bench, [person(i) for i in range(300)])
    bench.run(contacts(bench, name="seed"))
    load(bench, [person(i) for i in range(100, 400)])
    assert outcomes(bench.run(contacts(bench, Mode.DELETE, name="ends", fields=()))) == {"deleted": 300}
    assert set(held(bench)) == {f"C-{i}" for i in range(100)}


# Faults


@pytest.mark.quick(1)
@pytest.mark.parametrize("mode", [Mode.UPSERT, Mode.MIRROR])
def test_locked_rows_are_delivered_in_the_same_run(bench: Bench, mode: Mode) -> None:
    load(bench, [person(i) for i in range(40)])
    lock(bench, 'C-7"', 'C-17"', 'C-27"')
    report = bench.run(contacts(bench, mode, shards=4))
    assert outcomes(report) == {"created": 40}
    assert set(held(bench)) == {f"C-{i}" for i in range(40)}
    assert {r["writes"] for r in bench.client.salesforce_records("Contact")} == {1}


@pytest.mark.slow
def test_a_row_that_stays_locked_is_tried_again_by_the_next_run(bench: Bench) -> None:
    load(bench, [person(i) for i in range(3)])
    lock(bench, 'C-1"', times=3)
    sync = contacts(bench)
    report = bench.run(sync)
    assert outcomes(report) == {"created": 2, "rejected": 1}
    assert report.bad_rows[0].code == "UNABLE_TO_LOCK_ROW"
    assert outcomes(bench.run(sync)) == {"created": 1}


FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "reset", "applied": True},
    {"kind": "malformed"},
    {"kind": "reset"},
    {"kind": "truncated"},
    {"kind": "empty", "applied": True},
    {"kind": "status", "status": 503, "retry_after": 1},
    {"kind": "status", "status": 500},
    {"kind": "html", "status": 502},
    {"kind": "unauthorized"},
)


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("mode", "fault"),
    [
        pytest.param(mode, fault, marks=() if index < 2 else pytest.mark.slow, id=f"{mode}-{fault['kind']}-{index}")
        for mode in (Mode.MIRROR, Mode.DELETE)
        for index, fault in enumerate(FAULTS)
    ],
)
def test_an_outage_loses_and_doubles_nothing(bench: Bench, mode: Mode, fault: dict[str, Any]) -> None:
    load(bench, [person(i) for i in range(20)])
    bench.run(contacts(bench, name="seed"))
    # A token that does not change is refused for good the second time.
    times = 1 if fault["kind"] == "unauthorized" else 2
    bench.client.faults([{"match": {"path": COLLECTIONS}, "times": times, "fault": fault}])
    load(bench, [person(i) for i in range(10, 30)])
    report = bench.run(contacts(bench, mode, name="later", fields=FIELDS if mode is Mode.MIRROR else ()))
    assert report.outcomes[Status.UNSENT] == 0
    expected = range(30) if mode is Mode.MIRROR else range(10)
    assert sorted(held(bench)) == sorted(f"C-{i}" for i in expected)


def test_inserts_whose_answer_was_lost_are_looked_up(bench: Bench) -> None:
    load(bench, [person(i) for i in range(20)])
    rule = {"match": {"path": COLLECTIONS}, "times": 1}
    bench.client.faults([rule | {"fault": {"kind": "reset", "applied": True}}])
    sync = contacts(bench, Mode.INSERT, batch_rows=5, in_doubt="verify")
    assert outcomes(bench.run(sync))["in_doubt"] == 5
    bench.run(sync)
    assert bench.doubtful(sync) == []
    assert sorted(held(bench)) == sorted(f"C-{i}" for i in range(20))
    assert {r["writes"] for r in bench.client.salesforce_records("Contact")} == {1}


def test_the_days_requests_that_are_used_up_stop_the_run_with_words(bench: Bench) -> None:
    load(bench, [person(i) for i in range(50)])
    bench.client.configure(quota={"limit": 3, "window": 86_400})
    sync = contacts(bench, shards=1, batch_rows=10, destination=crm(in_flight=1))
    report = bench.run(sync)
    assert report.outcomes[Status.CREATED] + report.outcomes[Status.UNSENT] == 50
    assert 0 < report.outcomes[Status.CREATED] <= 30
    assert report.failures
    sent = bench.client.stats()["quota"]
    assert sent["throttled"] <= 1, "a quota that is used up is not asked again and again"


# Tokens


def real(bench: Bench, auth: AuthSpec) -> DestinationSpec:
    return crm(target=Target("prod", base_url=bench.endpoint.url, auth=auth))


def test_jwt_bearer(bench: Bench, sandbox: Endpoint) -> None:
    key = jwk.RSAKey.generate_key(2048)
    bench.client.register_key("app", key.as_pem(private=False).decode())
    bench.env["SALESFORCE_KEY"] = key.as_pem(private=True).decode()
    auth = AuthSpec(
        "jwt_bearer",
        {
            "token_url": f"{sandbox.url}/services/oauth2/token",
            "issuer": "app",
            "subject": "integration@acme.com",
            "audience": sandbox.url,
            "private_key": Env("SALESFORCE_KEY"),
            "algorithm": "RS256",
        },
    )
    load(bench, [person(i) for i in range(20)])
    sync = contacts(bench, destination=real(bench, auth))
    assert outcomes(bench.run(sync)) == {"created": 20}
    assert bench.account(sync).endswith(bench.account(sync).rpartition("organization ")[2])
    assert "organization 00D" in bench.account(sync)
    assert bench.client.tokens()["granted"] == {"urn:ietf:params:oauth:grant-type:jwt-bearer": 1}


def test_client_credentials_that_expire_meanwhile(bench: Bench, sandbox: Endpoint) -> None:
    bench.client.configure(token_requests=3, token_seconds=0)
    bench.env["SALESFORCE_SECRET"] = sandbox.client_secret
    auth = AuthSpec(
        "client_credentials",
        {
            "token_url": f"{sandbox.url}/services/oauth2/token",
            "client_id": sandbox.client_id,
            "client_secret": Env("SALESFORCE_SECRET"),
        },
    )
    load(bench, [person(i) for i in range(40)])
    assert outcomes(bench.run(contacts(bench, destination=real(bench, auth), batch_rows=5))) == {"created": 40}
    assert bench.client.tokens()["granted"]["client_credentials"] >= 3
    assert set(held(bench)) == {f"C-{i}" for i in range(40)}


# References, lookups, fields


@pytest.mark.slow
def test_references_by_external_id_are_set_and_cleared(bench: Bench) -> None:
    ids = {ref: bench.client.create_salesforce("Account", Name=ref, Account_Ref__c=ref) for ref in ("A-1", "A-2")}
    load(bench, [person(1, account="A-1"), person(2, account="A-9"), person(3, account="A-2")])
    clear = FieldRule(nulls="clear")
    sync = contacts(bench, fields=(*FIELDS, FieldSpec("Account.Account_Ref__c", "account", rule=clear)))
    report = bench.run(sync)
    assert outcomes(report) == {"created": 2, "rejected": 1}
    assert "Foreign key external ID: A-9 not found" in report.bad_rows[0].reason
    assert held(bench, "AccountId") == {"C-1": ids["A-1"], "C-3": ids["A-2"]}
    load(bench, [person(1), person(3, account="A-1")])
    bench.run(sync)
    assert held(bench, "AccountId") == {"C-1": None, "C-3": ids["A-1"]}


def test_owners_are_looked_up_by_their_email(bench: Bench) -> None:
    ann = bench.client.create_salesforce("User", Username="ann", Email="ann@acme.com", IsActive=True)
    bench.client.create_salesforce("User", Username="bob", Email="bob@acme.com", IsActive=False)
    load(bench, [person(1, account="Ann@acme.com "), person(2, account="bob@acme.com")])
    users = LookupSpec("users", reference="users", key="Email", value="Id", normalization="trim_lower")
    fields = (*FIELDS, FieldSpec("OwnerId", "account", lookup="users"))
    report = bench.run(contacts(bench, fields=fields, lookups=(users,)))
    assert held(bench, "OwnerId") == {"C-1": ann}
    assert [row.key for row in report.bad_rows] == ["2"]


def test_a_field_that_is_missing_or_no_external_id_stops_the_plan(bench: Bench) -> None:
    load(bench, [person(1)])
    with pytest.raises(Misconfigured, match="Plan_c"):
        bench.run(contacts(bench, fields=(FieldSpec("LastName", "name"), FieldSpec("Plan_c", "account"))))
    with pytest.raises(Misconfigured, match="Phone"):
        bench.run(contacts(bench, name="other", match={"Phone": "ref"}))
    assert held(bench) == {}


@pytest.mark.slow
def test_a_sync_by_numbers(bench: Bench) -> None:
    load(bench, [person(i, ref=str(i)) for i in range(3)])
    fields = (FieldSpec("Name", "name"),)
    one = contacts(bench, object="Account", match={"Number__c": "ref"}, fields=fields)
    assert outcomes(bench.run(one)) == {"created": 3}
    load(bench, [person(i, ref=str(i), name="new") for i in range(5)])
    other = contacts(bench, Mode.UPDATE, name="other", object="Account", match={"Number__c": "ref"}, fields=fields)
    assert outcomes(bench.run(other)) == {"updated": 3, "rejected": 2}
    assert [r["fields"]["Name"] for r in bench.client.salesforce_records("Account")] == ["new"] * 3
