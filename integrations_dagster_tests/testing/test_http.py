"""Kind `http` conforms, with the YAML of its own page and the two APIs that this describes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from integrations_dagster.sync.spec import AuthSpec, Env
from integrations_dagster.testing import Subject, conformance_tests
from integrations_dagster_tests.http_apis import Imports, Stockroom, served

PAGE = (Path(__file__).parents[2] / "docs" / "destinations" / "http.md").read_text("utf-8")
APIS: dict[str, Any] = {
    document["attributes"]["name"]: document["attributes"]["api"]
    for document in map(yaml.safe_load, re.findall(r"```yaml\n(type: .*?)```", PAGE, re.DOTALL))
    if document["type"].endswith(".Destination")
}
# The suite waits until work of a lost request can take effect no more: not ten minutes, of jobs that take a moment.
APIS["imports"]["objects"]["customers"]["upsert"]["job"].update(every=0.05, patience=2)


class Articles(Subject):
    """Batches, row errors inside a 200, a key in a header."""

    destination = "http"
    option = APIS["stockroom"]
    object = "articles"
    match = ("sku",)
    text = "title"
    auth = AuthSpec("api_key", {"header": "X-Stockroom-Key", "key": Env("STOCKROOM_KEY")})
    env = {"STOCKROOM_KEY": Stockroom.KEY}  # noqa: RUF012
    api: Stockroom

    @contextmanager
    def serve(self) -> Iterator[str]:
        self.api = Stockroom()
        with served(self.api.app()) as url:
            yield f"{url}/v2"

    def reset(self) -> None:
        self.api.articles.clear()

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for article in list(self.api.articles.values()):
            yield article["sku"], article

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"sku": key, "name": "Chair", "title": f"Title {version}", "price": 12.5}

    def bad(self, key: str, version: int) -> dict[str, Any]:
        return {**self.good(key, version), "name": "bad chair"}


class Customers(Subject):
    """Jobs."""

    destination = "http"
    option = APIS["imports"]
    object = "customers"
    text = "name"
    auth = AuthSpec("basic", {"username": Imports.USER, "password": Env("IMPORTS_PASSWORD")})
    env = {"IMPORTS_PASSWORD": Imports.PASSWORD}  # noqa: RUF012
    api: Imports

    @contextmanager
    def serve(self) -> Iterator[str]:
        self.api = Imports()
        with served(self.api.app()) as url:
            yield url

    def reset(self) -> None:
        self.api.customers.clear()

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield from list(self.api.customers.items())

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"name": f"Name {version}", "email": f"{key}@example.com"}

    def bad(self, key: str, version: int) -> dict[str, Any]:
        return {"name": f"Name {version}", "email": ""}


TestArticles = conformance_tests(Articles())
TestCustomers = pytest.mark.slow(conformance_tests(Customers()))
