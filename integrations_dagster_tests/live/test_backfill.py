"""A week of a partitioned sync, through the backfill that the UI launches."""

from __future__ import annotations

import pytest

from integrations_dagster_tests.live.conftest import WEEK, Live
from integrations_dagster_tests.live.graphql import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_week_arrives_day_by_day_and_again_sends_nothing(live: Live, week_runs: list[Run]) -> None:
    (run,) = week_runs
    assert (run.tags["dagster/asset_partition_range_start"], run.tags["dagster/asset_partition_range_end"]) == (
        WEEK[0],
        WEEK[-1],
    )
    entries = live.sandbox.webhook_entries("events", "orders")
    for day in WEEK:
        expected = live.project.orders_at_webhook(day)
        found = {key: entry["record"] for key, entry in entries.items() if entry["partition"] == day}
        assert found == expected, day
        assert len(expected) > 10, day
        assert {entries[key]["writes"] for key in expected} == {1}, day
    told = {m.partition: m for m in live.ui.materializations("orders_to_webhook", 50) if m.run_id == run.id}
    assert sorted(day for day in told if day) == WEEK
    sizes = {day: len(live.project.orders_at_webhook(day)) for day in WEEK}
    assert {day: told[day].metadata["dagster/partition_row_count"] for day in WEEK} == sizes
    assert told[WEEK[0]].metadata["created"] == sum(sizes.values())

    seq = live.sandbox.last_seq()
    (again,) = live.ui.backfilled(live.ui.backfill(["orders_daily", "orders_to_webhook"], WEEK))
    orders = [r for r in live.sandbox.received(since=seq) if r["path"].startswith("/webhook/")]
    assert orders == []
    (last, *_) = live.ui.materializations("orders_to_webhook")
    assert last.run_id == again.id
    assert (last.metadata["unchanged"], last.metadata["requests"]) == (sum(sizes.values()), 0)
