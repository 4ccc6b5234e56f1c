"""What YAML can say; turns it into assets, checks, jobs, schedules and sensors."""

from __future__ import annotations

from integrations_dagster.components.destination import Destination
from integrations_dagster.components.model import Model
from integrations_dagster.components.sync import Sync
from integrations_dagster.components.warehouse import Warehouse

__all__ = ["Destination", "Model", "Sync", "Warehouse"]
