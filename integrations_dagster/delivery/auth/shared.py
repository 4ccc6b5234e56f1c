"""Credentials whose token is shared: by the threads of a process through an instance, by processes through a file."""

from __future__ import annotations

import copy
import threading
import time
from typing import Protocol

from integrations_dagster.delivery.auth.tokens import Busy, Token, TokenFile
from integrations_dagster.delivery.credentials import Grant
from integrations_dagster.delivery.transports.http import NotSent
from integrations_dagster.destinations.errors import DestinationError, Refused, Throttled, Unavailable

PAUSE = 1.0
"""Seconds for which a failed refresh answers for all threads: they queue for it and must not repeat it one by one."""
EARLY_PAUSE = 5.0
"""Seconds after which a refresh that failed while the token was still good is tried again."""
_REMEMBERED = 8
"""Access tokens that are kept for scrubbing: requests under way may still carry one of before."""


class TokenSource(Protocol):
    """How one kind gets tokens, and how requests carry them."""

    def accepts(self, stored: Token) -> bool:
        """Whether a stored token belongs to the settings as they are now."""
        ...

    def fetch(self, old: Token | None) -> Token:
        """Get a token.

        Args:
            old: The token to be replaced, which may have a refresh token.

        Raises:
            Refused: A person must act.
            NotSent: The endpoint does not answer.
            Throttled: It asks to wait.
        """
        ...

    def grant(self, token: Token) -> Grant:
        """What a request carries."""
        ...

    def secrets(self) -> tuple[str, ...]:
        """The secrets of the settings."""
        ...


class Shared:
    """Credentials with a token that is refreshed: before it expires, and when it was refused.

    One refresh serves all: a thread takes the process's lock, then the file's, reads the file again, and asks the
    endpoint only if the token there is still the one that was refused.

    Args:
        source: How tokens are got.
        file: Where the token is kept.
    """

    def __init__(self, source: TokenSource, file: TokenFile) -> None:
        self._source = source
        self._file = file
        self._mutex = threading.Lock()
        self._held: tuple[Token, Grant] | None = None
        self._unsaved: tuple[str | None, Token] | None = None
        self._failed: tuple[DestinationError, float, object] | None = None
        self._early_again = 0.0
        self._seen: tuple[str, ...] = ()

    def grant(self) -> Grant:
        """What the next request carries; a token that is about to expire is refreshed before.

        Raises:
            Refused: The credentials are no longer good; a person must act.
            NotSent: The token endpoint does not answer, and the token has expired.
            Throttled: The token endpoint asks to wait, and the token has expired.
        """
        held, now = self._held, time.time()
        if held is not None and not held[0].stale(now):
            return held[1]
        if held is None or held[0].expired(now):
            with self._mutex:
                return self._settle(None)
        # It is still good: one thread refreshes it early, so that there is time for an outage of its endpoint.
        if time.monotonic() < self._early_again or not self._mutex.acquire(blocking=False):
            return held[1]
        try:
            return self._settle(None)
        except (Unavailable, Throttled):
            self._early_again = time.monotonic() + EARLY_PAUSE
            return held[1]
        finally:
            self._mutex.release()

    def renew(self, refused: Grant) -> bool:
        """A request with this grant was answered 401: get another, unless a thread or process already has.

        Returns:
            Whether there is another now; False where the endpoint gives the same token again.

        Raises:
            Refused: The credentials are no longer good; a person must act.
            NotSent: The token endpoint does not answer.
            Throttled: The token endpoint asks to wait.
        """
        with self._mutex:
            return self._settle(refused.serial).serial != refused.serial

    def secrets(self) -> tuple[str, ...]:
        """Every secret text that requests may carry now, for scrubbing logs."""
        return (*self._source.secrets(), *self._seen)

    def _settle(self, unwanted: str | None) -> Grant:
        """A grant that is neither stale nor the unwanted one, if it can be had."""
        held = self._held
        if held is not None and held[1].serial != unwanted and not held[0].stale(time.time()):
            return held[1]
        try:
            with self._file.locked():
                return self._take(unwanted)
        except Busy:
            reason = "Another process has been refreshing the access token for too long; it may have been stopped."
            raise NotSent(reason, "TOKEN_LOCKED") from None
        except OSError as error:
            # A refresh token that was rotated is in memory still, and is written before another is asked for.
            reason = f"The access token could not be stored below {self._file.path.parent}: {error.strerror}."
            raise NotSent(reason, "TOKEN_NOT_STORED") from None

    def _take(self, unwanted: str | None) -> Grant:
        stored = self._file.read()
        if stored is not None and not self._source.accepts(stored):
            stored = None
        if stored is not None and stored.serial != unwanted and not stored.stale(time.time()):
            return self._hold(stored)
        if stored is not None and stored.serial != unwanted:
            # What another process stored is good until it ends, also where it cannot be refreshed now.
            self._hold(stored)
        base = None if stored is None else stored.serial
        if self._unsaved is not None and self._unsaved[0] == base:
            fetched = self._unsaved[1]
        else:
            fetched = self._fetch(stored)
            self._unsaved = (base, fetched)
        # On disk before it is used: its first use may end the refresh token that it came from.
        self._file.write(fetched)
        self._unsaved = None
        return self._hold(fetched)

    def _fetch(self, stored: Token | None) -> Token:
        mark = self._file.mark()
        if self._failed is not None:
            error, until, then = self._failed
            if mark == then and time.monotonic() < until:
                raise copy.copy(error)
            self._failed = None
        try:
            return self._source.fetch(stored)
        except DestinationError as error:
            # A refusal holds until a person has stored another token.
            pause = error.wait if isinstance(error, Throttled) else None
            wait = float("inf") if isinstance(error, Refused) else PAUSE if pause is None else pause
            self._failed = (error, time.monotonic() + wait, mark)
            raise

    def _hold(self, token: Token) -> Grant:
        grant = self._source.grant(token)
        if token.access not in self._seen:
            # Replaced, not changed: `secrets` reads it without a lock.
            self._seen = (*self._seen, token.access)[-_REMEMBERED:]
        self._held = (token, grant)
        return grant
