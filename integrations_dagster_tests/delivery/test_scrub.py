"""What a body or a reason shows of secrets and sensitive values: nothing, however they are written."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations_dagster.delivery.quotations import MASK
from integrations_dagster.delivery.scrub import WITHHELD, Scrubber, mask_payload, mask_values, scrub_reason, url_secrets
from integrations_dagster.destinations.values import canonical_json
from integrations_dagster.vocabulary import Action, Change, Row

SECRET = 'pat-na1/"s3cr€t"+&x'
FORMS = {
    "plain": SECRET,
    "json": json.dumps(SECRET)[1:-1],
    "json_utf8": json.dumps(SECRET, ensure_ascii=False)[1:-1],
    "json_twice": json.dumps(json.dumps(SECRET))[3:-3],
    "url": quote(SECRET, safe=""),
    "form": quote_plus(SECRET),
    "html": "pat-na1/&quot;s3cr€t&quot;+&amp;x",
}


def scrubber(*secrets: str, sensitive: set[str] | None = None) -> Scrubber:
    return Scrubber(lambda: secrets, frozenset(sensitive or ()))


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_found_in_every_form(form: str) -> None:
    text = scrubber(SECRET).bodies(b"", f"<p>refused: {FORMS[form]} is bad</p>".encode())[1]
    assert text == f"<p>refused: {MASK} is bad</p>"


@pytest.mark.parametrize("user", ["", "a", "ab", "abc", "someone@example.com"])
def test_a_secret_is_found_in_basic_credentials(user: str) -> None:
    coded = base64.b64encode(f"{user}:tr0ub4dor".encode()).decode()
    for body in (f"Authorization was Basic {coded}", f"you sent {coded}"):
        text = scrubber("tr0ub4dor").bodies(b"", body.encode())[1]
        assert MASK in text
        assert coded[4:-4] not in text


@pytest.mark.parametrize(
    "body",
    [
        {"headers": {"Authorization": "Bearer abcdef"}},
        {"echo": {"access_token": "abcdef", "token_type": "bearer"}},
        {"message": "Authorization: Bearer abcdef"},
        {"message": "got token=abcdef&x=1"},
        {"message": '{"client_secret": "abcdef"}'},
        {"X-HubSpot-Signature-v3": "abcdef"},
    ],
)
def test_what_is_named_as_a_secret_is_not_told(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    assert "abcdef" not in scrubber().bodies(b"", raw)[1]
    assert "abcdef" not in scrubber().bodies(b"", b"no json: " + raw)[1]


def test_a_token_that_was_replaced_is_scrubbed_still() -> None:
    now = ["first-token"]
    scrub = Scrubber(lambda: tuple(now))
    assert scrub.text("first-token") == MASK
    now[:] = ["second-token"]
    assert scrub.text("first-token, second-token") == f"{MASK}, {MASK}"


def test_what_holds_nothing_stays_as_it_is() -> None:
    body = b'{"results": [{"id": "1", "amount": 1.50, "name": "Basil"}]}'
    assert scrubber(SECRET).bodies(body, body) == (body.decode(), body.decode())


def test_short_secrets_are_replaced_where_they_stand_alone() -> None:
    assert scrubber("ab").text("ab cab ab.") == f"{MASK} cab {MASK}."


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("https://api.hubapi.com", set()),
        ("https://x.io/v1", set()),
        ("https://hooks.x.io/services/T0/abcdef0123456789", {"services/T0/abcdef0123456789", "abcdef0123456789"}),
        ("https://me:pass-word@x.io/?key=k-12345&v=2", {"pass-word", "key=k-12345&v=2", "k-12345"}),
    ],
)
def test_what_of_a_url_is_secret(url: str, secrets: set[str]) -> None:
    assert set(url_secrets(url)) == secrets


REQUEST = {"inputs": [{"id": "a@x.io", "properties": {"ssn": "123-45-6789", "pay": 85000.5, "firstname": "Ada"}}]}


def answer(text: str, request: Any = None, sensitive: tuple[str, ...] = ("ssn", "pay")) -> str:
    scrub = scrubber(sensitive=set(sensitive))
    return scrub.bodies(json.dumps(request or REQUEST).encode(), json.dumps({"message": text}).encode())[1]


def test_sensitive_fields_are_masked_by_name_at_any_depth() -> None:
    request, response = scrubber(sensitive={"ssn", "pay"}).bodies(
        json.dumps(REQUEST).encode(),
        b'{"results": [{"properties": {"SSN": "123-45-6789", "pay": "1", "x": null}}, {"name": "ssn", "value": "7"}]}',
    )
    assert json.loads(request)["inputs"][0]["properties"] == {"ssn": MASK, "pay": MASK, "firstname": "Ada"}
    assert json.loads(response)["results"] == [
        {"properties": {"SSN": MASK, "pay": MASK, "x": None}},
        {"name": "ssn", "value": MASK},
    ]


@pytest.mark.parametrize(
    "text",
    [
        "'123-45-6789' is no valid number",
        "123456789 is taken",
        "(123) 45 6789 is taken",
        "pay 85000.50 is too much",
        "pay 85,000.5 is too much",
        "pay 85000.5",
    ],
)
def test_values_that_an_answer_quotes_are_masked(text: str) -> None:
    told = json.loads(answer(text))["message"]
    assert MASK in told
    assert not {"123", "6789", "850", "000"} & {told[i : i + n] for n in (3, 4) for i in range(len(told))}


def test_numbers_of_an_answer_are_masked_too() -> None:
    scrub = scrubber(sensitive={"pay"})
    told = scrub.bodies(json.dumps(REQUEST).encode(), b'{"rejected": 85000.50, "status": 85, "of": [85000.5, 1]}')[1]
    assert json.loads(told) == {"rejected": MASK, "status": 85, "of": [MASK, 1]}


def test_the_answer_to_a_request_without_body_is_scrubbed_by_the_batchs_first_or_withheld() -> None:
    scrub = scrubber(sensitive={"ssn"})
    response = b'{"errors": ["123-45-6789 is refused"]}'
    assert scrub.bodies(b"", response) == ("", WITHHELD)
    told = scrub.bodies(b"", response, json.dumps(REQUEST).encode())[1]
    assert json.loads(told) == {"errors": [f"{MASK} is refused"]}
    assert scrub.bodies(b"ssn=123-45-6789", b"bad: 123-45-6789") == (WITHHELD, WITHHELD)


def row(**payload: Any) -> Row:
    return Row(0, "1", "a@x.io", Change.ADDED, Action.UPSERT, canonical_json(payload))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("Ada Lovelace", "ADA LOVELACE is unknown"),
        ("  Ada Lovelace ", "'Ada  Lovelace' is unknown"),
        ("ada@lovelace.io", "see https://x.io/?q=ada%40lovelace.io for more"),
        ('Ada "the" L', 'value "Ada \\"the\\" L" is unknown'),
        ("O'Neil & Söhne", "O&#x27;Neil &amp; Söhne is unknown"),
        ("Söhne", "S\\u00f6hne is unknown"),
        ("a very long text that goes on and on", "'a very long text that…' is too long"),
        (1234567, "1,234,567 is too much"),
        (-12.50, "-12.5 is too little"),
        ("42", "42 is not a valid age"),
        (True, "true is no option"),
        (["red", {"deep": "green"}], "red or GREEN are no options"),
        ("+49 170 1234567", "+491701234567 is no number"),
    ],
)
def test_reasons_do_not_quote_sensitive_values(value: Any, reason: str) -> None:
    told = scrub_reason(reason, [row(field=value, other="is")], frozenset({"field"}))
    assert MASK in told
    for part in ("ada", "lovelace", "very", "234", "12.5", "42", "true", "red", "green", "hne", "170"):
        assert part not in told.casefold()
    assert scrub_reason(reason, [row(field=value)], frozenset()) == reason


def test_a_reason_is_withheld_where_the_payload_is_not_known() -> None:
    assert scrub_reason("'Ada' is refused", [row()], frozenset({"field"})) == WITHHELD
    assert scrub_reason("'Ada' is refused", [row()], frozenset()) == "'Ada' is refused"
    removed = Row(0, "1", "a@x.io", Change.REMOVED, Action.DELETE)
    assert scrub_reason("It is gone.", [removed], frozenset({"field"})) == "It is gone."


def test_words_are_not_taken_apart_by_short_values() -> None:
    assert (
        scrub_reason("a category: 42 of 1420", [row(f="a", g=42)], frozenset("fg"))
        == f"{MASK} category: {MASK} of 1420"
    )


def test_previews_mask_by_name() -> None:
    assert mask_payload({"a": 1, "b": [2]}, frozenset("b")) == {"a": 1, "b": MASK}


@given(
    st.text(min_size=4).filter(lambda text: len(text.strip()) >= 4 and not any(c.isdecimal() for c in text)),
    st.sampled_from(
        [str, lambda text: json.dumps(text)[1:-1], lambda text: quote(text, safe=""), str.strip, str.swapcase]
    ),
)
def test_no_text_survives(value: str, written: Callable[[str], str]) -> None:
    form = written(value)
    # Letters whose other case is another number of letters ("ß") are found as they stand only.
    if form.lower() == value.lower() or written is not str.swapcase:
        assert form not in mask_values(f"<{form}>", [value])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_any_json_is_taken(data: Any) -> None:
    body = json.dumps(data).encode()
    scrub = scrubber("secret-1", sensitive={"ssn", "naïve"})
    for request in (body, b""):
        for text in scrub.bodies(request, body, body):
            assert isinstance(text, str)


def test_random_bytes_are_taken() -> None:
    noise = random.Random(7)
    for size in (0, 1, 10, 1000):
        body = noise.randbytes(size)
        assert len(scrubber("x").bodies(body, body)) == 2
