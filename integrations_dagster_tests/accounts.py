"""What must hold for the account of every run, whatever was tested: checked after each test (see `conftest.py`)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

FOUND_WITHOUT_REQUEST = ("unchanged", "invalid")


def check_accounts(folder: Path, checked: set[Path]) -> None:
    """Check every account below a folder that has not been checked yet.

    Raises:
        AssertionError: One does not add up, or does not agree with the sync log beside it.
    """
    for path in folder.rglob("log/*/report.json"):
        if path not in checked:
            checked.add(path)
            check_account(path)


def check_account(path: Path) -> None:
    """Check the account of one run against itself and against the sync log in its folder."""
    account = json.loads(path.read_text("utf-8"))
    counts: dict[str, int] = account["counts"]
    outcomes: dict[str, int] = account["outcomes"]
    assert all(count >= 0 for count in [*counts.values(), *outcomes.values()]), account
    parts = ("added", "changed", "unchanged", "invalid", "held", "excluded")
    assert counts["queried"] == sum(counts[part] for part in parts), counts
    assert sum(outcomes.values()) == account["candidates"], account
    sent = account["candidates"] - sum(outcomes.get(name, 0) for name in FOUND_WITHOUT_REQUEST)
    assert sent == counts["added"] + counts["changed"] + counts["removed"], account
    assert "do not add up" not in " ".join(account["failures"]), account["failures"]
    logged = outcomes_logged(path.parent)
    if logged is not None:
        for status in ("created", "updated", "deleted", "in_doubt"):
            assert outcomes.get(status, 0) == logged[status], (status, outcomes, logged)
        # A row that was never put into a batch, or that waited for another one, is in no batch's log.
        for status in ("rejected", "unsent"):
            assert outcomes.get(status, 0) >= logged[status], (status, outcomes, logged)


def outcomes_logged(folder: Path) -> Counter[str] | None:
    """Rows of a run's sync log by their last outcome; None where late answers say something else of some."""
    last: dict[tuple[int, int], tuple[int, str]] = {}
    for path in sorted(folder.glob("rows-*.parquet")):
        columns = ["shard", "ordinal", "number", "outcome", "late"]
        rows: list[dict[str, Any]] = pq.read_table(path, columns=columns).to_pylist()
        for row in rows:
            if row["late"]:
                return None
            if row["shard"] >= 0:
                row_id = (row["shard"], row["ordinal"])
                last[row_id] = max(last.get(row_id, (-1, "")), (row["number"], row["outcome"]))
    return Counter(outcome for _, outcome in last.values())
