"""One stack for the session: project, sandbox, webserver and daemon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.process import ensure_running, stop
from integrations_dagster_tests.live.graphql import AssetEvent, Run, Ui
from integrations_dagster_tests.live.project import LiveProject
from integrations_dagster_tests.live.stack import Stack, free_port, wait_for

START = 180.0
"""Seconds for everything to come up on a busy machine."""
SCHEDULE = "sync_crm_companies_schedule"
SENSOR = "orders_to_webhook_on_model"
UPSERTS = "/crm/*/contacts/batch/upsert"
WEEK = [f"2026-06-{day:02d}" for day in range(8, 15)]


@dataclass(frozen=True)
class Live:
    """What the tests share."""

    project: LiveProject
    sandbox: SandboxClient
    ui: Ui
    stack: Stack


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The project under `dagster dev`, with a sandbox of its own; every process ends with the session."""
    project = LiveProject(tmp_path_factory.mktemp("live"))
    endpoint, _ = ensure_running(project.storage)
    port = free_port()
    ui = Ui(f"http://127.0.0.1:{port}")
    stack = Stack(
        ["dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)],
        project.folder,
        project.folder / "dagster.log",
        {
            "DAGSTER_HOME": str(project.home),
            "INTEGRATIONS_STORAGE": str(project.storage),
            "SLACK_BOT_TOKEN": "xoxb-live",
            "SLACK_BASE_URL": f"{endpoint.url}/slack/api/",
            "DAGSTER_WEBSERVER_URL": ui.url,
        },
    )
    try:

        def up() -> bool:
            assert stack.running, stack.said()
            return ui.loaded()

        wait_for(f"webserver; its log is {stack.log}", up, START)
        yield Live(project, SandboxClient(endpoint), ui, stack)
    finally:
        stack.stop()
        stop(project.storage)


@pytest.fixture
def calm(live: Live) -> Iterator[Live]:
    """The stack, left without faults."""
    yield live
    live.sandbox.clear_faults()
    live.sandbox.release()


@dataclass(frozen=True)
class UnderWay:
    """What the daemon is told to do first; all of it at once, so that the tests wait together.

    Attributes:
        schedule: Id of the schedule that was started.
        backfill: Id of the backfill of the week.
        customers: Id of the run of the customers' job.
    """

    schedule: str
    backfill: str
    customers: str


@dataclass(frozen=True)
class Delivered:
    """The first run of the customers' job, as it was right after it; later runs change what there is to see.

    Attributes:
        expected: What HubSpot must hold, by email.
        expected_webhook: What the webhook's receiver must hold: record by key.
        contacts: What HubSpot held: properties by email.
        writes: How often each contact was written, by email.
        webhook: What the webhook's receiver held: record by key.
        told: Metadata of the assets that it materialized.
    """

    run: Run
    expected: dict[str, dict[str, str]]
    expected_webhook: dict[str, dict[str, Any]]
    contacts: dict[str, dict[str, str]]
    writes: dict[str, int]
    webhook: dict[str, dict[str, Any]]
    told: dict[str, AssetEvent]


@pytest.fixture(scope="session")
def under_way(live: Live) -> UnderWay:
    live.sandbox.faults([{"match": {"path": UPSERTS}, "fault": {"kind": "latency", "seconds": 0.5}}])
    live.ui.start_sensor(SENSOR)
    return UnderWay(
        live.ui.start_schedule(SCHEDULE),
        live.ui.backfill(["orders_daily", "orders_to_webhook"], WEEK),
        live.ui.launch("sync_customers"),
    )


@pytest.fixture(scope="session")
def customers_run(live: Live, under_way: UnderWay) -> Delivered:
    run = live.ui.succeeded(under_way.customers)
    live.sandbox.clear_faults()
    return Delivered(
        run,
        live.project.contacts(),
        live.project.customers_at_webhook(),
        {record["properties"]["email"]: record["properties"] for record in live.sandbox.records("contacts")},
        live.sandbox.writes("contacts", by="email"),
        live.sandbox.webhook_records("events", "customers"),
        {name: live.ui.materializations(name)[0] for name in ("customers", "crm_contacts", "customers_to_webhook")},
    )


@pytest.fixture(scope="session")
def scheduled_run(live: Live, under_way: UnderWay) -> Run:
    """The first run of the schedule, which is stopped after it."""

    def fired() -> str | None:
        ticks = live.ui.schedule_ticks(SCHEDULE)
        assert not [tick for tick in ticks if tick["status"] == "FAILURE"], ticks
        return next((run for tick in ticks for run in tick["runIds"]), None)

    try:
        run = wait_for("run of the schedule", fired, 120)
    finally:
        live.ui.stop_schedule(under_way.schedule)
    return live.ui.succeeded(run)


@pytest.fixture(scope="session")
def week_runs(live: Live, under_way: UnderWay) -> list[Run]:
    """The runs of the backfill."""
    return live.ui.backfilled(under_way.backfill)
