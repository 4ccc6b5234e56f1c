"""The flows of `sql` with recorded answers: what is asked, and what becomes of rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integrations_dagster.destinations.base import GONE, NO_RECORD, Batch, Repeat, Request, Response
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    Refused,
    Throttled,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.destinations.sql.destination import Describe, Find, Sql, Table, TableKeys, Write
from integrations_dagster.vocabulary import Action, Change, Misconfigured, Mode, Outcome, Row, Status


def row(number: int, match: str, action: Action, payload: Any = None, id_: str | None = None) -> Row:
    encoded = b"" if payload is None else json.dumps(payload).encode()
    return Row(number, str(number), match, Change.ADDED, action, encoded, destination_id=id_)


def batch(action: Action, *rows: Row, match: tuple[str, ...] = ("email",)) -> Batch:
    return Batch("people", "public.people", action, match, rows, "key-1")


def answered(results: Any) -> Response:
    return Response(200, {}, json.dumps({"results": results}).encode())


def drive(flow: Any, response: Response) -> tuple[Request, Any]:
    request = next(flow)
    with pytest.raises(StopIteration) as end:
        flow.send(response)
    return request, end.value.value


def test_rows_are_written_in_the_order_of_their_match_values_and_answered_in_their_own() -> None:
    rows = [row(n, match, Action.UPSERT, {"name": match.upper()}) for n, match in enumerate("cab")]
    request, outcomes = drive(
        Sql().deliver(batch(Action.UPSERT, *rows)), answered([["created", "7"], ["updated", "8"], ["created", None]])
    )
    assert (request.method, request.path) == ("UPSERT", "public.people")
    assert [record["email"] for record in json.loads(request.body or b"")] == ["a", "b", "c"]
    assert isinstance(request.command, Write)
    assert request.command.groups == ((("email", "name"), (0, 1, 2)),)
    assert not request.command.key
    assert outcomes == [Outcome(Status.CREATED), Outcome(Status.CREATED, "7"), Outcome(Status.UPDATED, "8")]


def test_records_with_other_columns_are_groups_of_their_own() -> None:
    rows = [
        row(0, "a", Action.UPSERT, {"name": "A"}),
        row(1, "b", Action.UPSERT, {}),
        row(2, "c", Action.UPSERT, {"name": None}),
    ]
    request, _ = drive(Sql().deliver(batch(Action.UPSERT, *rows)), answered([["updated", None]] * 3))
    assert isinstance(request.command, Write)
    assert request.command.groups == ((("email", "name"), (0, 2)), (("email",), (1,)))


def test_match_values_of_several_columns_are_columns_of_the_record() -> None:
    one = row(0, '["x","1"]', Action.DELETE)
    request, outcomes = drive(
        Sql().deliver(batch(Action.DELETE, one, match=("shop", "number"))), answered([["missing", None]])
    )
    assert json.loads(request.body or b"") == [{"number": "1", "shop": "x"}]
    assert outcomes == [Outcome(Status.DELETED)], "what is not there is as good as deleted"


@pytest.mark.parametrize(("action", "code"), [(Action.MODIFY, NO_RECORD), (Action.UPDATE, GONE)])
def test_a_record_that_is_not_there(action: Action, code: str) -> None:
    one = row(0, "a", action, {"name": "A"}, "17")
    request, (outcome,) = drive(Sql().deliver(batch(action, one)), answered([["missing", None]]))
    assert (outcome.status, outcome.code) == (Status.REJECTED, code)
    assert isinstance(request.command, Write)
    assert request.command.ids == (("17",) if action is Action.UPDATE else ())


def test_inserts_carry_their_key_where_batches_are_remembered() -> None:
    one = batch(Action.CREATE, row(0, "a", Action.CREATE, {"name": "A"}), match=())
    request, outcomes = drive(Sql().deliver(one), answered([["created", None]]))
    assert isinstance(request.command, Write)
    assert (request.command.key, request.command.batches) == ("key-1", "integrations_batches")
    assert outcomes == [Outcome(Status.CREATED)]
    without = Sql(None, TableKeys(remember_batches=False))
    request, _ = drive(without.deliver(one), answered([["created", None]]))
    assert isinstance(request.command, Write)
    assert request.command.key == ""
    assert [kind.repeat("t", Action.CREATE) for kind in (Sql(), without)] == [Repeat.WITH_KEY, Repeat.NEVER]
    assert {Sql().repeat("t", action) for action in Action if action is not Action.CREATE} == {Repeat.ALWAYS}


@pytest.mark.parametrize("results", [[], [["created", None]] * 3, [["fine", None]] * 2, [["missing", None]] * 2])
def test_an_answer_about_other_rows_is_none(results: Any) -> None:
    flow = Sql().deliver(batch(Action.UPSERT, row(0, "a", Action.UPSERT, {}), row(1, "b", Action.UPSERT, {})))
    next(flow)
    with pytest.raises(Unavailable):
        flow.send(answered(results))


def test_rows_in_doubt_are_looked_up() -> None:
    rows = [row(n, match, Action.CREATE, {}) for n, match in enumerate("ba")]
    request, found = drive(Sql().verify(batch(Action.CREATE, *rows)), answered([["found", "3"], ["missing", None]]))
    assert request.command == Find(Table("public", "people"), ("email",), (b'{"email":"b"}', b'{"email":"a"}'))
    assert request.changes_nothing
    assert found == [Outcome(Status.CREATED, "3"), None]


@pytest.mark.parametrize(
    ("code", "status", "recovery", "words"),
    [
        ("23505", 400, PoisonedBatch, "same value"),
        ("23502", 400, PoisonedBatch, "must have a value"),
        ("23514", 400, PoisonedBatch, "breaks a rule"),
        ("22001", 400, PoisonedBatch, "does not fit"),
        ("22P02", 400, PoisonedBatch, "does not fit"),
        ("P0001", 400, PoisonedBatch, "trigger"),
        ("40001", 400, Throttled, "in the way"),
        ("40P01", 400, Throttled, "in the way"),
        ("42P01", 400, Refused, "does not exist"),
        ("42703", 400, Refused, "no such column"),
        ("42501", 400, Refused, "may not do this"),
        ("42P10", 400, Refused, "unique constraint"),
        ("25006", 400, Refused, "read-only"),
        ("0A000", 400, Refused, "refused the statement"),
        ("", 401, Unauthorized, "password"),
        ("", 404, Refused, "cannot be used"),
        ("", 503, Unavailable, "out of order"),
    ],
)
def test_errors_are_classes_by_what_to_do(code: str, status: int, recovery: type[DestinationError], words: str) -> None:
    told = {"code": code, "message": "the server's own words", "constraint": "age_is_positive", "column": "age"}
    response = Response(status, {}, json.dumps(told).encode())
    with pytest.raises(recovery, match=words) as raised:
        Sql().classify(Request("UPSERT", "people"), response)
    assert "(age, age_is_positive)" in raised.value.reason
    assert "the server's own words" in raised.value.reason


def test_fields_of_a_table() -> None:
    plain = {"nullable": True, "default": False, "writable": True, "options": []}
    told = {
        "columns": [
            {**plain, "name": "id", "type": "bigint", "nullable": False, "default": True, "writable": False},
            {**plain, "name": "email", "type": "text", "nullable": False},
            {**plain, "name": "mood", "type": "mood", "options": ["good", "bad"]},
            {**plain, "name": "tags", "type": "text[]"},
        ],
        "unique": [["id"], ["email"], ["email", "mood"]],
    }
    request, fields = drive(Sql().fields("public.people"), Response(200, {}, json.dumps(told).encode()))
    assert request.command == Describe(Table("public", "people"))
    assert [(f.name, str(f.type), f.writable, f.required, f.unique, f.unique_with) for f in fields] == [
        ("id", "integer", False, False, True, ()),
        ("email", "string", True, True, True, (("mood",),)),
        ("mood", "enum", True, False, False, (("email",),)),
        ("tags", "json", True, False, False, ()),
    ]
    flow = Sql().fields("people")
    next(flow)
    with pytest.raises(Misconfigured, match="does not exist"):
        flow.send(Response(200, {}, b'{"missing": true}'))


@pytest.mark.parametrize(
    ("object_", "mode", "match", "words"),
    [
        ("a.b.c", Mode.UPSERT, ("id",), "no name of a table"),
        ("", Mode.UPSERT, ("id",), "no name of a table"),
        ("people", Mode.UPSERT, (), "has no match"),
        ("people", Mode.MIRROR, (), "has no match"),
    ],
)
def test_what_cannot_be_is_said_at_load(object_: str, mode: Mode, match: tuple[str, ...], words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        Sql().check(object_, mode, match, ("name",))
    Sql().check("public.people", Mode.APPEND, (), ("name",))


def test_values_without_a_form_in_json_have_one() -> None:
    assert Sql().encode(b"\x00\xff") == "\\x00ff"
    assert [Sql().encode(value) for value in (float("nan"), float("inf"), float("-inf"), True)] == [
        *("NaN", "Infinity", "-Infinity"),
        True,
    ]
