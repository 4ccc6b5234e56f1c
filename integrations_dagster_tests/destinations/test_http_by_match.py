"""Kind `http`: APIs that change records by match value after a search, and list what they changed."""

from __future__ import annotations

import pytest

from integrations_dagster.components import Destination
from integrations_dagster.destinations.base import GONE, NO_RECORD
from integrations_dagster.destinations.errors import Unavailable
from integrations_dagster.vocabulary import Action, Misconfigured, Mode, Status
from integrations_dagster_tests.destinations.flows import batch, body_of, row
from integrations_dagster_tests.destinations.http_flows import api, drive, lines, requests, says, statuses

ITEMS = """
objects:
  people:
    match: [email]
    search: {request: GET /people, query: {in: "{matches}"}, rows: 50, records: data, id: email, by: {match: email}}
    create:
      {request: POST /people, rows: 50, body: "{rows}", answer: &list {results: data, by: {match: email}, id: email}}
    update: {request: PATCH /people, rows: 50, body: "{rows}", answer: {<<: *list, rest: missing}}
    delete: {request: DELETE /people, rows: 50, body: "{matches}", answer: all_rows}
"""


def items(*places: int) -> dict[str, list[dict[str, str]]]:
    return {"data": [{"email": f"r{place}@example.com"} for place in places]}


def test_rows_that_are_not_listed_have_no_record() -> None:
    acme = api(ITEMS)
    sent = batch([row(place, action=Action.MODIFY) for place in range(3)], object_="people")
    told, _ = drive(acme, acme.deliver(sent), says(items(1)))
    assert [(one.status, one.code if one.status is Status.REJECTED else "") for one in told] == [
        (Status.REJECTED, NO_RECORD),
        (Status.UPDATED, ""),
        (Status.REJECTED, NO_RECORD),
    ]
    told, _ = drive(acme, acme.deliver(sent), says({"data": []}))
    assert [one.code for one in told] == [NO_RECORD] * 3


def test_a_known_record_that_is_not_listed_is_gone() -> None:
    acme = api(ITEMS)
    rows = [row(place, destination_id=f"r{place}@example.com") for place in range(2)]
    told, steps = drive(acme, acme.deliver(batch(rows, object_="people")), says(items(0)))
    assert lines(steps) == ["PATCH /people"]
    assert [one.code for one in told][1] == GONE
    assert statuses(told) == [Status.UPDATED, Status.REJECTED]


@pytest.mark.parametrize("data", [[{"email": "stranger"}], [{"name": "no email"}], [None], ["r0@example.com"]])
def test_entries_that_name_no_row_leave_the_others_unknown(data: list[object]) -> None:
    """An answer in another shape than expected must not pass for a list without these rows."""
    acme = api(ITEMS)
    sent = batch([row(place, action=Action.MODIFY) for place in range(2)], object_="people")
    with pytest.raises(Unavailable):
        drive(acme, acme.deliver(sent), says({"data": data}))
    unlike: list[dict[str, object]] = [{"data": None}, {}, {"data": {}}]
    for document in unlike:
        with pytest.raises(Unavailable):
            drive(acme, acme.deliver(sent), says(document))


def test_a_search_then_a_creation_or_an_update_by_match_value() -> None:
    acme = api(ITEMS)
    assert acme.modes_of("people") == frozenset(Mode)
    sent = batch([row(place) for place in range(3)], object_="people")
    told, steps = drive(acme, acme.deliver(sent), says(items(1)), says(items(0, 2)), says(items(1)))
    assert [line.split("?")[0] for line in lines(steps)] == ["GET /people", "POST /people", "PATCH /people"]
    assert body_of(requests(steps)[2]) == [sent.rows[1].payload]
    assert statuses(told) == [Status.CREATED, Status.UPDATED, Status.CREATED]


def test_records_are_renamed_only_by_an_update_that_takes_an_id() -> None:
    assert not api(ITEMS).renames("people")
    by_id = """
objects:
  people:
    match: [email]
    update: {request: "PATCH /people/{id}", body: "{record}", answer: {id: id}}
"""
    assert api(by_id).renames("people")


def test_rest_missing_takes_entries_that_name_their_rows() -> None:
    text = "name: acme\nkind: http\ntargets: {sandbox: {base_url: 'http://127.0.0.1:1'}}\n"
    text += "api: {objects: {people: {update: {request: PATCH /people, rows: 9, body: '{rows}', "
    text += "answer: {results: data, id: id, rest: missing}}}}}\n"
    with pytest.raises(Misconfigured, match=r"update.answer.rest says .* with `by`"):
        Destination.resolve_from_yaml(text)
