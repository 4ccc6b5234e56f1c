"""The account that a sync delivers to: reached, and identified."""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass

from integrations_dagster.delivery.accounts import Account, AccountSettings, connect
from integrations_dagster.delivery.engine import Drive, RetrySettings
from integrations_dagster.delivery.sender import refusal
from integrations_dagster.delivery.session import HttpSession
from integrations_dagster.destinations import registry
from integrations_dagster.destinations.base import Destination, Flow
from integrations_dagster.destinations.errors import DestinationError, Unavailable
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.spec import DestinationSpec, Env, SyncSpec
from integrations_dagster.vocabulary import IntegrationsError, Misconfigured


class DestinationUnavailable(IntegrationsError):
    """The destination did not answer before anything was sent."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A destination and its account, ready to be sent to."""

    destination: Destination
    account: Account


def settings_of(spec: DestinationSpec) -> AccountSettings:
    """What the target in force says, for `delivery.accounts`."""
    target = spec.target
    return AccountSettings(
        destination=spec.name,
        kind=spec.kind,
        target=target.name,
        sandbox=target.sandbox,
        base_url=target.base_url if isinstance(target.base_url, str) else None,
        base_url_env=target.base_url.name if isinstance(target.base_url, Env) else None,
        token_env=target.token.name if target.token else None,
        secret_env=target.secret.name if target.secret else None,
        timeout=spec.timeout,
    )


def connect_account(sync: SyncSpec, ctx: RunContext) -> Connected:
    """Resolve the sync's account from settings and environment.

    Raises:
        Misconfigured: Naming the sync, what is missing, and the remedy.
    """
    try:
        account = connect(settings_of(sync.destination), ctx.storage, ctx.env)
    except Misconfigured as error:
        raise Misconfigured(f"Sync {sync.name!r} ({sync.source}): {error.message}", error.remedy) from None
    secrets = {"secret": account.secret} if account.secret else {}
    return Connected(registry.create(sync.destination.kind, secrets), account)


def identify(sync: SyncSpec, ctx: RunContext, connected: Connected) -> str:
    """What the sync's state is keyed by beside its name: the account and the object in it.

    A real account is asked once for each token, and its answer is kept, so that a run with nothing to do sends nothing.

    Raises:
        DestinationUnavailable: It was never asked before, and does not answer.
        Misconfigured: It was never asked before, and refuses the credentials.
    """
    return f"{_account(sync, ctx, connected)}/{sync.object}"


def _account(sync: SyncSpec, ctx: RunContext, connected: Connected) -> str:
    account = connected.account
    if account.in_sandbox:
        return account.identity
    asked = "\0".join((account.identity, account.base_url, account.token or ""))
    # The name of the file tells accounts apart, and nothing of the token.
    path = ctx.storage / "accounts" / hashlib.blake2b(asked.encode(), digest_size=16).hexdigest()
    if path.exists():
        return path.read_text("utf-8")
    told = _probe(sync, ctx, connected)
    distinct = told or hashlib.blake2b(account.base_url.encode(), digest_size=8).hexdigest()
    identity = f"{account.identity}:{distinct}"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    draft.write_text(identity, "utf-8")
    draft.replace(path)
    return identity


def _probe(sync: SyncSpec, ctx: RunContext, connected: Connected) -> str | None:
    destination = connected.destination
    if destination.identify() is None:
        return None

    def start() -> Flow[str]:
        flow = destination.identify()
        assert flow is not None
        return flow

    session = HttpSession(connected.account, destination.auth)
    drive = Drive(
        session,
        destination,
        permit=lambda _first: time.time() + 60,
        repeatable=True,
        stop=ctx.stop,
        settings=RetrySettings(attempts=3),
    )
    where = f"Sync {sync.name!r} ({sync.source}), target {sync.destination.target.name!r}"
    try:
        return drive.run(start)
    except Unavailable as error:
        remedy = "Nothing was sent and nothing is lost: launch the run again when it answers."
        raise DestinationUnavailable(f"{where}: {destination.label} is unavailable. {error.reason}", remedy) from error
    except DestinationError as error:
        raise Misconfigured(f"{where}: {refusal(destination.label, error)}") from error
    finally:
        session.close()
