"""From what YAML says of a target to an account that can be reached: base URL, secrets, identity.

The environment is read here and nowhere else, at run time.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from integrations_dagster.destinations.registry import KINDS
from integrations_dagster.sandbox.endpoint import read_endpoint
from integrations_dagster.vocabulary import Misconfigured


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """How requests to a target are authenticated, as its settings say it.

    Attributes:
        kind: A key of `delivery.auth.registry.KINDS`.
        plain: Settings that are given as text.
        variables: Settings that an environment variable holds, by its name.
    """

    kind: str
    plain: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """What a target says, with environment variables by name.

    Attributes:
        destination: Name of the destination in YAML.
        kind: Its kind.
        target: Name of the target.
        sandbox: Whether it is the local sandbox.
        base_url: Base URL, or None where `base_url_env` names it.
        token_env: Environment variable of the bearer token; the short form of `auth` with kind "bearer".
        secret_env: Environment variable of the signing secret.
        timeout: Seconds a request may take.
        auth: How requests are authenticated, where it is not `token_env`.
    """

    destination: str
    kind: str
    target: str
    sandbox: bool
    base_url: str | None
    base_url_env: str | None
    token_env: str | None
    secret_env: str | None
    timeout: float
    auth: AuthSettings | None = None


@dataclass(frozen=True, slots=True)
class Auth:
    """How requests to an account are authenticated, with the values of its settings.

    Attributes:
        kind: A key of `delivery.auth.registry.KINDS`.
        settings: What the kind takes, by name; secrets among them, so that the text form shows none.
    """

    kind: str
    settings: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """An account that requests can be sent to. Secrets are left out of its text form.

    Attributes:
        identity: What the account is keyed by as far as the settings tell; for real accounts, the destination's
            `identify` flow adds the portal or organization.
        base_url: As the settings say it.
        timeout: Seconds a request may take.
        in_sandbox: Whether it is the local sandbox.
        auth: How requests are authenticated; None: not at all.
        secret: Signing secret.
        destination: Name of the destination in YAML.
        target: Name of the target.
    """

    identity: str
    base_url: str
    timeout: float
    in_sandbox: bool
    auth: Auth | None = None
    secret: str | None = field(default=None, repr=False)
    destination: str = ""
    target: str = ""

    @property
    def place(self) -> str:
        """The account as messages call it."""
        return f"Destination {self.destination!r}, target {self.target!r}"


def bearer(token: str) -> Auth:
    """A token that does not change."""
    return Auth("bearer", {"token": token})


def connect(settings: AccountSettings, storage: Path, env: Mapping[str, str]) -> Account:
    """Resolve an account.

    Raises:
        Misconfigured: An environment variable is missing, the URL is none, or the sandbox has never been started.
    """
    if settings.sandbox:
        return _sandbox(settings, storage)
    url = settings.base_url or _variable(settings, settings.base_url_env, "base_url", env)
    schemes = KINDS[settings.kind].schemes
    host = _host(settings, url, schemes)
    return Account(
        # Path and query of a webhook's URL may hold a secret, so only a digest of the whole stands for it.
        identity=f"{settings.kind}:{host}",
        base_url=url,
        timeout=settings.timeout,
        in_sandbox=False,
        auth=_auth(settings, env),
        secret=_variable(settings, settings.secret_env, "secret", env) if settings.secret_env else None,
        destination=settings.destination,
        target=settings.target,
    )


def _local(settings: AccountSettings, storage: Path) -> Account:
    """The stand-in of a kind that needs no server: a folder of the destination's own below the storage folder."""
    folder = storage.resolve() / "sandbox" / settings.kind / settings.destination
    folder.mkdir(parents=True, exist_ok=True)
    # Whoever deletes the folder has another account, of which nothing is known.
    mark = folder / ".id"
    if not mark.exists():
        draft = folder / f".id.{uuid.uuid4().hex}"
        draft.write_text(uuid.uuid4().hex, "utf-8")
        # The first of several processes decides.
        with suppress(FileExistsError):
            mark.hardlink_to(draft)
        draft.unlink()
    return Account(
        identity=f"{settings.kind}:sandbox:{mark.read_text('utf-8')}",
        base_url=KINDS[settings.kind].local_sandbox.replace("{folder}", quote(folder.as_posix())),
        timeout=settings.timeout,
        in_sandbox=True,
        destination=settings.destination,
        target=settings.target,
    )


def _sandbox(settings: AccountSettings, storage: Path) -> Account:
    if KINDS[settings.kind].local_sandbox:
        return _local(settings, storage)
    endpoint = read_endpoint(storage)
    if endpoint is None:
        raise Misconfigured(
            f"{_place(settings)}: the sandbox has never been started for the storage folder {storage}.",
            "Start it with `make ui` or `integrations sandbox`.",
        )
    url = endpoint.url.rstrip("/")
    own = KINDS[settings.kind].sandbox_path
    return Account(
        identity=f"{settings.kind}:sandbox:{endpoint.id}" + (f":{settings.destination}" if own else ""),
        base_url=f"{url}/{own}/{settings.destination}" if own else url,
        timeout=settings.timeout,
        in_sandbox=True,
        auth=bearer(endpoint.token) if KINDS[settings.kind].auth == "bearer" else None,
        secret=endpoint.secret,
        destination=settings.destination,
        target=settings.target,
    )


def _auth(settings: AccountSettings, env: Mapping[str, str]) -> Auth | None:
    if settings.auth is None:
        return bearer(_variable(settings, settings.token_env, "token", env)) if settings.token_env else None
    values = dict(settings.auth.plain)
    for name, variable in settings.auth.variables.items():
        # Passwords and keys travel in bodies, where any text is allowed; what a header carries is checked by its kind.
        values[name] = _read(settings, variable, f"auth.{name}", env)
    return Auth(settings.auth.kind, values)


def _host(settings: AccountSettings, url: str, schemes: Collection[str]) -> str:
    """The host of a base URL; the URL itself may hold a secret and is not told."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # raises for what is no port
    except ValueError:
        host = None
    web = "https" in schemes
    # A file's URL names no host.
    if (host is None and web) or parts.scheme not in schemes or any(c.isspace() for c in url):
        raise Misconfigured(
            f"{_place(settings)}: base_url is not {'an http(s)' if web else 'a'} URL that {settings.kind} takes.",
            "Write it as https://host/path." if web else f"Begin it with: {', '.join(sorted(schemes))}.",
        )
    return host or ""


def _place(settings: AccountSettings) -> str:
    return f"Destination {settings.destination!r}, target {settings.target!r}"


def _variable(settings: AccountSettings, name: str | None, setting: str, env: Mapping[str, str]) -> str:
    if name is None:
        raise Misconfigured(
            f"{_place(settings)}: {setting} is not set.", f"Add `{setting}:` to the target in its defs.yaml."
        )
    value = _read(settings, name, setting, env)
    if not value.isascii() or not value.isprintable() or " " in value:
        raise Misconfigured(
            f"{_place(settings)}: the environment variable {name} ({setting}) holds characters no request can carry.",
            "It may have been cut or pasted with a line break; set it again.",
        )
    return value


def _read(settings: AccountSettings, name: str, setting: str, env: Mapping[str, str]) -> str:
    value = env.get(name, "").strip()
    if not value:
        raise Misconfigured(
            f"{_place(settings)}: the environment variable {name} ({setting}) is not set.",
            f"Set {name} where Dagster's run processes get their environment, and launch the run again.",
        )
    return value
