"""A person materializes a sync while another run of it is under way."""

from __future__ import annotations

import pytest

from integrations_dagster_tests.live.conftest import UPSERTS, Delivered, Live
from integrations_dagster_tests.live.stack import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_one_waits_visibly_and_nothing_is_sent_twice(calm: Live, customers_run: Delivered) -> None:
    live = calm
    ui, sandbox = live.ui, live.sandbox
    live.project.change("UPDATE raw.customers SET first_name = coalesce(first_name, '') || ' II'")
    before, seq = sandbox.writes("contacts", by="email"), sandbox.last_seq()
    sandbox.faults([{"match": {"path": UPSERTS}, "fault": {"kind": "latency", "seconds": 8.0}}])

    def writing() -> bool:
        return any("/contacts/batch/upsert" in request["path"] for request in sandbox.received(since=seq))

    first = ui.launch("sync_customers")
    wait_for("request of the first run", writing, 60)
    second = ui.materialize("crm_contacts")

    def waits() -> list[str]:
        events = ui.events(second)
        told = [e["message"] for e in events if e["stepKey"] == "crm_contacts.plan" and first in e["message"]]
        asked = [e for e in events if e["__typename"] == "ExecutionStepUpForRetryEvent"]
        return told if asked else []

    told = wait_for("word that the second run waits", waits, 60)
    assert any("Waiting" in message for message in told), told
    assert ui.run(first).status == "STARTED"
    sandbox.clear_faults()
    ended = [ui.succeeded(first), ui.succeeded(second)]
    assert ended[1].steps["crm_contacts.plan"][1] >= ended[0].steps["crm_contacts.record"][1]

    expected = live.project.contacts()
    held = {r["properties"]["email"]: r["properties"].get("firstname", "") for r in sandbox.records("contacts")}
    assert {email: held[email] for email in expected} == {e: fields["firstname"] for e, fields in expected.items()}
    after = sandbox.writes("contacts", by="email")
    assert {email: after[email] - before[email] for email in expected} == dict.fromkeys(expected, 1)
    assert set(sandbox.stats()["duplicate_deliveries"].values()) <= {0}
    first_told, second_told = (
        next(m for m in ui.materializations("crm_contacts", 10) if m.run_id == run) for run in (first, second)
    )
    assert first_told.metadata["updated"] == len(expected)
    assert second_told.metadata["updated"] == second_told.metadata["created"] == 0
