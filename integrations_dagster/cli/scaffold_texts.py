"""What `integrations scaffold` writes; <<name>> and other words in such brackets are filled in."""

from __future__ import annotations

YAML = """\
type: integrations_dagster.Destination

attributes:
  name: <<name>>
  # What can be said here, with examples of batches, jobs, look-ups and errors: docs/destinations/http.md.
  kind: http
  targets:
    # The default target is a server on this machine: a stand-in, or a test instance.
    sandbox: {base_url: "http://127.0.0.1:8765", auth: {kind: bearer, token: {env: <<NAME>>_TOKEN}}}
    # prod: {base_url: https://api.example.com, auth: {kind: bearer, token: {env: <<NAME>>_TOKEN}}}
  api:
    limits: {bytes: 1000000}            # To do: bytes that one request takes
    objects:
      records:                          # To do: what the API calls its records
        match: {external_id: exact}     # To do: the field that it finds them by
        upsert:
          request: POST /records        # To do: method and path
          rows: 100                     # To do: rows that one request takes
          body: {action: upsert, rows: "{rows}"}
          item: {key: "{match}", fields: "{record}"}
          # To do: where the answer says what became of each row. What it does not say is no success.
          answer:
            results: results
            by: {match: key}
            success: status != 'error'
            id: id
            code: code
            message: message
"""

_IMPORTS = """\
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
"""

YAML_TEST = (
    '"""The destination <<name>> keeps what every destination promises; docs/writing_a_destination.md."""\n\n'
    + _IMPORTS
    + """\
from pathlib import Path
from typing import Any

from integrations_dagster.testing import Subject, conformance_tests, described, to_do

KIND, OPTION = described(Path(__file__).resolve().parents[<<up>>] / "<<yaml>>")
"""
)

PYTHON_TEST = (
    '"""The destination <<name>> keeps what every destination promises; docs/writing_a_destination.md."""\n\n'
    + _IMPORTS
    + """\
from typing import Any

from integrations_dagster.testing import Subject, conformance_tests, to_do
from <<package>>.destinations.<<name>> import <<class>> as KIND

OPTION = None
"""
)

TEST = '''

class <<class>>Subject(Subject):
    """<<name>>, against a server whose records may be thrown away."""

    destination = KIND
    option = OPTION
    # To do: take out each to_do(...) once it is done.
    object = to_do("The object, as the API calls it.")
    match: tuple[str, ...] = to_do("The fields that records are recognized by; () where that is the primary key.")
    text = to_do("A field that takes any text.")
    token = os.environ.get("<<NAME>>_TOKEN", "")

    @to_do("Have the server ready, and yield its base URL.")
    @contextmanager
    def serve(self) -> Iterator[str]:
        yield "http://127.0.0.1:8765"

    @to_do("Delete all records of the object at the server.")
    def reset(self) -> None: ...

    @to_do("Read all records back: match value (or primary key) and fields of each.")
    def records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        yield from ()

    @to_do("A row that the server accepts; the match value holds `key`, and version 2 differs from version 1.")
    def good(self, key: str, version: int) -> dict[str, Any]:
        return {}

    @to_do("A row that the server rejects while it accepts others; return None if it rejects none so.")
    def bad(self, key: str, version: int) -> dict[str, Any] | None:
        return None

    # Also: throttled, wait, expired, takes, request_id, trusts; see integrations_dagster.testing.Subject.


Test<<class>> = conformance_tests(<<class>>Subject())
'''

PYTHON = '''\
"""<<class>>: what its API takes and says, without I/O: a flow yields requests and reads answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from integrations_dagster.destinations.base import (
    NO_RECORD,
    Batch,
    Destination,
    Flow,
    Limits,
    Repeat,
    Request,
    Response,
)
from integrations_dagster.destinations.error_table import ErrorEntry, Problem, asked_wait, raise_for, shorten
from integrations_dagster.destinations.errors import Refused, Throttled, TooLarge, Unauthorized, Unavailable
from integrations_dagster.destinations.values import json_value
from integrations_dagster.vocabulary import Action, Misconfigured, Mode, Outcome, Row, Status

# To do: what each status (and code, and message) means; the first line that fits decides.
TABLE = (
    ErrorEntry("401", Unauthorized, "The token is not accepted.", "Set the target's token anew."),
    ErrorEntry("413", TooLarge, "The request is too large."),
    ErrorEntry("429", Throttled, "Too many requests."),
    ErrorEntry("4xx", Refused, "The request was refused.", "Look the message up in the API's documentation."),
    ErrorEntry("5xx", Unavailable, "The API is out of order."),
    ErrorEntry("3xx", Refused, "The address answers with a redirect.", "Correct `base_url` of the target."),
    ErrorEntry("1xx", Unavailable, "The answer cannot be understood."),
)


class <<class>>(Destination):
    """To do: which API this is, which version, and where it is documented."""

    kind: ClassVar[str] = "<<name>>"
    label: ClassVar[str] = "<<class>>"
    # To do: what the API can do, and no more.
    modes: ClassVar[frozenset[Mode]] = frozenset({Mode.INSERT, Mode.UPDATE, Mode.UPSERT, Mode.MIRROR, Mode.DELETE})
    auth: ClassVar[str] = "bearer"
    in_sandbox: ClassVar[bool] = False

    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:
        if mode not in self.modes:
            possible = ", ".join(sorted(self.modes))
            raise Misconfigured(f"{self.label}: {object_} cannot take mode {mode.value!r}.", f"Possible: {possible}.")
        # To do: refuse objects, match fields and read-only fields that cannot work.

    def limits(self, object_: str, action: Action) -> Limits:
        # To do: rows and bytes that one request takes, by the API's documentation.
        return Limits(rows=20, bytes=30_000)

    def match_normalization(self, object_: str, match_field: str) -> str:
        # To do: "trim" or "trim_lower" where the API compares so.
        return "exact"

    def repeat(self, object_: str, action: Action) -> Repeat:
        # To do: NEVER where a second sending makes a second record, and the API knows no idempotency key.
        return Repeat.WITH_KEY if action is Action.CREATE else Repeat.ALWAYS

    def encode(self, value: Any) -> Any:
        return json_value(value)

    def identify(self) -> None:
        # To do: ask who the account is (a flow), where one URL serves many accounts.
        return None

    def classify(self, request: Request, response: Response) -> None:
        if 200 <= response.status < 300:
            return
        try:
            message = shorten(str(response.json()["error"]))  # To do: where the API says why.
        except (ValueError, KeyError, TypeError):
            message = ""
        raise_for(TABLE, self.label, Problem(response.status, (), message, wait=asked_wait(response.headers)))

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        # To do: method, path, headers and body.
        body = {"action": batch.action.value, "rows": [self._row(batch.action, row) for row in batch.rows]}
        headers = {"idempotency-key": batch.idempotency_key} if batch.action is Action.CREATE else {}
        # Letters as they are: escaped, they would take more bytes than `limits` counts.
        written = json.dumps(body, ensure_ascii=False).encode()
        response = yield Request("POST", f"/{batch.object}", written, headers)
        # Whatever this raises for an answer in another shape: what became of the rows is unknown then.
        results = {result["key"]: result for result in response.json()["results"]}
        return [self._outcome(results.get(row.key), self.request_id(response)) for row in batch.rows]

    def _row(self, action: Action, row: Row) -> dict[str, Any]:
        return {"key": row.key} if action is Action.DELETE else {"key": row.key, "fields": row.payload}

    def _outcome(self, result: dict[str, Any] | None, request_id: str) -> Outcome:
        if result is None:
            return Outcome(Status.UNSENT, None, "NO_ANSWER", "The answer does not mention the row.", request_id)
        if result["status"] == "error":
            code = NO_RECORD if result["code"] == "ABSENT" else result["code"]
            return Outcome(Status.REJECTED, None, code, shorten(result["message"]), request_id)
        return Outcome(Status(result["status"]), result["id"], request_id=request_id)
'''
