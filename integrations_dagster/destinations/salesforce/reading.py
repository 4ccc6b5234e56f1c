"""What Salesforce can be asked for: records to look values up in, by SOQL, and the fields of an object, by describe."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from integrations_dagster.destinations.base import Flow, Request, Response
from integrations_dagster.destinations.errors import Refused
from integrations_dagster.destinations.reading import FieldType, Page, Reference, TargetField
from integrations_dagster.destinations.salesforce.answers import document_of, unreadable
from integrations_dagster.destinations.salesforce.soql import is_path, quoted
from integrations_dagster.destinations.values import number_text

USERS = "users"
OBJECTS = ("Account", "Campaign", "Contact", "Lead", "Opportunity", "Pricebook2", "Product2", "RecordType")
"""Objects that values can be looked up in without being named under `api`."""
_KEYS: Mapping[str, str] = {
    "Contact": "Email",
    "Lead": "Email",
    "Product2": "ProductCode",
    "RecordType": "DeveloperName",
}
_LOWER = {"Email": "trim_lower", "Username": "trim_lower"}

_TYPES: Mapping[str, FieldType] = {
    "string": FieldType.STRING,
    "textarea": FieldType.STRING,
    "url": FieldType.STRING,
    "id": FieldType.STRING,
    "reference": FieldType.STRING,
    "encryptedstring": FieldType.STRING,
    "combobox": FieldType.STRING,
    "multipicklist": FieldType.STRING,
    "int": FieldType.INTEGER,
    "long": FieldType.INTEGER,
    "double": FieldType.NUMBER,
    "currency": FieldType.NUMBER,
    "percent": FieldType.NUMBER,
    "boolean": FieldType.BOOLEAN,
    "date": FieldType.DATE,
    "datetime": FieldType.TIMESTAMP,
    "email": FieldType.EMAIL,
    "phone": FieldType.PHONE,
    "picklist": FieldType.ENUM,
}
"""`fieldType` of the Partner WSDL; what is not here has no counterpart."""


def references(further: Collection[str]) -> tuple[Reference, ...]:
    """Users, the objects that are always there, and further ones by their API names."""
    users = Reference(USERS, "Id", "Email", None, _LOWER, "active users, who can own records")
    objects = dict.fromkeys((*OBJECTS, *further))
    return (
        users,
        *(Reference(name, "Id", _KEYS.get(name), None, _LOWER, f"records of {name}, by any field") for name in objects),
    )


def read_page(root: str, reference: str, columns: Sequence[str], cursor: str | None) -> Flow[Page]:
    """One page of a reference's records.

    Args:
        root: Path of the API's version.
        reference: A name of `references`.
        columns: API names of fields, or paths through references ("Account.Name").
        cursor: `nextRecordsUrl` of the page before.
    """
    wrong = [name for name in columns if not is_path(name)]
    if wrong:
        remedy = "Use the field's API name, or a path through references as Account.Name."
        raise Refused(f"{', '.join(wrong)} cannot be the name of a field.", "INVALID_FIELD", remedy=remedy)
    first = cursor is None
    if cursor is None:
        fields = ", ".join(dict.fromkeys(("Id", *columns)))
        object_, where = ("User", " WHERE IsActive = true") if reference == USERS else (reference, "")
        query = f"SELECT {fields} FROM {object_}{where}"  # noqa: S608 names are checked
        cursor = f"{root}/query?q={quoted(query)}"
    response = yield Request("GET", cursor)
    records, following = page_of(response, 0 if first else None)
    names = dict.fromkeys(("Id", *columns))
    return Page(tuple({name: value_text(_at(entry, name)) for name in names} for entry in records), following)


def page_of(response: Response, before: int | None = 0) -> tuple[list[dict[str, Any]], str | None]:
    """The records of a query's answer, and where the next ones are.

    Args:
        response: The answer.
        before: Records of the pages before this one, or None where that is not known.

    Raises:
        Unavailable: The answer cannot be read, or the last page leaves fewer or more records than `totalSize` says: one
            that is left out must not pass for one that does not exist.
    """
    document = document_of(response)
    records = document.get("records")
    if not isinstance(records, list) or not all(isinstance(entry, dict) for entry in records):
        raise unreadable(response, "no list of `records`")
    if document.get("done") is True:
        total = document.get("totalSize")
        if before is not None and isinstance(total, int) and total != before + len(records):
            raise unreadable(response, f"{before + len(records)} records of {total}")
        return records, None
    following = document.get("nextRecordsUrl")
    if not isinstance(following, str) or not following.startswith("/services/data/"):
        raise unreadable(response, "a part of the records, and without saying where the others are")
    return records, following


def value_text(value: Any) -> str | None:
    """A value of an answer as text; None where there is none."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number_text(value)
    return value if isinstance(value, str) else str(value)


def read_fields(root: str, object_: str) -> Flow[list[TargetField]]:
    """The fields of an object, by name, and the references by which a record can be named by a field of its own
    (Salesforce, "sObject Describe"; DescribeSObjectResult and Field of the Partner WSDL)."""
    response = yield Request("GET", f"{root}/sobjects/{object_}/describe")
    described = document_of(response).get("fields")
    if not isinstance(described, list) or not all(isinstance(entry, dict) for entry in described):
        raise unreadable(response, "no list of `fields`")
    fields: dict[str, TargetField] = {}
    for entry in described:
        field = _field(entry, response)
        fields[field.name] = field
        relation = entry.get("relationshipName")
        if field.native == "reference" and isinstance(relation, str) and field.writable:
            label = f"{field.label}, by an external id"
            fields.setdefault(relation, TargetField(relation, label, FieldType.UNKNOWN, "relationship"))
    return sorted(fields.values(), key=lambda field: field.name)


def _field(entry: Mapping[str, Any], response: Response) -> TargetField:
    name, native = entry.get("name"), entry.get("type")
    if not isinstance(name, str) or not isinstance(native, str):
        raise unreadable(response, "a field without name or type")
    flag = {key: entry.get(key) is True for key in _FLAGS}
    values = entry.get("picklistValues") or ()
    listed = native == "picklist" and flag["restrictedPicklist"]
    return TargetField(
        name=name,
        label=str(entry.get("label") or name),
        type=_TYPES.get(native, FieldType.UNKNOWN),
        native=native,
        writable=flag["createable"] or flag["updateable"],
        # A required reference may be given by its relationship as well, under another name.
        required=flag["createable"]
        and not flag["nillable"]
        and not flag["defaultedOnCreate"]
        and not (native == "reference" and entry.get("relationshipName")),
        options=tuple(
            str(value.get("value")) for value in values if isinstance(value, dict) and value.get("active") is not False
        )
        if listed
        else (),
        # What an upsert can be done by; whether two records may still have one value is up to `unique`.
        unique=flag["idLookup"] or flag["externalId"],
    )


_FLAGS = (
    "createable",
    "defaultedOnCreate",
    "externalId",
    "idLookup",
    "nillable",
    "restrictedPicklist",
    "updateable",
)


def _at(entry: Mapping[str, Any], path: str) -> Any:
    value: Any = entry
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
