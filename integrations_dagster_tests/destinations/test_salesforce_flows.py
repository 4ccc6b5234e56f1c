"""Batches to Salesforce and its answers, as they are documented: what is sent, and what becomes of each row."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations_dagster.destinations.base import GONE, NO_RECORD, Response
from integrations_dagster.destinations.errors import PoisonedBatch, Unavailable
from integrations_dagster.vocabulary import Action, Outcome, Row, Status
from integrations_dagster_tests.destinations.salesforce import (
    FIELD,
    LOCKED,
    ROOT,
    SALESFORCE,
    answer,
    batch,
    customer,
    drive,
    failure,
    found,
    record_id,
    records_of,
    refusal,
    success,
)

COLLECTION = f"{ROOT}/composite/sobjects"


def soql(path: str) -> str:
    return parse_qs(urlsplit(path).query)["q"][0]


# Upsert


def test_an_upsert_names_object_and_external_id_in_its_address_and_each_row_by_its_value() -> None:
    rows = [customer(7, payload={"LastName": "Zoë"}), customer(8, payload={FIELD: "C-8", "LastName": None})]
    reply = answer([success(7, created=True), success(8, created=False)])
    outcomes, (request,), _ = drive(SALESFORCE.deliver(batch(rows)), [reply])
    assert (request.method, request.path) == ("PATCH", f"{COLLECTION}/Contact/{FIELD}")
    assert records_of(request) == [
        {"attributes": {"type": "Contact"}, FIELD: "C-7", "LastName": "Zoë"},
        {"attributes": {"type": "Contact"}, FIELD: "C-8", "LastName": None},
    ]
    assert outcomes == [Outcome(Status.CREATED, record_id(7)), Outcome(Status.UPDATED, record_id(8))]


def test_references_are_named_by_their_external_id_and_cleared_as_a_whole() -> None:
    rows = [
        customer(1, payload={"Account": {"Code__c": "A-1"}, "LastName": "x"}),
        customer(2, payload={"Account": {"Code__c": None}, "LastName": "x"}),
    ]
    _, (request,), _ = drive(SALESFORCE.deliver(batch(rows)), [answer([success(1), success(2)])])
    assert [record["Account"] for record in records_of(request)] == [{"Code__c": "A-1"}, None]


def test_a_match_value_that_the_payload_has_in_another_form_is_the_one_that_was_compared() -> None:
    rows = [customer(1, match="c-1", payload={FIELD: " C-1 "}), customer(2, match="12", payload={FIELD: 12})]
    _, (request,), _ = drive(SALESFORCE.deliver(batch(rows)), [answer([success(1), success(2)])])
    assert [record[FIELD] for record in records_of(request)] == ["c-1", 12]


def test_a_batch_that_is_sent_again_has_the_same_bytes() -> None:
    rows = [customer(i) for i in range(5)]
    once, again = (next(SALESFORCE.deliver(batch(rows))) for _ in range(2))
    assert once == again


ROW_ERRORS = [
    ("INVALID_EMAIL_ADDRESS", "Email: invalid email address: ana@", "Email"),
    ("STRING_TOO_LONG", "Last Name: data value too large", "LastName"),
    ("REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]", "LastName"),
    ("FIELD_CUSTOM_VALIDATION_EXCEPTION", "Customers need a phone number", "Phone"),
    ("DUPLICATE_VALUE", "duplicate value found: X duplicates value on record with id: 003000000000009", FIELD),
]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(data=st.data())
def test_each_row_gets_its_own_outcome(data: st.DataObject) -> None:
    action = data.draw(st.sampled_from([Action.UPSERT, Action.UPDATE, Action.CREATE, Action.DELETE]))
    count = data.draw(st.integers(1, 12))
    fates = data.draw(st.lists(st.sampled_from(["yes", "again", "no"]), min_size=count, max_size=count))
    named = {} if action in (Action.UPSERT, Action.CREATE) else {"destination_id": True}
    rows = [customer(i * 3, action, **({"destination_id": record_id(i * 3)} if named else {})) for i in range(count)]
    codes = [data.draw(st.sampled_from(ROW_ERRORS)) for _ in rows]
    good = {i: success(r.ordinal, created=False) for i, r in enumerate(rows)}
    first = [
        good[i] if fate == "yes" else LOCKED if fate == "again" else failure(*codes[i]) for i, fate in enumerate(fates)
    ]
    waiting = [i for i, fate in enumerate(fates) if fate == "again"]
    answers = [answer(first)] + ([answer([good[i] for i in waiting])] if waiting else [])
    outcomes, requests, pauses = drive(SALESFORCE.deliver(batch(rows)), answers)
    done = {Action.UPSERT: Status.UPDATED, Action.UPDATE: Status.UPDATED, Action.CREATE: Status.CREATED}
    for i, (row_, fate, outcome) in enumerate(zip(rows, fates, outcomes, strict=True)):
        if fate == "no":
            assert (outcome.status, outcome.code) == (Status.REJECTED, codes[i][0])
            assert codes[i][1] in outcome.reason
            assert codes[i][2] in outcome.reason
        else:
            assert outcome.status is done.get(action, Status.DELETED)
            assert outcome.destination_id == record_id(row_.ordinal)
    assert len(pauses) == len(requests) - 1 == bool(waiting)


# Rows that are locked


def test_locked_rows_alone_are_sent_again_after_pauses_that_grow() -> None:
    rows = [customer(i) for i in range(4)]
    answers = [
        answer([success(0, created=True), LOCKED, failure("STRING_TOO_LONG"), LOCKED]),
        answer([LOCKED, success(3, created=True)]),
        answer([success(1, created=True)]),
    ]
    outcomes, requests, pauses = drive(SALESFORCE.deliver(batch(rows)), answers)
    assert [[r[FIELD] for r in records_of(q)] for q in requests] == [
        ["C-0", "C-1", "C-2", "C-3"],
        ["C-1", "C-3"],
        ["C-1"],
    ]
    assert 0.5 <= pauses[0] <= 1.5 <= pauses[1] <= 4.5
    assert [o.status for o in outcomes] == [Status.CREATED, Status.CREATED, Status.REJECTED, Status.CREATED]


def test_a_row_that_stays_locked_is_rejected_and_says_so() -> None:
    outcomes, requests, _ = drive(SALESFORCE.deliver(batch([customer(1)])), [answer([LOCKED])] * 3)
    assert len(requests) == 3
    assert (outcomes[0].status, outcomes[0].code) == (Status.REJECTED, "UNABLE_TO_LOCK_ROW")
    assert outcomes[0].reason.startswith("Another change holds the record or its parent, also after pauses")


def test_a_create_that_nothing_could_look_up_is_not_followed_by_another_request() -> None:
    rows = [customer(i, Action.CREATE) for i in range(2)]
    blind = batch(rows)
    blind = type(blind)(blind.sync, blind.object, blind.action, (), blind.rows, blind.idempotency_key)
    outcomes, requests, pauses = drive(SALESFORCE.deliver(blind), [answer([success(0), LOCKED])])
    assert (len(requests), pauses) == (1, [])
    assert [o.status for o in outcomes] == [Status.CREATED, Status.REJECTED]
    assert FIELD not in records_of(requests[0])[0]


# Answers that tell nothing


@pytest.mark.parametrize(
    "response",
    [
        Response(200, {}, b"<html>maintenance</html>"),
        Response(200, {}, b'[{"id":"003'),
        Response(200, {}, b""),
        answer({"results": []}),
        answer([]),
        answer([success(0, created=True)]),
        answer([success(0), success(1), success(2)]),
        answer([{}, {}]),
        answer([None, "ok"]),
        answer([{"success": "true", "id": record_id(0)}, {"success": 1}]),
        Response(204),
    ],
)
@pytest.mark.parametrize("action", [Action.UPSERT, Action.CREATE, Action.UPDATE, Action.DELETE])
def test_an_answer_that_cannot_be_read_tells_nothing_of_any_row(action: Action, response: Response) -> None:
    rows = [customer(i, action, destination_id=record_id(i)) for i in range(2)]
    with pytest.raises(Unavailable):
        drive(SALESFORCE.deliver(batch(rows)), [response])


def test_results_about_other_records_than_were_sent_tell_nothing() -> None:
    rows = [customer(i, Action.UPDATE, destination_id=record_id(i)) for i in range(2)]
    with pytest.raises(Unavailable, match="about record"):
        drive(SALESFORCE.deliver(batch(rows)), [answer([success(1), success(0)])])


def test_a_result_that_says_nothing_leaves_its_row_alone_unknown() -> None:
    rows = [customer(i) for i in range(3)]
    reply = answer([success(0, created=True), {"success": True}, {"success": True, "id": "x", "errors": [{}]}])
    outcomes, _, _ = drive(SALESFORCE.deliver(batch(rows)), [reply])
    assert [o.status for o in outcomes] == [Status.CREATED, Status.UNSENT, Status.REJECTED]


def test_a_request_that_is_refused_for_a_value_is_halved() -> None:
    reply = refusal(400, "JSON_PARSER_ERROR", "Cannot deserialize instance of double from VALUE_STRING value abc")
    with pytest.raises(PoisonedBatch, match="Cannot deserialize"):
        drive(SALESFORCE.deliver(batch([customer(1), customer(2)])), [reply])


# Update


def test_an_update_by_id_takes_the_new_match_value_along() -> None:
    rows = [customer(1, Action.UPDATE, destination_id=record_id(1)), customer(2, Action.UPDATE, destination_id="003x")]
    reply = answer([success(1), failure("ENTITY_IS_DELETED", "entity is deleted")])
    outcomes, (request,), _ = drive(SALESFORCE.deliver(batch(rows)), [reply])
    assert (request.method, request.path) == ("PATCH", COLLECTION)
    assert records_of(request)[0] == {
        "attributes": {"type": "Contact"}, "id": record_id(1), FIELD: "C-1", "LastName": "Name 1"
    }  # fmt: skip
    assert [(o.status, o.code) for o in outcomes] == [(Status.UPDATED, ""), (Status.REJECTED, GONE)]


def test_a_reference_to_a_record_that_is_not_there_does_not_mean_that_the_record_is_gone() -> None:
    rows = [customer(1, Action.UPDATE, destination_id=record_id(1))]
    reply = answer([failure("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", "AccountId")])
    outcomes, _, _ = drive(SALESFORCE.deliver(batch(rows)), [reply])
    assert outcomes[0].code == "INVALID_CROSS_REFERENCE_KEY"
    assert "(AccountId)" in outcomes[0].reason


def test_mode_update_looks_ids_up_and_creates_nothing() -> None:
    rows = [customer(1, Action.MODIFY, "C'1\\"), customer(2, Action.MODIFY), customer(3, Action.MODIFY)]
    answers = [found(("C-3", 30), ("C'1\\", 10)), answer([success(10), failure("ENTITY_IS_DELETED")])]
    outcomes, (query, request), _ = drive(SALESFORCE.deliver(batch(rows)), answers)
    assert soql(query.path) == (f"SELECT Id, {FIELD} FROM Contact WHERE {FIELD} IN ('C\\'1\\\\','C-2','C-3')")
    assert [record["id"] for record in records_of(request)] == [record_id(10), record_id(30)]
    assert FIELD not in records_of(request)[0]
    assert [(o.status, o.code) for o in outcomes] == [
        (Status.UPDATED, ""), (Status.REJECTED, NO_RECORD), (Status.REJECTED, NO_RECORD)
    ]  # fmt: skip
    assert "mode update creates none" in outcomes[1].reason


def test_a_value_that_several_records_have_is_not_guessed_at() -> None:
    for action in (Action.MODIFY, Action.DELETE):
        rows = [customer(1, action), customer(2, action)]
        answers = [found(("C-1", 1), ("C-1", 5), ("C-2", 2)), answer([success(2)])]
        outcomes, requests, _ = drive(SALESFORCE.deliver(batch(rows)), answers)
        assert outcomes[0].code == "DUPLICATE_EXTERNAL_ID"
        assert record_id(5) in outcomes[0].reason
        assert outcomes[1].status in (Status.UPDATED, Status.DELETED)
        assert record_id(1) not in requests[1].path


def test_a_field_that_is_compared_without_case_answers_with_its_own_spelling() -> None:
    rows = [customer(1, Action.MODIFY, "abc"), customer(2, Action.MODIFY, "ABC")]
    outcomes, requests, _ = drive(SALESFORCE.deliver(batch(rows)), [found(("Abc", 1)), answer([success(1)])])
    assert len(records_of(requests[1])) == 1
    assert [o.status for o in outcomes] == [Status.UPDATED, Status.REJECTED]
    assert "differ in a way that Salesforce does not tell apart" in outcomes[1].reason


def test_a_field_of_numbers_is_asked_again_without_quotes() -> None:
    rows = [customer(1, Action.MODIFY, "12"), customer(2, Action.MODIFY, "x"), customer(3, Action.MODIFY, "1e999999")]
    complaint = (
        f"value of filter criterion for field '{FIELD}' must be of type double and should not be enclosed in quotes"
    )
    records = {"done": True, "records": [{"Id": record_id(1), FIELD: 12.0}]}
    answers = [refusal(400, "INVALID_FIELD", complaint), answer(records), answer([success(1)])]
    outcomes, requests, _ = drive(SALESFORCE.deliver(batch(rows)), answers)
    assert soql(requests[1].path).endswith(f"WHERE {FIELD} IN (12)")
    assert [o.status for o in outcomes] == [Status.UPDATED, Status.REJECTED, Status.REJECTED]


def test_a_query_is_cut_to_the_length_of_an_address_and_read_page_by_page() -> None:
    rows = [customer(i, Action.MODIFY, f"{i:03}" + "ü" * 100) for i in range(40)]
    flow = SALESFORCE.deliver(batch(rows))
    step = next(flow)
    seen: list[str] = []
    pages = 0
    sent = 0
    while "/query" in step.path:  # type: ignore[union-attr]
        path = step.path  # type: ignore[union-attr]
        assert len(path) < 9_000
        if "?" in path:
            seen += [text[1:4] for text in soql(path).partition(" IN (")[2].split(",")]
            sent = len(soql(path).partition(" IN (")[2].split(","))
            step = flow.send(found(following=f"{ROOT}/query/01g-{pages}"))
        else:
            late = [(r.match, r.ordinal) for r in rows if f"{r.ordinal:03}" in seen[-sent:]]
            step = flow.send(found(*late, total=sent))
            pages += 1
    assert seen == [f"{i:03}" for i in range(40)]
    assert pages > 3
    assert len(records_of(step)) == 40  # type: ignore[arg-type]


def test_a_match_by_record_id_needs_no_look_up() -> None:
    rows = [customer(i, Action.MODIFY, record_id(i)) for i in (1, 2)]
    reply = answer([success(1), failure("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")])
    outcomes, (request,), _ = drive(SALESFORCE.deliver(batch(rows, "Id")), [reply])
    assert [record["id"] for record in records_of(request)] == [record_id(1), record_id(2)]
    assert [o.code for o in outcomes] == ["", NO_RECORD]


@pytest.mark.parametrize("total", [1, 3])
@pytest.mark.parametrize("action", [Action.MODIFY, Action.DELETE])
def test_a_record_that_an_answer_leaves_out_does_not_pass_for_one_that_is_not_there(action: Action, total: int) -> None:
    rows = [customer(i, action) for i in range(3)]
    with pytest.raises(Unavailable, match=f"2 records of {total}"):
        drive(SALESFORCE.deliver(batch(rows)), [found(("C-0", 0), ("C-2", 2), total=total)])


# Delete


def test_a_delete_names_ids_and_looks_up_those_that_are_unknown() -> None:
    rows: list[Row] = [customer(i, Action.DELETE) for i in range(3)]
    rows += [customer(i, Action.DELETE, destination_id=record_id(i)) for i in (3, 4, 5)]
    gone = [failure("ENTITY_IS_DELETED", "entity is deleted"), failure("DELETE_FAILED", "it has cases")]
    answers = [found(("C-0", 0), ("C-2", 3)), answer([success(3), gone[0], gone[1], success(0)])]
    outcomes, (_, request), _ = drive(SALESFORCE.deliver(batch(rows)), answers)
    assert (request.method, request.body) == ("DELETE", None)
    ids = ",".join(record_id(i) for i in (3, 4, 5, 0))
    assert unquote(request.path) == f"{COLLECTION}?ids={ids}&allOrNone=false"
    # C-1 has no record; C-2 and the fourth row are one record.
    assert [o.status for o in outcomes] == [Status.DELETED] * 5 + [Status.REJECTED]


# Create


def test_a_create_posts_and_tells_what_is_there_already() -> None:
    rows = [customer(i, Action.CREATE) for i in range(2)]
    complaint = failure("DUPLICATE_VALUE", f"duplicate value found: {FIELD}", FIELD)
    outcomes, (request,), _ = drive(SALESFORCE.deliver(batch(rows)), [answer([success(0), complaint])])
    assert (request.method, request.path) == ("POST", COLLECTION)
    assert records_of(request)[0][FIELD] == "C-0"
    assert [o.status for o in outcomes] == [Status.CREATED, Status.REJECTED]
    assert "mode insert only creates" in outcomes[1].reason


def test_rows_in_doubt_are_looked_up() -> None:
    rows = [customer(i, Action.CREATE) for i in range(3)]
    outcomes, _, _ = drive(SALESFORCE.verify(batch(rows)), [found(("C-0", 5), ("C-2", 6), ("C-2", 7))])
    assert outcomes[0] == Outcome(Status.CREATED, record_id(5))
    assert outcomes[1] is None
    assert outcomes[2] is not None
    assert outcomes[2].status is Status.IN_DOUBT
