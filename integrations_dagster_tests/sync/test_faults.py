"""Every fault of the sandbox: after enough runs the destination equals the model, and no run counts a row twice."""

from __future__ import annotations

import random
from typing import Any

import pytest

from integrations_dagster.vocabulary import Mode, Status
from integrations_dagster_tests.sync.harness import Bench

COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"}
BATCHES = "/crm/v3/objects/contacts/batch/*"

# What goes wrong, how often in a row (None: until told otherwise), and whether the run itself gets over it.
FAULTS: list[tuple[str, dict[str, Any], int | None, bool]] = [
    ("latency", {"kind": "latency", "seconds": 0.2}, 2, True),
    ("429 with seconds", {"kind": "status", "status": 429, "retry_after": 1}, 2, True),
    ("429 with a date", {"kind": "status", "status": 429, "retry_after_date": 1}, 1, True),
    ("429 without a hint", {"kind": "status", "status": 429}, 1, True),
    ("500", {"kind": "status", "status": 500}, 2, True),
    ("HTML 503", {"kind": "html", "status": 503}, 2, True),
    ("401 once", {"kind": "unauthorized"}, 1, True),
    ("reset before applying", {"kind": "reset", "applied": False}, 2, True),
    ("reset after applying", {"kind": "reset", "applied": True}, 2, True),
    ("malformed body", {"kind": "malformed"}, 2, True),
    ("truncated body", {"kind": "truncated"}, 2, True),
    ("oversized answer", {"kind": "oversized", "bytes": 40_000_000}, 1, True),
    ("silent empty answer, applied", {"kind": "empty", "applied": True}, 2, True),
    ("silent empty answer, not applied", {"kind": "empty", "applied": False}, 2, True),
    ("hang before applying", {"kind": "hold", "applied": False, "seconds": 8}, 1, True),
    ("hang after applying", {"kind": "hold", "applied": True, "seconds": 8}, 1, True),
    ("down for the whole run", {"kind": "html", "status": 503}, None, False),
    ("every answer lost", {"kind": "reset", "applied": True}, None, False),
    ("every answer silent", {"kind": "empty", "applied": True}, None, False),
]


def people(count: int, version: int) -> list[dict[str, object]]:
    return [{"id": i, "email": f"p{i}@example.com", "firstname": f"Name {i} v{version}"} for i in range(count)]


# One of each recovery; the others, and mode upsert, are in the slow tier.
QUICK = {"429 with seconds", "HTML 503", "401 once", "reset after applying", "truncated body", "down for the whole run"}


@pytest.mark.parametrize("mode", [Mode.MIRROR, pytest.param(Mode.UPSERT, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("fault", "times", "survived"),
    [pytest.param(*f[1:], id=f[0].replace(" ", "-"), marks=() if f[0] in QUICK else pytest.mark.slow) for f in FAULTS],
)
def test_after_enough_runs_the_destination_equals_the_model(
    bench: Bench, fault: dict[str, Any], times: int | None, survived: bool, mode: Mode
) -> None:
    bench.load("people", people(60, 1), COLUMNS)
    model = bench.model("people", "SELECT * FROM people")
    sync = bench.contacts(model, mode, batch_rows=20, removal_limit=1.0, destination=bench.crm(timeout=2.0))
    bench.run(sync)
    kept = 60 if mode is Mode.UPSERT else 55
    changed = [row | {"firstname": f"{row['firstname']}!"} for row in people(kept, 2)]
    bench.load("people", changed, COLUMNS)
    bench.client.faults([{"match": {"path": BATCHES}, "times": times, "fault": fault}])
    broken = bench.run(sync)
    if survived:
        assert broken.failures == ()
    else:
        assert broken.outcomes[Status.UNSENT] > 0
        assert any("HubSpot is unavailable" in failure for failure in broken.failures), broken.failures
        bench.client.clear_faults()
        assert bench.run(sync).failures == ()
    expected = {str(row["email"]): row["firstname"] for row in changed}
    assert bench.emails() == expected
    bench.client.clear_faults()
    assert bench.run(sync).candidates == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_faults_mixed_at_random(bench: Bench, seed: int) -> None:
    print(f"seed {seed}")
    choice = random.Random(seed)
    model = bench.model("people", "SELECT * FROM people")
    sync = bench.contacts(model, Mode.MIRROR, batch_rows=7, removal_limit=1.0, destination=bench.crm(timeout=2.0))
    kinds = [f[1] for f in FAULTS if f[1]["kind"] not in ("latency", "oversized", "hold")]
    rules = [
        {"match": {"path": BATCHES}, "probability": 0.15, "seed": seed * 100 + i, "fault": fault}
        for i, fault in enumerate(choice.sample(kinds, 5))
    ]
    for version in range(4):
        rows = [row for row in people(80, version) if choice.random() < 0.8]
        bench.load("people", rows, COLUMNS)
        bench.client.faults(rules)
        bench.run(sync)
    bench.client.clear_faults()
    assert bench.run(sync).failures == ()
    assert bench.emails() == {row["email"]: row["firstname"] for row in rows}
    assert bench.run(sync).candidates == 0


def test_one_bad_row_does_not_sink_its_batch(bench: Bench) -> None:
    bench.load("people", people(100, 1), COLUMNS)
    model = bench.model("people", "SELECT * FROM people")
    bench.client.faults([{"match": {"path": BATCHES, "rows_with": "p42@"}, "fault": {"kind": "status", "status": 400}}])
    report = bench.run(bench.contacts(model))
    print(f"requests to isolate 1 bad row of 100: {report.traffic.requests}")
    assert (report.outcomes[Status.CREATED], report.outcomes[Status.REJECTED]) == (99, 1)
    assert [bad.key for bad in report.bad_rows] == ["42"]
    assert set(bench.client.writes("contacts", by="email").values()) == {1}
