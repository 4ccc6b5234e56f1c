"""What HubSpot can do, what it refuses when the YAML is loaded, and how values are written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from integrations_dagster.destinations.hubspot import HubSpot
from integrations_dagster.vocabulary import Action, Misconfigured, Mode

HUBSPOT = HubSpot()


@pytest.mark.parametrize(
    ("object_", "match"),
    [("contacts", "email"), ("contacts", "customer_ref"), ("companies", "company_ref")],
)
@pytest.mark.parametrize("mode", [Mode.UPSERT, Mode.MIRROR])
def test_good_syncs_are_accepted(object_: str, match: str, mode: Mode) -> None:
    HUBSPOT.check(object_, mode, [match], [match, "firstname", "hs_lead_status", "hs_language"])


@pytest.mark.parametrize(
    ("object_", "mode", "match", "fields", "says"),
    [
        ("contact", Mode.UPSERT, ["email"], [], "Did you mean 'contacts'?"),
        ("tickets", Mode.UPSERT, ["id"], [], "contacts, companies"),
        ("contacts", Mode.APPEND, ["email"], [], "mirror, upsert"),
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


def test_limits_normalization_and_repeatability() -> None:
    for action in Action:
        assert HUBSPOT.limits("contacts", action).rows == 100
        assert HUBSPOT.repeatable("contacts", action)
    assert HUBSPOT.match_normalization("contacts", "email") == "trim_lower"
    assert HUBSPOT.match_normalization("contacts", "customer_ref") == "trim"
    assert HUBSPOT.match_normalization("companies", "company_ref") == "trim"
