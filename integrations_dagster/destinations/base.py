"""What a destination is: a declaration, and flows that turn batches into requests and answers into outcomes.

No I/O here. A flow is a generator: it yields a `Request`, is sent the `Response`, and returns its result. The engine in
`delivery/` drives it over HTTP and owns sockets, tokens, clocks and retries; a test drives it with recorded answers.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from integrations_dagster.destinations.reading import Page, Reference, TargetField
from integrations_dagster.destinations.values import json_number
from integrations_dagster.keys import Keys
from integrations_dagster.vocabulary import Action, Mode, Outcome, Row


@dataclass(frozen=True, slots=True)
class Request:
    """One request: of HTTP, or what another transport is asked to do.

    Attributes:
        method: HTTP method; of another transport, what is done ("UPSERT").
        path: Path below the account's base URL, starting with "/", or "" for the base URL itself; of another transport,
            where it is done ("public.customers").
        body: The encoded body, or None. Of JSON, unless `headers` have another content type.
        headers: Headers beside authentication; they hold in place of the client's own.
        reads: Whether it changes nothing, so that it may always be repeated; GET and HEAD need not say so.
        command: What another transport than HTTP is to do with the body, in its own terms.
        link: Whether `path` is an address as an answer gave it (a next page): a whole URL, or a path from the host's
            root. One of another host is refused, for it would be given the credentials.
    """

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reads: bool = False
    command: object = None
    link: bool = False

    @property
    def changes_nothing(self) -> bool:
        return self.reads or self.method in ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Remember:
    """Yielded by a flow whose work goes on at the destination after an answer (a job): what names it there.

    The engine stores it with the batch before it goes on. If no end of the flow is seen, `Destination.resume` is asked
    with it, by this run or a later one, instead of sending the rows again.

    Attributes:
        reference: The job's id, or what else `resume` needs; no secret.
    """

    reference: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Yielded by a flow that waits (for a job) before it goes on; the engine sleeps.

    Attributes:
        seconds: How long.
    """

    seconds: float


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
NO_RECORD = "no_record"
"""Outcome code of a row rejected because mode update found no record with its match value. Such a row is tried again
for as long as it is in the model, and never parked: the record may come into being at any time."""

T = TypeVar("T")
Flow: TypeAlias = Generator[Request | Remember | Pause, Response, T]
"""Yields requests and is sent their responses; after a `Remember` or a `Pause` it is sent an empty `Response(0)`."""


class Repeat(StrEnum):
    """Whether the same batch may be sent again when no answer came."""

    ALWAYS = "always"
    """It ends in the same state however often it is taken, whatever else was delivered in between."""
    WITH_KEY = "with_key"
    """The destination takes it once under one idempotency key, as long as the body is the same."""
    WHEN_QUIET = "when_quiet"
    """It looks up what is there before it creates anything: sent again from its look-up on, but only once nothing that
    was sent before can take effect any more."""
    NEVER = "never"
    """It would be done twice."""

    @property
    def safe(self) -> bool:
        """Whether the rows of a batch without an answer are simply sent again, by this run or a later one."""
        return self in (Repeat.ALWAYS, Repeat.WHEN_QUIET)


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests in any window of so many seconds."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """What an account takes, over all that use it.

    Attributes:
        quotas: All hold at once; empty where none is published.
        concurrency: Requests in flight at once, or None where no cap is known.
    """

    quotas: tuple[Quota, ...] = ()
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer says of one quota of the account.

    Attributes:
        seconds: Window of the quota it is about, or None where the answer does not say.
        limit: Requests in the window, or None.
        remaining: Requests left in it, or None.
        reset: Seconds from now until the window ends, or None.
    """

    seconds: float | None = None
    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None


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
        idempotency_key: Stays the same whenever this batch is sent again, and so does the body.
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
    auth_kinds: ClassVar[frozenset[str] | None] = None
    """Kinds of authentication that the vendor takes; None: any."""
    settings: ClassVar[frozenset[str]] = frozenset()
    """Secrets beside `auth` that a target of this kind may name ("secret" for a webhook)."""
    transport: ClassVar[str] = "http"
    """What carries its requests: a key of `delivery.transports.registry.TRANSPORTS`."""
    schemes: ClassVar[frozenset[str]] = frozenset({"http", "https"})
    """Schemes of URLs that a target of this kind may have."""
    options: ClassVar[tuple[str, type[Keys]] | None] = None
    """Key beside `kind` in YAML that says what is particular to the destination ("api"), and what may be in it; an
    instance has it as `option`."""
    in_sandbox: ClassVar[bool] = True
    """Whether the sandbox stands in for it. Where not, the target "sandbox" may be a server on this machine."""
    local_sandbox: ClassVar[str] = ""
    """URL of what stands in for it on this machine and needs no server, as "file://{folder}": its folder below the
    storage folder is filled in; "" where the sandbox's server does."""
    nulls: ClassVar[Literal["omit", "clear"]] = "omit"
    """What a sync does with nulls unless it says otherwise: "omit" or "clear"."""
    sandbox_only: ClassVar[bool] = False
    """Whether the sandbox is the only server that speaks it."""
    sandbox_path: ClassVar[str] = ""
    """Path of the sandbox below which each destination of this kind is an account of its own, by its name; "" where all
    destinations of the kind share one account there."""
    gzip: ClassVar[bool] = False
    """Whether request bodies may be sent with Content-Encoding gzip."""
    as_text: ClassVar[frozenset[type]] = frozenset({str})
    """Types whose values `encode` makes their plain text, so that it need not be called for them: a str itself, an int
    in digits, a Decimal exact and without exponent, a date as 2026-08-01."""
    carries_token: ClassVar[bool] = False
    """Whether a session's token may travel in the bodies of its requests (`carry`)."""
    nests: ClassVar[bool] = False
    """Whether a field may lie in an object of the payload: "address.city" is then a path, else a name with a dot."""
    settles: ClassVar[float] = 0.0
    """Seconds after a request's timeout within which work that it began may still take effect (jobs)."""
    key_lifetime: ClassVar[float] = 24 * 3600.0
    """Seconds for which the destination remembers an idempotency key (`Repeat.WITH_KEY`)."""

    def __init__(self, secrets: Mapping[str, str] | None = None, option: Any = None) -> None:
        self._secrets = dict(secrets or {})
        self.option = option

    @abstractmethod
    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:
        """Refuse what this destination cannot do, when the YAML is loaded.

        Raises:
            Misconfigured: Naming what is wrong and what is possible.
        """

    def exposes(self, object_: str) -> frozenset[str]:  # noqa: ARG002
        """Fields whose values are sent elsewhere than under their own names in a JSON body: in an address, a header, a
        member of another name. Logs would not recognize them there, so none of them may be `sensitive`."""
        return frozenset()

    @abstractmethod
    def limits(self, object_: str, action: Action) -> Limits:
        """Limits of one request; a sync's `batch:` may lower them."""

    @abstractmethod
    def match_normalization(self, object_: str, match_field: str) -> str:
        """How this destination compares a match value: "exact", "trim" or "trim_lower"."""

    @abstractmethod
    def repeat(self, object_: str, action: Action) -> Repeat:
        """Whether the same batch may be sent again when no answer came."""

    def renames(self, object_: str) -> bool:  # noqa: ARG002
        """Whether UPDATE renames a record, by its id, whose match value has changed. Where not, the row is written as
        another record, and mode mirror deletes the one that it had."""
        return True

    def account_limits(self) -> AccountLimits:
        """What an account of this kind takes unless its settings or its answers say otherwise."""
        return AccountLimits()

    def usage(self, response: Response) -> tuple[Usage, ...]:  # noqa: ARG002
        """What an answer, of any status, says of the account's quotas."""
        return ()

    def request_id(self, response: Response) -> str:
        """The vendor's own id of a request, from its answer, or ""."""
        return response.headers.get("x-request-id", "")

    def can_verify(self, object_: str, match: Sequence[str]) -> bool:  # noqa: ARG002
        """Whether `verify` can look records of the object up by these match fields."""
        return False

    def verify(self, batch: Batch) -> Flow[list[Outcome | None]]:
        """Look up whether rows in doubt, sent by CREATE, are at the destination. Only asked where `can_verify`.

        Returns:
            For each row, in order: CREATED with the destination id where a record with its match value exists, None
            where there is none, IN_DOUBT where the answer does not say.
        """
        raise NotImplementedError

    def resume(self, batch: Batch, reference: str) -> Flow[list[Outcome]]:
        """Go on with what `Remember` named: wait for its end and read the outcomes of the rows. Sends no row.

        Only asked of destinations whose flows yield `Remember`.
        """
        raise NotImplementedError

    def references(self) -> tuple[Reference, ...]:
        """What values can be looked up in."""
        return ()

    def read(self, reference: str, columns: Sequence[str], cursor: str | None) -> Flow[Page]:
        """Read a page of a reference's records.

        Args:
            reference: A name of `references`.
            columns: Columns that are wanted; others may come too.
            cursor: That of the page before, or None for the first.
        """
        raise NotImplementedError

    @property
    def writes(self) -> str:
        """The format of files that it writes, as "parquet"; "" where it writes none."""
        return ""

    @property
    def describes(self) -> bool:
        """Whether the destination says which fields its objects have."""
        return False

    def fields(self, object_: str) -> Flow[list[TargetField]]:
        """Read which fields an object has. Only asked where `describes`.

        Fields that these credentials may not be allowed to see are left to `restricted_fields`.
        """
        raise NotImplementedError

    def match_remedy(self, object_: str, match: Sequence[str]) -> str:  # noqa: ARG002
        """A sentence on how the fields are made such that records can be matched by them, or ""."""
        return ""

    def restricted_fields(self, object_: str) -> tuple[Flow[list[TargetField]], ...]:  # noqa: ARG002
        """Further lists of fields, asked for where one of a sync's fields is not in `fields`; a list that is refused
        has none of them."""
        return ()

    @abstractmethod
    def encode(self, value: Any) -> Any:
        """Turn a non-null column value into the JSON value this destination takes.

        Args:
            value: bool, int, float, Decimal, str, date, datetime (aware or naive), time, UUID, bytes, list or dict.

        Raises:
            ValueError: The value has no form here (NaN, bytes), with a reason for a person.
        """

    def encode_number(self, value: float | Decimal) -> Any:
        """Turn the value of a field with `type: number` into what this destination takes; equal numbers, of whatever
        type, must become the same.

        Args:
            value: int, float or Decimal; finite.
        """
        return json_number(value)

    def cleared(self) -> Any:
        """What empties a field (`nulls: clear`): the JSON value, None for null."""
        return None

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

    def carry(self, request: Request, token: str) -> Request:  # noqa: ARG002
        """Put a session's token into the body of a request that is about to be sent. Only asked where `carries_token`;
        what is logged of the request is what it was before."""
        return request

    @abstractmethod
    def identify(self) -> Flow[str] | None:
        """Ask the account who it is (portal, organization); None where the base URL is all there is to know."""

    @abstractmethod
    def classify(self, request: Request, response: Response) -> None:
        """The error table: return for an answer the flow should read, raise an `errors` class for any other."""
