"""Runs a sync that makes records, to be killed: `python -m ... FOLDER KIND NAME [--stop-after BATCHES]`.

With `--stop-after` the process stops itself (SIGSTOP) once it has recorded so many batches: behind the check of its
fence, before the request.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path
from typing import Any

from integrations_dagster.ledger.store import Ledger
from integrations_dagster.ledger.writing import OpenBatch
from integrations_dagster.sandbox.endpoint import read_endpoint
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.vocabulary import LeaseLost
from integrations_dagster_tests.sync.flows import KINDS, Place
from integrations_dagster_tests.sync.harness import Bench


def sync_of(bench: Bench, kind: str, name: str, *, in_flight: int = 4) -> SyncSpec:
    """The sync of a victim; the test that watches it uses the same."""
    (flow,) = (flow for flow in KINDS if flow.name == kind)
    model = bench.model("people", "SELECT * FROM people")
    # A short timeout: it bounds how long the run after a kill waits for requests that were in flight.
    return Place(flow, name, bench.client).sync(model, max_attempts=1000, timeout=1.0, in_flight=in_flight)


class StoppingLedger(Ledger):
    """Stops the process between the record of a batch and its request."""

    left = 0

    def open_batch(self, *args: Any, **kwargs: Any) -> OpenBatch:
        batch = super().open_batch(*args, **kwargs)
        # No other thread is within a transaction: SQLite would be locked as long as the process is stopped.
        with self._writing:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
                # The kernel stops the other threads a moment later; until then they must not begin one.
                time.sleep(0.2)
        return batch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind")
    parser.add_argument("name")
    parser.add_argument("--stop-after", type=int, default=0)
    asked = parser.parse_args()
    endpoint = read_endpoint(asked.folder)
    assert endpoint is not None
    bench = Bench(asked.folder, endpoint)
    if asked.stop_after:
        bench.ledger.close()
        ledger = StoppingLedger.open(asked.folder)
        ledger.left = asked.stop_after
        bench.ledger = ledger
    try:
        # One at a time where it stops itself: then nothing but that one batch is on its way.
        report = bench.run(sync_of(bench, asked.kind, asked.name, in_flight=1 if asked.stop_after else 4))
    except LeaseLost as lost:
        print(f"lease lost: {lost}", flush=True)
        raise SystemExit(3) from None
    finally:
        bench.close()
    print(report.failures, flush=True)
    raise SystemExit(1 if report.failures else 0)


if __name__ == "__main__":
    main()
