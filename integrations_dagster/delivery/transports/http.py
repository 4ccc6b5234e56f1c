"""One HTTP session of one thread: kept-alive connections, bounded time, bounded answers, no surprises."""

from __future__ import annotations

import gzip
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeAlias
from urllib.parse import urlencode, urljoin, urlsplit

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from integrations_dagster.delivery.accounts import Account
from integrations_dagster.delivery.credentials import Grant
from integrations_dagster.delivery.transports.adapter import LATE_PARTS, OneHost
from integrations_dagster.delivery.transports.unanswered import NoAnswer as NoAnswer
from integrations_dagster.delivery.transports.unanswered import NotSent as NotSent
from integrations_dagster.destinations.base import Request, Response
from integrations_dagster.destinations.errors import DestinationError, Refused

MAX_ANSWER = 32 * 1024 * 1024
"""Bytes of an answer beyond which it is not read."""
CONNECT_TIMEOUT = 10.0
"""Seconds to establish a connection."""
GZIP_FROM = 1400
"""Bytes of a body below which compressing it saves no packet."""
_HEADERS = {
    "User-Agent": "integrations-dagster",
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Connection": "keep-alive",
}

_Kind: TypeAlias = tuple[str, str, dict[str, str], dict[str, str], bool, str | None]
"""What a request's head depends on: method, URL, its own headers and the grant's, whether it has no body, and how that
is encoded."""


class HttpSession:
    """Sends requests to one account. One instance belongs to one thread.

    Args:
        account: Where to.
        compress: Whether bodies are sent with Content-Encoding gzip.
    """

    def __init__(self, account: Account, *, compress: bool = False) -> None:
        self._account = account
        self._base = account.base_url.rstrip("/")
        self._compress = compress
        self.timeout = account.timeout
        self._adapter = OneHost(account.timeout)
        with _translated(account), requests.Session() as session:
            # Asked once: looking for proxies in the environment on every request costs more than the rest.
            settings = session.merge_environment_settings(account.base_url, {}, True, None, None)
        self._proxies, self._cert = settings["proxies"], settings["cert"]
        self._verify: bool | str = settings["verify"] or True
        self._last: tuple[bytes, bytes] = (b"", b"")
        self._kind: _Kind | None = None
        self._head = requests.PreparedRequest()

    def close(self) -> None:
        """Close the connection."""
        self._adapter.close()

    def send(self, request: Request, grant: Grant, flight: AbstractContextManager[None] | None = None) -> Response:
        """Send one request and read its answer whole, whatever its status. Redirects are not followed.

        Args:
            flight: Entered right before the first byte is sent, over a connection that is there, and left when the
                first byte of the answer has come.

        Raises:
            NotSent: No connection.
            NoAnswer: The connection broke, the time was up, or the answer was too long to read.
            Refused: No request can be made of what the settings say.
        """
        with _translated(self._account):
            prepared = self._prepare(request, grant)
            # The wait for the answer begins when the request leaves; `_read` bounds the rest.
            timeout = (min(CONNECT_TIMEOUT, self.timeout), self.timeout)
            with self._adapter.on(flight or nullcontext()):
                # The adapter, not the session: no cookies, redirects or hooks, which cost as much as the rest.
                answer = self._adapter.send(
                    prepared,
                    timeout=timeout,
                    stream=True,
                    proxies=self._proxies,
                    verify=self._verify,
                    cert=self._cert,
                )
            with answer:
                body = self._read(answer, self._adapter.departed)
                return Response(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, body)

    def _prepare(self, request: Request, grant: Grant) -> requests.PreparedRequest:
        body, encoding = request.body, None
        if body is not None and self._compress and len(body) >= GZIP_FROM:
            body, encoding = self._compressed(body), "gzip"
        url = self._url(request, grant)
        # A sync sends the same head again and again, with another length.
        kind = (request.method, url, dict(request.headers), dict(grant.headers), body is None, encoding)
        if kind != self._kind:
            self._head, self._kind = _prepared_head(*kind), kind
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url = self._head.method, self._head.url
        headers = self._head.headers.copy()
        if body is not None:
            headers["Content-Length"] = str(len(body))
        prepared.headers = headers
        prepared.body = body
        prepared.hooks = self._head.hooks
        return prepared

    def _compressed(self, body: bytes) -> bytes:
        # A body that is sent again is compressed once.
        if self._last[0] is not body:
            self._last = (body, gzip.compress(body, 1, mtime=0))
        return self._last[1]

    def _url(self, request: Request, grant: Grant) -> str:
        path = request.path
        url = self._linked(path) if request.link else self._base + path if path else self._account.base_url
        if not grant.query:
            return url
        return f"{url}{'&' if '?' in url else '?'}{urlencode(grant.query)}"

    def _linked(self, address: str) -> str:
        """An address that an answer gave, if it is one of the account's own host."""
        url = urljoin(f"{self._base}/", address)
        if _origin(url) != _origin(self._base):
            raise Refused(
                f"The answer names an address of another host ({urlsplit(url).hostname}), which would be given the "
                "credentials.",
                "OTHER_HOST",
                remedy="Check base_url of the target: it may be another name of the same host.",
            )
        return url

    def _read(self, answer: requests.Response, started: float) -> bytes:
        parts: list[bytes] = []
        size = late = 0
        while True:
            late += time.monotonic() - started > self.timeout
            if late > LATE_PARTS:
                raise NoAnswer(f"The answer took longer than {self.timeout:g} s.", "TIMEOUT")
            # What has arrived, not a full block: a trickle must not hide from the clock.
            part = answer.raw.read1(65536, decode_content=True)
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER:
                raise NoAnswer(
                    f"The answer is longer than {MAX_ANSWER // 2**20} MB; it was not read.", "ANSWER_TOO_LONG"
                )


def _prepared_head(
    method: str, url: str, own: Mapping[str, str], granted: Mapping[str, str], bare: bool, encoding: str | None
) -> requests.PreparedRequest:
    """A request without its body."""
    headers = dict(_HEADERS)
    if not bare:
        headers["Content-Type"] = "application/json"
    elif method in ("POST", "PUT", "PATCH"):
        headers["Content-Length"] = "0"
    if encoding:
        headers["Content-Encoding"] = encoding
    prepared = requests.PreparedRequest()
    prepared.prepare_method(method)
    prepared.prepare_url(url, None)
    prepared.prepare_headers(CaseInsensitiveDict({**headers, **own, **granted}))
    prepared.prepare_cookies({})
    prepared.hooks = requests.hooks.default_hooks()
    return prepared


@contextmanager
def _translated(account: Account) -> Iterator[None]:
    """Turn the HTTP client's errors into ours; their texts may quote URLs and headers, so ours name host and port."""
    address = urlsplit(account.base_url)
    port = f":{address.port}" if address.port else ""
    host = "the sandbox" if account.in_sandbox else f"{address.hostname}{port}"
    broke = NoAnswer(f"The connection to {host} broke before it answered.", "CONNECTION_BROKE")
    undecodable = NoAnswer(f"The answer of {host} broke off or could not be decoded.", "BROKEN_ANSWER")
    late = NoAnswer(f"{host} did not answer within {account.timeout:g} s.", "TIMEOUT")
    try:
        yield
    except DestinationError:
        raise
    except requests.exceptions.SSLError as error:
        if _has(error, ssl.SSLCertVerificationError):
            remedy = (
                "Check base_url of the target; where a proxy of your network signs anew, set REQUESTS_CA_BUNDLE to its "
                "certificate."
            )
            raise Refused(f"The TLS certificate of {host} was not accepted.", "TLS", remedy=remedy) from error
        raise broke from error
    except (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError) as error:
        raise NotSent(f"No connection to {host} within {CONNECT_TIMEOUT:g} s.", "NO_CONNECTION") from error
    except (requests.exceptions.ReadTimeout, urllib3.exceptions.TimeoutError) as error:
        raise late from error
    except requests.exceptions.ConnectionError as error:
        if _has(error, urllib3.exceptions.NewConnectionError):
            raise NotSent(f"No connection to {host}: nothing answers there.", "NO_CONNECTION") from error
        raise broke from error
    except (
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.ContentDecodingError,
        urllib3.exceptions.ProtocolError,
        urllib3.exceptions.DecodeError,
    ) as error:
        raise undecodable from error
    except urllib3.exceptions.SSLError as error:
        raise broke from error
    except (requests.exceptions.RequestException, ValueError) as error:
        reason = f"No request could be made to {host} ({type(error).__name__})."
        remedy = "Check base_url, token and secret of the target."
        raise Refused(reason, "INVALID_REQUEST", remedy=remedy) from None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port.

    Raises:
        ValueError: The port is none.
    """
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _has(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether an error of this kind is at the root of another."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, kind):
            return True
        reason = getattr(seen, "reason", None)
        inner = reason if isinstance(reason, BaseException) else None
        if inner is None and seen.args and isinstance(seen.args[0], BaseException):
            inner = seen.args[0]
        seen = inner
    return False
