"""A code location for processes that are going to be killed: one sync of many contacts in four write steps."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from integrations_dagster_tests.kills import FOLDER
from integrations_dagster_tests.orchestration.shop import Shop

_shop = Shop(Path(os.environ[FOLDER]))
# A short timeout: it bounds how long the run after a kill waits for requests that were in flight.
_sync = _shop.contacts(shards=4, destination=dataclasses.replace(_shop.contacts().destination, timeout=3.0))
defs = _shop.definitions(_sync)
