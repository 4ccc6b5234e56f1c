"""Guards on volume, and on removals in the modes that remove."""

from __future__ import annotations

import dataclasses

import pytest

from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.spec import FieldSpec, GuardSpec, GuardsSpec, SyncSpec
from integrations_dagster.vocabulary import GuardTripped, Mode
from integrations_dagster_tests.sync.harness import Bench

COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "firstname": "VARCHAR"}


def load(bench: Bench, count: int, changed: int = 0, version: str = "") -> None:
    """Rows 0 to `count`, the first `changed` of which have another name."""
    rows = [
        {"id": n, "email": f"p{n}@x.org", "firstname": f"{version if n < changed else ''}name"} for n in range(count)
    ]
    bench.load("people", rows, COLUMNS)


def guarded(bench: Bench, mode: Mode = Mode.MIRROR, least: int = 5, **limits: GuardSpec) -> SyncSpec:
    model = bench.model("people", "SELECT * FROM people")
    return bench.contacts(model, mode, removal_limit=1.0, guards=GuardsSpec(limits, runs=5, least=least))


def usual(bench: Bench, sync: SyncSpec, count: int = 40) -> None:
    """A first run, and five that change one row each."""
    for n in range(6):
        load(bench, count, 1, f"v{n} ")
        bench.run(sync)


def test_a_number_far_from_the_usual_warns_and_farther_stops(bench: Bench) -> None:
    limits = GuardSpec(warn=0.5, stop=0.9)
    sync = guarded(bench, queried=limits)
    usual(bench, sync)
    load(bench, 55)
    assert not bench.plan_only(sync).warnings
    load(bench, 65)
    (warning,) = bench.plan_only(sync).warnings
    assert warning == (
        "65 rows queried: more than the usual 40 (median of 5 runs) by over 50% (`guards.queried.warn`)."
    )
    load(bench, 90)
    with pytest.raises(GuardTripped, match=r"90 rows queried: more .* by over 90%.*Nothing was sent.*allow_volume"):
        bench.run(sync)
    load(bench, 2)
    with pytest.raises(GuardTripped, match=r"2 rows queried: fewer than the usual 40 .* by over 90%"):
        bench.run(sync)
    assert len(bench.emails()) == 40
    report = bench.run(sync, options=PlanOptions(allow_volume=True))
    assert report.counts.removed == 38
    assert any("fewer than the usual 40" in note for note in report.notes)


@pytest.mark.slow
def test_changes_beyond_the_usual_stop_and_fewer_do_not(bench: Bench) -> None:
    sync = guarded(bench, changed=GuardSpec(stop=5.0), added=GuardSpec(warn=1.0), removed=GuardSpec(stop=1.0))
    usual(bench, sync)
    load(bench, 40, 30, "much ")
    with pytest.raises(GuardTripped, match=r"30 rows changed: more than the usual 1 .* by over 500%"):
        bench.run(sync)
    load(bench, 60)
    assert "20 rows added: more than the usual 0 " in bench.plan_only(sync).warnings[0]
    load(bench, 30)
    with pytest.raises(GuardTripped, match="10 rows removed: more than the usual 0"):
        bench.run(sync)
    load(bench, 40, 1, "v5 ")
    assert bench.run(sync).candidates == 0


@pytest.mark.slow
def test_a_few_rows_are_never_unusual_and_most_holds_from_the_first_run(bench: Bench) -> None:
    sync = guarded(bench, least=50, queried=GuardSpec(stop=0.1), added=GuardSpec(most=39))
    load(bench, 40)
    with pytest.raises(GuardTripped, match=r"40 rows added: more than `guards.added.most` \(39\)"):
        bench.run(sync)
    bench.run(sync, options=PlanOptions(allow_volume=True))
    usual(bench, sync)
    load(bench, 75)
    assert bench.run(sync).counts.added == 35


@pytest.mark.slow
def test_a_new_mapping_and_a_resync_are_no_changes_of_volume(bench: Bench) -> None:
    sync = guarded(bench, changed=GuardSpec(stop=1.0))
    usual(bench, sync)
    constant = (*sync.fields, FieldSpec("lastname", value="new"))
    wider = dataclasses.replace(sync, fields=constant)
    assert len(bench.run(wider).failures) == 0
    bench.run(wider, options=PlanOptions(full_resync=True))
    load(bench, 40, 30, "much ")
    with pytest.raises(GuardTripped):
        bench.run(wider)


@pytest.mark.slow
def test_a_mapping_is_new_until_a_plan_with_it_has_succeeded(bench: Bench) -> None:
    sync = guarded(bench, queried=GuardSpec(stop=0.5), changed=GuardSpec(stop=5.0))
    usual(bench, sync)
    fields = (FieldSpec("email", "email"), FieldSpec("lastname", "firstname"))
    mapped = dataclasses.replace(sync, fields=fields)
    load(bench, 5)
    with pytest.raises(GuardTripped, match="5 rows queried"):
        bench.run(mapped)
    load(bench, 40, 1, "v5 ")
    report = bench.run(mapped)
    assert any("The mapping has changed" in note for note in report.notes)
    assert report.counts.changed == 40


@pytest.mark.quick(1)
@pytest.mark.parametrize("mode", [Mode.MIRROR, Mode.DELETE])
@pytest.mark.parametrize("left", [0, 70])
def test_an_emptied_and_a_much_shorter_model_sends_nothing(bench: Bench, mode: Mode, left: int) -> None:
    load(bench, 100)
    model = bench.model("people", "SELECT * FROM people")
    bench.run(bench.contacts(model, name="first"))
    if mode is Mode.DELETE:
        sync = bench.contacts(model, mode, name="second", fields=(), removal_limit=1000.0)
        bench.load("people", [{"id": n, "email": f"other{n}@x.org", "firstname": ""} for n in range(100)], COLUMNS)
    else:
        sync = bench.contacts(model, mode, name="second")
    bench.run(sync)
    before = bench.client.last_seq()
    load(bench, left) if mode is Mode.MIRROR else bench.load(
        "people", [{"id": n, "email": f"other{n}@x.org", "firstname": ""} for n in range(left)], COLUMNS
    )
    if mode is Mode.MIRROR:
        with pytest.raises(GuardTripped, match="removal_limit of 20%"):
            bench.run(sync)
    else:
        assert bench.run(sync).candidates == 0
    assert bench.client.last_seq() == before, "a request was sent"
    assert len(bench.emails()) == 100


def test_a_removal_limit_may_be_a_number_of_rows(bench: Bench) -> None:
    load(bench, 40)
    sync = bench.contacts(bench.model("people", "SELECT * FROM people"), Mode.MIRROR, removal_limit=3.0)
    bench.run(sync)
    load(bench, 36)
    with pytest.raises(GuardTripped, match=r"remove 4 of 40 records \(10%\), more than its removal_limit of 3;"):
        bench.run(sync)
    load(bench, 37)
    assert bench.run(sync).counts.removed == 3
