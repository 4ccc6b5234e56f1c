"""What a destination is: a declaration, and flows that turn batches into requests and answers into outcomes.

No I/O here. A flow is a generator: it yields a `Request`, is sent the `Response`, and returns its result. The engine in
`delivery/` drives it over HTTP and owns sockets, tokens, clocks and retries; a test drives it with recorded answers.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, TypeVar

from integrations_dagster.vocabulary import Action, Mode, Outcome, Row


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Attributes:
        method: HTTP method.
        path: Path below the account's base URL, starting with "/", or "" for the base URL itself.
        body: The encoded body, or None.
        headers: Headers beside authentication and content type.
    """

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer, read whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """Decode the body.

        Raises:
            ValueError: The body is not JSON.
        """
        return json.loads(self.body)


GONE = "gone"
"""Outcome code of a rejected row whose record no longer exists at the destination: the state forgets the record, so
that the next run creates it again."""

T = TypeVar("T")
Flow: TypeAlias = Generator[Request, Response, T]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may carry: rows, bytes of the body, bytes of one row's canonical JSON (None: no limit known)."""

    rows: int
    bytes: int | None = None
    row_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one request (of one flow): one object, one action.

    Attributes:
        sync: Name of the sync.
        object: Object at the destination.
        action: How all of the rows are delivered.
        match_fields: Target names of the match values, in order; empty where the primary key is the match value.
        rows: The rows, at least one; no two with the same match value.
        idempotency_key: Stays the same whenever this batch is sent again.
    """

    sync: str
    object: str
    action: Action
    match_fields: tuple[str, ...]
    rows: tuple[Row, ...]
    idempotency_key: str


class Destination(ABC):
    """An API that rows are delivered to.

    An instance belongs to one account and one run of a process; it holds what its flows need to sign requests and
    nothing that changes.
    """

    kind: ClassVar[str]
    """The name that YAML uses."""
    label: ClassVar[str]
    """The name that people use ("HubSpot")."""
    modes: ClassVar[frozenset[Mode]]
    auth: ClassVar[str]
    """How requests are authenticated by the engine: "bearer" or "none" (a flow that signs, signs itself)."""
    settings: ClassVar[frozenset[str]] = frozenset()
    """Secrets beside `auth` that a target of this kind may name ("secret" for a webhook)."""

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        self._secrets = dict(secrets or {})

    @abstractmethod
    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:
        """Refuse what this destination cannot do, when the YAML is loaded.

        Raises:
            Misconfigured: Naming what is wrong and what is possible.
        """

    @abstractmethod
    def limits(self, object_: str, action: Action) -> Limits:
        """Limits of one request; a sync's `batch:` may lower them."""

    @abstractmethod
    def match_normalization(self, object_: str, match_field: str) -> str:
        """How this destination compares a match value: "exact", "trim" or "trim_lower"."""

    @abstractmethod
    def repeatable(self, object_: str, action: Action) -> bool:
        """Whether the same batch may be sent again when no answer came, ending in the same state."""

    @abstractmethod
    def encode(self, value: Any) -> Any:
        """Turn a non-null column value into the JSON value this destination takes.

        Args:
            value: bool, int, float, Decimal, str, date, datetime (aware or naive), time, UUID, bytes, list or dict.

        Raises:
            ValueError: The value has no form here (NaN, bytes), with a reason for a person.
        """

    @abstractmethod
    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        """Deliver one batch; returns one outcome for each row, in order.

        Raises (into the engine, from inside the generator): the classes of `errors`. A 2xx is never success by itself.
        """

    def sign(self, request: Request) -> Request:
        """Make a request ready for this very sending; called before each, repeats included, by what sends it.

        A signature that holds the time of sending is renewed here; body and idempotency key stay.
        """
        return request

    @abstractmethod
    def identify(self) -> Flow[str] | None:
        """Ask the account who it is (portal, organization); None where the base URL is all there is to know."""

    @abstractmethod
    def classify(self, request: Request, response: Response) -> None:
        """The error table: return for an answer the flow should read, raise an `errors` class for any other."""
