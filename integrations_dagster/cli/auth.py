"""`integrations auth`: a person allows a destination's account to be used, once."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console

from integrations_dagster.delivery.accounts import Account, connect
from integrations_dagster.delivery.auth.registry import authorizing, credentials, token_file
from integrations_dagster.delivery.auth.tokens import Busy
from integrations_dagster.delivery.transports.http import HttpSession
from integrations_dagster.destinations import registry
from integrations_dagster.destinations.base import Request
from integrations_dagster.destinations.errors import DestinationError, Refused
from integrations_dagster.sync.account import settings_of
from integrations_dagster.vocabulary import IntegrationsError

if TYPE_CHECKING:
    from integrations_dagster.sync.spec import DestinationSpec


def authorize(spec: DestinationSpec, storage: Path, port: int, timeout: float, browser: bool, console: Console) -> None:
    """Walk the authorization code grant for the account of a target, and store its token.

    Args:
        spec: The destination, with the target.
        storage: The storage folder.
        port: Port of 127.0.0.1 for the redirect; 0: any.
        timeout: Seconds to wait for the person.
        browser: Whether to open the address, beside printing it.
        console: For what the person reads.

    Raises:
        IntegrationsError: It did not work out; naming why, and what to do.
    """

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    account = connect(settings_of(spec), storage, os.environ)
    client = authorizing(account)
    # Brings the HTTP client and authlib, which a mistake in the settings does without.
    from integrations_dagster.delivery.auth.authorize import Authorization

    try:
        with Authorization(client, port) as walk:
            say(f"{account.place}. Redirect address, to be registered with the app at the vendor:")
            say(f"  {walk.redirect_uri}")
            say("Open this address, sign in to the account that rows go to, and allow it:")
            say(f"  {walk.url}")
            if browser and not webbrowser.open(walk.url):
                say("(No browser could be opened here.)")
            say(f"Waiting for up to {timeout:g} s. Ctrl-C stops.")
            token = walk.wait(timeout, token_file(account, storage))
    except DestinationError as error:
        raise _failed(account, error) from None
    except Busy:
        raise IntegrationsError(
            f"{account.place}: another process holds the token file and does not let go.", "Stop it, and start again."
        ) from None
    say(f"{account.place}: the token is stored. {_who(account, storage, spec.kind)}")
    if token.refresh is None:
        say(
            "The vendor gave no refresh token: when this one ends, this has to be done again. Some vendors give one "
            "for a further scope only, as offline_access."
        )


def _who(account: Account, storage: Path, kind: str) -> str:
    """A sentence: who the account says it is."""
    destination = registry.create(kind)
    flow = destination.identify()
    if flow is None:
        return f"It is for {urlsplit(account.base_url).hostname}."
    session = HttpSession(account)
    lets_in = credentials(account, storage)
    try:
        step = next(flow)
        while True:
            assert isinstance(step, Request)
            response = session.send(destination.sign(step), lets_in.grant())
            destination.classify(step, response)
            step = flow.send(response)
    except StopIteration as end:
        return f"It is for {destination.label}, {end.value}."
    except DestinationError as error:
        # The token is good for nothing else to be said of it; the next run tells what is wrong.
        return f"{destination.label} did not say for which account: {error.reason}"
    finally:
        session.close()


def _failed(account: Account, error: DestinationError) -> IntegrationsError:
    remedy = error.remedy if isinstance(error, Refused) else "Nothing was stored. Start again later."
    return IntegrationsError(f"{account.place}: {error.reason}", remedy)
