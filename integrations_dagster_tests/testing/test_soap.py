"""Kind `soap` conforms, against a small endpoint of SOAP 1.1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from integrations_dagster.sync.spec import AuthSpec, Env
from integrations_dagster.testing import TEXTS, Answer, Subject, conformance_tests
from integrations_dagster_tests.http_apis import served
from integrations_dagster_tests.soap_api import LOGIN, PASSWORD, SPACES, USER, Registry, fault, soap

XML = {"content-type": "text/xml; charset=utf-8"}


class Members(Subject):
    """Batches, results in order, a session that travels in the body."""

    destination = "soap"
    option = soap().api
    object = "members"
    match = ("email",)
    text = "name"
    # XML 1.0 has no control characters.
    texts = TEXTS
    auth = AuthSpec(
        "session",
        {
            # Not by way of the suite's proxy, to which it would be one more request of the batch.
            "login_url": Env("REGISTRY_LOGIN"),
            "login_xml": LOGIN.format(space=SPACES["1.1"]),
            "username": USER,
            "password": Env("REGISTRY_PASSWORD"),
            "token_path": "Envelope.Body.loginResponse.token",
            "token_in": "body",
        },
    )
    throttled = Answer(500, fault("BUSY", "Too many at once"), XML | {"retry-after": "1"})
    expired = Answer(500, fault("NO_SESSION", "The session has ended"), XML)
    api: Registry

    @contextmanager
    def serve(self) -> Iterator[str]:
        self.api = Registry()
        with served(self.api.app()) as url:
            self.env = {"REGISTRY_PASSWORD": PASSWORD, "REGISTRY_LOGIN": f"{url}/registry"}
            yield url

    def reset(self) -> None:
        self.api.members.clear()

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for member in list(self.api.members.values()):
            yield str(member["email"]), member

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"email": f"{key}@example.com", "name": f"Name {version}", "balance": 12.5, "active": True}

    def bad(self, key: str, version: int) -> dict[str, Any]:
        return {**self.good(key, version), "name": "bad name"}


TestMembers = conformance_tests(Members())
