"""Values looked up in owners, in companies, and in what another sync has delivered."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from integrations_dagster.sync.account import DestinationUnavailable, account_key, connect_account
from integrations_dagster.sync.lookups import prepared_lookups
from integrations_dagster.sync.preview import preview
from integrations_dagster.sync.references import ReferenceRead, read_reference
from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.spec import FieldRule, FieldSpec, LookupSpec, SyncSpec
from integrations_dagster.vocabulary import Misconfigured, Mode, Status
from integrations_dagster_tests.sync.harness import Bench

COLUMNS = {"id": "INTEGER", "email": "VARCHAR", "owner": "VARCHAR", "company": "VARCHAR"}
OWNERS = LookupSpec("owners", reference="owners", key="email", value="id", normalization="trim_lower")


def people(**owners: str | None) -> list[dict[str, Any]]:
    """One contact for each name, with the email of its owner."""
    return [
        {"id": index, "email": f"{name}@example.com", "owner": owner}
        for index, (name, owner) in enumerate(owners.items())
    ]


def owned(bench: Bench, lookup: LookupSpec = OWNERS, **changes: Any) -> SyncSpec:
    """Contacts with an owner."""
    model = bench.model("people", "SELECT * FROM people")
    fields = (FieldSpec("hubspot_owner_id", "owner", lookup=lookup.name),)
    return bench.contacts(model, fields=fields, lookups=(lookup,), **changes)


def owners(bench: Bench) -> dict[str, str | None]:
    """What HubSpot holds: name of the contact to its owner's id."""
    return {
        record["properties"]["email"].partition("@")[0]: record["properties"].get("hubspot_owner_id")
        for record in bench.client.records("contacts")
    }


def asked(bench: Bench, since: int, path: str = "owners") -> int:
    """Requests for reference data since a moment."""
    return sum(path in request["path"] for request in bench.client.received(since=since))


def reasons(report: RunReport) -> dict[str, str]:
    return {row.key: row.reason for row in report.bad_rows}


def test_none_one_and_two_matches(bench: Bench) -> None:
    ann = bench.client.define_owner("Ann@Example.com")
    for _ in range(2):
        bench.client.define_owner("twin@example.com")
    bench.client.define_owner("gone@example.com", archived=True)
    rows = people(
        one=" ann@example.COM ",
        none="x@example.com",
        two="twin@example.com",
        null=None,
        empty=" ",
        old="gone@example.com",
    )
    bench.load("people", rows, COLUMNS)
    report = bench.run(owned(bench))
    assert owners(bench) == {"one": ann, "null": None, "empty": None}
    assert (report.counts.added, report.counts.invalid, report.outcomes[Status.INVALID]) == (3, 3, 3)
    told = reasons(report)
    assert told["1"] == "Field 'hubspot_owner_id': owners of crm have none whose email is 'x@example.com'."
    assert "2 owners of crm match 'twin@example.com'; which one is meant cannot be told." in told["2"]
    assert "have none whose email is 'gone@example.com'" in told["5"]
    # What is invalid stays so without another look at it, and its reason is told again.
    again = bench.run(owned(bench))
    assert (again.candidates, again.counts.invalid, again.counts.unchanged) == (0, 3, 3)
    assert reasons(again) == told


@pytest.mark.slow
def test_no_match_and_several_may_be_null(bench: Bench) -> None:
    ann = bench.client.define_owner("ann@example.com")
    for _ in range(2):
        bench.client.define_owner("twin@example.com")
    bench.load("people", people(one="ann@example.com", none="x@example.com", two="twin@example.com"), COLUMNS)
    report = bench.run(owned(bench, dataclasses.replace(OWNERS, no_match="null", several="null")))
    assert owners(bench) == {"one": ann, "none": None, "two": None}
    assert report.counts.invalid == 0
    lenient = dataclasses.replace(OWNERS, no_match="null")
    assert list(reasons(bench.run(owned(bench, lenient, name="other")))) == ["2"]


def test_records_that_agree_in_the_value_are_one_match(bench: Bench) -> None:
    for _ in range(2):
        bench.client.define_owner("twin@example.com", "Tina")
    bench.load("people", people(two="twin@example.com"), COLUMNS)
    model = bench.model("people", "SELECT * FROM people")
    lookup = dataclasses.replace(OWNERS, value="firstName")
    sync = bench.contacts(model, fields=(FieldSpec("firstname", "owner", lookup="owners"),), lookups=(lookup,))
    bench.run(sync)
    assert bench.emails() == {"two@example.com": "Tina"}


def test_all_pages_are_read_and_the_cache_keeps_them(bench: Bench) -> None:
    ids = [bench.client.define_owner(f"o{n}@example.com") for n in range(230)]
    bench.load("people", people(a="o0@example.com", b="o229@example.com"), COLUMNS)
    before = bench.client.last_seq()
    bench.run(owned(bench))
    assert owners(bench) == {"a": ids[0], "b": ids[229]}
    assert asked(bench, before) == 3
    before = bench.client.last_seq()
    bench.load("people", people(a="o1@example.com", b="o229@example.com"), COLUMNS)
    bench.run(owned(bench))
    assert (asked(bench, before), owners(bench)["a"]) == (0, ids[1])
    bench.run(owned(bench))
    bench.run(owned(bench, dataclasses.replace(OWNERS, cache=0.0)))
    assert asked(bench, before) == 3, "a cache time that has passed"


def test_a_changed_owner_makes_its_rows_candidates_and_no_others(bench: Bench) -> None:
    ann, bob = (bench.client.define_owner(f"{name}@example.com") for name in ("ann", "bob"))
    bench.load("people", people(a="ann@example.com", b="bob@example.com", c="ann@example.com"), COLUMNS)
    sync = owned(bench, dataclasses.replace(OWNERS, cache=0.0))
    bench.run(sync)
    bench.client.archive_owner(ann)
    new = bench.client.define_owner("ann@example.com")
    report = bench.run(sync)
    assert (report.counts.changed, report.counts.unchanged, report.outcomes[Status.UPDATED]) == (2, 1, 2)
    assert owners(bench) == {"a": new, "b": bob, "c": new}


def test_a_row_is_judged_anew_when_its_owner_appears(bench: Bench) -> None:
    bench.load("people", people(a="ann@example.com"), COLUMNS)
    sync = owned(bench, dataclasses.replace(OWNERS, cache=0.0))
    assert bench.run(sync).counts.invalid == 1
    assert bench.run(sync).counts.invalid == 1
    ann = bench.client.define_owner("ann@example.com")
    assert bench.run(sync).counts.added == 1
    assert owners(bench) == {"a": ann}


def test_companies_by_domain(bench: Bench) -> None:
    model = bench.model("firms", "SELECT * FROM firms")
    rows = [{"id": n, "name": f"Firm {n}", "domain": f"F{n}.example"} for n in range(120)]
    bench.load("firms", rows, {"id": "INTEGER", "name": "VARCHAR", "domain": "VARCHAR"})
    fields = (FieldSpec("name", "name"), FieldSpec("domain", "domain"), FieldSpec("company_ref", "id"))
    bench.run(bench.contacts(model, name="firms", object="companies", match={"company_ref": "id"}, fields=fields))
    ids = {r["properties"]["name"]: r["id"] for r in bench.client.records("companies")}
    people_ = [{"id": 1, "email": "a@example.com", "company": "f119.example"}]
    people_ += [{"id": 2, "email": "b@example.com", "company": "nowhere.example"}]
    bench.load("people", people_, COLUMNS)
    lookup = LookupSpec("companies", "companies", key="domain", value="id", normalization="trim_lower")
    named = dataclasses.replace(lookup, name="names", value="name")
    before = bench.client.last_seq()
    report = bench.run(
        bench.contacts(
            bench.model("people", "SELECT * FROM people"),
            fields=(
                FieldSpec("customer_id", "company", lookup="companies"),
                FieldSpec("company", "company", lookup="names"),
            ),
            lookups=(lookup, named),
        )
    )
    (record,) = bench.client.records("contacts")
    assert (record["properties"]["customer_id"], record["properties"]["company"]) == (ids["Firm 119"], "Firm 119")
    assert "nowhere.example" in reasons(report)["2"]
    assert asked(bench, before, "/objects/companies") == 2, "two pages, for both lookups"


@pytest.mark.quick(1)
@pytest.mark.parametrize("key", ["key", "match"])
def test_ids_that_another_sync_has_delivered(bench: Bench, key: str) -> None:
    """A contact names its company, which a sync of its own delivers."""
    firms = bench.model("firms", "SELECT * FROM firms")
    columns = {"id": "INTEGER", "ref": "VARCHAR", "name": "VARCHAR"}
    bench.load("firms", [{"id": 7, "ref": "C7", "name": "Seven"}], columns)
    companies = bench.contacts(
        firms,
        name="crm_companies",
        object="companies",
        match={"company_ref": "ref"},
        fields=(FieldSpec("name", "name"),),
    )
    wanted = ("7", "8") if key == "key" else ("C7", " C8 ")
    rows = [{"id": n, "email": f"p{n}@example.com", "company": c} for n, c in enumerate(wanted)]
    bench.load("people", rows, COLUMNS)
    how = "exact" if key == "key" else "trim"
    lookup = LookupSpec("company", sync=companies, key=key, value="destination_id", normalization=how)
    contacts = bench.contacts(
        bench.model("people", "SELECT * FROM people"),
        fields=(FieldSpec("customer_id", "company", lookup="company"),),
        lookups=(lookup,),
    )
    nothing_yet = bench.run(contacts)
    assert nothing_yet.counts.invalid == 2
    by = "id" if key == "key" else "company_ref"
    assert f"sync crm_companies has not delivered a record whose {by} is" in reasons(nothing_yet)["0"]
    bench.run(companies)
    report = bench.run(contacts)
    assert (report.counts.added, report.counts.invalid) == (1, 1)
    bench.load("firms", [{"id": 7, "ref": "C7", "name": "Seven"}, {"id": 8, "ref": "C8", "name": "Eight"}], columns)
    bench.run(companies)
    report = bench.run(contacts)
    assert (report.counts.added, report.counts.unchanged, report.counts.invalid) == (1, 1, 0)
    ids = {record["properties"]["name"]: record["id"] for record in bench.client.records("companies")}
    held = {r["properties"]["email"]: r["properties"]["customer_id"] for r in bench.client.records("contacts")}
    assert held == {"p0@example.com": ids["Seven"], "p1@example.com": ids["Eight"]}
    assert bench.run(contacts).candidates == 0


@pytest.mark.slow
def test_a_company_that_was_removed_is_delivered_no_more(bench: Bench) -> None:
    columns = {"id": "INTEGER", "ref": "VARCHAR", "name": "VARCHAR"}
    rows = [{"id": n, "ref": f"C{n}", "name": f"Firm {n}"} for n in range(10)]
    bench.load("firms", rows, columns)
    companies = bench.contacts(
        bench.model("firms", "SELECT * FROM firms"), Mode.MIRROR,
        name="crm_companies", object="companies", match={"company_ref": "ref"}, fields=(FieldSpec("name", "name"),),
    )  # fmt: skip
    bench.run(companies)
    bench.load("people", [{"id": 1, "email": "a@example.com", "company": "C3"}], COLUMNS)
    lookup = LookupSpec("company", sync=companies, key="match", value="destination_id", normalization="trim")
    contacts = bench.contacts(
        bench.model("people", "SELECT * FROM people"),
        fields=(FieldSpec("customer_id", "company", lookup="company"),),
        lookups=(lookup,),
    )
    assert bench.run(contacts).counts.added == 1
    bench.load("firms", [row for row in rows if row["id"] != 3], columns)
    bench.run(companies)
    assert bench.run(contacts).counts.invalid == 1


def test_several_that_need_a_reference_read_it_once(bench: Bench) -> None:
    for n in range(150):
        bench.client.define_owner(f"o{n}@example.com")
    bench.client.faults([{"match": {"path": "*/owners"}, "fault": {"kind": "latency", "seconds": 0.2}}])
    before = bench.client.last_seq()
    found: list[ReferenceRead] = []

    def read() -> None:
        found.append(read_reference(bench.crm(), bench.context(), "owners", ["id"], max_age=60, who="Test"))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked(bench, before) == 2
    assert sorted(read.read for read in found) == [False, False, True]
    assert len({read.version.name for read in found}) == 1


def test_a_reference_that_cannot_be_read_stops_the_plan_and_leaves_no_version(bench: Bench) -> None:
    bench.client.define_owner("ann@example.com")
    bench.load("people", people(a="ann@example.com"), COLUMNS)
    sync = owned(bench, destination=dataclasses.replace(bench.crm(), attempts=2, backoff=0.01))
    for status, error in ((403, Misconfigured), (503, DestinationUnavailable)):
        bench.client.faults([{"match": {"path": "*/owners"}, "fault": {"kind": "status", "status": status}}])
        with pytest.raises(error, match=r"contacts.*owners of crm could not be read"):
            bench.run(sync)
    assert not list((bench.folder / "lookups").rglob("version.json"))
    assert bench.client.records("contacts") == []
    bench.client.clear_faults()
    assert bench.run(sync).counts.added == 1


def test_a_page_that_breaks_off_is_read_again_and_the_others_are_not(bench: Bench) -> None:
    ids = [bench.client.define_owner(f"o{n}@example.com") for n in range(250)]
    bench.client.faults([{"match": {"path": "*/owners"}, "after": 1, "times": 1, "fault": {"kind": "truncated"}}])
    before = bench.client.last_seq()
    found = read_reference(bench.crm(), bench.context(), "owners", ["id"], max_age=None, who="Test")
    assert (found.version.rows, found.requests, asked(bench, before)) == (len(ids), 4, 4)


def test_a_version_has_the_columns_that_another_sync_needs(bench: Bench) -> None:
    crm = bench.crm()
    first = read_reference(crm, bench.context(), "companies", ["id", "domain"], max_age=3600, who="Test")
    second = read_reference(crm, bench.context(), "companies", ["id", "name"], max_age=3600, who="Test")
    assert (first.read, second.read) == (True, True)
    assert {name for name, _ in second.version.columns} == {"id", "domain", "name"}
    assert not read_reference(crm, bench.context(), "companies", ["domain"], max_age=3600, who="Test").read


def test_a_preview_looks_up_and_sends_nothing(bench: Bench) -> None:
    ann = bench.client.define_owner("ann@example.com")
    bench.load("people", people(a="ann@example.com", b="x@example.com"), COLUMNS)
    sync = owned(bench)
    bench.query(sync.model)
    before = bench.client.last_seq()
    found = preview(sync, bench.context())
    assert (found.to_send, found.invalid) == (1, 1)
    assert found.samples[0].payload["hubspot_owner_id"] == ann
    assert {request["method"] for request in bench.client.received(since=before)} == {"GET"}


def test_sensitive_values_are_in_no_reason(bench: Bench) -> None:
    bench.load("people", people(a="secret@example.com"), COLUMNS)
    sync = owned(bench)
    sync = dataclasses.replace(sync, fields=tuple(dataclasses.replace(f, sensitive=True) for f in sync.fields))
    assert "secret" not in str(reasons(bench.run(sync)))


def test_what_a_plan_reads_is_kept_from_clean_up(bench: Bench) -> None:
    bench.client.define_owner("ann@example.com")
    sync, ctx = owned(bench), bench.context()
    with prepared_lookups(sync, ctx, bench.folder / "x") as (lookups, uses):
        for _ in range(4):
            read_reference(bench.crm(), ctx, "owners", ["id"], max_age=None, who="Test")
        assert all(file.exists() for lookup in lookups for file in lookup.files)
        assert (uses[0].name, uses[0].rows, uses[0].read) == ("owners", 1, True)
    account = account_key(sync, ctx, connect_account(sync, ctx))
    assert account
    read_reference(bench.crm(), ctx, "owners", ["id"], max_age=None, who="Test")
    kept: Mapping[Path, None] = dict.fromkeys(p.parent for p in (bench.folder / "lookups").rglob("version.json"))
    assert len(kept) == 2


@pytest.mark.slow
def test_what_is_found_is_a_value_like_any_other(bench: Bench) -> None:
    """A rule is about it, a default stands in for it, and a column that another field marks is in no reason."""
    ann = bench.client.define_owner("ann@example.com", "Ann")
    bench.load("people", people(a="ann@example.com", b="secret@example.com", c=None), COLUMNS)
    first = dataclasses.replace(OWNERS, name="first", value="firstName", no_match="null")
    sync = owned(bench)
    sync = dataclasses.replace(
        sync,
        fields=(
            FieldSpec("hubspot_owner_id", "owner", lookup="owners", rule=FieldRule(type="integer", drop=True)),
            FieldSpec("firstname", "owner", lookup="first", rule=FieldRule(default="Nobody", nulls="default")),
            FieldSpec("lastname", "owner", sensitive=True),
        ),
        lookups=(OWNERS, first),
    )
    report = bench.run(sync)
    assert (report.counts.added, report.counts.invalid) == (3, 0)
    assert owners(bench) == {"a": ann, "b": None, "c": None}
    names = {r["properties"]["email"][0]: r["properties"]["firstname"] for r in bench.client.records("contacts")}
    assert names == {"a": "Ann", "b": "Nobody", "c": "Nobody"}
    assert "secret" not in " ".join(report.notes)
    strict = dataclasses.replace(
        sync, name="strict", fields=(FieldSpec("plan", "owner", lookup="owners"), sync.fields[2]), lookups=(OWNERS,)
    )
    refused = bench.run(strict)
    assert (refused.counts.invalid, "secret" in str(reasons(refused))) == (1, False)


@pytest.mark.slow
def test_a_sync_and_a_reference_may_share_a_name(bench: Bench) -> None:
    ann = bench.client.define_owner("ann@example.com")
    bench.load("people", people(a="ann@example.com"), COLUMNS)
    model = bench.model("people", "SELECT * FROM people")
    other = bench.contacts(model, name="owners", fields=(FieldSpec("plan", "owner"),))
    bench.run(other)
    (record,) = bench.client.records("contacts")
    delivered = LookupSpec("delivered", sync=other, key="match", value="destination_id", normalization="trim_lower")
    fields = (
        FieldSpec("hubspot_owner_id", "owner", lookup="owners"),
        FieldSpec("customer_id", "email", lookup="delivered"),
    )
    bench.run(bench.contacts(model, fields=fields, lookups=(OWNERS, delivered)))
    (found,) = bench.client.records("contacts")
    assert (found["properties"]["hubspot_owner_id"], found["properties"]["customer_id"]) == (ann, record["id"])
