"""A whole sync whose token ends every 50 requests: every row is delivered, and none is rejected for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sync.account import connect_account
from integrations_dagster.sync.spec import AuthSpec, DestinationSpec, Env, TargetSpec
from integrations_dagster.vocabulary import Status
from integrations_dagster_tests.delivery.test_auth import allowed
from integrations_dagster_tests.sync.harness import Bench

ROWS = 200


@pytest.fixture
def bench(tmp_path: Path, sandbox: Endpoint) -> Iterator[Bench]:
    bench = Bench(tmp_path, sandbox)
    yield bench
    bench.close()


def test_a_token_that_ends_every_50_requests(bench: Bench, sandbox: Endpoint) -> None:
    control = SandboxClient(sandbox)
    control.configure(token_requests=50, token_seconds=0, quota={"limit": 100_000, "window": 1})
    settings: dict[str, str | Env] = {
        "token_url": f"{sandbox.url}/oauth/token",
        "authorize_url": f"{sandbox.url}/oauth/authorize",
        "client_id": sandbox.client_id,
        "client_secret": Env("CRM_SECRET"),
    }
    bench.env["CRM_SECRET"] = sandbox.client_secret
    target = TargetSpec("prod", base_url=sandbox.url, auth=AuthSpec("refresh_token", settings))
    crm = DestinationSpec("crm", "hubspot", target, timeout=10.0, in_flight=16, quotas=())
    bench.load(
        "people",
        [{"id": i, "email": f"p{i}@example.com", "firstname": f"N{i}"} for i in range(ROWS)],
        {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"},
    )
    model = bench.model("people", "SELECT * FROM people")
    sync = dataclasses.replace(bench.contacts(model), destination=crm, batch_rows=1)
    allowed(connect_account(sync, bench.context()).account, bench.folder)
    report = bench.run(sync)
    seen = control.tokens()
    outcomes = {str(status): count for status, count in report.outcomes.items() if count}
    print(f"{ROWS} requests of one row: {outcomes}; tokens expired: {seen['expired']}, {seen['granted']}")
    assert outcomes == {str(Status.CREATED): ROWS}
    assert len(bench.emails()) == ROWS
    assert seen["granted"]["refresh_token"] == seen["expired"] >= ROWS // 50
    assert seen["refused"] == {}
