"""What a measurement writes: the customers of a warehouse, to the stand-in server.

The specs are made here, not from YAML; from there on it is the project's own code: query, plan, write, record.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from integrations_dagster.ledger.store import Ledger
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.query import run_query
from integrations_dagster.sync.spec import (
    EMBEDDED,
    WAREHOUSE,
    DestinationSpec,
    Env,
    FieldSpec,
    ModelSpec,
    SyncSpec,
    TargetSpec,
    WarehouseSpec,
)
from integrations_dagster.vocabulary import Mode, Worker

TOKEN = "BENCHMARK_TOKEN"
"""The environment variable with the account's token; the stand-in takes any."""
POSTGRES = "BENCHMARK_POSTGRES"
"""Likewise the one with the URL of a warehouse that is a server."""
FIELDS = ("firstname", "lastname", "company", "jobtitle", "lifetime_value", "last_order")


@dataclass(frozen=True)
class Setting:
    """A folder, the port of a stand-in server, and how the syncs are set; small enough to hand to processes.

    Attributes:
        folder: An existing folder for everything that is written.
        port: Port of the server.
        shards: Write ops of a run.
        batch_rows: Rows of a request.
        in_flight: Requests in flight over all shards of a run.
        quotas: Declared in the destination's settings: (requests, seconds) pairs; empty: none is known.
        postgres: URL of a PostgreSQL that is the warehouse and has the state; "": the warehouse is a file of DuckDB's,
            and the state is in files.
    """

    folder: str
    port: int
    shards: int = 4
    batch_rows: int = 100
    in_flight: int = 16
    quotas: tuple[tuple[int, float], ...] = ()
    postgres: str = ""

    @property
    def storage(self) -> Path:
        return Path(self.folder) / "storage"

    @property
    def model(self) -> ModelSpec:
        warehouse = WarehouseSpec("warehouse", "duckdb", Path(self.folder) / "warehouse.duckdb")
        if self.postgres:
            warehouse = WarehouseSpec("warehouse", "postgres", url=Env(POSTGRES))
        homes = frozenset({self._home})
        return ModelSpec("customers", Path(self.folder) / "customers.sql", ("id",), warehouse, homes=homes)

    @property
    def _home(self) -> str:
        return WAREHOUSE if self.postgres else EMBEDDED

    def sync(self, name: str = "contacts") -> SyncSpec:
        """A sync of all customers to HubSpot contacts, in batches of `batch_rows`."""
        target = TargetSpec("prod", base_url=f"http://127.0.0.1:{self.port}", token=Env(TOKEN))
        return SyncSpec(
            name=name,
            model=self.model,
            destination=DestinationSpec("crm", "hubspot", target, in_flight=self.in_flight, quotas=self.quotas),
            object="contacts",
            mode=Mode.UPSERT,
            match={"email": "email"},
            fields=tuple(FieldSpec(name, name) for name in FIELDS),
            batch_rows=self.batch_rows,
            shards=self.shards,
            source="benchmarks/setting.py",
            home=self._home,
        )

    def load(self, rows: int, version: int) -> None:
        """Replace the customers; every row differs from the version before."""
        self.model.sql_path.write_text("SELECT * FROM customers", "utf-8")
        with duckdb.connect(str(self.model.warehouse.path)) as connection:
            connection.execute(
                f"""CREATE OR REPLACE TABLE customers AS SELECT i::INTEGER AS id,
                'c' || i || '@example.com' AS email, 'First ' || i AS firstname, 'Last ' || i AS lastname,
                'Company ' || (i % 5000) AS company, 'Title v{version}' AS jobtitle,
                (i % 100000 / 100)::DECIMAL(12, 2) AS lifetime_value,
                DATE '2026-01-01' + (i % 200)::INTEGER AS last_order
                FROM range({rows}) t(i)"""
            )

    def query(self) -> float:
        """Materialize the model; returns the seconds it took."""
        started = time.monotonic()
        run_query(self.model, self.storage, f"query-{uuid.uuid4().hex[:8]}")
        return time.monotonic() - started

    @contextmanager
    def context(self, run_id: str, worker: Worker) -> Iterator[RunContext]:
        """The surroundings of a run, for one process."""
        ledger = Ledger.open(self.storage)
        try:
            yield RunContext(
                storage=self.storage,
                ledger=ledger,
                run_id=run_id,
                worker=worker,
                # A lease that is found held is that of a measurement which was broken off.
                alive=lambda _holder: False,
                log=_silent,
                env={**os.environ, TOKEN: "pat-benchmark", POSTGRES: self.postgres},
            )
        finally:
            ledger.close()


def _silent(_text: str) -> None:
    return None


def as_text(setting: Setting) -> str:
    """A setting for an environment variable."""
    return json.dumps(asdict(setting))


def from_text(text: str) -> Setting:
    """Undo `as_text`."""
    data = json.loads(text)
    return Setting(**{**data, "quotas": tuple((requests, seconds) for requests, seconds in data["quotas"])})
