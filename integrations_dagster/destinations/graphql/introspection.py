"""The fields of an input type, from the schema that a GraphQL API tells of itself (specification, section 4)."""

from __future__ import annotations

from typing import Any

from integrations_dagster.destinations.reading import FieldType, TargetField

FIELDS = """
query Fields($name: String!) {
  __type(name: $name) {
    inputFields { name description defaultValue type { ...Of ofType { ...Of ofType { ...Of ofType { ...Of } } } } }
  }
}
fragment Of on __Type { kind name enumValues { name } }
"""
TYPES = {
    "String": FieldType.STRING,
    "ID": FieldType.STRING,
    "Int": FieldType.INTEGER,
    "BigInt": FieldType.INTEGER,
    "Float": FieldType.NUMBER,
    "Decimal": FieldType.NUMBER,
    "Boolean": FieldType.BOOLEAN,
    "Date": FieldType.DATE,
    "DateTime": FieldType.TIMESTAMP,
    "Timestamp": FieldType.TIMESTAMP,
    "Email": FieldType.EMAIL,
    "EmailAddress": FieldType.EMAIL,
    "JSON": FieldType.JSON,
    "JSONObject": FieldType.JSON,
}
"""The built-in scalars, and names that APIs usually give to others; what has another is of unknown type."""


def fields_of(found: Any, match: frozenset[str]) -> list[TargetField]:
    """The fields of an input type, by name.

    Args:
        found: Its `inputFields`.
        match: Fields whose values belong to one record each.

    Raises:
        ValueError: It is no list of fields.
    """
    if not isinstance(found, list):
        raise ValueError("no list of fields")
    return sorted((_field(one, match) for one in found), key=lambda field: field.name)


def _field(given: Any, match: frozenset[str]) -> TargetField:
    name = given.get("name") if isinstance(given, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError("a field without a name")
    native, inner, lists = _unwrapped(given.get("type"))
    options: tuple[str, ...] = ()
    if lists or inner.get("kind") == "INPUT_OBJECT":
        kind = FieldType.JSON
    elif inner.get("kind") == "ENUM":
        kind = FieldType.ENUM
        options = tuple(one["name"] for one in inner.get("enumValues") or () if isinstance(one, dict))
    else:
        kind = TYPES.get(str(inner.get("name")), FieldType.UNKNOWN)
    # Without a value it is refused, unless it has one of its own.
    required = native.endswith("!") and given.get("defaultValue") is None
    return TargetField(name, name, kind, native, required=required, options=options, unique=name in match)


def _unwrapped(given: Any) -> tuple[str, dict[str, Any], bool]:
    """A type as it is written, the type within its lists, and whether it is a list."""
    if not isinstance(given, dict):
        return "", {}, False
    kind = given.get("kind")
    if kind in ("NON_NULL", "LIST"):
        text, inner, lists = _unwrapped(given.get("ofType"))
        return (f"{text}!", inner, lists) if kind == "NON_NULL" else (f"[{text}]", inner, True)
    return str(given.get("name") or ""), given, False
