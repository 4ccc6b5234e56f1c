"""JSON-like structures as the values that a WSDL's types ask for, and XML elements as such structures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lxml import etree  # type: ignore[import-untyped]
from zeep import xsd
from zeep.xsd.elements import Any as AnyElement
from zeep.xsd.elements import Element
from zeep.xsd.types import builtins

from integrations_dagster.destinations.http.templates import Unfit
from integrations_dagster.destinations.values import canonical_json
from integrations_dagster.keys import near

XSI = "http://www.w3.org/2001/XMLSchema-instance"
EMPTIED = object()
"""Stands in a structure for a field of a row that is to be emptied; None is one that is not given."""
_INTEGER = re.compile(r"[+-]?\d+")
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
_DOUBLE = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"-?\d{4,}-\d\d-\d\d(Z|[+-]\d\d:\d\d)?")
_MOMENT = re.compile(r"-?\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")
_TIME = re.compile(r"\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]*={0,2}")
_LEXICAL: tuple[tuple[type, re.Pattern[str], str], ...] = (
    (builtins.Integer, _INTEGER, "a whole number"),
    (builtins.Decimal, _DECIMAL, "a decimal number"),
    (builtins.Float, _DOUBLE, "a number"),
    (builtins.Double, _DOUBLE, "a number"),
    (builtins.DateTime, _MOMENT, "a date with a time, as 2026-08-01T00:00:00Z"),
    (builtins.Date, _DATE, "a date, as 2026-08-01"),
    (builtins.Time, _TIME, "a time, as 08:30:00"),
    (builtins.Base64Binary, _BASE64, "base64"),
)
"""Forms of values by type (XML Schema, part 2), the first that fits. Of the rest any text is taken."""
FIELD_TYPES: tuple[tuple[type, str], ...] = (
    (builtins.Boolean, "boolean"),
    (builtins.Integer, "integer"),
    (builtins.Decimal, "number"),
    (builtins.Float, "number"),
    (builtins.Double, "number"),
    (builtins.DateTime, "timestamp"),
    (builtins.Date, "date"),
    (builtins.String, "string"),
)
"""Our words for types of fields."""


def members(type_: Any) -> dict[str, Any]:
    """The elements of a complex type, by name."""
    return {str(element.name): element for _, element in getattr(type_, "elements", ()) if isinstance(element, Element)}


def takes_any(type_: Any) -> str | None:
    """Under which name zeep keeps elements that a type does not name (xsd:any), or None where it takes none."""
    found = (name for name, element in getattr(type_, "elements", ()) if isinstance(element, AnyElement))
    return next(found, None)


def namespace_of(type_: Any, element: Any = None) -> str | None:
    """The namespace that elements below xsd:any are put in: that of the type."""
    for named in (type_, element):
        qname = getattr(named, "qname", None)
        if qname is not None and qname.namespace:
            return str(qname.namespace)
    return None


def unknown_name(type_: Any, name: str) -> str:
    """What is wrong with a name of a structure that is to be of a type; "" where nothing is."""
    plain = name.removeprefix("@")
    known = {f"@{attribute.name}" for _, attribute in getattr(type_, "attributes", ()) if attribute.name}
    known |= set(members(type_))
    if name in known or (takes_any(type_) is not None and not name.startswith("@") and plain):
        return ""
    shown = ", ".join(sorted(known))
    return f'"{name}" is no element of it in the WSDL. {near(name, known)}Known: {shown or "none"}.'


# To XML


def value_of(type_: Any, node: Any, element: Any = None) -> Any:
    """What zeep renders as a value of a type.

    Args:
        node: A mapping of elements (and of `@attributes`) for a complex type, else a JSON value.

    Raises:
        Unfit: It has no form of the type; the text is for a person.
    """
    if not hasattr(type_, "elements"):
        return simple(type_, node, getattr(element, "name", "") or "")
    if not isinstance(node, Mapping):
        if members(type_) or takes_any(type_) is not None:
            raise Unfit(f"{_called(element)} takes elements, and its value has none.")
        return {"_value_1": simple(None, node, "")}
    known, made, other = members(type_), {}, []
    names = {element_.name: name for name, element_ in type_.elements if isinstance(element_, Element)}
    attributes = {f"@{attribute.name}": name for name, attribute in type_.attributes if attribute.name}
    for name, value in node.items():
        if name in known:
            made[names[name]] = _element_value(known[name], value)
        elif name in attributes:
            if value is not None and value is not EMPTIED:
                made[attributes[name]] = simple(None, value, name)
        else:
            other.append((name, value))
    if other:
        place = takes_any(type_)
        if place is None:
            raise Unfit(f"{_called(element)}: {unknown_name(type_, other[0][0])}")
        space = namespace_of(type_, element)
        made[place] = [one for name, value in other for one in _free(space, name, value)]
    return made


def _element_value(element: Any, value: Any) -> Any:
    if value is EMPTIED:
        if element.nillable:
            return xsd.Nil
        if isinstance(element.type, builtins.String):
            return ""
        raise Unfit(f"{_called(element)} cannot be emptied: the WSDL allows no nil there.")
    if value is None:
        return None
    if not element.accepts_multiple:
        if isinstance(value, list) and not isinstance(element.type, builtins.String):
            raise Unfit(f"{_called(element)} takes one value, and was given a list.")
        return value_of(element.type, value, element)
    return [value_of(element.type, one, element) for one in (value if isinstance(value, list) else [value])]


def simple(type_: Any, value: Any, name: str) -> str:
    """A value of a simple type as text.

    Raises:
        Unfit: It is none of that type.
    """
    text = plain(value)
    if isinstance(type_, builtins.Boolean):
        # zeep takes any other text for true.
        if text not in ("true", "false", "1", "0"):
            raise Unfit(f"{name} takes true or false, and its value is {_shown(text)}.")
        return text
    for kind, form, what in _LEXICAL:
        if isinstance(type_, kind):
            if not form.fullmatch(text.strip()):
                raise Unfit(f"{name} takes {what}, and its value is {_shown(text)}.")
            break
    return text


def plain(value: Any) -> str:
    """A JSON value as the text of an element."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or value is EMPTIED:
        return ""
    return json.dumps(value) if isinstance(value, int | float) else canonical_json(value).decode()


def _free(namespace: str | None, name: str, value: Any) -> list[Any]:
    """Elements that no type describes."""
    if value is None:
        return []
    if isinstance(value, list):
        return [one for item in value for one in _free(namespace, name, item)]
    try:
        element = etree.Element(f"{{{namespace}}}{name}" if namespace else name)
    except ValueError:
        raise Unfit(f"{name!r} is no name of an XML element.") from None
    if value is EMPTIED:
        element.set(f"{{{XSI}}}nil", "true")
    elif isinstance(value, Mapping):
        for inner, part in value.items():
            element.extend(_free(namespace, inner, part))
    else:
        element.text = plain(value)
    return [element]


def _shown(text: str) -> str:
    return f'"{text[:40]}"' if text else "empty"


def _called(element: Any) -> str:
    return getattr(element, "name", None) or "The message"


# From XML


def structure(node: Any, type_: Any = None) -> Any:
    """An element as a JSON-like value: booleans and whole numbers as such where the type says it, other values as
    text; elements by name without namespace, those that a type may have several of as lists."""
    if node.get(f"{{{XSI}}}nil") in ("true", "1"):
        return None
    known = members(type_)
    attributes = {f"@{local(name)}": text for name, text in node.attrib.items() if not name.startswith(f"{{{XSI}}}")}
    children = [child for child in node if isinstance(child.tag, str)]
    if not children and not known:
        text = node.text or ""
        value = _typed(type_, text) if text else (None if attributes or takes_any(type_) is not None else "")
        if not attributes:
            return value
        return {**attributes, "#text": value} if text else attributes
    made: dict[str, Any] = dict(attributes)
    for name, element in known.items():
        if element.accepts_multiple:
            made[name] = []
    for child in children:
        name = local(child.tag)
        element = known.get(name)
        value = structure(child, None if element is None else element.type)
        if name not in made:
            made[name] = value
        elif element is not None and not element.accepts_multiple and made[name] == value:
            # What a type names once and takes by xsd:any too may come twice (Salesforce's Id).
            continue
        elif isinstance(made[name], list):
            made[name].append(value)
        else:
            made[name] = [made[name], value]
    return made


def _typed(type_: Any, text: str) -> Any:
    words = text.strip()
    if isinstance(type_, builtins.Boolean):
        return {"true": True, "1": True, "false": False, "0": False}.get(words, text)
    if isinstance(type_, builtins.Integer):
        return int(words) if _INTEGER.fullmatch(words) and len(words) < 300 else text
    return text


def local(tag: str) -> str:
    """A name without its namespace."""
    return tag.rpartition("}")[2]
