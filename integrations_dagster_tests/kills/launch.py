"""Executes the sync's job as a run worker would: `python -m integrations_dagster_tests.kills.launch`."""

from __future__ import annotations

import dagster as dg

from integrations_dagster_tests.kills import JOB, location


def job() -> dg.JobDefinition:
    return location.defs.resolve_job_def(JOB)


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        result = dg.execute_job(dg.reconstructable(job), instance=instance, raise_on_error=False)
        print(f"run {result.run_id} {'succeeded' if result.success else 'failed'}", flush=True)
        raise SystemExit(0 if result.success else 1)
