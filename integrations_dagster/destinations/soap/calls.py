"""Operations of a WSDL as requests, and what their answers mean: faults, whatever their status, and results."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from integrations_dagster.destinations.answers import unreadable
from integrations_dagster.destinations.base import Batch, Response
from integrations_dagster.destinations.error_table import Problem, shorten
from integrations_dagster.destinations.errors import Refused, Unavailable
from integrations_dagster.destinations.http.answer_forms import ErrorKeys
from integrations_dagster.destinations.http.calls import (
    Asked,
    Call,
    Operation,
    Reader,
    identifier,
    operation_of,
    reader_of,
)
from integrations_dagster.destinations.http.errors import Errors, Verdict
from integrations_dagster.destinations.http.forms import HttpApi, OperationKeys
from integrations_dagster.destinations.http.paging import Place, names
from integrations_dagster.destinations.http.templates import (
    PLACEHOLDER,
    SPREAD,
    Scope,
    Unfit,
    each_row,
    text,
    value_of,
)
from integrations_dagster.destinations.soap.forms import (
    SoapApi,
    SoapIdentifyKeys,
    SoapOperationKeys,
    SoapReadKeys,
)
from integrations_dagster.destinations.soap.shapes import EMPTIED
from integrations_dagster.destinations.soap.wsdl import Answered, Fault, WsdlOperation
from integrations_dagster.vocabulary import Row

_MESSAGE = "Check `body` and `soap_headers` of the destination against the API's documentation."
_WITHIN = "The API failed within."
_CONTENT = "The API refused the message for what is in it."
FAULTS: Mapping[str, ErrorKeys] = {
    code: ErrorKeys.model_validate({"as": word, "says": says, "fix": fix})
    for code, word, says, fix in (
        ("Server", "unavailable", _WITHIN, ""),
        ("Receiver", "unavailable", _WITHIN, ""),
        ("Client", "rejected", _CONTENT, ""),
        ("Sender", "rejected", _CONTENT, ""),
        ("VersionMismatch", "misconfigured", "The API speaks another version of SOAP.", "Choose another `port`."),
        ("MustUnderstand", "misconfigured", "The API does not know a header.", _MESSAGE),
        ("DataEncodingUnknown", "misconfigured", "The API does not know the encoding.", _MESSAGE),
    )
}
"""What the codes that SOAP reserves mean, unless YAML says otherwise: SOAP 1.1, section 4.4.1, and SOAP 1.2, part 1,
section 5.4.6. A code of the API's own that YAML does not name refuses the message for what is in it."""


class SoapErrors(Errors):
    """The errors of an operation, faults among them."""

    def __init__(self, api: HttpApi, operation: OperationKeys | None = None) -> None:
        super().__init__(api, operation)
        self._own = {**FAULTS, **self._own}

    def _problem(
        self, response: Response, document: Any, request_id: str, code_at: str | None, message_at: str | None
    ) -> Problem:
        if not isinstance(document, Fault):
            return super()._problem(response, document, request_id, code_at, message_at)
        # JMESPath finds nothing in what is more than a dict.
        problem = super()._problem(response, dict(document), request_id, code_at, message_at)
        # That of `problem.code` first, which may lie in the detail.
        given = problem.codes if self._api.problem.code else ()
        codes = tuple(dict.fromkeys((*given, *document.codes)))
        words = problem.message if self._api.problem.message else shorten(document["message"])
        return dataclasses.replace(problem, codes=codes, message=words)


class SoapCall(Call):
    """A call of an operation."""

    described: WsdlOperation
    _last: tuple[bytes, Answered] | None = None

    def _speak(self, api: SoapApi, operation: str) -> None:
        self.line = operation
        self.described = _described(api, operation)
        self.headers = {**self.headers, **self.described.headers}
        self.path = api.path

    def _answered(self, response: Response) -> Answered:
        # An answer is judged before it is read.
        last = self._last
        if last is not None and last[0] is response.body:
            return last[1]
        try:
            answered = self.described.answer(response.body)
            self._last = response.body, answered
            return answered
        except ValueError as error:
            what = str(error)
        except RecursionError:
            what = "elements within elements without end"
        raise unreadable(self._label, response.status, what, self.request_id(response)) from None

    def document(self, response: Response) -> Any:
        return self._answered(response).document

    def verdict(self, response: Response) -> Verdict | None:
        try:
            document = self.document(response)
        except Unavailable:
            return super().verdict(response)
        if isinstance(document, Fault):
            # An answer of the API itself, though HTTP calls its status one of an outage.
            return self._verdict(response, document, failed=True)
        return super().verdict(response)

    def enveloped(self, body: Any, scope: Scope) -> bytes:
        """The envelope of a request that has no rows.

        Raises:
            Refused: Its arguments have not the form that the WSDL says.
        """
        try:
            return self.described.envelope(filled(body, scope, None, None))
        except Unfit as error:
            reason = f"No request can be made of {self.described.name}: {error}"
            raise Refused(reason, "INVALID_REQUEST", remedy="Correct its `body` in the destination.") from None


class SoapOperation(SoapCall, Operation):
    """An operation that writes."""

    def __init__(self, api: SoapApi, form: SoapOperationKeys) -> None:
        super().__init__(api, form)
        self.errors = SoapErrors(api, form)
        self._arguments, self._item, self._nulls = form.body, form.item, form.nulls
        self._speak(api, form.operation)

    def made(self, batch: Batch) -> Asked:
        arguments = filled(self._arguments, Scope.of(batch), self._item, self._nulls)
        return self.asked(Scope.of(batch), self.described.envelope(arguments))

    def unfit(self, batch: Batch) -> dict[int, str]:
        """The rows of which no request can be made, by their places, and why."""
        found = {}
        for place in range(len(batch.rows)):
            try:
                self.made(dataclasses.replace(batch, rows=batch.rows[place : place + 1]))
            except Unfit as error:
                found[place] = str(error)
        return found


class SoapReader(SoapCall, Reader):
    """A list that is read page by page."""

    def __init__(self, api: SoapApi, form: SoapReadKeys, handled: frozenset[str] = frozenset()) -> None:
        super().__init__(api, form, handled)
        self.errors = SoapErrors(api)
        self._api, self._form = api, form
        self._speak(api, form.operation)

    def page(self, scope: Scope, place: Place) -> Asked:
        further = self._form.next
        known = Scope(scope.object, scope.batch, scope.row, scope.place, {**scope.more, **names(further, place)})
        if further is None or further.operation is None or place.at is None:
            return self.asked(known, self.enveloped(self._form.body, known))
        other = SoapReader(
            self._api, self._form.model_copy(update={"operation": further.operation, "next": None}), self.handled
        )
        return other.asked(known, other.enveloped(further.body, known))

    def _answered(self, response: Response) -> Answered:
        """The first page is answered by one operation, and further ones by another, whose answers may be alike."""
        further = self._form.next
        try:
            return super()._answered(response)
        except Unavailable:
            if further is None or further.operation is None:
                raise
        try:
            return _described(self._api, further.operation).answer(response.body)
        except ValueError as error:
            raise unreadable(self._label, response.status, str(error), self.request_id(response)) from None


@operation_of.register
def _(form: SoapOperationKeys, api: HttpApi) -> Operation:
    assert isinstance(api, SoapApi)
    return SoapOperation(api, form)


@reader_of.register
def _(form: SoapReadKeys, api: HttpApi, handled: frozenset[str] = frozenset()) -> Reader:
    assert isinstance(api, SoapApi)
    return SoapReader(api, form, handled)


class _Identifier(SoapCall):
    def __init__(self, api: SoapApi, form: SoapIdentifyKeys) -> None:
        super().__init__(api, "POST", {}, {}, SoapErrors(api), ok=None)
        self._arguments = form.body
        self._speak(api, form.operation)

    def asked(
        self, scope: Scope, body: bytes | None = None, more: Mapping[str, str] | None = None, extra: str = ""
    ) -> Asked:
        return super().asked(scope, body or self.enveloped(self._arguments, scope), more, extra)


@identifier.register
def _(form: SoapIdentifyKeys, api: HttpApi) -> Call:
    assert isinstance(api, SoapApi)
    return _Identifier(api, form)


def _described(api: SoapApi, name: str) -> WsdlOperation:
    operation = api.described.operation(name)
    operation.set_headers(api.soap_headers)
    return operation


def filled(node: Any, scope: Scope, item: Any, nulls: str | None) -> Any:
    """A structure with the values of its placeholders in their places.

    Args:
        item: The structure of one row, for `{rows}`.
        nulls: Element of it that takes the names of the fields that are to be emptied.
    """
    if isinstance(node, Mapping):
        made = {name: filled(value, scope, item, nulls) for name, value in node.items() if name != SPREAD}
        return _with_record(made, scope.row, nulls) if SPREAD in node else made
    if isinstance(node, list):
        return [filled(value, scope, item, nulls) for value in node]
    if not isinstance(node, str):
        return node
    alone = PLACEHOLDER.fullmatch(node)
    if alone is None:
        return text(node, scope)
    name, path = alone[1], alone[2] or ""
    if name == "rows":
        return [filled(item, row, None, nulls) for row in each_row(scope)]
    if name == "record" and not path:
        return _with_record({}, scope.row, nulls)
    return value_of(name, path, scope)


def _with_record(made: dict[str, Any], row: Row | None, nulls: str | None) -> dict[str, Any]:
    """The elements of a row; those that are to be emptied are marked, or named where that is how it is said."""
    empty = []
    for name, value in (row.payload if row is not None else {}).items():
        if value is not None:
            made[name] = _emptied(value)
        elif nulls is None:
            made[name] = EMPTIED
        else:
            empty.append(name)
    if empty and nulls is not None:
        made[nulls] = [*made.get(nulls, ()), *empty]
    return made


def _emptied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: EMPTIED if part is None else _emptied(part) for name, part in value.items()}
    return value
