"""HubSpot's error table: every line, by an answer that it decides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integrations_dagster.destinations.base import Request, Response
from integrations_dagster.destinations.error_table import RECOVERIES
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    Refused,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.destinations.hubspot.errors import TABLE, problem_of
from integrations_dagster_tests.destinations.flows import answer

HUBSPOT = HubSpot()
REQUEST = Request("POST", "/crm/v3/objects/contacts/batch/upsert", b"{}")


def said(category: str, message: str, **more: Any) -> dict[str, Any]:
    return {"status": "error", "message": message, "correlationId": "c-1", "category": category, **more}


def property_error(code: str, name: str, message: str) -> dict[str, Any]:
    embedded = json.dumps([{"isValid": False, "message": message, "error": code, "name": name}])
    return said("VALIDATION_ERROR", f"Property values were not valid: {embedded}")


SCOPES = [
    {
        "message": "One or more of the following scopes are required.",
        "context": {"requiredGranularScopes": ["crm.objects.contacts.write"]},
    }
]
DAILY = {
    "status": "error",
    "message": "You have reached your daily limit.",
    "errorType": "RATE_LIMIT",
    "correlationId": "c-1",
    "policyName": "DAILY",
}
HTML = Response(503, {"content-type": "text/html"}, b"<html>Service unavailable</html>")

# answer, class, part of the reason, code
CASES: list[tuple[Response, type[DestinationError], str, str]] = [
    (answer(401, said("INVALID_AUTHENTICATION", "The token expired")), Unauthorized, "token", "INVALID_AUTHENTICATION"),
    (answer(403, said("MISSING_SCOPES", "No", errors=SCOPES)), Refused, "crm.objects.contacts.write", "MISSING_SCOPES"),
    (answer(404, said("OBJECT_NOT_FOUND", "Unknown type")), Refused, "Unknown type", "OBJECT_NOT_FOUND"),
    (answer(413), TooLarge, "larger", "HTTP_413"),
    (answer(423, said("LOCKED", "Locked")), Throttled, "locked", "LOCKED"),
    (answer(429, DAILY), Refused, "today", "DAILY"),
    (answer(429, {**DAILY, "policyName": "SECONDLY"}), Throttled, "second", "SECONDLY"),
    (answer(429, {**DAILY, "policyName": "TEN_SECONDLY_ROLLING"}), Throttled, "limit", "TEN_SECONDLY_ROLLING"),
    (answer(477, said("MIGRATION_IN_PROGRESS", "Migrating")), Refused, "data centre", "MIGRATION_IN_PROGRESS"),
    (
        answer(400, property_error("PROPERTY_DOESNT_EXIST", "shoe_size", 'Property "shoe_size" does not exist')),
        Refused,
        "(shoe_size)",
        "PROPERTY_DOESNT_EXIST",
    ),
    (
        answer(400, property_error("READ_ONLY_VALUE", "hs_score", "read only")),
        Refused,
        "(hs_score)",
        "READ_ONLY_VALUE",
    ),
    (
        answer(400, said("VALIDATION_ERROR", "Unable to perform update/upsert by non-unique 0-2 property name")),
        Refused,
        "not unique",
        "VALIDATION_ERROR",
    ),
    (
        answer(400, said("VALIDATION_ERROR", "The maximum number of inputs supported in a batch request is 100")),
        TooLarge,
        "more rows",
        "VALIDATION_ERROR",
    ),
    (
        answer(400, said("VALIDATION_ERROR", "Duplicate IDs found in batch input: [a]", context={"ids": ["a"]})),
        PoisonedBatch,
        "Duplicate IDs",
        "VALIDATION_ERROR",
    ),
    (answer(409, said("CONFLICT", "Already exists")), PoisonedBatch, "Already exists", "CONFLICT"),
    (answer(408), Unavailable, "in time", "HTTP_408"),
    (answer(418), Refused, "refused", "HTTP_418"),
    (HTML, Unavailable, "out of order", "HTTP_503"),
    (Response(301, {"location": "https://elsewhere"}), Refused, "redirect", "HTTP_301"),
    (Response(199), Unavailable, "understood", "HTTP_199"),
]


@pytest.mark.parametrize(("reply", "recovery", "reason", "code"), CASES)
def test_each_line_recovers_as_it_says(
    reply: Response, recovery: type[DestinationError], reason: str, code: str
) -> None:
    with pytest.raises(DestinationError) as caught:
        HUBSPOT.classify(REQUEST, reply)
    assert type(caught.value) is recovery
    assert reason in caught.value.reason
    assert caught.value.code == code
    assert "<html>" not in caught.value.reason
    if isinstance(caught.value, Refused):
        assert caught.value.remedy


def test_the_cases_reach_every_line_of_the_table() -> None:
    reached = {next(i for i, e in enumerate(TABLE) if e.fits(problem_of(case[0]))) for case in CASES}
    assert reached == set(range(len(TABLE)))


def test_every_line_is_written_for_people() -> None:
    for entry in TABLE:
        assert entry.meaning.endswith(".")
        assert entry.recovery.kind in RECOVERIES
        if entry.recovery in (Refused, Unauthorized):
            assert entry.remedy


@pytest.mark.parametrize("status", [*range(300, 600), 100, 150])
def test_every_status_is_decided(status: int) -> None:
    with pytest.raises(DestinationError):
        HUBSPOT.classify(REQUEST, Response(status))


@pytest.mark.parametrize("status", [200, 201, 204, 207])
def test_a_2xx_is_left_to_the_flow(status: int) -> None:
    HUBSPOT.classify(REQUEST, Response(status))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"text"', b"null", b'{"errors": 5, "context": 3}', b'{"a'])
@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_an_error_in_any_shape_is_decided_by_its_status(status: int, body: bytes) -> None:
    with pytest.raises(DestinationError) as caught:
        HUBSPOT.classify(REQUEST, Response(status, {}, body))
    assert str(status) in caught.value.code


@pytest.mark.parametrize(
    ("headers", "policy", "wait"),
    [
        ({"retry-after": "7"}, "TEN_SECONDLY_ROLLING", 7.0),
        ({"retry-after": "0"}, "SECONDLY", 0.0),
        ({"retry-after": "2.5"}, "", 2.5),
        (
            {"retry-after": "Sat, 01 Aug 2026 12:00:30 GMT", "date": "Sat, 01 Aug 2026 12:00:00 GMT"},
            "TEN_SECONDLY_ROLLING",
            30.0,
        ),
        (
            {"retry-after": "Sat, 01 Aug 2026 11:00:00 GMT", "date": "Sat, 01 Aug 2026 12:00:00 GMT"},
            "TEN_SECONDLY_ROLLING",
            0.0,
        ),
        ({"retry-after": "Sat, 01 Aug 2026 12:00:30 GMT"}, "TEN_SECONDLY_ROLLING", None),
        ({"retry-after": "soon"}, "TEN_SECONDLY_ROLLING", None),
        ({"retry-after": "nan"}, "TEN_SECONDLY_ROLLING", None),
        ({"retry-after": "inf"}, "TEN_SECONDLY_ROLLING", None),
        ({}, "TEN_SECONDLY_ROLLING", None),
        ({}, "SECONDLY", 1.0),
    ],
)
def test_a_throttle_waits_as_told(headers: dict[str, str], policy: str, wait: float | None) -> None:
    body = json.dumps({**DAILY, "policyName": policy}).encode()
    with pytest.raises(Throttled) as caught:
        HUBSPOT.classify(REQUEST, Response(429, headers, body))
    assert caught.value.wait == wait


def test_the_lock_is_waited_out_for_two_seconds() -> None:
    with pytest.raises(Throttled) as caught:
        HUBSPOT.classify(REQUEST, Response(423))
    assert caught.value.wait == 2.0


def test_a_wait_of_hours_stops_the_run_and_says_when_to_come_back() -> None:
    with pytest.raises(Refused) as caught:
        HUBSPOT.classify(REQUEST, answer(477, retry_after="36000"))
    assert "10.0 hours" in caught.value.remedy


def test_what_concerns_every_row_decides_over_what_concerns_one() -> None:
    errors = [
        {"message": "Email x is invalid", "code": "INVALID_EMAIL", "context": {"propertyName": ["email"]}},
        {"message": "no such", "code": "PROPERTY_DOESNT_EXIST", "context": {"propertyName": ["b"]}},
        {"message": "no such", "code": "PROPERTY_DOESNT_EXIST", "context": {"propertyName": ["a"]}},
    ]
    with pytest.raises(Refused) as caught:
        HUBSPOT.classify(REQUEST, answer(400, said("VALIDATION_ERROR", "Not valid", errors=errors)))
    assert "(b, a)" in caught.value.reason
    assert caught.value.code == "PROPERTY_DOESNT_EXIST"


def test_the_request_id_comes_from_the_body_or_the_header() -> None:
    assert problem_of(answer(500, said("X", "y"), x_hubspot_correlation_id="h-1")).request_id == "c-1"
    assert problem_of(Response(500, {"x-hubspot-correlation-id": "h-1"}, b"<html>")).request_id == "h-1"


def test_long_messages_are_shortened() -> None:
    assert len(problem_of(answer(400, said("VALIDATION_ERROR", "x" * 5000))).message) == 300


def test_a_broken_embedded_list_is_read_as_a_message() -> None:
    problem = problem_of(answer(400, said("VALIDATION_ERROR", 'Property values were not valid: [{"isValid":fal')))
    assert problem.codes == ("VALIDATION_ERROR",)
    assert problem.message.startswith("Property values were not valid")
