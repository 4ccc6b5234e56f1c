"""The sandbox's own API below /_sandbox/: what it holds and received, faults, settings.

Its requests are exempt from faults and quotas, and are not logged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from integrations_dagster.sandbox.answers import Answer, HubSpotError, json_answer
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sandbox.faults import Faults
from integrations_dagster.sandbox.hubspot import HubSpot
from integrations_dagster.sandbox.quota import DEFAULT, Quota
from integrations_dagster.sandbox.store import OBJECTS, Store


@dataclass(slots=True)
class Settings:
    """What `configure` changes; lost when the sandbox stops.

    Attributes:
        latency: Seconds that every answer takes at least.
        bodies: Whether request bodies are kept in the log.
        quota: The quota of the HubSpot paths.
    """

    latency: float = 0.0
    bodies: bool = False
    quota: Quota = field(default_factory=lambda: Quota(DEFAULT))

    def change(self, changes: Mapping[str, Any]) -> None:
        """Apply changes by name.

        Raises:
            ValueError: A name is unknown, or a value cannot be used; nothing is changed then.
        """
        unknown = sorted(set(changes) - {"latency", "bodies", "quota"})
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is no setting of the sandbox; known: bodies, latency, quota.")
        latency = float(changes.get("latency", self.latency))
        quota = Quota(changes["quota"] or DEFAULT) if "quota" in changes else self.quota
        self.latency, self.quota, self.bodies = latency, quota, bool(changes.get("bodies", self.bodies))

    def as_dict(self) -> dict[str, Any]:
        """The settings as `configure` takes them."""
        return {
            "latency": self.latency,
            "bodies": self.bodies,
            "quota": {"limit": self.quota.limit, "window": self.quota.window},
        }


@dataclass(slots=True)
class Control:
    """Answers the control paths.

    Attributes:
        store: The state.
        faults: The faults in force.
        settings: The settings in force.
        hubspot: Defines properties.
        endpoint: Returns who the sandbox is.
    """

    store: Store
    faults: Faults
    settings: Settings
    hubspot: HubSpot
    endpoint: Callable[[], Endpoint]

    def handle(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request.

        Args:
            method: HTTP method.
            path: Path behind "/_sandbox/".
            query: Query parameters.
            body: JSON or nothing.
        """
        try:
            document = json.loads(body) if body else None
            return self._answer(method, path.strip("/").split("/"), query, document)
        except HubSpotError as error:
            return error.answer()
        except (ValueError, TypeError, AttributeError) as error:
            return json_answer(400, {"error": str(error)})

    def _answer(self, method: str, parts: list[str], query: Mapping[str, str], document: Any) -> Answer:
        limit = int(query.get("limit", "1000"))
        match (method, *parts):
            case ("GET", "ping"):
                endpoint = self.endpoint()
                now = {"held": self.faults.held, "last_seq": self.store.last_seq()}
                return json_answer(200, {"id": endpoint.id, "pid": endpoint.pid} | now)
            case ("GET", "records", object_) if object_ in OBJECTS:
                page = self.store.page(object_, int(query.get("after", "0")), limit, archived=None)
                return json_answer(200, {"records": page})
            case ("GET", "webhook", name, object_):
                return json_answer(
                    200, {"records": self.store.webhook_page(name, object_, query.get("after", ""), limit)}
                )
            case ("GET", "received"):
                requests = self.store.requests(int(query.get("since", "0")), limit, bodies=query.get("bodies") == "1")
                return json_answer(200, {"requests": requests})
            case ("GET", "stats"):
                return json_answer(200, self.store.stats())
            case ("GET", "slack"):
                return json_answer(200, {"messages": self.store.slack_messages()})
            case ("GET", "faults"):
                return json_answer(200, {"rules": self.faults.state()})
            case ("POST", "faults"):
                self.faults.set(document)
                return json_answer(200, {"rules": self.faults.state()})
            case ("POST", "release"):
                return json_answer(200, {"released": self.faults.release()})
            case ("POST", "configure"):
                self.settings.change(document)
                return json_answer(200, self.settings.as_dict())
            case ("POST", "reset"):
                self.faults.set([])
                self.faults.release()
                self.settings.change({"latency": 0.0, "bodies": False, "quota": DEFAULT})
                self.store.reset()
                return json_answer(200, {})
            case ("POST", "properties", object_) if object_ in OBJECTS:
                return json_answer(201, self.hubspot.define_property(object_, document))
        return json_answer(404, {"error": f"The sandbox has no {method} /_sandbox/{'/'.join(parts)}."})
