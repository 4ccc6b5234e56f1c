from __future__ import annotations

import subprocess
import sys

import pytest

from integrations_dagster.destinations.file import File
from integrations_dagster.destinations.graphql.destination import Graphql
from integrations_dagster.destinations.http.destination import Http
from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.destinations.registry import KINDS, create
from integrations_dagster.destinations.rpc.jsonrpc import JsonRpc
from integrations_dagster.destinations.rpc.xmlrpc import XmlRpc
from integrations_dagster.destinations.salesforce.destination import Salesforce
from integrations_dagster.destinations.sandbox.insert import SandboxInsert, SandboxInsertKeyed
from integrations_dagster.destinations.sandbox.jobs import SandboxJobs
from integrations_dagster.destinations.soap.destination import Soap
from integrations_dagster.destinations.sql.destination import Sql
from integrations_dagster.destinations.webhook import Webhook
from integrations_dagster.vocabulary import Misconfigured


def test_kinds_are_named_as_their_classes_say() -> None:
    assert dict(KINDS) == {
        "hubspot": HubSpot,
        "graphql": Graphql,
        "http": Http,
        "jsonrpc": JsonRpc,
        "salesforce": Salesforce,
        "soap": Soap,
        "webhook": Webhook,
        "sql": Sql,
        "file": File,
        "xmlrpc": XmlRpc,
        "sandbox_insert": SandboxInsert,
        "sandbox_insert_keyed": SandboxInsertKeyed,
        "sandbox_jobs": SandboxJobs,
    }
    assert isinstance(create("hubspot"), HubSpot)
    assert isinstance(create("webhook", {"secret": "s"}), Webhook)


@pytest.mark.parametrize(("kind", "hint"), [("Hubspot", "'hubspot'"), ("web_hook", "'webhook'")])
def test_an_unknown_kind_names_the_near_miss_and_the_known(kind: str, hint: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        create(kind)
    assert f"Did you mean {hint}?" in caught.value.remedy
    assert f"Known kinds: {', '.join(sorted(KINDS))}." in caught.value.remedy


def test_a_far_miss_gets_no_hint() -> None:
    with pytest.raises(Misconfigured) as caught:
        create("snowflake")
    assert "Did you mean" not in caught.value.remedy


def test_destinations_import_nothing_that_does_io() -> None:
    code = "import sys, integrations_dagster.destinations.registry as r; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"requests", "urllib3", "dagster", "pandas", "sqlalchemy", "duckdb", "pyarrow", "zeep", "lxml"}.isdisjoint(
        loaded
    )
