"""Each type of a field and each option: what comes of a value, and what is said of one that does not fit."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.destinations.values import canonical_json, json_number, number_text
from integrations_dagster.destinations.webhook import Webhook
from integrations_dagster.sync.field_types import TYPES, converter
from integrations_dagster.sync.fields import CLEARED, FieldColumn
from integrations_dagster.sync.spec import FieldRule, FieldSpec
from integrations_dagster.sync.unfit import Unfit

BERLIN = timezone(timedelta(hours=2))


def made(value: Any, type_: str, **options: Any) -> Any:
    return converter(FieldRule(type=type_, **options))(value)


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("string", "Ada ", "Ada "),
        ("string", "", ""),
        ("string", 7, "7"),
        ("string", True, "true"),
        ("string", Decimal("0.10"), "0.10"),
        ("string", Decimal("1E+3"), "1000"),
        ("string", 1e-7, "0.0000001"),
        ("string", date(2026, 8, 1), "2026-08-01"),
        ("string", datetime(2026, 8, 1, 12, tzinfo=BERLIN), "2026-08-01T10:00:00Z"),
        ("string", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("string", {"b": 1, "a": [1]}, '{"a":[1],"b":1}'),
        ("integer", 42, 42),
        ("integer", " 42 ", 42),
        ("integer", "+42.0", 42),
        ("integer", "4.2e1", 42),
        ("integer", 42.0, 42),
        ("integer", Decimal("42.00"), 42),
        ("integer", "-9223372036854775808", -(2**63)),
        ("integer", "  ", None),
        ("integer", "0e999999999", 0),
        ("number", 42, 42),
        ("number", "0.10", Decimal("0.10")),
        ("number", ".5", Decimal("0.5")),
        ("number", 0.1, Decimal("0.1")),
        ("number", "", None),
        ("boolean", True, True),
        ("boolean", 0, False),
        ("boolean", Decimal("1.0"), True),
        ("boolean", " Yes", True),
        ("boolean", "F", False),
        ("boolean", "off", False),
        ("boolean", " ", None),
        ("date", date(2026, 8, 1), date(2026, 8, 1)),
        ("date", " 2026-08-01 ", date(2026, 8, 1)),
        ("date", datetime(2026, 8, 1, 23, 30), date(2026, 8, 1)),  # noqa: DTZ001 (a timestamp without a zone)
        ("date", datetime(2026, 8, 2, 1, tzinfo=BERLIN), date(2026, 8, 1)),
        ("date", "2026-08-02T01:00:00+02:00", date(2026, 8, 1)),
        ("date", "", None),
        ("timestamp", "2026-08-01T12:00:00+02:00", datetime(2026, 8, 1, 10, tzinfo=UTC)),
        ("timestamp", "2026-08-01 10:00:00+00", datetime(2026, 8, 1, 10, tzinfo=UTC)),
        ("timestamp", "2026-08-01 10:00:00 UTC", datetime(2026, 8, 1, 10, tzinfo=UTC)),
        ("timestamp", "2026-08-01T10:00:00Z", datetime(2026, 8, 1, 10, tzinfo=UTC)),
        ("timestamp", "2026-08-01 10:00:00", datetime(2026, 8, 1, 10, tzinfo=UTC)),
        ("timestamp", "2026-08-01", datetime(2026, 8, 1, tzinfo=UTC)),
        ("timestamp", date(2026, 8, 1), datetime(2026, 8, 1, tzinfo=UTC)),
        ("timestamp", " ", None),
        ("email", " Ada.Lovelace+x@Example.COM ", "ada.lovelace+x@example.com"),
        ("email", "ada@bücher.example", "ada@bücher.example"),
        ("email", "  ", None),
        ("phone", "+1 (202) 555-0143", "+12025550143"),
        ("phone", 12025550143, None),
        ("phone", " ", None),
        ("json", '{"b": 1.0, "a": [null, "x"]}', {"a": [None, "x"], "b": 1}),
        ("json", {"b": 1.50, "a": Decimal("1.5")}, {"a": 1.5, "b": 1.5}),
        ("json", "[]", []),
        ("json", '"text"', "text"),
        ("json", "null", None),
        ("json", "", None),
    ],
)
def test_what_comes_of_a_value(type_: str, value: Any, expected: Any) -> None:
    if type_ == "phone" and expected is None and isinstance(value, int):
        assert made(value, type_, region="US") == "+12025550143"
    else:
        found = made(value, type_)
        assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("type_", "value", "words"),
    [
        ("string", b"x", "a binary value has no form as text."),
        ("string", float("nan"), "has no form as text."),
        ("integer", "abc", 'the text "abc" is no integer.'),
        ("integer", 3.5, "the number 3.5 is no integer."),
        ("integer", "3.5", 'the text "3.5" is no integer.'),
        ("integer", "1_000", "is no integer."),
        ("integer", "٣", "is no integer."),
        ("integer", True, "the boolean True is no integer."),
        ("integer", 2**63, "is out of range: an integer has 64 bits."),
        ("integer", "1e400", "is out of range."),
        ("integer", "1e999999999", "is out of range."),
        ("integer", date(2026, 8, 1), "the date 2026-08-01 is no integer."),
        ("number", "NaN", 'the text "NaN" is no number.'),
        ("number", float("inf"), "the number inf is no number."),
        ("number", "1,5", "is no number."),
        ("number", "1e-999999999", "is out of range."),
        ("number", [1], "a list is no number."),
        ("boolean", "maybe", 'the text "maybe" is no boolean.'),
        ("boolean", 2, "the number 2 is no boolean."),
        ("date", "01.08.2026", "is no ISO 8601 date."),
        ("date", "2026-02-30", "is no ISO 8601 date."),
        ("date", 20260801, "is no date; for a count since 1970 set source_format."),
        ("timestamp", "yesterday", "is no ISO 8601 timestamp."),
        ("timestamp", 1_754_000_000, "set source_format."),
        ("timestamp", "0001-01-01T00:00:00+02:00", "lies outside the years 1 to 9999 in UTC."),
        ("email", "ada", 'the text "ada" is no email address: an email address must have an @-sign.'),
        ("email", "ada@localhost", "is no email address: "),
        ("email", "ada@@example.com", "is no email address"),
        ("email", 5, "the number 5 is no email address."),
        ("phone", "12", "has no country code, and the field no region."),
        ("phone", "+1 202", "is too long or too short for a phone number of its country."),
        ("phone", "+999 12345678", "has a country code that does not exist."),
        ("email", "ada@-secret .com", "is no email address"),
        ("phone", "call me", "is no phone number."),
        ("json", "{", 'the text "{" is no JSON.'),
        ("json", "NaN", "is no JSON."),
        ("json", "[" * 100_000, "is no JSON."),
    ],
)
def test_what_does_not_fit(type_: str, value: Any, words: str) -> None:
    with pytest.raises(Unfit) as caught:
        made(value, type_)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200
    bare = caught.value.bare
    assert bare.startswith("a ")
    assert not any(part in bare for part in ('"', "3.5", "2026", "inf", "True")), bare


def test_a_long_value_is_quoted_in_part() -> None:
    with pytest.raises(Unfit) as caught:
        made("x" * 500, "integer")
    assert str(caught.value) == f'the text "{"x" * 40}…" is no integer.'
    assert caught.value.bare == "a text is no integer."


@pytest.mark.parametrize(
    ("format_", "day", "moment"),
    [("epoch_seconds", 1785542400, 1785578400), ("epoch_ms", 1785542400000, 1785578400123)],
)
def test_counts_since_1970(format_: str, day: int, moment: int) -> None:
    at = datetime(2026, 8, 1, 10, 0, 0, 123_456, tzinfo=UTC)
    assert made(date(2026, 8, 1), "date", format=format_) == day
    assert made(at, "timestamp", format=format_) == moment
    assert made(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "timestamp", format=format_) == -1
    assert made(moment, "date", source_format=format_) == date(2026, 8, 1)
    read = made(str(moment), "timestamp", source_format=format_)
    assert made(read, "timestamp", format=format_) == moment
    with pytest.raises(Unfit, match="lies outside the years"):
        made(10**18, "timestamp", source_format=format_)


def test_a_part_of_a_second_survives() -> None:
    assert made(1.5, "timestamp", source_format="epoch_seconds") == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert made("-0.5", "timestamp", source_format="epoch_ms") == datetime(
        1969, 12, 31, 23, 59, 59, 999_500, tzinfo=UTC
    )


def test_an_enum_by_list_and_by_map() -> None:
    listed = {"values": (("Free", "Free"), ("Pro", "Pro"), (1, 1))}
    assert made(" Pro ", "enum", **listed) == "Pro"
    assert made(Decimal("1.00"), "enum", **listed) == 1
    assert made("", "enum", **listed) is None
    with pytest.raises(Unfit, match=r'the text "pro" is none of: Free, Pro, 1\.') as caught:
        made("pro", "enum", **listed)
    assert caught.value.code == "NOT_IN_ENUM"
    assert made("pro", "enum", lower=True, **listed) == "Pro"
    mapped = {"values": (("f", "FREE"), ("p", "PAID"), ("FREE", "never"))}
    assert [made(v, "enum", **mapped) for v in ("f", "p", "PAID")] == ["FREE", "PAID", "PAID"]
    assert made("FREE", "enum", **mapped) == "never", "what the mapping says comes first"


def test_trim_lower_length_and_hash() -> None:
    assert made(" ÄB ", "string", trim=True, lower=True) == "äb"
    assert made("äöü", "string", max_length=3) == "äöü"
    with pytest.raises(Unfit, match="has 4 characters, and max_length is 3") as caught:
        made("äöüß", "string", max_length=3)
    assert caught.value.code == "TOO_LONG"
    assert made("abc d", "string", max_length=4, truncate=True) == "abc "
    assert made("abc d", "string", max_length=4, truncate=True, trim=True) == "abc"
    assert made(" Ada@Example.com ", "email", hash="sha256") == sha256(b"ada@example.com").hexdigest()
    assert made("(202) 555-0143", "phone", region="US", hash="sha256") == sha256(b"+12025550143").hexdigest()
    assert made(date(1815, 12, 10), "date", hash="sha256") == sha256(b"1815-12-10").hexdigest()
    assert made(" ", "email", hash="sha256") is None
    with pytest.raises(Unfit, match="is not valid Unicode"):
        made("\ud800", "string", hash="sha256")


def test_an_address_may_keep_its_case() -> None:
    assert made("Ada@Example.COM", "email", lower=False) == "Ada@example.com"


# Of all values

NUMBERS = st.one_of(
    st.integers(-(2**80), 2**80),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False, places=6).filter(lambda d: abs(d) < 10**30),
)
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29))  # noqa: DTZ001 (zones are drawn apart)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def sent(value: Any, type_: str, kind: type[Webhook | HubSpot], **options: Any) -> bytes:
    (result,) = FieldColumn(FieldSpec("f", "c", rule=FieldRule(type=type_, **options)), kind()).values([value], None)
    if isinstance(result, ValueError):
        raise result
    return canonical_json(result)


@pytest.mark.parametrize("kind", [Webhook, HubSpot])
@settings(deadline=None)
@given(number=NUMBERS)
@example(number=-0.0)
@example(number=1e22)
@example(number=2**53)
def test_equal_numbers_are_sent_alike(number: Any, kind: type[Webhook | HubSpot]) -> None:
    exact = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
    assume(abs(exact.adjusted()) < 300 or not exact)
    forms: list[Any] = [
        number,
        exact,
        str(exact),
        f" {exact:f}",
        f"{exact:f}.0" if "." not in f"{exact:f}" else f"{exact:f}0",
    ]
    if exact == int(exact):
        forms.append(int(exact))
    assert len({sent(form, "number", kind) for form in forms}) == 1
    told = json.loads(sent(number, "number", kind), parse_float=Decimal)
    assert Decimal(told) == exact


@given(first=NUMBERS, second=NUMBERS)
@settings(deadline=None)
def test_other_numbers_are_sent_otherwise(first: Any, second: Any) -> None:
    def exact(number: Any) -> Decimal:
        return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)

    assert (number_text(first) == number_text(second)) == (exact(first) == exact(second))
    assert (json_number(first) == json_number(second)) == (exact(first) == exact(second))


@pytest.mark.parametrize("kind", [Webhook, HubSpot])
@settings(deadline=None)
@given(moment=MOMENTS, minutes=st.integers(-14 * 60, 14 * 60))
def test_a_moment_is_sent_alike_from_every_zone(moment: datetime, minutes: int, kind: type[Webhook | HubSpot]) -> None:
    utc = moment.replace(tzinfo=UTC)
    elsewhere = utc.astimezone(timezone(timedelta(minutes=minutes)))
    forms = [moment, utc, elsewhere, utc.isoformat(), elsewhere.isoformat(), elsewhere.isoformat(" ")]
    for options in ({}, {"format": "epoch_ms"}):
        assert len({sent(form, "timestamp", kind, **options) for form in forms}) == 1
        assert len({sent(form, "date", kind, **options) for form in forms}) == 1


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", [Webhook, HubSpot])
@settings(deadline=None)
@given(document=st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_a_document_is_sent_alike_in_any_order(document: dict[str, Any], kind: type[Webhook | HubSpot]) -> None:
    forms = [document, reordered(document), json.dumps(document), json.dumps(reordered(document), indent=2)]
    assert len({sent(form, "json", kind) for form in forms}) == 1


@settings(deadline=None, max_examples=300)
@given(
    type_=st.sampled_from([t for t in TYPES if t != "enum"]),
    value=NUMBERS | MOMENTS | st.dates() | st.text(max_size=12) | st.booleans() | JSON | st.emails(),
    trim=st.booleans(),
    lower=st.booleans(),
    length=st.none() | st.integers(1, 8),
)
def test_what_is_normalized_stays_as_it_is(type_: str, value: Any, trim: bool, lower: bool, length: int | None) -> None:
    options: dict[str, Any] = {"region": "DE"} if type_ == "phone" else {}
    if type_ == "string":
        options = {"trim": trim, "lower": lower, "max_length": length, "truncate": length is not None}
    assume(value is not None)
    try:
        once = made(value, type_, **options)
    except Unfit:
        return
    if once is not None:
        assert made(once, type_, **options) == once


LABEL = st.text("abyz019-", min_size=1, max_size=6)


@settings(deadline=None, max_examples=400)
@given(
    local=st.text("abAB09.+_-'äß\"", min_size=1, max_size=10),
    labels=st.lists(LABEL, max_size=3),
    top=st.sampled_from(
        ["com", "de", "test", "local", "onion", "invalid", "localhost", "arpa", "c", "123", "xn--p1ai"]
    ),
)
def test_addresses_are_what_the_library_says(local: str, labels: list[str], top: str) -> None:
    address = f"{local}@{'.'.join([*labels, top])}"
    try:
        expected: str | None = validate_email(address.lower(), check_deliverability=False).normalized.lower()
    except EmailNotValidError:
        expected = None
    try:
        found = made(address, "email")
    except Unfit:
        found = None
    assert found == expected


@pytest.mark.parametrize("length", [60, 63, 64, 65, 200, 254, 255, 300])
def test_lengths_of_addresses_are_what_the_library_says(length: int) -> None:
    for address in (f"{'a' * length}@example.com", f"a@{'b' * min(length, 63)}.com", f"a@{'b.' * (length // 2)}com"):
        try:
            validate_email(address, check_deliverability=False)
        except EmailNotValidError:
            with pytest.raises(Unfit):
                made(address, "email")
        else:
            assert made(address, "email") == address


# A column of a field


def column(values: list[Any], destination: Webhook | HubSpot | None = None, **rule: Any) -> list[Any]:
    field = FieldSpec("f", "c", rule=FieldRule(**rule))
    return [
        str(v) if isinstance(v, ValueError) else v
        for v in FieldColumn(field, destination or Webhook()).values(values, None)
    ]


def test_nulls() -> None:
    assert column(["a", None, ""]) == ["a", None, ""]
    assert column(["a", None], nulls="clear") == ["a", CLEARED]
    assert column(["a", None], HubSpot(), nulls="clear") == ["a", ""]
    assert column(["a", None, ""], nulls="default", default="none") == ["a", "none", ""]
    assert column([" ", None], type="integer", nulls="default", default="7") == [7, 7]
    assert column([None], HubSpot(), type="date", nulls="default", default="2026-08-01") == ["2026-08-01"]


def test_a_required_value() -> None:
    missing = "it is null or empty, and the field is required."
    assert column(["a", None, "", " "], required=True) == ["a", missing, missing, " "]
    assert column([" "], type="email", required=True) == [missing]
    assert column([None], required=True, nulls="default", default="x") == ["x"]
    assert column(["x"], type="integer", required=True, drop=True) == [
        "its value does not fit, and the field is required."
    ]


def test_a_dropped_value_is_neither_cleared_nor_replaced() -> None:
    for options in ({"nulls": "clear"}, {"nulls": "default", "default": 1}, {}):
        assert column(["x"], type="integer", drop=True, **options) == [None]
    made_ = FieldColumn(FieldSpec("f", "c", rule=FieldRule(type="integer", drop=True)), Webhook())
    assert made_.values(["x", 1, None, ValueError("no value")], None) == [None, 1, None, None]
    assert made_.dropped == 2


@pytest.mark.parametrize(
    ("type_", "array"),
    [
        ("integer", pa.array([1, None])),
        ("boolean", pa.array([True, None])),
        ("string", pa.array(["a", None])),
        ("date", pa.array([date(2026, 8, 1), None])),
    ],
)
def test_a_column_that_has_the_type_already_is_made_as_any_other(type_: str, array: pa.Array[Any]) -> None:
    field = FieldColumn(FieldSpec("f", "c", rule=FieldRule(type=type_)), Webhook())
    values = array.to_pylist()
    assert field.values(values, array.type) == field.values(values, None)


def test_numbers_of_a_column_with_unsigned_integers_are_checked() -> None:
    array = pa.array([2**63], pa.uint64())
    field = FieldColumn(FieldSpec("f", "c", rule=FieldRule(type="integer")), Webhook())
    assert isinstance(field.values(array.to_pylist(), array.type)[0], Unfit)


def test_every_option_changes_the_mapping() -> None:
    changed = {
        "type": "string", "trim": True, "lower": True, "format": "epoch_ms", "source_format": "epoch_ms",
        "region": "DE", "values": (("a", "b"),), "max_length": 5, "truncate": True, "required": True, "default": 1,
        "drop": True, "nulls": "clear", "hash": "sha256",
    }  # fmt: skip
    assert set(changed) == {f.name for f in dataclasses.fields(FieldRule)}
    for name, value in changed.items():
        assert FieldRule(**{name: value}).given() == {name: repr(value)}  # type: ignore[arg-type]
    assert FieldRule().given() == {}
