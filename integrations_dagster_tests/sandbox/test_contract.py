"""The sandbox's answers, and the requests it takes, against HubSpot's own OpenAPI files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster_tests.sandbox.conftest import Api, upsert_input

SPECS = os.environ.get("INTEGRATIONS_SPECS")
pytestmark = pytest.mark.skipif(
    not SPECS, reason="INTEGRATIONS_SPECS does not name the folder of HubSpot's OpenAPI files"
)


class Contract:
    """Validates bodies against one OpenAPI file, and counts them."""

    def __init__(self, file: str) -> None:
        self.spec = json.loads((Path(SPECS or "") / file).read_text(encoding="utf-8"))
        self.checked = 0

    def _validate(self, value: Any, schema: dict[str, Any]) -> None:
        # "#/components/..." resolves against the schema's root.
        jsonschema.Draft202012Validator(
            {**schema, "components": self.spec["components"]},
            format_checker=jsonschema.FormatChecker(),
        ).validate(value)
        self.checked += 1

    def exchange(self, api: Api, method: str, template: str, path: str, body: Any = None) -> Any:
        operation = self.spec["paths"][template][method.lower()]
        if body is not None:
            self._validate(body, next(iter(operation["requestBody"]["content"].values()))["schema"])
        answer = api.call(method, path, body)
        response = operation["responses"].get(str(answer.status_code))
        if response is None:
            self._validate(answer.json(), {"$ref": "#/components/schemas/Error"})
        elif answer.status_code == 204:
            assert answer.content == b""
        else:
            self._validate(answer.json(), next(iter(response["content"].values()))["schema"])
        return answer


@pytest.mark.parametrize(("object_", "key"), [("contacts", "contactId"), ("companies", "companyId")])
def test_objects(api: Api, sandbox: SandboxClient, object_: str, key: str) -> None:
    contract = Contract(f"hubspot-{object_}-v3.json")
    base = f"/crm/v3/objects/{object_}"
    match = "email" if object_ == "contacts" else "company_ref"

    def value(n: int) -> str:
        return f"a{n}@example.com" if object_ == "contacts" else f"c{n}"

    def inputs(*values: str, **properties: str) -> dict[str, Any]:
        return {"inputs": [upsert_input(v, **properties) | {"idProperty": match} for v in values]}

    def post(operation: str, body: dict[str, Any], status: int) -> Any:
        path = f"{base}/batch/{operation}"
        answer = contract.exchange(api, "POST", path, path, body)
        assert answer.status_code == status
        return answer.json() if answer.content else None

    post("upsert", inputs(value(1), value(2), plan="pro"), 200)
    created = post("upsert", inputs(value(1), value(3)), 200)
    failed = inputs(value(4)) | {}
    failed["inputs"].append(inputs(value(5), lifecyclestage="nonsense")["inputs"][0])
    post("upsert", failed, 207)
    post("upsert", inputs(value(1), nonsense="x"), 400)
    post("upsert", inputs(value(1), value(1)), 400)
    ids = [entry["id"] for entry in created["results"]]
    read: dict[str, Any] = {"properties": [match, "plan"], "propertiesWithHistory": [], "inputs": [{"id": ids[0]}]}
    post("read", read, 200)
    post("read", read | {"inputs": [{"id": "1"}, {"id": ids[1]}]}, 207)
    post("read", read | {"inputs": [{"id": value(1)}], "idProperty": match}, 200)
    post("update", {"inputs": [{"id": ids[0], "properties": {"plan": ""}}]}, 200)
    post("update", {"inputs": [{"id": ids[0], "properties": {match: value(2)}, "objectWriteTraceId": "t"}]}, 207)
    post("create", {"inputs": [{"properties": {match: value(6)}, "associations": []}]}, 201)
    post("create", {"inputs": [{"properties": {match: value(6)}, "associations": [], "objectWriteTraceId": "t"}]}, 207)
    post("archive", {"inputs": [{"id": ids[0]}]}, 204)
    one = f"{base}/{{{key}}}"
    single = contract.exchange(api, "POST", base, base, {"properties": {match: value(7)}, "associations": []})
    assert single.status_code == 201
    id_ = single.json()["id"]
    assert contract.exchange(api, "PATCH", one, f"{base}/{id_}", {"properties": {"plan": "x"}}).status_code == 200
    assert contract.exchange(api, "GET", one, f"{base}/{id_}").status_code == 200
    assert contract.exchange(api, "GET", one, f"{base}/1").status_code == 404
    assert contract.exchange(api, "GET", base, f"{base}?limit=2").status_code == 200
    assert contract.exchange(api, "GET", base, f"{base}?archived=true").status_code == 200
    assert contract.exchange(api, "DELETE", one, f"{base}/{id_}").status_code == 204
    sandbox.configure(quota={"limit": 1, "window": 60})
    assert contract.exchange(api, "GET", base, base).status_code == 200
    assert contract.exchange(api, "GET", base, base).status_code == 429
    api.session.headers["Authorization"] = "Bearer wrong"
    assert contract.exchange(api, "GET", base, base).status_code == 401
    assert contract.checked >= 35
    print(f"{contract.checked} bodies checked against HubSpot's schemas for {object_}")


def test_properties(api: Api) -> None:
    contract = Contract("hubspot-properties-v3.json")
    template, path = "/crm/v3/properties/{objectType}", "/crm/v3/properties/contacts"
    assert contract.exchange(api, "GET", template, path).status_code == 200
    definition = {"name": "tier", "label": "Tier", "type": "string", "fieldType": "text", "groupName": "g"}
    assert contract.exchange(api, "POST", template, path, definition).status_code == 201
    assert contract.exchange(api, "POST", template, path, definition).status_code == 409
    assert contract.exchange(api, "GET", f"{template}/{{propertyName}}", f"{path}/tier").status_code == 200
    assert contract.checked == 6
