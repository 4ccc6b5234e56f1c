"""Python's collector of cyclic garbage, held off while rows stream through."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

GARBAGE = 50_000
"""Objects that may be left over before cycles are looked for. Rows are freed without that, once nothing uses them;
what errors and the HTTP client leave in cycles is a few objects a request, so that these are some megabytes."""

_lock = threading.Lock()
_users = 0
_before: tuple[int, int, int] = (0, 0, 0)
_frozen = False


@contextmanager
def seldom() -> Iterator[None]:
    """Look for cycles seldom, and never among what was there before.

    By default Python looks after each 700 objects that are new, and now and then at all there are: those that a process
    has imported are half a million, and all its threads stand still meanwhile. Blocks of several threads may overlap.
    """
    global _users, _before, _frozen
    with _lock:
        _users += 1
        if _users == 1:
            _before = gc.get_threshold()
            # What somebody else has frozen must stay so.
            _frozen = gc.get_freeze_count() == 0
            if _frozen:
                gc.freeze()
            gc.set_threshold(GARBAGE, *_before[1:])
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                gc.set_threshold(*_before)
                if _frozen:
                    gc.unfreeze()
