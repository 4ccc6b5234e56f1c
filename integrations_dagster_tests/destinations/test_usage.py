"""What headers say of quotas and waits, in every form that APIs use; nothing they hold may break it."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations_dagster.destinations.base import Response, Usage
from integrations_dagster.destinations.error_table import ErrorEntry, Problem, asked_wait, raise_for
from integrations_dagster.destinations.errors import Throttled
from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.destinations.usage import usage

NOON = 1785585600.0
DATE = format_datetime(datetime.fromtimestamp(NOON, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Sat, 01 Aug 2026 12:00:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Sat, 01 Aug 2026 11:00:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Sat, 01 Aug 2026 12:00:30 GMT"}, None),
        ({"x-ratelimit-retry-after": "12"}, 12.0),
        ({"retry-after": "3", "x-ratelimit-retry-after": "12"}, 3.0),
        ({"retry-after": "soon", "x-ratelimit-retry-after": "12"}, 12.0),
        ({"x-ratelimit-reset": str(int(NOON) + 9), "date": DATE}, 9.0),
        ({"x-ratelimit-reset": str(int(NOON) - 9), "date": DATE}, 0.0),
        ({"x-ratelimit-reset": str(int(NOON * 1000) + 1500), "date": DATE}, 1.5),
        ({"x-ratelimit-reset": str(int(NOON) + 9)}, None),
        ({"x-ratelimit-reset": "8"}, 8.0),
        ({"x-ratelimit-reset": "8", "x-ratelimit-remaining": "0"}, 8.0),
        ({"x-ratelimit-reset": "8", "x-ratelimit-remaining": "5"}, None),
        ({"ratelimit-reset": "4"}, 4.0),
        ({"ratelimit-reset": "4", "ratelimit-remaining": "3"}, None),
        ({}, None),
    ],
)
def test_the_asked_wait(headers: dict[str, str], wait: float | None) -> None:
    assert asked_wait(headers) == wait


def test_without_a_date_the_callers_clock_is_used() -> None:
    assert asked_wait({"x-ratelimit-reset": str(int(NOON) + 9)}, NOON) == 9.0
    assert asked_wait({"retry-after": "Sat, 01 Aug 2026 12:00:30 GMT"}, NOON) == 30.0


def test_a_wait_that_the_vendor_never_says_is_in_the_table() -> None:
    table = [ErrorEntry("429", Throttled, "Too many requests.", wait=30.0)]
    for said, expected in [(None, 30.0), (5.0, 5.0)]:
        with pytest.raises(Throttled) as caught:
            raise_for(table, "The vendor", Problem(429, wait=said))
        assert caught.value.wait == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {"ratelimit-limit": "100", "ratelimit-remaining": "7", "ratelimit-reset": "3"},
            (Usage(None, 100, 7, 3.0),),
        ),
        (
            {"ratelimit-limit": "10", "ratelimit-remaining": "0", "ratelimit-policy": "100;w=10, 10;w=1"},
            (Usage(1.0, 10, 0, None),),
        ),
        ({"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "2"}, (Usage(60.0, 100, 2, None),)),
        (
            {"x-ratelimit-limit": "50", "x-ratelimit-reset": str(int(NOON) + 2), "date": DATE},
            (Usage(None, 50, None, 2.0),),
        ),
        ({"x-ratelimit-remaining": "5"}, (Usage(None, None, 5, None),)),
        ({"ratelimit-limit": "0", "ratelimit-remaining": "many"}, ()),
        ({"ratelimit-reset": "3"}, ()),
    ],
)
def test_usage(headers: dict[str, str], expected: tuple[Usage, ...]) -> None:
    assert usage(headers) == expected


def test_hubspots_usage_names_each_window() -> None:
    headers = {
        "x-hubspot-ratelimit-max": "190",
        "x-hubspot-ratelimit-remaining": "12",
        "x-hubspot-ratelimit-interval-milliseconds": "10000",
        "x-hubspot-ratelimit-daily": "650000",
        "x-hubspot-ratelimit-daily-remaining": "649000",
        "x-hubspot-ratelimit-secondly": "19",
        "x-hubspot-ratelimit-secondly-remaining": "18",
    }
    assert HubSpot().usage(Response(200, headers)) == (
        Usage(10.0, 190, 12),
        Usage(1.0, 19, 18),
        Usage(86_400.0, 650_000, 649_000),
    )
    assert HubSpot().usage(Response(200)) == ()


NAMES = [
    *("date", "retry-after", "x-ratelimit-retry-after"),
    *(f"{prefix}ratelimit-{name}" for prefix in ("", "x-") for name in ("limit", "remaining", "reset", "policy")),
    *(f"x-hubspot-ratelimit-{name}" for name in ("max", "remaining", "interval-milliseconds", "daily")),
]
VALUES = st.one_of(
    st.text(max_size=30),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["nan", "inf", "-inf", "1e999", "1_0", "١٢", "10;w=0", ";w=", DATE, DATE.replace("2026", "9999")]),
    st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    st.from_regex(
        r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,12} \d\d:\d\d:\d\d ([+-]\d{1,9}|GMT|-0000)", fullmatch=True
    ),
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(headers=st.dictionaries(st.sampled_from(NAMES), VALUES), now=st.none() | st.floats(0, 4e9))
def test_no_header_breaks_it_and_no_wait_is_negative(headers: dict[str, str], now: float | None) -> None:
    wait = asked_wait(headers, now)
    assert wait is None or 0 <= wait < float("inf")
    for found in (*usage(headers, now), *HubSpot().usage(Response(429, headers))):
        assert found.seconds is None or found.seconds > 0
        assert found.limit is None or found.limit > 0
        assert found.remaining is None or found.remaining >= 0
        assert found.reset is None or 0 <= found.reset < float("inf")
