"""Whole runs with the state in a PostgreSQL warehouse, and the move from one home to the other."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from integrations_dagster.planner.candidates import Release
from integrations_dagster.planner.expressions import columns_of
from integrations_dagster.sandbox.endpoint import Endpoint, state_folder
from integrations_dagster.sync.homes import home_of, move_home, place_of
from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.preview import preview
from integrations_dagster.sync.query import preview as first_rows
from integrations_dagster.sync.spec import (
    EMBEDDED,
    WAREHOUSE,
    CursorSpec,
    DestinationSpec,
    FieldSpec,
    LookupSpec,
    ModelSpec,
    SyncSpec,
)
from integrations_dagster.sync.trace import Known, trace
from integrations_dagster.sync.versions import newest_version
from integrations_dagster.vocabulary import GuardTripped, Misconfigured, Mode, Partition, Status
from integrations_dagster_tests.postgres import Postgres
from integrations_dagster_tests.sync.postgres_bench import PASSWORD, PostgresBench

COLUMNS = {"id": "integer", "email": "text", "firstname": "text", "ltv": "numeric(12, 2)", "seen": "timestamptz"}


def people(count: int, **names: str) -> list[dict[str, object]]:
    return [
        {
            "id": i,
            "email": f"Paul{i}@Example.com",
            "firstname": names.get(f"p{i}", f"Näme {i}."),
            "ltv": i / 4,
            "seen": f"2026-01-01 00:{i % 60:02}:00.5+02",
        }
        for i in range(count)
    ]


@pytest.fixture
def bench(tmp_path: Path, sandbox: Endpoint, sandbox_storage: Path, postgres: Postgres) -> Iterator[PostgresBench]:
    (tmp_path / "sandbox").mkdir()
    shutil.copy(state_folder(sandbox_storage) / "sandbox.json", tmp_path / "sandbox" / "sandbox.json")
    bench = PostgresBench(tmp_path, sandbox, postgres)
    yield bench
    bench.close()


@pytest.fixture
def model(bench: PostgresBench) -> ModelSpec:
    bench.load("people", people(60), COLUMNS)
    return bench.model("people", "SELECT * FROM people")


def requests_of(bench: PostgresBench, sync: SyncSpec, *, candidates: int | None = None) -> int:
    before = bench.client.last_seq()
    report = bench.run(sync)
    assert report.failures == ()
    if candidates is not None:
        assert report.candidates == candidates, report.counts
    received = len(bench.client.received(since=before))
    assert received == report.traffic.requests
    return received


def test_runs_with_the_state_in_the_warehouse(bench: PostgresBench, model: ModelSpec) -> None:
    sync = bench.sync_in(WAREHOUSE, model, Mode.MIRROR)
    bench.query(sync.model)
    seen = preview(sync, bench.context())
    assert (seen.counts.added, seen.to_send) == (60, 60)
    first = bench.run(sync)
    assert (first.counts.added, first.outcomes[Status.CREATED], first.failures) == (60, 60, ())
    assert requests_of(bench, sync, candidates=0) == 0

    rows = people(57, p7="Changed")
    rows[3]["email"] = "moved@example.com"
    bench.load("people", [*rows, {"id": 999, "email": "new@example.com", "firstname": "New"}], COLUMNS)
    bench.query(sync.model)
    told = preview(sync, bench.context())
    report = bench.run(sync)
    assert told.counts == report.counts
    counts = report.counts
    assert (counts.added, counts.changed, counts.unchanged, counts.removed) == (1, 2, 55, 3)
    assert bench.client.writes("contacts", by="email")["paul8@example.com"] == 1
    assert len(bench.emails()) == 58
    assert requests_of(bench, sync, candidates=0) == 0
    (record,) = [event for event in trace(sync, bench.context(), "7") if isinstance(event, Known)]
    assert (record.match, record.acknowledged) == ("paul7@example.com", True)

    # Nothing of the state, and of the model only its first rows, is in files.
    home = home_of(sync, bench.context(), bench.account(sync))
    assert not list(home.folder.glob("snapshot-*"))
    version = newest_version(bench.folder, "people")
    assert version is not None
    assert sorted(path.name for path in Path(version.path).iterdir()) == ["preview.parquet", "version.json"]
    assert first_rows(version, rows=2, sensitive=frozenset({"email"}))[1][0][1] == "•••"
    # Two versions are kept, as with files.
    kinds = sorted(name.split("_")[0] for name in bench.tables() if not name.startswith("sync_"))
    assert kinds == ["held", "model", "model", "snapshot", "states"]

    bench.load("people", people(40), COLUMNS)
    with pytest.raises(GuardTripped, match=r"would remove 18 of 58 records"):
        bench.run(sync)


@pytest.mark.slow
def test_a_rejected_row_is_held_tried_and_released(bench: PostgresBench, model: ModelSpec) -> None:
    sync = bench.sync_in(WAREHOUSE, model, max_attempts=2)
    rejected = {"kind": "reject_rows", "with": "Näme 5.", "message": "No.", "code": "BAD"}
    bench.client.faults([{"fault": rejected}])
    for _ in range(2):
        bench.run(sync)
    assert bench.run(sync).counts.held == 1
    bench.client.clear_faults()
    bench.query(sync.model)
    report = bench.run(sync, options=PlanOptions(release=Release(keys=("5",))))
    assert (report.candidates, report.outcomes[Status.CREATED]) == (1, 1)
    assert bench.run(sync).counts.unchanged == 60


@pytest.mark.slow
def test_deletions_are_remembered_in_the_warehouse_for_as_long_as_they_are_listed(
    bench: PostgresBench, model: ModelSpec
) -> None:
    bench.run(bench.sync_in(EMBEDDED, model, name="owner"))
    sync = bench.sync_in(WAREHOUSE, model, Mode.DELETE, fields=(), removal_limit=100.0)
    bench.load("people", people(3), COLUMNS)
    assert bench.run(sync).outcomes[Status.DELETED] == 3
    assert requests_of(bench, sync, candidates=0) == 0
    bench.load("people", people(2), COLUMNS)
    assert bench.run(sync).candidates == 0
    bench.load("people", people(3), COLUMNS)
    assert bench.run(sync).candidates == 1, "the row has come back"


@pytest.mark.slow
def test_a_partitioned_model_in_the_warehouse(bench: PostgresBench) -> None:
    bench.load("people", people(60), COLUMNS)
    path = "SELECT * FROM people WHERE seen >= $partition_start AND seen < $partition_end"
    sync = bench.sync_in(WAREHOUSE, bench.model("people", path, partitioned=True), Mode.MIRROR, removal_limit=1.0)
    first = Partition("a", "2025-12-31T22:00:00+00:00", "2025-12-31T22:30:00+00:00")
    second = Partition("b", "2025-12-31T22:30:00+00:00", "2025-12-31T23:00:00+00:00")
    assert bench.run(sync, [first]).counts.added == 30
    assert bench.run(sync, [second]).counts.added == 30
    rows = people(60)
    # A key moves to the other partition, one leaves, one takes a match value that the other partition has delivered.
    rows[1]["seen"], rows[2]["email"] = "2026-01-01 00:45:00+02", rows[40]["email"]
    bench.load("people", rows[:59], COLUMNS)
    report = bench.run(sync, [first])
    assert (report.counts.invalid, report.counts.unchanged, report.counts.removed) == (1, 28, 1)
    report = bench.run(sync, [second])
    assert (report.counts.added, report.counts.removed, report.counts.unchanged) == (1, 1, 29)
    report = bench.run(sync, [first, second])
    # Compared together, both rows with that match value are named.
    assert (report.candidates, report.counts.unchanged, report.counts.invalid) == (0, 57, 2)


@pytest.mark.quick(1)
@pytest.mark.parametrize("mode", [Mode.UPSERT, Mode.MIRROR])
def test_a_home_moved_there_and_back_sends_nothing(bench: PostgresBench, model: ModelSpec, mode: Mode) -> None:
    files, inside = bench.sync_in(EMBEDDED, model, mode, max_attempts=1), bench.sync_in(WAREHOUSE, model, mode)
    inside = replace(inside, max_attempts=1)
    rejected = {"kind": "reject_rows", "with": "Näme 5.", "message": "No.", "code": "BAD"}
    bench.client.faults([{"fault": rejected}])
    bench.run(files)
    state = state_of(bench, files)
    assert place_of(files, bench.context()) == EMBEDDED
    with pytest.raises(Misconfigured, match=r"home: warehouse.*is in files.*`integrations home contacts warehouse`"):
        bench.run(inside)
    told = move_home(files, bench.context(), WAREHOUSE)
    assert told.startswith("59 record(s) of sync 'contacts'")
    assert told.endswith("Write `home: warehouse` in defs/contacts/defs.yaml:1.")
    with pytest.raises(Misconfigured, match=r"home: embedded.*the schema integrations.*`home: warehouse`"):
        preview(files, bench.context())
    bench.query(files.model)
    with pytest.raises(Misconfigured, match=r"not kept as a table of the warehouse.*Materialize the model again"):
        plan(inside, bench.context())
    # The source digests agree as well, so that the parked row stays parked.
    assert requests_of(bench, inside, candidates=0) == 0
    assert bench.run(inside).counts.held == 1
    assert "already" in move_home(inside, bench.context(), WAREHOUSE)
    assert move_home(inside, bench.context(), EMBEDDED).startswith("59 record(s)")
    assert state_of(bench, files) == state
    assert requests_of(bench, files, candidates=0) == 0
    assert {name for name in bench.tables() if not name.startswith(("model", "sync_"))} == {"states"}
    assert bench.rows("SELECT * FROM integrations.states") == []


def state_of(bench: PostgresBench, sync: SyncSpec) -> list[list[dict[str, object]]]:
    """Snapshot and held rows of the embedded home."""
    home = home_of(sync, bench.context(), bench.account(sync))
    manifest = home.manifest()
    return [
        sorted(pq.read_table(home.folder / name).to_pylist(), key=lambda row: str(row["key"]))
        for name in (manifest.snapshot, manifest.held)
    ]


MOVE = """
import os, pickle, sys
from integrations_dagster.sync.homes import move_home
from integrations_dagster_tests.sync.postgres_bench import PostgresBench
from integrations_dagster.sync.context import RunContext
from integrations_dagster.ledger.store import Ledger
from integrations_dagster_tests.sync.harness import this_process, is_alive
sync, folder, env, to, at = pickle.loads(open(sys.argv[1], "rb").read())
ledger = Ledger.open(folder)
ctx = RunContext(folder, ledger, "mover", this_process(), is_alive, print, env)
move_home(sync, ctx, to, lambda step: os._exit(9) if step == at else None)
ledger.close()
"""


@pytest.mark.parametrize("at", ["switch", *(pytest.param(at, marks=pytest.mark.slow) for at in ("copy", "clean"))])
def test_a_move_that_is_killed_leaves_one_home_in_force(bench: PostgresBench, model: ModelSpec, at: str) -> None:
    syncs = {home: bench.sync_in(home, model) for home in (EMBEDDED, WAREHOUSE)}
    bench.run(syncs[EMBEDDED])
    for source, to in ((EMBEDDED, WAREHOUSE), (WAREHOUSE, EMBEDDED)):
        job = bench.folder / "move.pickle"
        job.write_bytes(pickle.dumps((syncs[source], bench.folder, bench.env, to, at)))
        killed = subprocess.run([sys.executable, "-c", MOVE, str(job)], check=False, timeout=60)
        assert killed.returncode == 9
        place = place_of(syncs[source], bench.context())
        assert place == (to if at == "clean" else source)
        assert requests_of(bench, syncs[place], candidates=0) == 0
        move_home(syncs[source], bench.context(), to)
        assert requests_of(bench, syncs[to], candidates=0) == 0
        left = {name.split("_")[0] for name in bench.tables()} - {"model", "sync"}
        assert left == ({"states", "snapshot", "held"} if to == WAREHOUSE else {"states"})


def test_a_user_that_may_only_read_is_enough_for_files_and_not_for_the_warehouse(
    bench: PostgresBench, model: ModelSpec
) -> None:
    bench.login(bench.reader)
    sync = bench.sync_in(EMBEDDED, model)
    assert bench.run(sync).counts.added == 60
    assert requests_of(bench, sync, candidates=0) == 0
    with pytest.raises(Misconfigured, match=r"GRANT TEMPORARY.*home: embedded") as caught:
        bench.run(bench.sync_in(WAREHOUSE, model))
    with pytest.raises(Misconfigured, match=r"GRANT TEMPORARY.*home: embedded"):
        move_home(sync, bench.context(), WAREHOUSE)
    assert PASSWORD not in str(caught.value)
    assert place_of(sync, bench.context()) == EMBEDDED
    assert requests_of(bench, sync, candidates=0) == 0


def test_state_that_is_gone_from_the_warehouse_is_not_taken_for_none(bench: PostgresBench, model: ModelSpec) -> None:
    sync = bench.sync_in(WAREHOUSE, model)
    bench.run(sync)
    bench.postgres.execute(bench.database, "DELETE FROM integrations.states")
    with pytest.raises(Misconfigured, match=r"was kept in the warehouse 'dwh'.*Restore the schema"):
        bench.run(sync)
    assert len(bench.emails()) == 60


def test_a_key_whose_text_depends_on_the_home_is_refused(bench: PostgresBench, model: ModelSpec) -> None:
    odd = replace(bench.model("odd", "SELECT CAST(id AS double precision) AS id, email, firstname FROM people"))
    with pytest.raises(Misconfigured, match=r"'id' is part of the key .* double precision.*CAST\(id AS text\)"):
        bench.run(bench.sync_in(WAREHOUSE, odd))


@pytest.mark.slow
def test_a_resync_and_computed_fields_in_the_warehouse(bench: PostgresBench, model: ModelSpec) -> None:
    upper = "upper(firstname) || ' ' || (100 / (id - 5))"
    sync = bench.sync_in(WAREHOUSE, model)
    sync = replace(sync, fields=(*sync.fields, FieldSpec("lastname", sql=upper, uses=columns_of(upper, "postgres"))))
    first = bench.run(sync)
    # The expression fails on one row, and on no other.
    assert (first.counts.added, first.counts.invalid) == (59, 1)
    assert requests_of(bench, sync, candidates=0) == 0
    bench.load("people", people(60, p7="Changed"), COLUMNS)
    report = bench.run(sync)
    assert (report.candidates, report.outcomes[Status.UPDATED]) == (1, 1)
    keyed = bench.run(sync, options=PlanOptions(resync_keys=("8",)))
    assert (keyed.candidates, keyed.outcomes[Status.UPDATED]) == (1, 1)
    again = bench.run(sync, options=PlanOptions(full_resync=True))
    assert again.outcomes[Status.UPDATED] == 59
    assert requests_of(bench, sync, candidates=0) == 0


def test_an_expression_that_asks_for_the_time_is_computed_at_each_plan(bench: PostgresBench, model: ModelSpec) -> None:
    told = "CASE WHEN now() > seen THEN 'past' ELSE 'to come' END"
    sync = bench.sync_in(WAREHOUSE, model)
    sync = replace(sync, fields=(*sync.fields, FieldSpec("lastname", sql=told, uses=columns_of(told, "postgres"))))
    assert bench.run(sync).counts.added == 60
    assert requests_of(bench, sync, candidates=0) == 0
    bench.load("people", people(59, p7="Changed"), COLUMNS)
    report = bench.run(sync)
    assert (report.candidates, report.outcomes[Status.UPDATED], report.counts.unchanged) == (1, 1, 58)


def test_a_model_that_is_queried_in_part_in_the_warehouse(bench: PostgresBench) -> None:
    bench.load("people", people(40), COLUMNS)
    sql = "SELECT * FROM people WHERE $cursor IS NULL OR seen >= CAST($cursor AS timestamptz)"
    model = replace(bench.model("people", sql), cursor=CursorSpec("seen", 0.0), readers=(("contacts", "sandbox"),))
    sync = bench.sync_in(WAREHOUSE, model)
    assert bench.run(sync).counts.added == 40
    rows = people(42)
    rows[3] |= {"firstname": "Changed", "seen": "2026-02-01 00:00:00+00"}
    bench.load("people", rows, COLUMNS)
    report = bench.run(sync)
    assert (report.counts.added, report.counts.changed) == (2, 1)
    assert report.counts.queried < 10
    report = bench.run(sync)
    assert (report.candidates, report.counts.queried) == (0, 1)
    assert len(bench.emails()) == 42


def test_a_lookup_in_records_that_a_sync_in_the_warehouse_has_delivered(bench: PostgresBench, model: ModelSpec) -> None:
    first = bench.sync_in(WAREHOUSE, model)
    lookup = LookupSpec("first", sync=first, key="key", value="destination_id", normalization="exact")
    hook = DestinationSpec("hook", "webhook", first.destination.target)
    fields = (FieldSpec("them", "id", lookup="first"),)
    sync = bench.sync_in(
        WAREHOUSE,
        model,
        name="second",
        match={},
        fields=fields,
        lookups=(lookup,),
        object="customers",
        destination=hook,
    )
    bench.run(first)
    report = bench.run(sync)
    assert (report.counts.added, report.failures) == (60, ())
    known = {str(record["id"]) for record in bench.client.records("contacts")}
    told = bench.client.webhook_records("hook", "customers").values()
    assert {str(payload["them"]) for payload in told} == known
    assert requests_of(bench, sync, candidates=0) == 0
