"""A destination of kind salesforce in YAML: what the page shows loads, and what is said of a mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from integrations_dagster.components import Destination
from integrations_dagster.vocabulary import Misconfigured

PAGE = Path(__file__).parents[2] / "docs" / "destinations" / "salesforce.md"


def load(keys: str = "", target: str = "token: {env: T}") -> Destination:
    base = "base_url: https://x.my.salesforce.com"
    text = f"name: sales\nkind: salesforce\n{keys}targets:\n  prod:\n    {base}\n    {target}\n"
    destination: Destination = Destination.resolve_from_yaml(text)
    return destination


def test_the_example_of_the_page_loads_and_its_sync_can_be_done() -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    destination, sync = (document["attributes"] for document in yaml.safe_load_all(found[1]))
    loaded: Any = Destination.resolve_from_yaml(yaml.safe_dump(destination))
    for target in ("sandbox", "prod"):
        made = loaded.spec(target).create()
        made.check(sync["object"], sync["mode"], tuple(sync["match"]), tuple(sync["fields"]))
    assert sync["fields"]["OwnerId"]["lookup"] in [reference.name for reference in made.references()]


def test_the_version_and_further_lookups_reach_the_destination() -> None:
    made = load("api: {version: 62.0, lookups: [Region__c]}\n").spec("prod").create()
    assert made.option.version == "62.0"
    assert made.references()[-1].name == "Region__c"
    assert load().spec("prod").create().option.version == "66.0"


@pytest.mark.parametrize(
    ("keys", "target", "said"),
    [
        ("api: {version: 30.0}\n", "token: {env: T}", "collections can be upserted from 46.0 on"),
        ("api: {version: newest}\n", "token: {env: T}", 'takes a version of the API, as "66.0"'),
        ("api: {versoin: 66.0}\n", "token: {env: T}", "version"),
        ("api: {lookups: [my region]}\n", "token: {env: T}", "no API name of an object"),
        ("", "auth: {kind: basic, username: u, password: {env: P}}", "which Salesforce does not take"),
        ("", "schedules: true", "lacks token (or auth)"),
        ("", "secret: {env: S}\n    token: {env: T}", "is nothing that Salesforce takes"),
    ],
)
def test_mistakes(keys: str, target: str, said: str) -> None:
    with pytest.raises((Misconfigured, ValueError), match=re.escape(said)):
        load(keys, target)
