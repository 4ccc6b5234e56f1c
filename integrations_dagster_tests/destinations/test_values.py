from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from integrations_dagster.destinations.values import canonical_json, json_value

ID = UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize("seed", [20260801])
def test_canonical_json_does_not_depend_on_the_order_of_keys(seed: int) -> None:
    rng = random.Random(seed)
    payload = {f"k{i}": {"b": i, "a": [i, str(i)]} for i in range(50)}
    first = canonical_json(payload)
    for _ in range(20):
        items = list(payload.items())
        rng.shuffle(items)
        assert canonical_json(dict(items)) == first
    assert json.loads(first) == payload


def test_canonical_json_is_compact_utf_8() -> None:
    assert canonical_json({"b": "שלום 𝒳", "a": 1}) == '{"a":1,"b":"שלום 𝒳"}'.encode()


@pytest.mark.parametrize("payload", [{"a": float("nan")}, {"a": [float("inf")]}])
def test_canonical_json_refuses_what_is_not_a_number(payload: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(payload)


def test_canonical_json_refuses_half_a_surrogate_pair_without_quoting_the_row() -> None:
    with pytest.raises(ValueError, match="surrogate") as caught:
        canonical_json({"name": "secret\ud83d"})
    assert "secret" not in str(caught.value)
    # UnicodeEncodeError is a ValueError too, and its text would quote the row.
    assert type(caught.value) is ValueError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (2**53 - 1, 2**53 - 1),
        (-(2**53) + 1, -(2**53) + 1),
        (2**53, "9007199254740992"),
        (-(2**53), "-9007199254740992"),
        (1.5, 1.5),
        ("é", "é"),
        (Decimal("10.10"), "10.10"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-7"), "0.0000001"),
        (date(2026, 8, 1), "2026-08-01"),
        (time(7, 30), "07:30:00"),
        (datetime(2026, 8, 1, 12, tzinfo=UTC), "2026-08-01T12:00:00Z"),
        (datetime(2026, 8, 1, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=2))), "2026-08-01T10:00:00.000005Z"),
        (datetime(2026, 8, 1, 12), "2026-08-01T12:00:00Z"),  # noqa: DTZ001
        (ID, str(ID)),
        ({"a": [Decimal("1.0"), None, {"b": date(2026, 8, 1)}]}, {"a": ["1.0", None, {"b": "2026-08-01"}]}),
        ({1: True, None: 2}, {"1": True, "null": 2}),
        ([("k", 1)], [["k", 1]]),
    ],
)
def test_json_value_keeps_values_exact(value: Any, expected: Any) -> None:
    encoded = json_value(value)
    assert encoded == expected
    assert type(encoded) is type(expected)
    assert json.loads(canonical_json(encoded)) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "not a number"),
        (float("-inf"), "not a number"),
        (Decimal("NaN"), "not a number"),
        (b"x", "Binary"),
        ([b"x"], "Binary"),
        (timedelta(days=1), "Intervals"),
        (object(), "type object"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), "outside the years"),
    ],
)
def test_json_value_refuses_with_a_reason(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        json_value(value)
