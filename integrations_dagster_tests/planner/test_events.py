"""From the ledger's blobs to snapshot and sync log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from integrations_dagster.ledger.batches import BatchRecord, BatchStatus, SentRow, pack, pack_outcomes, pack_rows
from integrations_dagster.planner import events
from integrations_dagster.planner.fold import fold
from integrations_dagster.planner.state import Home
from integrations_dagster.vocabulary import Action, Change, Outcome, Status, Traffic, Worker

ODD = ("plain", 'a "quoted" \\ value', "two\nlines\tand\r\u2028more", "Zoë 李 🎈", "{braces}'$$", "nul\x00nul", "")


def old_rows(rows: Sequence[SentRow]) -> bytes:
    return pack([list(row) for row in rows])


def old_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    return pack([[o.status, o.destination_id, o.code, o.reason, o.request_id] for o in outcomes])


def batch(
    number: int, keys: Sequence[str], rows: Callable[..., bytes], outcomes: Callable[..., bytes], run: str = "run"
) -> BatchRecord:
    sent = tuple(
        SentRow(i, key, f"{key}@{number}", Change.ADDED, Action.UPSERT, "", None, f"s{number}", f"p{key}")
        for i, key in enumerate(keys)
    )
    told = tuple(Outcome(Status.CREATED, f"{number}-{i}", request_id=f"r{number}") for i in range(len(keys)))
    return BatchRecord(
        id=number,
        run_id=run,
        shard=0,
        attempt=1,
        idempotency_key=f"key-{number}",
        repeatable=True,
        writer=Worker("here", 1, 1.0),
        opened=1.0,
        deadline=2.0,
        status=BatchStatus.COMPLETED,
        number=number,
        row_blob=rows(sent),
        outcome_blob=outcomes(told),
        traffic=Traffic(requests=1, errors={"odd \"'": 1}).as_dict(),
        closed=1.5,
    )


def folded(folder: Path, batches: Sequence[BatchRecord]) -> tuple[Home, list[dict[str, Any]]]:
    home = Home(folder)
    result = fold(home, batches, now=3.0)
    home.swap(result.manifest)
    assert result.manifest.last_number == batches[-1].number
    rows = pq.read_table(folder / result.manifest.snapshot).to_pylist()
    return home, sorted(rows, key=lambda row: (row["number"], row["destination_id"]))


@pytest.mark.parametrize(("rows", "outcomes"), [(pack_rows, pack_outcomes), (old_rows, old_outcomes)])
def test_every_text_reaches_snapshot_and_log_as_it_is(
    tmp_path: Path, rows: Callable[..., bytes], outcomes: Callable[..., bytes]
) -> None:
    home, snapshot = folded(tmp_path, [batch(1, ODD, rows, outcomes)])
    assert [row["key"] for row in snapshot] == list(ODD)
    assert [row["match"] for row in snapshot] == [f"{key}@1" for key in ODD]
    (log,) = home.log_folder("run").glob("rows-*.parquet")
    told = sorted(pq.read_table(log).to_pylist(), key=lambda row: row["ordinal"])
    assert [(row["key"], row["request_id"], row["effect"]) for row in told] == [(key, "r1", "write") for key in ODD]


def test_batches_in_several_chunks_and_of_several_runs_are_each_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "CHUNK", 1)
    batches = [batch(n, [f"{n}a", f"{n}b"], pack_rows, pack_outcomes, f"run-{n % 2}") for n in range(1, 8)]
    home, snapshot = folded(tmp_path, batches)
    assert len(snapshot) == 14
    for run in (0, 1):
        numbers = [n for n in range(1, 8) if n % 2 == run]
        for name, each in (("rows", 2), ("batches", 1)):
            files = sorted(home.log_folder(f"run-{run}").glob(f"{name}-*.parquet"))
            found = [n for path in files for n in pq.read_table(path).column("number").to_pylist()]
            assert sorted(found) == sorted(numbers * each)  # type: ignore[type-var]


def test_chunks_of_one_run_become_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "CHUNK", 1)
    batches = [batch(n, [f"{n}a", f"{n}b"], pack_rows, pack_outcomes) for n in range(1, 4)]
    home, _ = folded(tmp_path, batches)
    names = {path.name for path in home.log_folder("run").iterdir()}
    assert names == {"rows-1-1.parquet", "rows-2-2.parquet", "rows-3-3.parquet", "batches-1-3.parquet"}
    (log,) = home.log_folder("run").glob("batches-*.parquet")
    assert [row["rows"] for row in pq.read_table(log).to_pylist()] == [2, 2, 2]
