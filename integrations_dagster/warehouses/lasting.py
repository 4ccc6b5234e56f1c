"""A connection that is kept for whoever opens the warehouse next: a plan does so ten times, and each time takes as long
as the server needs to check a password."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from integrations_dagster.vocabulary import IntegrationsError
from integrations_dagster.warehouses.store import Store

IDLE = 10.0
"""Seconds after which a kept connection is not used again: networks forget those that are silent, and tell nobody."""


class Lasting:
    """Opens a store as another function does, one at a time; one thread's own, until `close`.

    Args:
        opens: Opens a store, to be used in a `with` block.
    """

    def __init__(self, opens: Callable[[], AbstractContextManager[Store]]) -> None:
        self._opens = opens
        self._kept: tuple[Store, contextlib.ExitStack] | None = None
        self._since = 0.0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Store]:
        """The store for the block. What fails in it ends the connection.

        Raises:
            Whatever opening raises.
        """
        store, ending = self._taken() or self._opened()
        with contextlib.ExitStack() as ends:
            ends.enter_context(ending)
            yield store
            if self._kept is None:
                self._kept, self._since = (store, ends.pop_all()), time.monotonic()

    def _opened(self) -> tuple[Store, contextlib.ExitStack]:
        with contextlib.ExitStack() as ending:
            return ending.enter_context(self._opens()), ending.pop_all()

    def _taken(self) -> tuple[Store, contextlib.ExitStack] | None:
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        store, ending = kept
        if time.monotonic() - self._since < IDLE:
            with contextlib.suppress(IntegrationsError):  # the server has ended it
                store.renew()
                return kept
        ending.close()
        return None

    def close(self) -> None:
        """End the connection that is kept."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[1].close()
