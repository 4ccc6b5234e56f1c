"""Closed batches as events: what each row's outcome does to the records of the snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from integrations_dagster.destinations.base import GONE
from integrations_dagster.ledger.batches import BatchRecord, BatchStatus
from integrations_dagster.planner.rows import table
from integrations_dagster.vocabulary import Action, Outcome, Status

WRITE, DELETE, UNKNOWN_WRITE, UNKNOWN_DELETE, REJECTED, IN_DOUBT = (
    "write",
    "delete",
    "unknown_write",
    "unknown_delete",
    "rejected",
    "in_doubt",
)


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(columns)


EVENTS = _schema(
    number=pa.int64(),
    run_id=pa.string(),
    shard=pa.int32(),
    ordinal=pa.int64(),
    closed=pa.float64(),
    effect=pa.string(),
    late=pa.bool_(),
    key=pa.string(),
    match=pa.string(),
    partition=pa.string(),
    change=pa.string(),
    action=pa.string(),
    outcome=pa.string(),
    destination_id=pa.string(),
    source_digest=pa.string(),
    payload_digest=pa.string(),
    code=pa.string(),
    reason=pa.string(),
    request_id=pa.string(),
    reference=pa.string(),
    gone=pa.bool_(),
)

OUTCOMES = _schema(
    ordinal=pa.int64(),
    key=pa.string(),
    match=pa.string(),
    partition=pa.string(),
    change=pa.string(),
    status=pa.string(),
    source_digest=pa.string(),
    payload_digest=pa.string(),
    code=pa.string(),
    reason=pa.string(),
    remember=pa.bool_(),
)
"""Outcomes that needed no request: a shard's unchanged and invalid rows, a plan's invalid rows. `remember`: the row is
not judged anew until its source digest changes."""

BATCHES = _schema(
    number=pa.int64(),
    run_id=pa.string(),
    shard=pa.int32(),
    status=pa.string(),
    rows=pa.int32(),
    attempt=pa.int32(),
    opened=pa.float64(),
    closed=pa.float64(),
    idempotency_key=pa.string(),
    traffic=pa.string(),
)


def write_events(scratch: Path, batches: Iterable[BatchRecord], last: int) -> tuple[int, int]:
    count = 0
    with (
        pq.ParquetWriter(scratch / "events.parquet", EVENTS) as events,
        pq.ParquetWriter(scratch / "batches.parquet", BATCHES) as log,
    ):
        for chunk in _chunks(batches, 500):
            events.write_table(table((event for batch in chunk for event in _events(batch)), EVENTS))
            log.write_table(table(map(_batch_row, chunk), BATCHES))
            count += sum(len(batch.rows) for batch in chunk)
            assert chunk[-1].number is not None
            last = max(last, chunk[-1].number)
    return last, count


def _chunks(batches: Iterable[BatchRecord], size: int) -> Iterator[list[BatchRecord]]:
    chunk: list[BatchRecord] = []
    for batch in batches:
        chunk.append(batch)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _batch_row(batch: BatchRecord) -> dict[str, Any]:
    return {
        "number": batch.number,
        "run_id": batch.run_id,
        "shard": batch.shard,
        "status": batch.status.value,
        "rows": len(batch.rows),
        "attempt": batch.attempt,
        "opened": batch.opened,
        "closed": batch.closed,
        "idempotency_key": batch.idempotency_key,
        "traffic": json.dumps(batch.traffic),
    }


def _events(batch: BatchRecord) -> Iterator[dict[str, Any]]:
    effects: dict[tuple[Action, Status], str] = {}
    answers = batch.outcomes or (_NO_ANSWER if batch.repeatable else _DOUBT,) * len(batch.rows)
    same = {
        "number": batch.number,
        "run_id": batch.run_id,
        "shard": batch.shard,
        "closed": batch.closed,
        "late": batch.status is BatchStatus.LATE,
        "reference": batch.idempotency_key,
    }
    for row, answer in zip(batch.rows, answers, strict=True):
        kind = row.action, answer.status
        if kind not in effects:
            effects[kind] = _effect(batch, *kind)
        yield {
            **same,
            "ordinal": row.ordinal,
            "effect": effects[kind],
            "key": row.key,
            "match": row.match,
            "partition": row.partition,
            "change": row.change,
            "action": row.action,
            "outcome": answer.status,
            "destination_id": answer.destination_id or row.destination_id,
            "source_digest": row.source_digest,
            "payload_digest": row.payload_digest,
            "code": answer.code,
            "reason": answer.reason,
            "request_id": answer.request_id,
            "gone": answer.code == GONE,
        }


_NO_ANSWER = Outcome(Status.UNSENT, None, "NO_ANSWER", "No answer came; what the request did is unknown.")
_DOUBT = Outcome(Status.IN_DOUBT, None, _NO_ANSWER.code, _NO_ANSWER.reason)


def _effect(batch: BatchRecord, action: Action, status: Status) -> str:
    unknown = UNKNOWN_DELETE if action is Action.DELETE else UNKNOWN_WRITE
    if batch.status is BatchStatus.UNKNOWN or status is Status.UNSENT:
        return unknown if batch.repeatable else IN_DOUBT
    if batch.status is BatchStatus.LATE and batch.repeatable:
        return unknown
    if status is Status.REJECTED:
        return REJECTED
    if status is Status.IN_DOUBT:
        return IN_DOUBT
    return DELETE if action is Action.DELETE else WRITE
