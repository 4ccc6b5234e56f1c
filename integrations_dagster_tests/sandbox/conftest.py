"""One sandbox process for the tests of this folder, emptied before each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sandbox.process import ensure_running, stop


class Api:
    """Calls the sandbox as a client of HubSpot would."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {endpoint.token}"

    def call(self, method: str, path: str, body: Any = None, **arguments: Any) -> requests.Response:
        arguments.setdefault("timeout", 20)
        return self.session.request(method, self.endpoint.url + path, json=body, **arguments)

    def batch(self, object_: str, operation: str, inputs: list[dict[str, Any]], **members: Any) -> requests.Response:
        return self.call("POST", f"/crm/v3/objects/{object_}/batch/{operation}", {"inputs": inputs, **members})

    def upsert(self, *emails: str, **properties: str) -> requests.Response:
        return self.batch("contacts", "upsert", [upsert_input(email, **properties) for email in emails])


def upsert_input(email: str, trace: str | None = None, **properties: str) -> dict[str, Any]:
    """One contact of a batch/upsert, traced by its email unless told otherwise."""
    return {"id": email, "idProperty": "email", "objectWriteTraceId": trace or email, "properties": properties}


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    storage = tmp_path_factory.mktemp("storage")
    endpoint, started = ensure_running(storage)
    assert started
    yield endpoint
    stop(storage)


@pytest.fixture
def sandbox(endpoint: Endpoint) -> SandboxClient:
    client = SandboxClient(endpoint)
    client.reset()
    return client


@pytest.fixture
def api(sandbox: SandboxClient) -> Iterator[Api]:
    api = Api(sandbox.endpoint)
    with api.session:
        yield api
