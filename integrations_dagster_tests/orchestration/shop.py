"""A small project: a DuckDB warehouse, its models, syncs to the sandbox, and their definitions."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test

from integrations_dagster.orchestration.alerts import alert_definitions
from integrations_dagster.orchestration.executor import default_executor
from integrations_dagster.orchestration.jobs import job_definitions
from integrations_dagster.orchestration.models import model_asset
from integrations_dagster.orchestration.syncs import sync_asset
from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.endpoint import read_endpoint, state_folder
from integrations_dagster.sync.spec import (
    DestinationSpec,
    FieldSpec,
    ModelSpec,
    SyncSpec,
    TargetSpec,
    WarehouseSpec,
)
from integrations_dagster.vocabulary import Mode

FOLDER_ENV = "TEST_SHOP"
SANDBOX = TargetSpec("sandbox", sandbox=True)
DAYS = dg.DailyPartitionsDefinition(start_date="2026-08-01", end_date="2026-08-08")


class Shop:
    """A folder with a warehouse and SQL; `storage` is where the syncs' state lives, and knows the sandbox.

    Args:
        folder: An existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = folder / "storage"
        self.warehouse = WarehouseSpec("warehouse", "duckdb", folder / "warehouse.duckdb")

    def use_sandbox(self, sandbox_storage: Path) -> None:
        """Point the storage at a sandbox that runs for another storage folder."""
        (self.storage / "sandbox").mkdir(parents=True, exist_ok=True)
        shutil.copy(state_folder(sandbox_storage) / "sandbox.json", self.storage / "sandbox" / "sandbox.json")

    @property
    def client(self) -> SandboxClient:
        endpoint = read_endpoint(self.storage)
        assert endpoint is not None
        return SandboxClient(endpoint)

    def load_customers(self, names: Mapping[int, str], emails: Mapping[int, str] | None = None) -> None:
        """Replace the customers: id to name; emails are made from the id unless given."""
        rows = [[id_, (emails or {}).get(id_, f"c{id_}@example.com"), name] for id_, name in names.items()]
        with duckdb.connect(str(self.warehouse.path)) as connection:
            connection.execute("CREATE OR REPLACE TABLE customers (id INTEGER, email VARCHAR, name VARCHAR)")
            if rows:
                # Without the transaction each row is committed, and so flushed to disk, by itself.
                connection.begin()
                connection.executemany("INSERT INTO customers VALUES (?, ?, ?)", rows)
                connection.commit()

    def load_many_customers(self, count: int) -> None:
        """Replace the customers by `count` made ones."""
        with duckdb.connect(str(self.warehouse.path)) as connection:
            connection.execute(
                "CREATE OR REPLACE TABLE customers AS SELECT i::INTEGER AS id, 'c' || i || '@example.com' AS email, "
                f"'name ' || i AS name FROM range({count}) t(i)"
            )

    def load_orders(self, a_day: int) -> None:
        """Replace the orders: `a_day` for each day of `DAYS`."""
        with duckdb.connect(str(self.warehouse.path)) as connection:
            connection.execute(
                "CREATE OR REPLACE TABLE orders AS SELECT d::DATE AS day, strftime(d, '%m%d') || '-' || i AS id, "
                "i * 10 AS amount FROM range(TIMESTAMP '2026-08-01', TIMESTAMP '2026-08-08', INTERVAL 1 DAY) t(d), "
                f"range({a_day}) u(i)"
            )

    @property
    def customers(self) -> ModelSpec:
        return self._model("customers", "SELECT id, email, name FROM customers")

    @property
    def orders(self) -> ModelSpec:
        sql = (
            "SELECT id, amount FROM orders WHERE day >= CAST($partition_start AS DATE) "
            "AND day < CAST($partition_end AS DATE)"
        )
        return dataclasses.replace(self._model("orders", sql), partitioned=True)

    def _model(self, name: str, sql: str) -> ModelSpec:
        path = self.folder / f"{name}.sql"
        if not path.exists():
            path.write_text(sql, "utf-8")
        return ModelSpec(name, path, ("id",), self.warehouse)

    def hook(self, **changes: Any) -> SyncSpec:
        """A sync of the customers to a webhook."""
        spec = SyncSpec(
            name="customers_to_hook",
            model=self.customers,
            destination=DestinationSpec("events", "webhook", SANDBOX),
            object="customers",
            mode=Mode.UPSERT,
            fields=(FieldSpec("name", "name"), FieldSpec("email", "email")),
            source="defs/hook/defs.yaml:1",
        )
        return dataclasses.replace(spec, **changes)

    def contacts(self, **changes: Any) -> SyncSpec:
        """A sync of the customers to HubSpot contacts."""
        spec = SyncSpec(
            name="crm_contacts",
            model=self.customers,
            destination=DestinationSpec("crm", "hubspot", SANDBOX),
            object="contacts",
            mode=Mode.UPSERT,
            fields=(FieldSpec("firstname", "name"),),
            match={"email": "email"},
            source="defs/contacts/defs.yaml:1",
        )
        return dataclasses.replace(spec, **changes)

    def orders_to_hook(self, **changes: Any) -> SyncSpec:
        """A sync of the partitioned orders to a webhook."""
        return self.hook(
            **{
                "name": "orders_to_hook",
                "model": self.orders,
                "object": "orders",
                "fields": (FieldSpec("amount", "amount"),),
                **changes,
            }
        )

    def definitions(self, *syncs: SyncSpec) -> dg.Definitions:
        """What a code location with these syncs holds."""
        partitions = {self.orders.name: DAYS, self.customers.name: None}
        models = {sync.model.name: sync.model for sync in syncs}
        assets: Sequence[dg.AssetsDefinition] = [
            *(model_asset(model, partitions[model.name]) for model in models.values()),
            *(sync_asset(sync, partitions[sync.model.name]) for sync in syncs),
        ]
        return dg.Definitions.merge(
            dg.Definitions(assets=assets, executor=default_executor()),
            job_definitions(syncs, partitions),
            alert_definitions(syncs),
        )


def queued_run(instance: dg.DagsterInstance, job_name: str, *selection: str) -> dg.DagsterRun:
    """A run in the queue that materializes these assets, as the UI launches it: without tags."""
    location = RegisteredCodeLocationOrigin("shop")
    run: dg.DagsterRun = create_run_for_test(
        instance,
        job_name=job_name,
        status=dg.DagsterRunStatus.QUEUED,
        asset_selection=frozenset(dg.AssetKey(name) for name in selection),
        remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job_name),
    )
    return run
