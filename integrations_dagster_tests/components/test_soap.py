"""A destination of kind `soap` loads with its WSDL, a file of the project, and mistakes are named at their line."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from integrations_dagster.components.load import load_project
from integrations_dagster.vocabulary import Action, Mode
from integrations_dagster_tests.components.project import MODEL, WAREHOUSE, ProjectFolder
from integrations_dagster_tests.soap_api import API, FOLDER

DOCS = Path(__file__).parents[2] / "docs" / "destinations"
PARTNER = "salesforce-partner.wsdl.xml"
DESTINATION = """type: integrations_dagster.Destination
attributes:
  name: registry
  kind: soap
  targets:
    sandbox: {base_url: "http://127.0.0.1:8000"}
  api:
"""
SYNC = """type: integrations_dagster.Sync
attributes:
  name: members
  model: customers
  destination: registry
  object: members
  mode: upsert
  match: {email: email}
  fields: {name: name}
"""


def made(root: Path, destination: str, sync: str, sql: str) -> ProjectFolder:
    folders = {"warehouse": WAREHOUSE, "customers": MODEL.replace("people", "customers")}
    project = ProjectFolder(root, folders | {"api": destination, "sync": sync})
    (project.root / "sql" / "customers.sql").write_text(sql)
    return project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectFolder:
    """A project whose WSDL, and the schema that it imports, are in a folder of their own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    api = "".join(f"    {line}\n" for line in API.replace("registry.wsdl", "specs/registry.wsdl").strip().splitlines())
    sql = "SELECT 1 AS person_id, 'a@x' AS email, 'Ada' AS name\n"
    project = made(tmp_path, DESTINATION + api, SYNC, sql)
    shutil.copytree(FOLDER, project.root / "specs")
    return project


def test_it_loads(project: ProjectFolder) -> None:
    loaded = load_project(project.root)
    assert dict(loaded.broken) == {}
    destination = loaded.sync("members").destination.create({})
    assert destination.label == "registry"
    assert destination.limits("members", Action.UPSERT).rows == 50


@pytest.mark.parametrize(
    ("folder", "old", "new", "what"),
    [
        ("api", "operation: saveMembers", "operation: saveMember", 'Did you mean "saveMembers"?'),
        ("api", "specs/registry.wsdl", "registry.wsdl", "is no file of the project"),
        ("api", "specs/registry.wsdl", "https://acme.example/r.wsdl", "Nothing is fetched: put it there."),
        ("sync", "{name: name}", "{nick: name}", '"nick" is no element of it in the WSDL'),
        ("sync", "mode: upsert", "mode: insert", "lacks `create`"),
    ],
)
def test_mistakes_are_named(project: ProjectFolder, folder: str, old: str, new: str, what: str) -> None:
    file = project.defs / folder / "defs.yaml"
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")
    assert what in " ".join(load_project(project.root).broken.values())


def test_the_example_of_the_page_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wsdl = Path(os.environ.get("INTEGRATIONS_SPECS", "")) / PARTNER
    if not wsdl.is_file():
        pytest.skip(f"INTEGRATIONS_SPECS names no folder with {PARTNER}")
    monkeypatch.syspath_prepend(str(tmp_path))
    (block, *_) = re.findall(r"```yaml\n(.*?)```", (DOCS / "soap.md").read_text("utf-8"), re.DOTALL)
    destination, sync = block.split("---\n")
    sql = "SELECT 1 AS person_id, 1 AS customer_id, 'A' AS last_name, CURRENT_DATE AS born, 'a@x' AS owner_login\n"
    project = made(tmp_path, destination, sync, sql)
    (project.root / "wsdl").mkdir()
    shutil.copy(wsdl, project.root / "wsdl" / "partner.wsdl.xml")
    loaded = load_project(project.root)
    assert dict(loaded.broken) == {}
    sync_ = loaded.sync("crm_contacts")
    assert sync_.mode is Mode.MIRROR
    destination_ = sync_.destination.create({})
    assert destination_.limits("Contact", Action.DELETE).rows == 200
    assert [reference.name for reference in destination_.references()] == ["users"]
