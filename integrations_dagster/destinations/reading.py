"""What can be read from a destination: reference data, for lookups, and what is known of an object's fields.

Reading is a flow like delivering (see `base`): it yields requests and is sent answers. It changes nothing at the
destination. Reference data comes page by page, a flow for each, so that a page that could not be read is read again
and the others are not, and no more than a page is in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Reference:
    """Records of a destination that values can be looked up in, such as the owners of a CRM's records.

    Attributes:
        name: What YAML calls it ("owners").
        value: The column whose value a lookup gives unless it says otherwise: the record's id.
        key: The column that a lookup compares with unless it says otherwise, or None: it must say one.
        columns: The columns that there are; None: any field of the object.
        normalization: How the destination compares the values of a column, where not exactly: "trim" or "trim_lower".
        description: What the records are, in a few words.
    """

    name: str
    value: str
    key: str | None = None
    columns: tuple[str, ...] | None = None
    normalization: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    def compares(self, column: str) -> str:
        """How the values of a column are compared: "exact", "trim" or "trim_lower"."""
        return self.normalization.get(column, "exact")


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the records of a reference.

    Attributes:
        rows: For each record, its columns as text; None where it has no value.
        cursor: What the next page is asked for with, or None: this was the last.
    """

    rows: tuple[Mapping[str, str | None], ...]
    cursor: str | None = None


class FieldType(StrEnum):
    """The types of fields, in the words of `type:` in YAML."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    EMAIL = "email"
    PHONE = "phone"
    ENUM = "enum"
    JSON = "json"
    UNKNOWN = "unknown"
    """A type of the vendor's that has no counterpart; any value may fit."""


@dataclass(frozen=True, slots=True)
class TargetField:
    """One field of an object, as its destination describes it.

    Attributes:
        name: The name that `fields:` uses.
        label: The name that people see there.
        type: What values it takes.
        native: The destination's own word for the type ("enumeration").
        writable: Whether a sync may write it.
        required: Whether a record cannot be created without it.
        options: The values that it takes, in order; empty where any.
        unique: Whether a value belongs to one record at the most, so that records can be matched by it.
        unique_with: Sets of further fields, together with which its values belong to one record.
    """

    name: str
    label: str
    type: FieldType
    native: str = ""
    writable: bool = True
    required: bool = False
    options: tuple[str, ...] = ()
    unique: bool = False
    unique_with: tuple[tuple[str, ...], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON takes them."""
        return {
            "name": self.name,
            "label": self.label,
            "type": str(self.type),
            "native": self.native,
            "writable": self.writable,
            "required": self.required,
            "options": list(self.options),
            "unique": self.unique,
            **({"unique_with": [list(others) for others in self.unique_with]} if self.unique_with else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TargetField:
        together = tuple(tuple(others) for others in data.get("unique_with", ()))
        plain = {"type": FieldType(data["type"]), "options": tuple(data["options"]), "unique_with": together}
        return cls(**{**data, **plain})
