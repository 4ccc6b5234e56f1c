"""Cuts a stream of rows into batches, by rows and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from integrations_dagster.destinations.base import Limits
from integrations_dagster.vocabulary import Action, Row

ROW_OVERHEAD = 200
"""Bytes of a request that a row may cost beside its payload: names, ids, braces."""


def limits_of(limits: Limits, *, rows: int | None, most_bytes: int | None, row_bytes: int | None) -> Limits:
    """The destination's limits, lowered to what the sync asks for.

    A row that no request could carry is too large by itself, whatever the limit of a row says.
    """
    total = _least(limits.bytes, most_bytes)
    alone = None if total is None else max(total - ROW_OVERHEAD, 1)
    return Limits(_least(limits.rows, rows) or limits.rows, total, _least(limits.row_bytes, row_bytes, alone))


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


class Packer:
    """Packs rows of the same action.

    Args:
        limits: The limits of a batch for each action.
    """

    def __init__(self, limits: Mapping[Action, Limits]) -> None:
        self._limits = limits
        self._pending: dict[Action, list[Row]] = {}
        self._bytes: dict[Action, int] = {}

    def add(self, row: Row) -> Iterator[tuple[Action, tuple[Row, ...]]]:
        """Take a row; yields the batch that is full before it or with it."""
        limit = self._limits[row.action]
        pending = self._pending.setdefault(row.action, [])
        # A destination may name the row by key or match value beside its payload.
        size = len(row.encoded) + len(row.key) + len(row.match) + ROW_OVERHEAD
        if pending and limit.bytes is not None and self._bytes[row.action] + size > limit.bytes:
            yield self._take(row.action)
            pending = self._pending.setdefault(row.action, [])
        pending.append(row)
        self._bytes[row.action] = self._bytes.get(row.action, 0) + size
        if len(pending) >= limit.rows:
            yield self._take(row.action)

    def rest(self) -> Iterator[tuple[Action, tuple[Row, ...]]]:
        """Yield what is left."""
        for action in list(self._pending):
            yield self._take(action)

    def _take(self, action: Action) -> tuple[Action, tuple[Row, ...]]:
        self._bytes[action] = 0
        return action, tuple(self._pending.pop(action))
