"""Bodies of requests in the forms that APIs take: JSON, HTML forms, XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from integrations_dagster.destinations.http.templates import (
    PLACEHOLDER,
    SPREAD,
    Make,
    Scope,
    as_plain,
    each_row,
    json_template,
    text,
    value_of,
)

CONTENT_TYPES: Mapping[str, str] = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "xml": "application/xml; charset=utf-8",
}
XML_NAME = re.compile(r"[A-Za-z_][\w.-]*(:[A-Za-z_][\w.-]*)?")
"""A name of an element or attribute, as far as this project writes them."""
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|[\ud800-\udfff]")


def body_template(encoding: str, body: Any, item: Any) -> Make:
    """Compile a body.

    Args:
        encoding: A key of `CONTENT_TYPES`.
        body: Its structure.
        item: The structure of one row, for `{rows}`.
    """
    if encoding == "json":
        return json_template(body, None if item == "{record}" else json_template(item))
    write = _form if encoding == "form" else _xml
    return lambda scope: write(filled(body, item, scope))


def filled(node: Any, item: Any, scope: Scope) -> Any:
    """A structure with the values of its placeholders in their places."""
    if isinstance(node, Mapping):
        members = {text(name, scope): filled(value, item, scope) for name, value in node.items() if name != SPREAD}
        return {**members, **value_of("record", "", scope)} if SPREAD in node else members
    if isinstance(node, list):
        return [filled(value, item, scope) for value in node]
    if not isinstance(node, str):
        return node
    alone = PLACEHOLDER.fullmatch(node)
    if alone is None:
        return text(node, scope)
    if alone[1] == "rows":
        return [filled(item, "", row) for row in each_row(scope)]
    return value_of(alone[1], alone[2] or "", scope)


def _form(structure: Mapping[str, Any]) -> bytes:
    pairs = [(name, as_plain(value) or "") for name, value in _flat("", structure)]
    return urlencode(pairs, quote_via=quote).encode()


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Nested values as `a[b]` and `a[0]`."""
    pairs: Iterator[tuple[Any, Any]]
    if isinstance(value, Mapping):
        pairs = iter(value.items())
    elif isinstance(value, list):
        pairs = iter(enumerate(value))
    else:
        yield name, value
        return
    for key, inner in pairs:
        yield from _flat(f"{name}[{key}]" if name else str(key), inner)


def _xml(structure: Mapping[str, Any]) -> bytes:
    ((name, value),) = structure.items()
    root = ET.Element(name)
    _fill(root, value)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _fill(element: ET.Element, value: Any) -> None:
    """Write a value into an element: a mapping is its elements and `@attributes`, a list is repeated elements."""
    if not isinstance(value, Mapping):
        element.text = as_plain(value)
        return
    for name, inner in value.items():
        if name.startswith("@"):
            element.set(name[1:], as_plain(inner) or "")
        elif name == "#text":
            element.text = as_plain(inner)
        else:
            for one in inner if isinstance(inner, list) else [inner]:
                _fill(ET.SubElement(element, name), one)


def xml_text(encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An encoder of column values that refuses what no XML document can hold."""

    def encoded(value: Any) -> Any:
        made = encode(value)
        if _NO_XML.search(made if isinstance(made, str) else as_plain(made) or ""):
            raise ValueError("The text holds a character that no XML document can hold.")
        return made

    return encoded


def xml_document(body: bytes) -> Any:
    """An XML document as mappings: elements by name without their namespace, a repeated one as a list, attributes as
    `@name`, text as it is, or as `#text` beside attributes.

    Raises:
        ValueError: It is none, or declares entities, which may be made to explode.
    """
    try:
        root = ET.fromstring(body, ET.XMLParser(target=_Tree()))  # noqa: S314 (entities are refused)
    except ET.ParseError:
        raise ValueError("The document is no XML.") from None
    return {_local(root.tag): _structure(root)}


class _Tree(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002
        raise ValueError("The document has a DOCTYPE.")


def _structure(element: ET.Element) -> Any:
    made: dict[str, Any] = {f"@{_local(name)}": value for name, value in element.attrib.items()}
    for child in element:
        name, value = _local(child.tag), _structure(child)
        if name not in made:
            made[name] = value
        elif isinstance(made[name], list):
            made[name].append(value)
        else:
            made[name] = [made[name], value]
    words = (element.text or "").strip()
    if not made:
        return words or None
    return {**made, "#text": words} if words else made


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
