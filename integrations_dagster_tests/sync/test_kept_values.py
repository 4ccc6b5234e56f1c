"""`keep_values`: the last acknowledged values of records, through every way in which a run can end."""

from __future__ import annotations

import dataclasses
import io

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from integrations_dagster.cli.show import print_preview
from integrations_dagster.planner.state import Home
from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.preview import Sample, preview
from integrations_dagster.sync.record import record
from integrations_dagster.sync.spec import FieldSpec, SyncSpec
from integrations_dagster.sync.trace import Known, trace
from integrations_dagster_tests.sync.flows import COLUMNS
from integrations_dagster_tests.sync.harness import Bench

FIELDS = (FieldSpec("email", "email"), FieldSpec("firstname", "firstname"))


def hook(bench: Bench, name: str, **changes: object) -> SyncSpec:
    model = bench.model("people", "SELECT * FROM people")
    destination = dataclasses.replace(bench.crm(), name=name, kind="webhook")
    spec = bench.contacts(
        model, name=name, object="people", match={}, destination=destination, fields=FIELDS, keep_values=True
    )
    return dataclasses.replace(spec, **changes)  # type: ignore[arg-type]


def load(bench: Bench, **names: str) -> None:
    rows = [{"id": int(key[1:]), "email": f"{key}@x.org", "firstname": name} for key, name in names.items()]
    bench.load("people", rows, COLUMNS)


def look(bench: Bench, sync: SyncSpec) -> dict[str, Sample]:
    bench.query(sync.model)
    return {sample.key: sample for sample in preview(sync, bench.context(), samples=100).samples}


def home_of(bench: Bench, sync: SyncSpec) -> Home:
    return Home.of(bench.folder, sync.name, bench.account(sync))


def text_of(bench: Bench, sync: SyncSpec) -> str:
    bench.query(sync.model)
    found = preview(sync, bench.context(), samples=100)
    file = io.StringIO()
    print_preview(Console(file=file, width=200), sync, found)
    return file.getvalue()


def test_a_preview_shows_old_and_new(bench: Bench) -> None:
    sync = hook(bench, "kept_preview")
    load(bench, k1="Ann", k2="Bob", k3="Cid")
    bench.run(sync)
    load(bench, k1="Anna", k2="Bob", k3="Cid", k4="Dan")
    samples = look(bench, sync)
    assert set(samples) == {"1", "4"}
    assert samples["1"].before == {"email": "k1@x.org", "firstname": "Ann"}
    assert samples["4"].before is None
    shown = text_of(bench, sync)
    assert 'firstname: "Ann" -> "Anna"' in shown
    assert "1 field(s) as they are" in shown
    (known,) = [event for event in trace(sync, bench.context(), "1") if isinstance(event, Known)]
    assert known.values == '{"email": "k1@x.org", "firstname": "Ann"}'


def test_values_that_are_not_kept_are_said_to_be_so(bench: Bench) -> None:
    sync = hook(bench, "kept_not", keep_values=False)
    load(bench, k1="Ann")
    bench.run(sync)
    load(bench, k1="Anna")
    assert look(bench, sync)["1"].before is None
    assert "not kept (keep_values)" in text_of(bench, sync)
    assert not list(home_of(bench, sync).folder.glob("values-*"))


def test_sensitive_values_are_never_on_disk(bench: Bench) -> None:
    nested = FieldSpec("person.name", "firstname", sensitive=True)
    fields = (FieldSpec("email", "email"), FieldSpec("firstname", "firstname", sensitive=True), nested)
    sync = hook(bench, "kept_sensitive", fields=fields)
    load(bench, k1="Annsecret")
    bench.run(sync)
    home = home_of(bench, sync)
    (row,) = pq.read_table(home.folder / home.manifest().values).to_pylist()
    assert row["payload"] == '{"email":"k1@x.org"}'
    load(bench, k1="Othersecret")
    assert "secret" not in text_of(bench, sync)
    assert "firstname: (not kept) ->" in text_of(bench, sync)


def test_values_of_a_field_that_is_marked_as_sensitive_later_are_taken_out(bench: Bench) -> None:
    sync = hook(bench, "kept_later")
    load(bench, k1="Ann", k2="Bobby Tables")
    bench.run(sync)
    fields = (FieldSpec("email", "email"), FieldSpec("firstname", "firstname", sensitive=True))
    marked = dataclasses.replace(sync, fields=fields)
    assert bench.run(marked).candidates == 0
    home = home_of(bench, marked)
    (path,) = home.folder.glob("values-*.parquet")
    assert [row["payload"] for row in pq.read_table(path).sort_by("key").to_pylist()] == [
        '{"email":"k1@x.org"}',
        '{"email":"k2@x.org"}',
    ]
    load(bench, k1="Ann", k2="Bob")
    assert look(bench, marked)["2"].before == {"email": "k2@x.org"}


def test_a_run_that_died_after_its_answers_loses_no_value(bench: Bench) -> None:
    sync = hook(bench, "kept_died")
    load(bench, k1="Ann", k2="Bob")
    ctx = bench.context("dead", alive=lambda _holder: False)
    made = bench.plan(sync, ctx)
    bench.write(sync, ctx, made.shards)
    # It dies here: the next plan folds what it left.
    load(bench, k1="Anna", k2="Bob")
    taking = bench.context("next", alive=lambda _holder: False)
    planned = bench.plan(sync, taking)
    assert planned.counts.changed == 1
    record(sync, taking, planned, bench.write(sync, taking, planned.shards))
    load(bench, k1="Anne", k2="Bobby")
    samples = look(bench, sync)
    assert samples["1"].before == {"email": "k1@x.org", "firstname": "Anna"}
    assert samples["2"].before == {"email": "k2@x.org", "firstname": "Bob"}


@pytest.mark.slow
def test_a_lost_answer_leaves_no_value_and_the_next_delivery_brings_one(bench: Bench) -> None:
    sync = hook(
        bench, "kept_lost", destination=dataclasses.replace(bench.crm(timeout=0.3), name="lost", kind="webhook")
    )
    load(bench, k1="Ann")
    bench.run(sync)
    load(bench, k1="Anna")
    bench.client.faults([{"match": {"path": "/*lost*"}, "times": None, "fault": {"kind": "reset", "applied": True}}])
    assert bench.run(sync).failures
    bench.client.clear_faults()
    load(bench, k1="Anne")
    assert look(bench, sync)["1"].before is None
    bench.run(sync)
    load(bench, k1="Annette")
    assert look(bench, sync)["1"].before == {"email": "k1@x.org", "firstname": "Anne"}


@pytest.mark.slow
def test_a_rejected_update_keeps_the_old_value_and_a_resync_brings_values(bench: Bench) -> None:
    sync = hook(bench, "kept_later", keep_values=False)
    load(bench, k1="Ann", k2="Bob")
    bench.run(sync)
    kept = dataclasses.replace(sync, keep_values=True)
    load(bench, k1="Anna", k2="Bob")
    bench.run(kept)
    load(bench, k1="Anne", k2="Bobby")
    samples = look(bench, kept)
    assert samples["1"].before is not None
    assert samples["2"].before is None
    # Switched off, the values go.
    bench.run(sync, options=PlanOptions(keys=("1",)))
    home = home_of(bench, sync)
    assert home.manifest().values == ""
    assert not list(home.folder.glob("values-*"))
