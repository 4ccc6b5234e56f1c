"""Where a sync's state lives: beside the storage folder, or in its warehouse; and moving it from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from integrations_dagster.planner.state import Home, connect, to_disk
from integrations_dagster.planner.warehouse_home import WarehouseHome, repeats, write_changes
from integrations_dagster.sync.account import connect_account, identify
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.published import publish_log
from integrations_dagster.sync.query import address_of
from integrations_dagster.sync.spec import EMBEDDED, WAREHOUSE, SyncSpec
from integrations_dagster.sync.state import HeldState, fold_into, spacing_of, state_key, wait_for_open_batches
from integrations_dagster.vocabulary import Misconfigured
from integrations_dagster.warehouses.registry import open_store

WHERE = {EMBEDDED: "files below the storage folder", WAREHOUSE: "the schema integrations of the warehouse"}


def home_of(sync: SyncSpec, ctx: RunContext, account: str) -> Home:
    """The sync's home.

    Raises:
        Misconfigured: The state is not where YAML says; naming what to do. Or the warehouse's URL is not known.
    """
    place = Home.of(ctx.storage, sync.name, account).place()
    if place is not None and place != sync.home:
        raise Misconfigured(
            f"Sync {sync.name!r} ({sync.source}) says `home: {sync.home}`, and its state for the account {account} is "
            f"in {WHERE[place]}.",
            f"Move it with `integrations home {sync.name} {sync.home}`, or write `home: {place}`. Nothing was sent.",
        )
    return _home_at(sync.home, sync, ctx, account)


def _home_at(place: str, sync: SyncSpec, ctx: RunContext, account: str) -> Home:
    home = Home.of(ctx.storage, sync.name, account)
    if place == EMBEDDED:
        return home
    address = address_of(sync.model.warehouse, ctx.env)
    url = sync.model.warehouse.url
    return WarehouseHome(
        home.folder,
        sync.name,
        account,
        address.name,
        partial(open_store, address),
        kind=address.kind,
        url=url.name if url else "",
    )


def place_of(sync: SyncSpec, ctx: RunContext) -> str | None:
    """Where the state of the sync (for the account in force) is: "embedded" or "warehouse"; None: there is none yet."""
    return Home.of(ctx.storage, sync.name, identify(sync, ctx, connect_account(sync, ctx))).place()


def move_home(sync: SyncSpec, ctx: RunContext, to: str, step: Callable[[str], None] = lambda _: None) -> str:
    """Move the state of a sync (for the account in force). Takes the sync's lease for as long as it lasts.

    At every moment exactly one home is in force: the one that the manifest in the storage folder names, which is
    replaced at once, when everything is in its new place. What is left in the old one is deleted then; if that is
    interrupted, the same command does it.

    Args:
        to: "embedded" or "warehouse".
        step: Told the name of each step before it is done.

    Returns:
        A sentence for a person.

    Raises:
        LeaseHeld: A run of the sync is under way.
        Misconfigured: The account cannot be resolved, or the warehouse cannot keep state.
    """
    account = identify(sync, ctx, connect_account(sync, ctx))
    lease = ctx.ledger.acquire(state_key(sync, account), ctx.run_id, ctx.worker, alive=ctx.alive, known=False)
    try:
        place = Home.of(ctx.storage, sync.name, account).place()
        if place is None:
            return f"Sync {sync.name!r} has no state yet for the account {account}; its first run makes it."
        home = _home_at(place, sync, ctx, account)
        if place == to:
            _clean(home if isinstance(home, WarehouseHome) else _warehouse_of(sync, ctx, account))
            return f"The state of sync {sync.name!r} is in {WHERE[to]} already."
        held = HeldState(lease, home)
        wait_for_open_batches(sync, ctx, lease.state_key, quietly=True)
        manifest = fold_into(ctx, held, spacing=spacing_of(sync))
        if isinstance(home, WarehouseHome):
            _to_files(home, held, ctx, step)
        else:
            target = _home_at(WAREHOUSE, sync, ctx, account)
            assert isinstance(target, WarehouseHome)
            _to_warehouse(held, target, ctx, step)
        told = f"{manifest.rows:,} record(s) of sync {sync.name!r} (account {account}) are in {WHERE[to]} now."
        return told if sync.home == to else f"{told} Write `home: {to}` in {sync.source}."
    finally:
        ctx.ledger.release(lease)


def _warehouse_of(sync: SyncSpec, ctx: RunContext, account: str) -> WarehouseHome | None:
    """The warehouse as a home, if it can be one and is known."""
    try:
        home = _home_at(WAREHOUSE, sync, ctx, account)
    except Misconfigured:
        return None
    return home if isinstance(home, WarehouseHome) else None


def _clean(home: WarehouseHome | None) -> None:
    if home is not None and home.pending():
        home.drop_pending()


def _to_warehouse(held: HeldState, target: WarehouseHome, ctx: RunContext, step: Callable[[str], None]) -> None:
    home = held.home
    manifest = home.manifest()
    name = f"fold-move-{manifest.generation}"
    step("copy")
    home.folder.mkdir(parents=True, exist_ok=True)
    with connect(home.folder) as connection:
        home.attach(connection, manifest)
        for kind in ("snapshot", "held"):
            # Everything is new there.
            connection.execute(f"CREATE TEMP VIEW {kind}_all AS SELECT * FROM {kind}")
            connection.execute(f"CREATE TEMP VIEW {kind}_none AS SELECT * FROM {kind} WHERE false")
            write_changes(connection, kind, f"{kind}_none", f"{kind}_all", home.folder / name)
        shared, several = (repeats(connection, "snapshot", column) for column in ("match", "key"))
    moved = replace(manifest, snapshot=name, held="", values="", shared=shared, several=several)
    with target.prepared(moved) as commit, ctx.ledger.guarded(held.lease):
        step("switch")
        commit()
    step("clean")
    target.clean()
    step("log")
    publish_log(ctx, target)


def _to_files(home: WarehouseHome, held: HeldState, ctx: RunContext, step: Callable[[str], None]) -> None:
    state = home.state()
    assert state is not None
    manifest = home.manifest()
    name = f"{manifest.generation}-{manifest.last_number}.parquet"
    step("copy")
    snapshot, held_rows = home.folder / f"snapshot-{name}", home.folder / f"held-{name}"
    home.take(state, snapshot, held_rows)
    to_disk(home.folder)
    home.note_pending(state)
    files = Home(home.folder)
    with ctx.ledger.guarded(held.lease):
        step("switch")
        files.swap(replace(manifest, snapshot=snapshot.name, held=held_rows.name))
    step("clean")
    home.drop_pending()
    files.clean()
