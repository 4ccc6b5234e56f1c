"""docs/writing_a_destination.md: its example works, and its table is of the checks that there are."""

from __future__ import annotations

import re
import types
from pathlib import Path

import pytest

from integrations_dagster.testing.conformance import CHECKS, results
from integrations_dagster_tests.testing.notes import NotesSubject

PAGE = (Path(__file__).parents[2] / "docs" / "writing_a_destination.md").read_text("utf-8")
QUICK = ("all_accepted", "partial_failure", "messages", "end_state", "throttled", "unknown_answers")
"""Checks that the example is put to each time."""


@pytest.mark.parametrize(
    ("only", "least"), [pytest.param(QUICK, 5, id="some"), pytest.param((), 25, id="all", marks=pytest.mark.slow)]
)
def test_the_example_conforms(only: tuple[str, ...], least: int) -> None:
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "(Destination)" in block)
    module = types.ModuleType("example")
    exec(compile(code, "writing_a_destination.md", "exec"), vars(module))
    done = list(results(NotesSubject(module.Notes), seeds=(0,), only=only))
    assert [result.line for result in done if result.outcome in ("failed", "broken")] == []
    assert sum(result.outcome == "passed" for result in done) >= least


def test_the_table_of_checks_is_whole() -> None:
    rows = [f"| `{check.name}` | {check.promise} |" for check in CHECKS]
    begin = PAGE.splitlines().index(rows[0])
    assert PAGE.splitlines()[begin : begin + len(rows)] == rows, "paste the checks' names and promises"
