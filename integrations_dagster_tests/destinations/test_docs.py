"""The documentation of the destinations says what their error tables say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from integrations_dagster.destinations import file, webhook
from integrations_dagster.destinations.error_table import ErrorEntry, markdown
from integrations_dagster.destinations.hubspot import destination as hubspot
from integrations_dagster.destinations.hubspot import errors as hubspot_errors
from integrations_dagster.destinations.registry import KINDS
from integrations_dagster.destinations.salesforce import destination as salesforce
from integrations_dagster.destinations.salesforce import errors as salesforce_errors
from integrations_dagster.destinations.salesforce.checks import SalesforceKeys
from integrations_dagster.destinations.sandbox import base as sandbox_base
from integrations_dagster.destinations.sql import destination as sql
from integrations_dagster.destinations.sql import errors as sql_errors

DOCS = Path(__file__).parents[2] / "docs" / "destinations"


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("hubspot.md", hubspot_errors.TABLE),
        ("salesforce.md", salesforce_errors.TABLE),
        ("webhook.md", webhook.TABLE),
        ("sql.md", sql_errors.TABLE),
        ("file.md", file.TABLE),
        ("sandbox_insert.md", sandbox_base.TABLE),
        ("sandbox_jobs.md", sandbox_base.TABLE),
    ],
)
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
    page = (DOCS / "salesforce.md").read_text()
    assert f"{salesforce.MAX_ROWS} rows and {salesforce.MAX_BYTES:,} bytes" in page
    assert f"`{SalesforceKeys().version}`" in page
    assert f"{webhook.MAX_ROWS} rows and {webhook.MAX_BYTES:,} bytes" in (DOCS / "webhook.md").read_text()
    assert f"{sql.MAX_ROWS:,} rows and {sql.MAX_BYTES // 2**20} MB" in (DOCS / "sql.md").read_text()
    assert f"{file.MAX_ROWS:,} rows (`insert` and `append`: {file.INSERT_ROWS:,})" in (DOCS / "file.md").read_text()
    for page in ("sandbox_insert.md", "sandbox_jobs.md"):
        assert f"{sandbox_base.MAX_BYTES:,} bytes" in (DOCS / page).read_text()


def test_every_kind_has_a_page_that_names_it_and_its_modes() -> None:
    pages = {page.stem: page.read_text() for page in DOCS.glob("*.md")}
    for name, kind in KINDS.items():
        page = pages[name.removesuffix("_keyed")]
        assert name in page
        for mode in kind.modes:
            assert f"`{mode.value}`" in page, f"{name}: {mode.value}"
