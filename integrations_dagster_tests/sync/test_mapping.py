"""Column values to Python values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations_dagster.sync.columns import _values

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (a timestamp without a zone)


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@settings(deadline=None)
@given(moments=st.lists(st.none() | st.datetimes()))
def test_timestamps_come_back_as_they_were(zone: str | None, moments: list[datetime | None]) -> None:
    """What pyarrow would say, but for the zone: an instant with a zone is told in UTC."""
    counts = [None if moment is None else (moment - EPOCH) // timedelta(microseconds=1) for moment in moments]
    column = pa.array(counts, pa.int64()).cast(pa.timestamp("us", zone))
    aware = [None if m is None else m.replace(tzinfo=UTC) for m in moments]
    assert _values(column) == (aware if zone else moments)


def test_a_time_that_python_cannot_hold_is_an_error_of_its_row() -> None:
    column = pa.array([0, 2**62], pa.int64()).cast(pa.timestamp("us"))
    first, second = _values(column)
    assert first == EPOCH
    assert isinstance(second, ValueError)
