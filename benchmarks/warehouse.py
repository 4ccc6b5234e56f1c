"""What a plan costs whose state is inside PostgreSQL, beside the same difference found by plain SQL in there.

    python -m benchmarks.warehouse [--rows 1000000] [--columns 7] [--key integer text] [--changed 0 0.01 1] [--rounds 3]

In one run, by turns and on the same table of the model: the plan of a sync whose match value is the primary key, and of
one whose match value is an email; and one statement that digests all columns of every row (md5), joins the digests of
before by key, and writes the keys that differ to a table. Each is a process of its own with a connection of its own.

The server is started for the measurement and ends with it. Its settings (`SETTINGS`) hold for both sides: those of a
small server of that purpose, memory for a hash of all rows (`work_mem`, which plans set for themselves too), and
neither autovacuum nor checkpoints while something is timed. All tables are vacuumed and analyzed before.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import psutil
import psycopg2  # type: ignore[import-untyped]

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
    watched,
)
from benchmarks.setting import Setting
from integrations_dagster.planner.state import Manifest, connect, quote
from integrations_dagster.planner.warehouse_home import WarehouseHome, write_changes
from integrations_dagster.sync.homes import home_of
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.state import drop_plans
from integrations_dagster.sync.versions import newest_version
from integrations_dagster.warehouses.postgres import driver
from integrations_dagster.warehouses.postgres_store import WORK_MEMORY
from integrations_dagster.warehouses.store import SCHEMA, rendered
from integrations_dagster_tests.postgres import running_postgres

BARE = "plain SQL"
BUDGETS = {MATCHED_BY_KEY: 1.5, MATCHED_BY_EMAIL: 1.5}
SETTINGS = {
    "shared_buffers": "1GB",
    "work_mem": WORK_MEMORY,
    "maintenance_work_mem": "256MB",
    "effective_cache_size": "3GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}
STATE, FOUND = "public.digests_of_before", "public.found"


# What is measured: each is called in a process of its own.


def planned_there(place: Place, name: str) -> Measured:
    """See `planned`."""
    # Imports do not count.
    driver()
    rendered("SELECT 1", "postgres")
    return planned(place, name)


def bare(place: Place) -> Measured:
    """Digest and join, and write the differing keys to a table."""
    key = [quote(column) for column in place.case.primary_key]
    keys = ", ".join(f"coalesce(m.{name}, s.{name}) AS {name}" for name in key)
    with watched(place.server) as used:
        before, started = cpu_seconds(), time.monotonic()
        with _connected(place) as cursor:
            # Without a write-ahead log, as the tables of a plan are.
            cursor.execute(
                f"""CREATE UNLOGGED TABLE {FOUND} AS
                SELECT {keys}, CASE WHEN s.digest IS NULL THEN 'added' WHEN m.digest IS NULL THEN 'removed'
                    ELSE 'changed' END AS change
                FROM ({_digests(place)}) m FULL JOIN {STATE} s ON {" AND ".join(f"m.{name} = s.{name}" for name in key)}
                WHERE m.digest IS DISTINCT FROM s.digest"""
            )
        seconds, cpu, memory = time.monotonic() - started, cpu_seconds() - before, peak_memory()
    with _connected(place) as cursor:
        cursor.execute(f"SELECT change, count(*) FROM {FOUND} GROUP BY change")
        counted = dict(cursor.fetchall())
        cursor.execute(f"DROP TABLE {FOUND}")
    if set(counted) - {"changed"}:
        raise RuntimeError(f"Plain SQL found {counted}.")
    return Measured(counted.get("changed", 0), seconds, cpu, memory, 0.0, used.cpu, used.memory)


@contextlib.contextmanager
def _connected(place: Place) -> Iterator[Any]:
    """A cursor, each of whose statements takes effect at once."""
    connection = psycopg2.connect(place.setting.postgres)
    with contextlib.closing(connection):
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


def _digests(place: Place) -> str:
    case = place.case
    version = newest_version(place.setting.storage, place.model.name)
    assert version is not None
    key = ", ".join(map(quote, case.primary_key))
    columns = ", ".join(map(quote, (*case.primary_key, "email", *case.fields)))
    return f"SELECT {key}, md5(concat_ws('|', {columns})) AS digest FROM {SCHEMA}.{quote(version.table)}"


# Before it is measured


class TablePlace(Place):
    """A place whose model is a table."""

    def query(self, changed: float) -> None:
        """See `Place.query`; whoever reads the table first would mark its rows as seen, for all others."""
        super().query(changed)
        with _connected(self) as cursor:
            cursor.execute("VACUUM (ANALYZE)")
            cursor.execute("CHECKPOINT")


def deliver(place: Place, name: str) -> None:
    """Make the state of a sync that has delivered the whole model, as its fold would leave it."""
    sync = place.sync(name)
    with place.setting.context(f"run-{uuid.uuid4().hex[:12]}", this_process()) as ctx:
        made = plan(sync, ctx)
        home = home_of(sync, ctx, made.account)
        assert isinstance(home, WarehouseHome)
        path = home.folder / "records.parquet"
        write_records(made, path, with_ids=bool(sync.match))
        changes = "fold-benchmark"
        with connect(home.folder) as connection:
            home.attach(connection, Manifest())
            connection.execute(f"CREATE TEMP VIEW records AS SELECT * FROM read_parquet('{path}')")
            write_changes(connection, "snapshot", "snapshot", "records", home.folder / changes)
            write_changes(connection, "held", "held", "held", home.folder / changes)
        manifest = Manifest(1, 0, changes, rows=place.case.rows, mapping_digest=sync.mapping_digest)
        with home.prepared(manifest) as commit:
            commit()
        home.clean()
        path.unlink()
        ctx.ledger.release(lease_of(sync, made))
        drop_plans(home)


def keep_digests(place: Place) -> None:
    """The state of plain SQL."""
    with _connected(place) as cursor:
        cursor.execute(f"CREATE TABLE {STATE} AS {_digests(place)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the ratios."""
    options = parser(__doc__, BUDGETS).parse_args(arguments)
    with serving(latency=0.0) as server, running_postgres(**SETTINGS) as postgres:
        for key in options.key:
            with temporary() as folder:
                setting = Setting(folder, server.port, postgres=postgres.url(postgres.create_database()))
                place = TablePlace(setting, Case(options.rows, options.columns, key))
                with _connected(place) as cursor:
                    cursor.execute("SELECT pg_backend_pid()")
                    place = replace(place, server=psutil.Process(cursor.fetchone()[0]).ppid())
                place.query(0.0)
                for name in options.match:
                    in_processes([(deliver, (place, name), {})])
                keep_digests(place)
                sides: dict[str, Call] = {name: (planned_there, (place, name), {}) for name in options.match}
                sides[BARE] = (bare, (place,), {})
                by_turns(place, server, options, sides, BARE)


if __name__ == "__main__":
    end_on_sigterm()
    main()
