"""Batches to HubSpot and its answers, recorded: what is sent, and what becomes of each row."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations_dagster.destinations.base import GONE, NO_RECORD, Response
from integrations_dagster.destinations.errors import PoisonedBatch, Unavailable
from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.vocabulary import Action, Change, Outcome, Status
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
MALFORMED = {"x_malformed": "yes"}


# Upsert


def test_an_upsert_names_the_match_property_and_traces_each_row() -> None:
    rows = [row(7, "a@example.com", payload={"email": "A@example.com", "firstname": "Zoë"}), row(8)]
    outcomes, requests = drive(
        HUBSPOT, HUBSPOT.deliver(batch(rows)), [batch_answer([result(rows[1], new=False), result(rows[0])])]
    )
    assert [r.path for r in requests] == ["/crm/v3/objects/contacts/batch/upsert"]
    assert requests[0].method == "POST"
    assert body_of(requests[0])["inputs"][0] == {
        "id": "a@example.com",
        "idProperty": "email",
        "objectWriteTraceId": "7",
        "properties": {"email": "a@example.com", "firstname": "Zoë"},
    }
    assert outcomes == [Outcome(Status.CREATED, "97"), Outcome(Status.UPDATED, "98")]


def test_the_match_property_is_sent_though_no_field_maps_it() -> None:
    rows = [row(1, "C-1", payload={"name": "Ünique & Co"})]
    flow = HUBSPOT.deliver(batch(rows, object_="companies", match=("company_ref",)))
    _, requests = drive(HUBSPOT, flow, [batch_answer([result(rows[0])])])
    assert requests[0].path == "/crm/v3/objects/companies/batch/upsert"
    assert body_of(requests[0])["inputs"][0]["properties"] == {"company_ref": "C-1", "name": "Ünique & Co"}


def test_a_batch_that_is_sent_again_has_the_same_bytes() -> None:
    rows = [row(i) for i in range(5)]
    once, again = (first(HUBSPOT.deliver(batch(rows))) for _ in range(2))
    assert once.body == again.body


@settings(deadline=None, derandomize=True, max_examples=200)
@given(data=st.data())
def test_each_row_gets_its_own_outcome_in_whatever_order_the_answer_comes(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    names = data.draw(st.lists(st.text(min_size=1, max_size=8), min_size=count, max_size=count, unique=True))
    rows = [row(i * 3, name.encode("utf-8", "replace").decode()) for i, name in enumerate(names)]
    fates = data.draw(st.lists(st.sampled_from(["created", "updated", "rejected"]), min_size=count, max_size=count))
    results = [result(r, new=f == "created") for r, f in zip(rows, fates, strict=True) if f != "rejected"]
    errors = [invalid_email(r) for r, f in zip(rows, fates, strict=True) if f == "rejected"]
    reply = batch_answer(data.draw(st.permutations(results)), data.draw(st.permutations(errors)))
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    for r, fate, outcome in zip(rows, fates, outcomes, strict=True):
        assert outcome.status.value == fate
        if fate == "rejected":
            assert outcome.code == "INVALID_EMAIL"
            assert outcome.destination_id is None
            assert " ".join(r.match.split()) in outcome.reason
            assert outcome.request_id == "corr-1"
        else:
            assert outcome.destination_id == f"9{r.ordinal}"


def test_results_without_trace_ids_are_told_by_match_value() -> None:
    rows = [row(1, "a@example.com"), row(2, "b@example.com")]
    reply = batch_answer(
        [
            result(rows[1], trace=False, match=" B@Example.com "),
            result(rows[0], trace=False, new=False),
        ]
    )
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert outcomes == [Outcome(Status.UPDATED, "91"), Outcome(Status.CREATED, "92")]


def test_errors_without_trace_ids_are_told_by_id() -> None:
    rows = [row(1), row(2)]
    refused = error("VALIDATION_ERROR", "Refused", {"ids": ["R2@example.com"]})
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [batch_answer([result(rows[0])], [refused])])
    assert [o.status for o in outcomes] == [Status.CREATED, Status.REJECTED]
    assert outcomes[1].code == "VALIDATION_ERROR"


def test_one_error_may_be_about_several_rows() -> None:
    rows = [row(i) for i in range(4)]
    refused = error("VALIDATION_ERROR", "Refused", {"objectWriteTraceId": ["3", "1"]})
    reply = batch_answer([result(rows[2]), result(rows[0])], [refused])
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert [o.status.value for o in outcomes] == ["created", "rejected", "created", "rejected"]


def test_a_row_that_is_both_confirmed_and_refused_is_refused() -> None:
    rows = [row(1), row(2)]
    reply = batch_answer([result(r) for r in rows], [invalid_email(rows[0])])
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert [o.status for o in outcomes] == [Status.REJECTED, Status.CREATED]


def test_a_row_that_the_answer_does_not_mention_is_no_success() -> None:
    rows = [row(1), row(2), row(3)]
    reply = batch_answer([result(rows[0])], [invalid_email(rows[2])])
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert [o.status for o in outcomes] == [Status.CREATED, Status.UNSENT, Status.REJECTED]
    assert outcomes[1].code == "NO_ANSWER"
    assert "does not mention this row" in outcomes[1].reason


def test_a_stranger_in_the_answer_confirms_nobody() -> None:
    rows = [row(1), row(2)]
    reply = batch_answer([result(rows[0]), result(row(99, "z@example.com"))])
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert [o.status for o in outcomes] == [Status.CREATED, Status.UNSENT]


def test_an_error_about_nobody_is_quoted_to_the_rows_without_an_answer() -> None:
    rows = [row(1), row(2)]
    reply = batch_answer([result(rows[0])], [error("VALIDATION_ERROR", "Something was wrong", {})])
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert outcomes[1].status is Status.UNSENT
    assert "Something was wrong" in outcomes[1].reason


def test_an_error_about_nobody_and_no_result_bisects_until_the_row_is_alone() -> None:
    refused = error("VALIDATION_ERROR", "Something was wrong", {}, [{"message": "bad", "code": "INVALID_LONG"}])
    with pytest.raises(PoisonedBatch, match="bad") as caught:
        drive(HUBSPOT, HUBSPOT.deliver(batch([row(1), row(2)])), [batch_answer([], [refused])])
    assert caught.value.code == "INVALID_LONG"
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch([row(1)])), [batch_answer([], [refused])])
    assert outcomes == [Outcome(Status.REJECTED, None, "INVALID_LONG", "bad", "corr-1")]


@pytest.mark.parametrize(
    "reply",
    [
        batch_answer([]),
        batch_answer([], status=207),
        answer(200, {}, **MALFORMED),
        answer(200, {"results": None, "errors": None}, **MALFORMED),
        batch_answer([result(row(5, "z@example.com"))]),
    ],
)
def test_a_2xx_that_says_nothing_of_the_batch_is_an_outage(reply: Response) -> None:
    with pytest.raises(Unavailable) as caught:
        drive(HUBSPOT, HUBSPOT.deliver(batch([row(1), row(2)])), [reply])
    assert caught.value.code == "SILENT_ANSWER"


@pytest.mark.parametrize(
    "reply",
    [
        Response(200, {"content-type": "text/html", "x-malformed": "yes"}, b"<html>Bad gateway</html>"),
        Response(200, {"x-malformed": "yes"}, b""),
        Response(200, {"x-malformed": "yes"}, b'{"results": [{"id": "1", "prop'),
        Response(200, {"x-malformed": "yes"}, b"\xff\xfe"),
        answer(200, [1], **MALFORMED),
        answer(207, {"results": {"a": 1}}, **MALFORMED),
        answer(207, {"results": [], "errors": ["no"]}, **MALFORMED),
    ],
)
def test_a_2xx_that_cannot_be_read_is_an_outage(reply: Response) -> None:
    with pytest.raises(Unavailable) as caught:
        drive(HUBSPOT, HUBSPOT.deliver(batch([row(1)])), [reply])
    assert caught.value.code == "UNREADABLE_ANSWER"
    assert str(reply.status) in caught.value.reason


def test_entries_of_odd_shape_confirm_nobody() -> None:
    rows = [row(1), row(2), row(3)]
    odd = [
        {"objectWriteTraceId": "1"},
        {"objectWriteTraceId": "2", "id": True},
        {"id": "5", "properties": None},
        {"id": "6", "properties": {"email": 7}},
    ]
    reply = answer(200, {"results": [*odd, result(rows[2])]}, **MALFORMED)
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert [o.status for o in outcomes] == [Status.UNSENT, Status.UNSENT, Status.CREATED]


def test_reasons_are_readable_and_short() -> None:
    embedded = json.dumps([{"isValid": False, "message": "x" * 1000, "error": "INVALID_DATE", "name": "born"}])
    long = error("VALIDATION_ERROR", f"Property values were not valid: {embedded}", {"objectWriteTraceId": ["1"]})
    conflict = error("CONFLICT", "Contact already exists.\n Existing ID: 12", {"objectWriteTraceId": ["2"]})
    silent = error("", "", {"objectWriteTraceId": ["3"]})
    outcomes, _ = drive(
        HUBSPOT, HUBSPOT.deliver(batch([row(1), row(2), row(3)])), [batch_answer([], [long, conflict, silent])]
    )
    assert outcomes[0].code == "INVALID_DATE"
    assert outcomes[0].reason.startswith("born: xxx")
    assert len(outcomes[0].reason) == 300
    assert (outcomes[1].code, outcomes[1].reason) == ("CONFLICT", "Contact already exists. Existing ID: 12")
    assert (outcomes[2].code, outcomes[2].reason) == ("REJECTED", "HubSpot gave no reason.")


# Update


def test_an_update_goes_by_record_id_and_writes_the_new_match_value() -> None:
    rows = [row(1, "new@example.com", Action.UPDATE, destination_id="501", change=Change.CHANGED)]
    outcomes, requests = drive(
        HUBSPOT, HUBSPOT.deliver(batch(rows)), [batch_answer([result(rows[0], new=None, id_="501")])]
    )
    assert requests[0].path == "/crm/v3/objects/contacts/batch/update"
    assert body_of(requests[0])["inputs"] == [
        {
            "id": "501",
            "objectWriteTraceId": "1",
            "properties": {"email": "new@example.com", "firstname": "Name 1"},
        }
    ]
    assert outcomes == [Outcome(Status.UPDATED, "501")]


def test_updates_without_trace_ids_are_told_by_record_id() -> None:
    rows = [row(i, action=Action.UPDATE, destination_id=str(500 + i), change=Change.CHANGED) for i in (1, 2, 3)]
    reply = batch_answer([result(rows[2], new=None, trace=False, id_="503")], [not_found("501")])
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert [o.status for o in outcomes] == [Status.REJECTED, Status.UNSENT, Status.UPDATED]


def test_an_update_of_a_record_that_is_gone_says_so_and_lets_the_next_run_create_it() -> None:
    rows = [row(1, action=Action.UPDATE, destination_id="501", change=Change.CHANGED)]
    reply = batch_answer([], [not_found("501", trace=rows[0])])
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert (outcomes[0].status, outcomes[0].code) == (Status.REJECTED, GONE)
    assert "501" in outcomes[0].reason
    assert "next run creates it again" in outcomes[0].reason


def test_an_update_without_record_id_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="has none"):
        next(HUBSPOT.deliver(batch([row(1, action=Action.UPDATE, change=Change.CHANGED)])))


# Delete


def test_known_records_are_archived_without_a_lookup() -> None:
    rows = [row(i, action=Action.DELETE, destination_id=str(500 + i)) for i in (1, 2)]
    outcomes, requests = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [Response(204)])
    assert [r.path for r in requests] == ["/crm/v3/objects/contacts/batch/archive"]
    assert body_of(requests[0]) == {"inputs": [{"id": "501"}, {"id": "502"}]}
    assert outcomes == [Outcome(Status.DELETED, "501"), Outcome(Status.DELETED, "502")]


def test_unknown_records_are_looked_up_by_match_value_first() -> None:
    rows = [
        row(1, "a@example.com", Action.DELETE),
        row(2, "b@example.com", Action.DELETE, destination_id="502"),
        row(3, "c@example.com", Action.DELETE),
        row(4, "d@example.com", Action.DELETE),
    ]
    found = [
        result(rows[3], new=None, trace=False, id_="504"),
        result(rows[0], new=None, trace=False, id_="501", match="A@example.com"),
    ]
    outcomes, requests = drive(
        HUBSPOT,
        HUBSPOT.deliver(batch(rows)),
        [batch_answer(found, [not_found("c@example.com")]), Response(204)],
    )
    assert [r.path.rsplit("/", 1)[1] for r in requests] == ["read", "archive"]
    assert body_of(requests[0]) == {
        "idProperty": "email",
        "inputs": [{"id": "a@example.com"}, {"id": "c@example.com"}, {"id": "d@example.com"}],
        "properties": ["email"],
        "propertiesWithHistory": [],
    }
    assert sorted(entry["id"] for entry in body_of(requests[1])["inputs"]) == ["501", "502", "504"]
    assert outcomes == [
        Outcome(Status.DELETED, "501"),
        Outcome(Status.DELETED, "502"),
        Outcome(Status.DELETED),
        Outcome(Status.DELETED, "504"),
    ]


def test_records_that_are_all_absent_need_no_archive() -> None:
    rows = [row(1, "a@example.com", Action.DELETE)]
    outcomes, requests = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [batch_answer([], [not_found("a@example.com")])])
    assert len(requests) == 1
    assert outcomes == [Outcome(Status.DELETED)]


def test_a_record_that_the_lookup_does_not_mention_is_not_deleted() -> None:
    rows = [row(i, action=Action.DELETE) for i in (1, 2)]
    outcomes, requests = drive(
        HUBSPOT,
        HUBSPOT.deliver(batch(rows)),
        [batch_answer([result(rows[0], new=None, trace=False)]), Response(204)],
    )
    assert body_of(requests[1]) == {"inputs": [{"id": "91"}]}
    assert [o.status for o in outcomes] == [Status.DELETED, Status.REJECTED]
    assert (outcomes[1].code, outcomes[1].request_id) == ("NO_ANSWER", "corr-1")


def test_another_error_of_the_lookup_is_no_absence() -> None:
    rows = [row(1, action=Action.DELETE)]
    refused = error("VALIDATION_ERROR", "Strange id", {"ids": [rows[0].match]})
    outcomes, _ = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [batch_answer([], [refused])])
    assert outcomes[0].status is Status.REJECTED


def test_a_silent_lookup_is_an_outage() -> None:
    with pytest.raises(Unavailable) as caught:
        drive(HUBSPOT, HUBSPOT.deliver(batch([row(1, action=Action.DELETE)])), [batch_answer([])])
    assert caught.value.code == "SILENT_ANSWER"


def test_an_archive_is_confirmed_by_204_only() -> None:
    rows = [row(1, action=Action.DELETE, destination_id="501")]
    with pytest.raises(Unavailable, match="204"):
        drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [answer(200, {})])


def test_one_record_behind_two_rows_is_archived_once() -> None:
    rows = [row(i, action=Action.DELETE, destination_id="501") for i in (1, 2)]
    outcomes, requests = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [Response(204)])
    assert body_of(requests[0]) == {"inputs": [{"id": "501"}]}
    assert [o.status for o in outcomes] == [Status.DELETED, Status.DELETED]


# Identity


def test_the_account_is_its_portal() -> None:
    flow = HUBSPOT.identify()
    name, requests = drive(HUBSPOT, flow, [answer(200, {"portalId": 12345678, "accountType": "STANDARD"})])
    assert (requests[0].method, requests[0].path) == ("GET", "/account-info/v3/details")
    assert name == "portal 12345678"


@pytest.mark.parametrize("document", [{}, {"portalId": None}, {"portalId": True}, {"portalId": 0}, []])
def test_an_account_without_a_portal_is_an_outage(document: object) -> None:
    with pytest.raises(Unavailable):
        drive(HUBSPOT, HUBSPOT.identify(), [answer(200, document)])


@pytest.mark.parametrize("traced", [True, False])
def test_mode_update_goes_by_match_value_and_creates_nothing(traced: bool) -> None:
    rows = [row(i, action=Action.MODIFY, destination_id=None) for i in (1, 2)]
    missing = not_found("R2@example.com", trace=rows[1] if traced else None)
    reply = batch_answer([result(rows[0], new=None, trace=traced)], [missing])
    outcomes, requests = drive(HUBSPOT, HUBSPOT.deliver(batch(rows)), [reply])
    assert requests[0].path == "/crm/v3/objects/contacts/batch/update"
    assert [(entry["id"], entry["idProperty"]) for entry in body_of(requests[0])["inputs"]] == [
        ("r1@example.com", "email"),
        ("r2@example.com", "email"),
    ]
    assert [(o.status, o.code) for o in outcomes] == [(Status.UPDATED, ""), (Status.REJECTED, NO_RECORD)]
    assert "mode update creates none" in outcomes[1].reason
