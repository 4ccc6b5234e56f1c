"""`python -m integrations_dagster.cli`."""

from __future__ import annotations

from integrations_dagster.cli import main

main()
