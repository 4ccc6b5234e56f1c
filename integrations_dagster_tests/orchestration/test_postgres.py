"""A sync with Dagster's storage on PostgreSQL, configured by the file that deployments copy."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus

from integrations_dagster_tests.orchestration.processes import ROOT, environment, execute_job, home_with
from integrations_dagster_tests.orchestration.shop import Shop
from integrations_dagster_tests.postgres import Postgres

DEPLOYED = ROOT / "deploy" / "postgres" / "dagster.yaml"


def test_a_sync_runs_with_dagster_on_postgres(
    shop: Shop, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop.load_many_customers(200)
    home = home_with(tmp_path / "home", DEPLOYED.read_text("utf-8"))
    variables = {
        "DAGSTER_POSTGRES_HOST": postgres.host,
        "DAGSTER_POSTGRES_PORT": str(postgres.port),
        "DAGSTER_POSTGRES_USER": postgres.user,
        "DAGSTER_POSTGRES_PASSWORD": postgres.password,
        "DAGSTER_POSTGRES_DB": postgres.create_database(),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    execute_job("sync_customers_to_hook", environment(shop, home))
    assert len(shop.client.webhook_records("events", "customers")) == 200
    with DagsterInstance.from_config(str(home)) as instance:
        assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
        (run,) = instance.get_runs()
        assert run.status == DagsterRunStatus.SUCCESS
    assert not list(home.rglob("*.db"))
