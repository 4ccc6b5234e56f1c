"""Lookups in YAML: what they mean, what is refused, and the assets that they bring."""

from __future__ import annotations

import dagster as dg
import pytest

from integrations_dagster.components.load import load_definitions, load_project
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster_tests.components.project import MODEL, WAREHOUSE, ProjectFolder

CRM = "type: integrations_dagster.Destination\nattributes: {name: crm, kind: hubspot}\n"
COMPANIES = """
type: integrations_dagster.Sync
attributes:
  name: crm_companies
  model: people
  destination: crm
  object: companies
  mode: upsert
  match: {company_ref: person_id}
  fields: {name: full_name}
"""
CONTACTS = """
type: integrations_dagster.Sync
attributes:
  name: crm_contacts
  model: people
  destination: crm
  object: contacts
  mode: upsert
  match: {email: full_name}
  fields:
    hubspot_owner_id: FIELD
  LOOKUPS
"""


def contacts(field: str, lookups: str = "") -> str:
    return CONTACTS.replace("FIELD", field).replace("LOOKUPS", f"lookups: {lookups}" if lookups else "")


def write(project: ProjectFolder, *syncs: str) -> None:
    for folder in ("hook", "people_to_hook"):
        (project.defs / folder / "defs.yaml").unlink(missing_ok=True)
    for folder, text in (("crm", CRM), ("people", MODEL), ("warehouse", WAREHOUSE)):
        project.write(folder, text)
    for number, text in enumerate(syncs):
        project.write(f"sync{number}", text)


def sync(project: ProjectFolder, *syncs: str) -> SyncSpec:
    write(project, *syncs)
    return load_project(project.root).sync("crm_contacts")


def test_a_reference_that_a_field_names_needs_no_more(project: ProjectFolder) -> None:
    spec = sync(project, contacts("{lookup: owners, column: owner_email}"))
    (lookup,), (field,) = spec.lookups, spec.fields
    assert (lookup.name, lookup.reference, lookup.sync) == ("owners", "owners", None)
    assert (lookup.key, lookup.value, lookup.normalization, lookup.cache) == ("email", "id", "trim_lower", 21_600.0)
    assert (lookup.no_match, lookup.several) == ("reject", "reject")
    assert (field.column, field.lookup) == ("owner_email", "owners")
    assert spec.columns == ("full_name", "owner_email")
    assert field.source is not None
    assert field.source.startswith("lookup:")


def test_all_that_a_lookup_may_say(project: ProjectFolder) -> None:
    keys = "{boss: {reference: companies, key: domain, value: name, cache: 1h, no_match: null, several: 'null'}}"
    (lookup,) = sync(project, contacts("{lookup: boss, column: d}", keys)).lookups
    assert (lookup.reference, lookup.key, lookup.value, lookup.cache) == ("companies", "domain", "name", 3600.0)
    assert (lookup.no_match, lookup.several) == ("null", "null")


@pytest.mark.parametrize(("key", "compared", "how"), [("company_ref", "match", "trim"), ("person_id", "key", "exact")])
def test_another_sync_by_its_match_value_or_primary_key(
    project: ProjectFolder, key: str, compared: str, how: str
) -> None:
    field = f"{{lookup: {{sync: crm_companies, key: {key}}}, column: c}}"
    spec = sync(project, COMPANIES, contacts(field))
    (lookup,) = spec.lookups
    assert lookup.sync is not None
    assert (lookup.sync.name, lookup.key, lookup.value) == ("crm_companies", compared, "destination_id")
    assert (lookup.normalization, spec.follows, spec.fields[0].lookup) == (how, ("crm_companies",), lookup.name)
    (same,) = sync(project, COMPANIES, contacts("{lookup: firm, column: c}", "{firm: {sync: crm_companies}}")).lookups
    assert same.key == "match"


def test_the_mapping_digest_follows_what_decides_the_value(project: ProjectFolder) -> None:
    def digest(lookups: str) -> str:
        return sync(project, contacts("{lookup: owners, column: c}", lookups)).mapping_digest

    plain = digest("")
    assert digest("{owners: {cache: 1h}}") == plain
    assert digest("{owners: {no_match: null}}") != plain
    assert digest("{owners: {value: firstName}}") != plain


@pytest.mark.parametrize(
    ("field", "lookups", "words"),
    [
        ("{lookup: owner, column: c}", "", '"owner" is neither a lookup of the sync nor reference data of HubSpot'),
        ("{lookup: x, column: c}", "{x: {reference: owner}}", 'lookups.x.reference "owner" is no reference data of'),
        ("{lookup: owners, column: c}", "{owners: {key: mail}}", 'lookups.owners.key "mail" is no column of owners'),
        ("{lookup: owners, column: c}", "{owners: {value: ids}}", 'Did you mean "id"?'),
        ("full_name", "{owners: {}}", "lookups.owners is used by no field"),
        ("{lookup: {sync: nobody}, column: c}", "", 'fields.hubspot_owner_id.lookup.sync "nobody" is no sync'),
        ("{lookup: {sync: crm_contacts}, column: c}", "", "goes round in a circle: crm_contacts → crm_contacts"),
        ("{lookup: {sync: crm_companies, key: name}, column: c}", "", '"name" is neither the match field nor the'),
        ("{lookup: x, column: c}", "{x: {sync: crm_companies, several: null}}", "has both `sync` and `several`"),
        ("{lookup: x, column: c}", "{x: {cache: soon}}", "lookups.x.cache takes seconds"),
    ],
)
def test_what_is_refused(project: ProjectFolder, field: str, lookups: str, words: str) -> None:
    with pytest.raises(Misconfigured, match="crm_contacts") as refused:
        sync(project, COMPANIES, contacts(field, lookups))
    assert words in str(refused.value)
    assert load_project(project.root).sync("crm_companies").name == "crm_companies", "the others are whole"


def test_a_sync_that_deletes_has_no_records(project: ProjectFolder) -> None:
    with pytest.raises(Misconfigured, match='"crm_companies" deletes records'):
        sync(
            project,
            COMPANIES.replace("mode: upsert", "mode: delete").replace("  fields: {name: full_name}\n", ""),
            contacts("{lookup: {sync: crm_companies}, column: c}"),
        )


def test_a_circle_of_two(project: ProjectFolder) -> None:
    back = COMPANIES.replace("{name: full_name}", "{name: {lookup: {sync: crm_contacts}, column: c}}")
    with pytest.raises(Misconfigured, match="crm_contacts → crm_companies → crm_contacts"):
        sync(project, back, contacts("{lookup: {sync: crm_companies}, column: c}"))


def test_a_destination_without_reference_data_says_so(project: ProjectFolder) -> None:
    text = contacts("{lookup: owners, column: c}").replace("destination: crm", "destination: hook")
    project.write("sync", text.replace("match: {email: full_name}", ""))
    with pytest.raises(Misconfigured, match=r"reference data of Webhook\. It has none"):
        load_project(project.root).sync("crm_contacts")


def test_lookups_are_assets_upstream_of_their_syncs(project: ProjectFolder) -> None:
    other = contacts("{lookup: owners, column: c}").replace("crm_contacts", "other").replace("hubspot_owner_id", "plan")
    fields = "{lookup: owners, column: c}\n    name: {lookup: {sync: crm_companies}, column: c}"
    write(project, COMPANIES, contacts(fields), other)
    definitions = load_definitions(project.defs)
    graph = definitions.resolve_asset_graph()
    owners = dg.AssetKey(["crm", "owners"])
    people, companies = dg.AssetKey("people"), dg.AssetKey("crm_companies")
    assert graph.get(dg.AssetKey("crm_contacts")).parent_keys == {people, companies, owners}
    assert graph.get(dg.AssetKey("other")).parent_keys == {people, owners}
    node = graph.get(owners)
    assert (node.group_name, node.parent_keys, node.is_executable) == ("crm", set(), True)
    assert "target sandbox" in (node.description or "")
    plain = dg.load_from_defs_folder(path_within_project=project.defs).resolve_asset_graph()
    assert owners in plain.get_all_asset_keys()
