"""Where state lives."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from integrations_dagster.vocabulary import Misconfigured


def storage_id(storage: Path) -> str:
    """The name of a storage folder among those that use one warehouse; given once."""
    path = storage / "id"
    if not path.exists():
        storage.mkdir(parents=True, exist_ok=True)
        draft = storage / f".id-{uuid.uuid4().hex}"
        draft.write_text(uuid.uuid4().hex, "utf-8")
        with contextlib.suppress(FileExistsError):  # someone else was faster
            os.link(draft, path)
        draft.unlink()
    return path.read_text("utf-8")


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
