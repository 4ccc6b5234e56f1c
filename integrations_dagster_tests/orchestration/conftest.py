"""A shop, an instance, and the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster_tests.orchestration.shop import Shop


@pytest.fixture
def shop(tmp_path: Path, sandbox: Endpoint, sandbox_storage: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """An empty shop whose storage knows the session's sandbox."""
    shop = Shop(tmp_path)
    shop.use_sandbox(sandbox_storage)
    monkeypatch.setenv("INTEGRATIONS_STORAGE", str(shop.storage))
    for name in ("SLACK_BOT_TOKEN", "SLACK_BASE_URL", "DAGSTER_WEBSERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    return shop


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance that ends with the test."""
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield instance
