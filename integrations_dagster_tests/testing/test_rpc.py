"""Kinds `jsonrpc` and `xmlrpc` conform: records that are looked up and then created or changed, and calls of one row
that go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from integrations_dagster.sync.spec import AuthSpec, Env
from integrations_dagster.testing import TEXTS, Subject, conformance_tests
from integrations_dagster_tests.rpc_store import BASE, TOGETHER, TOKEN, Store, running_store


class People(Subject):
    """Look-up, then one call that creates and one that changes: what was sent twice would be there twice."""

    destination = "jsonrpc"
    option = BASE
    object = "person"
    match = ("email",)
    text = "name"
    auth = AuthSpec("api_key", {"header": "X-Session", "key": Env("STORE_SESSION")})
    env = {"STORE_SESSION": TOKEN}  # noqa: RUF012
    store: Store

    @contextmanager
    def serve(self) -> Iterator[str]:
        with running_store() as self.store:
            yield self.store.url

    def reset(self) -> None:
        self.store.records.clear()

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for record in list(self.store.records.values()):
            yield record["email"], record

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"email": f"{key}@example.com", "name": f"Name {version}", "age": 40 + version, "vip": True}

    def bad(self, key: str, version: int) -> dict[str, Any]:
        return {**self.good(key, version), "name": "bad name"}


class PeopleTogether(People):
    """A call for each row, many in one request, answered in another order."""

    option = TOGETHER


class PeopleOverXml(People):
    """As `People`, over XML-RPC."""

    destination = "xmlrpc"
    # XML 1.0 has no control characters.
    texts: Sequence[str] = TEXTS


class PeopleTogetherOverXml(PeopleOverXml):
    """A call for each row, by `system.multicall`."""

    option = TOGETHER


TestPeopleTogether = conformance_tests(PeopleTogether())
# Six modes, and in some checks the time after which a lost request can take effect no more.
TestPeople = pytest.mark.slow(conformance_tests(People()))
# The same flows; what differs is how calls are written and read.
TestPeopleOverXml = pytest.mark.slow(conformance_tests(PeopleOverXml()))
TestPeopleTogetherOverXml = pytest.mark.slow(conformance_tests(PeopleTogetherOverXml()))
