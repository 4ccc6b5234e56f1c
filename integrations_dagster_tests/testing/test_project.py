"""Every destination of the project that the sandbox stands in for passes the conformance suite.

A destination whose server is another (a test server, installed software) has a file of its own beside this one: a
subject and one line.
"""

from __future__ import annotations

import pytest

from integrations_dagster.testing import conformance_tests
from integrations_dagster_tests.testing.subjects import (
    Companies,
    Contacts,
    Hook,
    Inserts,
    Jobs,
    KeyedInserts,
    SalesforceContacts,
)

TestContacts = conformance_tests(Contacts())
# The same flows as contacts, matched by another property.
TestCompanies = pytest.mark.slow(conformance_tests(Companies()))
TestSalesforceContacts = conformance_tests(SalesforceContacts())
TestHook = conformance_tests(Hook())
# The sandbox's own kinds: that they lose and double nothing, the tests of faults see each time.
TestInserts = pytest.mark.slow(conformance_tests(Inserts()))
TestKeyedInserts = pytest.mark.slow(conformance_tests(KeyedInserts()))
TestJobs = pytest.mark.slow(conformance_tests(Jobs()))
