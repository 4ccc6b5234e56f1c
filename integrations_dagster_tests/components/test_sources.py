"""Where the rows of a model come from, in YAML."""

from __future__ import annotations

import dagster as dg
import pytest

from integrations_dagster.components.load import load_definitions, load_project, load_specs
from integrations_dagster_tests.components.project import MODEL, SYNC, ProjectFolder

SHORT = SYNC.replace("  model: people\n", "  asset: raw/people\n  primary_key: [person_id]\n")


def model(*lines: str) -> str:
    text = "\n".join(f"  {line}" for line in lines)
    return f"type: integrations_dagster.Model\nattributes:\n{text}\n  primary_key: person_id\n"


def test_a_sync_reads_an_asset(project: ProjectFolder) -> None:
    project.write("people_to_hook", SHORT)
    (sync,) = load_specs(project.root)
    assert (sync.model.name, sync.model.asset, sync.model.primary_key) == (
        "people_to_hook_rows",
        "raw/people",
        ("person_id",),
    )
    graph = load_definitions(project.root).resolve_asset_graph()
    assert graph.get(dg.AssetKey("people_to_hook_rows")).parent_keys == {dg.AssetKey(["raw", "people"])}
    assert graph.get(dg.AssetKey("people_to_hook")).parent_keys == {dg.AssetKey("people_to_hook_rows")}


def test_an_asset_needs_no_warehouse(project: ProjectFolder) -> None:
    project.write("people_to_hook", SHORT)
    for folder in ("warehouse", "people"):
        (project.defs / folder / "defs.yaml").unlink()
        (project.defs / folder).rmdir()
    loaded = load_project(project.root)
    assert not loaded.broken
    assert loaded.sync("people_to_hook").model.warehouse.kind == ""


def test_a_model_reads_an_asset_or_a_table(project: ProjectFolder) -> None:
    project.write("people", model("name: people", "asset: raw/people", "read: value"))
    assert load_specs(project.root)[0].model.read == "value"
    project.write("people", model("table: raw.people", "asset: dbt/people"))
    spec = load_specs(project.root)[0].model
    assert (spec.name, spec.table, spec.asset, spec.sql_path) == ("people", "raw.people", "dbt/people", None)
    days = "partitions: {daily: {start: 2026-01-01, column: born}}"
    project.write("people", model("table: people", days))
    assert load_specs(project.root)[0].model.window == "born"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "has no rows: give it `sql`, `table` or `asset`"),
        (("sql: people.sql", "table: people"), "table and sql contradict each other"),
        (("sql: people.sql", "asset: people"), "asset and sql contradict each other"),
        (("sql: people.sql", "read: value"), "read has no meaning"),
        (("asset: people", "table: people", "read: table"), "read has no meaning"),
        (("asset: raw/people",), "name is missing"),
        (("name: people", "asset: people"), "Name the model otherwise"),
        (("name: a", "asset: people", "read: value", "warehouse: warehouse"), "warehouse has no meaning"),
        (("table: people", "partitions: {daily: {start: 2026-01-01}}"), "column is missing"),
        (("sql: people.sql", "partitions: {daily: {start: 2026-01-01, column: a}}"), "column has no meaning"),
        (("name: a", "asset: people", "warehouse: other"), '"other" is no warehouse'),
    ],
)
def test_contradictory_keys_of_a_model(project: ProjectFolder, lines: tuple[str, ...], said: str) -> None:
    project.write("people", model(*lines))
    assert said in load_project(project.root).broken["people"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  model: people\n", "  model: people\n  asset: raw/people\n", "asset and model contradict each other"),
        ("  model: people\n", "", "model is missing"),
        ("  model: people\n", "  asset: raw/people\n", "primary_key is missing"),
        ("  model: people\n", "  model: people\n  primary_key: id\n", "primary_key belongs to the model"),
    ],
)
def test_contradictory_keys_of_a_sync(project: ProjectFolder, old: str, new: str, said: str) -> None:
    project.write("people_to_hook", SYNC.replace(old, new))
    assert said in load_project(project.root).broken["people_to_hook"]


def test_the_name_of_a_syncs_own_model_may_be_taken(project: ProjectFolder) -> None:
    project.write("people_to_hook", SHORT)
    project.write("people", MODEL + "  name: people_to_hook_rows\n")
    assert "is taken by" in load_project(project.root).broken["people"]
