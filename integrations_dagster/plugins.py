"""What other installed distributions offer, by the entry points of their metadata.

A leaf beside `vocabulary`: it finds and loads, and knows nothing of what is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from integrations_dagster.vocabulary import Misconfigured


@cache
def offered(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by name, each once; nothing is loaded. Read once in a process.

    Args:
        group: As "integrations_dagster.destinations".
    """
    found: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in entry_points(group=group):
        # A distribution that is on the path twice offers the same thing twice.
        found.setdefault(point.name, {})[_distribution(point), point.value] = point
    return MappingProxyType({name: tuple(points.values()) for name, points in sorted(found.items())})


def load(group: str, name: str) -> Any:
    """Load what a name of `offered` stands for.

    Raises:
        Misconfigured: Two distributions offer the name, or what it stands for cannot be imported; naming them.
    """
    points = offered(group)[name]
    if len(points) > 1:
        raise Misconfigured(
            f"{name!r} ({group}) is offered by {' and '.join(origin(point) for point in points)}.",
            "Uninstall one of them, or let it take another name.",
        )
    try:
        return points[0].load()
    except Exception as error:
        raise Misconfigured(
            f"{name!r}, offered by {origin(points[0])}, cannot be loaded: {type(error).__name__}: {error}",
            "Mend or uninstall that distribution.",
        ) from error


def origin(point: EntryPoint) -> str:
    """Who offers an entry point, and what it stands for: "acme-kinds 1.2 (acme_kinds.crm:Crm)"."""
    return f"{_distribution(point)} ({point.value})"


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown distribution"
