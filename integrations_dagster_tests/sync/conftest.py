"""The bench that the tests of this room work on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from integrations_dagster.sandbox.endpoint import Endpoint, state_folder
from integrations_dagster_tests.sync.harness import Bench


@pytest.fixture
def bench(tmp_path: Path, sandbox: Endpoint, sandbox_storage: Path) -> Iterator[Bench]:
    """An empty storage folder that knows the session's sandbox."""
    (tmp_path / "sandbox").mkdir()
    shutil.copy(state_folder(sandbox_storage) / "sandbox.json", tmp_path / "sandbox" / "sandbox.json")
    bench = Bench(tmp_path, sandbox)
    yield bench
    bench.close()
