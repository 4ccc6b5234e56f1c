"""The checks as tests of pytest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from integrations_dagster.testing.checks import Failed, Skipped
from integrations_dagster.testing.conformance import Case, cases
from integrations_dagster.testing.lab import Bench, opened
from integrations_dagster.testing.subject import Subject
from integrations_dagster.testing.todo import unfilled


class ConformanceTests:
    """Tests of one subject; made by `tests_of`."""

    subject: ClassVar[Subject]

    @pytest.fixture(scope="class")
    @classmethod
    def conformance_bench(cls) -> Iterator[Bench]:
        """The subject's server, once for all its tests."""
        with opened(cls.subject) as bench:
            yield bench


def tests_of(subject: Subject, seeds: Sequence[int]) -> type[ConformanceTests]:
    """A class with one test for each case of a subject."""
    left = unfilled(subject)
    if left:
        return _unfilled(subject, left)
    found = cases(subject, seeds)

    @pytest.mark.parametrize("case", found, ids=[case.id for case in found])
    def test_conformance(self: ConformanceTests, conformance_bench: Bench, case: Case) -> None:  # noqa: ARG001
        skipped = failed = ""
        try:
            case.run(conformance_bench)
        except Skipped as error:
            skipped = str(error)
        except Failed as error:
            failed = str(error)
        if skipped:
            pytest.skip(skipped)
        if failed:
            pytest.fail(f"{case.id}: {failed}\n\nPromised: {case.check.promise}", pytrace=False)

    return type(f"Test{subject.name}", (ConformanceTests,), {"subject": subject, "test_conformance": test_conformance})


def _unfilled(subject: Subject, left: Sequence[str]) -> type[ConformanceTests]:
    def test_everything_is_filled_in(self: ConformanceTests) -> None:  # noqa: ARG001
        told = "\n".join(f"- {what}" for what in left)
        pytest.fail(f"{subject.name} cannot be tested yet. To do:\n{told}", pytrace=False)

    members = {"subject": subject, "test_everything_is_filled_in": test_everything_is_filled_in}
    return type(f"Test{subject.name}", (ConformanceTests,), members)
