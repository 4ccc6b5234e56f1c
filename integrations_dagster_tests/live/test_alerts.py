"""What Slack is told, by the sensor that the daemon runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from dagster import DagsterInstance
from dagster._core.definitions.instigation_logger import get_instigation_log_records
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus

from integrations_dagster_tests.live.conftest import UPSERTS, Delivered, Live, UnderWay
from integrations_dagster_tests.live.graphql import Run
from integrations_dagster_tests.live.project import LiveProject
from integrations_dagster_tests.live.stack import Stack, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SENSOR = "slack_alerts"
OFF = "Slack alerts are off, because SLACK_BOT_TOKEN is not set."


def told_of(live: Live, run_id: str) -> Callable[[], list[dict[str, str]]]:
    """Looks for messages that name a run."""

    def look() -> list[dict[str, str]]:
        return [m["payload"] for m in live.sandbox.slack_messages() if run_id in m["payload"]["text"]]

    return look


def test_without_a_token_the_project_loads_and_says_once_that_alerts_are_off(
    tmp_path: Path, under_way: UnderWay
) -> None:
    project = LiveProject(tmp_path)
    with DagsterInstance.from_config(str(project.home)):
        # Two processes that make a new instance's tables at once leave them in a state that Dagster does not take.
        pass
    daemon = Stack(
        ["dagster._daemon", "run", "-w", "workspace.yaml"],
        project.folder,
        project.folder / "daemon.log",
        {"DAGSTER_HOME": str(project.home), "INTEGRATIONS_STORAGE": str(project.storage)},
    )
    try:
        with DagsterInstance.from_config(str(project.home)) as instance:

            def ticks() -> list[InstigatorTick]:
                assert daemon.running, daemon.said()
                states = [state for state in instance.all_instigator_state() if state.name == SENSOR]
                found = [t for s in states for t in instance.get_ticks(s.instigator_origin_id, s.selector_id)]
                ended = [tick for tick in found if tick.status != TickStatus.STARTED]
                return ended if len(ended) > 1 else []

            newest, *_, first = wait_for("second tick of the alerts", ticks, 120)
            said = [
                [record["msg"] for record in get_instigation_log_records(instance, tick.log_key or [])]
                for tick in (first, newest)
            ]
    finally:
        daemon.stop()
    assert (first.status, newest.status) == (TickStatus.SKIPPED, TickStatus.SKIPPED)
    assert {first.skip_reason, newest.skip_reason} == {OFF}
    assert [len([line for line in lines if OFF in line]) for lines in said] == [1, 0]


def test_slack_is_told_of_a_failure_and_of_too_many_rejected_rows(
    calm: Live, customers_run: Delivered, scheduled_run: Run
) -> None:
    live = calm
    # A sensor that has never ticked does not tell of what was before.
    wait_for("tick of the alerts", lambda: live.ui.sensor_ticks(SENSOR), 60)
    live.project.change("UPDATE raw.companies SET employees = coalesce(employees, 0) + 7")
    live.project.change("UPDATE raw.customers SET last_name = coalesce(last_name, '') || ' III'")
    refused = {"kind": "reject_rows", "code": "LOCKED", "message": "This record is locked by legal"}
    live.sandbox.faults(
        [
            {"match": {"path": "/crm/*/companies/batch/upsert"}, "fault": {**refused, "with": '"C-00000'}},
            {"match": {"path": UPSERTS}, "fault": {**refused, "with": "@example.net"}},
        ]
    )
    companies, contacts = live.ui.launch("sync_crm_companies"), live.ui.launch("sync_customers")
    assert live.ui.ended(companies).status == "FAILURE"
    live.ui.succeeded(contacts)

    (failed,) = wait_for("message of the failed run", told_of(live, companies), 90)
    rows = len(live.project.rows("companies"))
    assert failed["channel"] == "#crm"
    assert "Sync *crm_companies* failed (target sandbox)" in failed["text"]
    assert f"9 of {rows} rows were rejected" in failed["text"]
    assert f"Rows: {rows} queried, 0 added, {rows} changed" in failed["text"]
    assert f"{rows - 9} updated, 0 deleted, 9 rejected" in failed["text"]
    assert re.search(r"• 9 × .*locked by legal", failed["text"])
    assert f"<{live.ui.url}/runs/{companies}|" in failed["text"]
    (observed,) = live.ui.observations("crm_companies")
    assert (observed.run_id, observed.metadata["rejected"]) == (companies, 9)

    (warned,) = wait_for("message of the rejected rows", told_of(live, contacts), 90)
    assert "Sync *crm_contacts* delivered, but" in warned["text"]
    assert "(limit 10.0%, target sandbox)" in warned["text"]
    assert "locked by legal" in warned["text"]
    assert f"<{live.ui.url}/runs/{contacts}|" in warned["text"]
