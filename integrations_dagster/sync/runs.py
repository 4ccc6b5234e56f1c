"""The row that each run leaves in `sync_runs`: of runs that were recorded, that failed in plan, and that died."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import duckdb

from integrations_dagster.planner.log import RUN, write_run
from integrations_dagster.planner.state import PLAN, Home, slug
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.report import make_report, read_report
from integrations_dagster.sync.results import Plan, RunReport
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.state import state_key
from integrations_dagster.vocabulary import Counts, IntegrationsError, Status, Traffic

DIED = "The run ended before it was recorded. What was acknowledged is; the next run delivers the rest."


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
    plan = Plan(ctx.run_id, account, 0, Counts(), (), (), ctx.ledger.now() - started, started=started)
    report = RunReport(Counts(), {}, Traffic(), (), (), (reason,), 0.0, 0.0)
    log_run(sync, Home.of(ctx.storage, sync.name, account), plan, report, ctx.ledger.now())


def log_dead_runs(sync: SyncSpec, ctx: RunContext, home: Home) -> None:
    """Store the rows of runs that left a plan and no account of themselves. Called under the lease, after the fold."""
    for folder in home.plan_folders():
        if folder.name == slug(ctx.run_id):
            continue
        # The account of a dead run must not stop a living one.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, duckdb.Error):
            plan = Plan.from_dict(json.loads((folder / PLAN).read_text("utf-8")))
            if (home.log_folder(plan.run_id) / RUN).exists():
                continue
            # It may have died between the two files of its account.
            report = read_report(home, plan.run_id)
            if report is None:
                superseded = ctx.ledger.superseded_traffic(state_key(sync, plan.account), plan.run_id)
                report = make_report(sync, home, plan, (), superseded, time.monotonic())
                report = replace(report, failures=(DIED, *report.failures))
            log_run(sync, home, plan, report, ctx.ledger.now())


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
