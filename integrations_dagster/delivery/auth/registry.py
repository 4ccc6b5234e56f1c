"""From the settings of an account to its credentials.

`credentials(account, storage)` makes them: one instance for a process, shared by its threads. Tokens that they get are
kept below `<storage>/tokens`. `fingerprint(account, storage)` tells whether they may lead to another account than
before.

The HTTP client and authlib are imported where a kind needs them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from integrations_dagster.delivery.accounts import Account
from integrations_dagster.delivery.auth.kinds import KINDS
from integrations_dagster.delivery.auth.tokens import TokenFile, digest
from integrations_dagster.delivery.credentials import Credentials, Fixed
from integrations_dagster.vocabulary import Misconfigured

if TYPE_CHECKING:
    from integrations_dagster.delivery.auth.oauth import Client

__all__ = ["KINDS", "authorizing", "checked", "credentials", "fingerprint", "token_file"]

FOLDER = "tokens"


def credentials(account: Account, storage: Path) -> Credentials:
    """The credentials of an account.

    Args:
        account: The account, with the values of its settings.
        storage: The storage folder, where tokens are kept.

    Raises:
        Misconfigured: A setting is missing or has no usable form.
    """
    if account.auth is None:
        return Fixed({})
    settings = checked(account)
    match account.auth.kind:
        case "bearer":
            return Fixed({"Authorization": f"Bearer {settings['token']}"}, None, settings["token"])
        case "api_key" if "header" in settings:
            return Fixed({settings["header"]: settings["key"]}, None, settings["key"])
        case "api_key":
            return Fixed({}, {settings["query"]: settings["key"]}, settings["key"])
        case "basic":
            pair = base64.b64encode(f"{settings['username']}:{settings['password']}".encode()).decode()
            return Fixed({"Authorization": f"Basic {pair}"}, None, settings["password"], pair)
        case _:
            return _shared(account, settings, storage)


def _shared(account: Account, settings: Mapping[str, str], storage: Path) -> Credentials:
    from integrations_dagster.delivery.auth.shared import Shared, TokenSource

    assert account.auth is not None
    remedy = _remedy(account)
    source: TokenSource
    if account.auth.kind == "session":
        from integrations_dagster.delivery.auth.login import Login

        source = Login(settings, account.base_url, remedy)
    else:
        from integrations_dagster.delivery.auth import oauth

        kinds: Mapping[str, Callable[[Mapping[str, str], str], TokenSource]] = {
            "client_credentials": oauth.ClientCredentials,
            "refresh_token": oauth.RefreshToken,
            "jwt_bearer": oauth.JwtBearer,
        }
        try:
            source = kinds[account.auth.kind](settings, remedy)
        except ValueError as error:
            raise Misconfigured(f"{account.place}: {error}", "Correct `auth` of the target.") from None
    return Shared(source, token_file(account, storage))


def authorizing(account: Account) -> Client:
    """The OAuth client of an account whose refresh token a person gives by `integrations auth`.

    Raises:
        Misconfigured: Its kind needs no such step, or a setting is missing.
    """
    if account.auth is None or account.auth.kind != "refresh_token":
        kind = "nothing" if account.auth is None else account.auth.kind
        raise Misconfigured(
            f"{account.place} is authenticated by {kind}, for which there is nothing to authorize.",
            "`integrations auth` is for `auth: {kind: refresh_token, ...}`.",
        )
    settings = checked(account)
    if "authorize_url" not in settings:
        raise Misconfigured(
            f"{account.place}: auth lacks authorize_url.", "Add the address where the vendor asks for permission."
        )
    from integrations_dagster.delivery.auth.oauth import Client

    return Client(settings, "Start again with a new code.")


def checked(account: Account) -> dict[str, str]:
    """The settings of an account's authentication, with defaults.

    Raises:
        Misconfigured: The kind is unknown; a setting is missing, or its value, which is not repeated, is wrong.
    """
    assert account.auth is not None
    kind = KINDS.get(account.auth.kind)
    if kind is None:
        raise Misconfigured(
            f"{account.place}: {account.auth.kind!r} is no kind of authentication.", f"Known: {', '.join(KINDS)}."
        )
    given = account.auth.settings
    for name, what in kind.wrong(given):
        setting = f"auth.{name}" if name else "auth"
        remedy = "Correct the target in its defs.yaml, or the environment variable that holds the value."
        raise Misconfigured(f"{account.place}: {setting} {what}.", remedy)
    # A default header would hide that a cookie travels as one.
    defaults = {
        name: setting.default
        for name, setting in kind.settings.items()
        if setting.default and not (name == "header" and "cookie" in given)
    }
    return defaults | dict(given)


def token_file(account: Account, storage: Path) -> TokenFile:
    """Where the token of an account is kept: the name tells accounts and settings apart, and none of the secrets."""
    assert account.auth is not None
    kind = KINDS[account.auth.kind]
    # Not the secrets: a client's new secret, or a user's new password, keeps the token.
    public = {name: value for name, value in account.auth.settings.items() if not kind.settings[name].secret}
    told = [account.identity, account.base_url, account.destination, account.target, account.auth.kind, public]
    return TokenFile(storage / FOLDER, digest(json.dumps(told, sort_keys=True)))


def fingerprint(account: Account, storage: Path) -> str:
    """A digest that changes when the credentials may lead to another account, and not when a token is refreshed."""
    if account.auth is None:
        return ""
    grant = ""
    if account.auth.kind == "refresh_token":
        from integrations_dagster.delivery.auth.oauth import seed

        stored = token_file(account, storage).read()
        own = seed(account.auth.settings)
        grant = stored.grant if stored is not None and stored.seed == own else own
    told = [account.identity, account.base_url, account.auth.kind, dict(account.auth.settings), grant]
    return digest(json.dumps(told, sort_keys=True))


def _remedy(account: Account) -> str:
    assert account.auth is not None
    if account.auth.kind == "refresh_token":
        if "authorize_url" not in account.auth.settings:
            return (
                "Give a new refresh token in auth.refresh_token of the target, or add authorize_url and run "
                f"`integrations auth {account.destination} --target {account.target}`."
            )
        return f"Run `integrations auth {account.destination} --target {account.target}`, and launch the run again."
    secret = {"client_credentials": "client_id and client_secret", "jwt_bearer": "issuer, subject and private_key"}
    names = secret.get(account.auth.kind, "username and password")
    return f"Check {names} in `auth` of the target, and that the vendor has not withdrawn them."
