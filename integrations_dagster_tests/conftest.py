"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster.sandbox.process import ensure_running, stop


def pytest_configure() -> None:
    """A shell that runs the tests in the background ignores SIGINT, and so would every process they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
