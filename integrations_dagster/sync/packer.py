"""Cuts a stream of rows into batches, by rows and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from integrations_dagster.destinations.base import Limits
from integrations_dagster.vocabulary import Action, Row

ROW_OVERHEAD = 200
"""Bytes of a request that a row may cost beside its payload: names, ids, braces."""


class Packer:
    """Packs rows of the same action.

    Args:
        limits: The destination's limits for each action.
        rows: Rows of a batch, lower than the destination's limit, or None.
    """

    def __init__(self, limits: Mapping[Action, Limits], rows: int | None) -> None:
        self._limits = limits
        self._rows = rows
        self._pending: dict[Action, list[Row]] = {}
        self._bytes: dict[Action, int] = {}

    def add(self, row: Row) -> Iterator[tuple[Action, tuple[Row, ...]]]:
        """Take a row; yields the batch that is full before it or with it."""
        limit = self._limits[row.action]
        most = min(limit.rows, self._rows or limit.rows)
        pending = self._pending.setdefault(row.action, [])
        size = row.size + ROW_OVERHEAD
        if pending and limit.bytes is not None and self._bytes[row.action] + size > limit.bytes:
            yield self._take(row.action)
            pending = self._pending.setdefault(row.action, [])
        pending.append(row)
        self._bytes[row.action] = self._bytes.get(row.action, 0) + size
        if len(pending) >= most:
            yield self._take(row.action)

    def rest(self) -> Iterator[tuple[Action, tuple[Row, ...]]]:
        """Yield what is left."""
        for action in list(self._pending):
            yield self._take(action)

    def _take(self, action: Action) -> tuple[Action, tuple[Row, ...]]:
        self._bytes[action] = 0
        return action, tuple(self._pending.pop(action))
