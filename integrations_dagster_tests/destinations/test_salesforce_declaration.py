"""What Salesforce declares, what YAML may say of it, how its errors are read, and what can be read from it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from integrations_dagster.destinations.base import Repeat, Request, Response, Usage
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    Refused,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.destinations.reading import FieldType
from integrations_dagster.destinations.registry import create
from integrations_dagster.destinations.salesforce.checks import SalesforceKeys
from integrations_dagster.destinations.salesforce.errors import MEANINGS
from integrations_dagster.destinations.salesforce.soql import number_literal, text_literal
from integrations_dagster.vocabulary import Action, Misconfigured, Mode
from integrations_dagster_tests.destinations.flows import specs
from integrations_dagster_tests.destinations.salesforce import (
    FIELD,
    ROOT,
    SALESFORCE,
    answer,
    drive,
    record_id,
    refusal,
)


@pytest.mark.parametrize(
    ("object_", "mode", "match", "fields", "said"),
    [
        ("contacts", Mode.UPSERT, (FIELD,), ("LastName",), "Did you mean 'Contact'?"),
        ("Opportunities", Mode.UPSERT, (FIELD,), ("Name",), "Did you mean 'Opportunity'?"),
        ("Con tact", Mode.UPSERT, (FIELD,), ("LastName",), "is no API name"),
        ("Contact", Mode.APPEND, (), ("LastName",), "Possible modes: delete, insert, mirror, update, upsert."),
        ("Contact", Mode.UPSERT, (), ("LastName",), "exactly one field; none is given"),
        ("Contact", Mode.UPSERT, (FIELD, "Email"), ("LastName",), "2 are given (Customer_Id__c, Email)"),
        ("Contact", Mode.UPSERT, ("Id",), ("LastName",), "Use mode update or delete."),
        ("Contact", Mode.MIRROR, ("Id",), ("LastName",), "in mode mirror"),
        ("Contact", Mode.INSERT, ("Id",), ("LastName",), "no new record has one"),
        ("Contact", Mode.UPDATE, ("id",), ("LastName",), "Did you mean 'Id'?"),
        ("Contact", Mode.UPSERT, ("Account.Ref__c",), ("LastName",), "cannot be matched by 'Account.Ref__c'"),
        ("Contact", Mode.UPSERT, (FIELD,), ("CreatedDate", "Id"), "only Salesforce writes CreatedDate, Id."),
        ("Contact", Mode.UPSERT, (FIELD,), ("Last Name",), "Last Name is no API name of a field."),
    ],
)
def test_what_cannot_be_done_is_said_when_the_yaml_is_loaded(
    object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str], said: str
) -> None:
    with pytest.raises(Misconfigured) as caught:
        SALESFORCE.check(object_, mode, match, fields)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("object_", "mode", "match"),
    [
        ("Contact", Mode.UPSERT, (FIELD,)),
        ("Plan__c", Mode.MIRROR, ("Code__c",)),
        ("Address", Mode.UPSERT, ("Code__c",)),
        ("Contact", Mode.UPDATE, ("Id",)),
        ("Contact", Mode.DELETE, ("Id",)),
        ("Contact", Mode.INSERT, ()),
        ("Contact", Mode.INSERT, ("Email",)),
    ],
)
def test_what_can_be_done(object_: str, mode: Mode, match: Sequence[str]) -> None:
    SALESFORCE.check(object_, mode, match, ("LastName", "Account.Account_Ref__c", "Region__r.Code__c"))


def test_what_may_be_repeated_and_looked_up() -> None:
    assert {a for a in Action if SALESFORCE.repeat("Contact", a) is Repeat.NEVER} == {Action.CREATE}
    assert SALESFORCE.can_verify("Contact", (FIELD,))
    assert not SALESFORCE.can_verify("Contact", ())
    assert not SALESFORCE.can_verify("Contact", ("Id",))
    assert SALESFORCE.limits("Contact", Action.UPSERT).rows == 200


@pytest.mark.parametrize(("given", "read"), [("62.0", "62.0"), (62.0, "62.0"), ("v62", "62.0"), (100, "100.0")])
def test_versions(given: Any, read: str) -> None:
    other = create("salesforce", option=SalesforceKeys(version=given))
    _, (request,), _ = drive(other.identify(), [answer({"done": True, "records": [{"Id": "00D1"}]})])  # type: ignore[arg-type]
    assert request.path.startswith(f"/services/data/v{read}/query?q=SELECT")


@pytest.mark.parametrize("given", ["45.0", "latest", True, "62.5", ""])
def test_what_is_no_version(given: Any) -> None:
    with pytest.raises(ValidationError):
        SalesforceKeys(version=given)


def test_further_objects_to_look_up() -> None:
    with pytest.raises(ValidationError, match="no API name"):
        SalesforceKeys(lookups=["my region"])
    names = [r.name for r in create("salesforce", option=SalesforceKeys(lookups=["Region__c"])).references()]
    assert names[0] == "users"
    assert names[-1] == "Region__c"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (True, True), (12, "12"), (10**20, str(10**20)), (0.1, "0.1"), (Decimal("12.340"), "12.340"), ("Zoë", "Zoë"),
        (date(2026, 8, 1), "2026-08-01"), (datetime.fromisoformat("2026-08-01T12:00"), "2026-08-01T12:00:00.000Z"),
        (datetime(2026, 8, 1, 12, tzinfo=timezone(timedelta(hours=2))), "2026-08-01T10:00:00.000Z"),
        (time(12, 30), "12:30:00.000Z"), (["a", "b"], "a;b"), ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
    ],
)  # fmt: skip
def test_values(value: Any, sent: Any) -> None:
    assert SALESFORCE.encode(value) == sent
    assert type(SALESFORCE.encode(value)) is type(sent)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", [1, 2], ["a;b"], timedelta(1)])
def test_values_that_have_no_form(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        SALESFORCE.encode(value)


# Errors


def refused(response: Response, method: str = "PATCH") -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        SALESFORCE.classify(Request(method, f"{ROOT}/composite/sobjects"), response)
    return caught.value


@pytest.mark.parametrize(
    ("response", "recovery", "said"),
    [
        (refusal(401, "INVALID_SESSION_ID", "Session expired or invalid"), Unauthorized, "instance_url"),
        (refusal(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), Refused, "last 24 hours are used up"),
        (
            refusal(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."),
            Throttled,
            "at once",
        ),
        (refusal(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded."), Throttled, "at once"),
        (refusal(403, "API_DISABLED_FOR_ORG", "The REST API is not enabled"), Refused, "may not do this"),
        (refusal(404, "NOT_FOUND", "Provided external ID field does not exist"), Refused, "external id field"),
        (refusal(400, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access"), Throttled, "locked"),
        (refusal(400, "INVALID_FIELD", "No such column 'X'", "X"), Refused, "does not exist"),
        (refusal(400, "JSON_PARSER_ERROR", "Cannot deserialize instance of double"), PoisonedBatch, "deserialize"),
        (refusal(414, "URI_TOO_LONG", "too long"), TooLarge, "longer"),
        (refusal(503, "SERVER_UNAVAILABLE", "try later"), Throttled, "maintenance"),
        (Response(503, {"content-type": "text/html"}, b"<html>"), Unavailable, "status 503"),
        (refusal(500, "UNKNOWN_EXCEPTION", "An unexpected error occurred"), Unavailable, "An unexpected error"),
        (Response(302, {"location": "https://other.my.salesforce.com"}), Refused, "redirect"),
        (answer({"error": "invalid_grant", "error_description": "expired"}, 400), PoisonedBatch, "expired"),
        (answer([{"errorCode": 5, "message": ["x"]}, None, 7], 418), Refused, "status 418"),
        (answer({"message": "odd", "errorCode": "X"}, 429), Throttled, "odd"),
    ],
)
def test_the_error_table(response: Response, recovery: type[DestinationError], said: str) -> None:
    error = refused(response)
    assert type(error) is recovery
    assert said in error.reason


def test_a_day_that_is_used_up_says_what_to_do() -> None:
    error = refused(refusal(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."))
    assert isinstance(error, Refused)
    assert error.code == "REQUEST_LIMIT_EXCEEDED"
    assert error.remedy.startswith("Nothing is lost")


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("api-usage=18/5000", (Usage(86_400.0, 5000, 4982),)),
        ("api-usage=10018/100000; api-bursts=1/750", (Usage(86_400.0, 100_000, 89_982),)),
        ("api-usage=25/5000; per-app-api-usage=17/250(appName=sample)", (Usage(86_400.0, 5000, 4975),)),
        ("api-usage=5100/5000", (Usage(86_400.0, 5000, 0),)),
        ("per-app-api-usage=17/250", ()),
        ("api-usage=1/0", ()),
        ("api-usage=x/y", ()),
        ("", ()),
    ],
)
def test_the_days_use(header: str, told: tuple[Usage, ...]) -> None:
    assert SALESFORCE.usage(answer([], sforce_limit_info=header)) == told


def test_the_codes_of_rows_are_those_of_the_wsdl() -> None:
    folder = specs()
    if folder is None:
        pytest.skip("INTEGRATIONS_SPECS names no folder of vendors' API descriptions")
    text = (folder / "salesforce-partner.wsdl.xml").read_text()
    # These are newer than the WSDL.
    newer = {"CANNOT_EXECUTE_FLOW_TRIGGER", "DUPLICATES_DETECTED", "INACTIVE_OWNER_OR_USER"}
    newer |= {"INVALID_FIELD", "INVALID_FIELD_FOR_INSERT_UPDATE"}
    assert {code for code in MEANINGS if f'"{code}"' not in text} <= newer


# Reading


def test_pages_of_a_reference() -> None:
    body = {
        "done": False,
        "nextRecordsUrl": f"{ROOT}/query/01g-2000",
        "records": [
            {"Id": record_id(1), "Name": "Ann", "Score__c": 7.0, "Owner": {"Email": "o@x.com"}, "On__c": True},
            {"Id": record_id(2), "Name": None, "Score__c": 0.25, "Owner": None, "On__c": False},
        ],
    }
    columns = ("Name", "Score__c", "Owner.Email", "On__c")
    page, (request,), _ = drive(SALESFORCE.read("Contact", columns, None), [answer(body)])
    asked = parse_qs(urlsplit(request.path).query)["q"]
    assert asked == ["SELECT Id, Name, Score__c, Owner.Email, On__c FROM Contact"]
    assert page.rows[0] == {
        "Id": record_id(1), "Name": "Ann", "Score__c": "7", "Owner.Email": "o@x.com", "On__c": "true"
    }  # fmt: skip
    assert page.rows[1]["Owner.Email"] is None
    _, (second,), _ = drive(SALESFORCE.read("Contact", columns, page.cursor), [answer({"done": True, "records": []})])
    assert second.path == f"{ROOT}/query/01g-2000"


@pytest.mark.parametrize(
    "document",
    [[], {}, {"records": None, "done": True}, {"records": [1], "done": True}, {"records": [], "done": False},
     {"records": [], "nextRecordsUrl": "https://evil.example/x"}],
)  # fmt: skip
def test_a_page_that_cannot_be_read(document: Any) -> None:
    with pytest.raises(Unavailable):
        drive(SALESFORCE.read("users", ("Email",), None), [answer(document)])


def test_a_column_that_is_no_name_is_refused() -> None:
    with pytest.raises(Refused, match="cannot be the name of a field"):
        drive(SALESFORCE.read("users", ("Email FROM User --",), None), [])


def described(name: str, type_: str = "string", **changes: Any) -> dict[str, Any]:
    usual = {"createable": True, "updateable": True, "nillable": True, "defaultedOnCreate": False}
    return {"name": name, "type": type_, "label": name.upper(), **usual, **changes}


def test_fields() -> None:
    values = [{"value": "a", "active": True}, {"value": "b", "active": False}]
    document = {
        "fields": [
            described("LastName", nillable=False),
            described("Id", "id", createable=False, updateable=False, nillable=False, idLookup=True),
            described("Plan__c", "picklist", restrictedPicklist=True, picklistValues=values),
            described("Free__c", "picklist", picklistValues=values),
            described("Code__c", externalId=True),
            described("On__c", "boolean", nillable=False, defaultedOnCreate=True),
            described("Region__c", "reference", nillable=False, relationshipName="Region__r"),
            described("Total__c", "currency", createable=False, updateable=False),
            described("Place__c", "location"),
        ]
    }
    fields, (request,), _ = drive(SALESFORCE.fields("Plan__c"), [answer(document)])
    assert request.path == f"{ROOT}/sobjects/Plan__c/describe"
    known = {field.name: field for field in fields}
    assert [name for name, field in known.items() if field.required] == ["LastName"]
    assert [name for name, field in known.items() if not field.writable] == ["Id", "Total__c"]
    assert [name for name, field in known.items() if field.unique] == ["Code__c", "Id"]
    assert (known["Plan__c"].type, known["Plan__c"].options) == (FieldType.ENUM, ("a",))
    assert known["Free__c"].options == ()
    assert known["Region__r"].writable
    assert known["Place__c"].type is FieldType.UNKNOWN
    with pytest.raises(Unavailable):
        drive(SALESFORCE.fields("Plan__c"), [answer({"fields": [{"name": 1}]})])


@pytest.mark.parametrize("records", [[], [{}], [{"Id": ""}], [{"Id": "a"}, {"Id": "b"}]])
def test_an_organization_that_does_not_say_who_it_is(records: list[dict[str, str]]) -> None:
    with pytest.raises(Unavailable):
        drive(SALESFORCE.identify(), [answer({"done": True, "records": records})])


def test_who_the_organization_is() -> None:
    reply = answer({"done": True, "records": [{"Id": "00D5g000004abcdEAA"}]})
    who, _, _ = drive(SALESFORCE.identify(), [reply])
    assert who == "organization 00D5g000004abcdEAA"


def test_literals() -> None:
    assert text_literal("O'Neil \\ \n\t") == "'O\\'Neil \\\\ \\n\\t'"
    assert [number_literal(t) for t in ("012", "1.50", "-0", "x", "1e999999", "NaN")] == [
        "12",
        "1.5",
        "0",
        None,
        None,
        None,
    ]
