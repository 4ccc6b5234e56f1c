"""The checks as tests of pytest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from integrations_dagster.testing.checks import Failed, Skipped
from integrations_dagster.testing.conformance import Case, cases
from integrations_dagster.testing.lab import Bench, opened
from integrations_dagster.testing.subject import Subject


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
    found = cases(subject, seeds)

    @pytest.mark.parametrize("case", found, ids=[case.id for case in found])
    def test_conformance(self: ConformanceTests, conformance_bench: Bench, case: Case) -> None:  # noqa: ARG001
        __tracebackhide__ = True
        try:
            case.run(conformance_bench)
        except Skipped as skipped:
            pytest.skip(str(skipped))
        except Failed as failed:
            pytest.fail(f"{case.id}: {failed}\n\nPromised: {case.check.promise}", pytrace=False)

    return type(f"Test{subject.name}", (ConformanceTests,), {"subject": subject, "test_conformance": test_conformance})
