"""What HubSpot's errors say, and what to do about each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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

# Statuses: HubSpot, "Handling errors"; policies: HubSpot, "API usage guidelines and limits"; codes of properties and
# the message of a non-unique idProperty: answers that users of the API have recorded.
TABLE: tuple[ErrorEntry, ...] = (
    ErrorEntry(
        "401",
        Unauthorized,
        "HubSpot does not accept the access token.",
        "Check that the environment variable holds the private app's current token, and that it was not rotated; with "
        "`auth:` of kind refresh_token, run `integrations auth`.",
    ),
    ErrorEntry(
        "403",
        Refused,
        "The access token lacks a permission (scope).",
        "Add the scope to the private app in HubSpot; reading and writing the object's records are two scopes.",
    ),
    ErrorEntry(
        "404",
        Refused,
        "HubSpot knows no such object or address.",
        "Check `object` of the sync and `base_url` of the target.",
    ),
    ErrorEntry("413", TooLarge, "The request is larger than HubSpot takes."),
    ErrorEntry(
        "423",
        Throttled,
        "HubSpot has locked the records for two seconds, because much is written at once.",
        wait=2.0,
    ),
    ErrorEntry(
        "429",
        Refused,
        "The account's requests for today are used up.",
        "Nothing is lost: the limit is lifted at midnight in the account's time zone. Run the sync after that, less "
        "often, or raise the limit in HubSpot.",
        code="DAILY",
    ),
    ErrorEntry(
        "429",
        Throttled,
        "Too many requests in this second.",
        code="SECONDLY",
        wait=1.0,
    ),
    ErrorEntry("429", Throttled, "Too many requests for the account's limit."),
    ErrorEntry(
        "477",
        Throttled,
        "HubSpot is moving the account to another data centre.",
        "Run the sync again when HubSpot has finished (up to 24 hours).",
        wait=3600.0,
    ),
    ErrorEntry(
        "400",
        Refused,
        "A field of the sync is no property of the object in HubSpot.",
        "Create the property in HubSpot (Settings, Properties), correct its internal name, or remove the field.",
        code="PROPERTY_DOESNT_EXIST",
    ),
    ErrorEntry(
        "400",
        Refused,
        "A field of the sync is a property that only HubSpot writes.",
        "Remove the field from the sync.",
        code="READ_ONLY_VALUE",
    ),
    ErrorEntry(
        "400",
        Refused,
        "The match property is not unique in HubSpot.",
        "Match on `email` (contacts) or on a property that was created with unique values (hasUniqueValue).",
        message=r"non-unique .*property|idProperty",
    ),
    ErrorEntry("400", TooLarge, "The batch has more rows than HubSpot takes.", message=r"number of inputs|batch size"),
    ErrorEntry("400", PoisonedBatch, "HubSpot refused the batch for what is in it."),
    ErrorEntry("409", PoisonedBatch, "HubSpot refused the batch for a conflict with what it holds."),
    ErrorEntry("408", Unavailable, "HubSpot did not receive the request in time."),
    ErrorEntry(
        "4xx",
        Refused,
        "HubSpot refused the request.",
        "Look the answer up in HubSpot's documentation, or ask HubSpot's support with the request id.",
    ),
    ErrorEntry("5xx", Unavailable, "HubSpot, or the network before it, is out of order."),
    ErrorEntry(
        "3xx",
        Refused,
        "The address answers with a redirect, which is not followed.",
        "Set `base_url` of the target to https://api.hubapi.com.",
    ),
    ErrorEntry("1xx", Unavailable, "The answer cannot be understood."),
)

_STRUCTURAL = ("PROPERTY_DOESNT_EXIST", "READ_ONLY_VALUE")


@dataclass(frozen=True, slots=True)
class Detail:
    """One complaint within an error: a code, a message and a property, each of which may be ""."""

    code: str
    message: str
    property: str


def problem_of(response: Response) -> Problem:
    """What a failed answer says."""
    try:
        document = response.json()
    except ValueError:
        document = None
    error = document if isinstance(document, dict) else {}
    return Problem(
        status=response.status,
        codes=codes_of(error),
        message=message_of(error),
        names=_names(error),
        request_id=request_id(response, error),
        wait=asked_wait(response.headers),
    )


def request_id(response: Response, error: Mapping[str, Any] | None = None) -> str:
    """HubSpot's correlation id of an answer, or ""."""
    inner = (error or {}).get("correlationId")
    return inner if isinstance(inner, str) else response.headers.get("x-hubspot-correlation-id", "")


def codes_of(error: Mapping[str, Any]) -> tuple[str, ...]:
    """All codes of an error, most specific first."""
    found = [detail.code for detail in _details(error)]
    found += [_text(error.get(name)) for name in ("policyName", "subCategory", "errorType", "category")]
    return tuple(dict.fromkeys(code for code in found if code))


def message_of(error: Mapping[str, Any]) -> str:
    """An error in one short line: what is wrong with which property, else HubSpot's own message."""
    lines = []
    for detail in _details(error):
        if detail.message:
            named = detail.property and detail.property not in detail.message
            lines.append(f"{detail.property}: {detail.message}" if named else detail.message)
    return shorten("; ".join(dict.fromkeys(lines)) or _text(error.get("message")))


def _details(error: Mapping[str, Any]) -> list[Detail]:
    details = list(_listed(error)) or list(_embedded(_text(error.get("message"))))
    # What concerns every row comes first: it decides how to recover.
    return sorted(details, key=lambda detail: detail.code not in _STRUCTURAL)


def _listed(error: Mapping[str, Any]) -> Iterator[Detail]:
    entries = error.get("errors")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            names = texts(entry.get("context"), "propertyName")
            yield Detail(_text(entry.get("code")), _text(entry.get("message")), names[0] if names else "")


def _embedded(message: str) -> Iterator[Detail]:
    """HubSpot also writes its complaints as JSON into the message: "Property values were not valid: [{...}]"."""
    start = message.find("[{")
    if start < 0:
        return
    try:
        entries, _ = json.JSONDecoder().raw_decode(message, start)
    except ValueError:
        return
    for entry in entries:
        if isinstance(entry, dict):
            yield Detail(_text(entry.get("error")), _text(entry.get("message")), _text(entry.get("name")))


def _names(error: Mapping[str, Any]) -> tuple[str, ...]:
    details = _details(error)
    names = [detail.property for detail in details if detail.property and detail.code == details[0].code]
    entries = error.get("errors")
    for entry in (error, *(entries if isinstance(entries, list) else ())):
        if isinstance(entry, dict):
            for scopes in ("requiredGranularScopes", "missingScopes"):
                names += texts(entry.get("context"), scopes)
    return tuple(dict.fromkeys(names))


def texts(context: Any, name: str) -> list[str]:
    """The texts that an error's context has under a name."""
    values = context.get(name) if isinstance(context, dict) else None
    if isinstance(values, str):
        return [values]
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
