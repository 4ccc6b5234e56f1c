"""Takes the pictures of docs/tour.md from the real UI: `python -m integrations_dagster_tests.live.screenshots`.

Needs headless Chromium; takes some minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.process import ensure_running, stop
from integrations_dagster.sandbox.shop import change_some
from integrations_dagster_tests.live.browser import Page, browser
from integrations_dagster_tests.live.conftest import START, UPSERTS, WEEK
from integrations_dagster_tests.live.graphql import Ui
from integrations_dagster_tests.live.project import REPOSITORY, LiveProject
from integrations_dagster_tests.live.stack import Stack, free_port, wait_for

IMAGES = REPOSITORY / "docs" / "images"
CUSTOMERS, ORDERS = 20_000, 60_000
ROUNDS = 4
"""Runs after the first one, each after some changes: points of the plots."""


def main() -> None:
    """Run the project on its sample, then take the pictures."""
    with tempfile.TemporaryDirectory(prefix="tour-", ignore_cleanup_errors=True) as folder:
        project = LiveProject(Path(folder), CUSTOMERS, ORDERS, edits={})
        endpoint, _ = ensure_running(project.storage)
        sandbox = SandboxClient(endpoint)
        port = free_port()
        ui = Ui(f"http://127.0.0.1:{port}")
        stack = Stack(
            ["dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)],
            project.folder,
            project.folder / "dagster.log",
            {"DAGSTER_HOME": str(project.home), "INTEGRATIONS_STORAGE": str(project.storage)},
        )
        try:
            wait_for("webserver", ui.loaded, START)
            # As slow as an API is: the write steps are long enough to be seen beside one another.
            sandbox.faults([{"match": {"path": UPSERTS}, "fault": {"kind": "latency", "seconds": 1.0}}])
            first = ui.launch("sync_customers")
            ui.succeeded(first, 400)
            sandbox.faults([{"match": {"path": UPSERTS}, "fault": {"kind": "latency", "seconds": 0.1}}])
            week = ui.backfill(["orders_daily", "orders_to_webhook"], WEEK)
            for _ in range(ROUNDS):
                others = [ui.launch("sync_crm_companies"), ui.launch("sync_customers")]
                for run in others:
                    ui.succeeded(run, 300)
                change_some(project.warehouse)
            ui.succeeded(ui.launch("sync_customers"), 300)
            ui.backfilled(week, 300)
            with browser() as page:
                take(page, ui, first)
            if sys.stdin.isatty():
                input(f"Look around at {ui.url}; Enter ends it. ")
        finally:
            stack.stop()
            stop(project.storage)


def take(page: Page, ui: Ui, run: str) -> None:
    """Take all pictures.

    Args:
        run: Id of the run whose timeline is shown.
    """
    IMAGES.mkdir(parents=True, exist_ok=True)
    # Without it the first page is covered by an invitation.
    ui.ask("mutation { setNuxSeen }")
    # The graph does not shrink below what can be read, so it needs room.
    page.size(2000, 1440, 0.8)
    page.open(f"{ui.url}/asset-groups")
    page.shows("Global asset lineage", "models")
    page.hotkey("KeyE", "e", alt=True)
    page.shows("crm_contacts", "orders_to_webhook", "customers")
    # The address says now which groups are open; opened again, the whole graph fits.
    page.open(page.evaluate("location.href"))
    page.shows("crm_contacts", "orders_to_webhook", "customers")
    page.screenshot(IMAGES / "asset-graph.png")
    page.size()

    page.open(f"{ui.url}/runs/{run}")
    page.shows("crm_contacts.write[3]", "Success")
    page.press("expand_arrows", 0)
    page.screenshot(IMAGES / "run-timeline.png", 480)

    page.open(f"{ui.url}/assets/crm_contacts?view=events")
    page.shows("rows_queried", "rejected_rows")
    page.screenshot(IMAGES / "sync-metadata.png")
    page.scroll_to("target")
    page.screenshot(IMAGES / "sync-rejected.png")

    page.open(f"{ui.url}/assets/crm_contacts")
    page.shows("rows_queried")
    page.click("Plots")
    page.scroll_to("latency_p50_ms")
    page.screenshot(IMAGES / "sync-plots.png")


if __name__ == "__main__":
    main()
