"""The request log: each exchange with a destination as a line of JSON, in one compressed file per shard and attempt.

`<home>/requests/<run>/requests-<shard>-<attempt>.jsonl.gz`. A file that a killed process leaves can be read up to its
last flush, which is never more than about a second old.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from integrations_dagster.delivery.exchange import Exchange
from integrations_dagster.delivery.scrub import Scrubber

FOLDER = "requests"
"""Folder of the request logs in a sync's home."""
FIRST = 20
"""Exchanges at the start of a file whose bodies are kept whatever becomes of them, as samples."""
LONGEST_BODY = 65_536
"""Characters of a body that are kept."""
FLUSH_EVERY = 1.0
"""Seconds for which a line may wait in memory."""
FLUSH_LINES = 500
"""Lines that may wait in memory."""
REMEMBERED_BYTES = 16 * 1024 * 1024
"""Bodies that are remembered so that later answers, which may quote them, can be scrubbed."""


class RequestLogFile:
    """Keeps exchanges in a file, which appears with the first of them. Threads share it.

    Nothing is raised for a disk that is full: after one warning, further exchanges are dropped.

    Args:
        folder: Folder of the run, `<home>/requests/<run>`.
        shard: Index of the shard; -1 for requests of `plan`.
        attempt: Attempt at the shard.
        secrets: All secrets that requests may carry now.
        sensitive: Fields whose values are not kept.
        bodies: Whose bodies are kept beside the first few: "failed" ones, "all", or "none" at all.
        warn: Told one sentence if the log cannot be written.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        shard: int,
        attempt: int,
        *,
        secrets: Callable[[], tuple[str, ...]] = tuple,
        sensitive: frozenset[str] = frozenset(),
        bodies: str = "failed",
        warn: Callable[[str], None] = lambda _text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._name = f"requests-{shard}-{attempt}"
        self._scrubber = Scrubber(secrets, sensitive)
        self._bodies = bodies
        self._warn = warn
        self._clock = clock
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        self._waiting = 0
        self._flushed = clock()
        self._timer: threading.Timer | None = None
        self._ended = False
        self._written = 0
        self._sent: OrderedDict[str, bytes] = OrderedDict()
        self._sent_bytes = 0

    def write(self, exchange: Exchange, *, failed: bool) -> None:
        """Keep an exchange; see `delivery.exchange.RequestLog`."""
        if self._ended:
            return
        with self._lock:
            place = self._written
            self._written += 1
            sent_before = self._remember(exchange)
        keep = self._bodies == "all" or (self._bodies == "failed" and (failed or place < FIRST))
        try:
            line = self._line(exchange, sent_before, keep=keep)
        except Exception as error:  # noqa: BLE001 - whatever a body holds, it must not stop the delivery
            line = _encoded({**_head(exchange, str), "note": f"not readable ({type(error).__name__})"})
        self._put(line, now=failed)

    def flush(self) -> None:
        """Make what was kept so far readable."""
        with self._lock:
            self._flush()

    def close(self) -> None:
        """Flush and close; what comes later is dropped."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            file, self._file, ended, self._ended = self._file, None, self._ended, True
            if file is None:
                return
            try:
                with file:
                    if not ended:
                        file.write(self._packer.flush(zlib.Z_FINISH))
            except OSError as error:
                self._give_up(error)

    # Lines

    def _line(self, exchange: Exchange, sent_before: bytes | None, *, keep: bool) -> bytes:
        line = _head(exchange, self._scrubber.text)
        if keep and (exchange.request or exchange.response):
            request, response = self._scrubber.bodies(exchange.request, exchange.response, sent_before)
            line["request"], line["response"] = _cut(request), _cut(response)
        return _encoded(line)

    def _remember(self, exchange: Exchange) -> bytes | None:
        """Remember the body, and return that of an earlier request of the batch; only where values are sensitive."""
        if not self._scrubber.has_sensitive or self._bodies == "none":
            return None
        before = self._sent.get(exchange.batch)
        if before is None and exchange.request:
            self._sent[exchange.batch] = exchange.request
            self._sent_bytes += len(exchange.request)
            while self._sent_bytes > REMEMBERED_BYTES:
                self._sent_bytes -= len(self._sent.popitem(last=False)[1])
        return before

    # The file

    def _put(self, line: bytes, *, now: bool) -> None:
        with self._lock:
            if self._ended:
                return
            try:
                if self._file is None:
                    self._file = _created(self._folder, self._name)
                packed = self._packer.compress(line)
                if packed:
                    self._file.write(packed)
            except OSError as error:
                self._give_up(error)
                return
            self._waiting += 1
            if now or self._waiting >= FLUSH_LINES or self._clock() - self._flushed >= FLUSH_EVERY:
                self._flush()
            elif self._timer is None:
                # The next exchange may be long in coming.
                self._timer = threading.Timer(FLUSH_EVERY, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flushed = self._clock()
        if self._file is None or not self._waiting:
            return
        self._waiting = 0
        try:
            self._file.write(self._packer.flush(zlib.Z_SYNC_FLUSH))
            self._file.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._ended = True
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
        self._sent.clear()
        self._warn(
            f"The request log {self._folder / self._name} cannot be written any more ({error.strerror or error}); the "
            "delivery goes on without it."
        )


def _head(exchange: Exchange, text: Callable[[str], str]) -> dict[str, Any]:
    """A line without bodies; `text` scrubs what is not ours."""
    return {
        "at": datetime.fromtimestamp(exchange.at, UTC).isoformat(timespec="milliseconds"),
        "shard": exchange.shard,
        "batch": exchange.batch,
        "attempt": exchange.attempt,
        "method": exchange.method,
        "path": text(exchange.path),
        "status": exchange.status,
        "error": text(exchange.error),
        "milliseconds": exchange.milliseconds,
        "request_id": text(exchange.request_id),
        "sent": exchange.sent,
        "received": exchange.received,
        "keys": exchange.keys,
    }


def _encoded(line: dict[str, Any]) -> bytes:
    # Half a surrogate pair has no UTF-8 form; `json` would write it as it is.
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def _cut(body: str) -> str:
    if len(body) <= LONGEST_BODY:
        return body
    return f"{body[:LONGEST_BODY]}… (cut: {len(body):,} characters)"


def _created(folder: Path, name: str) -> IO[bytes]:
    """A new file, for its owner's eyes; a name that is taken (by a process of the same attempt) gets a number."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / (f"{name}.jsonl.gz" if number == 1 else f"{name}.{number}.jsonl.gz")
        try:
            return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=65_536)
        except FileExistsError:
            number += 1


# Reading


def read_lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a log; a torn end, which a killed process leaves, is left out."""
    unpacker = zlib.decompressobj(31)
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(1 << 18):
            before = unpacker.copy()
            try:
                text, broken = unpacker.decompress(chunk), False
            except zlib.error:
                text, broken = _readable(before, chunk), True
            *lines, rest = (rest + text).split(b"\n")
            yield from lines
            if broken:
                return


def _readable(unpacker: zlib._Decompress, chunk: bytes) -> bytes:
    """What can be read of a chunk that is broken somewhere."""
    text = b""
    with suppress(zlib.error):
        for place in range(len(chunk)):
            text += unpacker.decompress(chunk[place : place + 1])
    return text


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The exchanges of a log, in the order in which they ended."""
    for line in read_lines(path):
        with suppress(ValueError):
            yield json.loads(line)


def find_exchanges(folder: Path, key: str, batches: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """The exchanges of a run that a row took part in.

    Args:
        folder: Folder of the run.
        key: Its primary key.
        batches: Idempotency keys of batches that it was in.
    """
    of = frozenset(batches)
    marks = [json.dumps(text, ensure_ascii=False).encode("utf-8", "replace") for text in (key, *of)]
    for path in sorted(folder.glob("requests-*.jsonl.gz")):
        try:
            for line in read_lines(path):
                # Most lines are of other rows, and looking for bytes costs a hundredth of reading JSON.
                if any(mark in line for mark in marks):
                    with suppress(ValueError):
                        exchange = json.loads(line)
                        if key in exchange["keys"] or exchange["batch"] in of:
                            yield exchange
        except FileNotFoundError:  # pruned meanwhile
            continue


# Retention


def prune(folder: Path, days: float, now: float) -> int:
    """Delete the request logs of runs that wrote the last line of theirs more than `days` ago.

    Args:
        folder: `<home>/requests`.
        days: Days to keep; 0 deletes all but those of the run that is just writing.
        now: Seconds since the epoch.

    Returns:
        Runs whose logs were deleted.
    """
    deleted = 0
    for run in folder.glob("*"):
        if run.is_symlink() or not run.is_dir():
            continue
        try:
            newest = max((path.stat().st_mtime for path in run.iterdir()), default=run.stat().st_mtime)
        except FileNotFoundError:
            continue
        if now - newest > days * 86_400:
            shutil.rmtree(run, ignore_errors=True)
            deleted += 1
    return deleted
