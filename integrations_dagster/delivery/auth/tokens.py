"""A token, and the file that processes share it by: one for each account, 0600 in a 0700 folder.

The file is replaced by a rename of a complete copy, so that it is whole whenever a process dies. A lock on a file
beside it (flock; the kernel frees it when its holder dies) is held around every refresh.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST_SKEW = 60.0
"""Seconds before its expiry at which a token is refreshed; a tenth of its lifetime if that is less."""
LOCK_TIMEOUT = 90.0
"""Seconds to wait for another process that refreshes; more than its request may take."""
_POLL = 0.02


class Busy(Exception):
    """Another process holds the lock of the token file for longer than a refresh takes."""


def digest(text: str) -> str:
    """A text that tells this one from others and does not give it away."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Token:
    """What a token endpoint gave.

    Attributes:
        access: The access token, or what a login gave.
        refresh: The refresh token, or None.
        expires: When the access token ends, seconds since the epoch; None: not told, it is used until it is refused.
        obtained: When it was asked for, seconds since the epoch.
        grant: Names the permission it comes from; it stays over refreshes, and is no secret.
        seed: Digest of the refresh token that the settings had then; "" where they had none.
    """

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    expires: float | None
    obtained: float
    grant: str = ""
    seed: str = ""

    @property
    def serial(self) -> str:
        """Tells this token from the one that replaces it; no secret."""
        return digest(self.access)

    def stale(self, now: float) -> bool:
        """Whether it should be refreshed: it ends soon, or has ended."""
        if self.expires is None:
            return False
        return now >= self.expires - min(LONGEST_SKEW, (self.expires - self.obtained) / 10)

    def expired(self, now: float) -> bool:
        """Whether it has ended."""
        return self.expires is not None and now >= self.expires


class TokenFile:
    """The token of one account on disk.

    Args:
        folder: Folder of all tokens; made where it does not exist.
        name: Name of the account's files, without suffix.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self.path = folder / f"{name}.json"
        self._lock = folder / f"{name}.lock"
        # One name, not one for each process: only the lock's holder writes it, and a rest left by a killed one goes.
        self._draft = folder / f"{name}.tmp"

    def read(self) -> Token | None:
        """The token; None where there is none, or what is there is no token."""
        try:
            return _token(json.loads(self.path.read_text("utf-8")))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def mark(self) -> object:
        """What changes whenever the file is replaced; for telling whether it was."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    @contextmanager
    def locked(self, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
        """Hold the account's lock: no other process refreshes.

        Raises:
            Busy: Another process held it for `timeout` seconds.
            OSError: The folder cannot be written to.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._folder.stat().st_mode & 0o077:
            self._folder.chmod(0o700)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + timeout
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    # flock itself cannot be told to wait for some time only, and the holder may have been stopped.
                    if time.monotonic() > deadline:
                        raise Busy from None
                    time.sleep(_POLL)
            yield
        finally:
            os.close(descriptor)

    def write(self, token: Token) -> None:
        """Replace the token; on disk when this returns. Only while `locked`.

        Raises:
            OSError: It could not be written; the old one stays.
        """
        self._draft.unlink(missing_ok=True)
        descriptor = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(_document(token), file)
            file.flush()
            os.fsync(file.fileno())
        self._draft.replace(self.path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _document(token: Token) -> dict[str, Any]:
    return {
        "version": 1,
        "access_token": token.access,
        "refresh_token": token.refresh,
        "expires": token.expires,
        "obtained": token.obtained,
        "grant": token.grant,
        "seed": token.seed,
    }


def _token(document: Any) -> Token:
    if document["version"] != 1:
        raise ValueError("another version")
    expires = document["expires"]
    return Token(
        access=str(document["access_token"]),
        refresh=None if document["refresh_token"] is None else str(document["refresh_token"]),
        expires=None if expires is None else float(expires),
        obtained=float(document["obtained"]),
        grant=str(document["grant"]),
        seed=str(document["seed"]),
    )
