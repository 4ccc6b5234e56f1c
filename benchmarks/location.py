"""The code location of the Dagster run that is measured: one model, one sync; its setting is in the environment."""

from __future__ import annotations

import os

import dagster as dg

from benchmarks import SETTING
from benchmarks.setting import from_text
from integrations_dagster.orchestration.executor import default_executor
from integrations_dagster.orchestration.jobs import job_definitions
from integrations_dagster.orchestration.models import model_asset
from integrations_dagster.orchestration.syncs import sync_asset

_sync = from_text(os.environ[SETTING]).sync()
defs = dg.Definitions.merge(
    dg.Definitions(assets=[model_asset(_sync.model, None), sync_asset(_sync, None)], executor=default_executor()),
    job_definitions([_sync], {_sync.model.name: None}),
)
