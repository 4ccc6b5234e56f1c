"""XML-RPC (xmlrpc.com/spec.md): calls as XML over HTTP, one in a request or by `system.multicall`, from YAML alone."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar
from xmlrpc.client import ExpatParser, Fault, Marshaller, ResponseError, Unmarshaller, escape

from pydantic import Field, model_validator

from integrations_dagster.destinations.answers import unreadable
from integrations_dagster.destinations.base import Response
from integrations_dagster.destinations.error_table import shorten
from integrations_dagster.destinations.paths import as_text
from integrations_dagster.destinations.rpc.calls import Answer, Call, Expected, Reply
from integrations_dagster.destinations.rpc.destination import Rpc
from integrations_dagster.destinations.rpc.errors import Failure
from integrations_dagster.destinations.rpc.forms import RpcKeys
from integrations_dagster.destinations.rpc.values import kind_of
from integrations_dagster.destinations.values import json_value
from integrations_dagster.keys import Keys, mistake

MULTICALL = "system.multicall"
"""Takes an array of structs `methodName`, `params`, and answers an array: of each call an array with its result, or a
struct with its fault (mirrors.talideon.com/articles/multicall.html)."""
TAGGED = "$xmlrpc"
"""Marks, in a payload, a value of a type that JSON has not: `{"$xmlrpc": ["base64", "AA=="]}`."""
TYPES = ("dateTime.iso8601", "base64")
_INT = range(-(2**31), 2**31)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document can hold (XML 1.0, section 2.2)."""


class XmlRpcKeys(RpcKeys):
    """How an API of XML-RPC is spoken."""

    nil: bool = Field(default=True, description="Whether it takes <nil/>, an extension; else null is an empty text.")

    @model_validator(mode="after")
    def _by_position(self) -> XmlRpcKeys:
        calls = {name: getattr(self, name) for name in ("create", "upsert", "update", "delete", "search", "fields")}
        for name, call in calls.items():
            if call is not None and not isinstance(call.params, list):
                raise mistake((name, "params"), "takes a list: XML-RPC has parameters by position only")
        for name, reference in self.references.items():
            if not isinstance(reference.params, list):
                raise mistake(("references", name, "params"), "takes a list: XML-RPC has parameters by position only")
        return self


class XmlRpc(Rpc):
    """An API that speaks XML-RPC. A fault has status 200.

    An answer with a document type is not read, so that no entity in it is ever expanded.
    """

    kind: ClassVar[str] = "xmlrpc"
    label: ClassVar[str] = "XML-RPC"
    options: ClassVar[tuple[str, type[Keys]] | None] = ("api", XmlRpcKeys)
    as_text: ClassVar[frozenset[type]] = frozenset()
    option: XmlRpcKeys

    def encode(self, value: Any) -> Any:
        """As its kind says, but no character that XML cannot hold.

        Raises:
            ValueError: There is one, or the value has no form.
        """
        made = super().encode(value)
        _check_characters(made)
        return made

    def plain(self, value: Any) -> Any:
        """dateTime.iso8601 for dates and moments (in UTC), base64 for bytes, exact text for decimals."""
        kind = kind_of(value)
        if kind == "bytes":
            return {TAGGED: ["base64", base64.b64encode(value).decode()]}
        if kind == "date":
            return {TAGGED: ["dateTime.iso8601", value.strftime("%Y%m%dT00:00:00").rjust(17, "0")]}
        if kind == "timestamp":
            moment: datetime = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
            return {TAGGED: ["dateTime.iso8601", moment.strftime("%Y%m%dT%H:%M:%S").rjust(17, "0")]}
        return json_value(value)

    def write(self, calls: Sequence[Call], *, together: bool) -> tuple[bytes, dict[str, str]]:
        method, params = calls[0]
        if together:
            method, params = MULTICALL, [[{"methodName": name, "params": given} for name, given in calls]]
        assert isinstance(params, list), "the form of `api` takes no other"
        written = _Writer(encoding="utf-8", allow_none=self.option.nil).dumps(tuple(params))
        body = f"<?xml version='1.0'?><methodCall><methodName>{escape(method)}</methodName>{written}</methodCall>"
        return body.encode(), {"Content-Type": "text/xml", "Accept": "text/xml"}

    def read_answer(self, response: Response, expected: Expected) -> Answer:
        try:
            results = _read(response.body)
        except Fault as fault:
            failure = _failure(fault.faultCode, fault.faultString)
            return Answer(whole=failure) if expected.together else Answer(replies=(Reply(failure=failure),))
        except Exception as error:  # noqa: BLE001 (the parser raises what it meets: a value that is no number, for one)
            why = "a document type, which is not read" if isinstance(error, _DocumentType) else "no XML-RPC answer"
            raise unreadable(self.label, response.status, why, self.request_id(response)) from None
        if len(results) != 1:
            raise unreadable(self.label, response.status, f"{len(results)} results", self.request_id(response))
        if not expected.together:
            return Answer(replies=(Reply(results[0]),))
        if not isinstance(results[0], list) or len(results[0]) != expected.calls:
            # Told apart by their order alone, they are of no use if one is missing.
            what = f"other than {expected.calls} results of a {MULTICALL}"
            raise unreadable(self.label, response.status, what, self.request_id(response))
        return Answer(replies=tuple(_of_multicall(item) for item in results[0]))


def _of_multicall(item: Any) -> Reply | None:
    if isinstance(item, list) and len(item) == 1:
        return Reply(item[0])
    if isinstance(item, dict) and "faultCode" in item:
        return Reply(failure=_failure(item["faultCode"], item.get("faultString")))
    return None


def _failure(code: Any, text: Any) -> Failure:
    return Failure(shorten(as_text(code), 64), shorten(as_text(text)))


def _check_characters(value: Any) -> None:
    if isinstance(value, str):
        found = _NOT_XML.search(value)
        if found:
            raise ValueError(f"A text holds the character U+{ord(found[0]):04X}, which no XML document can hold.")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _check_characters(name)
            _check_characters(item)
    elif isinstance(value, list):
        for item in value:
            _check_characters(item)


class _DocumentType(ValueError):
    """An answer has a document type."""


class _Parser(ExpatParser):
    """Takes no document type: entities are declared there."""

    def __init__(self, target: Unmarshaller) -> None:
        super().__init__(target)
        self._parser.StartDoctypeDeclHandler = self._refuse  # type: ignore[attr-defined]  # not in the stubs

    def _refuse(self, *_args: object) -> None:
        raise _DocumentType


def _read(body: bytes) -> tuple[Any, ...]:
    """The results of an answer.

    Raises:
        Fault: It is one.
        Exception: It is no XML-RPC.
    """
    target = Unmarshaller(use_builtin_types=True)
    parser = _Parser(target)
    parser.feed(body)
    parser.close()
    results: tuple[Any, ...] = tuple(target.close())
    if target.getmethodname() is not None:
        raise ResponseError
    return results


class _Writer(Marshaller):
    """The standard library's, with integers of more than 32 bits (<i8>, an extension) and values that are tagged."""

    dispatch: dict[Any, Any] = dict(Marshaller.dispatch)  # noqa: RUF012 (the base class's)

    def _int(self, value: int, write: Callable[[str], Any]) -> None:
        kind = "int" if value in _INT else "i8"
        write(f"<value><{kind}>{value}</{kind}></value>")

    def _text(self, value: str, write: Callable[[str], Any]) -> None:
        # A reader would take a carriage return for the end of a line.
        write(f"<value><string>{escape(value).replace(chr(13), '&#13;')}</string></value>")

    def _nothing(self, _value: None, write: Callable[[str], Any]) -> None:
        write("<value><nil/></value>" if self.allow_none else "<value><string></string></value>")

    def _struct(self, value: dict[str, Any], write: Callable[[str], Any]) -> None:
        tagged = value.get(TAGGED) if len(value) == 1 else None
        if isinstance(tagged, list) and len(tagged) == 2 and tagged[0] in TYPES and isinstance(tagged[1], str):
            write(f"<value><{tagged[0]}>{escape(tagged[1])}</{tagged[0]}></value>")
        else:
            self.dump_struct(value, write)

    dispatch.update({int: _int, str: _text, type(None): _nothing, dict: _struct})
