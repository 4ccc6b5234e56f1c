"""Where state lives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from integrations_dagster.vocabulary import Misconfigured


def storage_path(env: Mapping[str, str]) -> Path:
    """The storage folder: INTEGRATIONS_STORAGE, by default `integrations` inside DAGSTER_HOME.

    Raises:
        Misconfigured: Neither variable is set, or the path is not absolute.
    """
    text = env.get("INTEGRATIONS_STORAGE", "")
    if not text and env.get("DAGSTER_HOME"):
        text = str(Path(env["DAGSTER_HOME"]) / "integrations")
    if not text:
        raise Misconfigured(
            "Neither INTEGRATIONS_STORAGE nor DAGSTER_HOME is set, so there is no place for the state of syncs.",
            "Set DAGSTER_HOME to a folder that survives restarts (the Makefile does).",
        )
    path = Path(text)
    if not path.is_absolute():
        raise Misconfigured(
            f"INTEGRATIONS_STORAGE is {text!r}, which depends on the working folder of each process.",
            "Set it to an absolute path.",
        )
    return path
