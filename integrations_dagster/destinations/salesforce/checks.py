"""What YAML may say of Salesforce: the keys of `api`, and which objects, matches and fields there can be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from integrations_dagster.destinations.salesforce.soql import is_name, is_path
from integrations_dagster.keys import Keys, problem
from integrations_dagster.vocabulary import Misconfigured, Mode

ID = "Id"
VERSION = "66.0"
"""Version of the API unless `api` names another: Spring '26."""
OLDEST = 46
"""The first version with upsert of collections ("Upsert Records Using sObject Collections")."""

_READ_ONLY = frozenset(
    {
        "createdbyid",
        "createddate",
        "id",
        "isdeleted",
        "lastactivitydate",
        "lastmodifiedbyid",
        "lastmodifieddate",
        "lastreferenceddate",
        "lastvieweddate",
        "masterrecordid",
        "systemmodstamp",
    }
)
"""System fields, in lower case ("System Fields", Object Reference). Some can be set on creation by users with a special
permission; that is not built."""
_COMMON = (
    "Account",
    "Contact",
    "Lead",
    "Opportunity",
    "Case",
    "Campaign",
    "Task",
    "Event",
    "User",
    "Product2",
    "Asset",
)
_PLURALS = {f"{name}s": name for name in _COMMON} | {"Opportunities": "Opportunity", "Companies": "Account"}
_UNIQUE_REMEDY = (
    "Create a custom field for the warehouse's own id in Salesforce with External ID and Unique checked (Setup, Object "
    "Manager, Fields & Relationships), and match on its API name, as Customer_Id__c."
)


def _version(value: Any) -> Any:
    text = str(value).strip().lower().removeprefix("v") if not isinstance(value, bool) else ""
    text = f"{text}.0" if text.isdigit() else text
    if not re.fullmatch(r"[1-9]\d{1,2}\.0", text):
        raise problem(f'takes a version of the API, as "{VERSION}"')
    if float(text) < OLDEST:
        raise problem(f"is {text}; collections can be upserted from {OLDEST}.0 on. The default is {VERSION}.")
    return text


class SalesforceKeys(Keys):
    """`api:` of a destination of kind salesforce."""

    version: Annotated[str, BeforeValidator(_version)] = Field(
        default=VERSION,
        description="Version of Salesforce's REST API.",
        json_schema_extra={"anyOf": [{"type": "string"}, {"type": "number"}]},
    )
    lookups: list[str] = Field(
        default_factory=list,
        description="API names of further objects to look values up in, as Region__c.",
    )

    @field_validator("lookups")
    @classmethod
    def _names(cls, names: list[str]) -> list[str]:
        for name in names:
            if not is_name(name):
                raise problem(f'holds "{name}", which is no API name of an object, as Region__c')
        return names


def check_object(object_: str) -> None:
    """Refuse what is no API name of an object.

    Raises:
        Misconfigured: Naming what is wrong and what is possible.
    """
    if not is_name(object_):
        raise Misconfigured(
            f"Salesforce: object {object_!r} is no API name.", "Write it as Account, or as Plan__c for a custom one."
        )
    right = _PLURALS.get(object_.capitalize())
    if right is not None:
        raise Misconfigured(
            f"Salesforce has no object {object_!r}; objects have singular API names.", f"Did you mean {right!r}?"
        )


def check_fields(object_: str, fields: Sequence[str]) -> None:
    """Refuse fields that only Salesforce writes, and what is no API name.

    Raises:
        Misconfigured: Naming what is wrong and what is possible.
    """
    wrong = sorted({name for name in fields if name.lower() in _READ_ONLY})
    if wrong:
        by_id = " To update or delete by record id, write `match: {Id: <column>}`." if ID in wrong else ""
        raise Misconfigured(
            f"Salesforce {object_}: only Salesforce writes {', '.join(wrong)}.",
            f"Remove it from `fields`, or write to a field of your own.{by_id}",
        )
    unnamed = sorted({name for name in fields if not is_path(name)})
    if unnamed:
        raise Misconfigured(
            f"Salesforce {object_}: {', '.join(unnamed)} is no API name of a field.",
            "Write it as LastName or Plan__c; or as Account.Customer_Id__c, to refer to a record by its external id.",
        )


def check_match(object_: str, mode: Mode, match: Sequence[str]) -> None:
    """Refuse a match that no record can be found by.

    Raises:
        Misconfigured: Naming what is wrong and what is possible.
    """
    if len(match) != 1:
        given = f"{len(match)} are given ({', '.join(match)})" if match else "none is given"
        raise Misconfigured(
            f"Salesforce {object_} are matched by exactly one field; {given}.",
            "Write `match: {Your_External_Id__c: <column>}`.",
        )
    name = match[0]
    if name == ID and mode in (Mode.UPDATE, Mode.DELETE):
        return
    if name == ID:
        raise Misconfigured(
            f"Salesforce {object_} cannot be matched by 'Id' in mode {mode.value}: Salesforce gives it, and no new "
            "record has one.",
            f"Use mode update or delete. Else: {_UNIQUE_REMEDY}",
        )
    if name.lower() in _READ_ONLY or not is_name(name):
        near = difflib.get_close_matches(name, [ID], 1, 0.5)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise Misconfigured(f"Salesforce {object_} cannot be matched by {name!r}.", f"{hint}{_UNIQUE_REMEDY}")
