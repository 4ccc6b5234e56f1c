"""The sandbox's Salesforce over HTTP: what it takes, refuses and shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import requests

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.salesforce_fields import record_id
from integrations_dagster.sandbox.salesforce_query import BadQuery, parse
from integrations_dagster_tests.sandbox.conftest import Api

ROOT = "/services/data/v66.0"
COLLECTION = f"{ROOT}/composite/sobjects"
FIELD = "Customer_Id__c"


def records(rows: Sequence[Mapping[str, Any]], object_: str = "Contact", **also: Any) -> dict[str, Any]:
    return {"records": [{"attributes": {"type": object_}, **row} for row in rows], **also}


def upsert(api: Api, *rows: Mapping[str, Any], field: str = FIELD, object_: str = "Contact", **also: Any) -> Any:
    answer = api.call("PATCH", f"{COLLECTION}/{object_}/{field}", records(rows, object_, **also))
    assert answer.status_code == 200, answer.text
    return answer.json()


def person(number: int, **fields: Any) -> dict[str, Any]:
    return {FIELD: f"C-{number}", "LastName": f"Name {number}", **fields}


def codes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    return ["" if result["success"] else result["errors"][0]["statusCode"] for result in results]


def query(api: Api, soql: str) -> requests.Response:
    return api.call("GET", f"{ROOT}/query", params={"q": soql})


def refused(answer: requests.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()[0]["errorCode"]) == (status, code)
    message: str = answer.json()[0]["message"]
    return message


def test_results_come_in_order_and_rows_fail_alone(api: Api, sandbox: SandboxClient) -> None:
    upsert(api, person(2))
    results = upsert(
        api,
        person(1),
        person(2, FirstName="Ana"),
        person(3, Email="nobody"),
        person(4, LastName="x" * 81),
        {FIELD: "C-5"},
        person(6, Plan__c="gold"),
        person(7, AccountId="001000000000999AAA"),
        person(8, Account={"Account_Ref__c": "A-9"}),
        person(9, Unknown__c="x"),
        person(10, CreatedDate="2026-08-01T00:00:00Z"),
        {"LastName": "x"},
    )
    assert codes(results) == [
        "", "", "INVALID_EMAIL_ADDRESS", "STRING_TOO_LONG", "REQUIRED_FIELD_MISSING",
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "INVALID_CROSS_REFERENCE_KEY", "INVALID_FIELD", "INVALID_FIELD",
        "INVALID_FIELD_FOR_INSERT_UPDATE", "MISSING_ARGUMENT",
    ]  # fmt: skip
    assert [result.get("created") for result in results[:2]] == [True, False]
    held = {r["fields"][FIELD]: r for r in sandbox.salesforce_records("Contact")}
    assert set(held) == {"C-1", "C-2"}
    assert (held["C-2"]["fields"]["FirstName"], held["C-2"]["writes"]) == ("Ana", 2)


def test_all_or_none_undoes_what_succeeded(api: Api, sandbox: SandboxClient) -> None:
    results = upsert(api, person(1), person(2, Email="nobody"), allOrNone=True)
    assert codes(results) == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", "INVALID_EMAIL_ADDRESS"]
    assert sandbox.salesforce_records("Contact") == []


def test_a_value_in_another_json_form_refuses_the_whole_request(api: Api, sandbox: SandboxClient) -> None:
    for value in (
        {"LastName": 12},
        {"Lifetime_Value__c": "much"},
        {"Subscriber__c": "perhaps"},
        {"Last_Order__c": "x"},
    ):
        answer = api.call("PATCH", f"{COLLECTION}/Contact/{FIELD}", records([person(1), person(2, **value)]))
        assert "Cannot deserialize instance of" in refused(answer, 400, "JSON_PARSER_ERROR")
    assert sandbox.salesforce_records("Contact") == []


def test_values_are_kept_in_the_fields_form(api: Api, sandbox: SandboxClient) -> None:
    values = {"Lifetime_Value__c": "12.50", "Subscriber__c": True, "Last_Order__c": "2026-08-01", "Email": " A@B.de "}
    upsert(api, person(1, **values))
    upsert(api, person(1, FirstName=None, Plan__c="pro"))
    (record,) = sandbox.salesforce_records("Contact")
    assert record["fields"] == {
        FIELD: "C-1", "LastName": "Name 1", "Lifetime_Value__c": 12.5, "Subscriber__c": True,
        "Last_Order__c": "2026-08-01", "Email": "a@b.de", "Plan__c": "pro",
    }  # fmt: skip


def test_a_value_twice_in_one_request_is_refused_and_case_does_not_tell_them_apart(api: Api) -> None:
    rows = [person(1), {FIELD: "c-1", "LastName": "x"}, person(2)]
    assert codes(upsert(api, *rows)) == ["DUPLICATE_VALUE", "DUPLICATE_VALUE", ""]


def test_several_records_with_one_external_id(api: Api, sandbox: SandboxClient) -> None:
    sandbox.define_salesforce("Contact", "Other__c", external_id=True)
    for _ in range(2):
        sandbox.create_salesforce("Contact", LastName="x", Other__c="same")
    assert codes(upsert(api, {"Other__c": "same", "LastName": "y"}, field="Other__c")) == ["DUPLICATE_EXTERNAL_ID"]


def test_update_create_and_delete_by_id(api: Api, sandbox: SandboxClient) -> None:
    created = api.call("POST", COLLECTION, records([person(1), person(2), person(1)])).json()
    assert codes(created) == ["", "", "DUPLICATE_VALUE"]
    first, second = created[0]["id"], created[1]["id"]
    assert len(first) == 18
    updates = [
        {"id": second, FIELD: "C-1"},
        {"id": second, FIELD: "C-9"},
        {"id": "nonsense"},
        {"id": record_id("Contact", 10**9)},
    ]
    answer = api.call("PATCH", COLLECTION, records(updates))
    assert codes(answer.json()) == ["DUPLICATE_VALUE", "", "MALFORMED_ID", "INVALID_CROSS_REFERENCE_KEY"]
    answer = api.call("DELETE", f"{COLLECTION}?ids={first},{second[:15]},{first}&allOrNone=false")
    assert codes(answer.json()) == ["", "", "ENTITY_IS_DELETED"]
    assert sandbox.salesforce_records("Contact") == []
    assert len(sandbox.salesforce_records("Contact", deleted=True)) == 2
    # A deleted record's unique values are free.
    assert upsert(api, person(1))[0]["created"] is True


def test_what_refuses_a_whole_request(api: Api) -> None:
    refused(
        api.call("PATCH", f"{COLLECTION}/Contact/{FIELD}", records([person(i) for i in range(201)])),
        400,
        "EXCEEDED_ID_LIMIT",
    )
    refused(api.call("PATCH", f"{COLLECTION}/Contact/LastName", records([person(1)])), 404, "NOT_FOUND")
    refused(api.call("PATCH", f"{COLLECTION}/Nothing__c/{FIELD}", records([person(1)])), 404, "NOT_FOUND")
    refused(api.call("POST", COLLECTION, records([person(1)], "Nothing__c")), 400, "INVALID_TYPE")
    refused(api.call("POST", COLLECTION, {"records": [person(1)]}), 400, "INVALID_FIELD")
    refused(api.call("POST", COLLECTION, {}), 400, "JSON_PARSER_ERROR")
    refused(api.call("GET", "/services/data/v12.0/query"), 404, "NOT_FOUND")
    refused(query(api, "SELECT Id FROM Contact WHERE LastName IN ('" + "x" * 17_000 + "')"), 414, "URI_TOO_LONG")


def test_queries(api: Api, sandbox: SandboxClient) -> None:
    account = sandbox.create_salesforce("Account", Name="Ac'me\\", Number__c=7.0)
    upsert(api, person(1, AccountId=account), person(2))
    rows = query(
        api, f"SELECT Id, {FIELD}, Account.Name FROM Contact WHERE {FIELD} IN ('C-2', 'c-1','x\\'\\\\')"
    ).json()
    assert [(r[FIELD], r["Account"] and r["Account"]["Name"]) for r in rows["records"]] == [
        ("C-1", "Ac'me\\"),
        ("C-2", None),
    ]
    assert rows["done"] is True
    assert query(api, "SELECT Id FROM Account WHERE Number__c IN (7)").json()["totalSize"] == 1
    assert query(api, "SELECT Id FROM Account WHERE Name = 'ac\\'me\\\\'").json()["totalSize"] == 1
    assert query(api, f"SELECT Id FROM Account WHERE Id IN ('{account}')").json()["totalSize"] == 1
    complaint = refused(query(api, "SELECT Id FROM Account WHERE Number__c IN ('7')"), 400, "INVALID_FIELD")
    assert "should not be enclosed in quotes" in complaint
    refused(query(api, "SELECT Nothing__c FROM Contact"), 400, "INVALID_FIELD")
    refused(query(api, "SELECT Id FROM Nothing__c"), 400, "INVALID_TYPE")
    refused(query(api, "DELETE FROM Contact"), 400, "MALFORMED_QUERY")


@pytest.mark.parametrize(
    "text",
    ["SELECT Id FROM X WHERE A IN ('a' 'b')", "SELECT Id FROM X WHERE A = '\\q'", "SELECT Id FROM X WHERE A IN 'a'"],
)
def test_what_is_no_query(text: str) -> None:
    with pytest.raises(BadQuery):
        parse(text)


def test_a_long_result_comes_page_by_page(api: Api, sandbox: SandboxClient) -> None:
    for start in range(0, 2_200, 200):
        api.call("POST", COLLECTION, records([{"Name": f"A{i}"} for i in range(start, start + 200)], "Account"))
    first = query(api, "SELECT Id, Name FROM Account").json()
    assert (len(first["records"]), first["done"], first["totalSize"]) == (2_000, False, 2_200)
    second = api.call("GET", first["nextRecordsUrl"]).json()
    assert (len(second["records"]), second["done"]) == (200, True)
    assert len({r["Name"] for r in first["records"] + second["records"]}) == 2_200
    assert sandbox.salesforce_records("Account")[-1]["fields"] == {"Name": "A2199"}


def test_describe_and_fields_that_are_defined(api: Api, sandbox: SandboxClient) -> None:
    sandbox.define_salesforce("Plan__c", "Code__c", external_id=True, unique=True, required=True)
    shown = {f["name"]: f for f in api.call("GET", f"{ROOT}/sobjects/Plan__c/describe").json()["fields"]}
    assert (shown["Code__c"]["externalId"], shown["Code__c"]["idLookup"], shown["Code__c"]["nillable"]) == (
        True,
        True,
        False,
    )
    assert shown["Id"]["updateable"] is False
    assert codes(upsert(api, {"Code__c": "P"}, field="Code__c", object_="Plan__c")) == [""]
    with pytest.raises(ValueError, match="no type of field"):
        sandbox.define_salesforce("Plan__c", "X__c", "number")


def test_the_days_requests_are_told_and_end(api: Api, sandbox: SandboxClient) -> None:
    assert upsert(api, person(1))
    sandbox.configure(quota={"limit": 3, "window": 86_400})
    told = [query(api, "SELECT Id FROM Organization").headers["Sforce-Limit-Info"] for _ in range(3)]
    assert told == ["api-usage=1/3", "api-usage=2/3", "api-usage=3/3"]
    message = refused(query(api, "SELECT Id FROM Organization"), 403, "REQUEST_LIMIT_EXCEEDED")
    assert message == "TotalRequests Limit exceeded."


def test_too_many_at_once_is_another_message(api: Api, sandbox: SandboxClient) -> None:
    sandbox.configure(quota={"limit": 1, "window": 30})
    query(api, "SELECT Id FROM Organization")
    message = refused(query(api, "SELECT Id FROM Organization"), 403, "REQUEST_LIMIT_EXCEEDED")
    assert message.startswith("ConcurrentRequests")


def test_locks_on_demand_and_wrong_credentials(api: Api, sandbox: SandboxClient) -> None:
    fault = {
        "kind": "reject_rows",
        "with": "C-2",
        "code": "UNABLE_TO_LOCK_ROW",
        "message": "unable to obtain exclusive access",
    }
    sandbox.faults([{"match": {"path": f"{COLLECTION}/*"}, "times": 1, "fault": fault}])
    assert codes(upsert(api, person(1), person(2))) == ["", "UNABLE_TO_LOCK_ROW"]
    assert codes(upsert(api, person(2))) == [""]
    answer = api.call("GET", f"{ROOT}/query", headers={"Authorization": "Bearer wrong"})
    refused(answer, 401, "INVALID_SESSION_ID")
    assert sandbox.received()[0]["rows"] == 2


def test_the_token_endpoint_names_the_instance(api: Api, sandbox: SandboxClient) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_id": sandbox.endpoint.client_id,
        "client_secret": sandbox.endpoint.client_secret,
    }
    token = requests.post(f"{sandbox.endpoint.url}/services/oauth2/token", data=form, timeout=10).json()
    assert token["instance_url"] == sandbox.endpoint.url
    answer = api.call("GET", f"{ROOT}/query", params={"q": "SELECT Id FROM Organization"},
                      headers={"Authorization": f"Bearer {token['access_token']}"})  # fmt: skip
    assert answer.json()["records"][0]["Id"].startswith("00D")
