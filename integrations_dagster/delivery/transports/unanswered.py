"""What a session says of a request that got no answer."""

from __future__ import annotations

from integrations_dagster.destinations.errors import Unavailable


class NotSent(Unavailable):
    """The request had no effect: no connection could be made, or what it began was undone."""


class NoAnswer(Unavailable):
    """The request was sent, wholly or in part, and no usable answer came: what it did is unknown."""
