"""Whole syncs to a SOAP API over real HTTP, from YAML with a session login."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.responses import Response

from integrations_dagster.components import Destination
from integrations_dagster.sync.spec import DestinationSpec, FieldRule, FieldSpec, SyncSpec
from integrations_dagster.vocabulary import Misconfigured, Mode, Status
from integrations_dagster_tests.http_apis import served
from integrations_dagster_tests.soap_api import API, FOLDER, LOGIN, PASSWORD, SPACES, USER, Registry, fault
from integrations_dagster_tests.sync.harness import Bench

COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "name": "VARCHAR", "balance": "DECIMAL(9,2)", "seen": "TIMESTAMP"}


@pytest.fixture
def registry() -> Iterator[tuple[Registry, str]]:
    api = Registry()
    with served(api.app()) as url:
        yield api, url


def attributes(url: str, version: str = "1.1") -> dict[str, Any]:
    auth = {
        "kind": "session",
        "login_path": "/registry",
        "login_xml": LOGIN.format(space=SPACES[version]),
        "username": USER,
        "password": {"env": "REGISTRY_PASSWORD"},
        "token_path": "Envelope.Body.loginResponse.token",
        "token_in": "body",
    }
    api = yaml.safe_load(API) | {"port": "Registry11" if version == "1.1" else "Registry12"}
    api["wsdl"] = str(FOLDER / "registry.wsdl")
    return {
        "name": "registry",
        "kind": "soap",
        "targets": {"sandbox": {"base_url": url, "auth": auth}},
        "api": api,
    }


def destination(url: str, version: str = "1.1") -> DestinationSpec:
    component: Destination = Destination.resolve_from_yaml(yaml.safe_dump(attributes(url, version)))
    return dataclasses.replace(component.spec("sandbox"), timeout=5.0, in_flight=2)


def members(bench: Bench, url: str, mode: Mode = Mode.MIRROR, version: str = "1.1", **changes: Any) -> SyncSpec:
    bench.env["REGISTRY_PASSWORD"] = PASSWORD
    spec = SyncSpec(
        name="members",
        model=bench.model("members", "SELECT * FROM members"),
        destination=destination(url, version),
        object="members",
        mode=mode,
        match={"email": "email"},
        fields=(
            FieldSpec("name", "name", rule=FieldRule(nulls="clear")),
            FieldSpec("balance", "balance"),
            FieldSpec("seen", "seen"),
        ),
        removal_limit=1.0,
        source="defs/members/defs.yaml:1",
    )
    return dataclasses.replace(spec, **changes)


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            "email": f"m{i}@example.com",
            "name": f"Zoë <{i}> & co",
            "balance": f"{i}.50",
            "seen": "2026-08-01 12:00:00",
        }
        for i in range(count)
    ]


@pytest.mark.quick(1)
@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_rows_are_created_changed_and_removed(bench: Bench, registry: tuple[Registry, str], version: str) -> None:
    api, url = registry
    sync = members(bench, url, version=version)
    bench.load("members", rows(120), COLUMNS)
    report = bench.run(sync)
    assert not report.failures, report.failures
    assert report.outcomes[Status.CREATED] == 120
    assert api.by_email()["m7@example.com"] == {
        "email": "m7@example.com",
        "name": "Zoë <7> & co",
        "balance": "7.50",
        "seen": "2026-08-01T12:00:00Z",
    }
    assert [name for name, _, _ in api.asked] == ["login", "saveMembers", "saveMembers", "saveMembers"]
    if version == "1.1":
        assert {action for name, _, action in api.asked if name == "saveMembers"} == {'"urn:registry#save"'}
    assert not bench.run(sync).failures
    assert len(api.asked) == 4, "a run with nothing to do sends nothing"

    changed = rows(110)
    changed[3]["name"] = None
    bench.load("members", changed, COLUMNS)
    report = bench.run(sync)
    assert not report.failures, report.failures
    assert (report.outcomes[Status.UPDATED], report.outcomes[Status.DELETED]) == (1, 10)
    assert set(api.by_email()) == {row["email"] for row in changed}
    assert api.by_email()["m3@example.com"]["name"] is None
    assert api.logins == 1


def test_bad_rows_sessions_that_end_throttling_and_outages(bench: Bench, registry: tuple[Registry, str]) -> None:
    api, url = registry
    sync = members(bench, url, destination=dataclasses.replace(destination(url), in_flight=1))
    table = rows(100)
    table[5]["name"] = "bad five"
    table[60]["name"] = "a\x0bb"
    bench.load("members", table, COLUMNS)
    api.faults = [
        Response(fault("BUSY", "Too many at once"), 500, media_type="text/xml", headers={"Retry-After": "0"}),
        Response("<html>gateway</html>", 502, media_type="text/html"),
        Response(fault("NO_SESSION", "Your session has ended"), 500, media_type="text/xml"),
    ]
    report = bench.run(sync)
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.REJECTED]) == (98, 1)
    assert {row.key: row.reason for row in report.bad_rows}["5"] == "registry says: bad five is no name"
    assert "character that no XML document can hold" in {row.key: row.reason for row in report.bad_rows}["60"]
    assert report.traffic.errors == {"throttled": 1, "unavailable": 1, "unauthorized": 1}
    assert api.logins == 2
    assert set(api.by_email()) == {row["email"] for row in table if row["id"] not in (5, 60)}


def test_a_lost_answer_to_an_upsert_is_asked_for_again(bench: Bench, registry: tuple[Registry, str]) -> None:
    api, url = registry
    bench.load("members", rows(30), COLUMNS)
    api.lost = 1
    report = bench.run(members(bench, url))
    assert not report.failures, report.failures
    assert len(api.members) == 30
    assert [name for name, _, _ in api.asked].count("saveMembers") == 2


def test_a_refused_message_is_halved_until_the_bad_row_is_alone(bench: Bench, registry: tuple[Registry, str]) -> None:
    api, url = registry
    bench.load("members", rows(2), COLUMNS)
    api.faults = [Response(fault("Sender", "Not this"), 500, media_type="text/xml") for _ in range(2)]
    report = bench.run(members(bench, url))
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.REJECTED]) == (1, 1)
    assert [name for name, _, _ in api.asked].count("saveMembers") == 3


def test_no_secret_is_in_any_file(bench: Bench, registry: tuple[Registry, str]) -> None:
    _, url = registry
    bench.load("members", rows(3), COLUMNS)
    sync = members(bench, url, destination=dataclasses.replace(destination(url), log_bodies="all"))
    assert bench.run(sync).outcomes[Status.CREATED] == 3
    tokens = list((bench.folder / "tokens").glob("*.json"))
    assert len(tokens) == 1
    assert tokens[0].stat().st_mode & 0o777 == 0o600
    logs = [gzip.decompress(path.read_bytes()) for path in bench.folder.rglob("requests-*.jsonl.gz")]
    assert any(b"<?session ?>" in log for log in logs), "the mark is logged where the token was sent"
    for path in bench.folder.rglob("*"):
        if path.is_file() and path not in tokens:
            content = path.read_bytes() if path.suffix != ".gz" else gzip.decompress(path.read_bytes())
            assert b"s" * 20 not in content, path
            assert PASSWORD.encode() not in content, path


def test_a_login_that_is_refused_by_a_fault_stops_the_run(bench: Bench, registry: tuple[Registry, str]) -> None:
    _, url = registry
    bench.load("members", rows(3), COLUMNS)
    sync = members(bench, url)
    bench.env["REGISTRY_PASSWORD"] = "wrong-word-1"
    report = bench.run(sync)
    assert any("The login was refused (BAD_LOGIN): No user with password •••." in line for line in report.failures)
    assert not any("wrong-word-1" in line for line in report.failures)


def test_the_wsdl_is_a_file_of_the_project(tmp_path: Path) -> None:
    given = attributes("http://127.0.0.1:1")
    given["api"]["wsdl"] = "wsdl/registry.wsdl"
    with pytest.raises(Misconfigured, match="is no file of the project"):
        Destination.resolve_from_yaml(yaml.safe_dump(given))


def test_a_token_in_the_body_is_for_kinds_that_have_a_place_for_it() -> None:
    given = attributes("http://127.0.0.1:1")
    given["kind"] = "http"
    given["api"] = {"objects": {"a": {"create": {"request": "POST /a", "body": "{record}", "answer": "all_rows"}}}}
    with pytest.raises(Misconfigured, match="token_in is nothing for HTTP API"):
        Destination.resolve_from_yaml(yaml.safe_dump(given))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"login_xml": "<a>{username}"}, "login_xml is no XML"),
        ({"login_xml": "<a>{username}</a>"}, "has no {password} in it"),
        ({"login_json": "{}"}, "takes at most one of login_json and login_xml"),
        ({"header": "X: {token}"}, "takes at most one of token_in and header"),
    ],
)
def test_mistakes_in_the_login(changes: dict[str, str], told: str) -> None:
    given = attributes("http://127.0.0.1:1")
    given["targets"]["sandbox"]["auth"] |= changes
    with pytest.raises(Misconfigured) as raised:
        Destination.resolve_from_yaml(yaml.safe_dump(given))
    assert told in str(raised.value)


def test_a_changed_match_value_leaves_no_record_behind(bench: Bench, registry: tuple[Registry, str]) -> None:
    api, url = registry
    sync = members(bench, url)
    table = rows(5)
    bench.load("members", table, COLUMNS)
    assert bench.run(sync).outcomes[Status.CREATED] == 5
    table[1]["email"] = "renamed@example.com"
    bench.load("members", table, COLUMNS)
    report = bench.run(sync)
    assert not report.failures, report.failures
    assert set(api.by_email()) == {row["email"] for row in table}
    assert api.members["m2"]["email"] == "renamed@example.com", "by its id, as the record that it was"
