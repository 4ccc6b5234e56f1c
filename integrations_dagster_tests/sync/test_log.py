"""The sync log as tables: what is in them after every end that a run can have, while runs fold, and for how long."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import integrations_dagster
import integrations_dagster.sync.record as recording
from integrations_dagster.planner.log import TABLES, query, write_rows, write_run
from integrations_dagster.planner.state import Home
from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.log import select
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.runs import DIED
from integrations_dagster.sync.spec import ModelSpec, SyncSpec
from integrations_dagster.vocabulary import GuardTripped, Misconfigured, Mode, Status
from integrations_dagster_tests.sync.flows import COLUMNS
from integrations_dagster_tests.sync.harness import Bench, check_log, check_runs

DOCS = Path(integrations_dagster.__file__).parents[1] / "docs" / "sync_log.md"


def people(bench: Bench, count: int, version: int = 1) -> ModelSpec:
    rows = [{"id": i, "email": f"log{i}@example.com", "firstname": f"{i} v{version}"} for i in range(count)]
    bench.load("people", rows, COLUMNS)
    return bench.model("people", "SELECT * FROM people")


def hook(bench: Bench, name: str, model: ModelSpec, **changes: Any) -> SyncSpec:
    """A sync to a receiver of its own."""
    destination = dataclasses.replace(bench.crm(timeout=1), name=name, kind="webhook")
    spec = bench.contacts(model, name=name, object="people", match={}, destination=destination, batch_rows=5)
    return dataclasses.replace(spec, **changes)


def ask(bench: Bench, sql: str, **parameters: Any) -> list[dict[str, Any]]:
    return select(bench.folder, sql, parameters).to_pylist()


def test_rows_of_every_outcome_are_in_the_log(bench: Bench) -> None:
    people(bench, 0)
    rows = [{"id": i, "email": f"mixed{i}@example.com", "firstname": f"n{i}"} for i in range(6)]
    rows[0]["email"] = "no address"  # the destination rejects it
    rows[1]["email"] = None  # invalid
    bench.load("people", rows, COLUMNS)
    sync = bench.contacts(bench.model("people", "SELECT * FROM people"), Mode.MIRROR, removal_limit=1.0)
    first = bench.run(sync, ctx=bench.context("first"))
    assert (first.outcomes[Status.CREATED], first.outcomes[Status.REJECTED], first.counts.invalid) == (4, 1, 1)
    bench.load("people", [*rows[:2], {**rows[2], "firstname": "new"}, rows[3]], COLUMNS)
    second = bench.run(sync, ctx=bench.context("second"))
    assert (second.outcomes[Status.UPDATED], second.outcomes[Status.DELETED]) == (1, 2)

    found = ask(bench, "SELECT * FROM sync_log WHERE run_id = 'first' ORDER BY key")
    assert list(found[0]) == list(TABLES["sync_log"])
    rejected, invalid, created = found[:3]
    assert (rejected["outcome"], rejected["change"], rejected["action"]) == ("rejected", "added", "upsert")
    assert "no address" in rejected["reason"] or rejected["code"]
    assert rejected["request_id"]
    assert (invalid["outcome"], invalid["batch"], invalid["attempt"], invalid["late"]) == ("invalid", "", None, False)
    assert (created["outcome"], created["match_value"]) == ("created", "mixed2@example.com")
    assert created["destination_id"]
    assert created["attempt"] == 1
    assert abs(created["time"] - datetime.now(UTC)) < timedelta(minutes=1)

    snapshot = ask(bench, "SELECT key, acknowledged, destination_id FROM sync_snapshot ORDER BY key")
    assert [(row["key"], row["acknowledged"]) for row in snapshot] == [("2", True), ("3", True)]
    runs = ask(bench, "SELECT * FROM sync_runs ORDER BY started")
    assert [row["run_id"] for row in runs] == ["first", "second"]
    assert runs[0]["started"] <= runs[0]["ended"] <= runs[1]["started"]
    assert (runs[0]["target"], runs[0]["mode"], runs[0]["sync"]) == ("sandbox", "mirror", "contacts")


def test_a_run_that_dies_has_its_row_once_the_next_begins(bench: Bench) -> None:
    sync = hook(bench, "log_dead", people(bench, 20))
    dead = bench.context("dead", alive=lambda _holder: False)
    bench.write(sync, dead, bench.plan(sync, dead).shards)
    assert ask(bench, "SELECT * FROM sync_runs") == []
    bench.run(sync, ctx=bench.context("next", alive=lambda _holder: False))
    first, second = ask(bench, "SELECT * FROM sync_runs ORDER BY started")
    assert (first["run_id"], first["outcome"], first["reason"]) == ("dead", "failed", DIED)
    assert (first["queried"], first["added"], first["candidates"], first["created"]) == (20, 20, 20, 20)
    assert (second["outcome"], second["unchanged"], second["candidates"]) == ("succeeded", 20, 0)
    (counted,) = ask(bench, "SELECT count(*) AS n, count(DISTINCT key) AS keys FROM sync_log WHERE run_id = 'dead'")
    assert counted == {"n": 20, "keys": 20}


def test_a_run_that_dies_between_the_files_of_its_account_has_its_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = hook(bench, "log_between", people(bench, 20))
    dead = bench.context("dead", alive=lambda _holder: False)
    made = bench.plan(sync, dead)
    summaries = bench.write(sync, dead, made.shards)

    def dies(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recording, "log_run", dies)
    with pytest.raises(KeyboardInterrupt):
        recording.record(sync, dead, made, summaries)
    monkeypatch.undo()
    bench.run(sync, ctx=bench.context("next", alive=lambda _holder: False))
    first, _ = ask(bench, "SELECT * FROM sync_runs ORDER BY started")
    # It had come to its account, and its account stands.
    assert (first["run_id"], first["outcome"], first["created"]) == ("dead", "succeeded", 20)
    assert len(check_runs(bench.folder, sync.name)) == 2


def test_a_row_sent_twice_in_a_run_counts_once(bench: Bench) -> None:
    """The write op dies without an answer to a batch that is then sent again under its own record or anew."""
    sync = hook(bench, "log_twice", people(bench, 20))
    bench.client.faults([{"match": {"path": "/*log_twice*"}, "times": 2, "fault": {"kind": "reset", "applied": True}}])
    ctx = bench.context("twice")
    made = bench.plan(sync, ctx)
    from integrations_dagster.sync.record import record

    first = bench.write(sync, ctx, made.shards)
    assert len(first) == len(made.shards)
    again = bench.write(sync, ctx, made.shards)
    report = record(sync, ctx, made, again)
    check_log(bench.folder, sync.name, made, report)


def test_a_plan_that_fails_leaves_a_row_with_its_reason(bench: Bench) -> None:
    sync = hook(bench, "log_guard", people(bench, 20), mode=Mode.MIRROR)
    bench.run(sync)
    people(bench, 0)
    with pytest.raises(GuardTripped) as caught:
        bench.run(sync, ctx=bench.context("guarded"))
    (row,) = ask(bench, "SELECT * FROM sync_runs WHERE run_id = 'guarded'")
    assert (row["outcome"], row["reason"], row["candidates"], row["requests"]) == ("failed", str(caught.value), 0, 0)


def test_several_syncs_are_in_one_table_and_may_be_read_alone(bench: Bench) -> None:
    model = people(bench, 3)
    for name in ("log_one", "log_two"):
        bench.run(hook(bench, name, model))
    assert ask(bench, "SELECT sync, count(*) AS n FROM sync_log GROUP BY sync ORDER BY sync") == [
        {"sync": "log_one", "n": 3},
        {"sync": "log_two", "n": 3},
    ]
    alone = select(bench.folder, "SELECT DISTINCT sync FROM sync_snapshot", sync="log_one").to_pylist()
    assert alone == [{"sync": "log_one"}]
    joined = "SELECT count(*) AS n FROM sync_log l JOIN sync_runs r USING (sync, account, run_id) WHERE r.target = $t"
    assert ask(bench, joined, t="sandbox") == [{"n": 6}]


def test_an_empty_storage_has_empty_tables(tmp_path: Path) -> None:
    for table, columns in TABLES.items():
        found = select(tmp_path, f"SELECT * FROM {table}")
        assert (found.num_rows, found.column_names) == (0, list(columns))


@pytest.mark.parametrize(
    "sql",
    ["COPY (SELECT 1) TO '/tmp/x.csv'", "SELECT 1; SELECT 2", "DROP VIEW sync_log", "SELEC", "SELECT x FROM sync_log"],
)
def test_only_a_select_is_taken(tmp_path: Path, sql: str) -> None:
    with pytest.raises(Misconfigured):
        select(tmp_path, sql)


@pytest.mark.slow
def test_the_log_is_read_while_runs_fold(bench: Bench) -> None:
    """Readers never see half a run, nor fail, while one run after the other swaps the state."""
    sync = hook(bench, "log_busy", people(bench, 40))
    bench.run(sync)
    over, seen, errors = threading.Event(), [], []

    def read() -> None:
        sql = "SELECT (SELECT count(*) FROM sync_snapshot) AS records, run_id, count(*) AS n FROM sync_log "
        sql += "GROUP BY run_id"
        while not over.is_set():
            try:
                seen.append(ask(bench, sql))
            except Exception as error:  # noqa: BLE001 (shown below)
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for version in range(2, 8):
        people(bench, 40, version)
        bench.run(sync)
    over.set()
    reader.join()
    assert errors == []
    assert len(seen) > 3
    assert {row["n"] for rows in seen for row in rows} == {40}
    assert {row["records"] for rows in seen for row in rows} == {40}


def test_what_a_killed_fold_left_is_not_in_the_log(bench: Bench) -> None:
    sync = hook(bench, "log_fold", people(bench, 10))
    bench.run(sync, ctx=bench.context("whole"))
    home = Home.of(bench.folder, sync.name, bench.account(sync))
    (rows,) = home.log_folder("whole").glob("rows-*.parquet")
    last = home.manifest().last_number
    rows.with_name(f"rows-{last + 1}-{last + 2}.parquet").write_bytes(rows.read_bytes())
    rows.with_name(".rows-99.tmp").write_bytes(b"half a file")
    assert ask(bench, "SELECT count(*) AS n FROM sync_log") == [{"n": 10}]


def test_the_rows_of_a_run_can_be_copied(bench: Bench) -> None:
    sync = hook(bench, "log_copy", people(bench, 10))
    bench.run(sync, ctx=bench.context("one"))
    home = Home.of(bench.folder, sync.name, bench.account(sync))
    people(bench, 4, 2)
    bench.run(sync, ctx=bench.context("two"))
    path = bench.folder / "copy.parquet"
    write_rows(home, ["two"], "sync_log", path)
    assert pq.read_table(path).num_rows == 4
    write_rows(home, ["one", "two"], "sync_log", path)
    copied = pq.read_table(path)
    assert copied.column_names == list(TABLES["sync_log"])
    rows = sorted(copied.to_pylist(), key=lambda row: (row["run_id"], row["key"]))
    assert rows == ask(bench, "SELECT * FROM sync_log ORDER BY run_id, key")
    write_rows(home, ["one"], "sync_runs", path)
    assert pq.read_table(path).to_pylist() == ask(bench, "SELECT * FROM sync_runs WHERE run_id = 'one'")


def test_old_runs_are_forgotten_whole(bench: Bench) -> None:
    sync = hook(bench, "log_old", people(bench, 3), log_days=10)
    bench.run(sync, ctx=bench.context("old"))
    home = Home.of(bench.folder, sync.name, bench.account(sync))
    past = time.time() - 11 * 86_400
    for path in home.log_folder("old").iterdir():
        os.utime(path, (past, past))
    # A kill between the rename and the deletion.
    (home.folder / "dropped-log" / "older").mkdir(parents=True)
    people(bench, 3, 2)
    bench.run(sync, ctx=bench.context("young"))
    for table in ("sync_runs", "sync_log"):
        assert ask(bench, f"SELECT DISTINCT run_id FROM {table}") == [{"run_id": "young"}]
    assert not (home.folder / "dropped-log").exists()
    assert ask(bench, "SELECT count(*) AS n FROM sync_snapshot") == [{"n": 3}]


def test_data_frames_for_notebooks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = hook(bench, "log_frame", people(bench, 7))
    bench.run(sync, ctx=bench.context("one"))
    monkeypatch.setenv("INTEGRATIONS_STORAGE", str(bench.folder))
    runs = integrations_dagster.read_log("SELECT * FROM sync_runs WHERE sync = $sync", sync="log_frame")
    assert list(runs["created"]) == [7]
    frame = integrations_dagster.sync_log("log_frame", outcome="created", since=datetime.now(UTC) - timedelta(hours=1))
    assert len(frame) == 7
    assert str(frame["time"].dt.tz) == "UTC"
    assert len(integrations_dagster.sync_log("log_frame", key="3", storage=bench.folder)) == 1
    assert integrations_dagster.sync_log("log_frame", run_id="another").empty


def test_a_limited_run_counts_too(bench: Bench) -> None:
    sync = hook(bench, "log_limit", people(bench, 9))
    report = bench.run(sync, options=PlanOptions(limit=4))
    assert (report.candidates, report.counts.excluded) == (4, 5)


def test_a_plan_under_way_has_no_row(bench: Bench) -> None:
    sync = hook(bench, "log_way", people(bench, 2))
    bench.query(sync.model)
    plan(sync, bench.context("way"))
    assert ask(bench, "SELECT * FROM sync_runs") == []


def test_the_columns_are_documented() -> None:
    text = DOCS.read_text("utf-8")
    for table, columns in TABLES.items():
        section = text.split(f"## `{table}`")[1].split("\n## ")[0]
        named = set(re.findall(r"`([a-z_0-9]+)`", section))
        assert set(columns) <= named, table


def test_the_questions_of_the_documentation_have_answers(bench: Bench) -> None:
    bench.run(hook(bench, "log_docs", people(bench, 3)))
    questions = re.findall(r"```sql\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert len(questions) >= 5
    for question in questions:
        ask(bench, question)


def test_a_row_needs_all_columns(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_run(Home(tmp_path), "run", {"sync": "x"})
    assert query([Home(tmp_path)], "SELECT * FROM sync_runs").num_rows == 0
