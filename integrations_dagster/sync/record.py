"""record: fold, give the final account of the run, decide whether it succeeded, give the lease back."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from integrations_dagster.ledger.leases import Lease
from integrations_dagster.planner.fold import outcome_files
from integrations_dagster.planner.state import Home, literal
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.results import BadRow, Plan, RunReport, WriteSummary
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.state import HeldState, drop_plans, fold_into, state_key, wait_for_open_batches
from integrations_dagster.vocabulary import Change, Counts, IntegrationsError, Status, Traffic

BAD_ROWS = 100
REPORT = "report.json"


class Incomplete(IntegrationsError):
    """Fewer write ops have reported than the plan made."""


def record(sync: SyncSpec, ctx: RunContext, plan: Plan, parts: Sequence[WriteSummary]) -> RunReport:
    """Fold what was acknowledged and give the account of the run. May be called again after a kill anywhere in it.

    Raises:
        Incomplete: A write op did not run; nothing that was delivered is lost.
        LeaseLost: The run does not hold the sync any more.
    """
    key = state_key(sync, plan.account)
    lease = Lease(key, plan.run_id, plan.fence)
    home = Home.of(ctx.storage, sync.name, plan.account)
    if len(parts) < len(plan.shards):
        raise Incomplete(
            f"Sync {sync.name!r}: {len(parts)} of {len(plan.shards)} write steps have reported.",
            "Nothing that was delivered is lost: launch a new run, and it delivers what is missing.",
        )
    report_path = home.log_folder(plan.run_id) / REPORT
    if report_path.exists():
        report = _read(report_path)
    else:
        started = time.monotonic()
        ctx.ledger.heartbeat(lease)
        # Every write op has ended, so a batch that is still open belongs to an attempt that died.
        wait_for_open_batches(sync, ctx, key)
        fold_into(ctx, HeldState(lease, home))
        report = _report(sync, home, plan, parts, started)
        _write(report_path, report)
    drop_plans(home)
    ctx.ledger.release(lease)
    return report


def _report(sync: SyncSpec, home: Home, plan: Plan, parts: Sequence[WriteSummary], started: float) -> RunReport:
    with duckdb.connect() as connection:
        _attach(connection, home, plan.run_id)
        tally = {
            (change, status): count
            for change, status, count in connection.execute(
                "SELECT change, status, count(*) FROM final GROUP BY ALL"
            ).fetchall()
        }
        bad = connection.execute(
            """SELECT key, status, code, reason FROM (
                SELECT * FROM final WHERE status IN ('rejected', 'invalid', 'in_doubt')
                UNION ALL BY NAME SELECT * FROM planned
            ) ORDER BY status = 'invalid', key LIMIT ?""",
            [BAD_ROWS],
        ).fetchall()
        reasons = connection.execute(
            """SELECT any_value(reason), count(*) AS n FROM final WHERE status = 'rejected'
            GROUP BY coalesce(nullif(code, ''), reason) ORDER BY n DESC, 1 LIMIT 10"""
        ).fetchall()
        traffic = Traffic.total(
            json.loads(text) for (text,) in connection.execute("SELECT traffic FROM sent").fetchall() if text != "{}"
        )
    counts, outcomes = _settle(plan, tally)
    return RunReport(
        counts=counts,
        outcomes=outcomes,
        traffic=traffic,
        bad_rows=tuple(BadRow(key or "(null)", Status(status), code, reason) for key, status, code, reason in bad),
        reasons=tuple((reason, count) for reason, count in reasons),
        failures=_failures(sync, plan, parts, outcomes),
        write_seconds=max((part.seconds for part in parts), default=0.0),
        record_seconds=time.monotonic() - started,
        notes=plan.notes,
        candidates=sum(shard.candidates for shard in plan.shards),
    )


def _attach(connection: duckdb.DuckDBPyConnection, home: Home, run_id: str) -> None:
    """Views: `final` (each candidate that has an outcome, with its last), `planned` (rows the plan found invalid),
    `sent` (batches)."""
    log, folder = home.log_folder(run_id), home.plan_folder(run_id)
    rows = sorted(log.glob("rows-*.parquet"))
    batches = sorted(log.glob("batches-*.parquet"))
    outcomes = [path for path in outcome_files(folder) if "-plan-" not in path.name]
    planned = [path for path in outcome_files(folder) if "-plan-" in path.name]

    def view(name: str, paths: list[Path], columns: str, otherwise: str) -> None:
        files = ", ".join(literal(str(path)) for path in paths)
        source = f"SELECT {columns} FROM read_parquet([{files}])" if paths else f"SELECT {otherwise} WHERE false"
        connection.execute(f"CREATE TEMP VIEW {name} AS {source}")

    nothing = "0 AS shard, 0 AS ordinal, 0 AS number, '' AS key, '' AS change, '' AS status, '' AS code, '' AS reason"
    view(
        "answered",
        rows,
        "shard, ordinal, number, key, change, outcome AS status, code, reason, late",
        f"{nothing}, false AS late",
    )
    view("settled", outcomes, "ordinal, key, change, status, code, reason", nothing)
    view("planned", planned, "key, change, status, code, reason", nothing)
    view("sent", batches, "traffic", "'' AS traffic")
    connection.execute(
        """CREATE TEMP VIEW final AS
        SELECT key, change, status, code, reason FROM answered WHERE NOT late
        QUALIFY row_number() OVER (PARTITION BY shard, ordinal ORDER BY number DESC) = 1
        UNION ALL BY NAME SELECT key, change, status, code, reason FROM settled"""
    )


def _settle(plan: Plan, tally: dict[tuple[str, str], int]) -> tuple[Counts, dict[Status, int]]:
    """Final counts: a candidate that turned out unchanged or invalid is counted there."""
    outcomes = {status: sum(n for (_, s), n in tally.items() if s == status) for status in Status}
    candidates = sum(shard.candidates for shard in plan.shards)
    outcomes[Status.UNSENT] += candidates - sum(outcomes.values())
    counts = Counts(**plan.counts.as_dict())
    for change in (Change.ADDED, Change.CHANGED):
        unchanged = tally.get((change, Status.UNCHANGED), 0)
        invalid = tally.get((change, Status.INVALID), 0)
        setattr(counts, change, getattr(counts, change) - unchanged - invalid)
        counts.unchanged += unchanged
        counts.invalid += invalid
    return counts, outcomes


def _failures(
    sync: SyncSpec, plan: Plan, parts: Sequence[WriteSummary], outcomes: dict[Status, int]
) -> tuple[str, ...]:
    candidates = sum(shard.candidates for shard in plan.shards)
    failures = list(dict.fromkeys(part.stopped for part in parts if part.stopped))
    if unsent := outcomes[Status.UNSENT]:
        failures.append(
            f"{unsent:,} of {candidates:,} rows were not delivered. Nothing is lost: a new run delivers them."
        )
    rejected = outcomes[Status.REJECTED]
    limit = sync.fail_rejected_above
    if limit is not None and candidates and rejected / candidates > limit:
        failures.append(
            f"{rejected:,} of {candidates:,} rows were rejected ({rejected / candidates:.1%}), more than fail_when "
            f"allows ({limit:.1%}). They are held and tried again by the next run."
        )
    return tuple(failures)


def _write(path: Path, report: RunReport) -> None:
    data: dict[str, Any] = {
        "counts": report.counts.as_dict(),
        "outcomes": {str(status): count for status, count in report.outcomes.items()},
        "traffic": report.traffic.as_dict(),
        "bad_rows": [[b.key, b.status, b.code, b.reason] for b in report.bad_rows],
        "reasons": report.reasons,
        "failures": report.failures,
        "write_seconds": report.write_seconds,
        "record_seconds": report.record_seconds,
        "notes": report.notes,
        "candidates": report.candidates,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(data), "utf-8")
    draft.replace(path)


def _read(path: Path) -> RunReport:
    data = json.loads(path.read_text("utf-8"))
    return RunReport(
        counts=Counts(**data["counts"]),
        outcomes={Status(status): count for status, count in data["outcomes"].items()},
        traffic=Traffic(**data["traffic"]),
        bad_rows=tuple(BadRow(key, Status(status), code, reason) for key, status, code, reason in data["bad_rows"]),
        reasons=tuple((reason, count) for reason, count in data["reasons"]),
        failures=tuple(data["failures"]),
        write_seconds=data["write_seconds"],
        record_seconds=data["record_seconds"],
        notes=tuple(data["notes"]),
        candidates=data["candidates"],
    )
