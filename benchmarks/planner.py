"""What a plan costs beside a bare script that finds the same differences.

    python -m benchmarks.planner [--rows 1000000] [--columns 7] [--key integer text] [--changed 0 0.01 1] [--rounds 3]

In one run, by turns and on the same files: the plan of a sync whose match value is the primary key, and of one whose
match value is an email, so that double ones are looked for; a DuckDB script that digests every row (128 bits) and
joins the digests of before; up to a million rows, the same with pandas.merge. Each is a process of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.processes import (
    Server,
    cpu_seconds,
    end_on_sigterm,
    in_processes,
    peak_memory,
    serving,
    temporary,
    this_process,
)
from benchmarks.setting import Setting
from integrations_dagster.ledger.leases import Lease
from integrations_dagster.planner.state import Home, Manifest, connect, literal, quote
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.query import run_query
from integrations_dagster.sync.record import record
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, ModelSpec, SyncSpec, TargetSpec
from integrations_dagster.sync.state import drop_plans, state_key
from integrations_dagster.sync.versions import newest_version

MATCHED_BY_KEY, MATCHED_BY_EMAIL = "match value is the key", "match value is an email"
BARE, PANDAS = "bare DuckDB script", "pandas.merge"
BUDGETS = {MATCHED_BY_KEY: 1.25, MATCHED_BY_EMAIL: 1.75}
PANDAS_ROWS = 1_000_000
"""Rows above which pandas is left out: it holds all of them, and what it makes of them, in memory."""
KEYS = {"integer": ("id",), "text": ("region", "code")}
_KEY_SQL = {
    "integer": "i::INTEGER AS id, 'Last ' || i AS lastname",
    "text": "['north', 'south', 'east', 'west'][i % 4 + 1] AS region, 'C-' || lpad(i::VARCHAR, 9, '0') AS code",
}
_FURTHER = ("'Text ' || (i * {n} % 9973)", "(i * {n} % 1000003)::INTEGER", "(i * {n} % 100000 / 100)::DECIMAL(12, 2)")
"""The columns after the first ones, by turns; {n} is the number of the column."""


@dataclass(frozen=True)
class Case:
    """What is planned.

    Attributes:
        rows: Rows of the model.
        columns: Its columns, 7 or more.
        key: "integer", or "text": two columns.
    """

    rows: int
    columns: int
    key: str

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.columns} columns, key {', '.join(self.primary_key)}"

    @property
    def primary_key(self) -> tuple[str, ...]:
        return KEYS[self.key]

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns beside the primary key and the email."""
        last = ("lastname",) if self.key == "integer" else ()
        further = (f"c{n}" for n in range(8, self.columns + 1))
        return ("firstname", *last, "jobtitle", "lifetime_value", "last_order", *further)

    def sql(self, changed: float) -> str:
        """The model's query, with a share of the rows, everywhere among them, other than with a share of 0."""
        title = f"'Title v' || (i % 1000 < {round(changed * 1000)})::INTEGER AS jobtitle"
        further = (f"{_FURTHER[n % len(_FURTHER)].format(n=n)} AS c{n}" for n in range(8, self.columns + 1))
        columns = [
            _KEY_SQL[self.key],
            "'c' || i || '@example.com' AS email",
            "'First ' || i AS firstname",
            title,
            "(i % 100000 / 100)::DECIMAL(12, 2) AS lifetime_value",
            "DATE '2026-01-01' + (i % 200)::INTEGER AS last_order",
            *further,
        ]
        return f"SELECT {', '.join(columns)} FROM range({self.rows}) t(i)"

    def differing(self, changed: float) -> int:
        """Rows that differ at such a share."""
        whole, rest = divmod(self.rows, 1000)
        limit = round(changed * 1000)
        return whole * limit + min(rest, limit)


@dataclass(frozen=True)
class Place:
    """Where a case is measured; small enough to hand to processes."""

    setting: Setting
    case: Case

    @property
    def model(self) -> ModelSpec:
        return replace(self.setting.model, primary_key=self.case.primary_key)

    @property
    def script_state(self) -> str:
        """The script's file: key and digest of each row before the change."""
        return str(Path(self.setting.folder) / "script.parquet")

    def sync(self, name: str) -> SyncSpec:
        """A sync of all rows by the key (to a webhook) or by email (to HubSpot contacts)."""
        by_email = replace(
            self.setting.sync("by-email"),
            model=self.model,
            fields=tuple(FieldSpec(column, column) for column in self.case.fields),
        )
        if name == MATCHED_BY_EMAIL:
            return by_email
        url = f"http://127.0.0.1:{self.setting.port}/"
        return replace(
            by_email,
            name="by-key",
            destination=DestinationSpec("hook", "webhook", TargetSpec("prod", base_url=url)),
            match={},
            fields=(FieldSpec("email", "email"), *by_email.fields),
        )

    def files(self) -> list[str]:
        """The model's newest version."""
        version = newest_version(self.setting.storage, self.model.name)
        assert version is not None
        return [str(path) for path in sorted(Path(version.path).glob("part-*.parquet"))]

    def query(self, changed: float) -> None:
        """Materialize the model with so many rows changed."""
        assert self.model.sql_path is not None
        self.model.sql_path.write_text(self.case.sql(changed), "utf-8")
        run_query(self.model, self.setting.storage, f"query-{uuid.uuid4().hex[:8]}")


@dataclass(frozen=True)
class Measured:
    """What one process found, and what it cost.

    Attributes:
        differing: Rows that differ.
        seconds: Wall time, imports excluded.
        cpu: CPU seconds, likewise.
        memory: Peak resident memory of the process in MB.
        after: Seconds of `record`, where nothing was to be sent; else 0.
    """

    differing: int
    seconds: float
    cpu: float
    memory: float
    after: float = 0.0


# What is measured: each is called in a process of its own.


def planned(place: Place, name: str) -> Measured:
    """Plan a run, which ends there, or is recorded if it has nothing to send."""
    sync = place.sync(name)
    with place.setting.context(f"run-{uuid.uuid4().hex[:12]}", this_process()) as ctx:
        before, started = cpu_seconds(), time.monotonic()
        made = plan(sync, ctx)
        seconds, cpu, memory = time.monotonic() - started, cpu_seconds() - before, peak_memory()
        counts = made.counts
        if counts.queried != place.case.rows or counts.added or counts.removed:
            raise RuntimeError(f"The plan of {place.case} found {counts}.")
        after = 0.0
        if made.shards:
            ctx.ledger.release(Lease(state_key(sync, made.account), made.run_id, made.fence))
            drop_plans(Home.of(ctx.storage, sync.name, made.account))
        else:
            started = time.monotonic()
            record(sync, ctx, made, [])
            after = time.monotonic() - started
    return Measured(counts.changed, seconds, cpu, memory, after)


def bare(place: Place, threads: int) -> Measured:
    """Digest and join, and write the differing keys to a file."""
    before, started = cpu_seconds(), time.monotonic()
    found = Path(place.setting.folder) / "found.parquet"
    with _script(place, threads) as connection:
        connection.execute(
            f"""COPY (
            SELECT coalesce(m.key, s.key) AS key,
                CASE WHEN s.key IS NULL THEN 'added' WHEN m.key IS NULL THEN 'removed' ELSE 'changed' END AS change
            FROM ({_script_digests(place)}) m FULL JOIN read_parquet({literal(place.script_state)}) s ON s.key = m.key
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
    rows = pd.concat([pd.read_parquet(path) for path in place.files()], ignore_index=True)
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


def _script(place: Place, threads: int) -> duckdb.DuckDBPyConnection:
    # With the settings of a plan.
    connection = connect(Path(place.setting.folder))
    connection.execute(f"SET threads = {threads}")
    return connection


def _script_digests(place: Place) -> str:
    case = place.case
    texts = [f"coalesce(CAST({quote(column)} AS VARCHAR), '')" for column in (*case.primary_key, "email", *case.fields)]
    key = " || '|' || ".join(f"CAST({quote(column)} AS VARCHAR)" for column in case.primary_key)
    files = ", ".join(map(literal, place.files()))
    return f"SELECT {key} AS key, md5(concat_ws('|', {', '.join(texts)})) AS digest FROM read_parquet([{files}])"


# Before it is measured


def deliver(place: Place, name: str) -> None:
    """Make the state of a sync that has delivered the whole model, as its fold would leave it."""
    sync = place.sync(name)
    with place.setting.context(f"run-{uuid.uuid4().hex[:12]}", this_process()) as ctx:
        made = plan(sync, ctx)
        home = Home.of(ctx.storage, sync.name, made.account)
        shards = ", ".join(literal(shard.path) for shard in made.shards)
        record_id = "CAST(100000000 + row_number() OVER () AS VARCHAR)" if sync.match else "NULL::VARCHAR"
        with connect(home.folder) as connection:
            connection.execute(
                f"""COPY (SELECT key, match, partition, {record_id} AS destination_id, source_digest,
                md5(key) AS payload_digest, CAST(1 + row_number() OVER () // 100 AS BIGINT) AS number
                FROM read_parquet([{shards}])) TO {literal(str(home.folder / "snapshot-1-0.parquet"))}
                (FORMAT parquet, COMPRESSION zstd)"""
            )
        home.swap(Manifest(1, 0, "snapshot-1-0.parquet", rows=place.case.rows, mapping_digest=sync.mapping_digest))
        ctx.ledger.release(Lease(state_key(sync, made.account), made.run_id, made.fence))
        drop_plans(home)


def keep_digests(place: Place, threads: int) -> None:
    """The script's own state."""
    with _script(place, threads) as connection:
        connection.execute(
            f"COPY ({_script_digests(place)}) TO {literal(place.script_state)} (FORMAT parquet, COMPRESSION zstd)"
        )


def measure(place: Place, server: Server, options: argparse.Namespace) -> dict[tuple[float, str], list[Measured]]:
    """Measure a case with each share of changed rows: all rounds of each side."""
    with_pandas = place.case.rows <= PANDAS_ROWS and not options.no_pandas
    threads = os.cpu_count() or 1
    place.query(0.0)
    prepared: list[Any] = [(deliver, (place, name), {}) for name in options.match]
    prepared += [(keep_digests, (place, threads), {}), *([(merged, (place,), {})] if with_pandas else [])]
    for call in prepared:
        in_processes([call])
    sides: list[tuple[str, Any]] = [(name, (planned, (place, name), {})) for name in options.match]
    sides += [(BARE, (bare, (place, threads), {})), *([(PANDAS, (merged, (place,), {}))] if with_pandas else [])]
    results: dict[tuple[float, str], list[Measured]] = {}
    for changed in options.changed:
        place.query(changed)
        for _ in range(options.rounds):
            for name, call in sides:
                server.control(reset=True)
                (found,) = in_processes([call])
                if found.differing != place.case.differing(changed):
                    raise RuntimeError(f"{name} found {found.differing:,} rows of {place.case} that differ.")
                if not changed and (sent := server.control()["requests"]):
                    raise RuntimeError(f"Nothing has changed, and {sent} requests were sent.")
                results.setdefault((changed, name), []).append(found)
        tell(place.case, changed, {name: results[changed, name] for name, _ in sides})
    return results


def tell(case: Case, changed: float, results: Mapping[str, Sequence[Measured]]) -> None:
    """Print the medians."""

    def median(name: str, what: str) -> float:
        return statistics.median(getattr(found, what) for found in results[name])

    print(f"\n{case}, {changed:.0%} changed")
    print(f"{'':28}{'seconds':>9}{'CPU s':>8}{'MB':>7}{'of the script':>16}")
    for name, measured in results.items():
        ratio = statistics.median(m.seconds / b.seconds for m, b in zip(measured, results[BARE], strict=True))
        budget = f"   (budget {BUDGETS[name]})" if name in BUDGETS and changed == 0.01 else ""
        after = f"   record {median(name, 'after'):.2f} s, no request" if name in BUDGETS and not changed else ""
        print(
            f"{name:28}{median(name, 'seconds'):9.2f}{median(name, 'cpu'):8.1f}{median(name, 'memory'):7.0f}"
            f"{ratio:16.2f}{budget}{after}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the model")
    parser.add_argument("--columns", type=int, default=7, help="its columns, at least 7")
    parser.add_argument("--key", nargs="+", choices=list(KEYS), default=list(KEYS), help="type of the primary key")
    parser.add_argument("--changed", nargs="+", type=float, default=[0.0, 0.01, 1.0], help="shares of changed rows")
    parser.add_argument(
        "--match", nargs="+", choices=list(BUDGETS), default=list(BUDGETS), help="which plans are measured"
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; the median counts")
    parser.add_argument("--no-pandas", action="store_true", help=f"leave pandas out, as above {PANDAS_ROWS:,} rows")
    options = parser.parse_args(arguments)
    with serving(latency=0.0) as server:
        for key in options.key:
            with temporary() as folder:
                setting = Setting(folder, server.port)
                duckdb.connect(str(setting.model.warehouse.path)).close()
                measure(Place(setting, Case(options.rows, options.columns, key)), server, options)


if __name__ == "__main__":
    end_on_sigterm()
    main()
