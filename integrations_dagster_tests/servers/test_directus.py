"""Directus as a destination, over GraphQL and REST, with the YAML of the documentation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integrations_dagster.components import Destination
from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.spec import DestinationSpec, FieldRule, FieldSpec, SyncSpec
from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.servers import ten_thousand
from integrations_dagster_tests.servers.directus import Directus, running_directus
from integrations_dagster_tests.servers.install import missing
from integrations_dagster_tests.sync.harness import Bench

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(bool(missing("directus")), reason=missing("directus")),
]
PAGE = Path(__file__).parents[2] / "docs" / "destinations" / "directus.md"
KINDS_OF_API = ("graphql", "http")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directus]:
    with running_directus(tmp_path_factory.mktemp("directus")) as directus:
        yield directus


@pytest.fixture
def directus(server: Directus, bench: Bench) -> Directus:
    """The server with an empty collection."""
    server.new_collection("customers")
    bench.env["DIRECTUS_TOKEN"] = server.token
    return server


def destination(kind: str, directus: Directus) -> DestinationSpec:
    """The destination of the documentation, at this server."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (text,) = [block for block in blocks if f"\n  kind: {kind}\n" in block]
    attributes = "\n".join(line[2:] for line in text.splitlines()[2:]).replace("http://127.0.0.1:8055", directus.url)
    component: Destination = Destination.resolve_from_yaml(attributes)
    return dataclasses.replace(component.spec("sandbox"), in_flight=2, timeout=60.0, backoff=0.1)


def customers(kind: str, bench: Bench, directus: Directus, **changes: Any) -> SyncSpec:
    columns = ("name", "active", "born", "note")
    spec = SyncSpec(
        name="customers",
        model=ten_thousand.model(bench),
        destination=destination(kind, directus),
        object="customers",
        mode=Mode.MIRROR,
        match={"email": "email"},
        fields=(
            *(FieldSpec(name, name, rule=FieldRule(nulls="clear")) for name in columns),
            FieldSpec("amount", "amount", rule=FieldRule(type="number")),
        ),
    )
    return dataclasses.replace(spec, **changes)


def done(report: RunReport) -> dict[Status, int]:
    """Outcomes that there are."""
    return {status: count for status, count in report.outcomes.items() if count}


@pytest.mark.parametrize("kind", KINDS_OF_API)
def test_ten_thousand_rows(kind: str, bench: Bench, directus: Directus) -> None:
    sync = customers(kind, bench, directus)
    ten_thousand.check(bench, sync, lambda: directus.read("customers"))


@pytest.mark.parametrize("kind", KINDS_OF_API)
def test_bad_rows_among_ten_thousand_are_found_by_halves(kind: str, bench: Bench, directus: Directus) -> None:
    """Directus writes nothing of a batch that has one; the batches are halved until it is alone."""
    sync = customers(kind, bench, directus)
    rows = [ten_thousand.customer(number) for number in range(ten_thousand.ROWS)]
    bad = {17, 18, 4321, 9999}
    for number in bad:
        rows[number]["name"] = f"bad {number}"
    ten_thousand.load(bench, rows)
    report = bench.run(sync)
    assert not report.failures
    assert done(report) == {Status.CREATED: len(rows) - len(bad), Status.REJECTED: len(bad)}
    assert {int(row.key) for row in report.bad_rows} == bad
    for row in report.bad_rows:
        assert row.code == "FAILED_VALIDATION"
        assert 'cms says: Validation failed for field "name".' in row.reason, row.reason
    assert directus.read("customers").keys() == {row["email"] for row in rows if row["id"] not in bad}


@pytest.mark.parametrize("kind", KINDS_OF_API)
def test_an_item_that_is_not_there(kind: str, bench: Bench, directus: Directus) -> None:
    """REST answers 200 with an empty list; GraphQL as if it were forbidden. Neither passes for a change."""
    sync = customers(kind, bench, directus, mode=Mode.UPDATE)
    ten_thousand.load(bench, [ten_thousand.customer(number) for number in range(3)])
    directus.ask("POST", "/items/customers", json=[{"email": "user1@example.com", "name": "as it was"}])
    report = bench.run(sync)
    assert not report.failures
    assert done(report) == {Status.UPDATED: 1, Status.REJECTED: 2}
    assert {(row.key, row.code) for row in report.bad_rows} == {("0", "no_record"), ("2", "no_record")}
    assert directus.read("customers").keys() == {"user1@example.com"}
    assert directus.read("customers")["user1@example.com"]["name"] == ten_thousand.customer(1)["name"]


@pytest.mark.parametrize("kind", KINDS_OF_API)
def test_a_token_that_is_not_known(kind: str, bench: Bench, directus: Directus) -> None:
    sync = customers(kind, bench, directus)
    bench.env["DIRECTUS_TOKEN"] = "another"
    ten_thousand.load(bench, [ten_thousand.customer(1)])
    report = bench.run(sync)
    told = " ".join(report.failures)
    assert "The credentials were not accepted" in told
    assert "cms says: Invalid user credentials." in told
    assert "another" not in told
