"""From the rows of a shard file to rows with payloads, and to the outcomes of those that need no request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from integrations_dagster.destinations.base import Destination
from integrations_dagster.sync.payloads import Payloads
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.vocabulary import Action, Change, Outcome, Row, Status, per_row


@per_row
class Mapped:
    """A candidate with its payload, or with the outcome that it has without a request.

    Attributes:
        wave: Rows of one wave are delivered before those of the next.
        follows: Key of the row in the shard that must have been accepted before, or None.
    """

    row: Row
    wave: int
    follows: str | None
    outcome: Outcome | None = None


_CHANGES = {change.value: change for change in Change}
_ACTIONS = {action.value: action for action in Action}


class Mapper:
    """Maps the rows of one sync. The text of a payload is made once: it goes into the digest and into the request."""

    def __init__(self, sync: SyncSpec, destination: Destination, row_bytes: int | None) -> None:
        self._destination = destination
        self._row_bytes = row_bytes
        self._payloads = Payloads(sync, destination)

    def dropped(self) -> list[str]:
        """Sentences on the fields of which values did not fit and were left out (`on_error: drop`) so far."""
        return self._payloads.dropped()

    def map(self, rows: pa.RecordBatch, first: int = 0) -> Iterator[Mapped]:
        """Map one Arrow batch of a shard file.

        Args:
            first: Position of its first row in the shard.
        """

        def fixed(name: str) -> list[Any]:
            return rows.column(name).to_pylist()

        written = self._payloads.of(rows)
        each = zip(
            range(first, first + rows.num_rows), fixed("key"), fixed("match"), fixed("change"), fixed("action"),
            fixed("partition"), fixed("destination_id"), fixed("source_digest"), fixed("wave"), fixed("follows"),
            fixed("known_payload_digest"), written.texts,
            strict=True,
        )  # fmt: skip
        for place, fixed_ in enumerate(each):
            ordinal, key, match, change, action_, partition, id_, source, wave, follows, known, text = fixed_
            action = _ACTIONS[action_]
            fix = (ordinal, key, match, _CHANGES[change], action)
            if action is Action.DELETE:
                # In mode delete, a record of the state is a deletion: what was deleted is not deleted again.
                done = change != Change.REMOVED and known == ""
                gone = Outcome(Status.UNCHANGED) if done else None
                yield Mapped(Row(*fix, b"", partition, id_, source), wave, follows, gone)
                continue
            outcome: Outcome | None = None
            encoded, digest = b"", ""
            if text is None:
                outcome = _invalid(*written.problem(place))
            elif self._row_bytes is not None and len(text) > self._row_bytes:
                outcome = self._too_large(len(text))
            else:
                encoded, digest = text, hashlib.blake2b(text, digest_size=16).hexdigest()
                if action is Action.UPSERT and known == digest:
                    outcome = Outcome(Status.UNCHANGED)
            yield Mapped(Row(*fix, encoded, partition, id_, source, digest), wave, follows, outcome)

    def _too_large(self, size: int) -> Outcome:
        return _invalid(
            "TOO_LARGE", f"The row has {size:,} bytes, and {self._destination.label} takes {self._row_bytes:,}."
        )


def _invalid(code: str, reason: str) -> Outcome:
    return Outcome(Status.INVALID, None, code, reason)
