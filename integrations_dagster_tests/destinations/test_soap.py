"""Flows of kind `soap`, fed with answers: what becomes of the rows, and who is told what."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations_dagster.destinations.base import Batch, Request, Response
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    Refused,
    Throttled,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.destinations.soap.wsdl import MARK
from integrations_dagster.destinations.values import canonical_json
from integrations_dagster.vocabulary import Action, Change, Outcome, Row, Status
from integrations_dagster_tests.destinations.http_flows import drive, requests, statuses
from integrations_dagster_tests.soap_api import API, M, T, envelope, fault, outcome, saved, soap

REGISTRY = soap()
REGISTRY_12 = soap(API.replace("port: Registry11", "port: Registry12"))


def row(number: int, action: Action = Action.UPSERT, id_: str | None = None, **values: Any) -> Row:
    email = f"{number}@example.com"
    encoded = b"" if action is Action.DELETE else canonical_json({"email": email, **values})
    change = Change.REMOVED if action is Action.DELETE else Change.ADDED
    return Row(number, str(number), email, change, action, encoded, destination_id=id_)


def batch(*rows: Row) -> Batch:
    return Batch("members_sync", "members", rows[0].action, ("email",), rows, "key-1")


def xml(body: bytes, status: int = 200) -> Response:
    return Response(status, {"content-type": "text/xml; charset=utf-8"}, body)


def deliver(rows: Sequence[Row], *answers: Response) -> tuple[list[Outcome], list[Request]]:
    told, steps = drive(REGISTRY, REGISTRY.deliver(batch(*rows)), *answers)
    return told, requests(steps)


def test_a_request_is_an_envelope_of_the_operation() -> None:
    rows = [row(1, name="Zoë <&> ]]>", active=True, balance="0.10", age=7), row(2, name=None)]
    told, (request,) = deliver(rows, xml(saved(outcome("m1", new=True), outcome("m2"))))
    assert [(one.status, one.destination_id) for one in told] == [(Status.CREATED, "m1"), (Status.UPDATED, "m2")]
    assert request.path == "/registry"
    assert request.headers["SOAPAction"] == '"urn:registry#save"'
    assert request.headers["Content-Type"] == "text/xml; charset=utf-8"
    assert request.body is not None
    assert request.body.count(MARK) == 1
    root = ET.fromstring(request.body.replace(MARK, b"TOKEN"))
    assert root.findtext(f".//{T}Session/{T}token") == "TOKEN"
    assert root.findtext(f".//{T}source") == "members_sync"
    first, second = root.findall(f".//{T}member")
    # In the order of the schema, whatever that of the payload is.
    assert [(child.tag.removeprefix(M), child.text) for child in first] == [
        ("email", "1@example.com"),
        ("name", "Zoë <&> ]]>"),
        ("age", "7"),
        ("balance", "0.10"),
        ("active", "true"),
    ]
    assert [child.attrib for child in second] == [{}, {"{http://www.w3.org/2001/XMLSchema-instance}nil": "true"}]


def test_soap_1_2_has_its_own_content_type_and_namespace() -> None:
    answer = xml(saved(outcome("m1"), version="1.2"))
    told, steps = drive(REGISTRY_12, REGISTRY_12.deliver(batch(row(1))), answer)
    (request,) = requests(steps)
    assert statuses(told) == [Status.UPDATED]
    assert request.headers["Content-Type"] == 'application/soap+xml; charset=utf-8; action="urn:registry#save"'
    assert "SOAPAction" not in request.headers
    assert b"http://www.w3.org/2003/05/soap-envelope" in (request.body or b"")


def test_the_token_takes_the_place_of_its_mark_and_of_nothing_else() -> None:
    (_, (request,)) = deliver([row(1, name="<?session ?> {session}")], xml(saved(outcome("m1"))))
    carried = REGISTRY.carry(request, "a<b&c>")
    root = ET.fromstring(carried.body or b"")
    assert root.findtext(f".//{T}Session/{T}token") == "a<b&c>"
    assert root.findtext(f".//{M}name") == "<?session ?> {session}"
    assert b"a&lt;b" not in (request.body or b""), "what is logged has no token"


def test_rows_that_are_refused_among_others() -> None:
    refused = outcome(None, code="BAD_NAME", text="bad is no name")
    told, _ = deliver([row(n) for n in range(3)], xml(saved(outcome("m0"), refused, outcome("m2", new=True))))
    assert statuses(told) == [Status.UPDATED, Status.REJECTED, Status.CREATED]
    assert (told[1].code, told[1].reason) == ("BAD_NAME", "Registry says: bad is no name")


@given(st.lists(st.sampled_from(["created", "updated", "refused"]), min_size=1, max_size=50), st.randoms())
def test_each_outcome_is_that_of_its_row(whats: list[str], dice: random.Random) -> None:
    numbers = dice.sample(range(1000), len(whats))
    answers = [
        outcome(None, code="NO", text=f"no {number}")
        if what == "refused"
        else outcome(f"m{number}", new=what == "created")
        for number, what in zip(numbers, whats, strict=True)
    ]
    told, _ = deliver([row(number) for number in numbers], xml(saved(*answers)))
    wanted = {"created": Status.CREATED, "updated": Status.UPDATED, "refused": Status.REJECTED}
    assert statuses(told) == [wanted[what] for what in whats]
    for number, what, one in zip(numbers, whats, told, strict=True):
        assert one.reason == (f"Registry says: no {number}" if what == "refused" else "")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html><body>Bad gateway</body></html>", 502),
        (b"<html><body>All is well</body></html>", 200),
        (b"no XML at all", 200),
        (b"", 200),
        (b"{}", 200),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', 200),
        (envelope(""), 200),
        (envelope('<otherResponse xmlns="urn:registry"/>'), 200),
        (saved(outcome("m1")), 200),
        (saved(), 200),
        (saved(*["<outcome><memberId>m</memberId></outcome>"] * 2), 200),
        (saved(*["<outcome><ok>perhaps</ok></outcome>"] * 2), 200),
        (fault("Server", "out of memory"), 500),
        (saved(outcome("m1"), outcome("m2"))[:-20], 200),
        (saved(outcome("m1"), outcome("m2")), 500),
    ],
)
def test_an_answer_that_does_not_say_what_became_of_the_rows_is_an_outage(body: bytes, status: int) -> None:
    with pytest.raises(Unavailable):
        deliver([row(1), row(2)], xml(body, status))


@pytest.mark.parametrize("version", ["1.1", "1.2"])
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("NO_SESSION", Unauthorized),
        ("BUSY", Throttled),
        ("Receiver", Unavailable),
        ("MustUnderstand", Refused),
        ("VersionMismatch", Refused),
        ("STRANGE", PoisonedBatch),
        ("Sender", PoisonedBatch),
    ],
)
def test_faults_are_read_whatever_their_status(
    code: str, error: type[DestinationError], status: int, version: str
) -> None:
    registry = REGISTRY if version == "1.1" else REGISTRY_12
    with pytest.raises(error) as raised:
        drive(registry, registry.deliver(batch(row(1), row(2))), xml(fault(code, "Why & how.", version), status))
    assert raised.value.reason.endswith("Registry says: Why & how.") or error in (Unauthorized, Refused)
    assert "Why & how." in raised.value.reason
    assert raised.value.code == code


def test_a_narrowed_code_of_soap_1_1_means_what_its_first_part_does() -> None:
    with pytest.raises(Unavailable):
        deliver([row(1), row(2)], xml(fault("Server.Database", "deadlock"), 500))


def test_a_code_in_the_detail_of_a_fault_may_say_what_it_means() -> None:
    registry = soap(API.replace("errors: {", "problem: {code: detail.failure.number}\nerrors: {E7: throttled, "))
    answer = xml(fault("Server", "Later", detail="<failure><number>E7</number></failure>"), 500)
    with pytest.raises(Throttled):
        drive(registry, registry.deliver(batch(row(1))), answer)


def test_a_fault_about_one_row_is_its_own() -> None:
    told, _ = deliver([row(1)], xml(fault("STRANGE", "No such city"), 500))
    assert [(one.status, one.code) for one in told] == [(Status.REJECTED, "STRANGE")]
    assert "No such city" in told[0].reason


def test_without_atomic_a_refused_message_of_several_rows_leaves_them_unknown() -> None:
    registry = soap(API.replace("atomic: true\n", ""))
    with pytest.raises(Unavailable, match="atomic"):
        drive(registry, registry.deliver(batch(row(1), row(2))), xml(fault("Sender", "no"), 500))


def test_values_that_the_types_refuse_are_of_their_rows_alone() -> None:
    rows = [
        row(0),
        row(1, age="seven"),
        row(2, active="perhaps"),
        row(3, joined="yesterday"),
        row(4, active=None),
        row(5, seen="2026-08-01T00:00:00Z", photo="AAE=", grade="gold", address={"city": "Ulm"}),
        row(6, balance="1e5"),
        row(7, shoe_size=43),
    ]
    told, (request,) = deliver(rows, xml(saved(outcome("m0"), outcome("m5"))))
    assert statuses(told) == [Status.UPDATED, *[Status.REJECTED] * 4, Status.UPDATED, *[Status.REJECTED] * 2]
    assert (request.body or b"").count(b":email>") == 4
    assert ET.fromstring((request.body or b"").replace(MARK, b"")).findtext(f".//{M}address/{M}city") == "Ulm"
    assert 'age takes a whole number, and its value is "seven"' in told[1].reason
    assert "active cannot be emptied: the WSDL allows no nil there" in told[4].reason
    assert '"shoe_size" is no element of it in the WSDL' in told[7].reason


def test_a_batch_of_which_no_row_can_be_sent_asks_nothing() -> None:
    told, asked = deliver([row(1, age="x"), row(2, age="y")])
    assert (statuses(told), asked) == ([Status.REJECTED] * 2, [])


@pytest.mark.parametrize("text", ["a\x00b", "a\x0bb", "\ufffe", "\ud800"])
def test_characters_that_no_xml_can_hold_are_refused_before_they_are_sent(text: str) -> None:
    with pytest.raises(ValueError, match="character that no XML document can hold"):
        REGISTRY.encode(text)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")))
def test_any_other_text_arrives_as_it_is(text: str) -> None:
    assert REGISTRY.encode(text) == text
    _, (request,) = deliver([row(1, name=text)], xml(saved(outcome("m1"))))
    assert (ET.fromstring((request.body or b"").replace(MARK, b"")).findtext(f".//{M}name") or "") == text


def test_carriage_returns_and_bytes_arrive_as_they_are() -> None:
    assert REGISTRY.encode(b"\x00\x01") == "AAE="
    _, (request,) = deliver([row(1, name="a\r\nb\tc")], xml(saved(outcome("m1"))))
    assert ET.fromstring((request.body or b"").replace(MARK, b"")).findtext(f".//{M}name") == "a\r\nb\tc"


def test_what_is_to_be_deleted_is_looked_up_where_its_id_is_not_known() -> None:
    rows = [row(n, Action.DELETE) for n in range(3)]
    found = envelope(
        '<findMembersResponse xmlns="urn:registry">'
        "<found><memberId>m2</memberId><email>2@example.com</email></found>"
        "<found><memberId>m0</memberId><email>0@EXAMPLE.com</email></found></findMembersResponse>"
    )
    gone = outcome(None, code="GONE", text="No such member")
    told, asked = deliver(rows, xml(found), xml(saved(outcome("m0"), gone, operation="dropMembers")))
    assert statuses(told) == [Status.DELETED] * 3
    ids = [node.text for node in ET.fromstring((asked[1].body or b"").replace(MARK, b"")).iter(f"{T}memberId")]
    assert ids == ["m0", "m2"]
    assert asked[0].changes_nothing
    assert not asked[1].changes_nothing


def test_the_wsdl_says_which_fields_there_are() -> None:
    assert REGISTRY.describes
    fields, _ = drive(REGISTRY, REGISTRY.fields("members"))
    assert {field.name: field.type.value for field in fields} == {
        "email": "string",
        "name": "string",
        "age": "integer",
        "balance": "number",
        "active": "boolean",
        "joined": "date",
        "seen": "timestamp",
        "photo": "unknown",
        "grade": "string",
        "address": "unknown",
    }
    assert [field.name for field in fields if field.required] == ["email"]


READING = API.replace(
    "objects:",
    """identify: {operation: findMembers, body: {email: [me@example.com]}, id: "found[0].memberId"}
references:
  ids:
    operation: findMembers
    body: {email: ["*", "{offset}"]}
    records: found
    next: {offset: 0}
    columns: {email: email, id: memberId}
objects:""",
)


def found(*emails: str) -> Response:
    entries = "".join(f"<found><memberId>m-{e}</memberId><email>{e}</email></found>" for e in emails)
    return xml(envelope(f'<findMembersResponse xmlns="urn:registry">{entries}</findMembersResponse>'))


def test_a_reference_is_read_page_after_page_until_one_is_empty() -> None:
    registry = soap(READING)
    (reference,) = registry.references()
    cursor, rows, asked = None, [], []
    for answer in (found("a", "b"), found("c"), found()):
        page, steps = drive(registry, registry.read(reference.name, ["email"], cursor), answer)
        asked += [
            ET.fromstring((r.body or b"").replace(MARK, b"")).findall(f".//{T}email")[1].text for r in requests(steps)
        ]
        assert all(request.changes_nothing for request in requests(steps))
        rows += list(page.rows)
        cursor = page.cursor
    assert cursor is None
    assert asked == ["0", "2", "3"]
    assert rows == [{"email": e, "id": f"m-{e}"} for e in "abc"]


def test_the_account_says_who_it_is() -> None:
    registry = soap(READING)
    flow = registry.identify()
    assert flow is not None
    name, _ = drive(registry, flow, found("me@example.com"))
    assert name == "account m-me@example.com"
    for answer in (found(), xml(fault("Sender", "Who?"), 500), xml(b"<html/>")):
        flow = registry.identify()
        assert flow is not None
        with pytest.raises((Unavailable, Refused)):
            drive(registry, flow, answer)


def test_rows_in_doubt_are_looked_up() -> None:
    assert REGISTRY.can_verify("members", ["email"])
    told, _ = drive(REGISTRY, REGISTRY.verify(batch(row(1), row(2))), found("2@example.com"))
    assert [None if one is None else (one.status, one.destination_id) for one in told] == [
        None,
        (Status.CREATED, "m-2@example.com"),
    ]
