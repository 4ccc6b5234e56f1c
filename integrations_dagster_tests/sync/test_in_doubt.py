"""A destination whose requests must not be repeated: an answer that is lost leaves its rows in doubt, and held."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow.parquet as pq
import pytest

from integrations_dagster.destinations import registry
from integrations_dagster.destinations.base import Repeat
from integrations_dagster.destinations.webhook import Webhook
from integrations_dagster.ledger.batches import SentRow
from integrations_dagster.ledger.leases import Lease
from integrations_dagster.sync.record import record
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, SyncSpec, TargetSpec
from integrations_dagster.sync.state import state_key
from integrations_dagster.vocabulary import Action, Change, Mode, Outcome, Status, Traffic
from integrations_dagster_tests.sync.harness import Bench

COLUMNS = {"id": "INTEGER", "name": "VARCHAR"}


class Letters(Webhook):
    """A receiver that prints a letter for every row it is sent, however often."""

    def repeat(self, object_: str, action: Action) -> Repeat:
        return Repeat.NEVER


@pytest.fixture
def sync(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> SyncSpec:
    def create(_kind: str, secrets: Mapping[str, str] | None = None, _option: object = None) -> Letters:
        return Letters(secrets)

    monkeypatch.setattr(registry, "create", create)
    load(bench, 1)
    target = TargetSpec("sandbox", sandbox=True)
    return SyncSpec(
        name="letters",
        model=bench.model("people", "SELECT * FROM people"),
        destination=DestinationSpec("post", "webhook", target, timeout=2.0, in_flight=2),
        object="letters",
        mode=Mode.UPSERT,
        fields=(FieldSpec("name", "name"),),
        batch_rows=5,
    )


def load(bench: Bench, version: int) -> None:
    bench.load("people", [{"id": i, "name": f"{i} v{version}"} for i in range(20)], COLUMNS)


def lose(bench: Bench, *, applied: bool) -> None:
    fault = {"kind": "reset", "applied": applied}
    bench.client.faults([{"match": {"path": "/webhook/*"}, "times": 1, "fault": fault}])


@pytest.mark.quick(1)
@pytest.mark.parametrize("applied", [True, False], ids=["took-effect", "had-no-effect"])
def test_rows_whose_answer_was_lost_are_named_held_and_never_sent_again(
    bench: Bench, sync: SyncSpec, applied: bool
) -> None:
    lose(bench, applied=applied)
    report = bench.run(sync)
    doubtful = {bad.key for bad in report.bad_rows if bad.status is Status.IN_DOUBT}
    assert report.outcomes[Status.IN_DOUBT] == 5 == len(doubtful)
    assert report.outcomes[Status.CREATED] + report.outcomes[Status.UNSENT] == 15
    load(bench, 2)
    later = bench.run(sync)
    assert later.counts.held == 5
    assert later.candidates == 15
    writes = bench.client.webhook_writes("post", "letters")
    assert all(writes.get(key, 0) == (1 if applied else 0) for key in doubtful), writes


def test_a_killed_attempt_leaves_doubt_and_is_not_repeated_by_the_next(bench: Bench, sync: SyncSpec) -> None:
    ctx = bench.context()
    made = bench.plan(sync, ctx)
    lease = Lease(state_key(sync, made.account), made.run_id, made.fence)
    dead = bench.ledger.begin_shard(lease, 0, ctx.worker)
    first = pq.read_table(made.shards[0].path).to_pylist()[:5]
    rows = tuple(
        SentRow(place, r["key"], r["match"], Change.ADDED, Action.UPSERT, "", None, r["source_digest"], "")
        for place, r in enumerate(first)
    )
    batch = bench.ledger.open_batch(dead, rows, idempotency_key="first", repeatable=False, timeout=0.5, send_within=0.5)
    report = record(sync, ctx, made, bench.write(sync, ctx, made.shards))
    assert (report.outcomes[Status.IN_DOUBT], report.outcomes[Status.CREATED]) == (5, 15)
    assert set(bench.client.webhook_writes("post", "letters")) == {str(i) for i in range(20)} - {r.key for r in rows}
    # A late answer resolves the doubt: these rows were delivered after all.
    bench.ledger.complete_batch(batch, tuple(Outcome(Status.CREATED) for _ in rows), Traffic())
    later = bench.run(sync)
    assert (later.counts.held, later.counts.unchanged, later.candidates) == (0, 20, 0)
