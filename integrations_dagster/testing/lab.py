"""The bench of one check: a storage folder with its ledger, the project's own engine, the proxy before the server."""

from __future__ import annotations

import json
import re
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow as pa

from integrations_dagster.delivery.engine import RetrySettings
from integrations_dagster.delivery.sender import Sender
from integrations_dagster.destinations.base import Batch, Destination, Flow, Remember, Repeat, Request
from integrations_dagster.destinations.registry import KINDS
from integrations_dagster.ledger.leases import Holder
from integrations_dagster.ledger.store import Ledger
from integrations_dagster.planner.state import Home
from integrations_dagster.sync.account import Conversation, account_key, connect_account, identify
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.line import open_line
from integrations_dagster.sync.mapping import Mapper
from integrations_dagster.sync.packer import Packer, limits_of
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.query import run_query
from integrations_dagster.sync.record import record
from integrations_dagster.sync.results import RunReport
from integrations_dagster.sync.spec import (
    AuthSpec,
    DestinationSpec,
    Env,
    FieldRule,
    FieldSpec,
    ModelSpec,
    SyncSpec,
    TargetSpec,
    WarehouseSpec,
)
from integrations_dagster.sync.state import state_key
from integrations_dagster.sync.write import write
from integrations_dagster.testing.proxy import READS, Proxy, Seen, proxied
from integrations_dagster.testing.subject import Subject
from integrations_dagster.vocabulary import Action, Change, Misconfigured, Mode, Outcome, Row, Status, Worker

KEY = "key"
"""The model's primary key, a text; no field of a subject may have this name."""
TOKEN = re.compile(rb"c[fx]\d{6}")
"""What every row of the suite has somewhere: its primary key."""
Rows = Mapping[str, Mapping[str, Any]]
"""Primary key to fields."""

_CHANGE = {
    Action.CREATE: Change.ADDED,
    Action.UPSERT: Change.ADDED,
    Action.UPDATE: Change.CHANGED,
    Action.MODIFY: Change.CHANGED,
    Action.DELETE: Change.REMOVED,
}


def key_of(number: int, *, bad: bool = False) -> str:
    """A primary key: "cf000012", or "cx000012" of a row that is to be rejected."""
    return f"c{'x' if bad else 'f'}{number:06d}"


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of rows.

    Attributes:
        outcomes: Of each row, by primary key.
        requests: What the proxy saw meanwhile.
        reason: Why sending stopped, or "".
        batches: Primary keys of each batch that was begun, in order.
    """

    outcomes: dict[str, Outcome]
    requests: list[Seen]
    reason: str
    batches: list[tuple[str, ...]]

    def of(self, *statuses: Status) -> set[str]:
        """Keys of the rows with one of these outcomes."""
        return {key for key, outcome in self.outcomes.items() if outcome.status in statuses}

    @property
    def writes(self) -> list[Seen]:
        return [seen for seen in self.requests if not seen.reads]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run came to."""

    report: RunReport
    requests: list[Seen]

    def count(self, *statuses: Status) -> int:
        """Rows with one of these outcomes."""
        return sum(self.report.outcomes.get(status, 0) for status in statuses)

    @property
    def writes(self) -> list[Seen]:
        return [seen for seen in self.requests if not seen.reads]


@dataclass(frozen=True, slots=True)
class _Spec(DestinationSpec):
    """A destination whose requests tell the proxy whether they change anything."""

    observed: Callable[[Destination], Destination] = field(default=lambda destination: destination)

    def create(self, secrets: Mapping[str, str] | None = None) -> Destination:
        # Not `super()`: a class with slots is made anew, and this function belongs to the first.
        return self.observed(DestinationSpec.create(self, secrets))


class Lab:
    """One check's bench: an empty storage folder, and an empty object at the server.

    Args:
        subject: What is tested.
        proxy: Stands for the server.
        storage: An empty folder.
    """

    def __init__(self, subject: Subject, proxy: Proxy, storage: Path) -> None:
        self.subject = subject
        self.proxy = proxy
        self.ledger = Ledger.open(storage)
        self.remembered: list[str] = []
        """What flows have asked to remember."""
        self.batches: list[tuple[str, ...]] = []
        self.told: list[str] = []
        """What runs have told a person."""
        self._storage = storage
        self._env = {"CONFORMANCE_TOKEN": subject.token, "CONFORMANCE_SECRET": subject.secret, **subject.env}
        self._runs = 0
        process = psutil.Process()
        self._worker = Worker("conformance", process.pid, process.create_time())
        sample = [subject.good(key_of(0), 1), subject.good(key_of(0), 2)]
        bad = subject.bad(key_of(0, bad=True), 1)
        self.fields = tuple(dict.fromkeys(name for row in (*sample, *([bad] if bad else [])) for name in row))
        self.schema = pa.Table.from_pylist(
            [{name: row.get(name) for name in self.fields} for row in (*sample, *([bad] if bad else []))]
        ).schema
        self.destination = self.spec().create({"secret": subject.secret} if subject.secret else {})
        self.modes = modes_of(subject, self.destination)

    def close(self) -> None:
        self.ledger.close()

    # What is delivered, and where to

    def spec(self, *, timeout: float = 10.0, quotas: tuple[tuple[int, float], ...] | None = ()) -> DestinationSpec:
        """The destination's settings; no quota is waited for unless it is asked for (None: the kind's own)."""
        subject = self.subject
        kind = subject.destination if isinstance(subject.destination, str) else subject.destination.kind
        form = KINDS[kind].options
        option = subject.option
        if form is not None and (option is None or isinstance(option, Mapping)):
            option = form[1].model_validate(option or {})
        return _Spec(
            name="conformance",
            kind=kind,
            target=TargetSpec(
                "conformance",
                base_url=self.proxy.url,
                token=Env("CONFORMANCE_TOKEN") if subject.token else None,
                secret=Env("CONFORMANCE_SECRET") if subject.secret else None,
                auth=subject.auth,
            ),
            timeout=timeout,
            in_flight=4,
            quotas=quotas,
            fields_cache=3600.0,
            option=option,
            observed=self._observed,
        )

    def sync(self, mode: Mode, name: str = "conformance", **changes: Any) -> SyncSpec:
        """A sync of the subject's rows; each field is a column of the same name."""
        rule = changes.pop("rule", FieldRule())
        warehouse = WarehouseSpec("warehouse", "duckdb", self._storage / "warehouse.duckdb")
        settings: dict[str, Any] = {
            "name": name,
            "model": ModelSpec("rows", self._storage / "rows.sql", (KEY,), warehouse),
            "destination": changes.pop("destination", self.spec()),
            "object": self.subject.object,
            "mode": mode,
            "match": {target: target for target in self.subject.match},
            "fields": tuple(
                FieldSpec(target, target, rule=rule if target == self.subject.text else FieldRule())
                for target in self.fields
            ),
            "batch_rows": 5,
            "in_doubt": "hold" if mode in (Mode.INSERT, Mode.APPEND) else None,
            "shards": 1,
            "removal_limit": 1_000_000,
            "source": "the conformance suite",
        }
        return SyncSpec(**{**settings, **changes})

    def identity(self, key: str, fields: Mapping[str, Any]) -> str:
        """The row's match value, normalized, or its primary key: what names its record."""
        if not self.subject.match:
            return key
        values = []
        for name in self.subject.match:
            value, how = str(fields[name]), self.destination.match_normalization(self.subject.object, name)
            value = value if how == "exact" else value.strip()
            values.append(value.lower() if how == "trim_lower" else value)
        return values[0] if len(values) == 1 else json.dumps(values, ensure_ascii=False)

    def context(self) -> RunContext:
        return RunContext(
            storage=self._storage,
            ledger=self.ledger,
            run_id=f"run-{uuid.uuid4().hex[:8]}",
            worker=self._worker,
            alive=_nobody,
            log=self.told.append,
            env=self._env,
        )

    def _observed(self, destination: Destination) -> Destination:
        """The same destination, whose requests say whether they read, and whose flows are told of."""
        sign, deliver = destination.sign, destination.deliver

        def signed(request: Request) -> Request:
            ready = sign(request)
            return replace(ready, headers={**ready.headers, READS: "1" if request.changes_nothing else "0"})

        def delivered(batch: Batch) -> Flow[list[Outcome]]:
            self.batches.append(tuple(row.key for row in batch.rows))
            flow = deliver(batch)
            try:
                step = next(flow)
                while True:
                    if isinstance(step, Remember):
                        self.remembered.append(step.reference)
                    step = flow.send((yield step))
            except StopIteration as end:
                outcomes: list[Outcome] = end.value
                return outcomes

        # Set on the instance: the class belongs to whoever wrote it.
        vars(destination).update(deliver=delivered)
        if destination.transport == "http":
            vars(destination).update(sign=signed)
        return destination

    # Delivering

    def connect(self) -> None:
        """Let the destination say who the account is, so that no check meets this question."""
        sync, ctx = self.sync(Mode.UPSERT), self.context()
        identify(sync, ctx, connect_account(sync, ctx))

    def deliver(
        self,
        action: Action,
        rows: Rows,
        *,
        ids: Mapping[str, str | None] | None = None,
        batch_rows: int | None = 5,
        timeout: float = 10.0,
        attempts: int = 3,
        rule: FieldRule | None = None,
        quotas: tuple[tuple[int, float], ...] | None = (),
    ) -> Delivered:
        """Deliver rows in one action, as a write step does it, but in one thread: mapped, packed, recorded in the
        ledger, sent, answered.

        Args:
            ids: Record ids that are known, by primary key.
            timeout: Seconds of a request.
            attempts: At a request that meets an outage.
            rule: Of the field `text`.
            quotas: See `spec`.
        """
        self._runs += 1
        mode = Mode.INSERT if action is Action.CREATE else Mode.UPSERT
        destination = self.spec(timeout=timeout, quotas=quotas)
        name = f"direct_{self._runs}"
        sync, ctx = self.sync(mode, name, destination=destination, rule=rule or FieldRule()), self.context()
        connected = connect_account(sync, ctx)
        account = identify(sync, ctx, connected)
        lease = self.ledger.acquire(state_key(sync, account), ctx.run_id, ctx.worker, alive=ctx.alive, known=False)
        shard = self.ledger.begin_shard(lease, 0, ctx.worker)
        begin, begun = len(self.proxy.seen), len(self.batches)
        outcomes: dict[str, Outcome] = {}

        def told(batch: Sequence[Row], results: Sequence[Outcome]) -> None:
            outcomes.update((row.key, outcome) for row, outcome in zip(batch, results, strict=True))

        sending = open_line(
            sync, ctx, connected, Home.of(ctx.storage, sync.name, account), shard, told,
            in_flight=1, retry=RetrySettings(attempts=attempts, base=0.01, cap=0.05, patience=20.0),
        )  # fmt: skip
        limits = limits_of(
            connected.destination.limits(sync.object, action), rows=batch_rows, most_bytes=None, row_bytes=None
        )
        packer = Packer({action: limits})
        mapper = Mapper(sync, connected.destination, limits.row_bytes)
        sender = Sender(sending)
        try:
            for mapped in mapper.map(self._shard(action, rows, ids or {})):
                if mapped.outcome is not None:
                    outcomes[mapped.row.key] = mapped.outcome
                    continue
                for _, batch in packer.add(mapped.row):
                    sender.send(action, batch)
            for _, batch in packer.rest():
                sender.send(action, batch)
        finally:
            sender.close()
            if sending.log is not None:
                sending.log.close()
            self.ledger.release(lease)
        return Delivered(outcomes, self.proxy.seen[begin:], sending.reason, self.batches[begun:])

    def _shard(self, action: Action, rows: Rows, ids: Mapping[str, str | None]) -> pa.RecordBatch:
        count = len(rows)
        fixed: dict[str, Any] = {
            "key": pa.array(list(rows), pa.string()),
            "match": pa.array([self.identity(key, row) for key, row in rows.items()], pa.string()),
            "change": pa.array([_CHANGE[action].value] * count, pa.string()),
            "action": pa.array([action.value] * count, pa.string()),
            "partition": pa.array([""] * count, pa.string()),
            "destination_id": pa.array([ids.get(key) for key in rows], pa.string()),
            "source_digest": pa.array([""] * count, pa.string()),
            "wave": pa.array([0] * count, pa.int64()),
            "follows": pa.nulls(count, pa.string()),
            "known_payload_digest": pa.nulls(count, pa.string()),
        }
        columns = {f"c:{f.name}": pa.array([row.get(f.name) for row in rows.values()], f.type) for f in self.schema}
        return pa.RecordBatch.from_pydict({**fixed, **columns})

    def run(self, sync: SyncSpec, rows: Rows) -> Ran:
        """A whole run of a sync whose model has these rows: query, plan, write, record."""
        table = pa.Table.from_pylist(
            [{KEY: key, **{name: row.get(name) for name in self.fields}} for key, row in rows.items()],
            pa.schema([pa.field(KEY, pa.string()), *self.schema]),
        )
        with duckdb.connect(str(self._storage / "warehouse.duckdb")) as connection:
            connection.register("given", table)
            connection.execute("CREATE OR REPLACE TABLE rows AS SELECT * FROM given")
        (self._storage / "rows.sql").write_text("SELECT * FROM rows", "utf-8")
        ctx = self.context()
        begin = len(self.proxy.seen)
        run_query(sync.model, self._storage, f"query-{ctx.run_id}", (), self.told.append, env=self._env)
        made = plan(sync, ctx)
        retry = RetrySettings(attempts=3, base=0.01, cap=0.05, patience=20.0)
        parts = [write(sync, ctx, shard, retry=retry) for shard in made.shards]
        return Ran(record(sync, ctx, made, parts), self.proxy.seen[begin:])

    @contextmanager
    def conversation(self) -> Iterator[tuple[Destination, Conversation]]:
        """A connection for flows that only read."""
        sync, ctx = self.sync(Mode.UPSERT), self.context()
        connected = connect_account(sync, ctx)
        account = account_key(sync, ctx, connected)
        retry = RetrySettings(attempts=2, base=0.01, cap=0.05, patience=20.0)
        with Conversation(sync.destination, ctx, connected, account, retry) as conversation:
            yield connected.destination, conversation

    # What is there

    def seed(self, rows: Rows) -> dict[str, str | None]:
        """Have these records at the server.

        Returns:
            Their ids, where the destination has said them.

        Raises:
            RuntimeError: They could not be made.
        """
        if not rows or self.subject.seed(rows):
            return {}
        action = Action.UPSERT if self.modes & {Mode.UPSERT, Mode.MIRROR} else Action.CREATE
        made = self.deliver(action, rows, batch_rows=None)
        if made.of(Status.CREATED, Status.UPDATED) != set(rows):
            raise RuntimeError(f"The records that the check needs could not be made: {made.outcomes}. Write `seed`.")
        return {key: outcome.destination_id for key, outcome in made.outcomes.items()}

    def repeat(self, action: Action) -> Repeat:
        return self.destination.repeat(self.subject.object, action)

    def secrets(self) -> tuple[str, ...]:
        """What no message may show."""
        auth = self.subject.auth or AuthSpec("")
        named = [self._env.get(value.name, "") for value in auth.settings.values() if isinstance(value, Env)]
        return tuple(text for text in (self.subject.token, self.subject.secret, *named) if len(text) > 3)


def _nobody(_holder: Holder) -> bool:
    return False


@dataclass(slots=True)
class Bench:
    """A subject whose server runs, and the proxy before it; checks have a `Lab` each."""

    subject: Subject
    proxy: Proxy
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def lab(self) -> Iterator[Lab]:
        """An empty bench for one check; one at a time."""
        with self.lock, tempfile.TemporaryDirectory(prefix="conformance-") as folder, _registered(self.subject):
            self.proxy.clear()
            self.subject.reset()
            lab = Lab(self.subject, self.proxy, Path(folder))
            try:
                if lab.destination.transport == "http":
                    lab.connect()
                yield lab
            finally:
                self.proxy.clear()
                lab.close()


@contextmanager
def _registered(subject: Subject) -> Iterator[None]:
    with ExitStack() as stack:
        if not isinstance(subject.destination, str):
            stack.enter_context(KINDS.registered(subject.destination))
        yield


@contextmanager
def opened(subject: Subject) -> Iterator[Bench]:
    """The subject's server with a proxy before it, for as long as the context lasts."""
    with subject.serve() as url:
        if instance(subject).transport != "http":
            # Nothing can stand between: what needs it is skipped, with this reason.
            yield Bench(subject, Proxy(url, url))
            return
        with proxied(url) as proxy:
            yield Bench(subject, proxy)


def instance(subject: Subject) -> Destination:
    """The destination, to be asked what it declares; needs no server."""
    with _registered(subject):
        kind = subject.destination if isinstance(subject.destination, str) else subject.destination.kind
        form = KINDS[kind].options
        option = subject.option
        if form is not None and (option is None or isinstance(option, Mapping)):
            option = form[1].model_validate(option or {})
        return DestinationSpec("conformance", kind, TargetSpec("conformance"), option=option).create()


def modes_of(subject: Subject, destination: Destination) -> frozenset[Mode]:
    """The modes that the subject's object takes."""
    if subject.modes is not None:
        return subject.modes
    if destination.options is None:
        return destination.modes
    fields = tuple(subject.good(key_of(0), 1))
    found = set()
    for mode in destination.modes:
        with suppress(Misconfigured):
            destination.check(subject.object, mode, () if mode is Mode.APPEND else subject.match, fields)
            found.add(mode)
    return frozenset(found)
