"""What answers of GraphQL APIs mean: flows fed with answers of every shape that the specification and vendors know."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations_dagster.destinations.answers import NO_ANSWER
from integrations_dagster.destinations.base import GONE, NO_RECORD, Repeat, Response
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    Refused,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.destinations.graphql.destination import Graphql
from integrations_dagster.destinations.graphql.forms import GraphqlApi
from integrations_dagster.vocabulary import Action, Outcome, Row, Status
from integrations_dagster_tests.destinations.flows import answer, batch, body_of, drive, row

ONE = "mutation Save($input: In!) { save(input: $input) { id } }"
LIST = "mutation ($inputs: [In!]!) { saveAll(inputs: $inputs) { id } }"
PLACE = [{"line": 1, "column": 9}]


def api(object_: dict[str, Any] | None = None, **more: Any) -> Graphql:
    """A destination with one object, by default with an upsert of one row that goes many to a request."""
    saved = {"mutation": ONE, "variables": {"input": "{record}"}, "rows": 100, "answer": {"id": "id"}}
    objects = {"contacts": {"match": "email", "upsert": saved, **(object_ or {})}}
    return Graphql({}, GraphqlApi.model_validate({"objects": objects, **more}, context={"destination": "shop"}))


def listed(**more: Any) -> dict[str, Any]:
    """An object whose upsert takes a list."""
    answered = {"results": "@", "id": "id"}
    return {"upsert": {"mutation": LIST, "variables": {"inputs": "{rows}"}, "answer": answered, **more}}


def rows(count: int, action: Action = Action.UPSERT, **fields: Any) -> list[Row]:
    return [row(place, action=action, **fields) for place in range(count)]


def tell(
    destination: Graphql, document: Any, count: int = 3, *, status: int = 200, given: Sequence[Row] = ()
) -> list[Outcome]:
    """The outcomes of rows whose request is answered so."""
    response = document if isinstance(document, Response) else answer(status, document)
    sent = batch(given or rows(count))
    outcomes, _ = drive(destination, destination.deliver(sent), [response])
    assert len(outcomes) == len(sent.rows)
    return outcomes


def error(message: str, *path: str | int, code: str = "", **more: Any) -> dict[str, Any]:
    """One entry of `errors`, with a place in the document."""
    extensions = {"extensions": {"code": code}} if code else {}
    return {"message": message, "locations": PLACE, **({"path": list(path)} if path else {}), **extensions, **more}


def statuses(outcomes: Sequence[Outcome]) -> list[Status]:
    return [outcome.status for outcome in outcomes]


def test_rows_under_aliases_have_variables_of_their_own() -> None:
    destination = api()
    sent = batch([row(0, payload={"email": "a", "name": 'x") { id } evil: drop(id: "1'}), row(1)])
    _, (request,) = drive(
        destination, destination.deliver(sent), [answer(200, {"data": {"r0": {"id": 1}, "r1": {"id": 2}}})]
    )
    body = body_of(request)
    assert " ".join(body["query"].split()) == (
        "mutation Save($r0_input: In!, $r1_input: In!) "
        "{ r0: save(input: $r0_input) { id } r1: save(input: $r1_input) { id } }"
    )
    assert body["variables"] == {"r0_input": sent.rows[0].payload, "r1_input": sent.rows[1].payload}
    assert "evil" not in body["query"]
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Accept"].startswith("application/graphql-response+json")


def test_one_row_is_sent_as_the_mutation_is_written() -> None:
    destination = api()
    outcomes, (request,) = drive(
        destination, destination.deliver(batch(rows(1))), [answer(200, {"data": {"save": {"id": "7"}}})]
    )
    assert body_of(request)["variables"] == {"input": rows(1)[0].payload}
    assert statuses(outcomes) == [Status.CREATED]


def test_an_alias_of_the_document_is_the_key_of_its_answer() -> None:
    destination = api({"upsert": {
        "mutation": "mutation ($i: In!) { done: save(input: $i) { id } }", "variables": {"i": "{record}"},
        "answer": {"id": "id"}}})  # fmt: skip
    assert statuses(tell(destination, {"data": {"done": {"id": 1}}}, 1)) == [Status.CREATED]
    with pytest.raises(Unavailable):
        tell(destination, {"data": {"save": {"id": 1}}}, 1)


def test_errors_name_their_rows_in_any_order() -> None:
    document = {
        "data": {"r2": {"id": "12"}, "r0": {"id": "10"}, "r1": None, "r3": None},
        "errors": [error("No such tier.", "r3", code="BAD_TIER"), error("Name is taken.", "r1", code="TAKEN")],
    }
    outcomes = tell(api(), document, 4)
    assert statuses(outcomes) == [Status.CREATED, Status.REJECTED, Status.CREATED, Status.REJECTED]
    assert [(o.code, o.reason) for o in outcomes if o.status is Status.REJECTED] == [
        ("TAKEN", "shop says: Name is taken."),
        ("BAD_TIER", "shop says: No such tier."),
    ]


def test_null_without_an_error_is_no_success() -> None:
    outcomes = tell(api(), {"data": {"r0": {"id": 1}, "r1": None, "r2": {}}})
    assert statuses(outcomes) == [Status.CREATED, Status.UNSENT, Status.UNSENT]
    assert outcomes[1].code == NO_ANSWER


def test_what_null_means_may_be_said() -> None:
    removed = {"mutation": "mutation ($id: ID!) { remove(id: $id) { id } }", "variables": {"id": "{match}"},
               "rows": 10, "answer": {"id": "id"}, "nothing": "missing"}  # fmt: skip
    destination = api({"delete": removed, "update": {**removed}})
    document = {"data": {"r0": {"id": 1}, "r1": None}}
    deleted = tell(destination, document, given=rows(2, Action.DELETE))
    assert statuses(deleted) == [Status.DELETED, Status.DELETED]
    modified = tell(destination, document, given=rows(2, Action.MODIFY))
    assert [outcome.code for outcome in modified][1] == NO_RECORD
    refused = tell(api({"delete": {**removed, "nothing": "rejected"}}), document, given=rows(2, Action.DELETE))
    assert statuses(refused) == [Status.DELETED, Status.REJECTED]
    assert refused[1].reason == "shop answered null for the row, and gave no reason."


def test_an_error_below_a_row_is_about_reading_its_result() -> None:
    """The work is done by the field at the top: what is there is judged, and nothing there is not known."""
    document = {
        "data": {"r0": {"id": "1", "owner": None}, "r1": None, "r2": {"id": "3"}},
        "errors": [error("Owner is broken.", "r0", "owner"), error("Id is broken.", "r1", "id")],
    }
    assert statuses(tell(api(), document)) == [Status.CREATED, Status.UNSENT, Status.CREATED]


def test_an_error_that_takes_all_data_with_it() -> None:
    """A field that may not be null: what the rows before it became is not told."""
    document = {"data": None, "errors": [error("Name is taken.", "r1", code="TAKEN")]}
    assert statuses(tell(api(), document)) == [Status.UNSENT, Status.REJECTED, Status.UNSENT]
    with pytest.raises(PoisonedBatch, match="Name is taken"):
        tell(api(atomic=True), document)


def test_an_error_without_a_path_beside_data_is_told_of_rows_without_answer() -> None:
    document = {"data": {"r0": {"id": 1}, "r1": None, "r2": {"id": 3}}, "errors": [{"message": "Something broke."}]}
    outcomes = tell(api(), document)
    assert statuses(outcomes) == [Status.CREATED, Status.UNSENT, Status.CREATED]
    assert "Something broke." in outcomes[1].reason


@pytest.mark.parametrize("code", ["BAD_USER_INPUT", "INTERNAL_SERVER_ERROR", ""])
def test_variables_that_do_not_fit_had_no_effect_and_are_found_by_halves(code: str) -> None:
    document = {"errors": [error('Variable "$r1_input" got invalid value "x"', code=code)]}
    with pytest.raises(PoisonedBatch):
        tell(api(), document)
    (alone,) = tell(api(), document, 1)
    assert alone.status is Status.REJECTED
    assert 'got invalid value "x"' in alone.reason


def test_a_refusal_without_proof_that_nothing_was_done_leaves_rows_unknown() -> None:
    for document in ({"errors": [{"message": "No."}]}, {"data": None, "errors": [{"message": "No."}]}):
        with pytest.raises(Unavailable, match="atomic: true"):
            tell(api(), document)
        with pytest.raises(PoisonedBatch):
            tell(api(atomic=True), document)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("THROTTLED", Throttled),
        ("RATE_LIMITED", Throttled),
        ("UNAUTHENTICATED", Unauthorized),
        ("GRAPHQL_VALIDATION_FAILED", Refused),
        ("GRAPHQL_PARSE_FAILED", Refused),
        ("ACCESS_DENIED", Refused),
        ("FORBIDDEN", Refused),
        ("MAX_COST_EXCEEDED", TooLarge),
        ("INTERNAL_SERVER_ERROR", Unavailable),
    ],
)
def test_codes_of_whole_requests(code: str, kind: type[DestinationError]) -> None:
    for document in (
        {"errors": [{"message": "So it is.", "extensions": {"code": code}}]},
        {"data": None, "errors": [{"message": "So it is.", "extensions": {"code": code}}]},
        {
            "data": {"r0": None, "r1": None, "r2": None},
            "errors": [{"message": "So it is.", "extensions": {"code": code}}],
        },
    ):
        with pytest.raises(kind, match="shop says: So it is"):
            tell(api(), document)


def test_all_rows_refused_for_what_is_no_fault_of_theirs_is_the_whole_request() -> None:
    errors = [error("Slow down.", f"r{place}", code="THROTTLED") for place in (2, 0, 1)]
    document: dict[str, Any] = {"data": {"r0": None, "r1": None, "r2": None}, "errors": errors}
    with pytest.raises(Throttled):
        tell(api(), document)
    document["data"]["r1"] = {"id": 5}
    document["errors"] = [one for one in errors if one["path"] != ["r1"]]
    assert statuses(tell(api(), document)) == [Status.UNSENT, Status.CREATED, Status.UNSENT]


def test_the_codes_of_github_and_of_graphql_java() -> None:
    with pytest.raises(Throttled):
        tell(api(), {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]})
    document = {"errors": [{"message": "Field 'x' is undefined", "extensions": {"classification": "ValidationError"}}]}
    with pytest.raises(Refused):
        tell(api(errors={"ValidationError": "misconfigured"}), document)


def test_where_codes_are_may_be_said() -> None:
    with pytest.raises(Throttled):
        tell(
            api(code="reason", message="text", errors={"BUSY": "throttled"}),
            {"errors": [{"reason": "BUSY", "text": "x"}]},
        )


def test_how_long_to_wait() -> None:
    """As the cost of queries tells it, unless a header does."""
    errors = [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}]
    status = {"maximumAvailable": 2000.0, "currentlyAvailable": 50, "restoreRate": 100.0}
    document = {"errors": errors, "extensions": {"cost": {"requestedQueryCost": 450, "throttleStatus": status}}}
    with pytest.raises(Throttled) as caught:
        tell(api(), document)
    assert caught.value.wait == pytest.approx(4.0)
    with pytest.raises(Throttled) as caught:
        tell(api(), answer(429, document, retry_after="7"))
    assert caught.value.wait == 7.0
    with pytest.raises(Throttled) as caught:
        tell(api(), {"errors": errors})
    assert caught.value.wait is None


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (Response(200, {"content-type": "text/html"}, b"<html>"), Unavailable),
        (Response(200, {}, b""), Unavailable),
        (answer(200, []), Unavailable),
        (answer(200, {}), Unavailable),
        (answer(200, {"data": None}), Unavailable),
        (answer(200, {"data": {}}), Unavailable),
        (answer(200, {"data": {"r0": None, "r1": None, "r2": None}}), Unavailable),
        (answer(200, {"data": [1]}), Unavailable),
        (answer(200, {"errors": "no"}), Unavailable),
        (answer(200, {"errors": [None]}), Unavailable),
        (answer(200, {"data": {"other": {"id": 1}}}), Unavailable),
        (answer(204), Unavailable),
        (Response(502, {"content-type": "text/html"}, b"<html>"), Unavailable),
        (Response(503, {}, b""), Unavailable),
        (Response(429, {"retry-after": "3"}, b""), Throttled),
        (Response(401, {}, b""), Unauthorized),
        (Response(403, {}, b""), Refused),
        (Response(404, {}, b"not here"), Refused),
        (Response(413, {}, b""), TooLarge),
        (Response(302, {"location": "/login"}, b""), Refused),
    ],
)
def test_answers_that_say_nothing_of_rows(response: Response, kind: type[DestinationError]) -> None:
    with pytest.raises(kind):
        tell(api(), response)


def test_a_400_with_data_is_read_like_a_200() -> None:
    document = {"data": {"r0": {"id": 1}, "r1": None}, "errors": [error("Taken.", "r1")]}
    assert statuses(tell(api(), document, 2, status=400)) == [Status.CREATED, Status.REJECTED]


def test_errors_inside_the_payload() -> None:
    """As Shopify has them: an error that is data."""
    text = "mutation ($i: In!) { productSet(input: $i) { product { id } userErrors { code message } } }"
    answered = {
        "id": "product.id",
        "error": "userErrors",
        "code": "userErrors[0].code",
        "message": "userErrors[0].message",
    }
    destination = api({"upsert": {"mutation": text, "variables": {"i": "{record}"}, "rows": 50, "answer": answered}})
    taken = {"product": None, "userErrors": [{"code": "TAKEN", "message": "Handle is taken."}]}
    document = {"data": {"r0": {"product": {"id": "gid://1"}, "userErrors": []}, "r1": taken, "r2": {"userErrors": []}}}
    outcomes = tell(destination, document)
    assert statuses(outcomes) == [Status.CREATED, Status.REJECTED, Status.UNSENT]
    assert (outcomes[1].code, outcomes[1].reason) == ("TAKEN", "shop says: Handle is taken.")


# Lists


def test_a_list_by_order() -> None:
    destination = api(listed())
    entries = [{"id": 1}, {"id": 2}, {"id": 3}]
    assert statuses(tell(destination, {"data": {"saveAll": entries}})) == [Status.CREATED] * 3
    for short in (entries[:2], [*entries, {"id": 4}], []):
        with pytest.raises(Unavailable):
            tell(destination, {"data": {"saveAll": short}})


def test_errors_of_entries_of_a_list() -> None:
    document = {
        "data": {"saveAll": [{"id": 1}, None, None, {"id": 4}]},
        "errors": [error("Taken.", "saveAll", 2, code="TAKEN"), error("Broken id.", "saveAll", 1, "id")],
    }
    outcomes = tell(api(listed()), document, 4)
    assert statuses(outcomes) == [Status.CREATED, Status.UNSENT, Status.REJECTED, Status.CREATED]
    assert outcomes[2].code == "TAKEN"
    everything = {"data": {"saveAll": [None, None]}, "errors": [error("Taken.", "saveAll", p) for p in (1, 0)]}
    assert statuses(tell(api(listed()), everything, 2)) == [Status.REJECTED] * 2


def test_a_list_further_down() -> None:
    destination = api(listed(answer={"results": "payload.items", "id": "id"}))
    document = {
        "data": {"saveAll": {"payload": {"items": [{"id": 1}, None]}}},
        "errors": [error("Taken.", "saveAll", "payload", "items", 1)],
    }
    assert statuses(tell(destination, document, 2)) == [Status.CREATED, Status.REJECTED]


def test_a_list_by_match_value() -> None:
    destination = api(listed(answer={"results": "@", "by": {"match": "email"}, "id": "id"}))
    entries = [{"email": "r2@example.com", "id": 2}, None, {"email": "r0@example.com", "id": 1}]
    document = {"data": {"saveAll": entries}, "errors": [error("Taken.", "saveAll", 1)]}
    outcomes = tell(destination, document)
    # The entries go by name, so that the place of an error names no row.
    assert statuses(outcomes) == [Status.CREATED, Status.UNSENT, Status.CREATED]


def test_a_list_that_is_refused_as_a_whole() -> None:
    document = {"errors": [error("Email is taken.", "saveAll", code="TAKEN")]}
    with pytest.raises(PoisonedBatch, match="Email is taken"):
        tell(api(listed(atomic=True)), document)
    with pytest.raises(Unavailable, match="atomic: true"):
        tell(api(listed()), document)
    (alone,) = tell(api(listed()), document, 1)
    assert (alone.status, alone.code) == (Status.REJECTED, "TAKEN")


def test_all_rows() -> None:
    destination = api(listed(answer="all_rows"))
    assert statuses(tell(destination, {"data": {"saveAll": []}})) == [Status.CREATED] * 3
    with pytest.raises(Unavailable):
        tell(destination, {"data": {"saveAll": None}})
    with pytest.raises(Unavailable):
        tell(destination, {"data": {"saveAll": []}, "errors": [error("Broken.", "saveAll", 1, "x")]})


def test_an_answer_about_the_whole_request() -> None:
    answered = {"success": "ok", "code": "why.code", "message": "why.text"}
    destination = api(listed(answer=answered, atomic=True))
    assert statuses(tell(destination, {"data": {"saveAll": {"ok": True}}})) == [Status.CREATED] * 3
    with pytest.raises(PoisonedBatch, match="Not so"):
        tell(destination, {"data": {"saveAll": {"ok": False, "why": {"code": "NO", "text": "Not so."}}}})
    with pytest.raises(Unavailable):
        tell(destination, {"data": {"saveAll": {"ok": None}}})


# Looking records up first

SEARCHED: dict[str, Any] = {
    "upsert": None,
    "search": {
        "query": "query ($emails: [String!]!) { people(emails: $emails) { nodes { id email } } }",
        "variables": {"emails": "{matches}"},
        "records": "nodes",
        "by": {"match": "email"},
        "id": "id",
    },
    "create": {"mutation": LIST, "variables": {"inputs": "{rows}"}, "answer": {"results": "@", "id": "id"}},
    "update": {
        "mutation": "mutation ($id: ID!, $input: In!) { change(id: $id, input: $input) { id } }",
        "variables": {"id": "{id}", "input": "{record}"},
        "rows": 10,
        "answer": {"id": "id"},
        "errors": {"NOT_FOUND": "missing"},
    },
}


def test_search_then_create_or_update() -> None:
    destination = api(SEARCHED)
    found = answer(200, {"data": {"people": {"nodes": [{"id": "50", "email": "r1@example.com"}]}}})
    created = answer(200, {"data": {"saveAll": [{"id": "60"}, {"id": "62"}]}})
    outcomes, requests = drive(
        destination,
        destination.deliver(batch(rows(3))),
        [found, created, answer(200, {"data": {"change": {"id": "50"}}})],
    )
    assert [(o.status, o.destination_id) for o in outcomes] == [
        (Status.CREATED, "60"), (Status.UPDATED, "50"), (Status.CREATED, "62"),
    ]  # fmt: skip
    assert body_of(requests[0])["variables"] == {"emails": ["r0@example.com", "r1@example.com", "r2@example.com"]}
    assert body_of(requests[2])["variables"] == {"id": "50", "input": rows(3)[1].payload}
    assert requests[0].changes_nothing
    assert not requests[1].changes_nothing
    assert destination.repeat("contacts", Action.UPSERT) is Repeat.WHEN_QUIET


def test_a_search_that_is_answered_in_part_finds_nothing_absent() -> None:
    """Records that an error has left out would be created twice."""
    destination = api(SEARCHED)
    document = {
        "data": {"people": {"nodes": []}},
        "errors": [error("Half of it is down.", "people", "nodes", code="DOWN")],
    }
    with pytest.raises(DestinationError, match="Half of it is down"):
        drive(destination, destination.deliver(batch(rows(2))), [answer(200, document)])
    none: list[dict[str, Any]] = [{"data": {"people": None}}, {"data": None}, {}, {"data": {"people": {}}}]
    for garbage in none:
        with pytest.raises(Unavailable):
            drive(destination, destination.deliver(batch(rows(2))), [answer(200, garbage)])


def test_a_known_record_that_is_gone() -> None:
    destination = api(SEARCHED)
    known = [row(0, action=Action.UPDATE, destination_id="50"), row(1, action=Action.UPDATE, destination_id="51")]
    document = {"data": {"r0": None, "r1": {"id": "51"}}, "errors": [error("Not there.", "r0", code="NOT_FOUND")]}
    outcomes = tell(destination, document, given=known)
    assert [(o.status, o.code) for o in outcomes] == [(Status.REJECTED, GONE), (Status.UPDATED, outcomes[1].code)]


def test_rows_in_doubt_are_looked_up() -> None:
    destination = api(SEARCHED)
    assert destination.can_verify("contacts", ("email",))
    found = answer(200, {"data": {"people": {"nodes": [{"id": "50", "email": "r1@example.com"}]}}})
    outcomes, _ = drive(destination, destination.verify(batch(rows(2, Action.CREATE))), [found])
    assert outcomes[0] is None
    assert outcomes[1] is not None
    assert (outcomes[1].status, outcomes[1].destination_id) == (Status.CREATED, "50")


def test_what_may_be_repeated() -> None:
    create = {"create": listed()["upsert"]}
    assert api(create).repeat("contacts", Action.CREATE) is Repeat.NEVER
    assert api(create).repeat("contacts", Action.UPSERT) is Repeat.ALWAYS
    text = "mutation ($key: ID!, $inputs: [In!]!) { saveAll(key: $key, inputs: $inputs) { id } }"
    variables = {"inputs": "{rows}", "key": "{idempotency_key}"}
    keyed = {"create": {**listed()["upsert"], "repeat": "with_key", "mutation": text, "variables": variables}}
    destination = api(keyed)
    assert destination.repeat("contacts", Action.CREATE) is Repeat.WITH_KEY
    sent = batch(rows(1, Action.CREATE))
    _, (request,) = drive(destination, destination.deliver(sent), [answer(200, {"data": {"saveAll": [{"id": 1}]}})])
    assert body_of(request)["variables"]["key"] == sent.idempotency_key


# Attribution

FATES = st.sampled_from(["accepted", "refused", "null", "below", "absent"])


@given(st.lists(FATES, min_size=2, max_size=30), st.randoms(use_true_random=False))
def test_each_row_gets_its_own_outcome(fates: list[str], dice: random.Random) -> None:
    """Whatever the order of data and errors: a row succeeds only by its own result, and is refused by its own error."""
    data: list[tuple[str, Any]] = []
    errors = []
    for place, fate in enumerate(fates):
        if fate == "accepted":
            data.append((f"r{place}", {"id": f"id{place}"}))
        elif fate != "absent":
            data.append((f"r{place}", None))
        if fate == "refused":
            errors.append(error(f"Row {place}.", f"r{place}", code=f"C{place}"))
        if fate == "below":
            errors.append(error("Broken.", f"r{place}", "id"))
    dice.shuffle(data)
    dice.shuffle(errors)
    document = {"data": dict(data), "errors": errors}
    if not {"accepted", "refused"} & set(fates):
        with pytest.raises(Unavailable):
            tell(api(), document, len(fates))
        return
    for place, (fate, outcome) in enumerate(zip(fates, tell(api(), document, len(fates)), strict=True)):
        if fate == "accepted":
            assert outcome.status is Status.CREATED
        elif fate == "refused":
            assert (outcome.status, outcome.code) == (Status.REJECTED, f"C{place}")
            assert outcome.reason == f"shop says: Row {place}."
        else:
            assert (outcome.status, outcome.code) == (Status.UNSENT, NO_ANSWER)
