"""Kind `http`: lists page by page, reference data, fields, who the account is; fed with answers, without a server."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations_dagster.destinations.base import Request, Response
from integrations_dagster.destinations.errors import Refused, Throttled, Unavailable
from integrations_dagster.destinations.http.destination import Http
from integrations_dagster.destinations.reading import FieldType, Reference
from integrations_dagster_tests.destinations.http_flows import api, drive, says

WRITES = "objects: {x: {create: {request: POST /x, body: '{record}', answer: all_rows}}}\n"


def listing(paging: str, query: str = "{}") -> Http:
    return api(
        WRITES + f"references: {{owners: {{request: GET /owners, query: {query}, records: data, next: {paging}, "
        "columns: {id: id, name: profile.name}, key: name, normalize: {name: trim_lower}}}"
    )


def person(place: int) -> dict[str, Any]:
    return {"id": place, "profile": {"name": f"N{place}"}}


def read_all(acme: Http, serve: Any, most: int = 60) -> list[str | None]:
    """All ids of the reference, page by page, as `sync.references` reads them."""
    found: list[str | None] = []
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(most):
        flow = acme.read("owners", ("id",), cursor)
        request = next(flow)
        assert isinstance(request, Request)
        response = serve(request)
        acme.classify(request, response)
        try:
            flow.send(response)
        except StopIteration as end:
            page = end.value
        found += [one["id"] for one in page.rows]
        if page.cursor is None:
            return found
        assert page.cursor not in seen
        seen.add(page.cursor)
        cursor = page.cursor
    raise AssertionError("the list does not end")


class Pages:
    """A list that is served in each of the ways; says how many pages were asked for."""

    def __init__(self, count: int, size: int) -> None:
        self.people = [person(place) for place in range(count)]
        self.size = size
        self.asked = 0

    def slice(self, start: int) -> tuple[list[dict[str, Any]], int | None]:
        self.asked += 1
        end = start + self.size
        return self.people[start:end], end if end < len(self.people) else None

    def number(self, request: Request, name: str, default: int) -> int:
        return int(parse_qs(urlsplit(request.path).query).get(name, [str(default)])[0])

    def cursor(self, request: Request) -> Response:
        people, following = self.slice(self.number(request, "after", 0))
        return says({"data": people, "next": None if following is None else str(following)})

    def last_id(self, request: Request) -> Response:
        """The cursor is the last record's id, and only an empty page tells that there is no more."""
        people, _ = self.slice(self.number(request, "after", -1) + 1)
        return says({"data": people, "more": len(people) == self.size})

    def url(self, request: Request) -> Response:
        people, following = self.slice(self.number(request, "from", 0))
        return says(
            {"data": people, "next": None if following is None else f"https://a.example/owners?from={following}"}
        )

    def link(self, request: Request) -> Response:
        people, following = self.slice(self.number(request, "from", 0))
        header = f'<https://a.example/?x=1>; rel="prev first", </owners?from={following}>; title="a, b"; rel=Next'
        return says({"data": people}, link=header) if following is not None else says({"data": people})

    def page(self, request: Request) -> Response:
        people, _ = self.slice((self.number(request, "page", 1) - 1) * self.size)
        return says({"data": people, "total": len(self.people)})

    def offset(self, request: Request) -> Response:
        people, _ = self.slice(self.number(request, "skip", 0))
        return says({"data": people, "total": str(len(self.people))})


WAYS = {
    "cursor": ("{cursor: next, param: after}", "exact"),
    "last_id": ('{cursor: "data[-1].id", param: after}', "one more"),
    "url": ("{url: next}", "exact"),
    "link": ("{link: next}", "exact"),
    "page": ("{page: 1, param: page}", "one more"),
    "offset": ("{offset: 0, param: skip, total: total}", "exact"),
}


@pytest.mark.parametrize("way", WAYS)
@given(count=st.integers(0, 40), size=st.integers(1, 9))
def test_every_record_comes_once_and_the_list_ends(way: str, count: int, size: int) -> None:
    paging, pages = WAYS[way]
    server = Pages(count, size)
    assert read_all(listing(paging), getattr(server, way)) == [str(place) for place in range(count)]
    full = max(1, math.ceil(count / size))
    assert server.asked <= (full if pages == "exact" else full + 1)


def test_the_last_page_is_known_by_its_size_or_by_more() -> None:
    server = Pages(7, 3)
    assert len(read_all(listing("{page: 1, param: page, size: 3}"), server.page)) == 7
    assert server.asked == 3
    server = Pages(7, 3)
    assert len(read_all(listing('{cursor: "data[-1].id", param: after, more: more}'), server.last_id)) == 7
    assert server.asked == 3


ENDLESS: dict[str, tuple[str, Any]] = {
    "a page parameter that is ignored": ("{page: 1, param: page}", lambda _: says({"data": [person(1)]})),
    "an offset that is ignored": ("{offset: 0, param: skip}", lambda _: says({"data": [person(1)]})),
    "a cursor that stays": ("{cursor: next, param: after}", lambda _: says({"data": [person(1)], "next": "a"})),
    "a link to itself": ("{link: next}", lambda _: says({"data": [person(1)]}, link='</owners>; rel="next"')),
    "a URL to itself": ("{url: next}", lambda _: says({"data": [person(1)], "next": "/owners"})),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_list_that_never_ends_is_given_up(what: str) -> None:
    paging, serve = ENDLESS[what]
    with pytest.raises(Unavailable, match="never ends"):
        read_all(listing(paging), serve)


def test_empty_pages_without_end_are_given_up() -> None:
    def serve(request: Request) -> Response:
        return says({"data": [], "next": f"{request.path}x"})

    with pytest.raises(Unavailable, match="empty pages"):
        read_all(listing("{cursor: next, param: after}"), serve)


def test_an_empty_page_within_a_list_is_no_end() -> None:
    pages = {"": ([person(0)], "a"), "a": ([], "b"), "b": ([person(1)], "c"), "c": ([], "c")}

    def serve(request: Request) -> Response:
        people, following = pages[parse_qs(urlsplit(request.path).query).get("after", [""])[0]]
        return says({"data": people, "next": following})

    assert read_all(listing("{cursor: next, param: after}"), serve) == ["0", "1"]


def test_where_the_cursor_goes() -> None:
    acme = api(
        WRITES + "references: {owners: {request: POST /owners/list, query: {q: '{columns}'}, records: '@', "
        "body: {after: '{cursor}', take: 2}, next: {cursor: '[-1].id'}, columns: {id: id, name: name}}}"
    )
    page, steps = drive(acme, acme.read("owners", ("id", "name"), None), says([{"id": 1}, {"id": 2}]))
    (request,) = steps
    assert isinstance(request, Request)
    assert request.changes_nothing
    assert request.path == "/owners/list?q=id%2Cname"
    assert json.loads(request.body or b"") == {"after": None, "take": 2}
    _, steps = drive(acme, acme.read("owners", ("id",), page.cursor), says([]))
    assert isinstance(steps[0], Request)
    assert json.loads(steps[0].body or b"")["after"] == "2"


def test_links_are_marked_as_such() -> None:
    """The session follows them to the account's own host only."""
    acme = listing("{url: next}")
    page, _ = drive(
        acme, acme.read("owners", ("id",), None), says({"data": [person(1)], "next": "https://evil.example/x"})
    )
    flow = acme.read("owners", ("id",), page.cursor)
    request = next(flow)
    assert isinstance(request, Request)
    assert (request.link, request.path) == (True, "https://evil.example/x")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (says({}), Unavailable),
        (says({"data": {}}), Unavailable),
        (says({"data": [], "next": {"a": 1}}), Unavailable),
        (Response(200, {}, b"<html>"), Unavailable),
        (says({}, 429), Throttled),
        (says({}, 400), Refused),
        (says({}, 413), Refused),
        (says({}, 404), Refused),
        (says({}, 502), Unavailable),
    ],
)
def test_a_page_that_cannot_be_read(answer: Response, kind: type[Exception]) -> None:
    acme = listing("{cursor: next, param: after}")
    with pytest.raises(kind):
        drive(acme, acme.read("owners", ("id",), None), answer)


def test_references_are_told() -> None:
    (owners,) = listing("{link: next}").references()
    assert owners == Reference("owners", "id", "name", ("id", "name"), {"name": "trim_lower"}, "")
    page, _ = drive(
        listing("{link: next}"),
        listing("{link: next}").read("owners", (), None),
        says({"data": [{"id": 1.0, "profile": {"name": ""}}, {"id": True, "profile": None}]}),
    )
    assert page.rows == ({"id": "1", "name": None}, {"id": "true", "name": None})


def test_who_the_account_is() -> None:
    acme = api(WRITES + "identify: {request: GET /me, id: account.id}")
    flow = acme.identify()
    assert flow is not None
    assert drive(acme, flow, says({"account": {"id": 7}}))[0] == "account 7"
    flow = acme.identify()
    assert flow is not None
    with pytest.raises(Unavailable, match="does not say who the account is"):
        drive(acme, flow, says({}))
    assert api(WRITES).identify() is None


def test_fields_that_the_api_describes() -> None:
    acme = api(
        "objects: {people: {create: {request: POST /x, body: '{record}', answer: all_rows}, fields: "
        "{request: 'GET /meta/{object}', records: fields, name: key, label: title, type: kind, types: {text: string}, "
        "required: needed, read_only: locked, unique: id, options: 'values[].v'}}}"
    )
    assert acme.describes
    described = {"key": "a", "title": "A", "kind": "text", "needed": True, "id": True, "values": [{"v": "x"}]}
    odd = {"key": "b", "kind": "odd", "locked": True}
    fields, steps = drive(acme, acme.fields("people"), says({"fields": [odd, described]}))
    assert isinstance(steps[0], Request)
    assert steps[0].path == "/meta/people"
    assert [(f.name, f.label, f.type, f.writable, f.required, f.unique, f.options) for f in fields] == [
        ("a", "A", FieldType.STRING, True, True, True, ("x",)),
        ("b", "b", FieldType.UNKNOWN, False, False, False, ()),
    ]


def test_fields_that_yaml_lists() -> None:
    acme = api(
        "objects: {people: {match: [email], create: {request: POST /x, body: '{record}', answer: all_rows}, "
        "fields: {email: email, age: {type: integer, writable: false}, name: }}}"
    )
    fields, steps = drive(acme, acme.fields("people"))
    assert not steps
    assert [(f.name, str(f.type), f.writable, f.unique) for f in fields] == [
        ("age", "integer", False, False), ("email", "email", True, True), ("name", "unknown", True, False),
    ]  # fmt: skip
