"""Runs of the shop's jobs in processes of their own, with the default executor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from integrations_dagster_tests.orchestration.shop import FOLDER_ENV, Shop

ROOT = Path(__file__).parents[2]


def home_with(folder: Path, dagster_yaml: str = "") -> Path:
    """A DAGSTER_HOME with this configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dagster.yaml").write_text(dagster_yaml or "telemetry: {enabled: false}\n", "utf-8")
    return folder


def environment(shop: Shop, home: Path, **extra: str) -> dict[str, str]:
    """What a process needs to load the shop's code location."""
    return {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "INTEGRATIONS_STORAGE": str(shop.storage),
        FOLDER_ENV: str(shop.folder),
        **extra,
    }


def start_job(job: str, env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Execute a job of the shop in a new process, the run's worker; its log is on stderr."""
    module = "integrations_dagster_tests.orchestration.location"
    return subprocess.Popen(
        [sys.executable, "-m", "dagster", "job", "execute", "-m", module, "-j", job],
        env=dict(env),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def execute_job(job: str, env: Mapping[str, str], timeout: float = 100) -> str:
    """Execute a job of the shop to its end; returns its log.

    Raises:
        AssertionError: The run failed.
    """
    process = start_job(job, env)
    _, log = process.communicate(timeout=timeout)
    assert process.returncode == 0, log[-5000:]
    return log
