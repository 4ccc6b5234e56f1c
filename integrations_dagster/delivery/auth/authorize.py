"""The authorization code grant, walked once by a person (RFC 6749, 4.1; RFC 7636; RFC 8252, 7.3).

A server on loopback waits for the browser that the vendor sends back with a code.
"""

from __future__ import annotations

import hmac
import html
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from integrations_dagster.delivery.auth.oauth import Client, seed, token_of
from integrations_dagster.delivery.auth.tokens import Token, TokenFile
from integrations_dagster.destinations.errors import Refused
from integrations_dagster.vocabulary import Misconfigured

HOST = "127.0.0.1"
PATH = "/callback"
_POLL = 0.2
_REQUEST_TIMEOUT = 5.0


class Authorization:
    """One walk: made, its `url` opened by a person, then `wait`ed for. A context manager that holds the port.

    Args:
        client: The OAuth client.
        port: A port of 127.0.0.1, which is part of the redirect address; 0: any that is free.

    Raises:
        Misconfigured: The port is taken.
    """

    def __init__(self, client: Client, port: int) -> None:
        self._client = client
        self._state = secrets.token_urlsafe(32)
        self._verifier = secrets.token_urlsafe(64)
        self._answer: Mapping[str, str] | None = None
        try:
            self._server = _Server((HOST, port), _Handler)
        except OSError as error:
            raise Misconfigured(
                f"Port {port} of {HOST} cannot be used: {error.strerror}.",
                "Name another with --port, and register its redirect address with the app at the vendor.",
            ) from None
        self._server.walk = self
        self._server.timeout = _POLL

    def __enter__(self) -> Authorization:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    @property
    def redirect_uri(self) -> str:
        """The address that the vendor sends the browser to."""
        return f"http://{HOST}:{self._server.server_address[1]}{PATH}"

    @property
    def url(self) -> str:
        """What the person opens."""
        return self._client.authorization_url(self.redirect_uri, self._state, self._verifier)

    def wait(self, timeout: float, file: TokenFile) -> Token:
        """Wait for the browser, exchange its code and store the token.

        Args:
            timeout: Seconds to wait for the browser.
            file: Where the token is kept.

        Raises:
            Refused: The person or the vendor said no, or no browser came.
            Unavailable: The token endpoint does not answer.
            Throttled: It asks to wait.
        """
        deadline = time.monotonic() + timeout
        while self._answer is None:
            if time.monotonic() > deadline:
                reason = f"Nobody came back from the vendor within {timeout:g} s."
                raise Refused(reason, "TIMEOUT", remedy="Start again, and open the address that is printed.")
            self._server.handle_request()
        if "code" not in self._answer:
            code = self._answer.get("error", "")[:60]
            raise Refused(f"The permission was not given ({code}).", code, remedy="Start again.")
        answer = self._client.exchange(self._answer["code"], self.redirect_uri, self._verifier)
        token = replace(token_of(answer, None), grant=uuid.uuid4().hex, seed=seed(self._client.settings))
        with file.locked():
            file.write(token)
        return token

    def take(self, query: str) -> bool:
        """Take what the browser brings; False where it is not an answer to this walk."""
        values = {name: given[0] for name, given in parse_qs(query).items()}
        if not hmac.compare_digest(values.get("state", "").encode(), self._state.encode()):
            return False
        if "code" not in values and "error" not in values:
            return False
        self._answer = values
        return True


class _Server(HTTPServer):
    walk: Authorization


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    # A connection that says nothing, as browsers open them in advance, must not stop the others.
    timeout = _REQUEST_TIMEOUT

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path != PATH:
            self._page(404, "Nothing is here.")
        elif self.server.walk.take(parts.query):
            self._page(200, "Done. You can close this page and go back to the terminal.")
        else:
            self._page(400, "This is no answer to the question that was asked. Start again in the terminal.")

    def log_message(self, *_: Any) -> None:
        """Nothing: the code is in the address."""

    def _page(self, status: int, text: str) -> None:
        body = f"<!DOCTYPE html><meta charset=utf-8><title>integrations</title><p>{html.escape(text)}</p>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
