"""The line from a sync to its account: what the senders of a write op share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from integrations_dagster.delivery.engine import RetrySettings
from integrations_dagster.delivery.gate import AccountGate
from integrations_dagster.delivery.limits import Concurrency
from integrations_dagster.delivery.request_log import FOLDER, RequestLogFile
from integrations_dagster.delivery.scrub import Scrubber, scrub_reason, url_secrets
from integrations_dagster.delivery.sender import Sending
from integrations_dagster.ledger.leases import ShardLease
from integrations_dagster.planner.state import Home, slug
from integrations_dagster.sync.account import Connected, account_key, use_of
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.spec import Env, SyncSpec
from integrations_dagster.vocabulary import Outcome, Row

FIRST_IN_FLIGHT = 4
"""Requests in flight, over all shards, with which the first run to an account begins."""


def retry_settings(sync: SyncSpec) -> RetrySettings:
    """How long the sync's destination is tried."""
    spec = sync.destination
    return RetrySettings(attempts=spec.attempts, base=spec.backoff, cap=spec.backoff_cap)


def request_log(sync: SyncSpec, ctx: RunContext, connected: Connected, home: Home, shard: ShardLease) -> RequestLogFile:
    """Where the requests of one attempt at a shard are kept."""
    return RequestLogFile(
        home.folder / FOLDER / slug(ctx.run_id),
        shard.shard,
        shard.fence,
        secrets=lambda: _secrets(sync, connected),
        sensitive=sync.sensitive,
        bodies=sync.destination.log_bodies,
        warn=ctx.log,
    )


def _secrets(sync: SyncSpec, connected: Connected) -> tuple[str, ...]:
    account = connected.account
    url = url_secrets(account.base_url) if isinstance(sync.destination.target.base_url, Env) else ()
    return (*connected.credentials.secrets(), *((account.secret,) if account.secret else ()), *url)


def open_line(
    sync: SyncSpec,
    ctx: RunContext,
    connected: Connected,
    home: Home,
    shard: ShardLease,
    told: Callable[[Sequence[Row], Sequence[Outcome]], None],
    *,
    in_flight: int,
    shards: int = 1,
    retry: RetrySettings | None = None,
) -> Sending:
    """What the senders of one shard share; the caller closes its log.

    Args:
        told: See `Sending`.
        in_flight: Requests in flight at the most, of this shard.
        shards: Shards of the run, which begin with their share of what the last run came to.
    """
    stop = threading.Event()
    account = account_key(sync, ctx, connected)
    learned = ctx.ledger.learned_concurrency(account) or FIRST_IN_FLIGHT
    concurrency = Concurrency(in_flight, max(1, learned // shards))
    gate = AccountGate(ctx.ledger, use_of(sync, ctx, connected, account), connected.destination, stop, concurrency)

    scrubber = Scrubber(lambda: _secrets(sync, connected))

    def scrub_all(rows: Sequence[Row], text: str) -> str:
        return scrub_reason(scrubber.text(text), rows, sync.sensitive)

    return Sending(
        sync=sync.name,
        object=sync.object,
        match_fields=tuple(sync.match),
        destination=connected.destination,
        account=connected.account,
        credentials=connected.credentials,
        ledger=ctx.ledger,
        shard=shard,
        gate=gate,
        stop=stop,
        told=told,
        scrub_all=scrub_all,
        log=request_log(sync, ctx, connected, home, shard),
        retry=retry or retry_settings(sync),
    )
