"""The whole asset graph of the project as a text: a change to it shows in review.

`python -m integrations_dagster_tests.test_definitions` accepts the graph as it is.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import dagster as dg
import pytest

from integrations_dagster.components.load import load_project
from integrations_dagster.definitions import defs

SNAPSHOT = Path(__file__).with_name("test_definitions.txt")
ROOT = Path(__file__).parents[1]


def describe(definitions: dg.Definitions) -> str:
    lines = []
    graph = definitions.resolve_asset_graph()
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        lines.append(f"asset {key.to_user_string()}")
        lines.append(f"  group: {node.group_name}")
        lines.append(f"  kinds: {', '.join(sorted(node.kinds))}")
        lines.append(f"  deps: {', '.join(sorted(k.to_user_string() for k in node.parent_keys)) or 'none'}")
        lines.append(f"  checks: {', '.join(sorted(k.name for k in node.check_keys)) or 'none'}")
        if node.partitions_def is not None:
            keys = node.partitions_def.get_partition_keys()
            lines.append(f"  partitions: {len(keys)}, {keys[0]} to {keys[-1]}")
        lines.append("")
    for job in sorted(definitions.resolve_all_job_defs(), key=lambda job: job.name):
        if not job.name.startswith("__"):
            lines.append(f"job {job.name}")
            keys = sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
            lines.append(f"  assets: {', '.join(keys)}")
            lines.append(f"  tags: {', '.join(f'{k}={v}' for k, v in sorted(job.tags.items()))}")
            lines.append("")
    repository = definitions.get_repository_def()
    for schedule in sorted(repository.schedule_defs, key=lambda schedule: schedule.name):
        lines.append(f"schedule {schedule.name}")
        lines.append(f"  {schedule.cron_schedule} of {schedule.job_name}, {schedule.default_status.value.lower()}")
        lines.append("")
    for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name):
        lines.append(f"sensor {sensor.name}")
        lines.append(f"  {sensor.sensor_type.value.lower()}, {sensor.default_status.value.lower()}")
        lines.append("")
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def _no_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTEGRATIONS_TARGET", raising=False)


def test_the_graph_is_as_it_was() -> None:
    now = describe(defs())
    before = SNAPSHOT.read_text(encoding="utf-8")
    diff = "\n".join(difflib.unified_diff(before.splitlines(), now.splitlines(), "before", "now", lineterm=""))
    assert not diff, f"{diff}\nIf this is meant: python -m {__spec__.name}"


def test_nothing_is_broken() -> None:
    project = load_project(ROOT)
    assert dict(project.broken) == {}
    assert len(project.specs) == 4


def test_every_sync_says_where_it_is_written() -> None:
    for sync in load_project(ROOT).specs:
        file, _, line = sync.source.rpartition(":")
        assert f"name: {sync.name}" in (ROOT / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]


def test_schedules_run_where_the_target_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTEGRATIONS_TARGET", "prod")
    schedules = defs().get_repository_def().schedule_defs
    assert {schedule.default_status for schedule in schedules} == {dg.DefaultScheduleStatus.RUNNING}
    monkeypatch.delenv("INTEGRATIONS_TARGET")
    schedules = defs().get_repository_def().schedule_defs
    assert {schedule.default_status for schedule in schedules} == {dg.DefaultScheduleStatus.STOPPED}


def test_columns_of_every_sync_are_selected_by_its_model() -> None:
    """A cheap guard: the names stand in the SQL's text; what the query returns is checked by every plan."""
    for sync in load_project(ROOT).specs:
        assert sync.model.sql_path is not None
        text = sync.model.sql_path.read_text(encoding="utf-8")
        missing = [column for column in (*sync.model.primary_key, *sync.columns) if column not in text]
        assert missing == [], f"{sync.source}: {sync.name}"


if __name__ == "__main__":
    os.environ.pop("INTEGRATIONS_TARGET", None)
    SNAPSHOT.write_text(describe(defs()), encoding="utf-8")
