"""The outcome file of one attempt of a write op: rows whose outcome needed no request. The fold takes it too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from integrations_dagster.planner.events import OUTCOMES
from integrations_dagster.planner.rows import table
from integrations_dagster.planner.state import to_disk
from integrations_dagster.vocabulary import Outcome, Row, Status


class OutcomeFile:
    """Collects outcomes and writes them in chunks; the file appears, complete, when the shard is through.

    Args:
        folder: The run's plan folder.
        shard: Index of the shard.
        attempt: Fence of the shard; the fold takes the file of the last attempt.
    """

    def __init__(self, folder: Path, shard: int, attempt: int) -> None:
        self._path = folder / f"outcomes-{shard:03d}-{attempt}.parquet"
        self._draft = folder / f".outcomes-{shard:03d}-{attempt}.tmp"
        self._rows: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: Row, outcome: Outcome) -> None:
        """Note the outcome of one row."""
        self._rows.append(
            {
                "ordinal": row.ordinal,
                "key": row.key,
                "match": row.match,
                "partition": row.partition,
                "change": row.change.value,
                "status": outcome.status.value,
                "source_digest": row.source_digest,
                "payload_digest": row.payload_digest,
                "code": outcome.code,
                "reason": outcome.reason,
                "remember": outcome.status is Status.INVALID,
            }
        )
        if len(self._rows) >= 20_000:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._draft, OUTCOMES)
        self._writer.write_table(table(self._rows, OUTCOMES))
        self._rows.clear()

    def finish(self) -> None:
        """Make the file appear, if there is anything in it."""
        if self._rows:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            to_disk(self._draft)
            self._draft.replace(self._path)

    def abandon(self) -> None:
        """Leave no file."""
        if self._writer is not None:
            self._writer.close()
        self._draft.unlink(missing_ok=True)
