"""The account of a run, from the sync log and the outcome files; kept as `report.json` beside the log."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from integrations_dagster.planner.fold import outcome_files
from integrations_dagster.planner.model import scalar
from integrations_dagster.planner.state import Home, connect, literal
from integrations_dagster.sync.results import BadRow, Plan, RunReport, WriteSummary
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.vocabulary import SUCCEEDED, Change, Counts, Status, Traffic

BAD_ROWS = 100
"""Rows that the account names."""
REPORT = "report.json"
MISCOUNTED = (
    "The counts of this run do not add up, which is a fault of this package: please report it. What was delivered is "
    "recorded row by row, and the next run goes on from there."
)


def make_report(
    sync: SyncSpec,
    home: Home,
    plan: Plan,
    parts: Sequence[WriteSummary],
    superseded: Sequence[Mapping[str, Any]],
    started: float,
) -> RunReport:
    """Make the account of a run whose batches have been folded and whose plan folder is still there.

    Args:
        superseded: Traffic of the run's batches that had no effect and so are in no log.
        started: `time.monotonic()` at the start of `record`.
    """
    with connect(home.plan_folder(plan.run_id)) as connection:
        attach_outcomes(connection, home, plan.run_id)
        tally = {
            (change, status): count
            for change, status, count in connection.execute(
                "SELECT change, status, count(*) FROM final GROUP BY ALL"
            ).fetchall()
        }
        bad = connection.execute(
            """SELECT key, status, code, reason FROM (
                SELECT key, status, code, reason FROM troubled
                UNION ALL BY NAME SELECT key, status, code, reason FROM planned
            ) WHERE list_contains($order, status) ORDER BY list_position($order, status), key LIMIT $most""",
            {"order": ["rejected", "in_doubt", "unsent", "invalid"], "most": BAD_ROWS},
        ).fetchall()
        again, rejected_again = _tried_again(connection, plan)
        twice = _twice(connection)
        unsent = connection.execute(
            """SELECT any_value(reason), count(*) AS n FROM troubled WHERE status = 'unsent' AND reason <> ''
            GROUP BY coalesce(nullif(code, ''), reason) ORDER BY n DESC, 1 LIMIT 3"""
        ).fetchall()
        reasons = connection.execute(
            # Reasons with one code may each name their own row's value: then the code leads, and one is the example.
            """SELECT CASE WHEN count(DISTINCT reason) > 1 THEN any_value(code) || ', for example: ' || min(reason)
                ELSE any_value(reason) END, count(*) AS n FROM troubled WHERE status = 'rejected'
            GROUP BY coalesce(nullif(code, ''), reason) ORDER BY n DESC, 1 LIMIT 10"""
        ).fetchall()
        amended = bool(scalar(connection, "SELECT count(*) FROM repeated"))
        texts = [text for (text,) in connection.execute("SELECT traffic FROM sent").fetchall()]
    # Read as one text, which takes half the time.
    sent = json.loads(f"[{','.join(texts)}]")
    # A batch that was given up because its writer died has told no traffic.
    traffic = Traffic.total([*filter(None, sent), *superseded])
    counts, outcomes = _settle(plan, tally)
    candidates = sum(shard.candidates for shard in plan.shards)
    fresh = candidates - again
    share = (outcomes[Status.REJECTED] - rejected_again) / fresh if fresh else 0.0
    wrong = discrepancies(counts, outcomes, candidates)
    if twice:
        wrong += (f"{twice:,} rows have several outcomes",)
    return RunReport(
        counts=counts,
        outcomes=outcomes,
        traffic=traffic,
        bad_rows=tuple(BadRow(key or "(null)", Status(status), code, reason) for key, status, code, reason in bad),
        reasons=tuple((reason, count) for reason, count in reasons),
        failures=(
            *_failures(sync, candidates, parts, outcomes, unsent, share),
            *(f"{MISCOUNTED} {'; '.join(wrong)}." for _ in wrong[:1]),
        ),
        write_seconds=max((part.seconds for part in parts), default=0.0),
        record_seconds=time.monotonic() - started,
        notes=plan.notes,
        candidates=candidates,
        rejected_share=share,
        amended=amended,
    )


def discrepancies(counts: Counts, outcomes: Mapping[Status, int], candidates: int) -> tuple[str, ...]:
    """What does not add up in the account of a run; nothing, unless this package has a fault.

    Args:
        counts: The final counts.
        outcomes: Candidates by outcome.
        candidates: Rows that the write ops were given.
    """
    found = []
    if not counts.adds_up():
        found.append(f"the queried rows are not the sum of their parts ({counts.as_dict()})")
    if min([*counts.as_dict().values(), *outcomes.values()], default=0) < 0:
        found.append(f"a count is negative ({counts.as_dict()}, {dict(outcomes)})")
    if sum(outcomes.values()) != candidates:
        found.append(f"{candidates:,} candidates have {sum(outcomes.values()):,} outcomes")
    sent = candidates - outcomes.get(Status.UNCHANGED, 0) - outcomes.get(Status.INVALID, 0)
    if sent != counts.added + counts.changed + counts.removed:
        found.append(
            f"{sent:,} candidates were neither unchanged nor invalid, and {counts.added + counts.changed:,} added and "
            f"changed and {counts.removed:,} removed rows are counted"
        )
    return tuple(found)


def _twice(connection: duckdb.DuckDBPyConnection) -> int:
    """Keys that have several outcomes, which none should."""
    kept = f"FROM final WHERE change <> '{Change.REMOVED}'"
    # Where there are as many hashes as rows, no key is there twice.
    if not scalar(connection, f"SELECT count(*) - count(DISTINCT hash(key)) {kept}"):
        return 0
    return scalar(connection, f"SELECT count(*) FROM (SELECT key {kept} GROUP BY key HAVING count(*) > 1)")


def _tried_again(connection: duckdb.DuckDBPyConnection, plan: Plan) -> tuple[int, int]:
    """How many candidates were rejected before and have not changed since, and how many of them were rejected again."""
    again = rejected = 0
    for shard in plan.shards:
        rows = f"read_parquet({literal(shard.path)}, file_row_number = true)"
        source = f"SELECT file_row_number AS ordinal FROM {rows} WHERE again"
        row = connection.execute(
            f"""SELECT count(*), count(f.ordinal) FROM ({source}) a
            LEFT JOIN troubled f ON f.shard = ? AND f.ordinal = a.ordinal AND f.status = 'rejected'""",
            [shard.index],
        ).fetchone()
        assert row is not None
        again, rejected = again + row[0], rejected + row[1]
    return again, rejected


def attach_outcomes(connection: duckdb.DuckDBPyConnection, home: Home, run_id: str) -> None:
    """Make what `make_report` reads.

    Views: `final` (each candidate that has an outcome, with its last), `planned` (rows the plan found invalid), `sent`
    (batches). Table: `troubled` (those of `final` that did not succeed), because they are looked at several times.
    """
    log, folder = home.log_folder(run_id), home.plan_folder(run_id)
    rows = sorted(log.glob("rows-*.parquet"))
    batches = sorted(log.glob("batches-*.parquet"))
    outcomes = [path for path in outcome_files(folder) if "-plan-" not in path.name]
    planned = [path for path in outcome_files(folder) if "-plan-" in path.name]

    def view(name: str, paths: list[Path], columns: str, otherwise: str) -> None:
        files = ", ".join(literal(str(path)) for path in paths)
        source = f"SELECT {columns} FROM read_parquet([{files}])" if paths else f"SELECT {otherwise} WHERE false"
        connection.execute(f"CREATE TEMP VIEW {name} AS {source}")

    nothing = "0 AS ordinal, '' AS key, '' AS change, '' AS status, '' AS code, '' AS reason"
    view(
        "told",
        rows,
        "shard, ordinal, number, key, change, outcome AS status, code, reason, late, effect, reference",
        f"0 AS shard, 0 AS number, {nothing}, false AS late, '' AS effect, '' AS reference",
    )
    view("settled", outcomes, "ordinal, key, change, status, code, reason", nothing)
    view("planned", planned, "key, change, status, code, reason", nothing)
    view("sent", batches, "traffic", "'' AS traffic")
    connection.execute(
        # A late answer counts where the row is in doubt in this run; those to requests of earlier runs are not its own.
        f"""CREATE TEMP TABLE resolved AS
        SELECT d.shard, d.ordinal, l.number, l.key, l.change, l.status, l.code, l.reason
        FROM told l JOIN told d ON d.key = l.key AND d.reference = l.reference AND NOT d.late AND d.effect = 'in_doubt'
        WHERE l.late AND l.effect IN ('write', 'delete', 'rejected', 'absent');
        CREATE TEMP VIEW answered AS
        SELECT shard, ordinal, number, key, change, status, code, reason FROM told WHERE NOT late AND shard >= 0
        UNION ALL BY NAME SELECT * FROM resolved;
        CREATE TEMP TABLE repeated AS
        SELECT shard, ordinal FROM answered GROUP BY shard, ordinal HAVING count(*) > 1;
        CREATE TEMP VIEW final AS
        SELECT a.* EXCLUDE (number) FROM answered a
        ANTI JOIN repeated r ON r.shard = a.shard AND r.ordinal = a.ordinal
        UNION ALL BY NAME
        SELECT * EXCLUDE (number) FROM (
            SELECT a.* FROM answered a SEMI JOIN repeated r ON r.shard = a.shard AND r.ordinal = a.ordinal
            QUALIFY row_number() OVER (PARTITION BY a.shard, a.ordinal ORDER BY a.number DESC) = 1
        )
        UNION ALL BY NAME SELECT -1 AS shard, ordinal, key, change, status, code, reason FROM settled;
        CREATE TEMP TABLE troubled AS
        SELECT * FROM final WHERE status NOT IN ({", ".join(f"'{status}'" for status in sorted(SUCCEEDED))})"""
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
    sync: SyncSpec,
    candidates: int,
    parts: Sequence[WriteSummary],
    outcomes: dict[Status, int],
    reasons: Sequence[tuple[str, int]],
    share: float,
) -> tuple[str, ...]:
    failures = list(dict.fromkeys(part.stopped for part in parts if part.stopped))
    if unsent := outcomes[Status.UNSENT]:
        why = "" if failures else "".join(f" {reason} ({count:,} rows)" for reason, count in reasons)
        # The ledger keeps of a batch without an answer that there was none.
        silent = next((part.silent for part in parts if part.silent and not failures and part.silent not in why), "")
        why += f" The first: {silent}" if silent else ""
        # What stopped the shards may have said so already.
        calm = "" if "Nothing is lost" in " ".join((*failures, why)) else " Nothing is lost: a new run delivers them."
        failures.append(f"{unsent:,} of {candidates:,} rows were not delivered.{why}{calm}")
    limit = sync.fail_rejected_above
    if limit is not None and share > limit:
        failures.append(
            f"{outcomes[Status.REJECTED]:,} of {candidates:,} rows were rejected; of the rows that were new or had "
            f"changed {share:.1%}, more than fail_when allows ({limit:.1%}). They are held and tried again by the next "
            "run."
        )
    return tuple(failures)


def write_report(home: Home, run_id: str, report: RunReport) -> None:
    """Keep the account; the file appears whole."""
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
        "rejected_share": report.rejected_share,
        "amended": report.amended,
    }
    path = home.log_folder(run_id) / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(data), "utf-8")
    draft.replace(path)


def read_report(home: Home, run_id: str) -> RunReport | None:
    """The account of a run that has been recorded; None before."""
    path = home.log_folder(run_id) / REPORT
    if not path.exists():
        return None
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
        rejected_share=data["rejected_share"],
        amended=data["amended"],
    )
