"""What a plan costs beside a bare script that finds the same differences.

    python -m benchmarks.planner [--rows 1000000] [--columns 7] [--key integer text] [--changed 0 0.01 1] [--rounds 3]

In one run, by turns and on the same files: the plan of a sync whose match value is the primary key, and of one whose
match value is an email, so that double ones are looked for; a DuckDB script that digests every row (128 bits) and
joins the digests of before; up to a million rows, the same with pandas.merge. Each is a process of its own.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import duckdb

from benchmarks.plans import (
    MATCHED_BY_EMAIL,
    MATCHED_BY_KEY,
    Case,
    Measured,
    Place,
    by_turns,
    lease_of,
    parser,
    planned,
    write_records,
)
from benchmarks.processes import (
    Call,
    cpu_seconds,
    end_on_sigterm,
    in_processes,
    peak_memory,
    serving,
    temporary,
    this_process,
)
from benchmarks.setting import Setting
from integrations_dagster.planner.state import Home, Manifest, connect, literal, quote
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.state import drop_plans
from integrations_dagster.sync.versions import newest_version

BARE, PANDAS = "bare DuckDB script", "pandas.merge"
BUDGETS = {MATCHED_BY_KEY: 1.25, MATCHED_BY_EMAIL: 1.75}
PANDAS_ROWS = 1_000_000
"""Rows above which pandas is left out: it holds all of them, and what it makes of them, in memory."""


# What is measured, beside `planned`: each is called in a process of its own.


def bare(place: Place, threads: int) -> Measured:
    """Digest and join, and write the differing keys to a file."""
    before, started = cpu_seconds(), time.monotonic()
    found = Path(place.setting.folder) / "found.parquet"
    with _script(place, threads) as connection:
        connection.execute(
            f"""COPY (
            SELECT coalesce(m.key, s.key) AS key,
                CASE WHEN s.key IS NULL THEN 'added' WHEN m.key IS NULL THEN 'removed' ELSE 'changed' END AS change
            FROM ({_script_digests(place)}) m FULL JOIN read_parquet({literal(_script_state(place))}) s ON s.key = m.key
            WHERE m.digest IS DISTINCT FROM s.digest
            ) TO {literal(str(found))} (FORMAT parquet)"""
        )
        seconds, cpu, memory = time.monotonic() - started, cpu_seconds() - before, peak_memory()
        counted = dict(
            connection.execute(
                f"SELECT change, count(*) FROM read_parquet({literal(str(found))}) GROUP BY change"
            ).fetchall()
        )
    found.unlink()
    if set(counted) - {"changed"}:
        raise RuntimeError(f"The script found {counted}.")
    return Measured(counted.get("changed", 0), seconds, cpu, memory)


def merged(place: Place) -> Measured:
    """The same with pandas, whose fastest digest has 64 bits."""
    import pandas as pd

    before, started = cpu_seconds(), time.monotonic()
    key = list(place.case.primary_key)
    rows = pd.concat([pd.read_parquet(path) for path in _files(place)], ignore_index=True)
    digests = rows[key].assign(digest=pd.util.hash_pandas_object(rows, index=False))
    state = Path(place.setting.folder) / "pandas.parquet"
    if not state.exists():  # the first time, before anything changes
        digests.to_parquet(state)
        return Measured(0, 0.0, 0.0, 0.0)
    known = pd.read_parquet(state)
    both = digests.merge(known, on=key, how="outer", suffixes=("", "_known"), indicator="side")
    differing = both[(both["side"] != "both") | (both["digest"] != both["digest_known"])]
    differing[[*key, "side"]].to_parquet(Path(place.setting.folder) / "merged.parquet")
    return Measured(len(differing), time.monotonic() - started, cpu_seconds() - before, peak_memory())


def _files(place: Place) -> list[str]:
    """The model's newest version."""
    version = newest_version(place.setting.storage, place.model.name)
    assert version is not None
    return [str(path) for path in sorted(Path(version.path).glob("part-*.parquet"))]


def _script_state(place: Place) -> str:
    """The script's file: key and digest of each row before the change."""
    return str(Path(place.setting.folder) / "script.parquet")


def _script(place: Place, threads: int) -> duckdb.DuckDBPyConnection:
    # With the settings of a plan.
    connection = connect(Path(place.setting.folder))
    connection.execute(f"SET threads = {threads}")
    return connection


def _script_digests(place: Place) -> str:
    case = place.case
    texts = [f"coalesce(CAST({quote(column)} AS VARCHAR), '')" for column in (*case.primary_key, "email", *case.fields)]
    key = " || '|' || ".join(f"CAST({quote(column)} AS VARCHAR)" for column in case.primary_key)
    files = ", ".join(map(literal, _files(place)))
    return f"SELECT {key} AS key, md5(concat_ws('|', {', '.join(texts)})) AS digest FROM read_parquet([{files}])"


# Before it is measured


def deliver(place: Place, name: str) -> None:
    """Make the state of a sync that has delivered the whole model, as its fold would leave it."""
    sync = place.sync(name)
    with place.setting.context(f"run-{uuid.uuid4().hex[:12]}", this_process()) as ctx:
        made = plan(sync, ctx)
        home = Home.of(ctx.storage, sync.name, made.account)
        path = home.folder / "snapshot-1-0.parquet"
        write_records(made, path, with_ids=bool(sync.match))
        home.swap(Manifest(1, 0, path.name, rows=place.case.rows, mapping_digest=sync.mapping_digest))
        ctx.ledger.release(lease_of(sync, made))
        drop_plans(home)


def keep_digests(place: Place, threads: int) -> None:
    """The script's own state."""
    with _script(place, threads) as connection:
        connection.execute(
            f"COPY ({_script_digests(place)}) TO {literal(_script_state(place))} (FORMAT parquet, COMPRESSION zstd)"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the ratios."""
    known = parser(__doc__, BUDGETS)
    known.add_argument("--no-pandas", action="store_true", help=f"leave pandas out, as above {PANDAS_ROWS:,} rows")
    options = known.parse_args(arguments)
    threads = os.cpu_count() or 1
    with serving(latency=0.0) as server:
        for key in options.key:
            with temporary() as folder:
                setting = Setting(folder, server.port)
                duckdb.connect(str(setting.model.warehouse.path)).close()
                place = Place(setting, Case(options.rows, options.columns, key))
                place.query(0.0)
                prepared: list[Call] = [(deliver, (place, name), {}) for name in options.match]
                prepared.append((keep_digests, (place, threads), {}))
                sides: dict[str, Call] = {name: (planned, (place, name), {}) for name in options.match}
                sides[BARE] = (bare, (place, threads), {})
                if options.rows <= PANDAS_ROWS and not options.no_pandas:
                    sides[PANDAS] = (merged, (place,), {})
                    prepared.append(sides[PANDAS])
                for call in prepared:
                    in_processes([call])
                by_turns(place, server, options, sides, BARE)


if __name__ == "__main__":
    end_on_sigterm()
    main()
