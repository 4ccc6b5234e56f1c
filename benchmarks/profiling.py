"""cProfile over all threads of a write op, in CPU time, so that waiting for the destination costs nothing."""

from __future__ import annotations

import cProfile
import pstats
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def profiled(path: str) -> Iterator[None]:
    """Profile the block, and every thread that it starts and ends, into a file for `pstats`.

    Raises:
        RuntimeError: From Python 3.12 on cProfile cannot tell threads apart.
    """
    if sys.version_info >= (3, 12):
        raise RuntimeError("--profile needs Python 3.11: from 3.12 on cProfile profiles one thread only.")
    profiles = [cProfile.Profile(time.thread_time, builtins=False)]

    def begin(*_event: Any) -> None:
        # The first event of a new thread; from here on the thread's own profile takes over.
        own = cProfile.Profile(time.thread_time, builtins=False)
        profiles.append(own)
        own.enable()

    threading.setprofile(begin)
    profiles[0].enable()
    try:
        yield
    finally:
        profiles[0].disable()
        threading.setprofile(None)
        stats = pstats.Stats(profiles[0])
        for profile in profiles[1:]:
            profile.create_stats()
            if profile.stats:
                stats.add(profile)
        stats.dump_stats(path)


def show(path: str, batches: int, lines: int = 45) -> None:
    """Print the functions that cost most, in microseconds of CPU a batch.

    Args:
        batches: Batches that the profiled op sent.
        lines: Functions shown.
    """
    stats = pstats.Stats(path)
    total = stats.total_tt  # type: ignore[attr-defined]  # not in the type stubs
    each = total / batches * 1e6
    print(f"\none write op under cProfile: {each:,.0f} µs CPU for each of {batches:,} batches (profiling included)")
    for order, title in ((2, "own time"), (3, "with callees")):
        print(f"\n  {'µs/batch':>9} {'calls/batch':>12}  {title}")
        entries = stats.stats.items()  # type: ignore[attr-defined]  # not in the type stubs
        for (file, line, name), values in sorted(entries, key=lambda e: -e[1][order])[:lines]:
            where = f"{'/'.join(file.split('/')[-2:])}:{line} " if line else ""
            print(f"  {values[order] / batches * 1e6:9.1f} {values[1] / batches:12.2f}  {where}{name}")
