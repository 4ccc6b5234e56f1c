"""The account that a sync delivers to: reached, and identified."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from integrations_dagster.delivery.accounts import Account, AccountSettings, AuthSettings, connect
from integrations_dagster.delivery.auth.registry import credentials, fingerprint
from integrations_dagster.delivery.credentials import Credentials
from integrations_dagster.delivery.engine import Drive, RetrySettings, refusal
from integrations_dagster.delivery.gate import AccountGate, LoosePermits
from integrations_dagster.delivery.limits import Concurrency
from integrations_dagster.delivery.transports.registry import open_session
from integrations_dagster.destinations.base import Destination, Flow, Repeat
from integrations_dagster.destinations.errors import DestinationError, Unavailable
from integrations_dagster.ledger.quotas import Use
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.spec import AuthSpec, DestinationSpec, Env, SyncSpec
from integrations_dagster.vocabulary import IntegrationsError, Misconfigured

T = TypeVar("T")


class DestinationUnavailable(IntegrationsError):
    """The destination did not answer before anything was sent."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A destination and its account, ready to be sent to; shared by the threads of a process."""

    destination: Destination
    account: Account
    credentials: Credentials


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
        auth=None if target.auth is None else _auth_of(target.auth),
    )


def _auth_of(auth: AuthSpec) -> AuthSettings:
    return AuthSettings(
        auth.kind,
        {name: value for name, value in auth.settings.items() if isinstance(value, str)},
        {name: value.name for name, value in auth.settings.items() if isinstance(value, Env)},
    )


def connect_account(sync: SyncSpec, ctx: RunContext) -> Connected:
    """Resolve the sync's account from settings and environment.

    Raises:
        Misconfigured: Naming the sync, what is missing, and the remedy.
    """
    return connect_destination(sync.destination, ctx, _who(sync))


def connect_destination(spec: DestinationSpec, ctx: RunContext, who: str) -> Connected:
    """Resolve a destination's account from settings and environment.

    Args:
        who: What asks, as errors begin: "Sync 'contacts' (defs/contacts/defs.yaml:3)".

    Raises:
        Misconfigured: Naming what is missing, and the remedy.
    """
    try:
        account = connect(settings_of(spec), ctx.storage, ctx.env)
        lets_in = credentials(account, ctx.storage)
    except Misconfigured as error:
        raise Misconfigured(f"{who}: {error.message}", error.remedy) from None
    secrets = {"secret": account.secret} if account.secret else {}
    return Connected(spec.create(secrets), account, lets_in)


def _who(sync: SyncSpec) -> str:
    return f"Sync {sync.name!r} ({sync.source})"


def identify(sync: SyncSpec, ctx: RunContext, connected: Connected) -> str:
    """What the sync's state is keyed by beside its name: the account and the object in it.

    A real account is asked once for each token, and its answer is kept, so that a run with nothing to do sends nothing.

    Raises:
        DestinationUnavailable: It was never asked before, and does not answer.
        Misconfigured: It was never asked before, and refuses the credentials.
    """
    return f"{account_key(sync, ctx, connected)}/{sync.object}"


def account_key(sync: SyncSpec, ctx: RunContext, connected: Connected) -> str:
    """The account itself, which all its syncs share: what quotas and circuits are keyed by. See `identify`."""
    return account_of(sync.destination, ctx, connected, _who(sync))


def account_of(spec: DestinationSpec, ctx: RunContext, connected: Connected, who: str) -> str:
    """The account of a destination; see `account_key`, and `connect_destination` for `who`."""
    account = connected.account
    if account.in_sandbox:
        return account.identity
    asked = "\0".join((account.identity, account.base_url, fingerprint(account, ctx.storage)))
    # The name of the file tells accounts apart, and nothing of the credentials.
    path = ctx.storage / "accounts" / hashlib.blake2b(asked.encode(), digest_size=16).hexdigest()
    if path.exists():
        return path.read_text("utf-8")
    told = _probe(spec, ctx, connected, who)
    distinct = told or hashlib.blake2b(account.base_url.encode(), digest_size=8).hexdigest()
    identity = f"{account.identity}:{distinct}"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    draft.write_text(identity, "utf-8")
    draft.replace(path)
    return identity


def _probe(spec: DestinationSpec, ctx: RunContext, connected: Connected, who: str) -> str | None:
    destination = connected.destination
    if destination.identify() is None:
        return None

    def start() -> Flow[str]:
        flow = destination.identify()
        assert flow is not None
        return flow

    where = f"{who}, target {spec.target.name!r}"
    try:
        return ask_destination(spec, ctx, connected, connected.account.identity, start, RetrySettings(attempts=3))
    except Unavailable as error:
        remedy = "Nothing was sent and nothing is lost: launch the run again when it answers."
        raise DestinationUnavailable(f"{where}: {destination.label} is unavailable. {error.reason}", remedy) from error
    except DestinationError as error:
        raise Misconfigured(f"{where}: {refusal(destination.label, error)}") from error


def use_of(sync: SyncSpec, ctx: RunContext, connected: Connected, account: str) -> Use:
    """The run's use of an account, with what is published of its limits."""
    return _use(sync.destination, ctx, connected, account)


def _use(spec: DestinationSpec, ctx: RunContext, connected: Connected, account: str) -> Use:
    published = connected.destination.account_limits()
    own = tuple((quota.requests, quota.seconds) for quota in published.quotas)
    return Use(
        account=account,
        run_id=ctx.run_id,
        began=ctx.ledger.now(),
        quotas=own if spec.quotas is None else spec.quotas,
        assumed=spec.quotas is None,
        concurrency=published.concurrency if spec.concurrency is None else spec.concurrency,
    )


def ask(
    sync: SyncSpec,
    ctx: RunContext,
    connected: Connected,
    account: str,
    start: Callable[[], Flow[T]],
    retry: RetrySettings | None = None,
) -> T:
    """Drive a flow that changes nothing, in this thread.

    Args:
        account: See `account_key`.
        start: Makes the flow.

    Raises:
        DestinationError: What retrying did not mend.
        Stopped: The run is being cancelled.
    """
    return ask_destination(sync.destination, ctx, connected, account, start, retry)


def ask_destination(
    spec: DestinationSpec,
    ctx: RunContext,
    connected: Connected,
    account: str,
    start: Callable[[], Flow[T]],
    retry: RetrySettings | None = None,
) -> T:
    """`ask`, for what is no sync's."""
    with Conversation(spec, ctx, connected, account, retry) as conversation:
        return conversation.ask(start)


class Conversation:
    """Asks an account one thing after the other over one connection, in the calling thread.

    Args:
        account: See `account_of`.
        retry: How long each request is tried; default: as the destination's settings say.
    """

    def __init__(
        self,
        spec: DestinationSpec,
        ctx: RunContext,
        connected: Connected,
        account: str,
        retry: RetrySettings | None = None,
    ) -> None:
        self.requests = 0
        """Requests so far, repeats included."""
        self._ctx = ctx
        self._connected = connected
        self._retry = retry or RetrySettings(spec.attempts, spec.backoff, spec.backoff_cap)
        use = _use(spec, ctx, connected, account)
        self._gate = AccountGate(ctx.ledger, use, connected.destination, ctx.stop, Concurrency(1))
        self._session = open_session(connected.destination, connected.account)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def ask(self, start: Callable[[], Flow[T]]) -> T:
        """Drive a flow that changes nothing.

        Raises:
            DestinationError: What retrying did not mend.
            Stopped: The run is being cancelled.
        """
        drive = Drive(
            self._session,
            self._connected.destination,
            self._connected.credentials,
            LoosePermits(self._gate),
            Repeat.ALWAYS,
            self._ctx.stop,
            self._retry,
        )
        try:
            return drive.run(start)
        finally:
            self.requests += drive.traffic.requests
