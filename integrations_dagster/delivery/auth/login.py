"""Session login: a user and a password for a token in the answer, or a cookie."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import requests

from integrations_dagster.delivery.auth import http
from integrations_dagster.delivery.auth.tokens import Token
from integrations_dagster.delivery.credentials import Grant
from integrations_dagster.destinations.errors import Refused

LOGIN = "The login"


class Login:
    """Logs in, and again when the session has ended.

    Args:
        settings: What the kind takes.
        base_url: Of the account; `login_path` is below it.
        remedy: What a person should do where the login is refused.
    """

    def __init__(self, settings: Mapping[str, str], base_url: str, remedy: str) -> None:
        self._settings = settings
        self._url = settings.get("login_url") or base_url.rstrip("/") + settings["login_path"]
        self._remedy = remedy

    def accepts(self, stored: Token) -> bool:  # noqa: ARG002
        """Any: the settings name the file."""
        return True

    def fetch(self, old: Token | None) -> Token:  # noqa: ARG002
        """Log in."""
        settings = self._settings
        fields = {
            settings["username_field"]: settings["username"],
            settings["password_field"]: settings["password"],
        }
        body: dict[str, Any] = {"json": fields} if settings["body"] == "json" else {"data": fields}
        with http.translated(self._url, LOGIN), requests.Session() as session:
            http.mount(session)
            # Given, so that the client does not look for a password of this host in ~/.netrc.
            answer = session.post(self._url, auth=lambda request: request, allow_redirects=False, **body)
            if "cookie" in settings:
                return self._cookie(answer)
            document = http.judge(answer, LOGIN, self._remedy, self.secrets())
        value = document
        for part in settings["token_path"].split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
            reason = f'{LOGIN} was answered, but has no token at "{settings["token_path"]}".'
            raise Refused(reason, "NO_TOKEN", remedy="Correct auth.token_path of the target.")
        return Token(value, None, None, time.time())

    def grant(self, token: Token) -> Grant:
        """The header of the settings, or the cookie."""
        if "cookie" in self._settings and "header" not in self._settings:
            return Grant({"Cookie": f"{self._settings['cookie']}={token.access}"}, serial=token.serial)
        header = self._settings.get("header", "Authorization: Bearer {token}")
        name, _, value = header.partition(":")
        return Grant({name: value.strip().replace("{token}", token.access)}, serial=token.serial)

    def secrets(self) -> tuple[str, ...]:
        """The password."""
        return (self._settings["password"],)

    def _cookie(self, answer: requests.Response) -> Token:
        # A page for people may answer a login with a redirect; the cookie counts, and the redirect is not followed.
        for cookie in answer.cookies:
            if cookie.name == self._settings["cookie"] and cookie.value:
                ends = None if cookie.expires is None else float(cookie.expires)
                return Token(cookie.value, None, ends, time.time())
        if not answer.is_redirect:
            http.judge(answer, LOGIN, self._remedy, self.secrets())
        reason = f'{LOGIN} was answered, but sets no cookie "{self._settings["cookie"]}".'
        raise Refused(reason, "NO_TOKEN", remedy=f"{self._remedy} Or correct auth.cookie of the target.")
