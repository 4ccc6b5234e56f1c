"""What YAML says, as plain values: the input of plan, write and record.

Nothing here reads the environment: a secret is an `Env`, resolved at run time by `delivery.accounts`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integrations_dagster.vocabulary import Mode


@dataclass(frozen=True, slots=True)
class Env:
    """The name of an environment variable that holds a setting at run time."""

    name: str


@dataclass(frozen=True, slots=True)
class WarehouseSpec:
    """A warehouse: `kind` "duckdb" with the absolute path of its file."""

    name: str
    kind: str
    path: Path


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A query and its primary key.

    Attributes:
        name: Name of the model, and of its asset.
        sql_path: Absolute path of the SQL file.
        primary_key: Columns of the primary key, at least one.
        warehouse: Where it runs.
        partitioned: Whether the SQL takes `$partition_start` and `$partition_end`.
    """

    name: str
    sql_path: Path
    primary_key: tuple[str, ...]
    warehouse: WarehouseSpec
    partitioned: bool = False


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """One account of a destination.

    Attributes:
        name: "sandbox", "dev", "prod".
        sandbox: The local sandbox; base URL and secrets are its own.
        base_url: Base URL, or the environment variable that has it.
        token: Bearer token.
        secret: Signing secret.
        schedules: Whether schedules of the syncs start running by default here.
    """

    name: str
    sandbox: bool = False
    base_url: str | Env | None = None
    token: Env | None = None
    secret: Env | None = None
    schedules: bool = False


@dataclass(frozen=True, slots=True)
class DestinationSpec:
    """A destination account.

    Attributes:
        name: Name in YAML.
        kind: Key of `destinations.registry.KINDS`.
        target: The account in force.
        timeout: Seconds a request may take, from its first byte sent to its last byte read.
        in_flight: Requests in flight at once over all shards of a run.
    """

    name: str
    kind: str
    target: TargetSpec
    timeout: float = 30.0
    in_flight: int = 16


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One target field: from a column, or a constant."""

    target: str
    column: str | None = None
    value: Any = None


@dataclass(frozen=True, slots=True)
class AlertSpec:
    """Where Slack alerts go, and the share of rejected rows (0 to 1) above which a run that succeeded is told too."""

    slack: str | None = None
    rejected_above: float | None = None


@dataclass(frozen=True, slots=True)
class SyncSpec:
    """A sync.

    Attributes:
        match: Target field to model column; empty: the primary key is the match value.
        batch_rows: Rows of one request, or None for the destination's limit.
        shards: Write ops at the most.
        fail_rejected_above: Share (0 to 1) of the new and changed rows, above which rejected ones fail the run.
        removal_limit: Share of the snapshot (0 to 1) that a mirror may remove in one run.
        source: "path:line" of the YAML, for messages.
    """

    name: str
    model: ModelSpec
    destination: DestinationSpec
    object: str
    mode: Mode
    fields: tuple[FieldSpec, ...]
    match: Mapping[str, str] = field(default_factory=dict)
    batch_rows: int | None = None
    shards: int = 4
    schedule: str | None = None
    on_model: bool = False
    fail_rejected_above: float | None = None
    alerts: AlertSpec = field(default_factory=AlertSpec)
    removal_limit: float = 0.2
    source: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The model columns that the sync uses beside the primary key, each once, in a stable order."""
        used = [f.column for f in self.fields if f.column is not None]
        return tuple(dict.fromkeys([*self.match.values(), *used]))

    @property
    def mapping_digest(self) -> str:
        """Digest of everything in the sync that decides a row's payload."""
        mapping = {
            "kind": self.destination.kind,
            "object": self.object,
            "match": dict(self.match),
            "fields": [[f.target, f.column, repr(f.value)] for f in self.fields],
        }
        return hashlib.blake2b(json.dumps(mapping).encode(), digest_size=8).hexdigest()
