"""What authenticates requests: the interface that the engine knows. The kinds are in `delivery/auth/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Grant:
    """What one request carries to be let in. Its text form shows nothing of it.

    Attributes:
        headers: Headers to add.
        query: Query parameters to add.
        token: The token, where it travels in the body (`Destination.carry`).
        serial: Tells this grant from the one that replaces it; no secret.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: str = field(default="", repr=False)
    serial: str = ""


class Credentials(Protocol):
    """The credentials of one account; one instance is shared by the threads of a process.

    Tokens are shared with other processes through one file per account (0600) below the storage folder.
    """

    def grant(self) -> Grant:
        """What the next request carries; a token that is about to expire is refreshed before.

        Raises:
            destinations.errors.Refused: The credentials are no longer good; a person must act.
            destinations.errors.Unavailable: The token endpoint does not answer.
        """
        ...

    def renew(self, refused: Grant) -> bool:
        """A request with this grant was answered 401: get another, unless a thread or process already has.

        Returns:
            Whether there is another now; False where nothing can be refreshed.

        Raises:
            destinations.errors.Refused: The credentials are no longer good; a person must act.
            destinations.errors.Unavailable: The token endpoint does not answer.
        """
        ...

    def secrets(self) -> tuple[str, ...]:
        """Every secret text that requests may carry now, for scrubbing logs."""
        ...


class Fixed:
    """Credentials that never change: none at all, a bearer token, an API key, a user and password."""

    def __init__(self, headers: Mapping[str, str], query: Mapping[str, str] | None = None, *secrets: str) -> None:
        self._grant = Grant(headers, query or {})
        self._secrets = secrets

    def grant(self) -> Grant:
        """The same every time."""
        return self._grant

    def renew(self, refused: Grant) -> bool:  # noqa: ARG002
        """False: there is nothing to refresh."""
        return False

    def secrets(self) -> tuple[str, ...]:
        """As given."""
        return self._secrets
