"""Requests of an API as YAML describes them, compiled: what is sent, and what an answer as a whole means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any
from urllib.parse import urljoin

from integrations_dagster.destinations.answers import (
    AnswerPaths,
    Listing,
    Told,
    document_of,
    judged,
    unreadable,
)
from integrations_dagster.destinations.base import Batch, Request, Response
from integrations_dagster.destinations.error_table import shorten
from integrations_dagster.destinations.errors import Unavailable
from integrations_dagster.destinations.http.bodies import CONTENT_TYPES, body_template, xml_document
from integrations_dagster.destinations.http.errors import Errors, Verdict
from integrations_dagster.destinations.http.forms import HttpApi, JobKeys, OperationKeys
from integrations_dagster.destinations.http.paging import Place, names, parameter
from integrations_dagster.destinations.http.reading_forms import IdentifyKeys, ReadKeys
from integrations_dagster.destinations.http.templates import (
    PLACEHOLDER,
    Make,
    Scope,
    header_of,
    json_template,
    path_of,
    query_of,
)
from integrations_dagster.destinations.paths import as_text, find, probe

HANDLED = frozenset({"rejected", "missing", "ignored"})
"""What the flow of an operation makes outcomes of; the engine recovers from the rest."""


@dataclass(frozen=True, slots=True)
class Asked(Request):
    """A request that knows what it is, so that its answer is judged by its own rules.

    Attributes:
        call: What was called.
    """

    call: Call | None = None


class Call:
    """One request of the API.

    Args:
        api: The API.
        line: Method and path.
        headers, query: Beside those of the API.
        ok: Expression that is true in answers to requests that did not fail as a whole.
        statuses: Statuses whose answers are read; others are looked up among the errors.
        handled: What errors may mean that the flow makes something of; the engine recovers from the rest.
        writes: Whether it changes anything.
        absent: Statuses that are the flow's to read, whatever the answer says.
        xml: Whether answers are XML though they may not say so.
    """

    def __init__(
        self,
        api: HttpApi,
        line: str,
        headers: Mapping[str, str],
        query: Mapping[str, Any],
        errors: Errors,
        *,
        ok: str | None,
        statuses: tuple[str, ...] = ("2xx",),
        handled: frozenset[str] = frozenset(),
        writes: bool = False,
        absent: frozenset[int] = frozenset(),
        xml: bool = False,
    ) -> None:
        self._label = api.label
        self._id_header = (api.request_id or "x-request-id").lower()
        self.line = line
        self.method, _, self.path = line.partition(" ")
        self.headers = {**api.headers, **headers}
        self._plain = not any(PLACEHOLDER.search(value) for value in self.headers.values())
        self.query = query
        self.errors = errors
        self.ok = ok
        self.statuses = statuses
        self.handled = handled
        self.writes = writes
        self._absent = absent
        self._xml = xml

    def asked(
        self, scope: Scope, body: bytes | None = None, more: Mapping[str, str] | None = None, extra: str = ""
    ) -> Asked:
        """The request.

        Args:
            more: Further headers.
            extra: A further query parameter, encoded.

        Raises:
            Unfit: A row has no value for a place that needs one.
        """
        headers = self.headers if self._plain else {k: header_of(v, scope) for k, v in self.headers.items()}
        query = "&".join(filter(None, (query_of(self.query, scope) if self.query else "", extra)))
        path = path_of(self.path, scope)
        return Asked(
            self.method,
            f"{path}?{query}" if query else path,
            body,
            {**headers, **(more or {})},
            reads=not self.writes,
            call=self,
        )

    def request_id(self, response: Response) -> str:
        return response.headers.get(self._id_header, "")

    def document(self, response: Response) -> Any:
        """The decoded answer.

        Raises:
            Unavailable: It cannot be decoded.
        """
        if not self._xml and "xml" not in response.headers.get("content-type", ""):
            return document_of(response, self._label, self.request_id(response))
        try:
            return xml_document(response.body)
        except ValueError:
            what = f"{len(response.body)} bytes that are no XML"
            raise unreadable(self._label, response.status, what, self.request_id(response)) from None

    def reads(self, status: int) -> bool:
        """Whether answers with a status are read, and not looked up in the error table."""
        return str(status) in self.statuses or f"{str(status)[0]}xx" in self.statuses

    def verdict(self, response: Response) -> Verdict | None:
        """What an answer to a request that failed as a whole means; None of any other."""
        if response.status in self._absent:
            return None
        try:
            document = self.document(response)
        except Unavailable:
            document = None
        reads = self.reads(response.status)
        if reads and self._holds(document) is not False:
            return None
        return self._verdict(response, document, failed=reads)

    def _verdict(self, response: Response, document: Any, *, failed: bool) -> Verdict:
        return self.errors.verdict(response, document, shorten(self.request_id(response)), failed=failed)

    def _holds(self, document: Any) -> bool | None:
        """Whether an answer says that its request did not fail as a whole; None: that is not known."""
        if self.ok is None:
            return None
        try:
            found = find(self.ok, document)
        except ValueError:
            return None
        return found if isinstance(found, bool) else None

    def checked(self, response: Response) -> Any:
        """The document of an answer that has not failed as a whole.

        Raises:
            Unavailable: It cannot be decoded, or does not say so where it should.
        """
        document = self.document(response)
        if self.ok is not None and self._holds(document) is not True:
            what = f"no true or false at `{self.ok}`"
            raise unreadable(self._label, response.status, what, self.request_id(response))
        return document


class Operation(Call):
    """An operation that writes.

    Args:
        name: Its name in YAML.
    """

    def __init__(self, api: HttpApi, form: OperationKeys) -> None:
        encoding = form.encoding or api.encoding
        super().__init__(
            api,
            form.request,
            form.headers,
            form.query,
            Errors(api, form),
            ok=form.ok or api.ok,
            statuses=tuple(form.statuses),
            handled=HANDLED,
            writes=True,
            xml=encoding == "xml",
        )
        self.form = form
        self.rows = form.rows
        self.atomic = api.atomic if form.atomic is None else form.atomic
        self._body: Make | None = None
        if form.body is not None:
            self._body = body_template(encoding, form.body, form.item)
            self.headers = {"Content-Type": CONTENT_TYPES[encoding], **self.headers}
        self._key_header = form.idempotency_header or api.idempotency_header
        answer = form.answer
        self.paths: AnswerPaths | None = answer.paths(xml=encoding == "xml") if answer.about_rows else None
        self.whole: Listing | None = None
        if self.paths is None and answer.means is None:
            self.whole = answer.listing("@")
        self.job = None if form.job is None else Job(api, form.job)

    def made(self, batch: Batch) -> Asked:
        """The request for the rows of a batch; the same bytes whenever it is made.

        Raises:
            Unfit: A row has no value for a place that needs one.
        """
        scope = Scope.of(batch)
        body = None if self._body is None else self._body(scope)
        more = {self._key_header: batch.idempotency_key} if self._key_header else None
        return self.asked(scope, body, more)

    def _holds(self, document: Any) -> bool | None:
        found = super()._holds(document)
        if found is not False and self.whole is not None and self.job is None:
            said = judged(self.whole, document)
            return False if said is False else found
        return found

    def _verdict(self, response: Response, document: Any, *, failed: bool) -> Verdict:
        answer = self.form.answer
        code, message = (answer.code, answer.message) if self.whole is not None else (None, None)
        id_ = shorten(self.request_id(response))
        return self.errors.verdict(response, document, id_, code, message, failed=failed)

    def told(self, document: Any, count: int) -> list[Told]:
        """What an answer about the request as a whole says of each of its rows."""
        accepted = True if self.whole is None else judged(self.whole, document)
        answer = self.form.answer
        id_ = _text(answer.id, document) if count == 1 else ""
        created = probe(answer.created, document) if answer.created else None
        made = created if isinstance(created, bool) else None
        return [Told(place, accepted, id_ or None, created=made) for place in range(count)]


class Job:
    """A job of the API: how it is asked for, and its results."""

    def __init__(self, api: HttpApi, form: JobKeys) -> None:
        self.form = form
        errors = Errors(api)
        self.poll = Call(api, form.poll, {}, {}, errors, ok=api.ok, absent=frozenset({404, 410}))
        self.results = None if form.results is None else Call(api, form.results, {}, form.query, errors, ok=api.ok)


class Reader(Call):
    """A list that is read page by page.

    Args:
        handled: What errors may mean that the flow makes something of.
    """

    def __init__(self, api: HttpApi, form: ReadKeys, handled: frozenset[str] = frozenset()) -> None:
        super().__init__(api, form.request, form.headers, form.query, Errors(api), ok=api.ok, handled=handled)
        self.form = form
        self._body = None if form.body is None else json_template(form.body)
        if form.body is not None:
            self.headers = {"Content-Type": CONTENT_TYPES["json"], **self.headers}

    def page(self, scope: Scope, place: Place) -> Asked:
        """The request for a page.

        Raises:
            Unfit: A value is missing.
        """
        return page_of(self, scope, place, self.form.next, self._body)

    def records(self, response: Response) -> tuple[list[Any], Any]:
        """The records of a page, and the document.

        Raises:
            Unavailable: There is no list of them.
        """
        document = self.checked(response)
        records = probe(self.form.records, document)
        if isinstance(records, dict) and self.is_xml(response):
            records = [records]
        if not isinstance(records, list):
            what = f"no list at `{self.form.records}`"
            raise unreadable(self._label, response.status, what, self.request_id(response))
        return records, document

    def is_xml(self, response: Response) -> bool:
        return "xml" in response.headers.get("content-type", "")


def page_of(call: Call, scope: Scope, place: Place, paging: Any, body: Make | None = None) -> Asked:
    """The request for a page of a list."""
    known = Scope(scope.object, scope.batch, scope.row, scope.place, {**scope.more, **names(paging, place)})
    if paging is not None and paging.way in ("url", "link") and place.at is not None:
        address = place.at
        if address.startswith("?"):
            return Asked(call.method, path_of(call.path, known) + address, headers=call.headers, reads=True, call=call)
        return Asked(call.method, urljoin("/", address), headers=call.headers, reads=True, link=True, call=call)
    return call.asked(known, None if body is None else body(known), extra=parameter(paging, place))


# A kind whose forms are narrower says here what is called by them.


@singledispatch
def operation_of(form: OperationKeys, api: HttpApi) -> Operation:
    """The operation that a form describes."""
    return Operation(api, form)


@singledispatch
def reader_of(form: ReadKeys, api: HttpApi, handled: frozenset[str] = frozenset()) -> Reader:
    """The list that a form describes."""
    return Reader(api, form, handled)


@singledispatch
def identifier(form: IdentifyKeys, api: HttpApi) -> Call:
    """The request that asks who the account is."""
    return Call(api, form.request, form.headers, {}, Errors(api), ok=api.ok)


def _text(path: str | None, document: Any) -> str:
    return as_text(probe(path, document)) if path else ""
