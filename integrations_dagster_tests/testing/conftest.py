"""Which of the suite's cases are run each time, and which with the slow tests."""

from __future__ import annotations

from collections import defaultdict

import pytest

from integrations_dagster.testing.conformance import Case
from integrations_dagster.testing.lab import instance
from integrations_dagster.testing.plugin import ConformanceTests
from integrations_dagster.vocabulary import Action


def _of_suite(item: pytest.Item) -> tuple[type[ConformanceTests], Case] | None:
    cls, callspec = getattr(item, "cls", None), getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec is not None else None
    if isinstance(case, Case) and cls is not None and issubclass(cls, ConformanceTests):
        return cls, case
    return None


def _tells(case: Case) -> bool:
    """False where the check has nothing to say of the action: that case is never the one that is run each time."""
    if case.check.name == "missing_records":
        return Action.MODIFY in case.arguments or Action.DELETE in case.arguments
    return not (Action.DELETE in case.arguments and case.check.name in _OF_CONTENT)


_OF_CONTENT = frozenset({"partial_failure", "all_rejected", "unicode", "nulls"})
"""Checks of what rows say, or of rows that are rejected for it; a deletion says nothing."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every subject passes every check each time, for one of its modes, actions and seeds; the others are slow.

    From check to check it is the next one's turn, so that none is left to the slow tests alone. What is known to say
    nothing of the subject, without a server, is left out.
    """
    groups: defaultdict[tuple[type[ConformanceTests], str], list[pytest.Item]] = defaultdict(list)
    useless: list[pytest.Item] = []
    # Where requests go by another way, the suite cannot stand between.
    spoken: dict[type[ConformanceTests], bool] = {}
    for item in items:
        found = _of_suite(item)
        if found is None:
            continue
        cls, case = found
        if cls not in spoken:
            spoken[cls] = instance(cls.subject).transport == "http"
        if case.check.name in cls.subject.skip or (case.check.proxied and not spoken[cls]):
            useless.append(item)
        else:
            groups[cls, case.check.name].append(item)
    turns: defaultdict[type[ConformanceTests], int] = defaultdict(int)
    for (cls, _), group in groups.items():
        telling = [item for item in group if _tells(item.callspec.params["case"])] or group  # type: ignore[attr-defined]
        chosen = telling[turns[cls] % len(telling)]
        turns[cls] += len(telling) > 1
        for item in group:
            if item is not chosen:
                item.add_marker(pytest.mark.slow)
    if useless:
        config.hook.pytest_deselected(items=useless)
        left_out = set(map(id, useless))
        items[:] = [item for item in items if id(item) not in left_out]
