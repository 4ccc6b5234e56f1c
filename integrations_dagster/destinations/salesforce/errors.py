"""What Salesforce's errors say, of a whole request and of a single row, and what to do about each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from integrations_dagster.destinations.base import Response
from integrations_dagster.destinations.error_table import ErrorEntry, Problem, asked_wait, shorten
from integrations_dagster.destinations.errors import (
    PoisonedBatch,
    Refused,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
)

LOCKED = "UNABLE_TO_LOCK_ROW"

# Statuses: Salesforce, "Status Codes and Error Responses" (REST API Developer Guide). Codes: the same page, and the
# type StatusCode of the Partner WSDL. The messages of REQUEST_LIMIT_EXCEEDED: Salesforce Help, and users of the API.
TABLE: tuple[ErrorEntry, ...] = (
    ErrorEntry(
        "401",
        Unauthorized,
        "Salesforce does not accept the access token (session).",
        "Check `auth` of the target, that its user may use the API, and that `base_url` is the My Domain address of "
        "the organization that the token is for (the token endpoint's answer names it as instance_url).",
    ),
    ErrorEntry(
        "403",
        Throttled,
        "Too many long requests run in the organization at once.",
        code="REQUEST_LIMIT_EXCEEDED",
        message="concurrent",
        wait=5.0,
    ),
    ErrorEntry(
        "403",
        Refused,
        "The organization's API requests of the last 24 hours are used up.",
        "Nothing is lost: requests become free again as those of the last 24 hours grow old. Run the sync later or "
        "less often, or buy more API requests (Setup, Company Information shows use and limit).",
        code="REQUEST_LIMIT_EXCEEDED",
    ),
    ErrorEntry(
        "403",
        Refused,
        "The token's user may not do this.",
        "Give the user the permission API Enabled, and create, edit and delete of the object and its fields, in a "
        "permission set.",
    ),
    ErrorEntry(
        "404",
        Refused,
        "Salesforce knows no such object, external id field or address, or hides it from the token's user.",
        "Check `object` and `match` of the sync (API names, as Account or Plan__c), the user's permissions, and "
        "`version` under `api`.",
    ),
    ErrorEntry(
        "410",
        Refused,
        "Salesforce has retired this version of its API.",
        "Set a newer `version` under `api` of the destination.",
    ),
    ErrorEntry("413", TooLarge, "The request is larger than Salesforce takes."),
    ErrorEntry("414", TooLarge, "The address of the request is longer than Salesforce takes."),
    ErrorEntry("431", TooLarge, "Address and headers of the request are longer than Salesforce takes."),
    ErrorEntry("429", Throttled, "Too many requests for the organization."),
    ErrorEntry("400", Throttled, "The records are locked by another change.", code=LOCKED, wait=2.0),
    ErrorEntry(
        "400",
        Refused,
        "A field or object of the sync does not exist, or the token's user may not see it.",
        "Correct its API name, give the user access to the field, or remove the field.",
        code="INVALID_FIELD|INVALID_TYPE|INVALID_FIELD_FOR_INSERT_UPDATE",
    ),
    ErrorEntry(
        "400",
        Refused,
        "Salesforce does not understand the query.",
        "Check the columns of the lookup and the field of `match`: only fields that can be filtered can be looked up.",
        code="MALFORMED_QUERY|INVALID_QUERY_FILTER_OPERATOR|QUERY_TOO_COMPLICATED",
    ),
    ErrorEntry("400", PoisonedBatch, "Salesforce refused the batch for what is in it."),
    ErrorEntry("408", Unavailable, "Salesforce did not receive the request in time."),
    ErrorEntry(
        "4xx",
        Refused,
        "Salesforce refused the request.",
        "Look the code up in Salesforce's REST API Developer Guide.",
    ),
    ErrorEntry("503", Throttled, "Salesforce is overloaded or in maintenance.", code="SERVER_UNAVAILABLE", wait=5.0),
    ErrorEntry("5xx", Unavailable, "Salesforce, or the network before it, is out of order."),
    ErrorEntry(
        "3xx",
        Refused,
        "The address answers with a redirect, which is not followed.",
        "Set `base_url` of the target to the organization's My Domain address, as https://acme.my.salesforce.com.",
    ),
    ErrorEntry("1xx", Unavailable, "The answer cannot be understood."),
)

MEANINGS: Mapping[str, str] = {
    LOCKED: "Another change holds the record or its parent, also after pauses; the next run tries again",
    "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": "An Apex trigger of the organization failed for this row",
    "CANNOT_EXECUTE_FLOW_TRIGGER": "A flow of the organization failed for this row",
    "DUPLICATES_DETECTED": "A duplicate rule of the organization takes this for a record that is there already",
    "DUPLICATE_EXTERNAL_ID": "Several records have the row's match value",
    "DUPLICATE_VALUE": "Another record has this value, which must be unique",
    "ENTITY_IS_DELETED": "The record, or one that it refers to, is deleted",
    "FIELD_CUSTOM_VALIDATION_EXCEPTION": "A validation rule of the organization refuses the row",
    "FIELD_FILTER_VALIDATION_EXCEPTION": "A lookup filter of the organization refuses the value",
    "FIELD_INTEGRITY_EXCEPTION": "A value does not fit the field",
    "INACTIVE_OWNER_OR_USER": "The owner is not an active user",
    "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY": "The token's user may not use a record that the row refers to",
    "INSUFFICIENT_ACCESS_OR_READONLY": "The token's user may not change this record",
    "INVALID_CROSS_REFERENCE_KEY": "A record that the row refers to does not exist",
    "INVALID_EMAIL_ADDRESS": "The email address is invalid",
    "INVALID_FIELD": "A field, or the record that it refers to, does not exist or is hidden from the token's user",
    "INVALID_FIELD_FOR_INSERT_UPDATE": "The token's user may not write the field",
    "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST": "The value is none of the picklist's",
    "INVALID_TYPE_ON_FIELD_IN_RECORD": "The value does not have the field's type",
    "MALFORMED_ID": "The id has no form that Salesforce knows",
    "NUMBER_OUTSIDE_VALID_RANGE": "The number is too large or too small for the field",
    "REQUIRED_FIELD_MISSING": "A required field has no value",
    "STORAGE_LIMIT_EXCEEDED": "The organization's storage is full",
    "STRING_TOO_LONG": "The text is longer than the field holds",
}
"""What a row's status code means, for a person. Codes: StatusCode of the Partner WSDL; those of duplicate rules, flows
and owners from answers that users of the API have recorded."""


@dataclass(frozen=True, slots=True)
class RowError:
    """One entry of a row's `errors`.

    Attributes:
        code: `statusCode`, or "".
        message: Salesforce's words, or "".
        fields: API names of the fields it is about.
    """

    code: str
    message: str
    fields: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: Any, code: str = "statusCode") -> RowError:
        """An entry as it came; what has an unknown shape in it is left out."""
        if not isinstance(entry, dict):
            return cls("", "")
        fields = entry.get("fields")
        return cls(
            _text(entry.get(code)),
            _text(entry.get("message")),
            tuple(name for name in fields if isinstance(name, str)) if isinstance(fields, list) else (),
        )

    @property
    def sentence(self) -> str:
        """What is wrong with which fields, and Salesforce's own words."""
        meaning = MEANINGS.get(self.code, "").removesuffix(".")
        names = ", ".join(name for name in self.fields if name)
        about = f" ({names})" if names else ""
        said = self.message or self.code
        if meaning:
            return f"{meaning}{about}. Salesforce says: {said}"
        return f"Salesforce says{about}: {said}" if said else "Salesforce gave no reason."


def problem_of(response: Response) -> Problem:
    """What a failed answer says: a list of errors, or what an OAuth server answers."""
    try:
        document = response.json()
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        oauth = RowError(_text(document.get("error")), _text(document.get("error_description")))
        errors = [oauth] if oauth.code else [RowError.of(document, "errorCode")]
    else:
        errors = [RowError.of(entry, "errorCode") for entry in document] if isinstance(document, list) else []
    return Problem(
        status=response.status,
        codes=tuple(dict.fromkeys(error.code for error in errors if error.code)),
        message=shorten("; ".join(dict.fromkeys(error.message for error in errors if error.message))),
        names=tuple(dict.fromkeys(name for error in errors for name in error.fields if name)),
        request_id=request_id(response),
        wait=asked_wait(response.headers),
    )


def request_id(response: Response) -> str:
    """The id of a request, or "". The REST API documents none; `X-SFDC-Request-Id` is what its servers are seen to send
    (unverified)."""
    return response.headers.get("x-sfdc-request-id", "") or response.headers.get("x-request-id", "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
