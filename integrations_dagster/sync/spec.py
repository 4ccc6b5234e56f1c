"""What YAML says, as plain values: the input of plan, write and record.

Nothing here reads the environment: a secret is an `Env`, resolved at run time by `delivery.accounts`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from integrations_dagster.destinations import registry
from integrations_dagster.destinations.base import Destination
from integrations_dagster.vocabulary import Mode

EMBEDDED, WAREHOUSE = "embedded", "warehouse"
"""Where the state of a sync lives: files below the storage folder, or tables of its warehouse."""


@dataclass(frozen=True, slots=True)
class Env:
    """The name of an environment variable that holds a setting at run time."""

    name: str


@dataclass(frozen=True, slots=True)
class WarehouseSpec:
    """A warehouse.

    Attributes:
        name: Its name in YAML.
        kind: A key of `warehouses.registry.KINDS`: "duckdb", "postgres".
        path: Absolute path of the file of a warehouse that is one.
        url: The environment variable that has the URL of a warehouse that is a server.
    """

    name: str
    kind: str
    path: Path | None = None
    url: Env | None = None

    @property
    def dialect(self) -> str:
        """The SQL that expressions over its models are written in; DuckDB's where there is no warehouse."""
        return self.kind or "duckdb"


NO_WAREHOUSE = WarehouseSpec("", "", Path())
"""Of a model whose rows come from an asset, in a project without a warehouse."""


@dataclass(frozen=True, slots=True)
class CursorSpec:
    """How a model is queried in part.

    Attributes:
        column: Column whose value grows with every change of a row; `$cursor` of the query is bound to a value of it.
        lookback: Seconds (of a column of times), or units (of a column of numbers), that each query goes back, for rows
            that appear late.
    """

    column: str
    lookback: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Where rows come from, and their primary key. Either `sql_path`, or `table`, or `asset`, or these two together.

    Attributes:
        name: Name of the model, and of its asset.
        sql_path: Absolute path of the SQL file, or None.
        primary_key: Columns of the primary key, at least one.
        warehouse: Where it runs.
        partitioned: Whether the SQL takes `$partition_start` and `$partition_end`.
        sensitive: Columns that a sync marks as sensitive: no preview shows their values.
        cursor: How it is queried in part; None: whole.
        readers: (sync, target) of each sync that delivers it.
        table: Table of the warehouse whose rows they are, as "schema.table", or "".
        asset: Key of the upstream asset that yields the rows, or a table with them, as "raw/customers", or "".
        read: How an asset is read: "value" as its IO manager loads it, "table" by the name of its table, "auto".
        window: Column of a table by which its partitions are told apart, or "".
        homes: Homes of the syncs that deliver it. Its versions are files, tables of the warehouse, or both.
    """

    name: str
    sql_path: Path | None
    primary_key: tuple[str, ...]
    warehouse: WarehouseSpec
    partitioned: bool = False
    sensitive: frozenset[str] = frozenset()
    cursor: CursorSpec | None = None
    readers: tuple[tuple[str, str], ...] = ()
    table: str = ""
    asset: str = ""
    read: Literal["auto", "value", "table"] = "auto"
    window: str = ""
    homes: frozenset[str] = frozenset({EMBEDDED})

    @property
    def origin(self) -> str:
        """What the rows come from, for messages: "customers.sql", "table raw.customers", "asset raw/customers"."""
        if self.sql_path is not None:
            return self.sql_path.name
        return f"table {self.table}" if self.table else f"asset {self.asset}"


@dataclass(frozen=True, slots=True)
class AuthSpec:
    """How requests to a target are authenticated.

    Attributes:
        kind: A key of `delivery.auth.registry.KINDS`: "bearer", "api_key", "basic", "client_credentials",
            "refresh_token", "jwt_bearer", "session".
        settings: What the kind takes, plain text or the environment variable that has it.
    """

    kind: str
    settings: Mapping[str, str | Env] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """One account of a destination.

    Attributes:
        name: "sandbox", "dev", "prod".
        sandbox: The local sandbox; base URL and secrets are its own.
        base_url: Base URL, or the environment variable that has it.
        token: Bearer token; the short form of `auth: {kind: bearer}`.
        secret: Signing secret.
        auth: How requests are authenticated, where it is not `token`.
        schedules: Whether schedules of the syncs start running by default here.
    """

    name: str
    sandbox: bool = False
    base_url: str | Env | None = None
    token: Env | None = None
    secret: Env | None = None
    auth: AuthSpec | None = None
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
        quotas: (requests, seconds) pairs that hold instead of the kind's own; None: the kind's own.
        concurrency: Requests in flight at once over all that use the account; None: the kind's own, if any.
        attempts: Attempts at a request that meets an outage.
        backoff: Seconds before the first retry; doubled, with jitter, for each further one.
        backoff_cap: Seconds between two attempts at the most.
        fields_cache: Seconds for which a description of an object's fields is used before it is read anew.
        log_days: Days for which request logs are kept.
        log_bodies: Which bodies the request log keeps: "failed" (of requests with an error or a rejected row, and the
            first few), "all" or "none".
        option: What the kind's own key says (`Destination.options`); None where it has none.
    """

    name: str
    kind: str
    target: TargetSpec
    timeout: float = 30.0
    in_flight: int = 16
    quotas: tuple[tuple[int, float], ...] | None = None
    concurrency: int | None = None
    attempts: int = 5
    backoff: float = 0.5
    backoff_cap: float = 15.0
    log_days: float = 14.0
    log_bodies: Literal["failed", "all", "none"] = "failed"
    fields_cache: float = 0.0
    option: Any = None

    def create(self, secrets: Mapping[str, str] | None = None) -> Destination:
        """The destination itself; without secrets, one that says what it can do and sends nothing."""
        return registry.create(self.kind, secrets, self.option)

    @property
    def describes(self) -> bool:
        """Whether its target says which fields its objects have: a stand-in that is a file takes what is written."""
        made = self.create()
        return made.describes and not (self.target.sandbox and made.local_sandbox)


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What a field's values must be, and what becomes of those that are not.

    Attributes:
        type: One of `field_types.TYPES`; None: the values go as they are.
        trim: Whether white space around a text is taken off.
        lower: Whether a text is put in lower case (an enum compared so); None: as the type does by itself.
        format: How a date or timestamp is sent: "iso", "epoch_seconds", "epoch_ms".
        source_format: What a number or text in the column is, likewise.
        region: Country (ISO 3166, two letters) of phone numbers without a country code.
        values: Of an enum, pairs of what the column holds and what is sent.
        max_length: Characters of the text that is sent, at the most.
        truncate: Whether a longer one is cut instead of being invalid.
        required: Whether a row without the value is invalid.
        default: What is sent in place of null, where `nulls` is "default".
        drop: Whether a value that does not fit is left out, instead of making its row invalid.
        nulls: What becomes of null: "omit" it, "clear" the field at the destination, send the "default".
        hash: "sha256": the text's digest is sent, in hexadecimal.
    """

    type: str | None = None
    trim: bool = False
    lower: bool | None = None
    format: str = "iso"
    source_format: str = "iso"
    region: str | None = None
    values: tuple[tuple[Any, Any], ...] | None = None
    max_length: int | None = None
    truncate: bool = False
    required: bool = False
    default: Any = None
    drop: bool = False
    nulls: Literal["omit", "clear", "default"] = "omit"
    hash: str | None = None

    def given(self) -> dict[str, str]:
        """What differs from a field without a rule, as texts."""
        return {f.name: repr(value) for f in fields(self) if (value := getattr(self, f.name)) != f.default}


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One target field: from a column, a constant, a SQL expression, or a lookup.

    Attributes:
        sensitive: Its values are kept out of request logs, reasons and previews.
        sql: The expression, in the SQL of the model's warehouse.
        uses: Model columns that the expression uses.
        rule: What its values must be.
        lookup: Name of the sync's lookup that finds the value; `column` is what it compares.
    """

    target: str
    column: str | None = None
    value: Any = None
    sensitive: bool = False
    sql: str | None = None
    uses: tuple[str, ...] = ()
    rule: FieldRule = FieldRule()
    lookup: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The model columns that it is made from."""
        return self.uses if self.column is None else (self.column,)

    @property
    def source(self) -> str | None:
        """The column of the plan's rows that holds its values; None for a constant.

        A computed one is named by what it is computed from, so that equal expressions are computed once.
        """
        if self.lookup is not None:
            return f"lookup:{_digest(json.dumps([self.lookup, self.column]))}"
        return self.column if self.sql is None else f"sql:{_digest(self.sql)}"


@dataclass(frozen=True, slots=True)
class GuardSpec:
    """Limits of one count of a run.

    Attributes:
        warn: Share of the usual number by which the count may differ before the run warns; None: any.
        stop: Likewise before the run stops.
        most: Rows above which the run stops, whatever is usual; None: any.
    """

    warn: float | None = None
    stop: float | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class GuardsSpec:
    """When the numbers of a run are far from the usual.

    Attributes:
        limits: Count ("queried", "added", "changed", "removed") to its limits.
        runs: Earlier runs of which the median is the usual number, at the most.
        least: Rows by which a count must differ at least to be told.
    """

    limits: Mapping[str, GuardSpec]
    runs: int = 20
    least: int = 100


@dataclass(frozen=True, slots=True)
class LookupSpec:
    """What a field's values are looked up in: reference data of the destination, or what another sync has delivered.

    Attributes:
        name: What the fields of the sync call it.
        reference: A name of `Destination.references`, or None.
        sync: The other sync, or None.
        key: Column of the reference that is compared; of another sync, "key" (its primary key) or "match".
        value: Column of the reference whose value is taken; of another sync, "destination_id".
        normalization: How values are compared: "exact", "trim" or "trim_lower".
        cache: Seconds for which reference data is used before it is read anew.
        no_match: "reject": a row without a match is invalid; "null": it has no value.
        several: Likewise, where several match.
    """

    name: str
    reference: str | None = None
    sync: SyncSpec | None = None
    key: str = ""
    value: str = ""
    normalization: str = "exact"
    cache: float = 21_600.0
    no_match: Literal["reject", "null"] = "reject"
    several: Literal["reject", "null"] = "reject"

    @property
    def definition(self) -> dict[str, str]:
        """What decides the values that it finds, beside the data."""
        where = {"reference": self.reference} if self.reference is not None else {}
        where |= {"sync": self.sync.name} if self.sync is not None else {}
        return {**where, "key": self.key, "value": self.value, "no_match": self.no_match, "several": self.several}


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
        batch_bytes: Bytes of one request's body, or None for the destination's limit.
        row_bytes: Bytes of one row's canonical JSON, above which it is invalid, or None for the destination's limit.
        in_doubt: What becomes of rows whose request must not be repeated and got no answer: "hold" for a person,
            "verify" by the destination's look-up, "resend"; None: verify where the destination can, else hold.
        max_attempts: Rejections of an unchanged row after which it is parked.
        retry_wait: Seconds from the second rejection of an unchanged row to its next try; doubled for each further one.
        retry_wait_cap: Seconds between two tries at the most.
        shards: Write ops at the most.
        fail_rejected_above: Share (0 to 1) of the new and changed rows, above which rejected ones fail the run.
        removal_limit: mirror: share of the snapshot (0 to 1) that one run may remove. A number above 1, in delete
            always: rows.
        guards: Limits of a run's numbers, or None.
        owner: Whether it may write what another sync writes too.
        dedupe_window: append: seconds for which the key of a delivered row is remembered at least; None: for good.
        log_days: Days for which the sync log is kept.
        keep_values: Whether the last acknowledged payload of each record is kept, sensitive fields excepted.
        lookups: What its fields are looked up in; each is used by a field.
        source: "path:line" of the YAML, for messages.
        home: Where its state lives: `EMBEDDED` or `WAREHOUSE`.
    """

    name: str
    model: ModelSpec
    destination: DestinationSpec
    object: str
    mode: Mode
    fields: tuple[FieldSpec, ...]
    match: Mapping[str, str] = field(default_factory=dict)
    batch_rows: int | None = None
    batch_bytes: int | None = None
    row_bytes: int | None = None
    in_doubt: str | None = None
    max_attempts: int = 10
    retry_wait: float = 900.0
    retry_wait_cap: float = 86_400.0
    shards: int = 4
    schedule: str | None = None
    on_model: bool = False
    fail_rejected_above: float | None = None
    alerts: AlertSpec = field(default_factory=AlertSpec)
    removal_limit: float = 0.2
    dedupe_window: float | None = None
    guards: GuardsSpec | None = None
    owner: bool = False
    log_days: float = 90.0
    keep_values: bool = False
    source: str = ""
    home: str = EMBEDDED
    lookups: tuple[LookupSpec, ...] = ()

    def lookup(self, name: str) -> LookupSpec:
        """The lookup with a name."""
        return next(lookup for lookup in self.lookups if lookup.name == name)

    @property
    def follows(self) -> tuple[str, ...]:
        """Names of the syncs whose delivered records it looks values up in, each once."""
        return tuple(dict.fromkeys(lookup.sync.name for lookup in self.lookups if lookup.sync is not None))

    @property
    def references(self) -> tuple[str, ...]:
        """References of its destination that it looks values up in, each once."""
        return tuple(dict.fromkeys(lookup.reference for lookup in self.lookups if lookup.reference is not None))

    @property
    def columns(self) -> tuple[str, ...]:
        """The model columns that the sync uses beside the primary key, each once, in a stable order."""
        used = [column for f in self.fields for column in f.columns]
        return tuple(dict.fromkeys([*self.match.values(), *used]))

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns of the plan's rows: those of the model that match values and fields are read from, and those
        computed for fields. A change of one of them makes a row a candidate."""
        used = [f.source for f in self.fields if f.source is not None]
        return tuple(dict.fromkeys([*self.match.values(), *used]))

    @property
    def sensitive(self) -> frozenset[str]:
        """Members of the payload whose values are kept out of logs, reasons and previews. Of a path ("address.city") it
        is the first part too, under which the value lies."""
        marked = [field.target for field in self.fields if field.sensitive]
        return frozenset([*marked, *(target.split(".")[0] for target in marked)])

    def may_quote(self, field: FieldSpec) -> bool:
        """Whether reasons may quote values of a field: none of a column that a sensitive field is made from, and none
        that is sent as a digest only."""
        if field.sensitive or field.rule.hash:
            return False
        return not any(other.sensitive and {*other.columns} & {*field.columns} for other in self.fields)

    @property
    def mapping_digest(self) -> str:
        """Digest of everything in the sync that decides a row's payload."""
        mapping = {
            "kind": self.destination.kind,
            "object": self.object,
            "match": dict(self.match),
            # Only what is there: the digest of a mapping stays when a key that it does not use is added to those here.
            "fields": [
                [
                    *(f.target, f.column, repr(f.value)),
                    *([{"sql": f.sql}] if f.sql is not None else []),
                    *([{"lookup": self.lookup(f.lookup).definition}] if f.lookup is not None else []),
                    *([f.rule.given()] if f.rule != FieldRule() else []),
                ]
                for f in self.fields
            ],
        }
        return _digest(json.dumps(mapping))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
