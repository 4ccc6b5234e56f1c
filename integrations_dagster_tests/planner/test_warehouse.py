"""The home in the warehouse: what leaves it, and what a fold that is killed anywhere leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from integrations_dagster.planner.fold import fold
from integrations_dagster.planner.warehouse_home import StateMoved, WarehouseHome
from integrations_dagster.vocabulary import LeaseLost, Mode
from integrations_dagster.warehouses.base import WarehouseAddress
from integrations_dagster.warehouses.postgres_store import PostgresStore
from integrations_dagster.warehouses.store import rendered
from integrations_dagster_tests.planner.world import STATE, WORKER, World

MODEL = {"a": ("x@x.org", "1"), "b": ("y@x.org", "2")}
LATER = {"a": ("x@x.org", "new"), "c": ("z@x.org", "3")}


class Killed(BaseException):
    """What nothing catches."""


@pytest.fixture
def world(tmp_path: Path, address: WarehouseAddress) -> Iterator[World]:
    world = World(tmp_path, mode=Mode.MIRROR, warehouse=address)
    yield world
    world.close()


def home_of(world: World) -> WarehouseHome:
    assert isinstance(world.home, WarehouseHome)
    return world.home


def test_only_what_may_differ_leaves_the_warehouse(world: World) -> None:
    model = {str(i): (f"{i}@x.org", "1") for i in range(300)}
    world.run(model)
    changed = {**model, "7": ("7@x.org", "2"), "8": ("9@x.org", "1"), "9": ("8@x.org", "1")}
    del changed["10"]
    result = world.run(changed)
    assert (result.counts.changed, result.counts.removed, result.counts.unchanged) == (3, 1, 296)
    # The folds of a world delete the files of its plans: what leaves is looked at in another one.
    left = home_of(world).leave(
        world.home.manifest(), world.source({"": model}), "contacts", world.folder, count_keys=True
    )
    assert sorted(map(str, pq.read_table(left.rows).column("key").to_pylist())) == ["10", "7", "8", "9"]
    assert sorted(map(str, pq.read_table(left.snapshot).column("key").to_pylist())) == ["7", "8", "9"]
    assert left.stayed == 296


def test_records_leave_the_warehouse_once(world: World) -> None:
    """Also where two that differ have one id: two keys, and one record at the destination."""
    model = {str(i): (f"{i}@x.org", "1") for i in range(20)}
    world.run(model)
    home = home_of(world)
    with home.open() as store, store.transaction():
        store.execute(f"UPDATE integrations.snapshot_{home.state()} SET destination_id = 'one' WHERE key IN ('7', '8')")
    changed = {**model, "7": ("7@x.org", "2"), "8": ("8@x.org", "2")}
    left = home.leave(home.manifest(), world.source({"": changed}), "contacts", world.folder, count_keys=True)
    assert sorted(map(str, pq.read_table(left.snapshot).column("key").to_pylist())) == ["7", "8"]


def test_a_removed_row_beside_a_repeated_key(world: World) -> None:
    """As many rows stay as records, and other ones."""
    model = {str(i): (f"{i}@x.org", "1") for i in range(20)}
    world.run(model)
    home = home_of(world)
    del model["7"]
    source = world.source({"": model})
    with home.open() as store, store.transaction():
        (name,) = source.tables.values()
        store.execute(f"INSERT INTO integrations.{name} SELECT * FROM integrations.{name} WHERE key = '8'")
    left = home.leave(home.manifest(), source, "contacts", world.folder, count_keys=True)
    assert list(map(str, pq.read_table(left.rows).column("key").to_pylist())) == ["8", "8"]
    assert sorted(map(str, pq.read_table(left.snapshot).column("key").to_pylist())) == ["7"]
    assert (left.stayed, left.stayed_keys) == (18, 19)


@pytest.mark.parametrize("begun", [False, True], ids=["first fold", "later fold"])
@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
def test_a_fold_that_is_killed_at_its_commit(
    world: World, monkeypatch: pytest.MonkeyPatch, *, begun: bool, after: bool
) -> None:
    if begun:
        world.run({"z": ("w@x.org", "0")})
    with monkeypatch.context() as patch:
        commit = PostgresStore.commit

        def dies(store: PostgresStore) -> None:
            if not writes:
                commit(store)
                return
            if after:
                commit(store)
            raise Killed

        writes = False
        apply = WarehouseHome.prepared
        run, died = world.run, False

        def prepared(home: WarehouseHome, manifest: object) -> object:
            nonlocal writes
            # The second fold of a run is the one that takes its answers in.
            writes = world.crm.writes > (1 if begun else 0)
            return apply(home, manifest)  # type: ignore[arg-type]

        patch.setattr(PostgresStore, "commit", dies)
        patch.setattr(WarehouseHome, "prepared", prepared)
        try:
            run(MODEL)
        except Killed:
            died = True
        writes = False
        assert died
    known = world.crm.writes
    world.run(MODEL)
    # Everything was answered, so that nothing is sent again.
    assert world.crm.writes == known
    assert world.crm.by_match == {"x@x.org": "1", "y@x.org": "2"}
    world.run(LATER)
    assert world.crm.by_match == {"x@x.org": "new", "z@x.org": "3"}
    assert world.run(LATER).shards == []


def test_a_fold_that_was_overtaken_changes_nothing(world: World) -> None:
    world.run(MODEL)
    lease = world.ledger.acquire(STATE, "slow", WORKER, alive=lambda _holder: False)
    home = world.home
    before = home.manifest()
    (home.plan_folder("slow")).mkdir(parents=True, exist_ok=True)
    slow = fold(home, world.ledger.closed_after(STATE, before.last_number - 1), now=1.0)
    world.run(LATER)
    records = world.records()
    with pytest.raises(LeaseLost), home.prepared(home.manifest()) as commit, world.ledger.guarded(lease):
        commit()
    with pytest.raises(StateMoved), home.prepared(slow.manifest):
        raise AssertionError("it must not begin")
    assert world.records() == records


def test_statements_are_rendered_for_each_dialect() -> None:
    sql = "SELECT lower(m.key) AS key FROM m ANTI JOIN s ON s.key = m.key WHERE strlen(m.match) > $1"
    postgres = rendered(sql, "postgres", "und-x-icu")
    assert postgres == (
        'SELECT LOWER(("m"."key") COLLATE "und-x-icu") AS "key" FROM "m" WHERE OCTET_LENGTH("m"."match") > $1 AND '
        'NOT EXISTS(SELECT 1 FROM "s" WHERE "s"."key" = "m"."key")'
    )
    assert "ANTI" in rendered(sql, "duckdb")
    assert '"KEY"' not in rendered(sql, "snowflake")
