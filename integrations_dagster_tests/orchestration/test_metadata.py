"""Metadata, progress lines, and assets of broken folders."""

from __future__ import annotations

import dagster as dg
from dagster import DagsterInstance

from integrations_dagster.orchestration.broken import broken_asset
from integrations_dagster.orchestration.metadata import (
    CELL,
    model_metadata,
    numbers_of,
    reasons_of,
    sync_metadata,
)
from integrations_dagster.orchestration.progress import ProgressLog
from integrations_dagster.sync.results import BadRow, ModelVersion, Plan, Progress, RunReport, Shard, WriteSummary
from integrations_dagster.vocabulary import Counts, Status, Traffic
from integrations_dagster_tests.orchestration.shop import Shop

VERSION = ModelVersion(
    "customers", "", "v1", "/none", 0.0, 1.5, 10, (("id", "INTEGER"), ("name", "VARCHAR")), "SELECT 1"
)
SHARD = Shard("run", 0, "/none", 1000, 1, "account", 4)


def report(**changes: object) -> RunReport:
    values: dict[str, object] = {
        "counts": Counts(queried=10, added=4, unchanged=5, invalid=1),
        "outcomes": {Status.CREATED: 3, Status.REJECTED: 1, Status.UNCHANGED: 2, Status.INVALID: 1},
        "traffic": Traffic(3, 1, 2, 900, {"throttled": 2, "unavailable": 1}, [10, 20, 400]),
        "bad_rows": (BadRow("7", Status.REJECTED, "INVALID_EMAIL", "x" * 1000),),
        "reasons": (("not an email", 1),),
        "failures": (),
        "write_seconds": 2.0,
        "record_seconds": 0.25,
        "candidates": 5,
        "rejected_share": 0.2,
        **changes,
    }
    return RunReport(**values)  # type: ignore[arg-type]


def plan() -> Plan:
    return Plan("run", "hubspot:portal 1", 1, Counts(), (), (VERSION,), 0.5, ("Nothing is known.",))


def test_numbers_are_numbers_and_texts_are_bounded(shop: Shop) -> None:
    metadata = sync_metadata(shop.contacts(), plan(), report())
    stored = dg.AssetMaterialization("a", metadata=metadata).metadata
    numbers = numbers_of(stored)
    assert numbers["rows_per_second"] == 1.5
    assert (numbers["unchanged"], numbers["invalid"]) == (5, 1)
    assert (numbers["errors"], numbers["errors_throttled"], numbers["errors_unauthorized"]) == (3, 2, 0)
    assert (numbers["latency_p50_ms"], numbers["latency_p95_ms"]) == (20, 400)
    assert numbers["rejected_share"] == 0.2
    assert reasons_of(stored) == [("not an email", 1)]
    table = stored["rejected_rows"]
    assert isinstance(table, dg.TableMetadataValue)
    assert len(str(table.records[0].data["reason"])) == CELL
    assert stored["account"].value == "hubspot:portal 1"


def test_names_are_the_same_whatever_happened(shop: Shop) -> None:
    quiet = report(outcomes={}, traffic=Traffic(), bad_rows=(), reasons=(), candidates=0, write_seconds=0.0)
    numbers = [
        set(numbers_of(dg.AssetMaterialization("a", metadata=sync_metadata(shop.contacts(), plan(), each)).metadata))
        for each in (report(), quiet)
    ]
    assert numbers[0] == numbers[1]


def test_a_preview_with_bars_and_line_breaks_stays_a_table() -> None:
    metadata = model_metadata([VERSION], (["id", "name"], [["1", "a|b\nc"]]), "warehouse (duckdb)")
    assert metadata["preview"].value.splitlines() == ["| id | name |", "| --- | --- |", "| 1 | a\\|b c |"]
    assert metadata["dagster/row_count"] == 10


def test_progress_is_logged_every_tenth_or_ten_seconds() -> None:
    lines: list[str] = []
    log = ProgressLog(SHARD, lines.append)
    for second in range(1, 31):
        log(Progress(0, second * 10, 1000, second, float(second)))  # slow: 1% a second
    assert len(lines) == 3
    assert lines[0] == "Shard 1 of 4: 100 of 1,000 rows (10%), 10 rejected, 10 rows/s, about 90 s left."
    for step in range(31, 100):
        log(Progress(0, step * 10, 1000, 30, 30 + (step - 30) / 10))  # fast: 10% a second
    assert 8 <= len(lines) <= 10
    log.finish(WriteSummary(0, "", 37.0))
    assert lines[-1] == "Shard 1 of 4: done after 37.0 s, 30 rejected."


def test_a_broken_folder_is_an_asset_that_says_why_and_cannot_run(instance: DagsterInstance) -> None:
    error = 'defs/crm/defs.yaml:7: sync "crm": unknown key `feilds`.\n```yaml\nfeilds: 1\n```'
    asset = broken_asset("crm", error)
    spec = asset.get_asset_spec()
    assert spec.group_name == "broken"
    assert spec.kinds == {"broken"}
    assert error in (spec.description or "")
    result = dg.materialize([asset], instance=instance, raise_on_error=False)
    assert not result.success
    (failed,) = result.get_step_failure_events()
    data = failed.step_failure_data.user_failure_data
    assert data is not None
    assert data.description == error
