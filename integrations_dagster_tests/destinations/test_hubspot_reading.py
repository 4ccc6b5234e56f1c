"""What HubSpot is asked for lookups and fields, and how its answers are read."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from integrations_dagster.destinations.base import Flow, Request, Response
from integrations_dagster.destinations.errors import Unavailable
from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.destinations.reading import FieldType, Page, TargetField
from integrations_dagster_tests.destinations.flows import CHECKED, answer, drive, specs

HUBSPOT = HubSpot()


def _ask(flow: Flow[Any], *answers: Response) -> tuple[Any, list[tuple[str, dict[str, str]]]]:
    told, requests = drive(HUBSPOT, flow, answers)
    assert all(request.method == "GET" and request.changes_nothing for request in requests)
    asked = [request.path.partition("?") for request in requests]
    return told, [(path, dict(parse_qsl(query))) for path, _, query in asked]


def _owner(id_: str, email: str | None = "o@example.com", **more: Any) -> dict[str, Any]:
    owner = {"id": id_, "type": "PERSON", "userId": 7, "firstName": "O", "lastName": "", "archived": False}
    owner |= {"createdAt": "2026-08-01T12:00:00Z", "updatedAt": "2026-08-01T12:00:00Z", **more}
    return owner if email is None else owner | {"email": email}


def _property(name: str, type_: str = "string", **more: Any) -> dict[str, Any]:
    plain = {"name": name, "label": name.title(), "type": type_, "fieldType": "text", "groupName": "g"}
    return plain | {"description": "", "options": []} | more


def test_owners_are_read_page_by_page() -> None:
    first = answer(200, {"results": [_owner("1"), _owner("2", None)], "paging": {"next": {"after": "2"}}})
    page, asked = _ask(HUBSPOT.read("owners", ("id", "email"), None), first)
    assert asked == [("/crm/v3/owners", {"limit": "100", "archived": "false"})]
    assert [(row["id"], row["email"], row["userId"], row["lastName"]) for row in page.rows] == [
        ("1", "o@example.com", "7", None),
        ("2", None, "7", None),
    ]
    last, asked = _ask(HUBSPOT.read("owners", (), page.cursor), answer(200, {"results": []}))
    assert asked[0][1]["after"] == "2"
    assert last == Page((), None)
    _, asked = _ask(HUBSPOT.read("archived_owners", (), None), answer(200, {"results": []}))
    assert asked[0][1]["archived"] == "true"


def test_companies_are_listed_with_the_columns_that_are_wanted() -> None:
    record: dict[str, Any] = {"id": "5", "properties": {"domain": "a.example", "createdate": "x"}}
    record |= {"createdAt": "2026-08-01T12:00:00Z", "updatedAt": "2026-08-01T12:00:00Z", "archived": False}
    page, asked = _ask(HUBSPOT.read("companies", ("domain", "id", "name"), "40"), answer(200, {"results": [record]}))
    assert asked == [("/crm/v3/objects/companies", {"limit": "100", "after": "40", "properties": "domain,name"})]
    assert page == Page(({"id": "5", "domain": "a.example", "name": None},), None)


def test_every_reference_has_the_columns_it_names() -> None:
    for reference in HUBSPOT.references():
        assert reference.columns is None or {reference.key, reference.value} <= set(reference.columns)
    (owners,) = [reference for reference in HUBSPOT.references() if reference.name == "owners"]
    assert (owners.compares("email"), owners.compares("id")) == ("trim_lower", "exact")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"results": {}},
        {"results": ["x"]},
        {"results": [], "paging": {"next": {}}},
        {"results": [], "paging": {"next": {"after": 7}}},
        {"results": [], "paging": [1]},
    ],
)
def test_an_answer_in_another_shape_is_never_the_last_page(document: Any) -> None:
    with pytest.raises(Unavailable):
        _ask(
            HUBSPOT.read("owners", (), None),
            Response(200, {"x-malformed": "1"}, json.dumps(document).encode()),
        )


def test_properties_become_fields() -> None:
    definitions = [
        _property("email"),
        _property("plan", "enumeration", options=[{"label": "Pro", "value": "pro", "hidden": False}]),
        _property("hubspot_owner_id", "enumeration", externalOptions=True),
        _property("createdate", "datetime", modificationMetadata=_modification(read_only=True)),
        _property("score", "number", calculated=True),
        _property("ref", hasUniqueValue=True, modificationMetadata=_modification(read_only=False)),
        _property("place", "object_coordinates"),
        _property("old", archived=True),
    ]
    fields, asked = _ask(HUBSPOT.fields("contacts"), answer(200, {"results": definitions}))
    assert asked == [("/crm/v3/properties/contacts", {})]
    found = {field.name: field for field in fields}
    assert list(found) == ["createdate", "email", "hubspot_owner_id", "place", "plan", "ref", "score"]
    assert (found["email"].type, found["email"].unique) == (FieldType.EMAIL, True)
    assert found["plan"] == TargetField("plan", "Plan", FieldType.ENUM, "enumeration", options=("pro",))
    assert found["hubspot_owner_id"].options == ()
    assert (found["createdate"].writable, found["score"].writable, found["ref"].writable) == (False, False, True)
    assert (found["createdate"].type, found["score"].type) == (FieldType.TIMESTAMP, FieldType.NUMBER)
    assert found["ref"].unique
    assert (found["place"].type, found["place"].native) == (FieldType.UNKNOWN, "object_coordinates")
    assert [TargetField.from_dict(json.loads(json.dumps(field.as_dict()))) for field in fields] == fields


def test_sensitive_properties_are_lists_of_their_own() -> None:
    asked: list[str] = []
    for flow in HUBSPOT.restricted_fields("contacts"):
        request = next(flow)
        assert isinstance(request, Request)
        asked.append(request.path)
    assert asked == [
        "/crm/v3/properties/contacts?dataSensitivity=sensitive",
        "/crm/v3/properties/contacts?dataSensitivity=highly_sensitive",
    ]


def _modification(*, read_only: bool) -> dict[str, bool]:
    return {"archivable": False, "readOnlyDefinition": True, "readOnlyValue": read_only}


@pytest.mark.skipif(specs() is None, reason="set INTEGRATIONS_SPECS to a folder with HubSpot's OpenAPI files")
def test_requests_and_answers_fit_the_vendors_files() -> None:
    before = CHECKED.total()
    test_owners_are_read_page_by_page()
    test_companies_are_listed_with_the_columns_that_are_wanted()
    test_properties_become_fields()
    for flow in HUBSPOT.restricted_fields("companies"):
        drive(HUBSPOT, flow, [answer(200, {"results": [_property("secret", dataSensitivity="sensitive")]})])
    # Five readings, each with a request and an answer.
    assert CHECKED.total() - before >= 12
