"""Mode insert at HubSpot: creates that must not be repeated, and the look-up of rows in doubt."""

from __future__ import annotations

import pytest

from integrations_dagster.destinations.base import Batch, Response
from integrations_dagster.destinations.errors import PoisonedBatch, Unavailable
from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.vocabulary import Action, Outcome, Row, Status
from integrations_dagster_tests.destinations.flows import (
    answer,
    batch,
    batch_answer,
    body_of,
    drive,
    error,
    first,
    invalid_email,
    not_found,
    result,
    row,
)

HUBSPOT = HubSpot()


def create(ordinal: int, match: str | None = None, **payload: str) -> Row:
    return row(ordinal, match, Action.CREATE, payload=payload)


def made(row_: Row, *, trace: bool = True, match: str = "") -> dict[str, object]:
    return result(row_, new=None, trace=trace, match=match)


def test_a_create_traces_each_row() -> None:
    rows = [create(7, "a@example.com", email="A@example.com", firstname="Zoë"), create(8, lastname="L")]
    outcomes, (request,) = drive(
        HUBSPOT, HUBSPOT.deliver(batch(rows)), [batch_answer([made(rows[1]), made(rows[0])], status=201)]
    )
    assert request.path == "/crm/v3/objects/contacts/batch/create"
    assert not request.changes_nothing
    assert body_of(request)["inputs"] == [
        {
            "associations": [],
            "objectWriteTraceId": "7",
            "properties": {"email": "a@example.com", "firstname": "Zoë"},
        },
        {"associations": [], "objectWriteTraceId": "8", "properties": {"email": "r8@example.com", "lastname": "L"}},
    ]
    assert outcomes == [Outcome(Status.CREATED, "97"), Outcome(Status.CREATED, "98")]


def test_without_a_match_the_primary_key_is_sent_nowhere() -> None:
    rows = [create(1, "PK-1", name="One"), create(2, "PK-2", name="Two")]
    reply = batch_answer([made(rows[0]), made(rows[1], trace=False, match="PK-2")], status=201)
    outcomes, (request,) = drive(HUBSPOT, HUBSPOT.deliver(batch(rows, object_="companies", match=())), [reply])
    assert b"PK-" not in (request.body or b"")
    # The second is told by nothing that was sent: whose it is would be a guess.
    assert [(o.status, o.code) for o in outcomes] == [(Status.CREATED, ""), (Status.UNSENT, "NO_ANSWER")]
    assert "next run" not in outcomes[1].reason


def test_a_result_without_trace_id_is_told_by_its_unique_value() -> None:
    rows = [create(1), create(2)]
    reply = batch_answer([made(rows[1], trace=False), made(rows[0], trace=False)], status=201)
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert [o.destination_id for o in outcomes] == ["91", "92"]


def test_a_conflict_is_rejected_and_says_what_to_do() -> None:
    rows = [create(1), create(2), create(3)]
    conflict = error("CONFLICT", "Contact already exists. Existing ID: 12", {"objectWriteTraceId": ["2"]})
    reply = batch_answer([made(rows[0])], [conflict, invalid_email(rows[2])])
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert [o.status for o in outcomes] == [Status.CREATED, Status.REJECTED, Status.REJECTED]
    assert outcomes[1].code == "CONFLICT"
    assert "Existing ID: 12" in outcomes[1].reason
    assert "use mode upsert" in outcomes[1].reason
    assert outcomes[2].code == "INVALID_EMAIL"


def test_a_batch_refused_whole_had_no_effect() -> None:
    refused = error("CONFLICT", "Contact already exists. Existing ID: 12", {})
    whole = answer(409, {"status": "error", "category": "CONFLICT", "message": "Contact already exists."})
    for reply in (batch_answer([], [refused]), whole):
        with pytest.raises(PoisonedBatch, match="already exists"):
            drive(HUBSPOT, HUBSPOT.deliver(batch([create(1), create(2)])), [reply])


@pytest.mark.parametrize("status", [200, 201, 207])
def test_an_answer_that_says_nothing_is_an_outage(status: int) -> None:
    with pytest.raises(Unavailable) as caught:
        drive(
            HUBSPOT,
            HUBSPOT.deliver(batch([create(1)])),
            [batch_answer([], status=status)]
            if status != 200
            else [Response(200, {"x-malformed": "yes"}, b'{"results": []}')],
        )
    assert caught.value.code == "SILENT_ANSWER"


# Rows in doubt


def asked(*rows: Row) -> Batch:
    return batch(rows)


def test_rows_in_doubt_are_looked_up_without_changing_anything() -> None:
    rows = [create(i) for i in (1, 2, 3)]
    reply = batch_answer([made(rows[0], trace=False)], [not_found(rows[2].match)])
    outcomes, (request,) = drive(HUBSPOT, HUBSPOT.verify(asked(*rows)), [reply])
    assert request.path == "/crm/v3/objects/contacts/batch/read"
    assert request.changes_nothing
    assert body_of(request)["inputs"] == [{"id": r.match} for r in rows]
    assert outcomes[0] == Outcome(Status.CREATED, "91", request_id="corr-1")
    assert outcomes[2] is None
    # Neither shown nor missing: nothing has been learned of it.
    assert outcomes[1] is not None
    assert outcomes[1].status is Status.IN_DOUBT


def test_doubts_with_one_match_value_are_looked_up_once() -> None:
    rows = [create(1, "a@example.com"), create(2, "a@example.com"), create(3, "b@example.com")]
    reply = batch_answer([made(rows[0], trace=False)], [not_found("b@example.com")])
    outcomes, (request,) = drive(HUBSPOT, HUBSPOT.verify(asked(*rows)), [reply])
    assert body_of(request)["inputs"] == [{"id": "a@example.com"}, {"id": "b@example.com"}]
    assert [o and o.destination_id for o in outcomes] == ["91", "91", None]


def test_a_silent_look_up_resolves_nothing() -> None:
    with pytest.raises(Unavailable):
        drive(HUBSPOT, HUBSPOT.verify(asked(create(1))), [batch_answer([])])


def test_the_look_up_before_an_archive_changes_nothing() -> None:
    flow = HUBSPOT.deliver(batch([row(1, action=Action.DELETE)]))
    assert first(flow).changes_nothing
