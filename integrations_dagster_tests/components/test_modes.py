"""Modes, cursors and owners in YAML: what goes together, and what is an error at load."""

from __future__ import annotations

import pytest

from integrations_dagster.components.load import load_project, load_specs
from integrations_dagster.sync.spec import GuardSpec, GuardsSpec
from integrations_dagster.vocabulary import Mode
from integrations_dagster_tests.components.project import DESTINATION, MODEL, SYNC, ProjectFolder


def test_a_cursor_knows_who_reads_the_model(project: ProjectFolder) -> None:
    project.write("people", MODEL + "  cursor: {column: updated_at, lookback: 2h}\n")
    project.write("people_to_hook", SYNC.replace("mirror", "append") + "  dedupe_window: 30d\n")
    (sync,) = load_specs(project.root)
    assert sync.model.cursor is not None
    assert (sync.model.cursor.column, sync.model.cursor.lookback) == ("updated_at", 7200.0)
    assert sync.model.readers == (("people_to_hook", "sandbox"),)
    assert (sync.mode, sync.dedupe_window) == (Mode.APPEND, 30 * 86_400.0)


@pytest.mark.parametrize("mode", ["mirror", "delete"])
def test_a_mode_that_needs_all_rows_takes_no_model_with_a_cursor(project: ProjectFolder, mode: str) -> None:
    project.write("people", MODEL + "  cursor: updated_at\n")
    text = SYNC if mode == "mirror" else SYNC.split("  fields:")[0].replace("mirror", "delete")
    project.write("people_to_hook", text)
    error = load_project(project.root).broken["people_to_hook"]
    assert f"mode is {mode}, and the model 'people' has a cursor" in error


def test_a_cursor_and_partitions_do_not_go_together(project: ProjectFolder) -> None:
    project.write("people", MODEL + "  cursor: updated_at\n  partitions: {daily: {start: 2026-06-01}}\n")
    assert "cursor and partitions do not go together" in load_project(project.root).broken["people"]


def test_a_duckdb_warehouse_is_no_home(project: ProjectFolder) -> None:
    project.write("people_to_hook", SYNC + "  home: warehouse\n")
    line = next(at for at, text in enumerate(SYNC.splitlines(), 1) if "schedule" in text)
    error = load_project(project.root).broken["people_to_hook"]
    assert error == (
        f'{project.place("people_to_hook", line)}: sync "people_to_hook": home is warehouse, but the warehouse '
        '"warehouse" of its model is of the kind duckdb, which keeps no state. Write `home: embedded`, or use a '
        "warehouse of the kind postgres."
    )


SECOND = SYNC.replace("people_to_hook", "second").replace("mirror", "upsert").replace("    name: full_name\n", "")


def both(project: ProjectFolder, first: str, second: str) -> dict[str, str]:
    """The errors of two syncs, by folder."""
    project.write("people_to_hook", first)
    project.write("second", second)
    return dict(load_project(project.root).broken)


def test_a_mirror_is_alone_at_its_object(project: ProjectFolder) -> None:
    broken = both(project, SYNC, SECOND)
    assert set(broken) == {"people_to_hook", "second"}, "neither of the two can be trusted"
    mine, theirs = (project.place(name, 7) for name in ("people_to_hook", "second"))
    assert broken["people_to_hook"] == (
        f'{mine}: sync "people_to_hook": mode is mirror, and the sync "second" ({project.place("second", 3)}) delivers '
        "to people of hook too, in mode upsert: a mirror (people_to_hook) is alone at its object. Leave it to one of "
        "them or, if this is meant, write `owner: true` in one."
    )
    assert broken["second"].startswith(f'{theirs}: sync "second": mode is upsert, and the sync "people_to_hook"')


def test_two_syncs_that_write_one_field_are_named_with_the_field(project: ProjectFolder) -> None:
    first = SYNC.replace("mirror", "upsert")
    broken = both(project, first, SECOND)
    assert broken["second"].startswith(
        f'{project.place("second", 9)}: sync "second": fields.source is written at people of hook by the sync '
        f'"people_to_hook" ({project.place("people_to_hook", 3)}) too'
    )
    assert "fields.source is written" in broken["people_to_hook"]
    assert both(project, first, SECOND.replace("source:", "city:")) == {}


@pytest.mark.parametrize("mode", ["mirror", "upsert"])
def test_one_owner_settles_it_and_two_do_not(project: ProjectFolder, mode: str) -> None:
    first = SYNC.replace("mirror", mode)
    assert both(project, first + "  owner: true\n", SECOND) == {}
    assert both(project, first, SECOND + "  owner: true\n") == {}
    broken = both(project, first + "  owner: true\n", SECOND + "  owner: true\n")
    assert "Both are marked as the owner. Write `owner: true` in one of them only." in broken["second"]


def test_other_objects_and_other_accounts_are_no_matter(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert both(project, SYNC, SECOND.replace("object: people", "object: others")) == {}
    project.write("hook2", DESTINATION.replace("name: hook", "name: hook2"))
    assert both(project, SYNC, SECOND.replace("destination: hook", "destination: hook2")) == {}
    # With one address the two are one account.
    monkeypatch.setenv("INTEGRATIONS_TARGET", "prod")
    assert set(both(project, SYNC, SECOND.replace("destination: hook", "destination: hook2"))) >= {"second"}


def test_a_path_meets_what_it_is_part_of(project: ProjectFolder) -> None:
    first = SYNC.replace("mirror", "upsert").replace("    source:", "    address:")
    second = SECOND.replace("    source:", "    address.city:")
    assert "fields.address.city is written" in both(project, first, second)["second"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "guards names no count"),
        ("{queried: {}}", "guards.queried names no limit"),
        ("{queried: {warn: 50%, stop: 20%}}", "guards.queried has a stop (20%) that is not above warn (50%)"),
        ("{added: {warn: -1}}", "guards.added.warn takes a share of the usual number"),
        ("{updated: {warn: 50%}}", "guards.updated is no key here"),
        ("{runs: 3, added: {most: 5}}", "guards.runs is wrong"),
    ],
)
def test_guards_that_make_no_sense_are_named(project: ProjectFolder, text: str, words: str) -> None:
    project.write("people_to_hook", f"{SYNC}  guards: {text}\n")
    assert words in load_project(project.root).broken["people_to_hook"]


def test_guards_arrive_in_the_spec(project: ProjectFolder) -> None:
    text = "  guards: {runs: 9, least: 7, queried: {warn: 50%, stop: 300%}, removed: {most: 5}}\n"
    project.write("people_to_hook", SYNC + text)
    (sync,) = load_specs(project.root)
    assert sync.guards == GuardsSpec({"queried": GuardSpec(0.5, 3.0), "removed": GuardSpec(most=5)}, 9, 7)
    project.write("people_to_hook", SYNC.replace("mirror", "upsert") + text)
    broken = load_project(project.root).broken["people_to_hook"]
    assert "guards.removed has no meaning: mode upsert removes no rows" in broken
