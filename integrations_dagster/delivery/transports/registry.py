"""What carries a destination's requests: HTTP, or something else that takes a request and gives an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Protocol

from integrations_dagster.delivery.accounts import Account
from integrations_dagster.delivery.credentials import Grant
from integrations_dagster.delivery.transports.http import HttpSession
from integrations_dagster.destinations.base import Destination, Request, Response


class Session(Protocol):
    """Sends requests to one account. One instance belongs to one thread.

    Attributes:
        timeout: Seconds after which a request can no longer take effect.
    """

    timeout: float

    def send(self, request: Request, grant: Grant, flight: AbstractContextManager[None] | None = None) -> Response:
        """Send one request and give its answer, whatever that says: what it means is the destination's to judge.

        Args:
            flight: Entered right before the request leaves, and left when its answer is there.

        Raises:
            NotSent: It had no effect.
            NoAnswer: What it did is unknown.
            Refused: No request can be made of what the settings say.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def _http(destination: Destination, account: Account) -> Session:
    return HttpSession(account, compress=destination.gzip)


def _sql(_destination: Destination, account: Account) -> Session:
    # A driver is imported where it is used.
    if account.base_url.startswith("duckdb:"):
        from integrations_dagster.delivery.transports.duckdb import DuckDBSession

        return DuckDBSession(account)
    from integrations_dagster.delivery.transports.postgres import PostgresSession

    return PostgresSession(account)


def _file(_destination: Destination, account: Account) -> Session:
    from integrations_dagster.delivery.transports.file import FileSession

    return FileSession(account)


TRANSPORTS: Mapping[str, Callable[[Destination, Account], Session]] = MappingProxyType(
    {"http": _http, "sql": _sql, "file": _file}
)
"""How a session is opened, by `Destination.transport`."""


def open_session(destination: Destination, account: Account) -> Session:
    """A session for one thread; it connects with its first request."""
    return TRANSPORTS[destination.transport](destination, account)
