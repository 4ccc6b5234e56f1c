"""The code location: what `dagster dev` and `dg` load."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from integrations_dagster.components.load import load_definitions


@dg.definitions
def defs() -> dg.Definitions:
    from integrations_dagster.orchestration.executor import default_executor

    return dg.Definitions.merge(load_definitions(Path(__file__).parent), dg.Definitions(executor=default_executor()))
