"""The row that each run leaves in `sync_runs`: of runs that were recorded, that failed in plan, and that died."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from integrations_dagster.planner.log import RUN, SETTLED, write_run
from integrations_dagster.planner.model import scalar
from integrations_dagster.planner.state import PLAN, Home, connect, slug
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.report import attach_outcomes, make_report, read_report
from integrations_dagster.sync.results import Plan, RunReport
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.state import state_key
from integrations_dagster.vocabulary import Counts, IntegrationsError, Status, Traffic

DIED = "The run ended before it was recorded. What was acknowledged is; the next run delivers the rest."
UNKNOWN_END = (
    "Nothing but these answers is known of the run: it ended before it was recorded, or its log was deleted since "
    "(sync_log.days)."
)
BEGAN = "began.json"
"""What a run's folder of the log holds from the moment at which it has taken the sync: its id, and that moment."""

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, duckdb.Error)


def run_numbers(plan: Plan, report: RunReport) -> dict[str, Any]:
    """The numbers of a run, by the columns of `sync_runs`; its metadata has the same."""
    traffic = report.traffic
    return {
        **report.counts.as_dict(),
        **{str(s): report.outcomes.get(s, 0) for s in Status if s not in (Status.UNCHANGED, Status.INVALID)},
        "candidates": report.candidates,
        "rejected_share": round(report.rejected_share, 6),
        "seconds_query": round(sum(version.seconds for version in plan.versions), 3),
        "seconds_plan": round(plan.seconds, 3),
        "seconds_write": round(report.write_seconds, 3),
        "seconds_record": round(report.record_seconds, 3),
        "requests": traffic.requests,
        "retries": traffic.retries,
        "throttled": traffic.throttled,
        "errors": sum(traffic.errors.values()),
        "bytes_sent": traffic.bytes,
        "latency_p50_ms": traffic.percentile_ms(0.5),
        "latency_p95_ms": traffic.percentile_ms(0.95),
    }


def log_run(sync: SyncSpec, home: Home, plan: Plan, report: RunReport, ended: float) -> None:
    """Store the row of a run that was planned."""
    row = {
        **_names(sync, plan.account, plan.run_id),
        "started": plan.started,
        "ended": ended,
        "model_version": plan.versions[-1].name if plan.versions else "",
        "outcome": "failed" if report.failures else "succeeded",
        "reason": " ".join(report.failures),
        **run_numbers(plan, report),
        "notes": "\n".join(dict.fromkeys((*plan.notes, *report.notes))),
    }
    write_run(home, plan.run_id, row, amended=report.amended)


def log_failed_plan(sync: SyncSpec, ctx: RunContext, account: str, started: float, error: BaseException) -> None:
    """Store the row of a run that ended in its plan, and so sent nothing."""
    # What is no error of ours may quote anything.
    reason = str(error) if isinstance(error, IntegrationsError) else f"The plan ended with {type(error).__name__}."
    _log_unplanned(sync, ctx, Home.of(ctx.storage, sync.name, account), account, started, failures=(reason,))


def log_confirmed(sync: SyncSpec, ctx: RunContext, home: Home, account: str, started: float, rows: int) -> None:
    """Store the row under which the log has what a person confirmed: it is no run, and counts no rows."""
    note = f"A person confirmed that {rows:,} row(s) in doubt are at the destination."
    _log_unplanned(sync, ctx, home, account, started, notes=(note,))


def _log_unplanned(
    sync: SyncSpec,
    ctx: RunContext,
    home: Home,
    account: str,
    started: float,
    *,
    failures: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> None:
    ended = ctx.ledger.now()
    plan = Plan(ctx.run_id, account, 0, Counts(), (), (), ended - started, notes, started=started)
    log_run(sync, home, plan, RunReport(Counts(), {}, Traffic(), (), (), failures, 0.0, 0.0), ended)


def begin_run(home: Home, run_id: str, started: float) -> None:
    """Leave word that a run has taken the sync, before it has anything to tell: if it dies, the next plan finds it.

    Args:
        started: Seconds since the epoch.
    """
    folder = home.log_folder(run_id)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{BEGAN}"
    draft.write_text(json.dumps({"run_id": run_id, "started": started}), "utf-8")
    draft.replace(folder / BEGAN)


def log_dead_runs(sync: SyncSpec, ctx: RunContext, home: Home, account: str) -> None:
    """Store the rows of runs that left no account of themselves. Called under the lease, after the fold.

    These are the runs whose plan is there, and those whose folder of the log has no row: a run may die before its plan
    is made, and after it has found out what became of rows in doubt, which the log then has.
    """
    log = home.folder / "log"
    for name in sorted({folder.name for folder in (*home.plan_folders(), *log.glob("*"))}):
        if name == slug(ctx.run_id) or (log / name / RUN).exists():
            continue
        # The account of a dead run must not stop a living one.
        with contextlib.suppress(*_UNREADABLE):
            try:
                plan, report = _planned(sync, ctx, home, name)
            except _UNREADABLE:
                plan, report = _remains(sync, ctx, home, account, name)
            log_run(sync, home, plan, report, ctx.ledger.now())


def _planned(sync: SyncSpec, ctx: RunContext, home: Home, name: str) -> tuple[Plan, RunReport]:
    """The plan of a dead run, and its account."""
    folder = home.folder / "plans" / name
    plan = Plan.from_dict(json.loads((folder / PLAN).read_text("utf-8")))
    # It may have died between the two files of its account.
    report = read_report(home, plan.run_id)
    if report is None:
        # The storage folder may be somewhere else by now.
        here = (replace(shard, path=str(folder / Path(shard.path).name)) for shard in plan.shards)
        plan = replace(plan, shards=tuple(here))
        superseded = ctx.ledger.superseded_traffic(state_key(sync, plan.account), plan.run_id)
        report = make_report(sync, home, plan, (), superseded, time.monotonic())
        report = replace(report, failures=(DIED, *report.failures))
    return plan, report


def _remains(sync: SyncSpec, ctx: RunContext, home: Home, account: str, name: str) -> tuple[Plan, RunReport]:
    """What the log alone tells of a run without a plan that can be read: when it began, and the rows it has."""
    folder = home.folder / "log" / name
    began = json.loads((folder / BEGAN).read_text("utf-8")) if (folder / BEGAN).exists() else {}
    run_id, started = name, ctx.ledger.now()
    tally = "SELECT change, status, count(*) FROM {} GROUP BY ALL"
    with connect(folder) as connection:
        attach_outcomes(connection, home, name)
        told = connection.execute(tally.format("final WHERE shard >= 0")).fetchall()
        if (folder / SETTLED).exists():
            told += connection.execute(tally.format("read_parquet($file)"), {"file": str(folder / SETTLED)}).fetchall()
        amended = bool(scalar(connection, "SELECT count(*) FROM repeated"))
        traffic = [json.loads(text) for (text,) in connection.execute("SELECT traffic FROM sent").fetchall()]
        if rows := [str(path) for path in folder.glob("rows-*.parquet")]:
            first = "SELECT any_value(run_id), min(closed) FROM read_parquet($files, union_by_name = true)"
            run_id, started = connection.execute(first, {"files": rows}).fetchall()[0]
    run_id, started = began.get("run_id", run_id), began.get("started", started)
    counts, outcomes = Counts(), dict.fromkeys(Status, 0)
    for change, status, count in told:
        outcomes[Status(status)] += count
        part = status if status in (Status.INVALID, Status.UNCHANGED) else change
        setattr(counts, part, getattr(counts, part) + count)
    counts.queried = counts.added + counts.changed + counts.unchanged + counts.invalid
    superseded = ctx.ledger.superseded_traffic(state_key(sync, account), run_id)
    report = RunReport(
        counts=counts,
        outcomes=outcomes,
        traffic=Traffic.total([*filter(None, traffic), *superseded]),
        bad_rows=(),
        reasons=(),
        failures=(DIED if began else UNKNOWN_END,),
        write_seconds=0.0,
        record_seconds=0.0,
        candidates=sum(outcomes.values()) - outcomes[Status.INVALID],
        amended=amended,
    )
    return Plan(run_id, account, 0, counts, (), (), 0.0, started=started), report


def _names(sync: SyncSpec, account: str, run_id: str) -> Mapping[str, str]:
    destination = sync.destination
    return {
        "sync": sync.name,
        "account": account,
        "run_id": run_id,
        "target": destination.target.name,
        "destination": f"{destination.name} ({destination.kind})",
        "object": sync.object,
        "mode": str(sync.mode),
        "model": sync.model.name,
    }


def prune_log(home: Home, days: float, now: float) -> int:
    """Delete the log of runs whose last file is more than `days` old. A run goes whole, or stays whole.

    Args:
        now: Seconds since the epoch.

    Returns:
        Runs whose log was deleted.
    """
    log, dropped = home.folder / "log", home.folder / "dropped-log"
    deleted = 0
    for folder in log.glob("*"):
        try:
            newest = max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if now - newest > days * 86_400:
            dropped.mkdir(exist_ok=True)
            # One rename: a run of which only some rows are left would be counted wrongly.
            with contextlib.suppress(FileNotFoundError):
                folder.rename(dropped / folder.name)
                deleted += 1
    shutil.rmtree(dropped, ignore_errors=True)
    return deleted
