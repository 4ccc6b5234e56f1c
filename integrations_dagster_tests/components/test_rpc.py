"""The YAML on the pages of `jsonrpc` and `xmlrpc` loads, and mistakes in it are named at their line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from integrations_dagster.components.load import load_project
from integrations_dagster.destinations.rpc.jsonrpc import JsonRpc, JsonRpcKeys
from integrations_dagster.vocabulary import Action, Mode
from integrations_dagster_tests.components.project import MODEL, WAREHOUSE, ProjectFolder

DOCS = Path(__file__).parents[2] / "docs" / "destinations"


def blocks(kind: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (DOCS / f"{kind}.md").read_text("utf-8"), re.DOTALL)


@pytest.fixture
def page(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectFolder:
    """A project with the destination and the sync of a page."""
    monkeypatch.syspath_prepend(str(tmp_path))
    destination, sync = blocks(request.param)[0].split("---\n")
    folders = {"warehouse": WAREHOUSE, "customers": MODEL.replace("people", "customers"), "erp": destination}
    project = ProjectFolder(tmp_path, folders | {"parties": sync.replace("customer_id", "person_id")})
    sql = "SELECT 1 AS person_id, 'a@x' AS email, 'Ada' AS name, 'en' AS language\n"
    (project.root / "sql" / "customers.sql").write_text(sql)
    return project


@pytest.mark.parametrize("page", ["jsonrpc", "xmlrpc"], indirect=True)
def test_the_example_of_the_page_loads(page: ProjectFolder) -> None:
    project = load_project(page.root)
    assert dict(project.broken) == {}
    sync = project.sync("parties")
    destination = sync.destination.create({})
    assert sync.mode is Mode.MIRROR
    assert destination.limits("party.party", Action.UPSERT).rows == 250
    assert [reference.name for reference in destination.references()] == ["languages"]


@pytest.mark.parametrize("page", ["jsonrpc", "xmlrpc"], indirect=True)
@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (
            'params: ["{rows}", {}]',
            'params: ["{rowz}", {}]',
            'has "{rowz}", which is no name here. Did you mean "rows"?',
        ),
        ("answer: all_rows", "answer: all", "all_rows"),
        ("rows: 250", "row: 250", 'is no key here. Did you mean "rows"?'),
        ("as: rejected", "as: refused", "rejected"),
        ("http://127.0.0.1:8000", "http://erp.example.com", "must be a server on this machine"),
        ("match: [code]", "match: [name]", "cannot be matched by 'code'"),
        ("mode: mirror", "mode: insert\n  in_doubt: resend", ""),
    ],
)
def test_mistakes_name_key_and_remedy(page: ProjectFolder, old: str, new: str, what: str) -> None:
    changed = 0
    for folder in ("erp", "parties"):
        file = page.defs / folder / "defs.yaml"
        text = file.read_text("utf-8")
        changed += old in text
        file.write_text(text.replace(old, new, 1), "utf-8")
    assert changed == 1
    if not what:
        load_project(page.root).sync("parties")
        return
    told = " ".join(load_project(page.root).broken.values())
    assert what in told


def test_the_other_example_is_an_api_of_one_row_a_request() -> None:
    api = JsonRpcKeys.model_validate(yaml.safe_load(blocks("jsonrpc")[1])["api"])
    odoo = JsonRpc({"secret": "key"}, api)
    odoo.check("res.partner", Mode.UPSERT, ("ref",), ("name",))
    assert odoo.limits("res.partner", Action.UPSERT).rows == 1
