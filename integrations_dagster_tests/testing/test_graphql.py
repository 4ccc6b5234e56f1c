"""Kind `graphql` conforms, with the YAML of its own page and an API with a real engine of GraphQL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from integrations_dagster.sync.spec import AuthSpec, Env
from integrations_dagster.testing import Answer, Subject, conformance_tests
from integrations_dagster_tests.graphql_shop import Shop
from integrations_dagster_tests.http_apis import served

PAGE = (Path(__file__).parents[2] / "docs" / "destinations" / "graphql.md").read_text("utf-8")
APIS: dict[str, Any] = {
    document["attributes"]["name"]: document["attributes"]["api"]
    for document in map(yaml.safe_load, re.findall(r"```yaml\n(type: .*?)```", PAGE, re.DOTALL))
}


class Aliases(Subject):
    """A mutation of one row, sent for many under aliases; throttled inside a 200."""

    destination = "graphql"
    option = APIS["shop"]
    object = "customers"
    match = ("email",)
    text = "nick"
    auth = AuthSpec("bearer", {"token": Env("SHOP_TOKEN")})
    env = {"SHOP_TOKEN": Shop.TOKEN}  # noqa: RUF012
    throttled = Answer.json(
        200,
        {
            "errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}],
            "extensions": {
                "cost": {
                    "requestedQueryCost": 100,
                    "throttleStatus": {"currentlyAvailable": 0, "restoreRate": 100},
                }
            },
        },
    )
    expired = Answer.json(200, {"errors": [{"message": "Who?", "extensions": {"code": "UNAUTHENTICATED"}}]})
    api: Shop

    @contextmanager
    def serve(self) -> Iterator[str]:
        self.api = Shop()
        with served(self.api.app()) as url:
            yield url

    def reset(self) -> None:
        self.api.customers.clear()

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for customer in list(self.api.customers.values()):
            yield customer["email"], customer

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"email": f"{key}@example.com", "name": "Kim", "nick": f"Nick {version}", "age": 30}

    def bad(self, key: str, version: int) -> dict[str, Any]:
        return {**self.good(key, version), "name": "bad Kim"}


class Lists(Aliases):
    """A mutation of a list, whose entries are results or errors."""

    option = APIS["shop_lists"]


class Searched(Aliases):
    """A search, then a mutation of a list that is taken whole or not at all, or changes under aliases."""

    option = APIS["shop_searched"]


TestAliases = conformance_tests(Aliases())
TestLists = pytest.mark.slow(conformance_tests(Lists()))
TestSearched = pytest.mark.slow(conformance_tests(Searched()))
