"""Flows of calls fed with answers, over both protocols: what is sent, and what answers mean for which row."""

from __future__ import annotations

import json
import random
import xmlrpc.client
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from integrations_dagster.destinations.base import GONE, NO_RECORD, Repeat, Request, Response
from integrations_dagster.destinations.errors import (
    PoisonedBatch,
    Refused,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.destinations.reading import FieldType
from integrations_dagster.destinations.registry import KINDS, create
from integrations_dagster.destinations.rpc.destination import Rpc
from integrations_dagster.vocabulary import ABSENT, Action, Misconfigured, Mode, Outcome, Row, Status
from integrations_dagster_tests.destinations.flows import batch, drive, row

ONE_BY_ONE = {
    "upsert": {
        "method": "put",
        "params": ["{object}", "{match}", "{record}"],
        "answer": {"id": "id", "created": "new"},
    },
    "delete": {"method": "drop", "params": ["{object}", "{id}"]},
    "search": {"method": "find", "params": [["{matches}"]], "records": "rows"},
    "batch": True,
    "errors": [
        {"code": 9, "as": "throttled", "wait": "3s"},
        {"code": 10, "as": "unauthorized"},
        {"code": 11, "as": "rejected", "says": "The name is not allowed."},
        {"code": 12, "as": "missing"},
        {"code": 13, "as": "ignored"},
        {"code": 14, "as": "too_large"},
        {"code": 15, "as": "misconfigured", "fix": "Buy more."},
        {"code": 16, "as": "unavailable"},
    ],
}
AT_ONCE = {
    "create": {"method": "{object}.create", "params": ["{rows}"], "answer": {"results": "@", "id": "@"}},
    "update": {"method": "{object}.write", "params": [{"$each": [["{id}"], "{fields}"]}], "answer": "all_rows"},
    "delete": {"method": "{object}.delete", "params": ["{ids}"], "answer": "all_rows"},
    "search": {"method": "{object}.find", "params": ["{match_field}", "{matches}"], "id": "id"},
    "errors": [{"code": "7", "message": "bad", "as": "rejected"}, {"code": "8", "as": "missing"}],
    "id_type": "integer",
}
Fault = tuple[int, str]


class Wire:
    """Answers of a protocol, and what its requests say."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def destination(self, api: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> Rpc:
        options = KINDS[self.kind].options
        assert options is not None
        made = create(self.kind, secrets, options[1].model_validate(api))
        assert isinstance(made, Rpc)
        return made

    def one(self, result: Any = None, *, fault: Fault | None = None, status: int = 200) -> Response:
        """The answer to a call alone."""
        if self.kind == "jsonrpc":
            return self._json({"jsonrpc": "2.0", "id": 1, **self._said(result, fault)}, status)
        value: Any = xmlrpc.client.Fault(*fault) if fault else (result,)
        return self._xml(xmlrpc.client.dumps(value, methodresponse=True, allow_none=True), status)

    def several(self, results: Sequence[Any]) -> Response:
        """The answer to calls that were sent together; a pair of a number and a text is a fault, `...` no answer."""
        if self.kind == "jsonrpc":
            answers = [
                {"jsonrpc": "2.0", "id": place, **self._said(result, result if isinstance(result, tuple) else None)}
                for place, result in enumerate(results, start=1)
                if result is not ...
            ]
            random.Random(1).shuffle(answers)
            return self._json(answers, 200)
        each: list[Any] = [
            {"faultCode": result[0], "faultString": result[1]}
            if isinstance(result, tuple)
            else []
            if result is ...
            else [result]
            for result in results
        ]
        return self._xml(xmlrpc.client.dumps((each,), methodresponse=True, allow_none=True), 200)

    def calls(self, request: Request) -> list[tuple[str, Any]]:
        """Methods and parameters of a request."""
        assert request.body is not None
        if self.kind == "jsonrpc":
            sent = json.loads(request.body)
            return [(call["method"], call["params"]) for call in (sent if isinstance(sent, list) else [sent])]
        params, method = xmlrpc.client.loads(request.body, use_builtin_types=True)
        assert method is not None
        if method == "system.multicall":
            calls: Any = params[0]
            return [(call["methodName"], call["params"]) for call in calls]
        return [(method, list(params))]

    def _said(self, result: Any, fault: Fault | None) -> dict[str, Any]:
        return {"error": {"code": fault[0], "message": fault[1]}} if fault else {"result": result}

    def _json(self, document: Any, status: int) -> Response:
        return Response(status, {"content-type": "application/json"}, json.dumps(document).encode())

    def _xml(self, text: str, status: int) -> Response:
        return Response(status, {"content-type": "text/xml"}, text.encode())


@pytest.fixture(params=["jsonrpc", "xmlrpc"])
def wire(request: pytest.FixtureRequest) -> Wire:
    return Wire(request.param)


def rows(count: int, action: Action = Action.UPSERT, **more: Any) -> list[Row]:
    return [row(number, action=action, **more) for number in range(count)]


def statuses(outcomes: Sequence[Outcome]) -> list[Status]:
    return [outcome.status for outcome in outcomes]


# Calls of one row, several together


def test_calls_of_one_row_go_together_and_each_answer_is_its_rows(wire: Wire) -> None:
    destination = wire.destination(ONE_BY_ONE)
    answer = wire.several(
        [
            {"id": 71, "new": True},
            (11, "Bobby"),
            {"id": "72", "new": False},
            (9, "later"),
            ...,
            (13, "is so"),
            (15, "no more records"),
            (16, "who knows"),
            (4711, "never heard of"),
        ]
    )
    outcomes, requests = drive(destination, destination.deliver(batch(rows(9))), [answer])
    calls = wire.calls(requests[0])
    assert calls[3] == (
        "put",
        ["contacts", "r3@example.com", {"email": "r3@example.com", "firstname": "Name 3"}],
    )
    assert statuses(outcomes) == [
        *(Status.CREATED, Status.REJECTED, Status.UPDATED, Status.UNSENT, Status.UNSENT),
        *(Status.UPDATED, Status.REJECTED, Status.UNSENT, Status.UNSENT),
    ]
    assert (outcomes[0].destination_id, outcomes[2].destination_id) == ("71", "72")
    assert (outcomes[1].code, outcomes[1].reason) == ("11", "The name is not allowed. The API says: Bobby")
    assert outcomes[3].code == ABSENT, "it had no effect, so the row is known not to be there"
    assert outcomes[6].reason == "The API refused the call. Buy more. The API says: no more records"
    assert {outcomes[4].code, outcomes[7].code, outcomes[8].code} == {"NO_ANSWER"}


@pytest.mark.parametrize(
    ("fault", "error"),
    [(9, Throttled), (10, Unauthorized), (14, TooLarge), (15, Refused), (16, Unavailable), (4711, Unavailable)],
)
def test_what_all_calls_met_is_of_the_request(wire: Wire, fault: int, error: type[Exception]) -> None:
    destination = wire.destination(ONE_BY_ONE)
    with pytest.raises(error) as caught:
        drive(destination, destination.deliver(batch(rows(3))), [wire.several([(fault, "so it is")] * 3)])
    assert "so it is" in str(caught.value)
    if fault == 9:
        assert isinstance(caught.value, Throttled)
        assert caught.value.wait == 3.0
    if fault == 4711:
        assert "`api.errors`" in str(caught.value)


def test_all_rejected_and_all_accepted(wire: Wire) -> None:
    destination = wire.destination(ONE_BY_ONE)
    refused, _ = drive(destination, destination.deliver(batch(rows(3))), [wire.several([(11, "no")] * 3)])
    assert statuses(refused) == [Status.REJECTED] * 3
    taken, _ = drive(destination, destination.deliver(batch(rows(2))), [wire.several([{"id": 1}, {"id": 2}])])
    assert statuses(taken) == [Status.CREATED] * 2


def test_a_result_that_says_nothing_of_the_row_is_no_success(wire: Wire) -> None:
    destination = wire.destination(ONE_BY_ONE)
    outcomes, _ = drive(destination, destination.deliver(batch(rows(2))), [wire.several([{"id": 1}, {"done": 1}])])
    assert statuses(outcomes) == [Status.CREATED, Status.UNSENT]


def test_a_deletion_of_what_is_not_there_is_one(wire: Wire) -> None:
    destination = wire.destination(ONE_BY_ONE)
    gone = [row(n, action=Action.DELETE, destination_id=str(n)) for n in range(3)]
    outcomes, requests = drive(
        destination, destination.deliver(batch(gone)), [wire.several([True, (12, "unknown"), (11, "no")])]
    )
    assert statuses(outcomes) == [Status.DELETED, Status.DELETED, Status.REJECTED]
    assert wire.calls(requests[0])[1] == ("drop", ["contacts", "1"])


# One call of several rows


def found(*matches: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"id": id_, "email": match} for match, id_ in matches]


def test_records_are_looked_up_then_written_and_created(wire: Wire) -> None:
    destination = wire.destination(AT_ONCE)
    answers = [
        wire.one(found(("r2@example.com", 52), ("r0@example.com", 50), ("other@example.com", 1))),
        wire.one(None),
        wire.one([61]),
    ]
    outcomes, requests = drive(destination, destination.deliver(batch(rows(3))), answers)
    assert [wire.calls(request) for request in requests] == [
        [("contacts.find", ["email", ["r0@example.com", "r1@example.com", "r2@example.com"]])],
        [("contacts.write", [[50], {"firstname": "Name 0"}, [52], {"firstname": "Name 2"}])],
        [("contacts.create", [[{"email": "r1@example.com", "firstname": "Name 1"}]])],
    ]
    assert [(o.status, o.destination_id) for o in outcomes] == [
        (Status.UPDATED, "50"),
        (Status.CREATED, "61"),
        (Status.UPDATED, "52"),
    ]
    assert [request.reads for request in requests] == [True, False, False]
    assert destination.repeat("contacts", Action.UPSERT) is Repeat.WHEN_QUIET
    assert destination.repeat("contacts", Action.CREATE) is Repeat.NEVER
    assert destination.repeat("contacts", Action.DELETE) is Repeat.ALWAYS


def test_of_two_records_with_one_match_value_none_is_written(wire: Wire) -> None:
    destination = wire.destination(AT_ONCE)
    answers = [wire.one(found(("r0@example.com", 50), ("r0@example.com", 51))), wire.one([61])]
    outcomes, _ = drive(destination, destination.deliver(batch(rows(2))), answers)
    assert statuses(outcomes) == [Status.REJECTED, Status.CREATED]
    assert outcomes[0].code == "AMBIGUOUS"
    assert "2 records have the row's email (ids 50, 51)" in outcomes[0].reason


@pytest.mark.parametrize("listed", [{"id": 1}, [{"id": 1}], [{"email": "a"}], [7], None])
def test_a_look_up_that_cannot_be_read_says_of_no_record_that_it_is_absent(wire: Wire, listed: Any) -> None:
    destination = wire.destination(AT_ONCE)
    with pytest.raises(Unavailable):
        drive(destination, destination.deliver(batch(rows(2))), [wire.one(listed)])


@pytest.mark.parametrize("result", [[61], [61, 62, 63], {"ids": [61, 62]}, None, True])
def test_another_number_of_results_than_of_rows_is_no_answer(wire: Wire, result: Any) -> None:
    destination = wire.destination(AT_ONCE)
    with pytest.raises(Unavailable):
        drive(destination, destination.deliver(batch(rows(2, Action.CREATE))), [wire.one(result)])


def test_a_call_that_is_refused_for_a_row_is_halved_until_the_row_is_alone(wire: Wire) -> None:
    destination = wire.destination(AT_ONCE)
    fault = wire.one(fault=(7, "a bad name"))
    with pytest.raises(PoisonedBatch, match="a bad name"):
        drive(destination, destination.deliver(batch(rows(4, Action.CREATE))), [fault])
    (outcome,), _ = drive(destination, destination.deliver(batch(rows(1, Action.CREATE))), [fault])
    assert (outcome.status, outcome.code) == (Status.REJECTED, "7")
    assert outcome.reason == "The API refused the row. The API says: a bad name"


def test_an_error_that_nobody_has_explained_leaves_open_what_the_call_did(wire: Wire) -> None:
    destination = wire.destination(AT_ONCE)
    with pytest.raises(Unavailable, match=r"`api.errors` of the destination does not list"):
        drive(destination, destination.deliver(batch(rows(2, Action.CREATE))), [wire.one(fault=(7, "other"))])


def test_a_record_that_is_gone_is_told_by_what_was_asked_for(wire: Wire) -> None:
    destination = wire.destination(AT_ONCE)
    fault = wire.one(fault=(8, "no such id"))
    moved = [row(1, action=Action.UPDATE, destination_id="5")]
    (outcome,), requests = drive(destination, destination.deliver(batch(moved)), [fault])
    assert (outcome.status, outcome.code) == (Status.REJECTED, GONE)
    assert wire.calls(requests[0]) == [("contacts.write", [[5], {"email": "r1@example.com", "firstname": "Name 1"}])]
    gone = [row(1, action=Action.DELETE, destination_id="5")]
    outcomes, _ = drive(destination, destination.deliver(batch(gone)), [fault])
    assert statuses(outcomes) == [Status.DELETED]


def test_a_record_whose_match_value_changes_gets_the_new_one(wire: Wire) -> None:
    destination = wire.destination(AT_ONCE)
    moved = [row(1, action=Action.UPDATE, destination_id="5")]
    (outcome,), (request,) = drive(destination, destination.deliver(batch(moved)), [wire.one(None)])
    assert wire.calls(request) == [("contacts.write", [[5], {"email": "r1@example.com", "firstname": "Name 1"}])]
    assert (outcome.status, outcome.destination_id) == (Status.UPDATED, "5")


def test_a_record_is_renamed_by_a_call_that_names_its_id(wire: Wire) -> None:
    assert wire.destination(AT_ONCE).renames("contacts")
    by_match = {"method": "put", "params": ["{match}", "{record}"]}
    assert not wire.destination({"upsert": by_match, "delete": AT_ONCE["delete"]}).renames("contacts")
    assert not wire.destination({"upsert": by_match, "update": by_match}).renames("contacts")


def test_update_creates_nothing_and_delete_deletes_what_it_finds(wire: Wire) -> None:
    destination = wire.destination(AT_ONCE)
    answers = [wire.one(found(("r1@example.com", 51))), wire.one(None)]
    outcomes, _ = drive(destination, destination.deliver(batch(rows(2, Action.MODIFY))), answers)
    assert [(o.status, o.code) for o in outcomes] == [(Status.REJECTED, NO_RECORD), (Status.UPDATED, "")]
    outcomes, requests = drive(destination, destination.deliver(batch(rows(2, Action.DELETE))), answers)
    assert statuses(outcomes) == [Status.DELETED] * 2
    assert wire.calls(requests[1]) == [("contacts.delete", [[51]])]


def test_rows_in_doubt_are_looked_up(wire: Wire) -> None:
    destination = wire.destination(AT_ONCE)
    assert destination.can_verify("contacts", ("email",))
    told, requests = drive(
        destination, destination.verify(batch(rows(2, Action.CREATE))), [wire.one(found(("r1@example.com", 51)))]
    )
    assert told == [None, Outcome(Status.CREATED, "51")]
    assert requests[0].reads


# Whole answers


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, Unauthorized),
        (403, Refused),
        (404, Refused),
        (413, TooLarge),
        (429, Throttled),
        (500, Unavailable),
        (503, Unavailable),
        (302, Refused),
        (204, Unavailable),
        (200, Unavailable),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b'{"id": 1}', b"[]", b"\xff\xfe", b"<methodResponse/>"])
def test_statuses_and_garbage(wire: Wire, status: int, error: type[Exception], body: bytes) -> None:
    destination = wire.destination(AT_ONCE)
    with pytest.raises(error):
        drive(destination, destination.deliver(batch(rows(2, Action.CREATE))), [Response(status, {}, body)])


def test_a_result_under_a_status_of_failure_is_no_success(wire: Wire) -> None:
    destination = wire.destination(AT_ONCE)
    with pytest.raises(Unavailable):
        drive(destination, destination.deliver(batch(rows(1, Action.CREATE))), [wire.one([1], status=500)])


def test_an_error_under_a_status_of_failure_means_what_its_code_says(wire: Wire) -> None:
    destination = wire.destination(AT_ONCE)
    for status in (400, 500):
        with pytest.raises(PoisonedBatch):
            drive(
                destination,
                destination.deliver(batch(rows(2, Action.CREATE))),
                [wire.one(fault=(7, "bad"), status=status)],
            )


def test_a_line_may_be_about_a_status(wire: Wire) -> None:
    lines = [{"code": 7, "status": 409, "as": "ignored"}, {"code": 7, "as": "rejected"}]
    destination = wire.destination(AT_ONCE | {"errors": lines})
    for status, ends in ((409, Status.CREATED), (200, Status.REJECTED)):
        fault = wire.one(fault=(7, "is there already"), status=status)
        (outcome,), _ = drive(destination, destination.deliver(batch(rows(1, Action.CREATE))), [fault])
        assert outcome.status is ends


@pytest.mark.parametrize(("code", "error"), [(-32601, Refused), (-32700, Refused), (-32603, Unavailable)])
def test_codes_that_the_protocols_reserve(wire: Wire, code: int, error: type[Exception]) -> None:
    destination = wire.destination(AT_ONCE)
    with pytest.raises(error):
        drive(destination, destination.deliver(batch(rows(2, Action.CREATE))), [wire.one(fault=(code, "x"))])


def test_the_answer_to_another_call_is_none() -> None:
    wire = Wire("jsonrpc")
    destination = wire.destination(AT_ONCE)
    for document in ({"id": 2, "result": [1]}, {"result": [1]}, {"id": 1}, {"id": 1, "error": None}):
        body = json.dumps(document).encode()
        with pytest.raises(Unavailable):
            drive(destination, destination.deliver(batch(rows(1, Action.CREATE))), [Response(200, {}, body)])


def test_two_answers_to_one_call_are_none() -> None:
    wire = Wire("jsonrpc")
    destination = wire.destination(ONE_BY_ONE)
    document = [{"id": 1, "result": {"id": 1}}, {"id": 1, "error": {"code": 11}}, {"id": 2, "result": {"id": 2}}]
    outcomes, _ = drive(
        destination, destination.deliver(batch(rows(2))), [Response(200, {}, json.dumps(document).encode())]
    )
    assert [(o.status, o.code) for o in outcomes] == [(Status.UNSENT, "NO_ANSWER"), (Status.CREATED, "")]


def test_a_document_type_is_not_read() -> None:
    wire = Wire("xmlrpc")
    destination = wire.destination(AT_ONCE)
    bomb = (
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "1"><!ENTITY b "&a;&a;&a;">]><methodResponse><params><param>'
        "<value><array><data><value><int>&b;</int></value></data></array></value></param></params></methodResponse>"
    )
    for encoding in ("utf-8", "utf-16"):
        body = bomb.replace('version="1.0"', f'version="1.0" encoding="{encoding}"').encode(encoding)
        with pytest.raises(Unavailable, match="document type"):
            drive(destination, destination.deliver(batch(rows(1, Action.CREATE))), [Response(200, {}, body)])


def test_a_multicall_with_a_result_missing_is_no_answer() -> None:
    wire = Wire("xmlrpc")
    destination = wire.destination(ONE_BY_ONE)
    with pytest.raises(Unavailable, match="other than 3 results"):
        drive(destination, destination.deliver(batch(rows(3))), [wire.several([{"id": 1}, {"id": 2}])])


# What is sent


def test_the_dialects_of_json_rpc() -> None:
    for version, member in (("2.0", {"jsonrpc": "2.0"}), ("1.0", {})):
        destination = Wire("jsonrpc").destination(AT_ONCE | {"version": version})
        request = next(destination.deliver(batch(rows(1, Action.CREATE))))
        assert isinstance(request, Request)
        assert request.body is not None
        sent = json.loads(request.body)
        assert {**sent, "params": 0} == {"id": 1, "method": "contacts.create", "params": 0, **member}


def test_parameters_by_name_and_a_secret_among_them() -> None:
    api = {
        "upsert": {
            "method": "call",
            "params": {
                "service": "object",
                "args": ["db", 2, "{secret}", "{object}", "{record.firstname} ({key})", "{record.address.city}"],
            },
        }
    }
    destination = Wire("jsonrpc").destination(api, {"secret": "s3cret"})
    sent = row(1, payload={"firstname": "Ada {secret}", "address": {"city": "Oslo"}})
    request = next(destination.deliver(batch([sent])))
    assert isinstance(request, Request)
    assert request.body is not None
    args = json.loads(request.body)["params"]["args"]
    # What a row holds is never looked through for names.
    assert args == ["db", 2, "s3cret", "contacts", "Ada {secret} (1)", "Oslo"]


def test_values_keep_their_types_in_xml() -> None:
    wire = Wire("xmlrpc")
    destination = wire.destination(AT_ONCE)
    values = {
        "text": 'a <b> & "c" \r\n\t é 👩‍🚀',
        "whole": 2**31 - 1,
        "big": 2**40,
        "double": 0.1,
        "flag": True,
        "none": None,
        "exact": Decimal("12.340"),
        "day": date(987, 8, 1),
        "moment": datetime(2026, 8, 1, 12, 30, tzinfo=UTC),
        "bytes": b"\x00\xff",
        "list": [1, "x", {"a": None}],
    }
    payload = {name: None if value is None else destination.encode(value) for name, value in values.items()}
    request = next(destination.deliver(batch([row(1, action=Action.CREATE, payload=payload)], match=())))
    assert isinstance(request, Request)
    ((_, ((sent,),)),) = wire.calls(request)
    assert sent == values | {
        "exact": "12.340",
        # Without a zone, as XML-RPC has them.
        "day": datetime.fromisoformat("0987-08-01"),
        "moment": datetime.fromisoformat("2026-08-01T12:30:00"),
    }
    assert request.headers["Content-Type"] == "text/xml"
    assert b"<i8>1099511627776</i8>" in (request.body or b"")
    no_nil = wire.destination(AT_ONCE | {"nil": False})
    request = next(no_nil.deliver(batch([row(1, action=Action.CREATE, payload={"a": None})], match=())))
    assert isinstance(request, Request)
    assert wire.calls(request) == [("contacts.create", [[{"a": ""}]])]


@pytest.mark.parametrize("text", ["bell \x07", "zero \x00", {"a": ["\x1b"]}])
def test_what_xml_cannot_hold_is_invalid(text: Any) -> None:
    with pytest.raises(ValueError, match="which no XML document can hold"):
        Wire("xmlrpc").destination(AT_ONCE).encode(text)
    assert Wire("jsonrpc").destination(AT_ONCE).encode(text) == text


def test_forms_of_types(wire: Wire) -> None:
    types = {
        "decimal": {"__class__": "Decimal", "decimal": "{value}"},
        "date": {"y": "{year}", "m": "{month}", "d": "{day}"},
        "timestamp": "{value}",
        "bytes": "data:{value}",
    }
    destination = wire.destination(AT_ONCE | {"types": types, "empty": False})
    assert destination.encode(Decimal("1.50")) == {"__class__": "Decimal", "decimal": "1.50"}
    assert destination.encode(date(2026, 8, 1)) == {"y": 2026, "m": 8, "d": 1}
    assert destination.encode(datetime(2026, 8, 1, 14, tzinfo=timezone(timedelta(hours=2)))) == "2026-08-01T12:00:00Z"
    assert destination.encode(b"a") == "data:YQ=="
    assert destination.encode("plain") == "plain"
    assert destination.cleared() is False


# Reading


def test_pages_of_a_reference_until_one_is_empty(wire: Wire) -> None:
    owners = {
        "method": "owners",
        "params": ["{offset}", "{limit}"],
        "records": "list",
        "columns": {"id": "id", "mail": "contact.mail"},
        "key": "mail",
        "page": 2,
    }
    destination = wire.destination(AT_ONCE | {"references": {"owners": owners}})
    (reference,) = destination.references()
    assert (reference.name, reference.value, reference.key, reference.columns) == (
        "owners",
        "id",
        "mail",
        ("id", "mail"),
    )
    pages = [[{"id": 1, "contact": {"mail": "a@x"}}, {"id": 2}], [{"id": 3, "contact": {"mail": ""}}], []]
    cursor: str | None = None
    read: list[Mapping[str, str | None]] = []
    asked = []
    for records in pages:
        page, requests = drive(
            destination, destination.read("owners", ("id", "mail"), cursor), [wire.one({"list": records})]
        )
        asked += wire.calls(requests[0])
        read += page.rows
        cursor = page.cursor
    assert cursor is None
    assert read == [{"id": "1", "mail": "a@x"}, {"id": "2", "mail": None}, {"id": "3", "mail": None}]
    assert asked == [("owners", [0, 2]), ("owners", [2, 2]), ("owners", [3, 2])]


def test_an_api_that_ignores_the_offset_is_not_asked_for_ever(wire: Wire) -> None:
    owners = {"method": "owners", "params": ["{offset}"], "columns": ["id"]}
    destination = wire.destination(AT_ONCE | {"references": {"owners": owners}})
    page, _ = drive(destination, destination.read("owners", ("id",), None), [wire.one([{"id": 1}])])
    with pytest.raises(Unavailable, match="the same page of owners twice"):
        drive(destination, destination.read("owners", ("id",), page.cursor), [wire.one([{"id": 1}])])


def test_fields_are_told_by_a_call(wire: Wire) -> None:
    fields = {
        "method": "{object}.fields",
        "label": "string",
        "type": "type",
        "read_only": "ro",
        "types": {"char": "string"},
    }
    destination = wire.destination(AT_ONCE | {"fields": fields, "match": ["email"]})
    told = {"email": {"type": "char", "string": "Email"}, "id": {"type": "integer", "ro": True}, "x": {"type": "odd"}}
    (email, number, odd), _ = drive(destination, destination.fields("contacts"), [wire.one(told)])
    assert (email.name, email.label, email.type, email.unique) == ("email", "Email", FieldType.STRING, True)
    assert (number.type, number.writable, number.unique) == (FieldType.INTEGER, False, False)
    assert (odd.type, odd.native) == (FieldType.UNKNOWN, "odd")


# What YAML may say


@pytest.mark.parametrize(
    ("change", "place", "what"),
    [
        ({"create": {"method": "m", "params": ["{rows}"]}}, "create.answer", "is missing: a call of several rows"),
        ({"create": {"method": "m", "params": ["{rows}"], "answer": {"id": "@"}}}, "create.answer", "lacks `results`"),
        (
            {"create": {"method": "m", "params": ["{rows}"], "answer": {"results": "@"}}},
            "create.answer",
            "says of no row",
        ),
        (
            {"create": {"method": "m", "params": ["{row}"]}},
            "create.params",
            'has "{row}", which is no name here. Did you',
        ),
        ({"create": {"method": "m", "params": [1]}}, "create.params", "name no row"),
        ({"create": {"method": "m", "params": ["{record}", "{ids}"]}}, "create.params", "names one row"),
        ({"create": {"method": "m", "params": ["{id}"]}}, "create.params", "which a new record has none of"),
        ({"update": {"method": "m", "params": ["{fields}"]}}, "update.params", "does not say which record"),
        ({"update": {"method": "m", "params": [{"$each": "{id}"}], "answer": "all_rows"}}, "update.params", r"\$each"),
        ({"search": {"method": "m", "params": ["{match}"]}}, "search.params", "lack {matches}"),
        ({"errors": [{"code": "(", "as": "rejected"}]}, "errors.0.code", "no regular expression"),
        ({"errors": [{"code": 1, "as": "rejected", "wait": "1s"}]}, "errors.0.wait", "no meaning"),
        ({"references": {"a": {"method": "m", "params": ["{ofset}"], "columns": ["id"]}}}, "references.a", "offset"),
        ({"path": "rpc"}, "path", 'begins with "/"'),
        ({"rpc": "x"}, "rpc", "is no key here"),
    ],
)
def test_mistakes_are_named(wire: Wire, change: dict[str, Any], place: str, what: str) -> None:
    wire.destination(AT_ONCE)
    with pytest.raises(ValidationError, match=what) as caught:
        wire.destination(AT_ONCE | change)
    assert any(".".join(map(str, error["loc"])).startswith(place) for error in caught.value.errors()), caught.value


def test_xml_rpc_takes_parameters_by_position_only() -> None:
    with pytest.raises(ValidationError, match="by position only"):
        Wire("xmlrpc").destination({"upsert": {"method": "m", "params": {"a": "{record}"}}})


@pytest.mark.parametrize(
    ("api", "mode", "match", "what"),
    [
        ({"create": AT_ONCE["create"]}, Mode.UPSERT, ("email",), "lacks `upsert` .or `search` and `update`."),
        ({"create": AT_ONCE["create"]}, Mode.MIRROR, ("email",), "and `delete`"),
        ({"delete": AT_ONCE["delete"]}, Mode.DELETE, ("email",), "lacks `search`, by which `delete`"),
        (AT_ONCE, Mode.UPSERT, (), "is matched by one field, and `match` has none"),
        (AT_ONCE, Mode.UPSERT, ("a", "b"), "`match` has 2"),
        (AT_ONCE | {"match": ["code"]}, Mode.UPSERT, ("email",), "cannot be matched by 'email'"),
    ],
)
def test_a_sync_that_the_calls_cannot_deliver_is_refused(
    wire: Wire, api: dict[str, Any], mode: Mode, match: tuple[str, ...], what: str
) -> None:
    with pytest.raises(Misconfigured, match=what):
        wire.destination(api).check("contacts", mode, match, ("firstname",))


def test_one_row_is_a_request_where_calls_go_one_by_one(wire: Wire) -> None:
    assert wire.destination(ONE_BY_ONE).limits("contacts", Action.UPSERT).rows == 100
    assert wire.destination(ONE_BY_ONE | {"batch": False}).limits("contacts", Action.UPSERT).rows == 1
    assert wire.destination(AT_ONCE | {"rows": 250}).limits("contacts", Action.UPSERT).rows == 250
