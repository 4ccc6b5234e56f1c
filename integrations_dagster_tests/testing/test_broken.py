"""The suite sees what is wrong with a destination: each that is broken on purpose fails its checks, and no others."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from integrations_dagster.testing import conformance_tests, results
from integrations_dagster_tests.testing.broken import EXPECTED, NeverWaits
from integrations_dagster_tests.testing.notes import Looking, Notes, NotesSubject

TestNotes = conformance_tests(NotesSubject())
TestLooking = pytest.mark.slow(conformance_tests(NotesSubject(Looking)))


def failed_by(broken: type[Notes], only: Sequence[str] = ()) -> set[str]:
    """The cases that a broken destination fails, the seed left out."""
    # A throttled account is slowed down for a moment in any case: what was not waited for must be longer.
    done = list(results(NotesSubject(broken, 2.0 if broken is NeverWaits else 0.2), seeds=(0,), only=only))
    assert not [result.message for result in done if result.outcome == "broken"]
    failed = {re.sub(r"-\d+(?=\])", "", result.case.id) for result in done if result.outcome == "failed"}
    # What failed says what to change.
    assert all(len(result.message) > 40 for result in done if result.outcome == "failed")
    return failed


@pytest.mark.parametrize("broken", EXPECTED, ids=lambda cls: cls.__name__)
def test_what_is_broken_is_seen(broken: type[Notes]) -> None:
    assert failed_by(broken, [case.partition("[")[0] for case in EXPECTED[broken]]) == EXPECTED[broken]


@pytest.mark.slow
@pytest.mark.parametrize("broken", EXPECTED, ids=lambda cls: cls.__name__)
def test_a_broken_destination_fails_what_it_should_and_no_more(broken: type[Notes]) -> None:
    assert failed_by(broken) == EXPECTED[broken]
