"""`integrations`: the command line."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point; see `app.main`."""
    from integrations_dagster.cli.app import main as run

    run(arguments)
