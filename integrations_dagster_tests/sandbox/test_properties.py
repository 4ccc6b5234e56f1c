from __future__ import annotations

import pytest

from integrations_dagster.sandbox.properties import MAX_TEXT, Property, predefined

GOOD = {
    "email": ["a@b.co", "A.B+c@Sub.Example.com", " padded@example.com "],
    "firstname": ["x", "שלום", "𝕏", "y" * MAX_TEXT],
    "lifetime_value": ["0", "-1.50", "1e3", "12345678901234567890.123456789"],
    "is_subscriber": ["true", "false"],
    "lifecyclestage": ["lead", "customer"],
    "last_order_date": ["2026-02-28", "1767225600000"],
    "signup_at": ["2026-02-28T10:11:12Z", "2026-02-28T10:11:12.123+02:00", "1767225600001", "2026-02-28"],
}
BAD = {
    "email": (
        ["x", "a@b", "a@@b.co", "a b@c.co", ".a@b.co", "a..b@c.co", "a@-b.co", "a@b.c", "ä@b.co"],
        "INVALID_EMAIL",
    ),
    "firstname": (["y" * (MAX_TEXT + 1)], "INVALID_LENGTH"),
    "lifetime_value": (["1,5", "abc", "NaN", "1.2.3", " 1"], "INVALID_LONG"),
    "is_subscriber": (["True", "yes", "1"], "INVALID_OPTION"),
    "lifecyclestage": (["gold"], "INVALID_OPTION"),
    "last_order_date": (["2026-02-30", "28.2.2026", "1767225600001", "2026-02-28T00:00:00Z"], "INVALID_DATE"),
    "signup_at": (["yesterday", "2026-13-01T00:00:00Z"], "INVALID_LONG"),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_values_that_are_taken(name: str, value: str) -> None:
    assert predefined("contacts")[name].problem(value) is None


@pytest.mark.parametrize(
    ("name", "value", "code"), [(name, value, code) for name, (values, code) in BAD.items() for value in values]
)
def test_values_that_are_refused(name: str, value: str, code: str) -> None:
    problem = predefined("contacts")[name].problem(value)
    assert problem is not None
    assert problem[0] == code


def test_a_definition_survives_its_json_form() -> None:
    for object_ in ("contacts", "companies"):
        for custom in (p for p in predefined(object_).values() if p.custom):
            assert Property.from_json(custom.as_json()) == custom


@pytest.mark.parametrize(
    ("change", "message"),
    [({"label": ""}, "label"), ({"type": "blob"}, "blob"), ({"name": "No Good"}, "No Good")],
)
def test_a_definition_that_cannot_be_used_says_why(change: dict[str, str], message: str) -> None:
    definition = {"name": "x", "label": "X", "type": "string", "fieldType": "text", "groupName": "g"}
    with pytest.raises(ValueError, match=message):
        Property.from_json(definition | change)
