"""The destinations that exist, by the name that YAML uses: those of this package, and those of installed others."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from integrations_dagster import plugins
from integrations_dagster.destinations.base import Destination
from integrations_dagster.destinations.file import File
from integrations_dagster.destinations.graphql.destination import Graphql
from integrations_dagster.destinations.http.destination import Http
from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.destinations.rpc.jsonrpc import JsonRpc
from integrations_dagster.destinations.rpc.xmlrpc import XmlRpc
from integrations_dagster.destinations.salesforce.destination import Salesforce
from integrations_dagster.destinations.sandbox.insert import SandboxInsert, SandboxInsertKeyed
from integrations_dagster.destinations.sandbox.jobs import SandboxJobs
from integrations_dagster.destinations.soap.destination import Soap
from integrations_dagster.destinations.sql.destination import Sql
from integrations_dagster.destinations.webhook import Webhook
from integrations_dagster.keys import Keys
from integrations_dagster.vocabulary import Misconfigured

GROUP = "integrations_dagster.destinations"
"""Group of entry points by which a distribution offers kinds: name of the kind to `module:Class`."""

BUILT_IN: Mapping[str, type[Destination]] = MappingProxyType(
    {
        kind.kind: kind
        for kind in (
            HubSpot,
            Salesforce,
            Webhook,
            Graphql,
            Http,
            JsonRpc,
            XmlRpc,
            Soap,
            Sql,
            File,
            SandboxInsert,
            SandboxInsertKeyed,
            SandboxJobs,
        )
    }
)
"""The kinds of this package."""


class _Kinds(Mapping[str, type[Destination]]):
    """Kind to class. Naming the kinds imports nothing; the class of an installed distribution is imported when it is
    asked for, and `Misconfigured` says what is wrong with it."""

    def __init__(self) -> None:
        self._added: dict[str, type[Destination]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*BUILT_IN, *plugins.offered(GROUP), *self._added)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, kind: object) -> bool:
        return kind in BUILT_IN or kind in plugins.offered(GROUP) or kind in self._added

    def __getitem__(self, kind: str) -> type[Destination]:
        if kind in self._added:
            return self._added[kind]
        points = plugins.offered(GROUP).get(kind, ())
        if kind in BUILT_IN:
            if points:
                raise Misconfigured(
                    f"The kind of destination {kind!r} is built in, and {plugins.origin(points[0])} offers it too.",
                    "Uninstall that distribution, or let its kind take another name.",
                )
            return BUILT_IN[kind]
        if not points:
            raise KeyError(kind)
        return _checked(kind, plugins.load(GROUP, kind), plugins.origin(points[0]))

    @contextmanager
    def registered(self, kind: type[Destination]) -> Iterator[None]:
        """Let a class stand for its `kind` in this process for a while, as tests of it need."""
        before = dict(self._added)
        self._added[kind.kind] = kind
        try:
            yield
        finally:
            self._added = before


def _checked(kind: str, loaded: Any, origin: str) -> type[Destination]:
    if not inspect.isclass(loaded) or not issubclass(loaded, Destination) or inspect.isabstract(loaded):
        raise Misconfigured(
            f"The kind of destination {kind!r}, offered by {origin}, is no complete subclass of "
            "integrations_dagster.destinations.base.Destination.",
            "Let the entry point name the class, and the class define every abstract method.",
        )
    if loaded.kind != kind:
        raise Misconfigured(
            f"The kind of destination {kind!r}, offered by {origin}, calls itself {loaded.kind!r}.",
            "Let the entry point have the name of the class's `kind`.",
        )
    return loaded


KINDS = _Kinds()
"""Kind to class."""


def forms(key: str) -> tuple[type[Keys], ...]:
    """What may be in a key of YAML beside `kind` ("api"), over all kinds that have it and can be loaded."""
    found = []
    for name in KINDS:
        try:
            options = KINDS[name].options
        except Misconfigured:
            continue  # told where the kind is used
        if options is not None and options[0] == key:
            found.append(options[1])
    return tuple(dict.fromkeys(found))


def create(kind: str, secrets: Mapping[str, str] | None = None, option: Any = None) -> Destination:
    """Make a destination.

    Args:
        kind: A key of `KINDS`.
        secrets: What the kind's `settings` name ("secret" for a webhook).
        option: What YAML says under the key of the kind's `options`, in the form named there.

    Raises:
        Misconfigured: The kind is unknown or cannot be loaded, or a secret has no usable form.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind.lower(), KINDS, 1, 0.6)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise Misconfigured(f"Unknown kind of destination {kind!r}.", f"{hint}Known kinds: {', '.join(sorted(KINDS))}.")
    return KINDS[kind](secrets) if option is None else KINDS[kind](secrets, option)
