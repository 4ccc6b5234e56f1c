"""What Slack is told, through the stand-in of the sandbox."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from integrations_dagster.orchestration.alerts import ATTEMPTS, RUNS_PER_TICK, SENSOR, Cursor
from integrations_dagster.orchestration.messages import Message
from integrations_dagster.sync.spec import AlertSpec, DestinationSpec, Env, SyncSpec, TargetSpec
from integrations_dagster_tests.orchestration.shop import Shop

TOKEN = "xoxb-test"
UNREACHABLE = DestinationSpec(
    "crm", "hubspot", TargetSpec("prod", base_url="http://127.0.0.1:9", token=Env("NO_TOKEN"))
)
BAD = {2: "not an email"}
NAMES = {1: "Ada", 2: "Bo", 3: "Cy"}


class Alerts:
    """The sensor and its cursor, as the daemon keeps it."""

    def __init__(self, defs: dg.Definitions, instance: DagsterInstance) -> None:
        self._repository = defs.get_repository_def()
        self._sensor = self._repository.get_sensor_def(SENSOR)
        self._instance = instance
        self.cursor: str | None = None

    def tick(self) -> str:
        """Evaluate once; returns what the tick says."""
        context = dg.build_sensor_context(self._instance, self.cursor, repository_def=self._repository)
        data = self._sensor.evaluate_tick(context)
        self.cursor = data.cursor
        return data.skip_message or ""


@pytest.fixture
def slack(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point Slack at the stand-in."""
    monkeypatch.setenv("SLACK_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("SLACK_BASE_URL", f"{shop.client.endpoint.url}/slack/api")
    monkeypatch.setenv("DAGSTER_WEBSERVER_URL", "https://dagster.example.com/")


def posted(shop: Shop) -> list[Mapping[str, Any]]:
    return [message["payload"] for message in shop.client.slack_messages()]


def told(shop: Shop, **changes: Any) -> SyncSpec:
    return shop.contacts(**{"alerts": AlertSpec("#crm", 0.01), **changes})


def run(shop: Shop, instance: DagsterInstance, *syncs: SyncSpec) -> dg.ExecuteInProcessResult:
    """Materialize model and syncs as the UI does, without a job of ours."""
    keys = [syncs[0].model.name, *(sync.name for sync in syncs)]
    job = shop.definitions(*syncs).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey(key) for key in keys], raise_on_error=False
    )


@pytest.mark.usefixtures("slack")
def test_a_failed_run_is_told_with_error_counts_reasons_and_link(shop: Shop, instance: DagsterInstance) -> None:
    sync = told(shop, fail_rejected_above=0.1)
    alerts = Alerts(shop.definitions(sync), instance)
    alerts.tick()
    shop.load_customers(NAMES, BAD)
    result = run(shop, instance, sync)
    assert not result.success
    assert alerts.tick() == "1 message(s) sent, 0 waiting."
    (message,) = posted(shop)
    assert message["channel"] == "#crm"
    text = message["text"]
    assert "Sync *crm_contacts* failed (target sandbox)" in text
    assert "1 of 3 rows were rejected" in text
    assert "Rows: 3 queried, 3 added" in text
    assert "Delivered: 2 created, 0 updated, 0 deleted, 1 rejected" in text
    assert "• 1 ×" in text
    assert f"<https://dagster.example.com/runs/{result.run_id}|" in text
    assert alerts.tick() == "Nothing to tell."
    assert len(posted(shop)) == 1


@pytest.mark.usefixtures("slack")
def test_too_many_rejected_rows_are_told_though_the_run_succeeded(shop: Shop, instance: DagsterInstance) -> None:
    sync = told(shop)
    alerts = Alerts(shop.definitions(sync), instance)
    alerts.tick()
    shop.load_customers(NAMES, BAD)
    assert run(shop, instance, sync).success
    alerts.tick()
    (message,) = posted(shop)
    assert "33.3% of its rows were rejected (limit 1.0%, target sandbox)" in message["text"]
    assert "email" in message["text"].lower()
    shop.load_customers({1: "Ada", 3: "Cy", 4: "Di"})
    assert run(shop, instance, sync).success
    assert alerts.tick() == "Nothing to tell."


@pytest.mark.usefixtures("slack")
def test_each_failed_sync_of_a_run_is_told_once_and_the_others_are_not(shop: Shop, instance: DagsterInstance) -> None:
    syncs = [
        told(shop, destination=UNREACHABLE),
        told(shop, name="again", destination=UNREACHABLE, alerts=AlertSpec("#ops")),
        told(shop, name="fine"),
        told(shop, name="silent", destination=UNREACHABLE, alerts=AlertSpec()),
    ]
    alerts = Alerts(shop.definitions(*syncs), instance)
    alerts.tick()
    shop.load_customers({1: "Ada"})
    assert not run(shop, instance, *syncs).success
    alerts.tick()
    assert {message["channel"]: message["text"].splitlines()[0] for message in posted(shop)} == {
        "#crm": ":x: Sync *crm_contacts* failed (target prod).",
        "#ops": ":x: Sync *again* failed (target prod).",
    }
    assert all("NO_TOKEN" in message["text"] for message in posted(shop))


@pytest.mark.usefixtures("slack")
def test_a_model_that_fails_is_told_for_its_syncs(shop: Shop, instance: DagsterInstance) -> None:
    sync = told(shop)
    alerts = Alerts(shop.definitions(sync), instance)
    alerts.tick()
    shop.load_customers({1: "Ada"})
    assert sync.model.sql_path is not None
    sync.model.sql_path.write_text("SELECT id, <nothing> FROM customers", "utf-8")
    assert not run(shop, instance, sync).success
    alerts.tick()
    (message,) = posted(shop)
    assert "customers.sql" in message["text"]
    assert "<nothing>" not in message["text"]


@pytest.mark.usefixtures("slack")
def test_a_run_that_died_is_told_with_what_dagster_says(shop: Shop, instance: DagsterInstance) -> None:
    sync = told(shop)
    alerts = Alerts(shop.definitions(sync), instance)
    alerts.tick()
    crashed = create_run_for_test(
        instance, status=DagsterRunStatus.STARTED, tags={"integrations/syncs": sync.name, "dagster/will_retry": "true"}
    )
    instance.report_run_failed(crashed, "The process of this run is gone.")
    other = create_run_for_test(instance, status=DagsterRunStatus.STARTED)
    instance.report_run_failed(other, "Not ours.")
    alerts.tick()
    (message,) = posted(shop)
    assert "> The process of this run is gone." in message["text"]
    assert "launched again" in message["text"]


def test_without_a_token_alerts_are_off_and_that_is_said_once(
    shop: Shop, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sync = told(shop)
    alerts = Alerts(shop.definitions(sync), instance)
    with caplog.at_level(logging.WARNING):
        assert "SLACK_BOT_TOKEN is not set" in alerts.tick()
        assert "SLACK_BOT_TOKEN is not set" in alerts.tick()
    crashed = create_run_for_test(instance, status=DagsterRunStatus.STARTED, tags={"integrations/syncs": sync.name})
    instance.report_run_failed(crashed)
    alerts.tick()
    assert Cursor.read(alerts.cursor).off
    # What happened while alerts were off is not told when a token comes.
    monkeypatch.setenv("SLACK_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("SLACK_BASE_URL", f"{shop.client.endpoint.url}/slack/api/")
    assert alerts.tick() == "Nothing to tell."
    assert posted(shop) == []


@pytest.mark.usefixtures("slack")
def test_an_outage_of_slack_delays_messages_and_breaks_nothing(
    shop: Shop, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = [told(shop), told(shop, name="more")]
    alerts = Alerts(shop.definitions(*syncs), instance)
    alerts.tick()
    crashed = create_run_for_test(
        instance, status=DagsterRunStatus.STARTED, tags={"integrations/syncs": "crm_contacts,more"}
    )
    instance.report_run_failed(crashed)
    monkeypatch.setenv("SLACK_BASE_URL", "http://127.0.0.1:9/")
    assert alerts.tick() == "0 message(s) sent, 2 waiting."
    assert alerts.tick() == "0 message(s) sent, 2 waiting."
    assert [attempts for _, attempts in Cursor.read(alerts.cursor).pending] == [2, 2]
    monkeypatch.setenv("SLACK_BASE_URL", f"{shop.client.endpoint.url}/slack/api/")
    assert alerts.tick() == "2 message(s) sent, 0 waiting."
    assert len(posted(shop)) == 2


@pytest.mark.usefixtures("slack")
def test_a_message_that_slack_refuses_for_ever_is_given_up(
    shop: Shop, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts = Alerts(shop.definitions(told(shop)), instance)
    alerts.tick()
    cursor = Cursor.read(alerts.cursor)
    cursor.pending = [(Message("#gone", "lost"), ATTEMPTS - 1), (Message("#crm", "new"), 0)]
    alerts.cursor = cursor.write()
    monkeypatch.setenv("SLACK_BOT_TOKEN", "not-a-bot-token")
    assert alerts.tick() == "0 message(s) sent, 1 waiting."
    assert [message.text for message, _ in Cursor.read(alerts.cursor).pending] == ["new"]


@pytest.mark.usefixtures("slack")
def test_more_runs_than_a_tick_takes_are_told_by_the_next_ones(shop: Shop, instance: DagsterInstance) -> None:
    alerts = Alerts(shop.definitions(told(shop)), instance)
    alerts.tick()
    for _ in range(RUNS_PER_TICK + 3):
        crashed = create_run_for_test(
            instance, status=DagsterRunStatus.STARTED, tags={"integrations/syncs": "crm_contacts"}
        )
        instance.report_run_failed(crashed)
    assert alerts.tick() == f"{RUNS_PER_TICK} message(s) sent, 0 waiting."
    assert alerts.tick() == "3 message(s) sent, 0 waiting."


def test_no_sensor_where_no_sync_alerts(shop: Shop) -> None:
    assert list(shop.definitions(shop.contacts()).sensors or []) == []
    (sensor,) = shop.definitions(told(shop)).sensors or []
    assert isinstance(sensor, dg.SensorDefinition)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
