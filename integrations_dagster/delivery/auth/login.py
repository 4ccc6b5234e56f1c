"""Session login: a user and a password for a token in the answer, or a cookie."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

import requests

from integrations_dagster.delivery.auth import http
from integrations_dagster.delivery.auth.tokens import Token
from integrations_dagster.delivery.credentials import Grant
from integrations_dagster.delivery.transports.http import NotSent
from integrations_dagster.destinations.errors import Refused
from integrations_dagster.destinations.http.bodies import xml_document

LOGIN = "The login"
_PART = re.compile(r"\{([^{}]+)\}")


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
        body = self._body()
        with http.translated(self._url, LOGIN), requests.Session() as session:
            http.mount(session)
            # Given, so that the client does not look for a password of this host in ~/.netrc.
            answer = session.post(self._url, auth=lambda request: request, allow_redirects=False, **body)
            if "cookie" in settings:
                return self._cookie(answer)
            if "login_xml" in settings:
                document = self._enveloped(answer)
            else:
                document = http.judge(answer, LOGIN, self._remedy, self.secrets())
        setting = "token" if "token" in settings else "token_path"
        value = self._composed(document) if setting == "token" else _part(document, settings[setting])
        if value and settings["token_encoding"] == "base64":  # noqa: S105 (no password)
            value = base64.b64encode(value.encode()).decode()
        if not value or not value.isascii() or not value.isprintable():
            reason = f'{LOGIN} was answered, but has no token at "{settings[setting]}".'
            raise Refused(reason, "NO_TOKEN", remedy=f"Correct auth.{setting} of the target.")
        return Token(value, None, None, time.time())

    def _body(self) -> dict[str, Any]:
        settings = self._settings
        if "login_json" in settings:
            return {"json": _filled(json.loads(settings["login_json"]), settings)}
        if "login_xml" in settings:
            filled = re.sub(r"\{(username|password)\}", lambda found: escape(settings[found[1]]), settings["login_xml"])
            later = "http://www.w3.org/2003/05/soap-envelope" in filled
            kind = "application/soap+xml" if later else "text/xml"
            headers = {"Content-Type": f"{kind}; charset=utf-8", "Accept": kind}
            return {"data": filled.strip().encode(), "headers": headers if later else {**headers, "SOAPAction": '""'}}
        fields = {
            settings["username_field"]: settings["username"],
            settings["password_field"]: settings["password"],
        }
        return {"json": fields} if settings["body"] == "json" else {"data": fields}

    def _enveloped(self, answer: requests.Response) -> Any:
        """The document of an answer in XML; a fault is read, whatever its status.

        Raises:
            Refused, NotSent, Throttled: As of any login.
        """
        try:
            document = xml_document(answer.content)
        except ValueError:
            if not 200 <= answer.status_code < 300:
                return http.judge(answer, LOGIN, self._remedy, self.secrets())
            raise NotSent(f"{LOGIN} was answered with something that is no XML.", "BROKEN_ANSWER") from None
        code, text = _part(document, "Envelope.Body.Fault.faultcode"), "Envelope.Body.Fault.faultstring"
        if not code:
            code, text = _part(document, "Envelope.Body.Fault.Code.Value"), "Envelope.Body.Fault.Reason.Text.#text"
        code = code.rpartition(":")[2]
        if not code:
            return (
                document if 200 <= answer.status_code < 300 else http.judge(answer, LOGIN, self._remedy, self.secrets())
            )
        told = http.scrubbed(_part(document, text) or code, self.secrets())
        if code.partition(".")[0] in ("Server", "Receiver"):
            raise NotSent(f"{LOGIN} is out of order: {told}", code)
        raise Refused(f"{LOGIN} was refused ({code}): {told}", code, remedy=self._remedy)

    def _composed(self, document: Any) -> str:
        """The token of `token`; "" where a part of it is not in the answer."""
        missing = False

        def part(found: re.Match[str]) -> str:
            nonlocal missing
            text = self._settings["username"] if found[1] == "username" else _part(document, found[1])
            missing |= not text
            return text

        token = _PART.sub(part, self._settings["token"])
        return "" if missing else token

    def grant(self, token: Token) -> Grant:
        """The header of the settings, the cookie, or the token alone, which the body takes."""
        if "token_in" in self._settings:
            return Grant(token=token.access, serial=token.serial)
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


def _part(document: Any, path: str) -> str:
    """The text or number at a path with dots, whose parts are names and places in lists; "" where there is none."""
    for part in path.split("."):
        if isinstance(document, list) and part.isascii() and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        else:
            document = document.get(part) if isinstance(document, dict) else None
    if isinstance(document, int) and not isinstance(document, bool):
        return str(document)
    return document if isinstance(document, str) else ""


def _filled(value: Any, settings: Mapping[str, str]) -> Any:
    """JSON values with the user and the password in their texts; neither is looked through again."""
    if isinstance(value, str):
        return re.sub(r"\{(username|password)\}", lambda found: settings[found[1]], value)
    if isinstance(value, list):
        return [_filled(item, settings) for item in value]
    if isinstance(value, dict):
        return {name: _filled(item, settings) for name, item in value.items()}
    return value
