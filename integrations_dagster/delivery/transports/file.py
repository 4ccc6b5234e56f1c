"""Puts files in their place, whole or not at all: in folders, and in object stores that fsspec knows."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec  # type: ignore[import-untyped]

from integrations_dagster.delivery.accounts import Account
from integrations_dagster.delivery.credentials import Grant
from integrations_dagster.delivery.transports.file_formats import DoesNotFit, encoded
from integrations_dagster.delivery.transports.unanswered import NoAnswer
from integrations_dagster.destinations.base import Request, Response
from integrations_dagster.destinations.errors import Refused
from integrations_dagster.destinations.file import Put


class FileSession:
    """Writes below one base URL. One instance belongs to one thread.

    Args:
        account: Its `base_url` is "file:///folder" or what fsspec takes, as "s3://bucket/prefix". Credentials of a
            store are those that its package finds in the environment, or `auth` of kind basic for s3: key and secret.
    """

    def __init__(self, account: Account) -> None:
        self.timeout = account.timeout
        self._account = account
        self._store: Any = None

    def close(self) -> None:
        """Nothing is open between requests."""

    def send(self, request: Request, grant: Grant, flight: AbstractContextManager[None] | None = None) -> Response:  # noqa: ARG002
        """Write the file that the command names. It is there whole, or it is not there.

        Raises:
            NoAnswer: Whether it is there is not known; the same file may be written again.
            Refused: The store cannot be used with these settings.
        """
        command = request.command
        if not isinstance(command, Put):
            raise TypeError(f"{command!r} is no command for files")
        with flight or nullcontext():
            try:
                data = encoded(command, request.body or b"")
                written = self._put(command.path, data)
            except DoesNotFit as misfit:
                return _answer(422, {"message": str(misfit)})
            except Refused:
                raise
            except (ImportError, ModuleNotFoundError) as error:
                return _answer(501, {"message": str(error)})
            except PermissionError as error:
                return _answer(403, {"message": error.strerror or "Permission denied."})
            except FileNotFoundError as error:
                return _answer(404, {"message": error.strerror or "No such place."})
            except Exception as error:
                # Clients of object stores have errors of their own, whose texts may quote keys.
                name = type(error).__name__
                if "Credentials" in name:
                    return _answer(403, {"message": "No credentials were found in the environment."})
                what = error.strerror if isinstance(error, OSError) and error.strerror else name
                raise NoAnswer(f"The file could not be written to the end: {what}.", name) from error
            if written != len(data):
                raise NoAnswer(
                    f"The store has {written} bytes of a file of {len(data)}; whether it is whole is unknown.", "SIZE"
                )
        return _answer(200, {"bytes": written})

    def _put(self, path: str, data: bytes) -> int:
        """Write a file; returns how many bytes are read to be there."""
        parts = urlsplit(self._account.base_url)
        if parts.scheme == "file":
            return _put_local(Path(unquote(parts.path)), path, data, make=self._account.in_sandbox)
        store = self._opened(parts.scheme)
        whole = f"{self._account.base_url.rstrip('/')}/{path}"
        # One request to the store (or one upload that is completed at the end): no reader sees a part of it.
        store.pipe_file(whole, data)
        store.invalidate_cache()
        return int(store.info(whole)["size"])

    def _opened(self, scheme: str) -> Any:
        if self._store is None:
            options: dict[str, Any] = {}
            if scheme == "s3":
                bounds = {"connect_timeout": min(10.0, self.timeout), "read_timeout": self.timeout}
                options["config_kwargs"] = {**bounds, "retries": {"max_attempts": 1}}
            if self._account.auth is not None:
                if scheme != "s3":
                    raise Refused(
                        f"{self._account.place}: `auth` is for s3:// only.",
                        "AUTH",
                        remedy=f"Leave `auth` out: for {scheme}://, credentials are found in the environment.",
                    )
                settings = self._account.auth.settings
                options |= {"key": settings["username"], "secret": settings["password"]}
            self._store = fsspec.filesystem(scheme, **options)
        return self._store


def _put_local(base: Path, path: str, data: bytes, *, make: bool) -> int:
    if not make and not base.is_dir():
        # Not made: it may be the place where a disk should be mounted.
        raise FileNotFoundError(2, "The folder that base_url names does not exist")
    target = base / path
    target.parent.mkdir(parents=True, exist_ok=True)
    # Readers pass over names that begin with a dot.
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return target.stat().st_size


def _answer(status: int, document: Mapping[str, Any]) -> Response:
    return Response(status, {}, json.dumps(document).encode())
