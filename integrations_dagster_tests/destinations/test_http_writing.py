"""Kind `http`: what is sent, what answers mean, which rows they are about; fed with answers, without a server."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations_dagster.destinations.base import GONE, NO_RECORD, Pause, Remember, Repeat, Response
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    Refused,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.vocabulary import SUCCEEDED, Action, Mode, Status
from integrations_dagster_tests.destinations.flows import batch, body_of, row
from integrations_dagster_tests.destinations.http_flows import api, drive, lines, requests, says, statuses

BATCHES = """
objects:
  people:
    match: [email]
    create: &write
      request: POST /people/batch
      rows: 50
      query: {dry: false}
      headers: {X-Source: "{sync}"}
      body: {people: "{rows}", source: warehouse}
      item: {ref: "{trace}", attributes: "{record}"}
      answer: {results: results, by: {trace: ref}, success: ok, id: id, code: code, message: why}
    upsert: *write
errors: {LOCKED: throttled, TAKEN: ignored, NOT_NOW: {as: rejected, says: The list is closed., fix: Open it.}}
"""


def test_a_batch_is_sent_as_it_was_encoded() -> None:
    acme = api(BATCHES)
    sent = batch([row(0), row(1)], object_="people")
    results = [{"ref": "delivery-1-1", "ok": True, "id": 7}, {"ref": "delivery-1-0", "ok": True, "id": 6}]
    told, steps = drive(acme, acme.deliver(sent), says({"results": results}))
    (request,) = requests(steps)
    assert (request.method, request.path) == ("POST", "/people/batch?dry=false")
    assert request.headers == {"Content-Type": "application/json", "X-Source": "crm_contacts"}
    assert body_of(request) == {
        "people": [
            {"ref": "delivery-1-0", "attributes": sent.rows[0].payload},
            {"ref": "delivery-1-1", "attributes": sent.rows[1].payload},
        ],
        "source": "warehouse",
    }
    assert sent.rows[0].encoded in (request.body or b"")
    assert [outcome.destination_id for outcome in told] == ["6", "7"]
    (again,) = requests(drive(acme, acme.deliver(sent), says({"results": results}))[1])
    assert again.body == request.body, "a batch that is sent again has the same bytes"


def test_rows_are_refused_for_what_their_codes_mean() -> None:
    acme = api(BATCHES)
    sent = batch([row(place) for place in range(5)], object_="people")
    codes = ["LOCKED", "TAKEN", "NOT_NOW", "ODD", None]
    results = [
        {"ref": f"delivery-1-{place}", "ok": code is None, "id": 1, "code": code, "why": f"It is {code}."}
        for place, code in enumerate(codes)
    ]
    told, _ = drive(acme, acme.deliver(sent), says({"results": results}))
    assert statuses(told) == [Status.UNSENT, Status.UPDATED, Status.REJECTED, Status.REJECTED, Status.CREATED]
    assert told[2].reason == "The list is closed. Open it. Acme says: It is NOT_NOW."
    assert (told[3].code, told[3].reason) == ("ODD", "Acme says: It is ODD.")


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5), max_size=5))
def test_each_outcome_is_its_rows(order: list[int], refused: set[int], silent: set[int]) -> None:
    acme = api(BATCHES)
    sent = batch([row(place) for place in range(6)], object_="people")
    results = [
        {"ref": f"delivery-1-{p}", "ok": p not in refused, "id": f"id{p}", "why": f"no {p}"}
        for p in order
        if p not in silent
    ]
    told, _ = drive(acme, acme.deliver(sent), says({"results": results}))
    for place, outcome in enumerate(told):
        if place in silent:
            assert outcome.status is Status.UNSENT
        elif place in refused:
            assert (outcome.status, outcome.reason) == (Status.REJECTED, f"Acme says: no {place}")
        else:
            assert outcome.status is Status.CREATED


ERRORS: list[tuple[int, Any, type[DestinationError], str]] = [
    (429, {}, Throttled, "asks to be sent less"),
    (503, {"message": "Back soon"}, Unavailable, "Acme says: Back soon"),
    (500, None, Unavailable, "status 500)"),
    (401, {"error": "Who"}, Unauthorized, "Acme says: Who. Check the target's `auth`."),
    (401, {"error": "Who?"}, Unauthorized, "Acme says: Who? Check"),
    (403, {"errors": [{"detail": "Not yours"}]}, Refused, "Acme says: Not yours"),
    (405, {}, Refused, "The request was refused (POST /people/batch, status 405)."),
    (404, {}, Refused, "Nothing is there"),
    (413, {}, TooLarge, "larger than"),
    (302, {}, Refused, "redirect"),
    (418, {"title": "Teapot"}, Refused, "Acme says: Teapot"),
    (422, {"message": "Bad row"}, Unavailable, "write `atomic: true`"),
    (400, {"code": "LOCKED"}, Throttled, ""),
    (199, {}, Unavailable, "cannot be understood"),
    (200, {"results": None}, Unavailable, "no list at `results`. Is `answer` right?"),
    (200, [], Unavailable, "no list at"),
    (204, None, Unavailable, "that are no JSON. Is `base_url` right?"),
]


@pytest.mark.parametrize(("status", "document", "kind", "words"), ERRORS)
def test_answers_that_are_no_success(status: int, document: Any, kind: type[DestinationError], words: str) -> None:
    acme = api(BATCHES)
    answer = Response(status) if document is None else says(document, status)
    with pytest.raises(kind) as caught:
        drive(acme, acme.deliver(batch([row(0), row(1)], object_="people")), answer)
    assert words in caught.value.reason


def test_a_batch_is_bisected_only_where_a_refusal_leaves_nothing_done() -> None:
    atomic = api(BATCHES + "atomic: true")
    with pytest.raises(PoisonedBatch, match="Acme says: Bad row"):
        drive(atomic, atomic.deliver(batch([row(0), row(1)], object_="people")), says({"message": "Bad row"}, 422))
    for acme in (atomic, api(BATCHES)):
        told, _ = drive(acme, acme.deliver(batch([row(0)], object_="people")), says({"message": "Bad row"}, 422))
        assert told[0].status is Status.REJECTED
        assert told[0].reason == "The request was refused for what is in it. Acme says: Bad row"


def test_the_wait_that_an_answer_asks_for() -> None:
    acme = api(BATCHES + "throttling: {wait: X-Wait, limit: X-Max, remaining: X-Left, per: 10s}")
    with pytest.raises(Throttled) as caught:
        drive(acme, acme.deliver(batch([row(0)], object_="people")), says({}, 429, x_wait="7"))
    assert caught.value.wait == 7.0
    (usage,) = acme.usage(says({}, x_max="100", x_left="3"))
    assert (usage.seconds, usage.limit, usage.remaining) == (10.0, 100, 3)


ONE = """
label: Acme CRM
ok: success
problem: {code: fault.id, message: fault.words}
request_id: X-Trace
errors: {RATE: throttled, 404: missing}
objects:
  "*":
    match: {email: trim_lower}
    upsert: {request: "PUT /{object}/{match}", body: {data: {kind: person, "...": "{record}"}}, answer: {id: data.id}}
    modify: {request: "PATCH /{object}/{match}", body: "{record}", answer: all_rows}
    update: {request: "PATCH /{object}/by-id/{id}", body: "{record}", answer: all_rows}
    delete: {request: "DELETE /{object}/{match}", answer: all_rows, statuses: [204, 200]}
"""


@pytest.mark.parametrize(
    ("action", "line", "answer", "status", "code"),
    [
        (Action.UPSERT, "PUT /people/r0%40example.com", says({"success": True, "data": {"id": 5}}), Status.CREATED, ""),
        (Action.UPSERT, "PUT /people/r0%40example.com", says({"success": True}), None, "SILENT_ANSWER"),
        (Action.UPSERT, "PUT /people/r0%40example.com", says({"data": {"id": 5}}), None, "UNREADABLE_ANSWER"),
        (
            Action.UPSERT,
            "PUT /people/r0%40example.com",
            says({"success": False, "fault": {"id": "BAD", "words": "No."}}),
            Status.REJECTED,
            "BAD",
        ),
        (Action.MODIFY, "PATCH /people/r0%40example.com", says({}, 404), Status.REJECTED, NO_RECORD),
        (Action.UPDATE, "PATCH /people/by-id/d%2F1", says({}, 404), Status.REJECTED, GONE),
        (Action.UPDATE, "PATCH /people/by-id/d%2F1", says({"success": True}), Status.UPDATED, ""),
        (Action.DELETE, "DELETE /people/r0%40example.com", says({}, 404), Status.DELETED, ""),
        (Action.DELETE, "DELETE /people/r0%40example.com", says({"success": True}), Status.DELETED, ""),
        (Action.DELETE, "DELETE /people/r0%40example.com", says({"success": True}, 202), None, "HTTP_202"),
    ],
)
def test_one_row_a_request(action: Action, line: str, answer: Response, status: Status | None, code: str) -> None:
    acme = api(ONE)
    sent = batch([row(0, action=action, destination_id="d/1")], object_="people")
    if status is None:
        with pytest.raises(DestinationError) as caught:
            drive(acme, acme.deliver(sent), answer)
        assert caught.value.code == code
        return
    (told,), steps = drive(acme, acme.deliver(sent), answer)
    assert lines(steps) == [line]
    assert (told.status, told.code) == (status, code)
    if code == "BAD":
        assert told.reason == "The request failed. Acme CRM says: No."


def test_a_failure_inside_a_200_throttles_where_its_code_says_so() -> None:
    acme = api(ONE)
    sent = batch([row(0)], object_="people")
    with pytest.raises(Throttled, match="Acme CRM says: Slower"):
        drive(acme, acme.deliver(sent), says({"success": False, "fault": {"id": "RATE", "words": "Slower."}}))


def test_members_of_the_record_beside_others() -> None:
    acme = api(ONE)
    _, steps = drive(acme, acme.deliver(batch([row(0)], object_="people")), says({"success": True, "data": {"id": 1}}))
    assert body_of(requests(steps)[0]) == {"data": {"kind": "person", "email": "r0@example.com", "firstname": "Name 0"}}
    empty = batch([row(0, payload={})], object_="people")
    _, steps = drive(acme, acme.deliver(empty), says({"success": True, "data": {"id": 1}}))
    assert body_of(requests(steps)[0]) == {"data": {"kind": "person"}}


@pytest.mark.parametrize("match", ["", ".", ".."])
def test_a_row_without_an_address_is_sent_nowhere(match: str) -> None:
    acme = api(ONE)
    for action in (Action.UPSERT, Action.DELETE):
        (told,), steps = drive(acme, acme.deliver(batch([row(0, match, action)], object_="people")))
        assert not steps
        assert (told.status, told.code) == (Status.REJECTED, "UNADDRESSABLE")


@given(st.text(min_size=1).filter(lambda text: text not in (".", "..") and text.isprintable()))
def test_a_value_stays_within_its_part_of_the_path(match: str) -> None:
    acme = api(ONE)
    _, steps = drive(
        acme, acme.deliver(batch([row(0, match, Action.DELETE)], object_="people")), says({"success": True})
    )
    path = requests(steps)[0].path
    assert path.startswith("/people/")
    assert not set(path.removeprefix("/people/")) & set("/?#&= \r\n")


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "ü", "a\x00"])
def test_a_value_that_no_header_can_carry_is_refused(value: str) -> None:
    acme = api(
        "objects: {x: {create: {request: POST /x, headers: {X-Name: '{record.name}'}, body: '{record}', "
        "answer: all_rows}}}"
    )
    sent = batch([row(0, action=Action.CREATE, payload={"name": value})], object_="x")
    (told,), steps = drive(acme, acme.deliver(sent))
    assert not steps
    assert told.code == "UNADDRESSABLE"


FORM = """
encoding: form
idempotency_header: Idempotency-Key
objects:
  customers:
    create:
      request: POST /v1/customers
      body:
        name: "{record.name}"
        metadata: {key: "{key}"}
        flags: [1, true]
        plan: "{record.plan.name}"
        n: "{record.none}"
      answer: {id: id}
    update: {request: "POST /v1/customers/{id}", body: "{record}", answer: {id: id}}
"""


def test_a_form() -> None:
    acme = api(FORM)
    payload = {"name": "Zoë & Co", "plan": {"name": "a=b"}}
    sent = batch([row(0, action=Action.CREATE, payload=payload)], object_="customers")
    _, steps = drive(acme, acme.deliver(sent), says({"id": "cus_1"}))
    (request,) = requests(steps)
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["Idempotency-Key"] == "delivery-1"
    assert parse_qs((request.body or b"").decode(), keep_blank_values=True) == {
        "name": ["Zoë & Co"],
        "metadata[key]": ["0"],
        "flags[0]": ["1"],
        "flags[1]": ["true"],
        "plan": ["a=b"],
        "n": [""],
    }
    assert acme.repeat("customers", Action.CREATE) is Repeat.WITH_KEY
    assert acme.repeat("customers", Action.UPDATE) is Repeat.ALWAYS


XML = """
encoding: xml
problem: {message: fault.text}
objects:
  parts:
    upsert:
      request: POST /parts
      rows: 10
      body: {load: {"@version": 2, part: "{rows}"}}
      item: {"@key": "{key}", "...": "{record}"}
      answer: {results: loaded.part, by: {key: '"@key"'}, status: state, accepted: [ok], message: note}
"""


def test_xml_both_ways() -> None:
    acme = api(XML)
    sent = batch([row(0, payload={"name": "<A & B>"}), row(1, payload={"name": "é"})], object_="parts", match=())
    answer = b"<?xml version='1.0'?><loaded><part key='1'><state>no</state><note>Bad &lt;name&gt;</note></part>"
    answer += b"<part key='0'><state>ok</state></part></loaded>"
    told, steps = drive(acme, acme.deliver(sent), Response(200, {"content-type": "text/xml"}, answer))
    assert (requests(steps)[0].body or b"").decode() == (
        "<?xml version='1.0' encoding='utf-8'?>\n"
        '<load version="2"><part key="0"><name>&lt;A &amp; B&gt;</name></part>'
        '<part key="1"><name>é</name></part></load>'
    )
    assert statuses(told) == [Status.CREATED, Status.REJECTED]
    assert told[1].reason == "Acme says: Bad <name>"
    # A list of one is its element.
    alone = b"<loaded><part key='0'><state>ok</state></part></loaded>"
    told, _ = drive(acme, acme.deliver(batch(sent.rows[:1], object_="parts", match=())), Response(200, {}, alone))
    assert statuses(told) == [Status.CREATED]


@pytest.mark.parametrize(
    "body", [b"", b"<loaded/>", b"<loaded>", b'<!DOCTYPE x [<!ENTITY a "b">]><loaded>&a;</loaded>', b"{}"]
)
def test_xml_that_says_nothing(body: bytes) -> None:
    acme = api(XML)
    with pytest.raises(Unavailable):
        drive(acme, acme.deliver(batch([row(0)], object_="parts", match=())), Response(200, {}, body))


def test_what_no_xml_can_hold_is_invalid() -> None:
    with pytest.raises(ValueError, match="no XML document can hold"):
        api(XML).encode("a\x01b")
    assert api(XML).as_text == frozenset()
    assert api(ONE).encode("a\x01b") == "a\x01b"


SEARCHED = """
errors: {404: missing}
objects:
  people:
    match: {email: trim_lower}
    search: {request: GET /people, query: {email: "{match}"}, records: data, id: id, by: {match: email}}
    create: {request: POST /people, body: "{record}", answer: {id: id}}
    update: {request: "PATCH /people/{id}", body: "{record}", answer: all_rows}
    delete: {request: "DELETE /people/{id}", answer: all_rows}
"""
PERSON = {"id": 17, "email": "R0@example.com "}


def test_a_search_then_a_creation_or_an_update() -> None:
    acme = api(SEARCHED)
    assert acme.modes_of("people") == frozenset(Mode)
    assert acme.repeat("people", Action.UPSERT) is Repeat.WHEN_QUIET
    sent = batch([row(0)], object_="people")
    outcomes, steps = drive(acme, acme.deliver(sent), says({"data": []}), says({"id": 5}, 201))
    assert lines(steps) == ["GET /people?email=r0%40example.com", "POST /people"]
    assert (outcomes[0].status, outcomes[0].destination_id) == (Status.CREATED, "5")
    others = [{"id": 1, "email": "another@example.com"}, PERSON]
    outcomes, steps = drive(acme, acme.deliver(sent), says({"data": others}), says({}))
    assert lines(steps)[1] == "PATCH /people/17"
    assert (outcomes[0].status, outcomes[0].destination_id) == (Status.UPDATED, "17")


def test_a_record_whose_id_is_known_is_not_searched_for() -> None:
    acme = api(SEARCHED)
    sent = batch([row(0, destination_id="17")], object_="people")
    outcomes, steps = drive(acme, acme.deliver(sent), says({}))
    assert lines(steps) == ["PATCH /people/17"]
    assert outcomes[0].status is Status.UPDATED
    outcomes, _ = drive(acme, acme.deliver(sent), says({}, 404))
    assert outcomes[0].code == GONE


def test_several_records_with_one_match_value_are_told_and_left_alone() -> None:
    acme = api(SEARCHED)
    several = says({"data": [PERSON, {**PERSON, "id": 18}]})
    outcomes, steps = drive(acme, acme.deliver(batch([row(0)], object_="people")), several)
    assert len(steps) == 1
    assert outcomes[0].code == "SEVERAL_RECORDS"
    assert "(17, 18)" in outcomes[0].reason


@pytest.mark.parametrize(
    ("action", "status", "code"),
    [(Action.MODIFY, Status.REJECTED, NO_RECORD), (Action.DELETE, Status.DELETED, "")],
)
def test_nothing_is_changed_where_nothing_is_found(action: Action, status: Status, code: str) -> None:
    acme = api(SEARCHED)
    sent = batch([row(0, action=action)], object_="people")
    for answer in (says({"data": []}), says({}, 404)):
        (told,), steps = drive(acme, acme.deliver(sent), answer)
        assert len(steps) == 1
        assert (told.status, told.code) == (status, code)
    with pytest.raises(Unavailable):
        drive(acme, acme.deliver(sent), says({"data": "none"}))


def test_rows_in_doubt_are_looked_up_by_the_search() -> None:
    acme = api(SEARCHED)
    assert acme.can_verify("people", ("email",))
    sent = batch([row(0, action=Action.CREATE), row(1, action=Action.CREATE)], object_="people")
    told, steps = drive(acme, acme.verify(sent), says({"data": [PERSON]}), says({"data": []}))
    assert statuses(told) == [Status.CREATED, None]
    assert all(request.changes_nothing for request in requests(steps))


def test_a_search_for_many_rows_at_once() -> None:
    acme = api("""
objects:
  items:
    match: [sku]
    search:
      request: POST /items/search
      rows: 3
      body: {filter: {sku: {_in: "{matches}"}}, page: "{page}"}
      records: data
      next: {page: 1, size: 2}
      id: id
      by: {match: sku}
    create: {request: POST /items, rows: 3, body: "{rows}", answer: {results: data, id: id}}
    update:
      request: PATCH /items
      rows: 3
      body: "{rows}"
      item: {id: "{id}", "...": "{record}"}
      answer: {results: data, by: {id: id}, id: id}
""")
    rows = [row(place, f"s{place}", payload={"sku": f"s{place}"}) for place in range(3)]
    assert acme.limits("items", Action.UPSERT).rows == 3
    told, steps = drive(
        acme,
        acme.deliver(batch(rows, object_="items", match=("sku",))),
        says({"data": [{"id": 22, "sku": "s2"}, {"id": 20, "sku": "s0"}]}),
        says({"data": []}),
        says({"data": [{"id": 31}]}),
        says({"data": [{"id": 22}, {"id": 20}]}),
    )
    assert [body_of(request) for request in requests(steps)] == [
        {"filter": {"sku": {"_in": ["s0", "s1", "s2"]}}, "page": 1},
        {"filter": {"sku": {"_in": ["s0", "s1", "s2"]}}, "page": 2},
        [{"sku": "s1"}],
        [{"id": "20", "sku": "s0"}, {"id": "22", "sku": "s2"}],
    ]
    assert [(outcome.status, outcome.destination_id) for outcome in told] == [
        (Status.UPDATED, "20"), (Status.CREATED, "31"), (Status.UPDATED, "22"),
    ]  # fmt: skip


JOBS = """
atomic: {atomic}
objects:
  people:
    create:
      request: POST /jobs
      rows: 100
      body: {{rows: "{{rows}}"}}
      job:
        id: id
        poll: GET /jobs/{{job}}
        done: state == 'done'
        failed: state == 'failed'
        every: 1s
        longest: 2s
        patience: 4s
      answer: {{failures: {{list: errors, by: {{index: line, first: 1}}, message: text}}, rest: accepted, count: taken}}
"""


def test_a_job() -> None:
    acme = api(JOBS.format(atomic="false"))
    sent = batch([row(place, action=Action.CREATE) for place in range(3)], object_="people")
    done = {"state": "done", "taken": 2, "errors": [{"line": 2, "text": "No."}]}
    told, steps = drive(
        acme, acme.deliver(sent), says({"id": "a b"}, 202), says({"state": "new"}), says({"state": "on"}), says(done)
    )
    assert steps[1] == Remember("a b")
    assert [step.seconds for step in steps if isinstance(step, Pause)] == [1.0, 1.5]
    assert lines(steps)[1] == "GET /jobs/a%20b"
    assert statuses(told) == [Status.CREATED, Status.REJECTED, Status.CREATED]
    again, steps = drive(acme, acme.resume(sent, "a b"), says(done))
    assert (again, lines(steps)) == (told, ["GET /jobs/a%20b"])
    assert acme.settles == 4.0
    (unknown, *_), _ = drive(acme, acme.resume(sent, "x"), says({}, 404))
    assert (unknown.status, unknown.code) == (Status.UNSENT, "UNKNOWN_JOB")
    for answer in (says({"state": "done"}), says({"state": "done", "taken": 3, "errors": [{"line": 9}]})):
        with pytest.raises(Unavailable):
            drive(acme, acme.resume(sent, "x"), answer)


def test_a_job_that_never_ends_is_an_outage() -> None:
    acme = api(JOBS.format(atomic="false"))
    sent = batch([row(0, action=Action.CREATE)], object_="people")
    with pytest.raises(Unavailable, match="still runs after"):
        drive(acme, acme.resume(sent, "x"), *[says({"state": "on"})] * 4)


@pytest.mark.parametrize(("atomic", "status"), [("true", Status.REJECTED), ("false", Status.UNSENT)])
def test_a_job_that_failed(atomic: str, status: Status) -> None:
    acme = api(JOBS.format(atomic=atomic))
    sent = batch([row(0, action=Action.CREATE), row(1, action=Action.CREATE)], object_="people")
    told, _ = drive(acme, acme.resume(sent, "x"), says({"state": "failed", "message": "The file is broken."}))
    assert statuses(told) == [status] * 2
    assert "Acme says: The file is broken." in told[0].reason


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 5) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["results", "ref", "id", "code", "data", "errors", "why"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(JSONS, st.sampled_from([200, 201, 207, 400, 404, 422, 500]))
def test_garbage_delivers_nothing(document: Any, status: int) -> None:
    """Without `ok: true`, a job's count, or the like, no document of any shape makes a row delivered."""
    answer = Response(status, {}, json.dumps(document).encode())
    for text in (BATCHES, BATCHES + "ok: fine"):
        acme = api(text)
        try:
            told, _ = drive(acme, acme.deliver(batch([row(0), row(1)], object_="people")), answer)
        except DestinationError:
            continue
        assert not any(outcome.status in SUCCEEDED for outcome in told)
