"""The properties of the sandbox's HubSpot objects, and what values they take.

The standard ones are a selection of HubSpot's; the custom ones are those a subscription shop would add. Add a line to
`CONTACTS` or `COMPANIES` to have one more in every sandbox, or define one at run time over the properties API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, date, datetime
from typing import Any

MAX_TEXT = 65_536
"""Characters that a text property holds (https://developers.hubspot.com/docs, property values)."""

_EMAIL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,}"
)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_INTEGER = re.compile(r"-?\d{1,15}")
_DAY_MS = 86_400_000

Problem = tuple[str, str]
"""A code such as "INVALID_EMAIL", and a message."""


@dataclass(frozen=True, slots=True)
class Property:
    """One property of an object.

    Attributes:
        name: Internal name.
        label: Name that people see.
        type: HubSpot's type: string, number, bool, enumeration, date, datetime.
        field_type: HubSpot's form field ("text", "select", ...).
        group: Property group.
        options: Values of an enumeration, with their labels.
        unique: Whether a value belongs to one record at most (`hasUniqueValue`).
        read_only: Whether only HubSpot writes it.
        custom: Whether an account's user defined it.
        email: Whether values are email addresses, kept in lower case.
        sensitivity: HubSpot's `dataSensitivity`; lists leave out what is not "non_sensitive" unless asked for it.
    """

    name: str
    label: str
    type: str = "string"
    field_type: str = "text"
    group: str = ""
    options: tuple[tuple[str, str], ...] = ()
    unique: bool = False
    read_only: bool = False
    custom: bool = False
    email: bool = False
    sensitivity: str = "non_sensitive"
    plain: bool = field(init=False, compare=False)
    """Whether only the length of a value can be wrong, and it is kept as it is."""

    def __post_init__(self) -> None:
        plain = self.type in ("string", "phone_number") and not self.email and not self.unique
        object.__setattr__(self, "plain", plain)

    def normalize(self, value: str) -> str:
        """The form in which a value is stored and compared."""
        return value.strip().lower() if self.email else value

    def problem(self, value: str) -> Problem | None:
        """What is wrong with a non-empty value, or None."""
        if self.type in ("string", "phone_number"):
            if len(value) > MAX_TEXT:
                return "INVALID_LENGTH", f"{self.name} has {len(value)} characters, and can have {MAX_TEXT} at most."
            if self.email and not is_email(value.strip()):
                return "INVALID_EMAIL", f"Email address {value} is invalid"
            return None
        if self.type == "number":
            return None if _NUMBER.fullmatch(value) else ("INVALID_LONG", f"{value} was not a valid number.")
        if self.type == "date":
            return (
                None if _is_date(value) else ("INVALID_DATE", f"{value} is not a valid date, or not at midnight UTC.")
            )
        if self.type == "datetime":
            return None if _is_datetime(value) else ("INVALID_LONG", f"{value} was not a valid long.")
        if value in {option for option, _ in self.options}:
            return None
        allowed = ", ".join(option for option, _ in self.options)
        return "INVALID_OPTION", f"{value} was not one of the allowed options: [{allowed}]"

    def as_json(self) -> dict[str, Any]:
        """The form of HubSpot's properties API."""
        return {
            "name": self.name,
            "label": self.label,
            "type": self.type,
            "fieldType": self.field_type,
            "description": "",
            "groupName": self.group,
            "options": [
                {"label": label, "value": value, "displayOrder": order, "hidden": False}
                for order, (value, label) in enumerate(self.options)
            ],
            "displayOrder": -1,
            "calculated": False,
            "externalOptions": False,
            "hasUniqueValue": self.unique,
            "hidden": False,
            "hubspotDefined": not self.custom,
            "formField": not self.read_only,
            "dataSensitivity": self.sensitivity,
            "archived": False,
            "modificationMetadata": {
                "archivable": self.custom,
                "readOnlyDefinition": not self.custom,
                "readOnlyValue": self.read_only,
            },
        }

    def state(self) -> dict[str, Any]:
        """All that it is, as JSON takes it; `from_state` is the way back."""
        return {name: value for name, value in asdict(self).items() if name != "plain"}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Property:
        """A property from `state`, in which values may have been changed.

        Raises:
            ValueError: A name is none of the property's, or the type or sensitivity is unknown.
        """
        known = {entry.name for entry in fields(cls) if entry.init}
        if unknown := sorted(set(state) - known):
            raise ValueError(f"A property has no {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        if state["type"] not in TYPES:
            raise ValueError(f"{state['type']} is not a property type; it is one of {', '.join(sorted(TYPES))}.")
        if state["sensitivity"] not in SENSITIVITIES:
            raise ValueError(f"A sensitivity is one of {', '.join(SENSITIVITIES)}.")
        options = [(o, o) if isinstance(o, str) else o for o in state["options"]]
        return cls(**{**state, "options": tuple((str(value), str(label)) for value, label in options)})

    @classmethod
    def from_json(cls, definition: Mapping[str, Any]) -> Property:
        """A custom property from the body of a create call.

        Raises:
            ValueError: Naming what is missing or unknown.
        """
        missing = [name for name in ("name", "label", "type", "fieldType", "groupName") if not definition.get(name)]
        if missing:
            raise ValueError(f"Some required fields were not set: [{', '.join(missing)}]")
        kind = definition["type"]
        if kind not in TYPES:
            raise ValueError(f"{kind} is not a property type; it is one of {', '.join(sorted(TYPES))}.")
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", str(definition["name"])):
            raise ValueError(f"{definition['name']} is not a property name: lower-case letters, digits, underscores.")
        options = tuple((str(o["value"]), str(o.get("label", o["value"]))) for o in definition.get("options") or ())
        return cls(
            name=definition["name"],
            label=definition["label"],
            type=kind,
            field_type=definition["fieldType"],
            group=definition["groupName"],
            options=_YES_NO if kind == "bool" else options,
            unique=bool(definition.get("hasUniqueValue", False)),
            custom=True,
            sensitivity=str(definition.get("dataSensitivity", "non_sensitive")),
        )


TYPES = frozenset({"string", "phone_number", "number", "bool", "enumeration", "date", "datetime"})
SENSITIVITIES = ("non_sensitive", "sensitive", "highly_sensitive")
_YES_NO = (("true", "True"), ("false", "False"))


def is_email(value: str) -> bool:
    """Whether a text has the form of an email address."""
    local = value.partition("@")[0]
    return bool(_EMAIL.fullmatch(value)) and ".." not in value and not local.startswith(".") and not local.endswith(".")


def _is_date(value: str) -> bool:
    if _INTEGER.fullmatch(value):
        return int(value) % _DAY_MS == 0
    try:
        return len(value) == 10 and date.fromisoformat(value) is not None
    except ValueError:
        return False


def _is_datetime(value: str) -> bool:
    if _INTEGER.fullmatch(value):
        return True
    try:
        return datetime.fromisoformat(value).astimezone(UTC) is not None
    except (ValueError, OverflowError):
        return False


def _text(name: str, label: str, *, unique: bool = False, email: bool = False) -> Property:
    return Property(name, label, unique=unique, email=email)


def _number(name: str, label: str) -> Property:
    return Property(name, label, "number", "number")


def _choice(name: str, label: str, *options: str) -> Property:
    return Property(name, label, "enumeration", "select", options=tuple((o, o.replace("_", " ")) for o in options))


def _yes_no(name: str, label: str) -> Property:
    return Property(name, label, "bool", "booleancheckbox", options=_YES_NO)


def _day(name: str, label: str) -> Property:
    return Property(name, label, "date", "date")


def _moment(name: str, label: str) -> Property:
    return Property(name, label, "datetime", "date")


def _system(name: str, label: str, kind: str = "string") -> Property:
    field_type = {"number": "number", "datetime": "date"}.get(kind, "text")
    return Property(name, label, kind, field_type, read_only=True)


_LIFECYCLE = _choice(
    "lifecyclestage", "Lifecycle stage", "subscriber", "lead", "marketingqualifiedlead", "salesqualifiedlead",
    "opportunity", "customer", "evangelist", "other",
)  # fmt: skip
_STANDARD: dict[str, tuple[Property, ...]] = {
    "contacts": (
        _text("email", "Email", unique=True, email=True),
        _text("firstname", "First name"),
        _text("lastname", "Last name"),
        _text("phone", "Phone number"),
        _text("mobilephone", "Mobile phone number"),
        _text("company", "Company name"),
        _text("jobtitle", "Job title"),
        _text("address", "Street address"),
        _text("city", "City"),
        _text("state", "State/Region"),
        _text("zip", "Postal code"),
        _text("country", "Country/Region"),
        _text("website", "Website URL"),
        _text("hubspot_owner_id", "Contact owner"),
        _LIFECYCLE,
        _choice("hs_lead_status", "Lead status", "NEW", "OPEN", "IN_PROGRESS", "CONNECTED", "UNQUALIFIED"),
        _choice("hs_language", "Preferred language", "en", "de", "fr", "es", "it", "nl", "pt", "ar", "he", "ja", "zh"),
        _system("hs_object_id", "Record ID", "number"),
        _system("createdate", "Create date", "datetime"),
        _system("lastmodifieddate", "Last modified date", "datetime"),
        _system("hs_email_domain", "Email domain"),
        _system("hs_analytics_source", "Original source"),
    ),
    "companies": (
        _text("name", "Company name"),
        _text("domain", "Company domain name"),
        _text("description", "Description"),
        _text("phone", "Phone number"),
        _text("address", "Street address"),
        _text("city", "City"),
        _text("state", "State/Region"),
        _text("zip", "Postal code"),
        _text("country", "Country/Region"),
        _text("website", "Website URL"),
        _text("hubspot_owner_id", "Company owner"),
        _choice(
            "industry", "Industry", "ACCOUNTING", "AIRLINES_AVIATION", "APPAREL_FASHION", "AUTOMOTIVE", "BANKING",
            "BIOTECHNOLOGY", "CHEMICALS", "COMPUTER_SOFTWARE", "CONSTRUCTION", "CONSUMER_GOODS", "DESIGN",
            "E_LEARNING", "EDUCATION_MANAGEMENT", "FINANCIAL_SERVICES", "FOOD_BEVERAGES", "HOSPITAL_HEALTH_CARE",
            "HOSPITALITY", "INSURANCE", "INTERNET", "LEGAL_SERVICES", "LOGISTICS_AND_SUPPLY_CHAIN", "MACHINERY",
            "MARKETING_AND_ADVERTISING", "MEDIA_PRODUCTION", "PHARMACEUTICALS", "REAL_ESTATE", "RETAIL",
            "TELECOMMUNICATIONS", "UTILITIES",
        ),
        _number("numberofemployees", "Number of employees"),
        _number("annualrevenue", "Annual revenue"),
        _LIFECYCLE,
        _system("hs_object_id", "Record ID", "number"),
        _system("createdate", "Create date", "datetime"),
        _system("hs_lastmodifieddate", "Last modified date", "datetime"),
        _system("hs_num_child_companies", "Number of child companies", "number"),
    ),
}  # fmt: skip
_CUSTOM: dict[str, tuple[Property, ...]] = {
    "contacts": (
        _text("customer_id", "Customer ID"),
        _number("lifetime_value", "Lifetime value"),
        _text("plan", "Plan"),
        _day("last_order_date", "Last order date"),
        _yes_no("is_subscriber", "Is subscriber"),
        _yes_no("marketing_consent", "Marketing consent"),
        _moment("signup_at", "Signed up at"),
        _text("notes", "Notes"),
        _text("attributes_json", "Attributes"),
        _text("full_name", "Full name"),
        _text("lead_source", "Lead source"),
    ),
    "companies": (
        _text("company_ref", "Company reference", unique=True),
        _text("plan", "Plan"),
        _number("employees", "Employees"),
        _yes_no("is_customer", "Is customer"),
        _number("mrr", "Monthly recurring revenue"),
        _day("founded_on", "Founded on"),
        _text("notes", "Notes"),
    ),
}
_GROUPS = {"contacts": "contactinformation", "companies": "companyinformation"}


def predefined(object_: str) -> dict[str, Property]:
    """The properties that every sandbox has for "contacts" or "companies", by name."""
    group = _GROUPS[object_]
    standard = [replace(p, group=group) for p in _STANDARD[object_]]
    custom = [replace(p, group=group, custom=True) for p in _CUSTOM[object_]]
    return {p.name: p for p in (*standard, *custom)}
