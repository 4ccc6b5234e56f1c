"""The destinations of this project that the sandbox stands in for, as subjects of the conformance suite."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.process import ensure_running, stop
from integrations_dagster.testing import CONTROLS, TEXTS, Answer, Subject
from integrations_dagster.vocabulary import Action


class Sandboxed(Subject):
    """What a sandbox of its own stands in for."""

    client: SandboxClient
    path = ""

    @contextmanager
    def serve(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
            endpoint, _ = ensure_running(Path(folder))
            self.client, self.token, self.secret = SandboxClient(endpoint), endpoint.token, endpoint.secret
            try:
                yield f"{endpoint.url}{self.path}"
            finally:
                stop(Path(folder))

    def reset(self) -> None:
        self.client.reset()
        # The suite's own pace, not the portal's.
        self.client.configure(quota={"limit": 1_000_000, "window": 1.0})


class Contacts(Sandboxed):
    """HubSpot contacts, matched by email."""

    destination = "hubspot"
    object = "contacts"
    match = ("email",)
    text = "firstname"
    # The sandbox takes an empty text for no value, as HubSpot does.
    texts = (*TEXTS, *CONTROLS)
    request_id = "x-hubspot-correlation-id"

    def reset(self) -> None:
        super().reset()
        self.client.define_property(self.object, "ltv", "number")

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for record in self.client.records(self.object):
            yield record["properties"].get(self.match[0], record["id"]), record["properties"]

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"email": f"{key}@example.com", "firstname": f"Name {version}", "ltv": "12.50"}

    def bad(self, key: str, version: int) -> dict[str, Any]:
        return {**self.good(key, version), "ltv": "a lot"}


class Companies(Contacts):
    """HubSpot companies, matched by a property of one's own."""

    object = "companies"
    match = ("warehouse_id",)
    text = "name"

    def reset(self) -> None:
        super().reset()
        self.client.define_property("companies", "warehouse_id", unique=True)

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"warehouse_id": key, "name": f"Name {version}", "ltv": "12.50"}


class Hook(Sandboxed):
    """A webhook."""

    destination = "webhook"
    object = "people"
    text = "name"
    path = "/webhook/conformance"

    def trusts(self, action: Action) -> str:
        return "a receiver confirms a delivery by its status (Standard Webhooks)."

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield from self.client.webhook_records("conformance", self.object).items()

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"name": f"Name {version}", "age": 40 + version, "vip": True}


class Inserts(Sandboxed):
    """Inserts without a key."""

    destination = "sandbox_insert"
    object = "people"
    text = "name"
    path = "/inserts/conformance"

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {"name": f"Name {version}", "age": 40 + version, "vip": True}

    def reset(self) -> None:
        super().reset()
        self.client.faults([{"match": {}, "fault": {"kind": "reject_rows", "with": "no such name"}}])

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for entry in self.client.inserted("conformance", self.object):
            yield entry["key"], entry["record"]

    def bad(self, key: str, version: int) -> dict[str, Any]:
        return {**self.good(key, version), "name": "no such name"}


class KeyedInserts(Inserts):
    """Inserts with an idempotency key."""

    destination = "sandbox_insert_keyed"


class Jobs(Inserts):
    """Bulk jobs."""

    destination = "sandbox_jobs"
    path = "/jobs/conformance"


class SalesforceContacts(Sandboxed):
    """Salesforce contacts, matched by an external id."""

    destination = "salesforce"
    object = "Contact"
    match = ("Customer_Id__c",)
    text = "Notes__c"
    throttled = Answer.json(
        403,
        [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "ConcurrentRequests Limit exceeded."}],
        retry_after="1",
    )
    expired = Answer.json(401, [{"errorCode": "INVALID_SESSION_ID", "message": "Session expired or invalid"}])
    request_id = "x-sfdc-request-id"

    def reset(self) -> None:
        super().reset()
        self.client.define_salesforce(self.object, self.text, "textarea", length=32_000)

    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for record in self.client.salesforce_records(self.object):
            yield record["fields"].get(self.match[0], record["id"]), record["fields"]

    def good(self, key: str, version: int) -> dict[str, Any]:
        return {
            "Customer_Id__c": key,
            "LastName": "Name",
            "Notes__c": f"Note {version}",
            "Lifetime_Value__c": Decimal("12.50"),
        }

    def bad(self, key: str, version: int) -> dict[str, Any]:
        return {**self.good(key, version), "Email": "nobody"}
