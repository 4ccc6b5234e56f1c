"""The documentation of the destinations says what their error tables say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from integrations_dagster.destinations import hubspot, hubspot_errors, webhook
from integrations_dagster.destinations.error_table import ErrorEntry, markdown

DOCS = Path(__file__).parents[2] / "docs" / "destinations"


@pytest.mark.parametrize(("page", "table"), [("hubspot.md", hubspot_errors.TABLE), ("webhook.md", webhook.TABLE)])
def test_the_error_table_of_the_page_is_the_one_that_decides(page: str, table: Sequence[ErrorEntry]) -> None:
    shown = [
        line for line in (DOCS / page).read_text().splitlines() if line.startswith("| ") and "what it means" in line
    ]
    assert len(shown) == 1
    lines = (DOCS / page).read_text().splitlines()
    start = lines.index(shown[0])
    expected = list(markdown(table))
    assert lines[start : start + len(expected)] == expected, "paste what error_table.markdown gives"


def test_the_pages_name_the_limits_in_force() -> None:
    assert f"{hubspot.MAX_ROWS} rows and {hubspot.MAX_BYTES:,} bytes" in (DOCS / "hubspot.md").read_text()
    assert f"{webhook.MAX_ROWS} rows and {webhook.MAX_BYTES:,} bytes" in (DOCS / "webhook.md").read_text()
