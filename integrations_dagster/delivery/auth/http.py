"""Requests to token endpoints: bounded in time and size, no redirects, errors without secrets."""

from __future__ import annotations

import io
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from integrations_dagster.delivery.transports.http import NotSent
from integrations_dagster.destinations.errors import DestinationError, Refused, Throttled

CONNECT_TIMEOUT = 10.0
"""Seconds to establish a connection."""
TIMEOUT = 30.0
"""Seconds that a token request may take, from connecting to the last byte read."""
MAX_ANSWER = 1024 * 1024
"""Bytes of an answer beyond which it is not read."""
_LONGEST_REASON = 200
_LATER = ("temporarily_unavailable", "server_error")
"""OAuth errors that pass by themselves."""


class Bounded(HTTPAdapter):
    """Reads each answer whole within bounds, whatever client sends through it."""

    def __init__(self) -> None:
        # A refresh token must not be sent twice without the caller's knowing: no retries here.
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def send(self, request: requests.PreparedRequest, *_: Any, **options: Any) -> requests.Response:
        """Send one request; the caller's `stream` and `timeout` do not count."""
        started = time.monotonic()
        timeout = urllib3.Timeout(total=TIMEOUT, connect=CONNECT_TIMEOUT, read=TIMEOUT)
        answer = super().send(request, **options | {"stream": True, "timeout": timeout})
        with answer:
            body = b"" if answer.is_redirect else _read(answer, started)
        answer.raw = io.BytesIO(body)
        answer._content_consumed = False  # type: ignore[attr-defined]  # it is to be read from there
        return answer


def mount(session: requests.Session) -> None:
    """Make a session bounded."""
    # A redirect would carry the secrets to where the settings do not say.
    session.get_redirect_target = lambda _: None  # type: ignore[method-assign, assignment]
    session.mount("https://", Bounded())
    session.mount("http://", Bounded())
    session.headers.update({"User-Agent": "integrations-dagster", "Accept": "application/json"})


@contextmanager
def translated(url: str, what: str) -> Iterator[None]:
    """Turn the HTTP client's errors into ours; their texts may quote URLs and bodies, so ours name the host only.

    Args:
        url: Where the request goes.
        what: What is asked for, as a subject: "The token endpoint".
    """
    host = urlsplit(url).hostname or "?"
    try:
        yield
    except DestinationError:
        raise
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error) or isinstance(error.__context__, ssl.SSLCertVerificationError):
            raise NotSent(f"The TLS certificate of {host} was not accepted.", "TLS") from None
        raise NotSent(f"{what} ({host}): the connection broke.", "CONNECTION_BROKE") from None
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
        raise NotSent(f"{what} ({host}) did not answer within {TIMEOUT:g} s.", "TIMEOUT") from None
    except (requests.exceptions.ConnectionError, urllib3.exceptions.HTTPError):
        raise NotSent(f"{what} ({host}) does not answer.", "NO_CONNECTION") from None
    except (requests.exceptions.RequestException, ValueError) as error:
        reason = f"{what} ({host}): the request or its answer has no usable form ({type(error).__name__})."
        raise NotSent(reason, "BROKEN_ANSWER") from None


def judge(answer: requests.Response, what: str, remedy: str, secrets: tuple[str, ...]) -> Any:
    """Read an answer of a token endpoint or a login.

    Args:
        answer: The answer.
        what: What was asked, as a subject: "The token endpoint".
        remedy: What a person should do where the credentials are refused.
        secrets: What the request carried; left out of the reason.

    Returns:
        The JSON body; None where a 2xx has none.

    Raises:
        Refused: The credentials are no longer good, or the settings are wrong.
        NotSent: An outage.
        Throttled: It asks to wait.
    """
    document = _json(answer)
    said = document if isinstance(document, Mapping) else {}
    error = said.get("error")
    code = error if isinstance(error, str) and re.fullmatch(r"[A-Za-z0-9_.:-]{1,60}", error) else ""
    status = answer.status_code
    host = urlsplit(answer.url).hostname
    if status == 429 or code == "slow_down":
        raise Throttled(f"{what} ({host}) has too many requests.", code or "429", wait=_wait(answer.headers))
    if status >= 500 or status in (408, 425) or code in _LATER:
        raise NotSent(f"{what} ({host}) is out of order: it answered {status}.", code or str(status))
    if answer.is_redirect or 300 <= status < 400:
        reason = f"{what} ({host}) answers with a redirect, which is not followed."
        raise Refused(reason, str(status), remedy="Correct its URL in `auth` of the target.")
    if 200 <= status < 300 and not error:
        return document
    if status in (404, 405, 410):
        reason = f"{what} ({host}) does not exist: it answered {status}."
        raise Refused(reason, str(status), remedy="Correct its URL in `auth` of the target.")
    inner = error.get("message") if isinstance(error, Mapping) else ""
    text = said.get("error_description") or said.get("message") or inner or ""
    told = f": {scrubbed(str(text), secrets)}" if text else ""
    raise Refused(
        f"{what} ({host}) refused the credentials with {code or status}{told}.".replace("..", "."),
        code or str(status),
        remedy=remedy,
    )


def scrubbed(text: str, secrets: tuple[str, ...]) -> str:
    """What an answer says, in one short line without the secrets of its request."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "•••")
    return " ".join(text.split())[:_LONGEST_REASON]


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        if 200 <= answer.status_code < 300 and answer.content:
            host = urlsplit(answer.url).hostname
            raise NotSent(f"{host} answered the login with something that is no JSON.", "BROKEN_ANSWER") from None
        return None


def _wait(headers: Mapping[str, str]) -> float | None:
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= 3600 else None


def _read(answer: requests.Response, started: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    host = urlsplit(answer.url).hostname
    while True:
        if time.monotonic() - started > TIMEOUT:
            raise NotSent(f"{host} took longer than {TIMEOUT:g} s to answer.", "TIMEOUT")
        part = answer.raw.read1(65536, decode_content=True)
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER:
            raise NotSent(f"The answer of {host} is longer than {MAX_ANSWER // 2**20} MB.", "ANSWER_TOO_LONG")
