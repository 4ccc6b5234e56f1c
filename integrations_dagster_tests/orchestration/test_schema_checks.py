"""Fields that vanish, are read-only or of another type, as asset checks of real runs; reference data as assets."""

from __future__ import annotations

import dataclasses
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance

from integrations_dagster.orchestration.lookups import lookup_asset, lookup_key
from integrations_dagster.sync.spec import FieldSpec, LookupSpec
from integrations_dagster_tests.orchestration.shop import Shop
from integrations_dagster_tests.orchestration.test_syncs import failure, run, values

FIELDS = (FieldSpec("firstname", "name"), FieldSpec("plan", "name"))


@pytest.fixture(autouse=True)
def fresh_sandbox(shop: Shop) -> None:
    shop.client.reset()
    shop.load_customers({1: "Ada", 2: "Bo"})


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """Evaluations by name of the check; each check has one."""
    found = result.get_asset_check_evaluations()
    assert len({check.check_name for check in found}) == len(found)
    return {check.check_name: check for check in found}


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {name: check.passed for name, check in checks(result).items()}


ALL_WELL = {"rows_accepted": True, "fields_fit": True, "schema_unchanged": True}


def listed(result: dg.AssetCheckEvaluation, name: str) -> list[str]:
    """The texts that a check's metadata lists."""
    return str(result.metadata[name].value).split("; ")


def test_a_property_that_disappears_fails_its_check_by_name(shop: Shop, instance: DagsterInstance) -> None:
    sync = shop.contacts(fields=FIELDS)
    first = run(shop, instance, sync)
    assert (first.success, verdicts(first)) == (True, ALL_WELL)
    shop.client.remove_property("contacts", "plan")
    shop.load_customers({1: "Ada", 2: "Bob"})
    seq = shop.client.last_seq()
    broken = run(shop, instance, sync)
    assert not broken.success
    told = failure(broken, "crm_contacts.plan")
    assert "Field 'plan' does not exist." in told
    assert "Nothing was sent" in told
    assert verdicts(broken) == {"fields_fit": False, "schema_unchanged": False}
    fit, drift = checks(broken)["fields_fit"], checks(broken)["schema_unchanged"]
    assert listed(fit, "fields that do not fit") == ["plan"]
    assert (fit.severity, "'plan' does not exist" in (fit.description or "")) == (dg.AssetCheckSeverity.ERROR, True)
    assert listed(drift, "used") == ["plan exists no more"]
    assert {r["method"] for r in shop.client.received(since=seq)} == {"GET"}
    # It stays so until someone mends it, and the next run delivers what was missing.
    assert verdicts(run(shop, instance, sync)) == {"fields_fit": False, "schema_unchanged": False}
    shop.client.define_property("contacts", "plan")
    mended = run(shop, instance, sync)
    assert (mended.success, verdicts(mended)["fields_fit"]) == (True, True)
    names = {r["properties"]["firstname"]: r["properties"].get("plan") for r in shop.client.records("contacts")}
    assert names == {"Ada": None, "Bob": "Bob"}


@pytest.mark.slow
def test_a_read_only_field_and_one_of_another_type(shop: Shop, instance: DagsterInstance) -> None:
    sync = shop.contacts(fields=(*FIELDS, FieldSpec("lifetime_value", "id")))
    assert run(shop, instance, sync).success
    shop.client.change_property("contacts", "lifetime_value", type="bool")
    shop.load_customers({1: "Ada", 2: "Bob"})
    odd = run(shop, instance, sync)
    assert verdicts(odd) == {"rows_accepted": False, "fields_fit": False, "schema_unchanged": False}
    fit = checks(odd)["fields_fit"]
    assert (fit.severity, listed(fit, "fields that do not fit")) == (dg.AssetCheckSeverity.WARN, ["lifetime_value"])
    assert "takes values of type bool, and the column id is INTEGER" in (fit.description or "")
    assert listed(checks(odd)["schema_unchanged"], "used") == [
        "lifetime_value was of type number and is bool",
    ]
    shop.client.change_property("contacts", "lifetime_value", type="number", read_only=True)
    shop.load_customers({1: "Ada", 2: "Bo", 3: "Cy"})
    broken = run(shop, instance, sync)
    assert (broken.success, listed(checks(broken)["fields_fit"], "fields that do not fit")) == (
        False,
        ["lifetime_value"],
    )
    assert "lifetime_value' is read-only" in failure(broken, "crm_contacts.plan")


def test_a_quiet_run_asks_nothing_and_drift_is_told_once(shop: Shop, instance: DagsterInstance) -> None:
    sync = shop.contacts(fields=FIELDS)
    assert run(shop, instance, sync).success
    shop.client.change_property("contacts", "plan", type="enumeration", options=["Ada", "Bo", "Cy"])
    shop.client.define_property("contacts", "unused")
    seq = shop.client.last_seq()
    quiet = run(shop, instance, sync)
    assert (verdicts(quiet), shop.client.received(since=seq)) == (ALL_WELL, [])
    shop.load_customers({1: "Ada", 2: "Bo", 3: "Cy"})
    seq = shop.client.last_seq()
    changed = run(shop, instance, sync)
    assert verdicts(changed) == ALL_WELL | {"schema_unchanged": False}
    drift = checks(changed)["schema_unchanged"]
    assert listed(drift, "used") == [
        "plan was of type string and is enumeration",
        "plan has the new option(s) Ada, Bo, Cy",
    ]
    assert listed(drift, "not used") == ["unused is new"]
    reads = [r["path"] for r in shop.client.received(since=seq) if r["method"] == "GET"]
    assert reads == ["/crm/v3/properties/contacts"], "once, for all shards"
    shop.load_customers({1: "Ada", 2: "Bo", 3: "Bo"})
    assert verdicts(run(shop, instance, sync)) == ALL_WELL


@pytest.mark.slow
def test_drift_of_the_model(shop: Shop, instance: DagsterInstance) -> None:
    sync = shop.hook()
    assert sync.model.sql_path is not None
    assert verdicts(run(shop, instance, sync)) == {"rows_accepted": True, "schema_unchanged": True}
    sync.model.sql_path.write_text("SELECT id, email, name, length(name) AS size FROM customers", "utf-8")
    added = run(shop, instance, sync)
    assert verdicts(added)["schema_unchanged"]
    assert listed(checks(added)["schema_unchanged"], "not used") == ["column size is new"]
    sync.model.sql_path.write_text("SELECT id, email, name = 'Ada' AS name FROM customers", "utf-8")
    changed = checks(run(shop, instance, sync))["schema_unchanged"]
    assert (changed.passed, listed(changed, "used")) == (False, ["column name was VARCHAR and is BOOLEAN"])


def test_fields_that_cannot_be_read_stop_nothing(shop: Shop, instance: DagsterInstance) -> None:
    shop.client.faults([{"match": {"path": "*/properties/*"}, "fault": {"kind": "status", "status": 403}}])
    result = run(shop, instance, shop.contacts(fields=FIELDS))
    assert (result.success, len(shop.client.records("contacts"))) == (True, 2)
    assert verdicts(result) == ALL_WELL | {"fields_fit": False}
    fit = checks(result)["fields_fit"]
    assert (fit.severity, "could not be read" in (fit.description or "")) == (dg.AssetCheckSeverity.WARN, True)


def test_a_sensitive_property_is_found_among_those_that_are_not_listed(shop: Shop, instance: DagsterInstance) -> None:
    shop.client.change_property("contacts", "plan", sensitivity="highly_sensitive")
    assert verdicts(run(shop, instance, shop.contacts(fields=FIELDS))) == ALL_WELL
    # Without the right to see them they are as good as missing.
    shop.client.change_property("contacts", "plan", sensitivity="sensitive")
    forbidden = {"match": {"path": "*/properties/*"}, "after": 1, "fault": {"kind": "status", "status": 403}}
    shop.client.faults([forbidden])
    shop.load_customers({1: "Ada", 2: "Bob"})
    assert listed(
        checks(run(shop, instance, shop.contacts(fields=FIELDS)))["fields_fit"], "fields that do not fit"
    ) == ["plan"]


@pytest.mark.slow
def test_a_description_is_used_for_its_time_but_never_to_call_a_field_missing(
    shop: Shop, instance: DagsterInstance
) -> None:
    sync = shop.contacts(fields=FIELDS)
    sync = dataclasses.replace(sync, destination=dataclasses.replace(sync.destination, fields_cache=3600.0))
    assert run(shop, instance, sync).success
    shop.load_customers({1: "Ada", 2: "Bob"})
    seq = shop.client.last_seq()
    assert run(shop, instance, sync).success
    assert not [r for r in shop.client.received(since=seq) if r["method"] == "GET"]
    wider = dataclasses.replace(sync, fields=(*FIELDS, FieldSpec("brand_new", "name")))
    assert not run(shop, instance, wider).success
    shop.client.define_property("contacts", "brand_new")
    assert run(shop, instance, wider).success
    # It vanishes while the description is still used: the destination refuses, and the next run asks anew.
    shop.client.remove_property("contacts", "brand_new")
    shop.load_customers({1: "Ada", 2: "Bobby"})
    refused = run(shop, instance, wider)
    assert (refused.success, verdicts(refused)["fields_fit"]) == (False, True)
    assert "brand_new" in failure(refused, "crm_contacts.record")
    assert listed(checks(run(shop, instance, wider))["fields_fit"], "fields that do not fit") == ["brand_new"]


# Reference data as assets

OWNERS = LookupSpec("owners", reference="owners", key="email", value="id", normalization="trim_lower", cache=3600.0)


def owned(shop: Shop) -> Any:
    return shop.contacts(
        fields=(FieldSpec("firstname", "name"), FieldSpec("hubspot_owner_id", "email", lookup="owners")),
        lookups=(OWNERS,),
    )


def test_reference_data_is_an_asset_upstream_of_its_syncs(shop: Shop, instance: DagsterInstance) -> None:
    ann = shop.client.define_owner("c1@example.com")
    shop.client.define_owner("c2@example.com")
    sync = owned(shop)
    asset = lookup_asset(sync.destination, "owners", ("email", "id"))
    definitions = dg.Definitions.merge(shop.definitions(sync), dg.Definitions(assets=[asset]))
    key = lookup_key("crm", "owners")
    graph = definitions.resolve_asset_graph()
    assert graph.get(dg.AssetKey("crm_contacts")).parent_keys == {dg.AssetKey("customers"), key}
    result = run(shop, instance, sync)
    assert result.success
    assert {r["properties"]["hubspot_owner_id"] for r in shop.client.records("contacts")} >= {ann}
    (told,) = result.asset_materializations_for_node("crm_contacts.record")
    assert told.metadata["requests_plan"].value == 2
    (looked_up,) = values(told)["lookups"]
    assert {**looked_up.data, "age_seconds": 0} == {"name": "owners", "records": 2, "age_seconds": 0, "read": True}
    (read,) = result.asset_materializations_for_node("crm_contacts.plan")
    assert (read.asset_key, read.metadata["dagster/row_count"].value, read.metadata["requests"].value) == (key, 2, 1)
    event = instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization == read
    # By hand it is read anew, and the next run uses that.
    seq = shop.client.last_seq()
    by_hand = dg.materialize([asset], instance=instance)
    (read,) = by_hand.asset_materializations_for_node("crm__owners")
    assert (by_hand.success, read.metadata["requests"].value) == (True, 1)
    again = run(shop, instance, sync)
    assert again.success
    assert again.asset_materializations_for_node("crm_contacts.plan") == []
    assert [r["path"] for r in shop.client.received(since=seq)] == ["/crm/v3/owners"]


def test_a_sync_that_looks_up_in_another_comes_after_it(shop: Shop, instance: DagsterInstance) -> None:
    other = shop.contacts(name="accounts")
    lookup = LookupSpec("accounts", sync=other, key="key", value="destination_id")
    sync = shop.contacts(
        name="links", match={"email": "email"},
        fields=(FieldSpec("customer_id", "id", lookup="accounts"),), lookups=(lookup,),
    )  # fmt: skip
    definitions = shop.definitions(other, sync)
    parents = definitions.resolve_asset_graph().get(dg.AssetKey("links")).parent_keys
    assert parents == {dg.AssetKey("customers"), dg.AssetKey("accounts")}
    everything = dg.define_asset_job("everything", selection="*")
    job = dg.Definitions.merge(definitions, dg.Definitions(jobs=[everything])).resolve_job_def("everything")
    result = job.execute_in_process(instance=instance)
    assert result.success
    held = {r["id"]: r["properties"].get("customer_id") for r in shop.client.records("contacts")}
    assert len(held) == 2
    assert held == {id_: id_ for id_ in held}
