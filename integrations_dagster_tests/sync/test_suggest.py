"""Which column is proposed for which field."""

from __future__ import annotations

import yaml

from integrations_dagster.destinations.reading import FieldType, TargetField
from integrations_dagster.sync.suggest import as_yaml, likeness, propose


def field(name: str, type_: FieldType = FieldType.STRING, label: str = "", **more: object) -> TargetField:
    return TargetField(name, label or name, type_, str(type_), **more)  # type: ignore[arg-type]


FIELDS = [
    field("email", FieldType.EMAIL, "Email", unique=True),
    field("firstname", label="First name"),
    field("lastname", label="Last name"),
    field("createdate", FieldType.TIMESTAMP, "Create date", writable=False),
    field("hs_lead_status", FieldType.ENUM, "Lead status", options=("NEW", "OPEN", "A", "B", "C")),
    field("annualrevenue", FieldType.NUMBER, "Annual revenue"),
    field("yes", FieldType.BOOLEAN, "Yes"),
    field("legal_name", required=True),
]


def test_names_are_compared_without_case_punctuation_and_prefix() -> None:
    for column, target in (("First_Name", 1), ("lead_status", 4), ("AnnualRevenue", 5), ("e-mail", 0)):
        assert likeness(column, FIELDS[target]) == 1, column
    assert 0.8 <= likeness("first_names", FIELDS[1]) < 1
    assert likeness("phone", FIELDS[1]) < 0.8


def test_each_column_and_field_has_one_partner_of_a_type_that_fits() -> None:
    columns = [
        ("id", "INTEGER"),
        ("e_mail", "VARCHAR"),
        ("email", "VARCHAR"),
        ("first_name", "VARCHAR"),
        ("last_name", "BOOLEAN"),
        ("createdate", "TIMESTAMP"),
        ("annual_revenue", "DATE"),
        ("lead_status", "VARCHAR"),
    ]
    proposal = propose(FIELDS, columns, wants_match=True)
    assert proposal.match is not None
    assert (proposal.match.field.name, proposal.match.column) == ("email", "e_mail")
    assert [(s.field.name, s.column) for s in proposal.fields] == [
        ("firstname", "first_name"),
        ("hs_lead_status", "lead_status"),
        ("lastname", "last_name"),
    ]
    assert proposal.columns == ("id", "email", "createdate", "annual_revenue")
    assert proposal.required == ("legal_name",)


def test_what_is_mapped_is_left_alone() -> None:
    columns = [("email", "VARCHAR"), ("first_name", "VARCHAR"), ("last_name", "VARCHAR")]
    proposal = propose(FIELDS, columns, mapped_fields={"email", "lastname"}, mapped_columns={"email"})
    assert [s.column for s in proposal.fields] == ["first_name"]
    assert proposal.columns == ("last_name",)
    assert proposal.match is None


def test_the_yaml_can_be_pasted() -> None:
    text = as_yaml(
        propose(FIELDS, [("email", "VARCHAR"), ("yes", "BOOLEAN"), ("lead status", "VARCHAR")], wants_match=True),
        {"name": "on"},
    )
    assert yaml.safe_load(text) == {
        "name": "on",
        "match": {"email": "email"},
        "fields": {"yes": "yes", "hs_lead_status": "lead status"},
    }
    assert "Lead status (enum: NEW, OPEN, A, B, ...) from VARCHAR" in text
    assert "# New records need: legal_name" in text
    nothing = as_yaml(propose(FIELDS, [("zzz", "VARCHAR")]))
    assert yaml.safe_load(nothing) is None
    assert "Columns without a field: zzz" in nothing
