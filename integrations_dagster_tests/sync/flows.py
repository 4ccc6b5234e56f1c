"""Every kind of flow that makes records, and what a test wants to know of it: for the tests of faults and of kills."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, ModelSpec, SyncSpec, TargetSpec
from integrations_dagster.vocabulary import Mode

COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of flow.

    Attributes:
        name: For the test's id.
        destination: Kind of the destination.
        mode: Mode of the sync.
        exact: Whether a lost answer is resolved in the end, so that no row stays in doubt.
        match: Whether records are told apart by email.
    """

    name: str
    destination: str
    mode: Mode
    exact: bool
    match: bool = False


PLAIN = Kind("insert", "sandbox_insert", Mode.INSERT, exact=False)
KEYED = Kind("insert-with-key", "sandbox_insert_keyed", Mode.INSERT, exact=True)
JOB = Kind("insert-by-job", "sandbox_jobs", Mode.INSERT, exact=False)
JOB_UPSERT = Kind("upsert-by-job", "sandbox_jobs", Mode.UPSERT, exact=True)
CREATE = Kind("hubspot-create", "hubspot", Mode.INSERT, exact=False)
VERIFIED = Kind("hubspot-create-and-look-up", "hubspot", Mode.INSERT, exact=True, match=True)
KINDS = (PLAIN, KEYED, JOB, JOB_UPSERT, CREATE, VERIFIED)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows of one test go: a receiver, or contacts, that no other test uses.

    Attributes:
        kind: How they get there.
        name: Of the sync and of the destination.
        client: Asks the sandbox.
    """

    kind: Kind
    name: str
    client: SandboxClient

    def sync(self, model: ModelSpec, *, timeout: float = 1.0, in_flight: int = 4, **changes: Any) -> SyncSpec:
        """A sync of (id, email, firstname)."""
        crm = self.kind.destination == "hubspot"
        settings: dict[str, Any] = {
            "name": self.name,
            "model": model,
            "destination": DestinationSpec(
                self.name,
                self.kind.destination,
                TargetSpec("sandbox", sandbox=True),
                timeout=timeout,
                in_flight=in_flight,
                # No test of outages waits for a published quota.
                quotas=(),
            ),
            "object": "contacts" if crm else "people",
            "mode": self.kind.mode,
            "match": {"email": "email"} if self.kind.match else {},
            "fields": (FieldSpec("email", "email"), FieldSpec("firstname", "firstname")),
            "batch_rows": 7,
            "source": f"defs/{self.name}/defs.yaml:1",
        }
        return SyncSpec(**{**settings, **changes})

    def email(self, key: int) -> str:
        return f"{self.name}-{key}@example.com"

    def rows(self, keys: Iterable[int], version: int = 1) -> list[dict[str, object]]:
        """Rows of the model."""
        return [{"id": key, "email": self.email(key), "firstname": f"{key} v{version}"} for key in keys]

    def made(self) -> Counter[str]:
        """How many records the destination has made of each key, ever."""
        if self.kind.destination != "hubspot":
            return Counter(self.client.insert_counts(self.name, "people"))
        found = Counter[str]()
        for record in self.client.records("contacts", archived=True):
            local = record["properties"].get("email", "").removesuffix("@example.com")
            name, _, key = local.rpartition("-")
            if name == self.name:
                found[key] += 1
        return found

    def lost(self, since: int) -> set[str]:
        """Keys of rows that were sent by a request whose answer was lost, or no usable one."""
        keys: set[str] = set()
        for request in self.client.received(10_000, since, bodies=True):
            if request["method"] == "POST" and _lost(request) and not request["path"].endswith("/read"):
                keys |= self._keys(request["body"])
        return keys

    def _keys(self, body: str) -> set[str]:
        document = json.loads(body)
        if "rows" in document:
            return {row["key"] for row in document["rows"]}
        emails = [entry["properties"]["email"] for entry in document["inputs"]]
        return {
            email.removesuffix("@example.com").rpartition("-")[2] for email in emails if email.startswith(self.name)
        }


SPOILED = frozenset({"malformed", "truncated", "oversized", "endless", "slow_head", "empty", "hold", "reset"})


def _lost(request: Mapping[str, Any]) -> bool:
    kinds = {kind.strip() for kind in request["fault"].split(",")}
    return request["status"] is None or request["status"] >= 500 or bool(SPOILED & kinds)
