"""A long write, visible while it runs."""

from __future__ import annotations

from collections.abc import Callable

from integrations_dagster.sync.results import Progress, Shard, WriteSummary

LOG_SECONDS = 10.0
LOG_SHARE = 0.1
LOG_APART = 1.0
"""Seconds between two lines at the least, however fast the rows go."""


class ProgressLog:
    """Logs how far a write op is: every 10 seconds or every tenth of the shard, whichever comes first.

    Args:
        shard: What is written.
        log: Takes one line.
    """

    def __init__(self, shard: Shard, log: Callable[[str], None]) -> None:
        self._log = log
        self._name = f"Shard {shard.index + 1} of {shard.of}"
        self._seconds = 0.0
        self._share = 0.0
        self._rejected = 0

    def __call__(self, progress: Progress) -> None:
        self._rejected = progress.rejected
        share = progress.done / progress.total if progress.total else 1.0
        waited = progress.seconds - self._seconds
        if share >= 1 or waited < LOG_APART or (waited < LOG_SECONDS and share - self._share < LOG_SHARE):
            return
        self._seconds, self._share = progress.seconds, share
        rate = progress.done / progress.seconds
        left = f", about {(progress.total - progress.done) / rate:.0f} s left" if rate else ""
        self._log(
            f"{self._name}: {progress.done:,} of {progress.total:,} rows ({share:.0%}), "
            f"{progress.rejected:,} rejected, {rate:,.0f} rows/s{left}."
        )

    def finish(self, summary: WriteSummary) -> None:
        """Log the end of the write op."""
        state = "stopped" if summary.stopped else "done"
        self._log(f"{self._name}: {state} after {summary.seconds:.1f} s, {self._rejected:,} rejected.")
