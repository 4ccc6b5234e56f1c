"""What a run knows of the world around it; passed to every function of this room."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from integrations_dagster.ledger.leases import Holder
from integrations_dagster.ledger.store import Ledger
from integrations_dagster.vocabulary import Worker


@dataclass(frozen=True)
class RunContext:
    """The surroundings of one run.

    Attributes:
        storage: Folder of all state (`INTEGRATIONS_STORAGE`).
        ledger: Leases and batches.
        run_id: Dagster's run id, or a fresh id of the command line.
        worker: The process that the run lives and dies with.
        alive: Whether the holder of a lease may still be at work. A run that has finished, or whose worker process is
            dead, is not.
        log: Told one sentence at a time.
        env: Where secrets are read, at run time.
        stop: Set when the run is cancelled: send nothing new.
    """

    storage: Path
    ledger: Ledger
    run_id: str
    worker: Worker
    alive: Callable[[Holder], bool]
    log: Callable[[str], None]
    env: Mapping[str, str]
    stop: threading.Event = field(default_factory=threading.Event)
