"""Tells how many bodies were held against the vendors' schemas."""

from __future__ import annotations

import pytest

from integrations_dagster_tests.destinations.flows import CHECKED, specs


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CHECKED:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(CHECKED.items()))
        terminalreporter.write_line(f"HubSpot bodies held against its OpenAPI files: {CHECKED.total()} ({counts})")
    elif specs() is None:
        terminalreporter.write_line(
            "HubSpot bodies held against its OpenAPI files: none (INTEGRATIONS_SPECS is not set)"
        )
