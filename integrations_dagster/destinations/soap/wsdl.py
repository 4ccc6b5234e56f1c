"""A WSDL as zeep reads it: its operations, the envelopes of their requests, and what their answers hold.

zeep does none of the input and output: the text of a WSDL, and of what it imports, is given to it, and messages are
bytes. It takes most of a second to import, and is imported with the first destination of this kind.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from lxml import etree  # type: ignore[import-untyped]
from zeep.exceptions import Error as ZeepError
from zeep.exceptions import ValidationError
from zeep.loader import parse_xml
from zeep.settings import Settings
from zeep.wsdl import Document
from zeep.wsdl.bindings.soap import Soap11Binding, Soap12Binding, SoapBinding

from integrations_dagster.destinations.http.templates import Unfit
from integrations_dagster.destinations.soap import shapes
from integrations_dagster.keys import near

Read = Callable[[str], bytes]
"""Reads a file of the project by its path there; raises OSError."""
MARK = b"<?session ?>"
"""What stands in an envelope for the session's token until it is sent: no value of a row can become this, because "<"
is escaped there."""
TOKEN = "{session}"  # noqa: S105 (a placeholder)
ENVELOPES = {
    "http://schemas.xmlsoap.org/soap/envelope/": "1.1",
    "http://www.w3.org/2003/05/soap-envelope": "1.2",
}
_BASE = "file:///"
"""Root of the project, for zeep."""
_SETTINGS = Settings(strict=True, forbid_dtd=True, forbid_entities=True, forbid_external=True, xml_huge_tree=False)


class Fault(dict[str, Any]):
    """A SOAP fault as a document: `code`, `message`, `codes` and `detail`.

    Attributes:
        codes: Its codes without prefixes, the most specific first.
    """

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(self["codes"])


@dataclass(frozen=True, slots=True)
class Answered:
    """What an envelope holds: a fault, or the content of the answer's element."""

    document: Any
    fault: bool = False


class _Files:
    """What zeep loads further documents with: files of the project, and nothing else."""

    def __init__(self, path: str, read: Read) -> None:
        self._root = "/" if path.startswith("/") else ""
        self._read = read

    def load(self, url: str) -> bytes:
        # zeep makes names absolute before it asks.
        name = unquote(urlsplit(url).path).removeprefix("/")
        try:
            return self._read(self._root + name)
        except OSError as error:
            raise LookupError(f"it imports {name!r}, which is no file there ({error.strerror or error})") from None


class Wsdl:
    """A WSDL and the port of it that is spoken to.

    Args:
        path: Its path in the project.
        read: Reads files of the project.
        service, port: Names; "" for the only (or first SOAP) one.

    Raises:
        OSError: There is no such file.
        ValueError: It is no WSDL, or has no such service or port; the text is for a person.
    """

    def __init__(self, path: str, read: Read, service: str = "", port: str = "") -> None:
        content = BytesIO(read(path))
        try:
            files: Any = _Files(path, read)
            self._document: Any = Document(
                content, files, base=f"{_BASE}{quote(path.removeprefix('/'))}", settings=_SETTINGS
            )
        except (ZeepError, etree.LxmlError, LookupError, AttributeError, TypeError, NotImplementedError) as error:
            raise ValueError(f"cannot be read as a WSDL ({_first(error)})") from None
        self._binding = self._bound(service, port)
        self.version = "1.2" if isinstance(self._binding, Soap12Binding) else "1.1"
        types: Any = self._document.types
        self._types = types
        for place, schema in enumerate(types.documents):
            if schema._target_namespace and "XMLSchema" not in schema._target_namespace:
                # Declared once in the envelope, and not in every element of every row.
                types.set_ns_prefix(f"n{place}", schema._target_namespace)
        types.set_ns_prefix("xsi", shapes.XSI)

    def _bound(self, service: str, port: str) -> SoapBinding:
        services = self._document.services
        if not services:
            raise ValueError("has no service: it is no WSDL, or a part of one.")
        if service and service not in services:
            raise ValueError(f'has no service "{service}". {near(service, services)}It has: {", ".join(services)}.')
        ports = {
            name: found.binding
            for known, given in services.items()
            if service in ("", known)
            for name, found in given.ports.items()
            if isinstance(found.binding, Soap11Binding | Soap12Binding)
        }
        if port and port not in ports:
            raise ValueError(f'has no SOAP port "{port}". {near(port, ports)}It has: {", ".join(ports) or "none"}.')
        if not ports:
            raise ValueError("has no port that speaks SOAP over HTTP.")
        return ports[port or next(iter(ports))]

    def operation(self, name: str) -> WsdlOperation:
        """An operation by name.

        Raises:
            ValueError: There is none, or it is of a style that is not spoken.
        """
        known = self._binding._operations
        if name not in known:
            shown = ", ".join(sorted(known))
            raise ValueError(f'"{name}" is no operation of the WSDL. {near(name, known)}It has: {shown}.')
        return WsdlOperation(self, known[name])

    def element(self, name: str) -> Any:
        """A global element by its local name, or None."""
        for schema in self._types.documents:
            for qname, element in schema._elements.items():
                if etree.QName(qname).localname == name:
                    return element
        return None

    def parse(self, body: bytes) -> Any:
        """The root of a document.

        Raises:
            ValueError: It is no XML, or has a document type.
        """
        try:
            content: Any = body
            return parse_xml(content, None, settings=_SETTINGS)
        except (ZeepError, etree.LxmlError, ValueError) as error:
            kind = type(error).__name__
            what = "a document type, which is not read" if kind in ("DTDForbidden", "EntitiesForbidden") else "no XML"
            raise ValueError(what) from None

    @property
    def types(self) -> Any:
        """The schemas."""
        return self._types


class WsdlOperation:
    """One operation of a port."""

    def __init__(self, wsdl: Wsdl, operation: Any) -> None:
        self._wsdl = wsdl
        self._operation = operation
        self.name: str = operation.name
        body = operation.input.body
        if body is None or not hasattr(body.type, "elements") or operation.input._is_body_wrapped:
            raise ValueError(f'"{self.name}" takes no element with arguments, which is all that is spoken here.')
        self.type = body.type
        """Type of the element that its arguments are in."""
        action = operation.soapaction or ""
        if wsdl.version == "1.1":
            self.headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": f'"{action}"'}
        else:
            told = f'; action="{action}"' if action else ""
            self.headers = {"Content-Type": f"application/soap+xml; charset=utf-8{told}"}
        self._soap_headers: list[Any] = []

    def set_headers(self, given: Mapping[str, Any]) -> list[str]:
        """Give each request the SOAP headers that the operation declares (or, where it declares none, all).

        Args:
            given: Content by name of the header's element; the text "{session}" stands for the session's token.

        Returns:
            The names that are no header, neither of the operation nor of the schemas.

        Raises:
            Unfit: One has not the form that the WSDL says.
        """
        header = self._operation.input.header
        declared = {element.name: element for _, element in (header.type.elements if header is not None else ())}
        strange = []
        for name, content in given.items():
            known = self._wsdl.element(name)
            element = declared.get(name) or (None if declared else known)
            if element is None:
                strange += [] if known is not None else [name]
                continue
            holder = etree.Element("holder")
            try:
                element.render(holder, element(**shapes.value_of(element.type, content, element)))
            except (ValidationError, TypeError) as error:
                raise Unfit(_first(error)) from None
            self._soap_headers += [_marked(part) for part in holder]
        return strange

    def envelope(self, arguments: Mapping[str, Any]) -> bytes:
        """The request with these arguments.

        Raises:
            Unfit: They have not the form that the WSDL says; the text is for a person.
        """
        values = shapes.value_of(self.type, arguments, None)
        headers = [copy.deepcopy(part) for part in self._soap_headers]
        try:
            made = self._operation.input.serialize(**values, _soapheaders=headers)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.path or ())
            raise Unfit(f"{error.message} ({where})." if where else f"{error.message}.") from None
        except TypeError as error:
            raise Unfit(_first(error)) from None
        return bytes(etree.tostring(made.content, encoding="utf-8", xml_declaration=True))

    def answer(self, body: bytes) -> Answered:
        """What an answer holds.

        Raises:
            ValueError: It is no envelope, or has another element than the WSDL says.
        """
        root = self._wsdl.parse(body)
        space, _, name = root.tag.removeprefix("{").rpartition("}")
        if name != "Envelope" or space not in ENVELOPES:
            raise ValueError("XML that is no SOAP envelope")
        content = root.find(f"{{{space}}}Body")
        children = [] if content is None else [child for child in content if isinstance(child.tag, str)]
        fault = next((child for child in children if child.tag == f"{{{space}}}Fault"), None)
        if fault is not None:
            return Answered(_fault(fault, space), fault=True)
        output = self._operation.output
        expected = None if output is None else output.body
        if expected is None:
            return Answered({})
        if not children:
            raise ValueError("an envelope that holds nothing")
        found, style = children[0], self._operation.style
        # In style rpc the name is a convention.
        if style != "rpc" and shapes.local(found.tag) != expected.name:
            raise ValueError(f"an element {shapes.local(found.tag)[:60]!r} in place of {expected.name!r}")
        return Answered(shapes.structure(found, expected.type))


def _marked(header: Any) -> Any:
    """A header with the mark in place of the token's name."""
    for element in header.iter():
        if element.text == TOKEN:
            element.text = None
            element.append(etree.ProcessingInstruction("session"))
    return header


def _fault(fault: Any, space: str) -> Fault:
    """A fault of SOAP 1.1 (section 4.4) or 1.2 (part 1, section 5.4)."""
    if ENVELOPES[space] == "1.1":
        code = _code(fault.findtext("faultcode"))
        codes = [code, code.partition(".")[0]]
        message = fault.findtext("faultstring") or ""
        detail = fault.find("detail")
    else:
        codes = _nested_codes(fault.find(f"{{{space}}}Code"), space)
        message = fault.findtext(f"{{{space}}}Reason/{{{space}}}Text") or ""
        detail = fault.find(f"{{{space}}}Detail")
    codes = [code for code in dict.fromkeys(codes) if code]
    found = None if detail is None else shapes.structure(detail)
    return Fault(code=codes[0] if codes else "", codes=codes, message=message.strip(), detail=found)


def _nested_codes(code: Any, space: str) -> list[str]:
    codes: list[str] = []
    while code is not None and len(codes) < 10:
        codes.insert(0, _code(code.findtext(f"{{{space}}}Value")))
        code = code.find(f"{{{space}}}Subcode")
    return codes


def _code(text: str | None) -> str:
    """A code without its prefix. Codes of SOAP 1.1 may be narrowed by parts after a dot ("Client.Authentication")."""
    return (text or "").strip().rpartition(":")[2]


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".:")


__all__: Sequence[str] = ("MARK", "TOKEN", "Answered", "Fault", "Read", "Wsdl", "WsdlOperation")
