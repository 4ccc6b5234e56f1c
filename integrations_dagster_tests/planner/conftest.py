"""Both homes of the state: every history is played in files and in a warehouse."""

from __future__ import annotations

import pytest

from integrations_dagster.warehouses.base import WarehouseAddress
from integrations_dagster_tests.postgres import Postgres


@pytest.fixture(scope="session")
def address(postgres: Postgres) -> WarehouseAddress:
    """A PostgreSQL warehouse with an empty database."""
    return WarehouseAddress("dwh", "postgres", url=postgres.url(postgres.create_database()))


@pytest.fixture(params=["embedded", pytest.param("warehouse", marks=pytest.mark.slow)])
def warehouse(request: pytest.FixtureRequest) -> WarehouseAddress | None:
    """Where the state lives: None for files."""
    return None if request.param == "embedded" else request.getfixturevalue("address")
