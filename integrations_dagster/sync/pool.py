"""Threads that send batches: a bounded queue before them, so that memory does not grow with the shard."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

WAIT = 0.2
"""Seconds between two looks at the clock while waiting for the threads."""


def _nothing() -> None:
    return None


class Pool(Generic[T]):
    """Runs `work` on items in several threads.

    Args:
        threads: How many.
        worker: Makes the function that one thread applies to items, and the one that closes its connection.
    """

    def __init__(self, threads: int, worker: Callable[[], tuple[Callable[[T], None], Callable[[], None]]]) -> None:
        self._items: queue.Queue[T | None] = queue.Queue(maxsize=2 * threads)
        self._worker = worker
        self._wanted = threads
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def _run(self) -> None:
        close: Callable[[], None] = _nothing
        try:
            work, close = self._worker()
            while (item := self._items.get()) is not None:
                try:
                    if not self._errors:
                        work(item)
                finally:
                    self._items.task_done()
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that waits)
            self._errors.append(error)
            # Keep taking items, so that whoever puts or waits is not left hanging.
            while self._items.get() is not None:
                self._items.task_done()
        finally:
            close()

    def put(self, item: T, tick: Callable[[], None]) -> None:
        """Hand an item to the threads; waits while the queue is full, calling `tick` now and then."""
        if len(self._threads) < self._wanted:
            thread = threading.Thread(target=self._run, name=f"sender-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        tick()
        while True:
            self._raise()
            try:
                self._items.put(item, timeout=WAIT)
                return
            except queue.Full:
                tick()

    def settle(self, tick: Callable[[], None]) -> None:
        """Wait until every item has been worked on."""
        while self._items.unfinished_tasks and not self._errors:
            time.sleep(0.005)
            tick()
        self._raise()

    def finish(self, tick: Callable[[], None]) -> None:
        """Wait for every item, then end the threads."""
        self.settle(tick)
        self._end(None)
        self._raise()

    def abandon(self, seconds: float) -> None:
        """End the threads after the item each is at, waiting for that no longer than `seconds`."""
        self._errors.append(InterruptedError("abandoned"))
        while True:
            try:
                self._items.get_nowait()
                self._items.task_done()
            except queue.Empty:
                break
        self._end(time.monotonic() + seconds)

    def _end(self, deadline: float | None) -> None:
        for _ in self._threads:
            self._items.put(None)
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _raise(self) -> None:
        if self._errors:
            raise self._errors[0]
