"""Conformance tests for whoever writes a destination; see docs/writing_a_destination.md.

    from integrations_dagster.testing import Subject, conformance_tests

Importing it does not import pytest; `conformance_tests` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from integrations_dagster.testing.conformance import Case, Result, cases, results, run_checks
from integrations_dagster.testing.subject import CONTROLS, TEXTS, Answer, Subject
from integrations_dagster.testing.todo import described, to_do

if TYPE_CHECKING:
    from integrations_dagster.testing.plugin import ConformanceTests

__all__ = [
    "CONTROLS",
    "TEXTS",
    "Answer",
    "Case",
    "Result",
    "Subject",
    "cases",
    "conformance_tests",
    "described",
    "results",
    "run_checks",
    "to_do",
]


def conformance_tests(subject: Subject, seeds: Sequence[int] = (0, 1)) -> type[ConformanceTests]:
    """The checks as a class of pytest tests; give it a name that pytest collects:

        TestCrm = conformance_tests(Crm())

    Args:
        seeds: Of the checks that draw; more find more.
    """
    from integrations_dagster.testing.plugin import tests_of

    return tests_of(subject, seeds)
