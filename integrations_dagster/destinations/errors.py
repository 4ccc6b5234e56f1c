"""What can go wrong at a destination, as classes by how to recover from it.

A destination's error table turns an answer into one of these; the delivery engine knows what to do with each class and
nothing of the vendor.
"""

from __future__ import annotations


class DestinationError(Exception):
    """Root of the recovery classes.

    Args:
        reason: A sentence for a person, free of secrets.
        code: The vendor's error code, for grouping.
        request_id: The vendor's id of the request.
    """

    kind = "error"

    def __init__(self, reason: str, code: str = "", request_id: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.request_id = request_id


class Throttled(DestinationError):
    """Wait, then send the same request again; costs no attempt.

    Args:
        wait: Seconds the destination asks to wait, or None where it does not say.
    """

    kind = "throttled"

    def __init__(self, reason: str, code: str = "", request_id: str = "", *, wait: float | None = None) -> None:
        super().__init__(reason, code, request_id)
        self.wait = wait


class Unavailable(DestinationError):
    """An outage or an answer that cannot be read: what the request did is unknown. Retry with backoff if repeatable."""

    kind = "unavailable"


class Unauthorized(DestinationError):
    """The credentials were refused: refresh once, then it is a misconfiguration."""

    kind = "unauthorized"


class TooLarge(DestinationError):
    """The request is too large and had no effect: split it."""

    kind = "too_large"


class PoisonedBatch(DestinationError):
    """The whole batch was refused, without effect, because of some of its rows: bisect until they are alone."""

    kind = "poisoned_batch"


class Refused(DestinationError):
    """No row of this kind can succeed until someone changes a setting: stop at once.

    Args:
        remedy: What to change, as a sentence.
    """

    kind = "misconfigured"

    def __init__(self, reason: str, code: str = "", request_id: str = "", *, remedy: str = "") -> None:
        super().__init__(reason, code, request_id)
        self.remedy = remedy
