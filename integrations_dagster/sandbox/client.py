"""Asks the sandbox what it holds and received, and tells it what should go wrong. For tests and the demo."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests

from integrations_dagster.sandbox.endpoint import Endpoint

_PAGE = 5000
_TIMES = 100_000
_TIMEOUT = 60.0


class SandboxClient:
    """Speaks the control API of a sandbox.

    Each call opens a connection of its own, so an instance may be shared by threads and needs no closing.

    Args:
        endpoint: Where the sandbox listens.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def records(self, object_: str, *, archived: bool = False) -> list[dict[str, Any]]:
        """The CRM records of "contacts" or "companies", by ascending id.

        Args:
            object_: "contacts" or "companies".
            archived: Whether archived records are included.

        Returns:
            id (text), properties (name to text), archived (bool), created, updated (ISO 8601), writes (times written).
        """
        return [
            record | {"id": str(record["id"]), "archived": record["archived"] is not None}
            for record in self._pages(f"records/{object_}", "id", 0)
            if archived or record["archived"] is None
        ]

    def webhook_records(self, name: str, object_: str) -> dict[str, dict[str, Any]]:
        """The last record of each key that /webhook/NAME was sent and not told to remove."""
        return {
            entry["key"]: entry["record"]
            for entry in self._pages(f"webhook/{name}/{object_}", "key", "")
            if not entry["removed"]
        }

    def webhook_entries(self, name: str, object_: str) -> dict[str, dict[str, Any]]:
        """What is known of each key, removed ones too: sync, partition, match, record, removed, writes, delivery."""
        return {entry["key"]: entry for entry in self._pages(f"webhook/{name}/{object_}", "key", "")}

    def writes(self, object_: str, by: str = "id") -> dict[str, int]:
        """How often each CRM record was written (created, updated, archived), archived records included.

        Args:
            object_: "contacts" or "companies".
            by: "id", or a property whose values name the records ("email"); records without it are left out, and
                records that share a value are added up.
        """
        counts: dict[str, int] = {}
        for record in self.records(object_, archived=True):
            name = record["id"] if by == "id" else record["properties"].get(by)
            if name is not None:
                counts[name] = counts.get(name, 0) + record["writes"]
        return counts

    def webhook_writes(self, name: str, object_: str) -> dict[str, int]:
        """How often each key was written or removed by deliveries that counted."""
        return {key: entry["writes"] for key, entry in self.webhook_entries(name, object_).items()}

    def received(self, limit: int = 1000, since: int = 0, *, bodies: bool = False) -> list[dict[str, Any]]:
        """The requests that arrived, in order, control requests left out.

        Args:
            limit: Requests at most.
            since: Only requests with a higher `seq`; `last_seq` tells the newest.
            bodies: Whether to include bodies, which are kept from `configure(bodies=True)` on.

        Returns:
            seq, method, path, status (None: no answer), rows, failed_rows, ids (trace ids, or the delivery id),
            started, ended (seconds since the epoch; None: under way, or the sandbox was killed), fault (kinds), body.
        """
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            wanted = min(limit - len(found), 200 if bodies else _PAGE)
            page = self._get("received", since=since, limit=wanted, bodies=int(bodies))["requests"]
            found += page
            if len(page) < wanted:
                break
            since = page[-1]["seq"]
        return found

    def last_seq(self) -> int:
        """The number of the newest request, for `received(since=...)`; 0 before the first."""
        return int(self._get("ping")["last_seq"])

    def stats(self) -> dict[str, Any]:
        """Counts over all requests.

        Returns:
            total, requests ("METHOD path" to status to count; status "none": no answer), rows, failed_rows,
            duplicate_deliveries (webhook name to count), quota (since it was last configured: accepted, throttled,
            throttled_by (limit to count), in_flight, most_in_flight).
        """
        return self._get("stats")

    def faults(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Replace the fault rules; see `integrations_dagster.sandbox.faults`.

        Raises:
            ValueError: What is wrong with a rule; the old rules stay.
        """
        self._post("faults", list(rules))

    def clear_faults(self) -> None:
        """No more faults; requests that are held stay held until `release`."""
        self.faults([])

    def fault_state(self) -> list[dict[str, Any]]:
        """The fault rules in order: fault, matched and fired (requests)."""
        rules: list[dict[str, Any]] = self._get("faults")["rules"]
        return rules

    def release(self) -> int:
        """Let every held request go on; returns how many."""
        return int(self._post("release", {})["released"])

    def held(self) -> int:
        """How many requests are held now."""
        return int(self._get("ping")["held"])

    def wait_held(self, count: int = 1, timeout: float = 20) -> None:
        """Wait until at least `count` requests are held.

        Raises:
            TimeoutError: They are not after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (held := self.held()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"The sandbox holds {held} requests after {timeout:g} seconds, not {count}.")
            time.sleep(0.02)

    def configure(self, **settings: Any) -> dict[str, Any]:
        """Change settings; they last until `reset` or the sandbox stops.

        Args:
            **settings: latency (seconds of every answer), bodies (whether request bodies are kept), quota
                ({"limit": requests, "window": seconds, "retry_after": bool} or a list of them, all of which hold; None:
                the default), concurrency (requests under way at once, or None), retry_style (how a 429 says when to
                come back; see `quota.STYLES`), insert_bytes (of a body), key_seconds (for which idempotency keys are
                remembered), job_seconds (from a job's submission to its last row's effect), and those of tokens; see
                `integrations_dagster.sandbox.settings`.

        Raises:
            ValueError: An unknown setting or an impossible value.
        """
        return self._post("configure", settings)

    def define_property(
        self,
        object_: str,
        name: str,
        type: str = "string",
        *,
        unique: bool = False,
        options: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Add a custom property to "contacts" or "companies"; returns it as HubSpot's properties API shows it.

        Raises:
            ValueError: The name is taken or the type unknown.
        """
        definition = {
            "name": name,
            "label": name,
            "type": type,
            "fieldType": {"string": "text", "bool": "booleancheckbox", "enumeration": "select"}.get(type, type),
            "groupName": "contactinformation" if object_ == "contacts" else "companyinformation",
            "hasUniqueValue": unique,
            "options": [{"label": option, "value": option, "hidden": False} for option in options],
        }
        return self._post(f"properties/{object_}", definition)

    def change_property(self, object_: str, name: str, **changes: Any) -> dict[str, Any]:
        """Change a property of "contacts" or "companies", a standard one too; it lasts until `reset`.

        Args:
            **changes: type, label, options (texts), read_only, unique, sensitivity and others; see
                `integrations_dagster.sandbox.properties.Property`.

        Raises:
            ValueError: There is no such property, or a change is none.
        """
        return self._post(f"properties/{object_}/{name}", changes)

    def remove_property(self, object_: str, name: str) -> bool:
        """Take a property away, with the values that records have of it; returns whether there was one. A standard one
        is back after `reset`; any can be defined anew."""
        return bool(self._call("DELETE", f"properties/{object_}/{name}")["removed"])

    def define_owner(
        self, email: str | None, first_name: str = "", last_name: str = "", *, archived: bool = False
    ) -> str:
        """Add an owner of records; returns its id. Two may have one email."""
        names = {"email": email, "first_name": first_name, "last_name": last_name, "archived": archived}
        return str(self._post("owners", names)["id"])

    def archive_owner(self, id_: str) -> bool:
        """Deactivate an owner; returns whether there is one."""
        return bool(self._call("DELETE", f"owners/{id_}")["archived"])

    def salesforce_records(self, object_: str, *, deleted: bool = False) -> list[dict[str, Any]]:
        """The records of an object of Salesforce ("Contact"), in the order in which they were made.

        Args:
            object_: API name.
            deleted: Whether deleted records are included.

        Returns:
            number, id, fields (name to value), deleted (bool), writes (times written).
        """
        records = self._pages(f"salesforce/{object_}", "number", 0)
        return [record for record in records if deleted or not record["deleted"]]

    def create_salesforce(self, object_: str, **fields: Any) -> str:
        """Make a record of an object of Salesforce as it is, unchecked; returns its id."""
        return str(self._post(f"salesforce/{object_}", fields)["id"])

    def define_salesforce(self, object_: str, name: str, type: str = "string", **changes: Any) -> dict[str, Any]:
        """Add a field to an object of Salesforce, or change one; an object that is new comes into being.

        Args:
            **changes: See `integrations_dagster.sandbox.salesforce_fields.SalesforceField`.

        Raises:
            ValueError: What is wrong with it.
        """
        return self._post(f"salesforce/{object_}/fields", {"name": name, "type": type, **changes})

    def tokens(self) -> dict[str, Any]:
        """What happened to tokens since the last reset.

        Returns:
            granted (token requests by grant; "session" for logins), refused (by error), expired (access tokens
            that were used after they had expired).
        """
        return self._get("tokens")

    def expire_tokens(self) -> int:
        """Let every access token that was issued expire now; returns how many."""
        return int(self._post("tokens/expire", {})["expired"])

    def register_key(self, issuer: str, public_key: str) -> None:
        """Take assertions of an issuer that are signed with the private key of this public one (PEM).

        Raises:
            ValueError: It is no RSA or EC key.
        """
        self._post("keys", {"issuer": issuer, "public_key": public_key})

    def inserted(self, name: str, object_: str) -> list[dict[str, Any]]:
        """The records that inserts and jobs of a destination have made, in that order.

        Returns:
            id (text), number, key, record, at (seconds since the epoch of the last write), writes.
        """
        return self._pages(f"inserted/{name}/{object_}", "number", 0)

    def insert_counts(self, name: str, object_: str) -> dict[str, int]:
        """How many records were ever made of each key: more than 1 is a row that was inserted twice."""
        counts: dict[str, int] = {}
        for entry in self.inserted(name, object_):
            counts[entry["key"]] = counts.get(entry["key"], 0) + 1
        return counts

    def idempotency(self, name: str) -> dict[str, dict[str, int]]:
        """Idempotency keys of a destination's inserts that are remembered.

        Returns:
            Key to: status (of the kept answer), replays (how often it was repeated), reused (uses for another body).
        """
        keys: dict[str, dict[str, int]] = self._get(f"idempotency/{name}")["keys"]
        return keys

    def jobs(self, name: str) -> list[dict[str, Any]]:
        """The jobs of a destination, in order of submission.

        Returns:
            job (its id), number, object, mode, state, rows, reached, submitted, ended (seconds since the epoch; None:
            it runs), error (of a failed one).
        """
        return self._pages(f"jobs/{name}", "number", 0)

    def accepted(self) -> list[float]:
        """When requests were accepted by the quota since it was last configured: seconds since the epoch, in order."""
        times: list[float] = []
        while True:
            page = self._get("accepted", after=len(times), limit=_TIMES)["times"]
            times += page
            if len(page) < _TIMES:
                return times

    def slack_messages(self) -> list[dict[str, Any]]:
        """What the Slack stand-in was sent, in order: method, payload, at (seconds since the epoch)."""
        messages: list[dict[str, Any]] = self._get("slack")["messages"]
        return messages

    def reset(self) -> None:
        """Forget records, custom properties, requests, messages, faults and settings; the id and secrets stay."""
        self._post("reset", {})

    def _pages(self, path: str, cursor: str, after: int | str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._get(path, after=after, limit=_PAGE)["records"]
            found += page
            if len(page) < _PAGE:
                return found
            after = page[-1][cursor]

    def _get(self, path: str, **query: int | str) -> dict[str, Any]:
        return self._call("GET", path, params=query)

    def _post(self, path: str, value: Any) -> dict[str, Any]:
        return self._call("POST", path, json=value)

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = requests.request(
            method,
            f"{self.endpoint.url}/_sandbox/{path}",
            headers={"Authorization": f"Bearer {self.endpoint.token}"},
            timeout=_TIMEOUT,
            **arguments,
        )
        body: dict[str, Any] = answer.json()
        if answer.status_code in (400, 409):
            raise ValueError(body.get("error") or body.get("message"))
        if answer.status_code >= 300:
            raise RuntimeError(f"The sandbox answered {answer.status_code} to {method} {path}: {body}")
        return body
