"""Which row an answer is about: by order, index, key and trace, whatever else the answer says."""

from __future__ import annotations

import dataclasses
from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from integrations_dagster.destinations.answers import (
    NO_ANSWER,
    AnswerPaths,
    By,
    Listing,
    Meaning,
    Reading,
    Told,
    document_of,
    outcomes,
    read_rows,
    trace_of,
)
from integrations_dagster.destinations.base import GONE, NO_RECORD, Batch, Response
from integrations_dagster.destinations.errors import Unavailable
from integrations_dagster.destinations.paths import Expression, as_text, find
from integrations_dagster.vocabulary import ABSENT, SUCCEEDED, Action, Change, Outcome, Status
from integrations_dagster_tests.destinations.flows import batch, row

VENDOR = Reading("Stockroom", "req-1", str.lower)
RESULTS = Listing("results", By.ORDER, success="ok", id="id", code="error.code", message="error.text")


def of(count: int, action: Action = Action.UPSERT, **changes: Any) -> Batch:
    return batch([row(place, action=action, **changes) for place in range(count)])


def entry(sent: Batch, by: By, place: int, accepted: bool) -> dict[str, Any]:
    """An entry of an answer about a row, which it names."""
    found = sent.rows[place]
    name: Any = {
        By.INDEX: place,
        By.MATCH: found.match.upper(),
        By.KEY: int(found.key),
        By.ID: found.destination_id,
        By.TRACE: trace_of(sent, place),
    }.get(by)
    told: dict[str, Any] = {"ok": accepted, "id": f"rec-{place}", "name": name}
    return told if accepted else {**told, "error": {"code": "BAD", "text": f"row {place} is bad"}}


def listing(by: By) -> Listing:
    return dataclasses.replace(RESULTS, by=by, at="" if by is By.ORDER else "name")


@given(
    st.sampled_from(By),
    st.lists(st.sampled_from(["accepted", "refused", "silent"]), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_each_row_gets_what_was_said_of_it_and_no_other(by: By, fates: list[str], chance: Any) -> None:
    sent = batch([row(place, destination_id=f"d{place}") for place in range(len(fates))])
    if by is By.ORDER:
        entries = [entry(sent, by, p, f == "accepted") if f != "silent" else {} for p, f in enumerate(fates)]
    else:
        entries = [entry(sent, by, p, f == "accepted") for p, f in enumerate(fates) if f != "silent"]
        chance.shuffle(entries)
    if set(fates) == {"silent"}:
        with pytest.raises(Unavailable, match="without saying"):
            read_rows(AnswerPaths(listing(by)), sent, {"results": entries}, VENDOR)
        return
    told = read_rows(AnswerPaths(listing(by)), sent, {"results": entries}, VENDOR)
    for place, fate in enumerate(fates):
        if fate == "accepted":
            assert told[place] == Outcome(Status.CREATED, f"rec-{place}", request_id="req-1")
        elif fate == "refused":
            reason = f"Stockroom says: row {place} is bad"
            assert told[place] == Outcome(Status.REJECTED, None, "BAD", reason, "req-1")
        else:
            assert (told[place].status, told[place].code) == (Status.UNSENT, NO_ANSWER)


@given(st.integers(1, 9), st.integers(0, 12))
def test_results_in_order_are_never_cut_to_fit(rows: int, results: int) -> None:
    sent = of(rows)
    document = {"results": [{"ok": True, "id": str(place)} for place in range(results)]}
    if rows == results:
        assert all(told.status in SUCCEEDED for told in read_rows(AnswerPaths(RESULTS), sent, document, VENDOR))
    else:
        with pytest.raises(Unavailable, match=f"{results} results for {rows} rows"):
            read_rows(AnswerPaths(RESULTS), sent, document, VENDOR)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["results", "errors", "id", "code", "name", "text", "error"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(By), JSON)
def test_garbage_confirms_no_row(by: By, document: Any) -> None:
    """Without a true `ok` in it no document says that a row was accepted."""
    sent = of(3)
    try:
        told = read_rows(AnswerPaths(listing(by)), sent, document, VENDOR)
    except Unavailable:
        return
    assert not any(one.status in SUCCEEDED for one in told)


@pytest.mark.parametrize("success", ["true", 1, [], {}, "yes", None])
def test_only_true_is_a_success(success: Any) -> None:
    with pytest.raises(Unavailable):
        read_rows(AnswerPaths(RESULTS), of(1), {"results": [{"ok": success}]}, VENDOR)


FAILURES = AnswerPaths(
    failures=Listing("errors", By.INDEX, at="index", code="type", message="text", refused=True), rest_accepted=True
)


def statuses(paths: AnswerPaths, document: Any, sent: Batch | None = None) -> list[Status]:
    return [told.status for told in read_rows(paths, sent or of(3), document, VENDOR)]


def test_a_list_of_failures_leaves_the_others_accepted() -> None:
    bad = {"index": 1, "type": "x", "text": "no"}
    assert statuses(FAILURES, {"errors": [bad]}) == [Status.CREATED, Status.REJECTED, Status.CREATED]
    assert statuses(FAILURES, {"errors": []}) == [Status.CREATED] * 3


@pytest.mark.parametrize("document", [{}, None, [], "ok", {"errors": None}, {"errors": "none"}, {"errors": {}}])
def test_an_answer_without_the_list_of_failures_accepts_nothing(document: Any) -> None:
    with pytest.raises(Unavailable):
        read_rows(FAILURES, of(3), document, VENDOR)


@pytest.mark.parametrize("index", [None, 3, -1, "1.0", True, "x", 10**20])
def test_a_failure_of_a_row_that_is_not_known_leaves_all_others_unknown(index: Any) -> None:
    document = {"errors": [{"index": index, "text": "something"}, {"index": 0, "text": "no"}]}
    told = read_rows(FAILURES, of(3), document, VENDOR)
    assert [one.status for one in told] == [Status.REJECTED, Status.UNSENT, Status.UNSENT]
    assert "without saying whose it is: something" in told[1].reason


@pytest.mark.parametrize(("count", "known"), [(2, True), (3, False), (1, False), (None, False), ("2", True)])
def test_a_count_that_does_not_fit_confirms_no_row_that_is_not_mentioned(count: Any, known: bool) -> None:
    paths = dataclasses.replace(FAILURES, count="imported")
    told = read_rows(paths, of(3), {"imported": count, "errors": [{"index": 2}]}, VENDOR)
    assert [one.status for one in told[:2]] == [Status.CREATED if known else Status.UNSENT] * 2
    assert told[2].status is Status.REJECTED


def test_results_and_failures_in_two_lists() -> None:
    paths = AnswerPaths(
        Listing("[new_members, updated_members][]", By.MATCH, at="email_address", id="id"),
        Listing("errors", By.MATCH, at="email_address", code="error_code", message="error", refused=True),
    )
    document = {
        "new_members": [{"email_address": "R0@example.com", "id": "a"}],
        "updated_members": [{"email_address": "r2@example.com", "id": "b"}, {"email_address": "who@example.com"}],
        "errors": [{"email_address": "r1@example.com", "error": "Bad address.", "error_code": "ERROR_GENERIC"}],
    }
    told = read_rows(paths, of(4), document, VENDOR)
    assert [(one.status, one.destination_id, one.code) for one in told] == [
        (Status.CREATED, "a", ""),
        (Status.REJECTED, None, "ERROR_GENERIC"),
        (Status.CREATED, "b", ""),
        (Status.UNSENT, None, NO_ANSWER),
    ]


def test_a_row_that_is_confirmed_and_refused_was_refused() -> None:
    paths = AnswerPaths(listing(By.INDEX), Listing("errors", By.INDEX, at="index", message="text", refused=True))
    for name in (0, "0"):
        document = {"results": [{"name": name, "ok": True}], "errors": [{"index": 0, "text": "no"}]}
        assert statuses(paths, document, of(1)) == [Status.REJECTED]


def test_a_name_that_two_rows_share_names_neither() -> None:
    sent = batch([row(0, match="A@x", key="0"), row(1, match="a@x", key="1"), row(2)])
    document = {"results": [{"name": "a@x", "ok": True}, {"name": "R2@example.com", "ok": True}]}
    told = read_rows(AnswerPaths(listing(By.MATCH)), sent, document, VENDOR)
    assert [one.status for one in told] == [Status.UNSENT, Status.UNSENT, Status.CREATED]


def test_keys_of_several_columns() -> None:
    sent = batch([row(0, key='["1","é"]', match='["x","2"]'), row(1, key='["2","b"]')], match=("a", "b"))
    paths = AnswerPaths(Listing("results", By.KEY, at="[id, lang]", success="ok"))
    told = read_rows(paths, batch([sent.rows[0]]), {"results": [{"id": 1, "lang": "é", "ok": True}]}, VENDOR)
    assert told[0].status is Status.CREATED
    paths = AnswerPaths(Listing("results", By.MATCH, at="[a, b]", success="ok"))
    alone = batch([sent.rows[0]], match=("a", "b"))
    assert read_rows(paths, alone, {"results": [{"a": "X", "b": 2, "ok": True}]}, VENDOR)[0].status is Status.CREATED


@pytest.mark.parametrize(
    ("status", "accepted", "verdict"),
    [
        (201, (), Status.CREATED),
        ("204", (), Status.CREATED),
        (404, (), Status.REJECTED),
        ("created", ("created", "skipped"), Status.CREATED),
        ("failed", ("created", "skipped"), Status.REJECTED),
        ("done", (), None),
        (None, ("created",), None),
        (True, (), None),
    ],
)
def test_the_status_of_a_row(status: Any, accepted: tuple[str, ...], verdict: Status | None) -> None:
    paths = AnswerPaths(Listing("@", status="status", accepted=accepted))
    if verdict is None:
        with pytest.raises(Unavailable):
            read_rows(paths, of(1), [{"status": status}], VENDOR)
        return
    (told,) = read_rows(paths, of(1), [{"status": status}], VENDOR)
    assert told.status is verdict
    assert told.code == ("" if verdict is Status.CREATED else as_text(status))


MISSING = Reading("Stockroom", meaning=lambda _told: (Meaning.MISSING, ""))


@pytest.mark.parametrize(
    ("action", "status", "code"),
    [
        (Action.DELETE, Status.DELETED, ""),
        (Action.UPDATE, Status.REJECTED, GONE),
        (Action.MODIFY, Status.REJECTED, NO_RECORD),
        (Action.UPSERT, Status.REJECTED, "404"),
    ],
)
def test_a_record_that_is_not_there(action: Action, status: Status, code: str) -> None:
    (told,) = outcomes(of(1, action), [Told(0, accepted=False, code="404")], MISSING)
    assert (told.status, told.code) == (status, code)


@pytest.mark.parametrize(
    ("meaning", "status", "code"),
    [(Meaning.IGNORED, Status.CREATED, ""), (Meaning.NOT_TAKEN, Status.UNSENT, ABSENT)],
)
def test_what_a_refusal_means_is_the_destinations_to_say(meaning: Meaning, status: Status, code: str) -> None:
    reading = Reading("Stockroom", meaning=lambda _told: (meaning, ""))
    (told,) = outcomes(of(1, Action.CREATE), [Told(0, accepted=False, message="locked")], reading)
    assert (told.status, told.code) == (status, code)


@pytest.mark.parametrize(
    ("action", "status", "code"),
    [
        (Action.UPDATE, Status.REJECTED, GONE),
        (Action.MODIFY, Status.REJECTED, NO_RECORD),
        (Action.DELETE, Status.DELETED, ""),
    ],
)
def test_rows_that_results_do_not_mention_may_have_no_record(action: Action, status: Status, code: str) -> None:
    paths = AnswerPaths(Listing("data", By.KEY, at="id", id="id"), rest_missing=True)
    sent = of(2, action)
    first, second = read_rows(paths, sent, {"data": [{"id": 0}]}, VENDOR)
    assert first.status in SUCCEEDED
    assert (second.status, second.code) == (status, code)
    assert {told.code for told in read_rows(paths, sent, {"data": []}, VENDOR)} == {code}
    with pytest.raises(Unavailable):
        read_rows(paths, sent, {}, VENDOR)
    told = read_rows(paths, sent, {"data": [{"id": 9}, {"id": 1}]}, VENDOR)
    assert told[0].status is Status.UNSENT, "an entry that names no row may be about any"


def test_what_an_accepted_row_became() -> None:
    added, changed = row(0), row(1, change=Change.CHANGED)
    told = [Told(0, accepted=True, created=False), Told(1, accepted=True)]
    assert [one.status for one in outcomes(batch([added, changed]), told, VENDOR)] == [Status.UPDATED, Status.UPDATED]


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"results": [', b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_unknown(body: bytes) -> None:
    with pytest.raises(Unavailable, match="Stockroom answered 200 with"):
        document_of(Response(200, {"content-type": "text/html; charset=utf-8"}, body), "Stockroom")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a-b", "double quotes"),
        ("a[", "Incomplete expression"),
        ("sizes(a)", 'no function "sizes"'),
        ("map(&lenght(@), a)", 'Did you mean "length"'),
        ("", "takes a JMESPath expression"),
        (5, "takes a JMESPath expression"),
    ],
)
def test_a_mistake_in_an_expression_is_said_when_it_is_read(text: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Expression).validate_python(text)
    assert said in str(caught.value)


@given(st.sampled_from(["id", "error.code", "error.text.name", '"a b".id', "error"]), JSON)
def test_names_are_found_as_the_library_finds_them(text: str, document: Any) -> None:
    assert find(text, document) == jmespath.search(text, document)
