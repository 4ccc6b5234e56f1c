"""The examples that `dg scaffold defs` writes are valid as they stand, and with every comment taken in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from dagster import ScaffoldRequest

from integrations_dagster.components import Destination, Model, Sync, Warehouse
from integrations_dagster.components.attributes import YamlComponent
from integrations_dagster.components.load import load_project
from integrations_dagster.components.scaffold import (
    DestinationScaffolder,
    ExampleScaffolder,
    ModelScaffolder,
    SyncScaffolder,
    WarehouseScaffolder,
)
from integrations_dagster_tests.components.project import SYNC, ProjectFolder

CASES = [
    (Warehouse, WarehouseScaffolder),
    (Model, ModelScaffolder),
    (Destination, DestinationScaffolder),
    (Sync, SyncScaffolder),
]


def scaffold(scaffolder: type[ExampleScaffolder], type_: str, root: Path, *, append: bool = False) -> Path:
    folder = root / "defs" / "my-thing"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "defs.yaml"
    request = ScaffoldRequest(
        type_name=f"integrations_dagster.{type_}",
        target_path=file if append else folder,
        scaffold_format="yaml",
        project_root=root,
        params=scaffolder.get_scaffold_params()(),
        append=append,
    )
    scaffolder().scaffold(request)
    return file


ALTERNATIVES: dict[type[YamlComponent], tuple[tuple[str, ...], ...]] = {
    Model: (("table", "asset", "read"), ("sql", "table", "partitions", "cursor")),
    Sync: (("asset", "primary_key"), ("model",)),
    Warehouse: (("path",),),
}
"""Keys to leave out, so that the others agree."""


@pytest.mark.parametrize(("component", "scaffolder"), CASES)
def test_the_example_is_valid(
    component: type[YamlComponent], scaffolder: type[ExampleScaffolder], tmp_path: Path
) -> None:
    text = scaffold(scaffolder, component.__name__, tmp_path).read_text()
    assert yaml.safe_load(text)["type"] == f"integrations_dagster.{component.__name__}"
    assert "#" in text
    made = component.resolve_from_yaml(yaml.safe_dump(yaml.safe_load(text)["attributes"]))
    assert made.identity == "my_thing"


@pytest.mark.parametrize(("component", "scaffolder"), CASES)
def test_the_commented_keys_are_valid_too(
    component: type[YamlComponent], scaffolder: type[ExampleScaffolder], tmp_path: Path
) -> None:
    text = scaffold(scaffolder, component.__name__, tmp_path).read_text()
    text = re.sub(r"^( *)# ", r"\1", text, flags=re.MULTILINE)
    attributes = yaml.safe_load(text)["attributes"]
    # Of keys that contradict each other the example shows one by one, and some keys belong to one mode.
    only = {"mirror": "dedupe_window", "append": "removal_limit"} if component is Sync else {"": ""}
    for mode, other in only.items():
        said = attributes | {"mode": mode} if mode else attributes
        for others in ALTERNATIVES.get(component, ((),)):
            component.resolve_from_yaml(yaml.safe_dump({k: v for k, v in said.items() if k not in (*others, other)}))
    # `api`, `files` and `tables` belong to kinds of destination that the example is not of.
    assert set(attributes) >= set(component.keys()) - {"description", "api", "files", "tables"}


def test_a_sync_that_is_not_filled_in_breaks_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    project = ProjectFolder(tmp_path)
    project.write("crm", "type: integrations_dagster.Destination\nattributes: {name: crm, kind: hubspot}\n")
    delivered = yaml.safe_load(SYNC) | {"attributes": {
        "name": "contacts", "model": "people", "destination": "crm", "object": "contacts", "mode": "upsert",
        "match": {"email": "full_name"}, "fields": {"firstname": "full_name"},
    }}  # fmt: skip
    project.write("contacts", yaml.safe_dump(delivered))
    scaffold(SyncScaffolder, "Sync", project.defs.parent)
    assert set(load_project(tmp_path).broken) == {"my-thing"}


def test_the_model_brings_its_sql(tmp_path: Path) -> None:
    scaffold(ModelScaffolder, "Model", tmp_path)
    sql = tmp_path / "sql" / "my_thing.sql"
    assert "SELECT" in sql.read_text()
    sql.write_text("SELECT 2 AS id\n")
    scaffold(ModelScaffolder, "Model", tmp_path)
    assert sql.read_text() == "SELECT 2 AS id\n"


def test_appending_adds_a_document(tmp_path: Path) -> None:
    scaffold(ModelScaffolder, "Model", tmp_path)
    file = scaffold(SyncScaffolder, "Sync", tmp_path, append=True)
    assert [d["type"] for d in yaml.safe_load_all(file.read_text())] == [
        "integrations_dagster.Model",
        "integrations_dagster.Sync",
    ]
