"""The bench that tests with real servers work on: no sandbox has a part in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integrations_dagster.sandbox.endpoint import Endpoint
from integrations_dagster_tests.sync.harness import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """An empty storage folder with a warehouse and a ledger."""
    bench = Bench(tmp_path, Endpoint("none", "http://127.0.0.1:9", "", "", 0, 0.0))
    yield bench
    bench.close()
