"""A code location for tests that start processes: the folder of its shop is in the environment."""

from __future__ import annotations

import os
from pathlib import Path

from integrations_dagster_tests.orchestration.shop import FOLDER_ENV, Shop

_shop = Shop(Path(os.environ[FOLDER_ENV]))
defs = _shop.definitions(_shop.hook(shards=2, batch_rows=50), _shop.orders_to_hook())
