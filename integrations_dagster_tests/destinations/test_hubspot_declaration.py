"""What HubSpot can do, what it refuses when the YAML is loaded, and how values are written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from integrations_dagster.destinations.base import AccountLimits, Quota, Repeat, Response
from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.vocabulary import Action, Misconfigured, Mode

HUBSPOT = HubSpot()


@pytest.mark.parametrize(
    ("object_", "match"),
    [("contacts", "email"), ("contacts", "customer_ref"), ("companies", "company_ref")],
)
@pytest.mark.parametrize("mode", [Mode.INSERT, Mode.UPSERT, Mode.MIRROR])
def test_good_syncs_are_accepted(object_: str, match: str, mode: Mode) -> None:
    HUBSPOT.check(object_, mode, [match], [match, "firstname", "hs_lead_status", "hs_language"])


def test_an_insert_needs_no_match() -> None:
    HUBSPOT.check("contacts", Mode.INSERT, [], ["email", "firstname"])
    HUBSPOT.check("companies", Mode.INSERT, ["company_ref"], ["name"])


@pytest.mark.parametrize(
    ("object_", "mode", "match", "fields", "says"),
    [
        ("contact", Mode.UPSERT, ["email"], [], "Did you mean 'contacts'?"),
        ("tickets", Mode.UPSERT, ["id"], [], "contacts, companies"),
        ("contacts", Mode.APPEND, ["email"], [], "delete, insert, mirror, update, upsert"),
        ("contacts", Mode.INSERT, ["email", "phone"], [], "2 are given (email, phone)"),
        ("companies", Mode.INSERT, ["domain"], [], "does not deduplicate companies by domain"),
        ("contacts", Mode.INSERT, [], ["createdate"], "only HubSpot writes createdate"),
        ("contacts", Mode.UPSERT, [], [], "none is given"),
        ("contacts", Mode.UPSERT, ["email", "phone"], [], "2 are given (email, phone)"),
        ("contacts", Mode.UPSERT, ["phone"], [], "two records may have the same value"),
        ("contacts", Mode.UPSERT, ["hs_object_id"], [], "hs_object_id"),
        ("companies", Mode.UPSERT, ["domain"], [], "does not deduplicate companies by domain"),
        ("companies", Mode.UPSERT, ["domain"], [], "hasUniqueValue"),
        ("companies", Mode.UPSERT, ["name"], [], "two records may have the same value"),
        ("companies", Mode.UPSERT, ["hs_object_id"], [], "hasUniqueValue"),
        ("contacts", Mode.UPSERT, ["email"], ["createdate"], "only HubSpot writes createdate"),
        (
            "contacts",
            Mode.UPSERT,
            ["email"],
            ["a", "hs_analytics_source", "hs_object_id"],
            "hs_analytics_source, hs_obj",
        ),
        ("companies", Mode.UPSERT, ["company_ref"], ["hs_lastmodifieddate"], "hs_lastmodifieddate"),
    ],
)
def test_what_hubspot_cannot_do_is_refused(
    object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str], says: str
) -> None:
    with pytest.raises(Misconfigured) as caught:
        HUBSPOT.check(object_, mode, match, fields)
    assert says in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("Zoë 𝒳 שלום", "Zoë 𝒳 שלום"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-12345678901234567890, "-12345678901234567890"),
        (0.1, "0.1"),
        (Decimal("12.340"), "12.340"),
        (Decimal("0E-10"), "0.0000000000"),
        (Decimal("1E+20"), "100000000000000000000"),
        (Decimal("123456789012345678901234567890.123456789"), "123456789012345678901234567890.123456789"),
        (date(2026, 8, 1), "2026-08-01"),
        (datetime(2026, 8, 1, 12, tzinfo=UTC), "2026-08-01T12:00:00.000Z"),
        (datetime(2026, 8, 1, 1, 30, 0, 999999, tzinfo=timezone(timedelta(hours=2))), "2026-07-31T23:30:00.999Z"),
        (datetime(2026, 8, 1, 12), "2026-08-01T12:00:00.000Z"),  # noqa: DTZ001
        (time(7, 30), "07:30:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (["a", 1, None], '["a",1,null]'),
        ({"b": Decimal("1.50"), "a": "é"}, '{"a":"é","b":"1.50"}'),
    ],
)
def test_every_value_is_text(value: Any, expected: str) -> None:
    assert HUBSPOT.encode(value) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "not a number"),
        (float("inf"), "not a number"),
        (Decimal("Infinity"), "not a number"),
        (b"\x00", "Binary"),
        ({"a": b"x"}, "Binary"),
        ([float("nan")], "not a number"),
        (timedelta(1), "Intervals"),
    ],
)
def test_values_without_a_form_are_refused(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        HUBSPOT.encode(value)


def test_a_subclass_is_encoded_as_its_base() -> None:
    class Level(int):
        pass

    class Money(Decimal):
        pass

    assert HUBSPOT.encode(Level(7)) == "7"
    assert HUBSPOT.encode(Money("1.10")) == "1.10"


def test_limits_and_normalization() -> None:
    for action in Action:
        assert HUBSPOT.limits("contacts", action).rows == 100
    assert HUBSPOT.match_normalization("contacts", "email") == "trim_lower"
    assert HUBSPOT.match_normalization("contacts", "customer_ref") == "trim"
    assert HUBSPOT.match_normalization("companies", "company_ref") == "trim"


def test_only_a_create_must_not_be_repeated() -> None:
    assert {action: HUBSPOT.repeat("contacts", action) for action in Action} == {
        Action.CREATE: Repeat.NEVER,
        Action.UPSERT: Repeat.ALWAYS,
        Action.UPDATE: Repeat.ALWAYS,
        Action.MODIFY: Repeat.ALWAYS,
        Action.DELETE: Repeat.ALWAYS,
    }


def test_the_account_is_held_to_the_lowest_published_limit_until_it_says_more() -> None:
    assert HUBSPOT.account_limits() == AccountLimits((Quota(100, 10.0),))


def test_a_row_in_doubt_is_looked_up_by_one_unique_property_only() -> None:
    assert HUBSPOT.can_verify("contacts", ["email"])
    assert HUBSPOT.can_verify("companies", ["company_ref"])
    for match in ([], ["phone"], ["email", "customer_ref"]):
        assert not HUBSPOT.can_verify("contacts", match)


@pytest.mark.parametrize(
    ("reply", "request_id"),
    [
        (Response(200, {"x-hubspot-correlation-id": "h-1"}, b'{"correlationId": "b-1"}'), "h-1"),
        (Response(400, {}, b'{"correlationId": "b-1"}'), "b-1"),
        (Response(200, {}, b"{}"), ""),
        (Response(502, {}, b"<html>"), ""),
    ],
)
def test_hubspots_own_id_of_a_request(reply: Response, request_id: str) -> None:
    assert HUBSPOT.request_id(reply) == request_id
