"""trace: what became of one row, across runs: changes, requests, outcomes, and what is known of it now.

Read from the sync log, the request logs, the ledger's batches that are not folded yet, and the state. Nothing is
changed, and nothing is sent.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import duckdb

from integrations_dagster.delivery import request_log
from integrations_dagster.ledger.batches import BatchRecord, BatchStatus
from integrations_dagster.planner.events import NO_ANSWER
from integrations_dagster.planner.kept import kept_payloads
from integrations_dagster.planner.log import SETTLED, run_folders
from integrations_dagster.planner.state import Home, Manifest, connect, slug
from integrations_dagster.sync.account import connect_account, identify
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.homes import home_of
from integrations_dagster.sync.report import REPORT
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.state import state_key
from integrations_dagster.vocabulary import Status


@dataclass(frozen=True, slots=True)
class Changed:
    """The row differed from what was known, and was put into a batch.

    Attributes:
        at: When the batch was opened, seconds since the epoch.
        change: "added", "changed", "removed".
        action: How it was to be delivered.
        batch: Idempotency key of the batch.
        rows: Rows of the batch.
    """

    at: float
    run_id: str
    shard: int
    change: str
    action: str
    match: str
    partition: str
    batch: str
    rows: int


@dataclass(frozen=True, slots=True)
class Requested:
    """A request that carried the row, or asked about it; see `delivery.exchange.Exchange`.

    Attributes:
        at: When it was sent, seconds since the epoch.
        rows: Rows of its batch.
        request: Its scrubbed body; "" where none was kept.
        response: The answer's.
    """

    at: float
    run_id: str
    shard: int
    batch: str
    attempt: int
    method: str
    path: str
    status: int | None
    milliseconds: int
    request_id: str
    error: str
    rows: int
    request: str
    response: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The row got an outcome.

    Attributes:
        at: When the batch was closed; of an outcome without a request, when its run was recorded. Seconds since the
            epoch.
        shard: None for an outcome without a request.
        outcome: A `Status`.
        late: Whether the answer came after the batch had been given up.
        batch: Idempotency key of the batch, or "".
    """

    at: float
    run_id: str
    shard: int | None
    outcome: str
    code: str
    reason: str
    destination_id: str | None
    request_id: str
    late: bool
    batch: str


@dataclass(frozen=True, slots=True)
class Awaited:
    """A batch with the row has been recorded, and no answer to it.

    Attributes:
        at: When the batch was opened, seconds since the epoch.
        deadline: Until when its request may take effect.
        repeatable: Whether its request may be sent again.
    """

    at: float
    run_id: str
    shard: int
    attempt: int
    deadline: float
    repeatable: bool
    batch: str


@dataclass(frozen=True, slots=True)
class Held:
    """The row waits now.

    Attributes:
        status: A `HeldStatus`.
        attempts: Rejections so far.
        since: Seconds since the epoch.
        not_before: When it is tried again at the earliest; None: by the next run, if its status lets it.
        batch: Idempotency key of the batch in doubt, or "".
    """

    status: str
    attempts: int
    since: float
    not_before: float | None
    code: str
    reason: str
    batch: str


@dataclass(frozen=True, slots=True)
class Known:
    """A record of the row that is believed to be at the destination now.

    Attributes:
        acknowledged: Whether its content is known; otherwise an answer is missing, and it is sent again.
        values: What was acknowledged last, as JSON; "" where that is not kept.
    """

    match: str
    partition: str
    destination_id: str | None
    acknowledged: bool
    values: str = ""


Event: TypeAlias = Changed | Requested | Settled | Awaited | Held | Known
_RANK: Mapping[type, int] = {Changed: 0, Awaited: 1, Requested: 2, Settled: 3}


def trace(sync: SyncSpec, ctx: RunContext, key: str) -> list[Event]:
    """Everything that is known of a row, in order of time; what is known of it now (held, record) comes last.

    Args:
        key: Primary key as text (a JSON array of texts for a composite one).

    Returns:
        Nothing if the row was never a candidate.

    Raises:
        Misconfigured: The account cannot be resolved.
        DestinationUnavailable: The account was never asked who it is, and does not answer.
    """
    account = identify(sync, ctx, connect_account(sync, ctx))
    home = home_of(sync, ctx, account)
    for last in (False, True):
        # A run may fold at this moment and delete the files that are being read: then they are read anew.
        with contextlib.ExitStack() as stack:
            if not last:
                stack.enter_context(contextlib.suppress(duckdb.IOException, FileNotFoundError))
            return _read(home, ctx, state_key(sync, account), key)
    raise AssertionError("the second attempt returns or raises")


def _read(home: Home, ctx: RunContext, state: str, key: str) -> list[Event]:
    # The ledger before the state: a batch that is folded meanwhile is then seen twice, and not never.
    manifest = home.manifest()
    waiting = [
        *((batch, batch.number) for batch in ctx.ledger.closed_after(state, manifest.last_number)),
        *((batch, None) for batch in ctx.ledger.open_batches(state)),
    ]
    with tempfile.TemporaryDirectory(prefix="integrations-trace-") as scratch, connect(Path(scratch)) as connection:
        manifest = home.manifest()
        home.attach(connection, manifest, key)
        events: list[Event] = [*_logged(connection, home, key), *_settled(connection, home, key)]
        now: list[Event] = [*_held(connection, key), *_known(connection, home, manifest, key)]
    events += _in_ledger(waiting, manifest, key)
    events += _requests(home, key, events)
    # To the millisecond, as requests are logged: within one, what comes first by its nature does.
    events.sort(key=lambda event: (int(getattr(event, "at", 0.0) * 1000), _RANK[type(event)]))
    return [*events, *now]


# The sync log


def _logged(connection: duckdb.DuckDBPyConnection, home: Home, key: str) -> Iterator[Event]:
    folders = list(run_folders(home))
    files = [str(path) for folder in folders for path in folder.files("rows")]
    if not files:
        return
    rows = connection.execute(
        """SELECT number, run_id, shard, closed, late, match, partition, change, action, outcome, destination_id,
            coalesce(code, ''), coalesce(reason, ''), coalesce(request_id, ''), reference
        FROM read_parquet($files, union_by_name = true) WHERE key = $key ORDER BY number""",
        {"files": files, "key": key},
    ).fetchall()
    runs = {slug(row[1]) for row in rows}
    batches = [str(path) for folder in folders if folder.folder.name in runs for path in folder.files("batches")]
    opened = _opened(connection, batches)
    for number, run, shard, closed, late, match, partition, change, action, outcome, *rest in rows:
        id_, code, reason, request, batch = rest
        if not late:
            at, size = opened.get(number, (closed, 0))
            yield Changed(at, run, shard, change, action, match, partition, batch, size)
        yield Settled(closed, run, shard, outcome, code, reason, id_, request, late, batch)


def _opened(connection: duckdb.DuckDBPyConnection, files: list[str]) -> dict[int, tuple[float, int]]:
    """Opening and rows of batches, by number."""
    if not files:
        return {}
    query = "SELECT number, opened, rows FROM read_parquet($files, union_by_name = true)"
    return {number: (at, size) for number, at, size in connection.execute(query, {"files": files}).fetchall()}


def _settled(connection: duckdb.DuckDBPyConnection, home: Home, key: str) -> Iterator[Event]:
    """Outcomes without a request: of rows that are invalid, or waited for another one in vain."""
    files = sorted(map(str, (home.folder / "log").glob(f"*/{SETTLED}")))
    if not files:
        return
    rows = connection.execute(
        """SELECT closed, run_id, status, coalesce(code, ''), coalesce(reason, '')
        FROM read_parquet($files, union_by_name = true) WHERE key = $key""",
        {"files": files, "key": key},
    ).fetchall()
    for closed, run, outcome, code, reason in rows:
        yield Settled(closed, run, None, outcome, code, reason, None, "", False, "")


# The ledger


def _in_ledger(waiting: Iterable[tuple[BatchRecord, int | None]], manifest: Manifest, key: str) -> Iterator[Event]:
    for batch, number in waiting:
        if number is not None and number <= manifest.last_number:
            continue  # folded meanwhile, and so in the log
        for place, row in enumerate(batch.rows):
            if row.key != key:
                continue
            run, shard, name = batch.run_id, batch.shard, batch.idempotency_key
            if batch.status is not BatchStatus.LATE:
                change, action = row.change.value, row.action.value
                size = len(batch.rows)
                yield Changed(batch.opened, run, shard, change, action, row.match, row.partition, name, size)
            if batch.status is BatchStatus.OPEN:
                yield Awaited(batch.opened, run, shard, batch.attempt, batch.deadline, batch.repeatable, name)
                continue
            closed, late = batch.closed or batch.opened, batch.status is BatchStatus.LATE
            if batch.outcomes:
                o = batch.outcomes[place]
                id_ = o.destination_id or row.destination_id
                yield Settled(closed, run, shard, o.status.value, o.code, o.reason, id_, o.request_id, late, name)
            else:
                status = Status.UNSENT if batch.repeatable else Status.IN_DOUBT
                yield Settled(closed, run, shard, status.value, *NO_ANSWER, row.destination_id, "", late, name)


# The request logs


def _requests(home: Home, key: str, events: Iterable[Event]) -> Iterator[Requested]:
    batches: dict[str, set[str]] = {}
    for event in events:
        if isinstance(event, Changed | Settled | Awaited):
            batches.setdefault(event.run_id, set()).add(event.batch)
    every = {batch for known in batches.values() for batch in known if batch}
    runs = {slug(run) for run in batches}
    for folder in sorted((home.folder / request_log.FOLDER).glob("*")):
        if folder.name not in runs and not _may_have_sent(home, folder.name):
            continue
        for line in request_log.find_exchanges(folder, key, every):
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a line of another version
                yield _requested(folder.name, line)


def _may_have_sent(home: Home, run: str) -> bool:
    """Whether a run may have sent the row although the sync log does not know it of it.

    What was refused whole and then not sent again leaves no row there, nor does a run that died. A run that left no row
    unsent has an outcome of every row that it sent.
    """
    try:
        report = json.loads((home.folder / "log" / run / REPORT).read_text("utf-8"))
        return bool(report["outcomes"].get(Status.UNSENT.value, 0))
    except (FileNotFoundError, ValueError, KeyError):
        return True


def _requested(run: str, line: Mapping[str, Any]) -> Requested:
    return Requested(
        at=datetime.fromisoformat(line["at"]).timestamp(),
        run_id=run,
        shard=line["shard"],
        batch=line["batch"],
        attempt=line["attempt"],
        method=line["method"],
        path=line["path"],
        status=line["status"],
        milliseconds=line["milliseconds"],
        request_id=line["request_id"],
        error=line["error"],
        rows=len(line["keys"]),
        request=line.get("request", ""),
        response=line.get("response", ""),
    )


# The state


def _held(connection: duckdb.DuckDBPyConnection, key: str) -> list[Held]:
    rows = connection.execute(
        "SELECT status, attempts, since, not_before, code, reason, reference FROM held WHERE key = $key",
        {"key": key},
    ).fetchall()
    return [
        Held(status, attempts, since, not_before, code or "", reason or "", batch or "")
        for status, attempts, since, not_before, code, reason, batch in rows
    ]


def _known(connection: duckdb.DuckDBPyConnection, home: Home, manifest: Manifest, key: str) -> list[Known]:
    kept = kept_payloads(connection, home, manifest, [key]).get(key, {})
    rows = connection.execute(
        """SELECT match, coalesce(partition, ''), destination_id, payload_digest IS NOT NULL FROM snapshot
        WHERE key = $key ORDER BY number""",
        {"key": key},
    ).fetchall()
    values = {match: json.dumps(payload, ensure_ascii=False) for match, payload in kept.items()}
    return [Known(match, partition, id_, known, values.get(match, "")) for match, partition, id_, known in rows]


def held_partitions(sync: SyncSpec, ctx: RunContext, keys: Iterable[str] = ()) -> list[str]:
    """Partitions that have held rows (among `keys`, if there are any), in order; "" for an unpartitioned model.

    Raises:
        Misconfigured: The account cannot be resolved.
        DestinationUnavailable: The account was never asked who it is, and does not answer.
    """
    home = home_of(sync, ctx, identify(sync, ctx, connect_account(sync, ctx)))
    asked = list(keys)
    with tempfile.TemporaryDirectory(prefix="integrations-held-") as scratch, connect(Path(scratch)) as connection:
        home.attach(connection, home.manifest())
        rows = connection.execute(
            "SELECT DISTINCT partition FROM held WHERE len($keys) = 0 OR list_contains($keys, key) ORDER BY 1",
            {"keys": asked},
        ).fetchall()
    return [partition or "" for (partition,) in rows]
