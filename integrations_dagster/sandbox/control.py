"""The sandbox's own API below /_sandbox/: what it holds and received, faults, settings.

Its requests are exempt from faults and quotas, and are not logged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from integrations_dagster.sandbox.answers import Answer, HubSpotError, json_answer
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sandbox.faults import Faults
from integrations_dagster.sandbox.hubspot import HubSpot
from integrations_dagster.sandbox.identity import Identity
from integrations_dagster.sandbox.inserts import record_id
from integrations_dagster.sandbox.jobs import Jobs, shown
from integrations_dagster.sandbox.row_store import Job
from integrations_dagster.sandbox.salesforce_state import SalesforceState
from integrations_dagster.sandbox.settings import Settings
from integrations_dagster.sandbox.store import OBJECTS, Store


@dataclass(slots=True)
class Control:
    """Answers the control paths.

    Attributes:
        store: The state.
        faults: The faults in force.
        settings: The settings in force.
        hubspot: Defines properties.
        salesforce: The records and fields of the sandbox's Salesforce.
        identity: Issues tokens.
        jobs: Brings jobs up to date.
        endpoint: Returns who the sandbox is.
    """

    store: Store
    faults: Faults
    settings: Settings
    hubspot: HubSpot
    salesforce: SalesforceState
    identity: Identity
    jobs: Jobs
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
            case ("GET", "inserted", name, object_):
                self.jobs.advance()
                page = self.store.rows.page(name, object_, int(query.get("after", "0")), limit)
                return json_answer(
                    200, {"records": [entry | {"number": entry["id"], "id": record_id(entry["id"])} for entry in page]}
                )
            case ("GET", "idempotency", name):
                return json_answer(200, {"keys": self.store.rows.keys(name)})
            case ("GET", "jobs", name):
                self.jobs.advance()
                jobs = self.store.rows.jobs(name, int(query.get("after", "0")), limit)
                return json_answer(200, {"records": [_job(job) for job in jobs]})
            case ("GET", "received"):
                requests = self.store.requests(int(query.get("since", "0")), limit, bodies=query.get("bodies") == "1")
                return json_answer(200, {"requests": requests})
            case ("GET", "stats"):
                return json_answer(200, self.store.stats() | {"quota": self.settings.quotas.stats()})
            case ("GET", "accepted"):
                times = self.settings.quotas.accepted_page(int(query.get("after", "0")), limit)
                return json_answer(200, {"times": times})
            case ("GET", "tokens"):
                return json_answer(200, self.identity.stats())
            case ("POST", "tokens", "expire"):
                return json_answer(200, {"expired": self.identity.expire()})
            case ("POST", "keys"):
                self.identity.register_key(str(document["issuer"]), str(document["public_key"]))
                return json_answer(201, {})
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
                self.settings.reset()
                self.store.reset()
                self.salesforce.reset()
                self.jobs.forget()
                self.identity.reset()
                return json_answer(200, {})
            case ("POST", "properties", object_) if object_ in OBJECTS:
                return json_answer(201, self.hubspot.define_property(object_, document))
            case ("POST", "properties", object_, name) if object_ in OBJECTS:
                return json_answer(200, self.store.change_property(object_, name, document).as_json())
            case ("DELETE", "properties", object_, name) if object_ in OBJECTS:
                return json_answer(200, {"removed": self.store.remove_property(object_, name)})
            case ("GET", "salesforce", object_):
                return json_answer(200, {"records": self.salesforce.page(object_, int(query.get("after", "0")), limit)})
            case ("POST", "salesforce", object_):
                with self.store.transaction():
                    return json_answer(201, {"id": self.salesforce.create(object_, document).id})
            case ("POST", "salesforce", object_, "fields"):
                return json_answer(201, self.salesforce.define(object_, document).as_json())
            case ("POST", "owners"):
                return json_answer(201, self.store.owners.define(**document))
            case ("DELETE", "owners", id_):
                return json_answer(200, {"archived": self.store.owners.archive(int(id_))})
        return json_answer(404, {"error": f"The sandbox has no {method} /_sandbox/{'/'.join(parts)}."})


def _job(job: Job) -> dict[str, Any]:
    plain = {"number": job.id, "object": job.object, "mode": job.work["mode"]}
    return shown(job) | plain | {"submitted": job.submitted, "ended": job.ended}
