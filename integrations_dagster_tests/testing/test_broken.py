"""The suite sees what is wrong with a destination: each that is broken on purpose fails its checks, and no others."""

from __future__ import annotations

import re

import pytest

from integrations_dagster.testing import conformance_tests, results
from integrations_dagster_tests.testing.broken import (
    EXPECTED,
    ExpiredIsRejected,
    NeverWaits,
    RejectedIsCreated,
    RowsUnlimited,
    ShiftedByOne,
    ThrottledIsRejected,
    Trusts2xx,
    UnreadableIsSuccess,
    UnsafeMarkedSafe,
)
from integrations_dagster_tests.testing.notes import Looking, Notes, NotesSubject

TestNotes = conformance_tests(NotesSubject(), seeds=(0,))
TestLooking = pytest.mark.slow(conformance_tests(NotesSubject(Looking)))
QUICK = (
    ShiftedByOne,
    Trusts2xx,
    UnreadableIsSuccess,
    RowsUnlimited,
    UnsafeMarkedSafe,
    ThrottledIsRejected,
    ExpiredIsRejected,
    RejectedIsCreated,
)
"""Those that are tried each time; the others take as long."""
CASES = [pytest.param(cls, id=cls.__name__, marks=() if cls in QUICK else pytest.mark.slow) for cls in EXPECTED]


@pytest.mark.parametrize("broken", CASES)
def test_a_broken_destination_fails_what_it_should(broken: type[Notes]) -> None:
    # A throttled account is slowed down for a moment in any case: what was not waited for must be longer.
    done = list(results(NotesSubject(broken, 2.0 if broken is NeverWaits else 0.2), seeds=(0,)))
    assert not [result.message for result in done if result.outcome == "broken"]
    failed = {re.sub(r"-\d+(?=\])", "", result.case.id) for result in done if result.outcome == "failed"}
    assert failed == EXPECTED[broken], "\n".join(result.line for result in done if result.outcome == "failed")
    # What failed says what to change.
    assert all(len(result.message) > 40 for result in done if result.outcome == "failed")
