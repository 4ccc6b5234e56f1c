"""The checks that draw, with many seeds."""

from __future__ import annotations

import pytest

from integrations_dagster.testing import results
from integrations_dagster.testing.subject import Subject
from integrations_dagster_tests.testing.subjects import (
    Companies,
    Contacts,
    Inserts,
    Jobs,
    KeyedInserts,
    SalesforceContacts,
)

# Forty seeds of several actions: minutes on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


SUBJECTS = (Contacts(), Companies(), SalesforceContacts(), Inserts(), KeyedInserts(), Jobs())


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_partial_failures_in_many_places(subject: Subject) -> None:
    done = list(results(subject, range(40), only=("partial_failure",)))
    assert {result.line for result in done if result.outcome not in ("passed", "skipped")} == set()
    assert sum(result.outcome == "passed" for result in done) >= 40
