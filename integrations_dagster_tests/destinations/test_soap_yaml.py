"""What YAML may say of kind `soap`: mistakes are told when it is read, and name what is possible."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from lxml import etree  # type: ignore[import-untyped]
from pydantic import ValidationError

from integrations_dagster.destinations.base import Batch, Request
from integrations_dagster.destinations.soap import forms
from integrations_dagster.destinations.soap.destination import Soap
from integrations_dagster.destinations.soap.forms import SoapApi
from integrations_dagster.destinations.soap.wsdl import MARK, Wsdl
from integrations_dagster.vocabulary import Action, Misconfigured, Mode
from integrations_dagster_tests.destinations.test_soap import row
from integrations_dagster_tests.soap_api import API, read, soap

PARTNER = "salesforce-partner.wsdl.xml"
XSD = "{http://www.w3.org/2001/XMLSchema}"


def mistakes(text: str) -> list[str]:
    """Path and text of each mistake."""
    with pytest.raises(ValidationError) as raised:
        soap(text)
    return [f"{'.'.join(map(str, error['loc']))} {error['msg']}" for error in raised.value.errors()]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("operation: saveMembers", "operation: saveMember", 'Did you mean "saveMembers"?'),
        ("{source:", "{sauce:", 'body.sauce is no element of it in the WSDL. Did you mean "source"?'),
        ('member: "{rows}"', 'members: "{rows}"', 'Did you mean "member"?'),
        ("port: Registry11", "port: Registry13", "It has: Registry11, Registry12."),
        ("port: Registry11", "service: Registri", 'has no service "Registri". Did you mean "RegistryService"?'),
        ("wsdl: registry.wsdl", "wsdl: nowhere.wsdl", '"nowhere.wsdl" is no file of the project'),
        ("wsdl: registry.wsdl", "wsdl: registry.xsd", "has no service: it is no WSDL"),
        ("{token:", "{tokens:", 'soap_headers are not what the WSDL says: Session: "tokens" is no element of it'),
        ("{Session:", "{Sessions:", "soap_headers.Sessions is no header of saveMembers"),
        ("      rows: 50\n      body: {source", "      request: POST /\n      body: {source", "request is no key here"),
        ("answer: {results: outcome, success: ok, id: memberId, created", "answer: {created", "means. Say where"),
        ('email: "{matches}"', 'email: "x {matches}"', "within a longer text"),
        ("path: /registry", "encoding: xml", "encoding is no key here"),
        ("objects:", "objekts:", "objekts is no key here"),
        ("      operation: dropMembers\n", "", "objects.members.delete.operation Field required"),
    ],
)
def test_mistakes_are_told(before: str, after: str, told: str) -> None:
    assert before in API
    assert any(told in line for line in mistakes(API.replace(before, after, 1))), mistakes(
        API.replace(before, after, 1)
    )


def test_an_item_must_have_elements_of_the_row() -> None:
    text = API.replace(
        'member: "{rows}"}\n', 'member: "{rows}"}\n      item: {mail: "{match}", "...": "{record}"}\n', 1
    )
    assert any(
        'upsert.item.mail is no element of it in the WSDL. Did you mean "email"?' in line for line in mistakes(text)
    )


def test_several_rows_need_an_element_that_may_be_repeated() -> None:
    text = API.replace('source: "{sync}", member: "{rows}"', 'source: "{rows}", member: "x"')
    assert any("allows one element 'source' only" in line for line in mistakes(text))


def test_more_rows_than_the_schema_allows_are_refused() -> None:
    def narrow(path: str) -> bytes:
        return read(path).replace(
            b'"member" type="m:Member" maxOccurs="unbounded"', b'"member" type="m:Member" maxOccurs="20"'
        )

    with pytest.raises(ValidationError, match="allows 20 elements 'member'"):
        Soap.from_yaml(API, "Registry", narrow)


def test_a_wsdl_that_imports_from_another_host_is_not_read() -> None:
    def loose(path: str) -> bytes:
        return read(path).replace(b'schemaLocation="registry.xsd"', b'schemaLocation="http://127.0.0.1:1/registry.xsd"')

    with pytest.raises(ValueError, match="cannot be read as a WSDL"):
        Wsdl("registry.wsdl", loose)


def test_a_wsdl_with_entities_is_not_read() -> None:
    def bomb(path: str) -> bytes:
        return read(path).replace(b"<!-- A", b'<!DOCTYPE definitions [<!ENTITY a "b">]><!-- A')

    with pytest.raises(ValueError, match="cannot be read as a WSDL"):
        Wsdl("registry.wsdl", bomb)


def test_a_field_that_the_wsdl_has_not_is_told_with_the_sync() -> None:
    registry = soap()
    registry.check("members", Mode.MIRROR, ["email"], ["name", "address.city"])
    with pytest.raises(Misconfigured, match=r'"nmae" is no element of it in the WSDL\. Did you mean "name"'):
        registry.check("members", Mode.UPSERT, ["email"], ["nmae"])
    with pytest.raises(Misconfigured, match="lacks `create`"):
        registry.check("members", Mode.INSERT, ["email"], ["name"])


def partner() -> Path:
    folder = Path(os.environ.get("INTEGRATIONS_SPECS", ""))
    if not (folder / PARTNER).is_file():
        pytest.skip(f"INTEGRATIONS_SPECS names no folder with {PARTNER}")
    return folder


def of_page() -> dict[str, Any]:
    text = (Path(__file__).parents[2] / "docs" / "destinations" / "soap.md").read_text("utf-8")
    block = text.split("```yaml\n")[1].split("```")[0]
    api: dict[str, Any] = next(yaml.safe_load_all(block))["attributes"]["api"]
    return api | {"wsdl": PARTNER}


def schemas(folder: Path) -> Any:
    """The schemas of the WSDL as one validator, which the package has no part in."""
    tree = etree.parse(str(folder / PARTNER))
    found = {schema.get("targetNamespace"): schema for schema in tree.iter(f"{XSD}schema")}

    class Inside(etree.Resolver):  # type: ignore[misc]
        def resolve(self, url: str, pubid: str, context: Any) -> Any:
            return self.resolve_string(etree.tostring(found[url.removeprefix("ns:")]), context)

    parser = etree.XMLParser()
    parser.resolvers.add(Inside())
    for schema in found.values():
        for node in schema.iter(f"{XSD}import"):
            node.set("schemaLocation", f"ns:{node.get('namespace')}")
    own = found["urn:partner.soap.sforce.com"]
    return etree.XMLSchema(etree.fromstring(etree.tostring(own), parser))


def test_requests_by_the_partner_wsdl_fit_its_schema() -> None:
    folder = partner()
    destination = Soap({}, SoapApi.model_validate(of_page(), context={"read": lambda p: (folder / p).read_bytes()}))
    schema = schemas(folder)
    rows = [
        row(1, LastName="Zoë <&>", Amount__c="1.50", Active__c=True, Note__c=None, Id=None),
        row(2, LastName="李小龍", Birthdate="2026-08-01"),
    ]
    checked = []
    for action in (Action.CREATE, Action.UPSERT, Action.UPDATE, Action.DELETE):
        own = tuple(
            dataclasses.replace(one, action=action, destination_id=f"00300000000000{place}AAA")
            for place, one in enumerate(rows)
        )
        if action is Action.DELETE:
            own = tuple(dataclasses.replace(one, encoded=b"") for one in own)
        request = next(destination.deliver(Batch("s", "Contact", action, ("Ext__c",), own, "k")))
        assert isinstance(request, Request)
        root = etree.fromstring((request.body or b"").replace(MARK, b"token"))
        header, body = root
        for part in (*header, body[0]):
            schema.assertValid(part)
            checked.append(etree.QName(part).localname)
    assert {"create", "upsert", "update", "delete", "SessionHeader", "AllOrNoneHeader"} == set(checked)


FORMS = sorted(
    {form for form in vars(forms).values() if isinstance(form, type) and issubclass(form, forms.Narrowed)},
    key=lambda form: form.__name__,
)


@pytest.mark.parametrize("form", FORMS)
def test_every_key_is_on_its_page_or_on_that_of_kind_http(form: type[forms.Narrowed]) -> None:
    folder = Path(__file__).parents[2] / "docs" / "destinations"
    words = {}
    for name in ("soap", "http"):
        text = re.sub(r"```.*?```|``.*?``", "", (folder / f"{name}.md").read_text("utf-8"), flags=re.DOTALL)
        words[name] = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text))))
    assert set(form.keys()) <= words["soap"] | words["http"]
    assert set(form.__annotations__) & set(form.keys()) <= words["soap"]


def test_the_schema_for_editors_has_no_key_that_is_refused() -> None:
    schema = SoapApi.model_json_schema()
    for name, form in schema["$defs"].items():
        if name.startswith("Soap") and name != "SoapObjectKeys":
            assert not {"request", "query", "encoding"} & set(form["properties"]), name
    assert "encoding" not in schema["properties"]
    assert "wsdl" in schema["properties"]
