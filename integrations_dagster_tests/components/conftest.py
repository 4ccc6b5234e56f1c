from __future__ import annotations

from pathlib import Path

import pytest

from integrations_dagster_tests.components.project import ProjectFolder


@pytest.fixture(autouse=True)
def _no_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTEGRATIONS_TARGET", raising=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectFolder:
    """A project with a warehouse, a model, a destination and a sync, one folder each."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return ProjectFolder(tmp_path)
