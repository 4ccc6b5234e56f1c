"""What a stand-in is: it answers the requests below its part of the sandbox's paths, in its vendor's forms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from integrations_dagster.sandbox.answers import Answer, json_answer
from integrations_dagster.sandbox.quota import Over, Quotas


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has arrived whole.

    Attributes:
        seq: Its number in the request log.
        method: HTTP method.
        path: The whole path, decoded.
        query: Query parameters.
        headers: Request headers, names in lower case.
        body: The body, decompressed.
        document: The body as JSON; None where it is none.
        rows: How many rows it carries.
        rejections: `reject_rows` faults that apply.
        fail_job: The settings of a `fail_job` fault that applies, or None.
    """

    seq: int
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    document: Any
    rows: int
    rejections: Sequence[Mapping[str, Any]] = ()
    fail_job: Mapping[str, Any] | None = None


class Api(ABC):
    """One stand-in. The sandbox asks the first whose `prefix` begins the path."""

    prefix: ClassVar[str]
    guarded: ClassVar[bool] = True
    """Whether requests need the sandbox's credentials."""
    counted: ClassVar[bool] = True
    """Whether requests count against the quota."""
    gzip: ClassVar[bool] = False
    """Whether bodies may be sent with `Content-Encoding: gzip`."""

    @abstractmethod
    def handle(self, call: Call) -> Answer:
        """Answer one request, and commit its effects; never raises for what a client may send."""

    def empty(self, call: Call) -> Answer:  # noqa: ARG002
        """A success that says nothing (fault `empty`); also what a faulty answer is made of where nothing was done."""
        return json_answer(200, {})

    def refusal(self, status: int, headers: Mapping[str, str]) -> Answer:
        """An error of this status, in the vendor's form (fault `status`)."""
        code = "INTERNAL_ERROR" if status >= 500 else "THROTTLED" if status == 429 else "REFUSED"
        return error_answer(status, code, "Failed on demand.", headers)

    def unauthorized(self) -> Answer:
        """401."""
        return error_answer(401, "UNAUTHORIZED", "The credentials are missing, wrong or expired.")

    def throttled(self, over: Over, headers: Mapping[str, str]) -> Answer:
        """429."""
        return error_answer(429, "THROTTLED", f"Over the limit of {over.name}.", headers)

    def quota_headers(self, quotas: Quotas) -> dict[str, str]:
        """What answers tell of the quota."""
        return quotas.headers()

    def request_id(self, call: Call) -> tuple[str, str]:
        """Header name and value by which this API names a request."""
        return "x-request-id", f"req-{call.seq}"


def error_answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An error as the APIs write it that have no vendor: `{"error": {"code", "message"}}`."""
    answer = json_answer(status, {"error": {"code": code, "message": message}})
    answer.headers.update(headers or {})
    return answer
