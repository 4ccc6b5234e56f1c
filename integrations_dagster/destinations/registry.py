"""The destinations that exist, by the name that YAML uses."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from integrations_dagster.destinations.base import Destination
from integrations_dagster.destinations.file import File
from integrations_dagster.destinations.http.destination import Http
from integrations_dagster.destinations.hubspot import HubSpot
from integrations_dagster.destinations.rpc.jsonrpc import JsonRpc
from integrations_dagster.destinations.rpc.xmlrpc import XmlRpc
from integrations_dagster.destinations.salesforce import Salesforce
from integrations_dagster.destinations.sandbox_insert import SandboxInsert, SandboxInsertKeyed
from integrations_dagster.destinations.sandbox_jobs import SandboxJobs
from integrations_dagster.destinations.sql import Sql
from integrations_dagster.destinations.webhook import Webhook
from integrations_dagster.vocabulary import Misconfigured

KINDS: Mapping[str, type[Destination]] = MappingProxyType(
    {
        kind.kind: kind
        for kind in (
            HubSpot,
            Salesforce,
            Webhook,
            Http,
            JsonRpc,
            XmlRpc,
            Sql,
            File,
            SandboxInsert,
            SandboxInsertKeyed,
            SandboxJobs,
        )
    }
)
"""Kind to class."""


def create(kind: str, secrets: Mapping[str, str] | None = None, option: Any = None) -> Destination:
    """Make a destination.

    Args:
        kind: A key of `KINDS`.
        secrets: What the kind's `settings` name ("secret" for a webhook).
        option: What YAML says under the key of the kind's `options`, in the form named there.

    Raises:
        Misconfigured: The kind is unknown, or a secret has no usable form.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind.lower(), KINDS, 1, 0.6)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise Misconfigured(f"Unknown kind of destination {kind!r}.", f"{hint}Known kinds: {', '.join(sorted(KINDS))}.")
    return KINDS[kind](secrets) if option is None else KINDS[kind](secrets, option)
