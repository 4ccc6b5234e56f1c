"""The UI in a browser."""

from __future__ import annotations

import pytest

from integrations_dagster_tests.live.browser import CHROMIUM, MISSING, browser
from integrations_dagster_tests.live.conftest import Delivered, Live

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_the_pages_of_a_sync_and_of_a_run_show_what_happened(live: Live, customers_run: Delivered) -> None:
    with browser() as page:
        page.open(f"{live.ui.url}/assets/crm_contacts")
        page.shows("crm_contacts", "Delivers the rows of customers", "hubspot")
        page.open(f"{live.ui.url}/runs/{customers_run.run.id}")
        page.shows("crm_contacts.write[0]", "Success")
