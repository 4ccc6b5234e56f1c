"""Closed batches as events: what each row's outcome does to the records of the snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from integrations_dagster.destinations.base import GONE, NO_RECORD
from integrations_dagster.ledger.batches import (
    OUTCOME_LISTS,
    ROW_LISTS,
    BatchRecord,
    BatchStatus,
    outcomes_text,
    row_count,
    rows_text,
)
from integrations_dagster.planner.state import literal
from integrations_dagster.vocabulary import ABSENT, Action, Change, Status

PACKED = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1"
"""How files of many rows are written: digests, of which they are mostly made, get no smaller at a higher level."""
CHUNK = 32 << 20
"""Bytes of JSON that are turned into events at a time."""


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(columns)


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

EVENT_COLUMNS = {
    "number": "BIGINT",
    "run_id": "VARCHAR",
    "shard": "INTEGER",
    "ordinal": "BIGINT",
    "closed": "DOUBLE",
    "effect": "VARCHAR",
    "late": "BOOLEAN",
    "key": "VARCHAR",
    "match": "VARCHAR",
    "partition": "VARCHAR",
    "change": "VARCHAR",
    "action": "VARCHAR",
    "outcome": "VARCHAR",
    "destination_id": "VARCHAR",
    "source_digest": "VARCHAR",
    "payload_digest": "VARCHAR",
    "code": "VARCHAR",
    "reason": "VARCHAR",
    "request_id": "VARCHAR",
    "reference": "VARCHAR",
    "gone": "BOOLEAN",
}
"""One row for each row of each batch; `reference` is the request's idempotency key."""

NO_ANSWER = ("NO_ANSWER", "No usable answer came; what the request did is unknown.")
"""Code and reason of a row whose request got no answer, or one that could not be read."""
_HEAD = {
    "number": "BIGINT",
    "run_id": "VARCHAR",
    "shard": "INTEGER",
    "status": "VARCHAR",
    "rows": "INTEGER",
    "attempt": "INTEGER",
    "opened": "DOUBLE",
    "closed": "DOUBLE",
    "reference": "VARCHAR",
    "repeatable": "BOOLEAN",
    "traffic": "VARCHAR",
}
_ENCODE = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


class EventFiles(NamedTuple):
    """The events of some batches, as two files of the form that the sync log keeps.

    Attributes:
        rows: A row for each row of each batch (`EVENT_COLUMNS`).
        batches: A row for each batch.
        first: The least number of the batches.
        last: The greatest.
    """

    rows: Path
    batches: Path
    first: int
    last: int


def write_events(
    connection: duckdb.DuckDBPyConnection, folder: Path, batches: Iterable[BatchRecord]
) -> Iterator[EventFiles]:
    """Write batches, given in the order of their numbers, and each of their rows as an event.

    No row is touched by Python: the ledger's JSON goes as it is into files that DuckDB reads.
    """
    for index, chunk in enumerate(_chunks(batches)):
        rows, heads = folder / f"chunk-{index}.json", folder / f"heads-{index}.json"
        longest = 0
        with rows.open("wb") as row_file, heads.open("wb") as head_file:
            for batch in chunk:
                head, line = _lines(batch)
                head_file.write(head)
                longest = max(longest, row_file.write(line))
        first, last = chunk[0].number, chunk[-1].number
        assert first is not None
        assert last is not None
        files = EventFiles(folder / f"rows-{index:05d}.parquet", folder / f"batches-{index:05d}.parquet", first, last)
        lists = {
            "h": _struct(_HEAD),
            "r": _struct({"n": "INTEGER", **ROW_LISTS}),
            "o": _struct({"n": "INTEGER", **OUTCOME_LISTS}),
        }
        _copy(connection, _EVENTS, _json(rows, lists, longest), files.rows)
        _copy(connection, _BATCHES, _json(heads, _HEAD, 0), files.batches)
        rows.unlink()
        heads.unlink()
        yield files


def _json(path: Path, columns: Mapping[str, str], longest: int) -> str:
    # Twice as much is what a thread reads at once, and keeps in memory.
    most = max(longest + 1, 1 << 20)
    kinds = ", ".join(f"{name}: {literal(kind)}" for name, kind in columns.items())
    return (
        f"read_json({literal(str(path))}, format = 'newline_delimited', compression = 'uncompressed', "
        f"columns = {{{kinds}}}, maximum_object_size = {most})"
    )


def _copy(connection: duckdb.DuckDBPyConnection, query: str, source: str, target: Path) -> None:
    # As the sync log keeps them: these files may become its own.
    connection.execute(f"COPY ({query.format(source=source)}) TO {literal(str(target))} ({PACKED})")


def _chunks(batches: Iterable[BatchRecord]) -> Iterator[list[BatchRecord]]:
    chunk: list[BatchRecord] = []
    size = 0
    for batch in batches:
        chunk.append(batch)
        # The ledger's blobs are a third of their text at the least.
        size += 3 * (len(batch.row_blob) + len(batch.outcome_blob or b""))
        if size > CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _lines(batch: BatchRecord) -> tuple[bytes, bytes]:
    """The batch alone, and the batch with its rows and outcomes, as lines of JSON."""
    rows, outcomes = rows_text(batch.row_blob), outcomes_text(batch.outcome_blob)
    head = _ENCODE(
        {
            "number": batch.number,
            "run_id": batch.run_id,
            "shard": batch.shard,
            "status": batch.status,
            "rows": row_count(rows),
            "attempt": batch.attempt,
            "opened": batch.opened,
            "closed": batch.closed,
            "reference": batch.idempotency_key,
            "repeatable": batch.repeatable,
            "traffic": _ENCODE(batch.traffic),
        }
    ).encode()
    return head + b"\n", b'{"h":%b,"r":%b,"o":%b}\n' % (head, rows, outcomes)


def _struct(columns: Mapping[str, str]) -> str:
    return f"STRUCT({', '.join(f'{name} {kind}' for name, kind in columns.items())})"


def _spread(source: str, names: Iterable[str]) -> str:
    # A column of one value is a list of it alone.
    lists = {name: f"{source}.{name}" for name in names}
    return ", ".join(f"unnest(list_resize({of}, r.n, {of}[1])) AS {source}_{name}" for name, of in lists.items())


_BATCHES = """
SELECT number, run_id, shard, status, rows, attempt, opened, closed, reference AS idempotency_key, traffic
FROM {source}"""

# What a row's outcome does to the records of the snapshot and to the held rows. A deletion that the model asks for
# (mode delete) is what is delivered, so that its record is the deletion itself; only a removal ends a record.
_REMOVES = f"action = '{Action.DELETE}' AND change = '{Change.REMOVED}'"
_EVENTS = f"""
WITH spread AS (
    SELECT h, {_spread("r", ROW_LISTS)}, {_spread("o", OUTCOME_LISTS)} FROM {{source}}
), told AS (
    SELECT h.number, h.run_id, h.shard, h.closed, h.reference, h.repeatable, h.status = '{BatchStatus.LATE}' AS late,
        h.status = '{BatchStatus.UNKNOWN}' AS given_up,
        r_o AS ordinal, r_k AS key, r_m AS match, r_p AS partition, r_c AS change, r_a AS action, r_s AS source_digest,
        r_y AS payload_digest, coalesce(nullif(o_d, ''), r_d) AS destination_id,
        CASE WHEN o_s IS NOT NULL THEN o_s WHEN h.repeatable THEN '{Status.UNSENT}' ELSE '{Status.IN_DOUBT}' END
            AS outcome,
        CASE WHEN o_s IS NULL THEN {literal(NO_ANSWER[0])} ELSE o_c END AS code,
        CASE WHEN o_s IS NULL THEN {literal(NO_ANSWER[1])} ELSE o_r END AS reason,
        coalesce(o_q, '') AS request_id
    FROM spread
), judged AS (
    SELECT *, code IN ('{GONE}', '{NO_RECORD}') AS gone, CASE
        WHEN repeatable AND (given_up OR late OR outcome = '{Status.UNSENT}')
            THEN CASE WHEN {_REMOVES} THEN 'unknown_delete' ELSE 'unknown_write' END
        WHEN given_up THEN 'in_doubt'
        WHEN outcome = '{Status.UNSENT}' THEN CASE code WHEN '{ABSENT}' THEN 'absent' ELSE 'in_doubt' END
        WHEN outcome = '{Status.REJECTED}' THEN 'rejected'
        WHEN outcome = '{Status.IN_DOUBT}' THEN 'in_doubt'
        WHEN {_REMOVES} THEN 'delete'
        ELSE 'write' END AS effect
    FROM told
)
SELECT {", ".join(EVENT_COLUMNS)} FROM judged"""
