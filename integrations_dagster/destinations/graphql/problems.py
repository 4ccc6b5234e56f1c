"""What the errors of GraphQL answers mean, unless the YAML of a destination says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CODE = "extensions.code || type || extensions.classification"
"""Where an error has its code: `extensions.code` is Apollo's and most others'; `type` GitHub's; `classification`
that of graphql-java."""
MESSAGE = "message"
"""The one member that every error has (GraphQL specification, October 2021, section 7.1.2)."""
_DOCUMENT = "Check the documents in `api` of the destination against the API's schema."
_RIGHTS = "Give the credentials the right, or use others in the target's `auth`."

CODES: Mapping[str, Mapping[str, str]] = {
    "GRAPHQL_PARSE_FAILED": {"as": "misconfigured", "says": "The API cannot read the document.", "fix": _DOCUMENT},
    "GRAPHQL_VALIDATION_FAILED": {
        "as": "misconfigured",
        "says": "The document does not fit the API's schema.",
        "fix": _DOCUMENT,
    },
    "OPERATION_RESOLUTION_FAILURE": {
        "as": "misconfigured",
        "says": "The API finds no operation in the document.",
        "fix": _DOCUMENT,
    },
    "BAD_USER_INPUT": {"as": "rejected"},
    "UNAUTHENTICATED": {
        "as": "unauthorized",
        "says": "The credentials were not accepted.",
        "fix": "Check the target's `auth`.",
    },
    "FORBIDDEN": {"as": "misconfigured", "says": "The credentials are not allowed to do this.", "fix": _RIGHTS},
    "ACCESS_DENIED": {"as": "misconfigured", "says": "The credentials are not allowed to do this.", "fix": _RIGHTS},
    "THROTTLED": {"as": "throttled", "says": "The API asks to be sent less."},
    "RATE_LIMITED": {"as": "throttled", "says": "The API asks to be sent less."},
    "MAX_COST_EXCEEDED": {"as": "too_large", "says": "The request costs more than the API allows for one."},
    "INTERNAL_SERVER_ERROR": {"as": "unavailable", "says": "The API failed within."},
    "INTERNAL_ERROR": {"as": "unavailable", "says": "The API failed within."},
}
"""Apollo Server's codes (apollographql.com/docs/apollo-server/data/errors), Shopify's THROTTLED, ACCESS_DENIED and
MAX_COST_EXCEEDED (shopify.dev/docs/api/admin-graphql), GitHub's RATE_LIMITED (docs.github.com/graphql), graphql-java's
INTERNAL_ERROR; from the vendors' documentation, unverified against them."""


def cost_wait(document: Any) -> float | None:
    """Seconds until an API that counts the cost of queries has enough of it again, or None: not known.

    As Shopify tells it (shopify.dev/docs/api/usage/rate-limits): `extensions.cost` has the cost that was asked for, and
    in `throttleStatus` what is available and what is restored each second.
    """
    cost = _member(_member(document, "extensions"), "cost")
    status = _member(cost, "throttleStatus")
    asked, left = _number(cost, "requestedQueryCost"), _number(status, "currentlyAvailable")
    rate = _number(status, "restoreRate")
    if asked is None or left is None or rate is None or rate <= 0:
        return None
    return max((asked - left) / rate, 0.0)


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _number(value: Any, name: str) -> float | None:
    found = _member(value, name)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
