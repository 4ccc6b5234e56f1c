"""The objects of the sandbox's Salesforce, their fields, and what values these take.

The standard ones are a selection of Salesforce's; custom ones, and further objects, are defined over the control API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from integrations_dagster.sandbox.properties import is_email

NUMBERS = ("int", "double", "currency", "percent")
TYPES = frozenset(
    {
        *("string", "textarea", "email", "phone", "url", "picklist", "multipicklist", "reference", "id"),
        *("boolean", "date", "datetime", *NUMBERS),
    }
)
PREFIXES = {
    "Account": "001",
    "Campaign": "701",
    "Contact": "003",
    "Lead": "00Q",
    "Opportunity": "006",
    "Pricebook2": "01s",
    "Product2": "01t",
    "RecordType": "012",
    "User": "005",
}
"""The first three characters of ids ("Standard Field Record ID Prefix Decoder", Salesforce Help)."""


class BadValue(Exception):
    """A value whose JSON form Salesforce cannot read: it refuses the whole request."""


@dataclass(frozen=True, slots=True)
class SalesforceField:
    """One field, in the words of the Partner WSDL's `Field`.

    Attributes:
        name: API name.
        type: `fieldType`.
        label: Name that people see; "": the API name.
        length: Characters of a text; 0: any.
        required: Whether it is not `nillable`, and has no default.
        external_id, unique, case_sensitive: As in Salesforce.
        read_only: Whether only Salesforce writes it.
        options: Values of a picklist, which is restricted to them if there are any.
        refers: The object that a reference leads to.
        relation: `relationshipName` of a reference.
    """

    name: str
    type: str = "string"
    label: str = ""
    length: int = 255
    required: bool = False
    external_id: bool = False
    unique: bool = False
    case_sensitive: bool = False
    id_lookup: bool = False
    read_only: bool = False
    options: tuple[str, ...] = ()
    refers: str = ""
    relation: str = ""

    @property
    def indexed(self) -> bool:
        """Whether records can be found by it in an upsert or a reference."""
        return self.external_id or self.id_lookup or self.unique

    def key(self, value: Any) -> str:
        """The form in which values are compared."""
        text = repr(float(value)) if self.type in NUMBERS else str(value)
        return text if self.case_sensitive else text.casefold()

    def as_json(self) -> dict[str, Any]:
        """The form of describe."""
        return {
            "name": self.name,
            "label": self.label or self.name,
            "type": self.type,
            "length": self.length if self.type not in (*NUMBERS, "boolean", "date", "datetime") else 0,
            "createable": not self.read_only,
            "updateable": not self.read_only,
            "nillable": not self.required and self.type not in ("boolean", "id"),
            "defaultedOnCreate": self.type in ("boolean", "id"),
            "calculated": False,
            "custom": self.name.endswith("__c"),
            "externalId": self.external_id,
            "idLookup": self.external_id or self.id_lookup or self.type == "id",
            "unique": self.unique,
            "caseSensitive": self.case_sensitive,
            "restrictedPicklist": bool(self.options),
            "picklistValues": [
                {"active": True, "defaultValue": False, "label": option, "validFor": None, "value": option}
                for option in self.options
            ],
            "referenceTo": [self.refers] if self.refers else [],
            "relationshipName": self.relation or None,
        }

    def state(self) -> dict[str, Any]:
        """All that it is, as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SalesforceField:
        """A field from `state`, or from a part of it that has a name.

        Raises:
            ValueError: What is unknown or missing.
        """
        known = {entry.name for entry in fields(cls)}
        if unknown := sorted(set(state) - known):
            raise ValueError(f"A field has no {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        made = cls(**{**state, "options": tuple(state.get("options", ()))})
        if made.type not in TYPES:
            raise ValueError(f"{made.type} is no type of field; it is one of {', '.join(sorted(TYPES))}.")
        return made

    def read(self, value: Any) -> Any:
        """A value as it is stored; None where it clears the field.

        Raises:
            BadValue: It has not the field's JSON form.
        """
        if value is None or value == "":
            return None
        if self.type in NUMBERS:
            return self._number(value)
        if self.type == "boolean":
            if value in (True, False, "true", "false"):
                return value in (True, "true")
            raise BadValue(f"Cannot deserialize instance of boolean from VALUE_STRING value {value}")
        if not isinstance(value, str):
            token = "VALUE_TRUE" if value is True else "START_ARRAY" if isinstance(value, list) else "VALUE_NUMBER_INT"
            raise BadValue(f"Cannot deserialize instance of {self.type} from {token} value {value}")
        if self.type in ("date", "datetime"):
            return self._moment(value)
        return value.strip().lower() if self.type == "email" else value.strip() or None

    def _number(self, value: Any) -> int | float:
        try:
            number = Decimal(repr(value) if isinstance(value, float) else value) if value not in (True, False) else None
        except (InvalidOperation, TypeError, ValueError):
            number = None
        if number is None or not number.is_finite():
            raise BadValue(f"Cannot deserialize instance of {self.type} from VALUE_STRING value {value}")
        return int(number) if self.type == "int" else float(number)

    def _moment(self, value: str) -> str:
        try:
            if self.type == "date":
                return date.fromisoformat(value[:10]).isoformat()
            return datetime.fromisoformat(value).isoformat(timespec="milliseconds").replace("+00:00", "+0000")
        except ValueError:
            raise BadValue(f"Cannot deserialize instance of {self.type} from VALUE_STRING value {value}") from None

    def problem(self, value: Any) -> tuple[str, str] | None:
        """What is wrong with a stored value: status code and message; None where nothing is."""
        label = self.label or self.name
        if isinstance(value, str):
            if self.length and len(value) > self.length:
                return "STRING_TOO_LONG", f"{label}: data value too large: {value[:50]} (max length={self.length})"
            if self.type == "email" and not is_email(value):
                return "INVALID_EMAIL_ADDRESS", f"{label}: invalid email address: {value}"
            chosen = value.split(";") if self.type == "multipicklist" else [value]
            if self.options and not set(chosen) <= set(self.options):
                message = f"{label}: bad value for restricted picklist field: {value}"
                return "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message
        return None


def _system() -> tuple[SalesforceField, ...]:
    return (
        SalesforceField("Id", "id", length=18, read_only=True),
        SalesforceField("CreatedDate", "datetime", read_only=True),
        SalesforceField("LastModifiedDate", "datetime", read_only=True),
    )


def _person() -> tuple[SalesforceField, ...]:
    return (
        SalesforceField("FirstName", label="First Name", length=40),
        SalesforceField("LastName", label="Last Name", length=80, required=True),
        SalesforceField("Email", "email", length=80, id_lookup=True),
        SalesforceField("Phone", "phone", length=40),
    )


def _shop() -> tuple[SalesforceField, ...]:
    return (
        SalesforceField("Customer_Id__c", label="Customer Id", length=40, external_id=True, unique=True),
        SalesforceField("Plan__c", "picklist", "Plan", options=("free", "pro", "team")),
        SalesforceField("Lifetime_Value__c", "currency", "Lifetime Value"),
        SalesforceField("Last_Order__c", "date", "Last Order"),
        SalesforceField("Signed_Up__c", "datetime", "Signed Up"),
        SalesforceField("Subscriber__c", "boolean", "Subscriber"),
    )


_OWNER = SalesforceField("OwnerId", "reference", "Owner ID", 18, refers="User", relation="Owner")
_STANDARD: Mapping[str, tuple[SalesforceField, ...]] = {
    "Account": (
        SalesforceField("Name", label="Account Name", required=True),
        SalesforceField("Website", "url"),
        SalesforceField("NumberOfEmployees", "int", "Employees"),
        SalesforceField("AnnualRevenue", "currency", "Annual Revenue"),
        SalesforceField("Account_Ref__c", label="Account Ref", length=40, external_id=True, unique=True),
        SalesforceField("Number__c", "double", "Number", external_id=True, unique=True),
        _OWNER,
    ),
    "Contact": (
        *_person(),
        SalesforceField("AccountId", "reference", "Account ID", 18, refers="Account", relation="Account"),
        _OWNER,
        *_shop(),
    ),
    "Lead": (*_person(), SalesforceField("Company", required=True), _OWNER, *_shop()),
    "Campaign": (SalesforceField("Name", length=80, required=True),),
    "Opportunity": (SalesforceField("Name", length=120, required=True), _OWNER),
    "Pricebook2": (SalesforceField("Name", required=True),),
    "Product2": (SalesforceField("Name", required=True), SalesforceField("ProductCode", label="Product Code")),
    "RecordType": (SalesforceField("Name", length=80), SalesforceField("DeveloperName", length=80)),
    "User": (
        SalesforceField("Username", required=True, unique=True, id_lookup=True),
        SalesforceField("Email", "email", length=128),
        SalesforceField("Name", label="Full Name", length=121),
        SalesforceField("IsActive", "boolean", "Active"),
    ),
}
"""Nothing of the Organization but its id can be asked for."""


def predefined(object_: str) -> dict[str, SalesforceField]:
    """The fields of an object by name; a further object has its system fields and a name."""
    own = _STANDARD.get(object_, (SalesforceField("Name", length=80),))
    return {field.name: field for field in (*_system(), *own)}


def standard_objects() -> tuple[str, ...]:
    """The objects that every sandbox has."""
    return tuple(_STANDARD)


_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


def record_id(object_: str, number: int) -> str:
    """The id of a record in Salesforce's form: prefix, number, and the check sum of upper-case letters."""
    short = f"{PREFIXES.get(object_, 'a00')}{number:012d}"
    sums = (
        sum(1 << index for index, character in enumerate(short[start : start + 5]) if character.isupper())
        for start in (0, 5, 10)
    )
    return short + "".join(_ALPHABET[total] for total in sums)


def number_of(id_: Any) -> int | None:
    """The number of a record by its id of 15 or 18 characters; None where it has another form."""
    if not isinstance(id_, str) or not re.fullmatch(r"[a-zA-Z0-9]{3}\d{12}([A-Z0-5]{3})?", id_):
        return None
    return int(id_[3:15])
