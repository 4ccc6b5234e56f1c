"""Names over folders, broken folders, and what the two ways of loading make of a project."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import dagster as dg
import pytest

from integrations_dagster.components import Destination, Model, Sync, Warehouse
from integrations_dagster.components.destination import QuotaKeys, RequestLogKeys, RetryKeys, Target
from integrations_dagster.components.field_mapping import FieldMapping
from integrations_dagster.components.load import load_definitions, load_project, load_specs
from integrations_dagster.components.lookups import LookupKeys
from integrations_dagster.components.sync_keys import Alerts, AlertWhen, BatchKeys, FailWhen, Rejected, SyncLogKeys
from integrations_dagster.vocabulary import Misconfigured, Mode
from integrations_dagster_tests.components.project import DESTINATION, FOLDERS, MODEL, SYNC, WAREHOUSE, ProjectFolder


def assets(defs: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}


def broken(defs: dg.Definitions) -> dict[str, str]:
    """Descriptions of the assets that stand for broken folders, by key."""
    specs = defs.resolve_all_asset_specs()
    return {s.key.to_user_string(): s.description or "" for s in specs if s.group_name == "broken"}


def test_names_are_known_in_every_folder(project: ProjectFolder) -> None:
    (sync,) = load_specs(project.root)
    assert sync.name == "people_to_hook"
    assert sync.model.sql_path == project.root / "sql" / "people.sql"
    assert sync.model.primary_key == ("person_id",)
    assert sync.model.warehouse.path == project.root / "warehouse.duckdb"
    assert sync.destination.target.sandbox
    assert sync.mode is Mode.MIRROR
    assert [(f.target, f.column, f.value) for f in sync.fields] == [
        ("name", "full_name", None),
        ("source", None, "warehouse"),
    ]
    assert sync.source == project.place("people_to_hook", 3)
    assert (sync.batch_rows, sync.shards, sync.schedule, sync.on_model) == (None, 4, "*/15 * * * *", False)
    assert (sync.fail_rejected_above, sync.removal_limit, sync.alerts.slack) == (None, 0.2, None)


def test_all_in_one_file_is_the_same(project: ProjectFolder) -> None:
    apart = load_specs(project.root)[0]
    for folder in FOLDERS:
        (project.defs / folder / "defs.yaml").unlink()
        (project.defs / folder).rmdir()
    project.write("everything", "---".join([SYNC, MODEL, DESTINATION, WAREHOUSE]))
    together = load_specs(project.root)[0]
    assert together.model == apart.model
    assert together.destination == apart.destination
    assert together.mapping_digest == apart.mapping_digest


def test_what_yaml_says_arrives_in_the_spec(project: ProjectFolder) -> None:
    text = SYNC + (
        "  batch: {rows: 7}\n  shards: 2\n  trigger: model\n  removal_limit: 3%\n"
        "  fail_when: {rejected_above: 4%}\n  alerts: {slack: '#a', when: {rejected_above: 0.01}}\n"
    )
    project.write("people_to_hook", text)
    (sync,) = load_specs(project.root)
    assert (sync.batch_rows, sync.shards, sync.on_model) == (7, 2, True)
    assert (sync.removal_limit, sync.fail_rejected_above) == (0.03, 0.04)
    assert (sync.alerts.slack, sync.alerts.rejected_above) == ("#a", 0.01)


def test_a_target_is_picked_by_the_environment(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTEGRATIONS_TARGET", "prod")
    target = load_specs(project.root)[0].destination.target
    assert (target.name, target.sandbox, target.schedules) == ("prod", False, False)
    assert "HOOK_URL" in repr(target.base_url)
    assert "HOOK_SECRET" in repr(target.secret)


def test_a_target_that_one_destination_lacks_breaks_its_syncs_only(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("other", "type: integrations_dagster.Destination\nattributes: {name: other, kind: webhook}\n")
    project.write("to_other", SYNC.replace("people_to_hook", "to_other").replace("hook", "other"))
    monkeypatch.setenv("INTEGRATIONS_TARGET", "prod")
    loaded = load_project(project.root)
    assert [s.name for s in loaded.specs] == ["people_to_hook"]
    assert list(loaded.broken) == ["to_other"]
    for word in (project.place("to_other", 5), 'sync "to_other"', '"prod"', "INTEGRATIONS_TARGET", "one of: sandbox"):
        assert word in loaded.broken["to_other"]


def test_partitions(project: ProjectFolder) -> None:
    project.write("people", MODEL + "  partitions: {daily: {start: 2026-06-01, end: 2026-06-04}}\n")
    loaded = load_project(project.root)
    partitions = loaded.partitions["people"]
    assert partitions is not None
    assert partitions.get_partition_keys() == ["2026-06-01", "2026-06-02", "2026-06-03"]
    assert loaded.specs[0].model.partitioned
    graph = load_definitions(project.root).resolve_asset_graph()
    assert {graph.get(dg.AssetKey(name)).partitions_def for name in ("people", "people_to_hook")} == {partitions}


SECOND = SYNC.replace("people_to_hook", "second").replace("object: people", "object: others")
BOOK = """
type: integrations_dagster.Destination
attributes:
  name: book
  kind: sandbox_insert
"""


@pytest.mark.parametrize("isolating", [True, False], ids=["load_definitions", "load_from_defs_folder"])
def test_syncs_with_one_model_and_schedule_share_a_job(project: ProjectFolder, isolating: bool) -> None:
    project.write("second", SECOND)
    project.write(
        "third", SYNC.replace("people_to_hook", "third").replace("*/15", "0").replace("object: people", "object: third")
    )
    defs = load_definitions(project.root) if isolating else dg.load_from_defs_folder(path_within_project=project.root)
    assert assets(defs) == {"people", "people_to_hook", "second", "third"}
    jobs = [job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")]
    selected = {frozenset(key.to_user_string() for key in job.asset_layer.executable_asset_keys) for job in jobs}
    assert selected == {frozenset({"people", "people_to_hook", "second"}), frozenset({"people", "third"})}
    schedules = {s.cron_schedule for s in defs.get_repository_def().schedule_defs}
    assert schedules == {"*/15 * * * *", "0 * * * *"}


def test_every_setting_arrives(project: ProjectFolder) -> None:
    project.write(
        "book",
        BOOK
        + """
  quota: [{requests: 100, per: 10s}, {requests: 250000, per: 1d}]
  concurrency: 10
  retry: {attempts: 7, base: 0.25, cap: 1m}
  request_log: {days: 30, bodies: all}
""",
    )
    second = SECOND.replace(": hook", ": book").replace("mirror", "insert")
    second = second.replace("name: full_name", "name: {column: full_name, sensitive: true}")
    more = """
  batch: {rows: 50, bytes: 40000, row_bytes: 2000}
  in_doubt: resend
  rejected: {max_attempts: 3, wait: 5m, longest_wait: 2h}
"""
    project.write("second", second + more)
    sync = load_project(project.root).sync("second")
    assert (sync.mode, sync.in_doubt) == (Mode.INSERT, "resend")
    assert [sync.batch_rows, sync.batch_bytes, sync.row_bytes] == [50, 40_000, 2000]
    assert (sync.max_attempts, sync.retry_wait, sync.retry_wait_cap) == (3, 300, 7200)
    assert [(field.target, field.sensitive) for field in sync.fields] == [("name", True), ("source", False)]
    destination = sync.destination
    assert [*(destination.quotas or ())] == [(100, 10), (250_000, 86_400)]
    assert (destination.concurrency, destination.attempts) == (10, 7)
    assert (destination.backoff, destination.backoff_cap) == (0.25, 60)
    assert (destination.log_days, destination.log_bodies) == (30, "all")
    project.write("second", second.replace(", sensitive: true", "") + more)
    open_ = load_project(project.root).sync("second")
    # A mark changes nothing of what is sent, so that no row is mapped anew.
    assert open_.mapping_digest == sync.mapping_digest


def test_a_match_field_is_only_checked(project: ProjectFolder) -> None:
    project.write("crm", "type: integrations_dagster.Destination\nattributes: {name: crm, kind: hubspot}\n")
    text = SYNC.replace("people_to_hook", "second").replace(
        "destination: hook", "destination: crm\n  match: {email: e}"
    )
    text = text.replace("object: people", "object: contacts").replace("source:", "lifecyclestage:")
    for keys, words in (
        ("type: email, hash: sha256", "fields.email.hash would change match.email"),
        ("default: x", "fields.email.default would change match.email"),
        ("type: phone", "fields.email.type is phone, and match.email is compared as the model returns it"),
    ):
        project.write("second", text.replace("name: full_name", f"email: {{column: e, {keys}}}"))
        assert words in load_project(project.root).broken["second"]
    project.write("second", text.replace("name: full_name", "email: {column: e, type: email}") + "  nulls: clear\n")
    sync = load_project(project.root).sync("second")
    assert [(f.rule.type, f.rule.nulls) for f in sync.fields] == [("email", "omit"), (None, "clear")]


def test_the_fields_of_the_documentation_load(project: ProjectFolder) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = page.partition("## Fields")[2]
    block = section.partition("```yaml\n")[2].partition("```")[0]
    head = SECOND.partition("  fields:")[0]
    project.write("second", head + textwrap.indent(block, "  "))
    sync = load_project(project.root).sync("second")
    assert {f.rule.type for f in sync.fields} >= {"email", "phone", "enum", "number", "timestamp", "json", "string"}


def test_the_mapping_of_a_sync_without_new_keys_stays_what_it_was(project: ProjectFolder) -> None:
    """Its digest is kept in the state: another one would make every row of every sync a candidate."""
    (sync,) = load_specs(project.root)
    assert sync.mapping_digest == "c70109f2711180ce"
    project.write("people_to_hook", SYNC.replace("name: full_name", "name: {column: full_name, trim: true}"))
    assert load_specs(project.root)[0].mapping_digest != sync.mapping_digest


def test_columns_of_a_sensitive_expression_are_sensitive_in_the_model(project: ProjectFolder) -> None:
    expression = '{sql: "upper(full_name) || city", sensitive: true}'
    project.write("second", SECOND.replace("name: full_name", f"name: {expression}"))
    sync = load_project(project.root).sync("second")
    assert sync.columns == ("city", "full_name")
    assert sync.model.sensitive == {"full_name", "city"}


def test_dagsters_own_keys_work_beside_ours(project: ProjectFolder) -> None:
    after = """
post_processing:
  assets:
    - attributes:
        tags: {team: growth}
        owners: [ada@example.com]
"""
    project.write("people", MODEL + "  description: All the people.\n" + after)
    project.write("people_to_hook", SYNC + "  description: To the hook.\n" + after)
    graph = load_definitions(project.root).resolve_asset_graph()
    for name, description in (("people", "All the people."), ("people_to_hook", "To the hook.")):
        node = graph.get(dg.AssetKey(name))
        assert (node.description, node.tags["team"], node.owners) == (description, "growth", ["ada@example.com"])
        references = node.metadata["dagster/code_references"].code_references
        assert [Path(r.file_path).parent.name for r in references] == [name]


@pytest.mark.parametrize("isolating", [True, False], ids=["load_definitions", "load_from_defs_folder"])
def test_components_made_in_python(project: ProjectFolder, isolating: bool) -> None:
    (project.defs / "people" / "defs.yaml").unlink()
    code = """
        import dagster as dg
        from integrations_dagster import Model

        @dg.component_instance
        def people(context: dg.ComponentLoadContext) -> Model:
            return Model(sql="people.sql", primary_key="person_id")
    """
    project.write("people", code, "mine.py")
    defs = load_definitions(project.root) if isolating else dg.load_from_defs_folder(path_within_project=project.root)
    assert assets(defs) == {"people", "people_to_hook"}


BROKEN: dict[str, tuple[str, str, list[str]]] = {
    "yaml": ("type: integrations_dagster.Sync\nattributes:\n  name: [x\n", "defs.yaml", ["defs.yaml:4", "no YAML"]),
    "tab": ("type: integrations_dagster.Sync\nattributes:\n\tname: x\n", "defs.yaml", ["defs.yaml:3", "no YAML"]),
    "type": (
        "# a comment\ntype: integrations_dagster.Synk\n",
        "defs.yaml",
        ["defs.yaml:2", '"integrations_dagster.Synk"', 'Did you mean "integrations_dagster.Sync"?', "dg list"],
    ),
    "module": ("type: no_such_module.Sync\n", "defs.yaml", ["defs.yaml:1", "no_such_module", "dg list components"]),
    "beside": (
        "type: integrations_dagster.Model\natributes: {}\n",
        "defs.yaml",
        ["defs.yaml:2", "atributes", 'Did you mean "attributes"?'],
    ),
    "nothing": ("type: integrations_dagster.Model\n", "defs.yaml", ["defs.yaml:1", "model: primary_key is missing"]),
    "empty": ("", "defs.yaml", ["defs.yaml", "No components"]),
    "key": (MODEL.replace("sql:", "sq:"), "defs.yaml", ["defs.yaml:3", 'Did you mean "sql"?']),
    "sql": (
        MODEL.replace("people.sql", "peopel.sql"),
        "defs.yaml",
        ["defs.yaml:3", 'model "peopel"', 'Did you mean "people.sql"?', "sql/peopel.sql"],
    ),
    "warehouse_name": (
        MODEL + "  name: other\n  warehouse: warehous\n",
        "defs.yaml",
        ["defs.yaml:6", 'model "other"', '"warehous" is no warehouse', 'Did you mean "warehouse"?'],
    ),
    "no_model": (
        SECOND.replace("model: people", "model: poeple"),
        "defs.yaml",
        ["defs.yaml:4", 'sync "second"', '"poeple" is no model', 'Did you mean "people"? Known: people.'],
    ),
    "no_destination": (
        SECOND.replace("destination: hook", "destination: nowhere"),
        "defs.yaml",
        ["defs.yaml:5", 'sync "second"', '"nowhere" is no destination', "Known: hook.", "type: integrations_dagster."],
    ),
    "batch": (
        SECOND + "  batch: {rows: 1000000}\n",
        "defs.yaml",
        ["defs.yaml:12", 'sync "second"', "batch.rows is 1000000", "at the most"],
    ),
    "never_in_doubt": (
        SECOND + "  in_doubt: hold\n",
        "defs.yaml",
        [
            "defs.yaml:12",
            'sync "second"',
            "in_doubt has no meaning: in mode mirror",
            "may be repeated",
            "Leave it out.",
        ],
    ),
    "no_look_up": (
        "---".join([BOOK, SECOND.replace(": hook", ": book").replace("mirror", "insert") + "  in_doubt: verify\n"]),
        "defs.yaml",
        ['sync "second"', "in_doubt is verify, but", "cannot look up others without `match`", "Write hold or resend."],
    ),
    "real_account": (
        BOOK + "  targets: {prod: {base_url: https://book.example}}\n",
        "defs.yaml",
        ["defs.yaml:5", 'destination "book"', "targets.prod is a real account", "`prod: {sandbox: true}`"],
    ),
    "sensitive_key": (
        SECOND.replace("name: full_name", "name: {column: person_id, sensitive: true}"),
        "defs.yaml",
        ["defs.yaml:9", 'sync "second"', "fields.name.sensitive marks the column 'person_id'", "in the primary key"],
    ),
    "expression": (
        SECOND.replace("name: full_name", "name: {sql: 'upper(full_name'}"),
        "defs.yaml",
        ["defs.yaml:9", 'sync "second"', "fields.name.sql cannot be read as duckdb SQL: "],
    ),
    "no_expression": (
        SECOND.replace("name: full_name", "name:\n      sql: (SELECT 1)"),
        "defs.yaml",
        ["defs.yaml:10", 'sync "second"', "fields.name.sql is a query or statement, or holds one."],
    ),
    "default": (
        SECOND.replace("name: full_name", "name:\n      column: age\n      type: integer\n      default: many"),
        "defs.yaml",
        ["defs.yaml:12", 'sync "second"', 'fields.name.default does not fit: the text "many" is no integer.'],
    ),
    "constant": (
        SECOND.replace("name: full_name", "name: {value: nobody, type: email}"),
        "defs.yaml",
        ["defs.yaml:9", 'fields.name.value does not fit: the text "nobody" is no email address'],
    ),
    "path": (
        SECOND.replace("name: full_name", "name: full_name\n    name.first: full_name"),
        "defs.yaml",
        ["defs.yaml:10", "fields.name.first lies in name, which is a field itself."],
    ),
    "path_part": (
        SECOND.replace("name: full_name", "name..first: full_name"),
        "defs.yaml",
        ["defs.yaml:9", "fields.name..first is no path: a part between its dots is empty."],
    ),
    "python": ("x = 1\nraise RuntimeError('boom')\n", "mine.py", ["mine.py:2", "RuntimeError", "boom"]),
    "syntax": ("x = 1\ndef f(:\n", "mine.py", ["mine.py:2", "SyntaxError"]),
    "exit": ("import sys\nsys.exit(3)\n", "mine.py", ["mine.py:2", "SystemExit"]),
    "clash": ("import dagster as dg\n@dg.asset\ndef people(): ...\n", "mine.py", ["people", "clash"]),
}


@pytest.mark.quick(9)
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_leaves_the_others(project: ProjectFolder, case: str) -> None:
    text, file, words = BROKEN[case]
    project.write(case, text, file)
    defs = load_definitions(project.root)
    ((key, message),) = broken(defs).items()
    assert key == ("type_broken" if case == "type" else case)  # `type` is a word that Dagster reserves
    assert assets(defs) == {"people", "people_to_hook", key}
    for word in [f"defs/{case}", *words]:
        assert word in message
    assert str(project.root) not in message
    jobs = [job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")]
    assert len(jobs) == 1
    if case != "clash":  # which only assets can show
        assert list(load_project(project.root).broken) == [case]


def test_a_broken_asset_cannot_run_and_says_why(project: ProjectFolder) -> None:
    project.write("bad", BROKEN["type"][0])
    defs = load_definitions(project.root)
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        asset_selection=[dg.AssetKey("bad")], raise_on_error=False
    )
    assert not result.success
    assert any("Did you mean" in str(e.event_specific_data) for e in result.all_events if e.is_step_failure)


def test_the_destination_is_asked_at_load(project: ProjectFolder) -> None:
    project.write("crm", "type: integrations_dagster.Destination\nattributes: {name: crm, kind: hubspot}\n")
    text = SYNC.replace("people_to_hook", "second").replace("destination: hook", "destination: crm")
    project.write("second", text.replace("object: people", "object: no_such_object"))
    message = load_project(project.root).broken["second"]
    assert message.startswith(f'{project.place("second", 3)}: sync "second": ')
    assert "no_such_object" in message
    assert "contacts" in message


def test_a_sync_breaks_with_the_folder_of_its_model(project: ProjectFolder) -> None:
    project.write("people", "- this\n  is: [no YAML\n# sql: people.sql")
    defs = load_definitions(project.root)
    assert assets(defs) == {"people", "people_to_hook"} == set(broken(defs))
    message = broken(defs)["people_to_hook"]
    for word in (
        project.place("people_to_hook", 4),
        '"people" is no model',
        'folder "people"',
        project.place("people", 2),
    ):
        assert word in message


def test_a_sync_breaks_with_a_later_fault_in_the_folder_of_its_model(project: ProjectFolder) -> None:
    project.write("people", "---".join([MODEL, SECOND.replace("destination: hook", "destination: none")]))
    loaded = load_project(project.root)
    assert set(loaded.broken) == {"people", "people_to_hook"}
    assert loaded.specs == ()


def test_one_name_twice_breaks_both(project: ProjectFolder) -> None:
    project.write("again", SYNC)
    found = load_project(project.root).broken
    assert set(found) == {"again", "people_to_hook"}
    assert project.place("people_to_hook", 3) in found["again"]
    assert "Rename one of them." in found["again"]


@pytest.mark.parametrize("name", ["people", "hook"])
def test_a_sync_may_not_be_called_as_a_model(project: ProjectFolder, name: str) -> None:
    project.write("again", SYNC.replace("people_to_hook", name).replace("object: people", "object: again"))
    found = load_project(project.root).broken
    assert ("again" in found) is (name == "people")


def test_a_broken_folder_that_is_called_as_an_asset(project: ProjectFolder) -> None:
    project.write("moved", MODEL)
    (project.defs / "people" / "defs.yaml").write_text("nonsense: [")
    defs = load_definitions(project.root)
    assert assets(defs) == {"people", "people_to_hook", "people_broken"}


def test_while_checking_a_broken_folder_is_an_error(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")
    load_definitions(project.root)
    project.write("bad", BROKEN["key"][0])
    project.write("worse", BROKEN["tab"][0])
    with pytest.raises(Misconfigured) as caught:
        load_definitions(project.root)
    assert project.place("bad", 3) in str(caught.value)
    assert project.place("worse", 3) in str(caught.value)


def test_a_sync_by_name(project: ProjectFolder) -> None:
    project.write("bad", BROKEN["key"][0])
    loaded = load_project(project.root)
    assert loaded.sync("people_to_hook").name == "people_to_hook"
    with pytest.raises(Misconfigured) as caught:
        loaded.sync("people_to_hok")
    for word in ('Did you mean "people_to_hook"?', "folder bad is broken", project.place("bad", 3)):
        assert word in str(caught.value)


def test_no_project(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(Misconfigured, match=r"is in no Dagster project.*pyproject\.toml"):
        load_project(tmp_path_factory.mktemp("nothing"))


def test_plain_loading_names_the_mistake_too(project: ProjectFolder) -> None:
    project.write("people_to_hook", SYNC.replace("model: people", "model: poeple"))
    with pytest.raises(Exception, match="people_to_hook") as caught:
        dg.load_from_defs_folder(path_within_project=project.root)
    chain: list[BaseException] = [caught.value]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    ours = [e for e in chain if isinstance(e, Misconfigured)]
    assert project.place("people_to_hook", 4) in str(ours[0])


def test_the_example_of_the_documentation_loads(project: ProjectFolder) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    for folder in FOLDERS:
        (project.defs / folder / "defs.yaml").unlink()
        (project.defs / folder).rmdir()
    (project.root / "sql" / "customers.sql").write_text("SELECT 1 AS customer_id\n")
    project.write("example", example)
    loaded = load_project(project.root)
    assert dict(loaded.broken) == {}
    assert [sync.name for sync in loaded.specs] == ["crm_contacts"]


def test_the_documentation_names_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[a-z_]+", page))
    for component in (
        Warehouse,
        Model,
        Destination,
        Sync,
        Target,
        QuotaKeys,
        RetryKeys,
        RequestLogKeys,
        FieldMapping,
        LookupKeys,
        BatchKeys,
        Rejected,
        SyncLogKeys,
        FailWhen,
        Alerts,
        AlertWhen,
    ):
        assert {*component.keys(), *component.not_built} <= named, component.__name__
