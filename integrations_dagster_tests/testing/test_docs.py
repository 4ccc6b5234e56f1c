"""docs/writing_a_destination.md: its example works, and its table is of the checks that there are."""

from __future__ import annotations

import re
import types
from pathlib import Path

from integrations_dagster.testing.conformance import CHECKS, results
from integrations_dagster_tests.testing.notes import NotesSubject

PAGE = (Path(__file__).parents[2] / "docs" / "writing_a_destination.md").read_text("utf-8")


def test_the_example_conforms() -> None:
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "(Destination)" in block)
    module = types.ModuleType("example")
    exec(compile(code, "writing_a_destination.md", "exec"), vars(module))
    done = list(results(NotesSubject(module.Notes), seeds=(0,)))
    assert [result.line for result in done if result.outcome in ("failed", "broken")] == []
    assert sum(result.outcome == "passed" for result in done) >= 25


def test_the_table_of_checks_is_whole() -> None:
    rows = [f"| `{check.name}` | {check.promise} |" for check in CHECKS]
    begin = PAGE.splitlines().index(rows[0])
    assert PAGE.splitlines()[begin : begin + len(rows)] == rows, "paste the checks' names and promises"
