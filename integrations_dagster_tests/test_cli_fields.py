"""`integrations fields` and `integrations suggest`, and lookups from the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from integrations_dagster_tests.test_cli import Shell, outside, root, shell  # noqa: F401 (fixtures)

OWNED = """
type: integrations_dagster.Sync
attributes:
  name: owned
  model: people
  destination: crm
  object: contacts
  mode: upsert
  match: {email: email}
  fields: {hubspot_owner_id: {lookup: owners, column: email}}
"""


@pytest.fixture
def owned(root: Path) -> Iterator[None]:  # noqa: F811
    """A further sync, which looks owners up."""
    file = root / "shop_syncs" / "defs" / "owned.yaml"
    folder = root / "shop_syncs" / "defs" / "owned"
    folder.mkdir(exist_ok=True)
    file = folder / "defs.yaml"
    file.write_text(OWNED)
    yield
    file.unlink()
    folder.rmdir()


def test_fields_are_listed(shell: Shell) -> None:  # noqa: F811
    text = shell("fields", "crm", "contacts")
    assert re.search(r"^\s*email +Email +email \(string\) +yes +no +yes\s*$", text, re.MULTILINE), text
    assert re.search(r"^\s*createdate +Create date +timestamp \(datetime\) +no +no +no\s*$", text, re.MULTILINE), text
    assert "subscriber, lead" in text
    writable = shell("fields", "crm", "contacts", "--writable")
    assert "createdate" not in writable
    assert "lifetime_value" in writable
    shell.sandbox.remove_property("contacts", "lifetime_value")
    assert "lifetime_value" not in shell("fields", "crm", "contacts"), "read now, not from a cache"
    shell.sandbox.remove_property("contacts", "firstname")
    assert "A run would stop before it sends anything" in shell("preview", "contacts")
    text = shell("run", "contacts", code=1)
    assert "Field 'firstname' does not exist" in text
    assert "integrations fields crm contacts" in text
    assert "Webhook does not say which fields its objects have" in shell("fields", "hook", "visits", code=1)
    assert '"crmm" is no destination' in shell("fields", "crmm", "contacts", code=1)


def test_a_mapping_is_suggested_for_what_a_sync_leaves_out(shell: Shell, root: Path) -> None:  # noqa: F811
    (root / "sql" / "people.sql").write_text(
        "SELECT id, email, name, 'x' AS last_name, 1 AS lifetime_value, 2 AS zzz FROM people"
    )
    try:
        # What is said beside the YAML goes to stderr, which comes last here.
        text = shell("suggest", "contacts").partition("Model 'people'")[0]
        assert yaml.safe_load(text) == {"fields": {"lastname": "last_name", "lifetime_value": "lifetime_value"}}
        assert "Columns without a field: id, zzz" in text
        text = shell("suggest", "--model", "people", "--destination", "crm", "--object", "contacts")
        text = text.partition("Model 'people'")[0]
        attributes = yaml.safe_load(text)["attributes"]
        assert (attributes["match"], attributes["object"], attributes["model"]) == (
            {"email": "email"}, "contacts", "people",
        )  # fmt: skip
        assert attributes["fields"]["lastname"] == "last_name"
        # What is pasted loads, and runs.
        folder = root / "shop_syncs" / "defs" / "pasted"
        folder.mkdir()
        (folder / "defs.yaml").write_text(text)
        assert re.search(r"created +200", shell("run", attributes["name"]))
        (folder / "defs.yaml").unlink()
        folder.rmdir()
    finally:
        (root / "sql" / "people.sql").write_text("SELECT id, email, name FROM people")
    for arguments in ((), ("--model", "people"), ("contacts", "--model", "people")):
        assert "Either a sync is needed" in shell("suggest", *arguments, code=1)
    wrong = ("suggest", "--model", "nope", "--destination", "crm", "--object", "contacts")
    assert '"nope" is no model' in shell(*wrong, code=1)


def test_a_run_from_the_terminal_looks_values_up(shell: Shell, owned: None) -> None:  # noqa: F811
    id_ = shell.sandbox.define_owner("p7@example.com")
    text = shell("preview", "owned")
    assert f'"hubspot_owner_id": "{id_}"' in text
    text = shell("run", "owned")
    assert re.search(r"invalid +199", text)
    assert "owners of crm have none whose email is 'p" in text
    assert [r["properties"]["hubspot_owner_id"] for r in shell.sandbox.records("contacts")] == [id_]
