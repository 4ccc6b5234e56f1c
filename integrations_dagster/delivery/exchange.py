"""One request and its answer, as the request log keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, sent or tried.

    Attributes:
        at: Start, seconds since the epoch.
        shard: Index of the shard; -1 for requests of `plan` (look-ups of rows in doubt).
        batch: Idempotency key of the batch.
        attempt: 1 for the first request of the flow that this drive sent, counted over the whole drive.
        method: HTTP method.
        path: Path below the base URL, without query.
        keys: Primary keys of the batch's rows, in order.
        status: HTTP status; None where no answer came.
        error: What went wrong, by recovery class and code ("throttled SECONDLY"), or "".
        milliseconds: From sending to the last byte read.
        request_id: The vendor's id.
        sent: Bytes of the request's body, before compression.
        received: Bytes of the answer's body.
        request: The request's body, not scrubbed yet.
        response: The answer's body, not scrubbed yet.
    """

    at: float
    shard: int
    batch: str
    attempt: int
    method: str
    path: str
    keys: tuple[str, ...]
    status: int | None
    error: str
    milliseconds: int
    request_id: str
    sent: int
    received: int
    request: bytes
    response: bytes


class RequestLog(Protocol):
    """Where exchanges go. Threads share it. Logging never stops a delivery: what cannot be written is dropped."""

    def write(self, exchange: Exchange, *, failed: bool) -> None:
        """Keep an exchange.

        Args:
            failed: Whether a row of it was rejected or it went wrong, so that its bodies are worth keeping.
        """
        ...

    def close(self) -> None:
        """Flush and close."""
        ...
