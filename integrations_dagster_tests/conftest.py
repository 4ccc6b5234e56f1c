"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sandbox.process import ensure_running, stop
from integrations_dagster_tests.accounts import check_accounts
from integrations_dagster_tests.databases import lending
from integrations_dagster_tests.destinations.flows import CHECKED, specs
from integrations_dagster_tests.postgres import Postgres, running_postgres


def pytest_configure() -> None:
    """A shell that runs the tests in the background ignores SIGINT, and so would every process they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the cases of a test that is marked `quick(n)`, n that lie apart are run each time; the others are slow."""
    groups: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("quick"):
            groups[item.nodeid.partition("[")[0]].append(item)
    for group in groups.values():
        marker = group[0].get_closest_marker("quick")
        assert marker is not None
        (count,) = marker.args
        chosen = {place * len(group) // count for place in range(count)}
        for place, item in enumerate(group):
            if place not in chosen:
                item.add_marker(pytest.mark.slow)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells the process that prints the summary what it has checked."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["checked"] = dict(CHECKED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker has checked; one that died tells nothing."""
    CHECKED.update(getattr(node, "workeroutput", {}).get("checked", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how many bodies were held against the vendors' schemas."""
    counts = ", ".join(f"{count} {name}" for name, count in sorted(CHECKED.items()))
    told = f"{CHECKED.total()} ({counts})" if CHECKED else "none"
    if not CHECKED and specs() is None:
        told += " (INTEGRATIONS_SPECS is not set)"
    terminalreporter.write_line(f"HubSpot bodies held against its OpenAPI files: {told}")


@pytest.fixture(autouse=True, scope="session")
def _databases(request: pytest.FixtureRequest) -> Iterator[None]:
    """DuckDB databases that tests use one after the other; the slow tests start their own."""
    if "not slow" not in request.config.option.markexpr:
        yield
        return
    idle: list[duckdb.DuckDBPyConnection] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb, "connect", lending(idle))
        yield
    while idle:
        idle.pop().close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that runs for the whole session; tests make databases of their own in it."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def sandbox_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A storage folder whose sandbox runs for the whole session."""
    storage = tmp_path_factory.mktemp("storage")
    ensure_running(storage)
    yield storage
    stop(storage)


@pytest.fixture
def sandbox(sandbox_storage: Path) -> Iterator[Endpoint]:
    """The session's sandbox, empty and without faults."""
    endpoint, _ = ensure_running(sandbox_storage)
    client = SandboxClient(endpoint)
    client.reset()
    yield endpoint
    client.reset()
    client.release()


_CHECKED: set[Path] = set()
"""Accounts of runs that have been checked."""


@pytest.fixture(autouse=True)
def _counts_add_up(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test is about: the account of each run that it made adds up, and agrees with the sync log."""
    folder: Path | None = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is not None:
        check_accounts(folder, _CHECKED)


@pytest.fixture(autouse=True, scope="session")
def _all_counts_add_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Likewise of runs in folders that several tests share."""
    yield
    check_accounts(tmp_path_factory.getbasetemp(), _CHECKED)
