"""Cursors: how far a sync has come in a model that is too large to query whole.

The query of such a model is bound `$cursor`, and returns the rows from there on. The cursor of a sync is part of its
state, and is moved by `record` alone, once every row of the version is accounted for; it never passes a row that is not
settled: one that was rejected and waits, is in doubt, was not sent, or is invalid because of another row or of a lookup
that found nothing. So the next query returns such a row again, and a run that dies moves nothing.

A model has one query for all its syncs, which begins where the slowest of them is. Each sync leaves a note of its
cursor beside the model's versions. The note is a hint: a version that begins behind the cursor of a sync is delivered,
and does not move it, and the next query begins where it must.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from integrations_dagster.planner.diff import Diff
from integrations_dagster.planner.state import Home, Manifest, literal, slug
from integrations_dagster.sync.report import attach_outcomes
from integrations_dagster.sync.results import CursorRange, ModelVersion, Plan
from integrations_dagster.sync.spec import CursorSpec, ModelSpec, SyncSpec
from integrations_dagster.vocabulary import Misconfigured, Status

FOLDER = ".cursors"
SETTLED = (Status.CREATED, Status.UPDATED, Status.DELETED, Status.UNCHANGED, Status.INVALID)
"""Outcomes that the cursor passes. A row that is invalid by itself is judged anew when it changes, and then its cursor
column has changed too. One that is invalid for what a lookup did not find is not: that may be there tomorrow."""
MARKS = 24
"""Marks that divide a dedupe window: a key is remembered for up to a 24th of the window longer than that."""
_MOMENTS = ("TIMESTAMP", "DATE")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A value of the cursor column as DuckDB's text, and DuckDB's type of the column."""

    value: str
    type: str


def _hint(storage: Path, model: str, sync: str, target: str) -> Path:
    return storage / "models" / model / FOLDER / f"{slug(sync)}@{slug(target)}.json"


def leave_hint(sync: SyncSpec, storage: Path, manifest: Manifest) -> None:
    """Note beside the model's versions how far the sync has come."""
    if sync.model.cursor is None:
        return
    path = _hint(storage, sync.model.name, sync.name, sync.destination.target.name)
    if not manifest.cursor:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps({"value": manifest.cursor, "type": manifest.cursor_type}), "utf-8")
    draft.replace(path)


def start_of(model: ModelSpec, storage: Path) -> str | None:
    """What `$cursor` is bound to: where the slowest sync of the model is, less the lookback; None for all rows.

    Raises:
        Misconfigured: A lookback is set, and the column is neither a time nor a number.
    """
    spec = model.cursor
    if spec is None or not model.readers:
        return None
    found: list[Cursor] = []
    for sync, target in model.readers:
        path = _hint(storage, model.name, sync, target)
        if not path.exists():
            return None
        found.append(Cursor(**json.loads(path.read_text("utf-8"))))
    kinds = {cursor.type for cursor in found}
    if len(kinds) > 1:
        return None  # the column has another type now: compare all rows once
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        values = ", ".join(f"CAST({literal(cursor.value)} AS {found[0].type})" for cursor in found)
        row = connection.execute(f"SELECT {_back(f'least({values})', found[0].type, spec, model)}").fetchone()
    assert row is not None
    return str(row[0])


def _back(value: str, kind: str, spec: CursorSpec, model: ModelSpec) -> str:
    """SQL: a value less the lookback, as text."""
    if not spec.lookback:
        return f"CAST({value} AS VARCHAR)"
    if kind.startswith(_MOMENTS):
        # Of a date, hours are rounded to the day before.
        return f"CAST(CAST({value} - to_microseconds({round(spec.lookback * 1e6)}) AS {kind}) AS VARCHAR)"
    if kind.endswith(("INT", "INTEGER")):
        back = f"CAST({value} AS HUGEINT) - {math.ceil(spec.lookback)}"
        # Types without a sign begin at zero.
        return f"CAST({f'greatest({back}, 0)' if kind.startswith('U') else back} AS VARCHAR)"
    if kind.startswith(("DECIMAL", "DOUBLE", "FLOAT")):
        return f"CAST(CAST({value} - {spec.lookback} AS {kind}) AS VARCHAR)"
    raise Misconfigured(
        f"Model {model.name!r}: its cursor {spec.column!r} has the type {kind}, from which no lookback can be taken.",
        "Leave `lookback` out, or use a column of times or numbers.",
    )


def begins_in_time(version: ModelVersion, manifest: Manifest) -> bool:
    """Whether a version holds every row from the sync's cursor on."""
    if version.cursor is None:
        return True
    if not manifest.cursor:
        return False
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        row = connection.execute(
            f"SELECT TRY_CAST(? AS {manifest.cursor_type}) <= TRY_CAST(? AS {manifest.cursor_type})",
            [version.cursor, manifest.cursor],
        ).fetchone()
    return row is not None and row[0] is True


def after_run(sync: SyncSpec, home: Home, plan: Plan, now: float) -> Manifest:
    """The state with the cursor moved as far as a run's rows are settled.

    Called once the run has been folded, while its plan folder is there.
    """
    manifest = home.manifest()
    if sync.model.cursor is None and sync.dedupe_window is None:
        return manifest
    cursor, kind = manifest.cursor, manifest.cursor_type
    newest = manifest.newest
    if sync.model.cursor is not None and plan.cursor is not None:
        kind = plan.cursor.type
        cursor = _reached(home, plan, plan.cursor.to) if plan.cursor.moves else cursor
        newest = _greatest(manifest.newest, plan.cursor.to, kind)
    marks = list(manifest.marks)
    if sync.dedupe_window is not None:
        past = [mark for mark in marks if mark[0] < now - sync.dedupe_window]
        # Of the marks that are older than the window, the last says all.
        marks = marks[len(past) - 1 :] if past else marks
        if not marks or now - marks[-1][0] >= sync.dedupe_window / MARKS:
            marks.append([now, manifest.last_number, newest])
    passed = _greatest(manifest.passed, cursor, kind) if kind else ""
    return replace(manifest, cursor=cursor, passed=passed, cursor_type=kind, newest=newest, marks=marks)


def _greatest(one: str, other: str, kind: str) -> str:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        row = connection.execute(
            f"""SELECT coalesce(CAST(greatest(TRY_CAST(nullif(?, '') AS {kind}), TRY_CAST(nullif(?, '') AS {kind}))
            AS VARCHAR), '')""",
            [one, other],
        ).fetchone()
    assert row is not None
    return str(row[0])


def _reached(home: Home, plan: Plan, to: str) -> str:
    """The least cursor value of a row that is not settled, else the greatest of the version; "" for an empty one."""
    pending = home.plan_folder(plan.run_id) / "pending.parquet"
    if not pending.exists():
        return to or home.manifest().cursor
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        attach_outcomes(connection, home, plan.run_id)
        settled = ", ".join(f"'{status}'" for status in SETTLED)
        row = connection.execute(
            f"""SELECT CAST(min(p.cursor) AS VARCHAR) FROM read_parquet({literal(str(pending))}) p
            ANTI JOIN (SELECT key, status FROM final WHERE status IN ({settled})) f
                ON f.key = p.key AND NOT (p.unfound AND f.status = '{Status.INVALID}')"""  # noqa: S608 (constants, and a quoted path)
        ).fetchone()
    least = row[0] if row else None
    return str(least) if least is not None else to or home.manifest().cursor


def range_of(result: Diff, manifest: Manifest, versions: tuple[ModelVersion, ...]) -> CursorRange | None:
    """What a plan found out about the cursor, for `record`."""
    if result.cursor is None:
        return None
    kind, to = result.cursor
    return CursorRange(kind, to, begins_in_time(versions[0], manifest))


def cursor_notes(sync: SyncSpec, manifest: Manifest, versions: tuple[ModelVersion, ...]) -> Iterator[str]:
    """Sentences on what a cursor leaves out."""
    if sync.model.cursor is None:
        return
    start = versions[0].cursor
    if start is not None:
        yield f"The model was queried from {sync.model.cursor.column} {start} on."
    if not begins_in_time(versions[0], manifest):
        yield "This sync needs older rows too: the next query returns all that it needs."


def mark_before(sync: SyncSpec, manifest: Manifest, now: float) -> tuple[float, int, str]:
    """The last mark that is older than the dedupe window: when, the last batch number then, the newest cursor value."""
    if sync.dedupe_window is None:
        return (0.0, 0, "")
    past = [mark for mark in manifest.marks if mark[0] < now - sync.dedupe_window]
    return (float(past[-1][0]), int(past[-1][1]), str(past[-1][2])) if past else (0.0, 0, "")
