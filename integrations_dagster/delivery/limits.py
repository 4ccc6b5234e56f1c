"""How many requests a write op has in flight: as many as help. Grows while latency holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SLOWER = 2.5
"""How much slower than the usual answer answers may get before fewer requests are kept in flight."""
TOLERANCE = 0.02
"""Seconds that latency may grow by in any case: timing on a busy machine."""
SMOOTHING = 0.1
"""Weight of a new latency in the running mean."""
GROWTH = 0.5
"""More requests in flight after as many answers as there are in flight: slow, for all shards of all runs grow at once,
and what exceeds an unknown quota is refused."""
STEP_ASIDE = 0.00005
"""Seconds for which the thread that has given up its place leaves the interpreter to the one that takes it: a request
leaves then, while this thread's answer can wait to be read. Otherwise the place stays empty for a millisecond."""
DRIFT = 0.005
"""Weight of a new latency in what counts as usual, so that a destination may become slower for good."""


class Concurrency:
    """A limit on the requests in flight of one write op, shared by its threads.

    Begins low and grows with the answers, at most to `most`; shrinks when answers take much longer than usual,
    for then more requests at once only wait at the destination.

    Args:
        most: The highest limit.
        start: Where to begin.
    """

    def __init__(self, most: int, start: int = 1) -> None:
        self._most = most
        self._limit = float(min(max(start, 1), most))
        self._flying = 0
        self._waiting = 0
        self._usual = 0.0
        self._mean = 0.0
        self._free = threading.Condition()

    @property
    def limit(self) -> int:
        """Requests in flight at once, now."""
        return int(self._limit)

    @contextmanager
    def slot(self, stop: threading.Event) -> Iterator[None]:
        """Wait for a free place, and keep it meanwhile; goes through without one once `stop` is set."""
        with self._free:
            self._waiting += 1
            while self._flying >= int(self._limit) and not stop.is_set():
                # `stop` is set without a word to this condition.
                self._free.wait(0.2)
            self._waiting -= 1
            self._flying += 1
        try:
            yield
        finally:
            with self._free:
                self._flying -= 1
                self._free.notify()
                others = self._waiting > 0
            if others:
                time.sleep(STEP_ASIDE)

    def answered(self, seconds: float) -> None:
        """An answer came, so many seconds after its request was sent."""
        with self._free:
            if self._usual == 0.0:
                self._usual = self._mean = seconds
            self._mean += SMOOTHING * (seconds - self._mean)
            # What is usual falls at once and rises slowly.
            self._usual = seconds if seconds < self._usual else self._usual + DRIFT * (seconds - self._usual)
            if self._mean > SLOWER * self._usual + TOLERANCE:
                self._limit = max(1.0, self._limit - 1 / max(1.0, self._limit))
            elif self._limit < self._most:
                self._limit = min(self._most, self._limit + GROWTH / self._limit)
                self._free.notify()
