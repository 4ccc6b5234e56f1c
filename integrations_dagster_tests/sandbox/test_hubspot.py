from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.hubspot import portal_id
from integrations_dagster_tests.sandbox.conftest import Api, upsert_input


def by_trace(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["objectWriteTraceId"]: entry for entry in answer["results"]}


def codes(answer: dict[str, Any]) -> dict[str, tuple[str, list[str]]]:
    """Trace id to category and codes, of the failed rows."""
    return {
        entry["context"]["objectWriteTraceId"][0]: (entry["category"], [e["code"] for e in entry["errors"]])
        for entry in answer["errors"]
    }


def emails(sandbox: SandboxClient) -> dict[str, dict[str, str]]:
    return {record["properties"]["email"]: record["properties"] for record in sandbox.records("contacts")}


def test_an_upsert_creates_then_updates_and_keeps_what_it_does_not_name(api: Api, sandbox: SandboxClient) -> None:
    first = api.upsert("Ana@Example.com", firstname="Ana", plan="pro")
    assert first.status_code == 200
    assert first.headers["x-hubspot-correlation-id"]
    created = by_trace(first.json())["Ana@Example.com"]
    assert created["new"] is True
    assert created["id"].isdigit()
    second = by_trace(api.upsert(" ana@example.COM", firstname="Anna").json())[" ana@example.COM"]
    assert second["new"] is False
    assert second["id"] == created["id"]
    assert emails(sandbox) == {"ana@example.com": {"email": "ana@example.com", "firstname": "Anna", "plan": "pro"}}
    assert sandbox.writes("contacts") == {created["id"]: 2}
    assert sandbox.writes("contacts", by="email") == {"ana@example.com": 2}


def test_an_empty_text_clears_a_property(api: Api, sandbox: SandboxClient) -> None:
    api.upsert("a@example.com", plan="pro")
    api.upsert("a@example.com", plan="")
    assert emails(sandbox) == {"a@example.com": {"email": "a@example.com"}}


def test_any_text_survives(api: Api, sandbox: SandboxClient) -> None:
    text = 'שלום 𝕏 \u202eabc \u0000 \\ " \n' + "z" * 60_000
    api.upsert("a@example.com", notes=text)
    assert emails(sandbox)["a@example.com"]["notes"] == text


def test_text_that_is_none_is_refused(api: Api, sandbox: SandboxClient) -> None:
    answer = api.batch("companies", "upsert", [{"id": "\ud800", "idProperty": "company_ref", "properties": {}}])
    assert (answer.status_code, answer.json()["category"]) == (400, "VALIDATION_ERROR")
    assert sandbox.records("companies") == []


def test_results_do_not_come_in_the_order_of_the_inputs(api: Api) -> None:
    answer = api.upsert("a@example.com", "b@example.com").json()
    assert [entry["objectWriteTraceId"] for entry in answer["results"]] == ["b@example.com", "a@example.com"]


def test_bad_rows_fail_alone_with_their_trace_ids(api: Api, sandbox: SandboxClient) -> None:
    answer = api.batch(
        "contacts",
        "upsert",
        [
            upsert_input("good@example.com", "0"),
            upsert_input("not-an-email", "1"),
            upsert_input("b@example.com", "2", lifetime_value="much", is_subscriber="maybe"),
            upsert_input("c@example.com", "3", notes="x" * 65_537),
        ],
    )
    assert answer.status_code == 207
    body = answer.json()
    assert body["numErrors"] == 3
    assert codes(body) == {
        "1": ("VALIDATION_ERROR", ["INVALID_EMAIL"]),
        "2": ("VALIDATION_ERROR", ["INVALID_LONG", "INVALID_OPTION"]),
        "3": ("VALIDATION_ERROR", ["INVALID_LENGTH"]),
    }
    assert list(by_trace(body)) == ["0"]
    assert list(emails(sandbox)) == ["good@example.com"]
    assert sandbox.received()[-1]["failed_rows"] == 3


def test_without_trace_ids_one_bad_row_refuses_the_batch(api: Api, sandbox: SandboxClient) -> None:
    inputs = [upsert_input("good@example.com"), upsert_input("bad")]
    for entry in inputs:
        del entry["objectWriteTraceId"]
    answer = api.batch("contacts", "upsert", inputs)
    assert answer.status_code == 400
    assert [error["code"] for error in answer.json()["errors"]] == ["INVALID_EMAIL"]
    assert sandbox.records("contacts") == []


@pytest.mark.parametrize(
    ("properties", "code", "name"),
    [({"nickname": "x"}, "PROPERTY_DOESNT_EXIST", "nickname"), ({"createdate": "0"}, "READ_ONLY_VALUE", "createdate")],
)
def test_an_unknown_or_read_only_property_refuses_the_batch(
    api: Api, sandbox: SandboxClient, properties: dict[str, str], code: str, name: str
) -> None:
    answer = api.batch(
        "contacts", "upsert", [upsert_input("a@example.com"), upsert_input("b@example.com", **properties)]
    )
    assert answer.status_code == 400
    body = answer.json()
    assert body["category"] == "VALIDATION_ERROR"
    assert [(error["code"], error["context"]) for error in body["errors"]] == [(code, {"propertyName": [name]})]
    assert name in body["message"]
    assert sandbox.records("contacts") == []


@pytest.mark.parametrize("value", [1, 1.5, True, None, ["x"]])
def test_values_must_be_text(api: Api, value: object) -> None:
    answer = api.batch(
        "contacts", "upsert", [{"id": "a@example.com", "idProperty": "email", "properties": {"plan": value}}]
    )
    assert answer.status_code == 400
    assert "plan" in answer.json()["message"]


def test_batches_that_are_refused_whole(api: Api, sandbox: SandboxClient) -> None:
    twice = api.upsert("a@example.com", "A@example.com")
    assert twice.status_code == 400
    assert twice.json()["message"] == "Duplicate IDs found in batch input: [a@example.com]. IDs must be unique"
    many = api.upsert(*(f"a{n}@example.com" for n in range(101)))
    assert many.status_code == 400
    by_name = api.batch("companies", "upsert", [{"id": "acme.com", "idProperty": "domain", "properties": {}}])
    assert by_name.status_code == 400
    assert by_name.json()["message"] == "Unable to perform update/upsert by non-unique 0-2 property domain"
    for body in ("nonsense", '{"inputs": 1}', '{"inputs": [{}]}', "[]", '{"inputs": [{"id": "a@b.co"}]}'):
        answer = api.session.post(
            f"{api.endpoint.url}/crm/v3/objects/contacts/batch/upsert",
            data=body,
            headers={"content-type": "application/json"},
            timeout=20,
        )
        assert (answer.status_code, answer.json()["category"]) == (400, "VALIDATION_ERROR"), body
    assert sandbox.records("contacts") == []
    assert sandbox.records("companies") == []


def test_an_email_belongs_to_one_record_and_can_be_handed_over(api: Api, sandbox: SandboxClient) -> None:
    created = by_trace(api.upsert("a@example.com", "b@example.com").json())
    a, b = created["a@example.com"]["id"], created["b@example.com"]["id"]

    def rename(*changes: tuple[str, str]) -> dict[str, Any]:
        inputs = [{"id": i, "objectWriteTraceId": i, "properties": {"email": email}} for i, email in changes]
        body: dict[str, Any] = api.batch("contacts", "update", inputs).json()
        return body

    taken = rename((a, "b@example.com"))
    assert taken["results"] == []
    assert taken["errors"][0]["category"] == "CONFLICT"
    assert taken["errors"][0]["message"] == f"Contact already exists. Existing ID: {b}"
    # Rows are taken in order: what the first releases, the second may take.
    assert len(rename((a, "new@example.com"), (b, "a@example.com"))["results"]) == 2
    assert {r["id"]: r["properties"]["email"] for r in sandbox.records("contacts")} == {
        a: "new@example.com",
        b: "a@example.com",
    }
    assert by_trace(api.upsert("b@example.com").json())["b@example.com"]["new"] is True


def test_an_update_of_a_missing_record_fails_alone(api: Api, sandbox: SandboxClient) -> None:
    id_ = api.upsert("a@example.com").json()["results"][0]["id"]
    inputs = [{"id": id_, "properties": {"plan": "pro"}}, {"id": "99", "properties": {"plan": "pro"}}]
    answer = api.batch("contacts", "update", inputs)
    assert answer.status_code == 207
    assert [(e["category"], e["context"]) for e in answer.json()["errors"]] == [("OBJECT_NOT_FOUND", {"ids": ["99"]})]
    assert emails(sandbox)["a@example.com"]["plan"] == "pro"


def test_companies_match_on_a_unique_custom_property_only(api: Api, sandbox: SandboxClient) -> None:
    def upsert(ref: str, **properties: str) -> dict[str, Any]:
        entry = {"id": ref, "idProperty": "company_ref", "objectWriteTraceId": ref, "properties": properties}
        body: dict[str, Any] = api.batch("companies", "upsert", [entry]).json()
        return body

    upsert("c1", name="Acme", domain="acme.com", mrr="10.50", founded_on="1999-12-31")
    upsert("c2", name="Acme", domain="acme.com")
    upsert("c1", name="Acme Ltd")
    assert [r["properties"] for r in sandbox.records("companies")] == [
        {"company_ref": "c1", "name": "Acme Ltd", "domain": "acme.com", "mrr": "10.50", "founded_on": "1999-12-31"},
        {"company_ref": "c2", "name": "Acme", "domain": "acme.com"},
    ]


def test_read_by_id_and_by_email(api: Api) -> None:
    created = by_trace(api.upsert("a@example.com", "b@example.com", plan="pro").json())
    id_ = created["a@example.com"]["id"]
    inputs = [{"id": "A@example.com"}, {"id": "x@example.com"}]
    answer = api.batch(
        "contacts", "read", inputs, idProperty="email", properties=["email", "plan"], propertiesWithHistory=[]
    )
    assert answer.status_code == 207
    body = answer.json()
    assert [(r["id"], r["properties"]["plan"]) for r in body["results"]] == [(id_, "pro")]
    assert body["errors"][0]["category"] == "OBJECT_NOT_FOUND"
    assert body["errors"][0]["context"] == {"ids": ["x@example.com"]}
    found = api.batch("contacts", "read", [{"id": id_}], properties=[], propertiesWithHistory=[])
    assert found.status_code == 200
    assert found.json()["results"][0]["properties"]["email"] == "a@example.com"


def test_archiving_is_repeatable_and_frees_the_email(api: Api, sandbox: SandboxClient) -> None:
    id_ = api.upsert("a@example.com").json()["results"][0]["id"]
    for _ in range(2):
        answer = api.batch("contacts", "archive", [{"id": id_}, {"id": "99"}, {"id": "nonsense"}])
        assert (answer.status_code, answer.content) == (204, b"")
    assert sandbox.records("contacts") == []
    assert sandbox.writes("contacts") == {id_: 2}
    assert api.call("GET", f"/crm/v3/objects/contacts/{id_}").status_code == 404
    again = api.upsert("a@example.com").json()["results"][0]
    assert again["new"] is True
    assert again["id"] != id_


def test_single_records(api: Api, sandbox: SandboxClient) -> None:
    path = "/crm/v3/objects/contacts"
    created = api.call("POST", path, {"properties": {"email": "a@example.com"}, "associations": []})
    assert created.status_code == 201
    id_ = created.json()["id"]
    taken = api.call("POST", path, {"properties": {"email": "A@example.com"}, "associations": []})
    assert (taken.status_code, taken.json()["message"]) == (409, f"Contact already exists. Existing ID: {id_}")
    assert api.call("POST", path, {"properties": {"email": "bad"}}).status_code == 400
    changed = api.call("PATCH", f"{path}/A@example.com?idProperty=email", {"properties": {"plan": "pro"}})
    assert changed.status_code == 200
    assert api.call("PATCH", f"{path}/99", {"properties": {"plan": "pro"}}).status_code == 404
    read = api.call("GET", f"{path}/{id_}?properties=plan")
    assert read.json()["properties"]["plan"] == "pro"
    assert api.call("DELETE", f"{path}/{id_}").status_code == 204
    assert sandbox.records("contacts") == []


def test_batch_create(api: Api, sandbox: SandboxClient) -> None:
    inputs = [
        {"properties": {"email": "a@example.com"}, "associations": [], "objectWriteTraceId": "0"},
        {"properties": {"email": "b@example.com"}, "associations": [], "objectWriteTraceId": "1"},
    ]
    assert api.batch("contacts", "create", inputs[:1]).status_code == 201
    answer = api.batch("contacts", "create", inputs)
    assert answer.status_code == 207
    assert [(e["category"], e["context"]) for e in answer.json()["errors"]] == [
        ("CONFLICT", {"objectWriteTraceId": ["0"]})
    ]
    assert list(emails(sandbox)) == ["a@example.com", "b@example.com"]


def test_listing_pages_through_everything(api: Api) -> None:
    api.upsert(*(f"a{n}@example.com" for n in range(25)))
    path: str | None = "/crm/v3/objects/contacts?limit=10"
    seen: list[str] = []
    while path:
        body = api.call("GET", path).json()
        seen += [record["properties"]["email"] for record in body["results"]]
        path = body["paging"]["next"]["link"].removeprefix(api.endpoint.url) if "paging" in body else None
    assert sorted(seen) == sorted(f"a{n}@example.com" for n in range(25))
    assert len(api.call("GET", "/crm/v3/objects/contacts").json()["results"]) == 10
    assert api.call("GET", "/crm/v3/objects/contacts?limit=101").status_code == 400


def test_properties_can_be_read_and_defined(api: Api, sandbox: SandboxClient) -> None:
    listed = {p["name"]: p for p in api.call("GET", "/crm/v3/properties/contacts").json()["results"]}
    assert listed["email"]["hasUniqueValue"] is True
    assert listed["createdate"]["modificationMetadata"]["readOnlyValue"] is True
    assert {o["value"] for o in listed["lifecyclestage"]["options"]} >= {"lead", "customer"}
    defined = sandbox.define_property("contacts", "ref", unique=True)
    assert defined["hasUniqueValue"] is True
    assert api.call("GET", "/crm/v3/properties/contacts/ref").json() == defined
    assert api.call("GET", "/crm/v3/properties/contacts/other").status_code == 404
    with pytest.raises(ValueError, match="already exists"):
        sandbox.define_property("contacts", "ref")
    inputs = [{"id": "R-1", "idProperty": "ref", "properties": {"firstname": "Ana"}}]
    assert api.batch("contacts", "upsert", inputs).json()["results"][0]["new"] is True
    assert sandbox.records("contacts")[0]["properties"] == {"ref": "R-1", "firstname": "Ana"}


def test_the_token_is_checked_and_the_account_named(api: Api) -> None:
    details = api.call("GET", "/account-info/v3/details").json()
    assert details["portalId"] == portal_id(api.endpoint.id)
    for header in ("Bearer wrong", "Basic x"):
        refused = api.call("GET", "/account-info/v3/details", headers={"Authorization": header})
        assert (refused.status_code, refused.json()["category"]) == (401, "INVALID_AUTHENTICATION")
        assert api.call("GET", "/_sandbox/stats", headers={"Authorization": header}).status_code == 401


def test_what_is_not_imitated_says_so(api: Api) -> None:
    for method, path, status in [
        ("POST", "/crm/v3/objects/contacts/search", 405),
        ("POST", "/crm/v3/objects/contacts/batch/merge", 404),
        ("GET", "/crm/v4/anything", 404),
        ("GET", "/crm/v3/objects/deals", 400),
        ("PUT", "/crm/v3/objects/contacts/1", 405),
    ]:
        assert api.call(method, path, {} if method != "GET" else None).status_code == status, path


def test_a_quota_refuses_what_is_over_it(api: Api, sandbox: SandboxClient) -> None:
    sandbox.configure(quota={"limit": 3, "window": 60})
    answers = [api.call("GET", "/account-info/v3/details") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[0].headers["X-HubSpot-RateLimit-Remaining"] == "2"
    assert answers[0].headers["X-HubSpot-RateLimit-Interval-Milliseconds"] == "60000"
    body = answers[3].json()
    assert (body["policyName"], body["errorType"]) == ("TEN_SECONDLY_ROLLING", "RATE_LIMIT")
    assert "Retry-After" not in answers[3].headers
    sandbox.configure(quota={"limit": 1, "window": 60, "retry_after": True})
    api.call("GET", "/account-info/v3/details")
    assert 58 <= int(api.call("GET", "/account-info/v3/details").headers["Retry-After"]) <= 60
    assert sandbox.stats()["requests"]["GET /account-info/v3/details"] == {"200": 4, "429": 3}
    with pytest.raises(ValueError, match="window"):
        sandbox.configure(quota={"window": 0})
    with pytest.raises(ValueError, match="speed"):
        sandbox.configure(speed=1)


def test_the_log_tells_what_arrived(api: Api, sandbox: SandboxClient) -> None:
    api.upsert("before@example.com")
    since = sandbox.last_seq()
    sandbox.configure(bodies=True, latency=0.02)
    api.upsert("a@example.com", "b@example.com")
    (entry,) = sandbox.received(since=since, bodies=True)
    assert (entry["method"], entry["path"]) == ("POST", "/crm/v3/objects/contacts/batch/upsert")
    assert (entry["status"], entry["rows"], entry["ids"]) == (200, 2, ["a@example.com", "b@example.com"])
    assert entry["ended"] - entry["started"] >= 0.02
    assert len(json.loads(entry["body"])["inputs"]) == 2


def test_many_writers_lose_nothing(api: Api, sandbox: SandboxClient) -> None:
    """16 threads, each with rows of its own and one that all of them write."""
    failures: list[str] = []

    def write(thread: int) -> None:
        mine = Api(api.endpoint)
        with mine.session:
            for batch in range(5):
                rows = [f"t{thread}-{batch}-{n}@example.com" for n in range(20)]
                answer = mine.upsert(*rows, "shared@example.com", firstname=str(thread))
                if answer.status_code != 200:
                    failures.append(answer.text)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    writes = sandbox.writes("contacts", by="email")
    assert len(writes) == 16 * 5 * 20 + 1
    assert writes.pop("shared@example.com") == 80
    assert set(writes.values()) == {1}
