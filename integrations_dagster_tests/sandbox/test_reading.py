"""The sandbox's owners, and properties that change under a sync."""

from __future__ import annotations

import pytest

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster_tests.sandbox.conftest import Api
from integrations_dagster_tests.sandbox.test_contract import SPECS, Contract


def test_owners_come_in_pages_and_deactivated_ones_apart(api: Api, sandbox: SandboxClient) -> None:
    ids = [sandbox.define_owner(f"o{n}@example.com", f"Owner {n}") for n in range(5)]
    gone = sandbox.define_owner("gone@example.com", archived=True)
    seen: list[str] = []
    after: str | None = "0"
    for _ in range(3):
        page = api.call("GET", f"/crm/v3/owners?limit=2&after={after}").json()
        seen += [owner["id"] for owner in page["results"]]
        after = page.get("paging", {}).get("next", {}).get("after")
    assert (seen, after) == (ids, None)
    assert [o["id"] for o in api.call("GET", "/crm/v3/owners?archived=true").json()["results"]] == [gone]
    assert [o["id"] for o in api.call("GET", "/crm/v3/owners?email=O3@example.com").json()["results"]] == [ids[3]]
    assert sandbox.archive_owner(ids[0])
    assert not sandbox.archive_owner("1")
    assert len(api.call("GET", "/crm/v3/owners").json()["results"]) == 4
    assert api.call("GET", f"/crm/v3/owners/{ids[0]}").status_code == 404
    assert api.call("GET", f"/crm/v3/owners/{ids[1]}").json()["email"] == "o1@example.com"
    assert api.call("GET", "/crm/v3/owners?limit=501").status_code == 400
    sandbox.reset()
    assert api.call("GET", "/crm/v3/owners").json() == {"results": []}
    assert sandbox.define_owner("o0@example.com") not in {*ids, gone}


def test_a_property_that_goes_takes_its_values_along(api: Api, sandbox: SandboxClient) -> None:
    api.upsert("a@example.com", plan="pro", firstname="A")
    assert sandbox.remove_property("contacts", "plan")
    assert sandbox.remove_property("contacts", "firstname")
    assert not sandbox.remove_property("contacts", "plan")
    assert sandbox.records("contacts")[0]["properties"] == {"email": "a@example.com"}
    names = {p["name"] for p in api.call("GET", "/crm/v3/properties/contacts").json()["results"]}
    assert names.isdisjoint({"plan", "firstname"})
    refused = api.upsert("a@example.com", plan="pro")
    assert (refused.status_code, "PROPERTY_DOESNT_EXIST" in refused.text) == (400, True)
    sandbox.define_property("contacts", "plan", "number")
    assert api.upsert("a@example.com", plan="7").status_code == 200
    sandbox.reset()
    assert api.upsert("a@example.com", plan="pro", firstname="A").status_code == 200


def test_a_property_changes_its_type_and_who_may_write_it(api: Api, sandbox: SandboxClient) -> None:
    assert sandbox.change_property("contacts", "plan", type="enumeration", options=["a", "b"])["type"] == "enumeration"
    assert "INVALID_OPTION" in api.upsert("a@example.com", "b@example.com", plan="c").text
    changed = sandbox.change_property("contacts", "plan", read_only=True, label="The plan")
    assert (changed["modificationMetadata"]["readOnlyValue"], changed["label"]) == (True, "The plan")
    assert "READ_ONLY_VALUE" in api.upsert("a@example.com", plan="a").text
    for changes in ({"nonsense": 1}, {"type": "blob"}, {"sensitivity": "x"}):
        with pytest.raises(ValueError, match=r"nonsense|blob|sensitivity"):
            sandbox.change_property("contacts", "plan", **changes)
    with pytest.raises(ValueError, match="no property nothing"):
        sandbox.change_property("contacts", "nothing", read_only=True)


def test_sensitive_properties_are_listed_when_they_are_asked_for(api: Api, sandbox: SandboxClient) -> None:
    sandbox.change_property("contacts", "plan", sensitivity="sensitive")

    def listed(query: str) -> bool:
        results = api.call("GET", f"/crm/v3/properties/contacts{query}").json()["results"]
        return "plan" in {p["name"] for p in results}

    assert (listed(""), listed("?dataSensitivity=sensitive"), listed("?dataSensitivity=highly_sensitive")) == (
        False,
        True,
        False,
    )


@pytest.mark.skipif(not SPECS, reason="INTEGRATIONS_SPECS does not name the folder of HubSpot's OpenAPI files")
def test_readings_fit_the_vendors_files(api: Api, sandbox: SandboxClient) -> None:
    sandbox.define_owner("a@example.com", "A", "B")
    sandbox.define_owner(None, archived=True)
    # HubSpot publishes the dated path alone; parameters and answers are those of v3.
    owners, template = Contract("hubspot-owners-2025-09.json"), "/crm/owners/2025-09"
    for query in ("", "?limit=1", "?archived=true", "?email=a@example.com"):
        assert owners.exchange(api, "GET", template, f"/crm/v3/owners{query}").status_code == 200
    id_ = sandbox.define_owner("b@example.com")
    assert owners.exchange(api, "GET", f"{template}/{{ownerId}}", f"/crm/v3/owners/{id_}").status_code == 200
    properties, template = Contract("hubspot-properties-v3.json"), "/crm/v3/properties/{objectType}"
    sandbox.change_property("contacts", "plan", type="enumeration", options=["a"], sensitivity="sensitive")
    for query in ("", "?dataSensitivity=sensitive", "?archived=true"):
        assert properties.exchange(api, "GET", template, f"/crm/v3/properties/contacts{query}").status_code == 200
    one = "/crm/v3/properties/contacts/lead_source"
    assert properties.exchange(api, "DELETE", f"{template}/{{propertyName}}", one).status_code == 204
    assert properties.exchange(api, "DELETE", f"{template}/{{propertyName}}", one).status_code == 404
    assert owners.checked + properties.checked == 9
