"""A mutation as it is sent, for one row, for many under an alias each, or for a list of them; and what its answer says.

What holds (GraphQL specification, October 2021, sections 6.2.2 and 7.1):
- the fields at the top of a mutation do the work, one after the other; what is below only reads. So an error whose path
  ends at a row's alias says that the row was refused. One whose path goes on says that something of the result could
  not be read: the row is judged by what is there, and nothing there means that what became of it is unknown;
- the same of a list, where a path ends at an entry of it: its row was refused, if entries go by order;
- a null without an error confirms nothing (`nothing` may say what it means);
- errors without a path, in an answer without `data`, each with `locations`: the document or its variables were refused
  before anything was done. Without that proof an answer that says nothing of any row leaves all of them unknown, unless
  YAML says `atomic`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integrations_dagster.destinations.answers import By, Told, judged, unreadable
from integrations_dagster.destinations.base import Batch, Response
from integrations_dagster.destinations.error_table import asked_wait, shorten
from integrations_dagster.destinations.errors import PoisonedBatch, Unavailable
from integrations_dagster.destinations.graphql.documents import alias
from integrations_dagster.destinations.graphql.forms import SentKeys
from integrations_dagster.destinations.graphql.problems import cost_wait
from integrations_dagster.destinations.http.calls import Asked, Operation
from integrations_dagster.destinations.http.errors import Verdict
from integrations_dagster.destinations.http.forms import HttpApi
from integrations_dagster.destinations.http.templates import Scope, each_row, json_template
from integrations_dagster.destinations.paths import as_text, probe
from integrations_dagster.destinations.values import json_string

NOTHING = "NULL"
"""Code of a row whose mutation gave null and no error."""
UNFIT = "The document or its variables do not fit the API's schema."
WHOLE = frozenset({"throttled", "unauthorized", "misconfigured", "too_large"})
"""What errors mean that are no row's fault: if every row has one, the request as a whole is answered so."""
_PLAIN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Failure:
    """One of an answer's errors.

    Attributes:
        path: Where it is in the answer; empty where it does not say.
        code, message: Why, or "".
        placed: Whether it names a place in the document.
        error: The error itself.
    """

    path: tuple[str | int, ...]
    code: str
    message: str
    placed: bool
    error: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a mutation, taken apart.

    Attributes:
        data: What is under `data`, by key; None where there is nothing.
        failures: Its errors, in order.
        undone: Whether it proves that nothing was done.
    """

    data: Mapping[str, Any] | None
    failures: tuple[Failure, ...]
    undone: bool


class Mutation(Operation):
    """A mutation.

    Args:
        api: The API, in the form of kind `http`.
        form: What YAML says of the mutation.
        code, message: Expressions: where an error has them.
    """

    form: SentKeys

    def __init__(self, api: HttpApi, form: SentKeys, code: str, message: str) -> None:
        super().__init__(api, form)
        self.mutation = form.mutation
        self.aliases = self.mutation.aliases
        self.document_ = self.mutation.document
        # Of errors it knows better than one expression could say.
        self.ok = None
        self._code, self._message = code, message
        variables = self.mutation.variables
        self._variables = {name: json_template(value) for name, value in variables.items()} if self.aliases else {}

    # What is sent

    def made(self, batch: Batch) -> Asked:
        if not self.aliases or len(batch.rows) == 1:
            return super().made(batch)
        scopes = list(each_row(Scope.of(batch)))
        members = [
            b'"' + alias(scope.place).encode() + b"_" + name.encode() + b'":' + make(scope)
            for scope in scopes
            for name, make in self._variables.items()
        ]
        text = json_string(self.document_.for_rows(len(scopes)))
        body = b'{"query":' + text + b',"variables":{' + b",".join(members) + b"}}"
        more = {self._key_header: batch.idempotency_key} if self._key_header else None
        return self.asked(Scope.of(batch), body, more)

    def asked(
        self, scope: Scope, body: bytes | None = None, more: Mapping[str, str] | None = None, extra: str = ""
    ) -> Asked:
        # How many rows it has decides under which keys their results are looked for.
        rows = 1 if scope.batch is None else len(scope.batch.rows)
        return dataclasses.replace(super().asked(scope, body, more, extra), command=rows)

    # What is answered

    def keys(self, rows: int) -> list[str]:
        """Under which keys of `data` the results of a request are."""
        return [alias(place) for place in range(rows)] if self.aliases and rows > 1 else [self.document_.key]

    def reply(self, response: Response) -> Reply:
        """Take an answer of any status apart.

        Raises:
            Unavailable: It is none of GraphQL.
        """
        document = self.document(response)
        data = document.get("data") if isinstance(document, dict) else None
        errors = document.get("errors") if isinstance(document, dict) else None
        good = isinstance(document, dict) and (isinstance(data, dict) or data is None)
        if not good or not isinstance(errors, list | None) or not (data or errors):
            what = "a document that is no answer of GraphQL"
            raise unreadable(self._label, response.status, what, self.request_id(response))
        failures = tuple(self._failure(error) for error in errors or ())
        undone = "data" not in document and all(one.placed and not one.path for one in failures)
        return Reply(data, failures, undone)

    def verdict(self, response: Response, rows: int = 1) -> Verdict | None:
        """What an answer to a request that failed as a whole means; None of any that is to be read row by row.

        Args:
            rows: Of the request.
        """
        try:
            reply = self.reply(response)
        except Unavailable:
            return None if self.reads(response.status) else self._verdict(response, None, failed=False)
        verdict = self._whole(reply, response, rows)
        if verdict is not None and verdict.word == "unavailable" and reply.undone and response.status < 500:
            # Servers that give no code of their own to variables that do not fit call that an error within.
            entry = dataclasses.replace(verdict.entry, meaning=UNFIT, recovery=PoisonedBatch)
            return dataclasses.replace(verdict, word="rejected", entry=entry)
        return verdict

    def _whole(self, reply: Reply, response: Response, rows: int) -> Verdict | None:
        keys = self.keys(rows)
        found = [value for key in keys if (value := (reply.data or {}).get(key)) is not None]
        if found:
            refused = len(keys) == 1 and self.whole is not None and judged(self.whole, found[0]) is False
            return self._said(response, found[0]) if refused and not self.aliases else None
        own = [[one for one in reply.failures if one.path == (key,)] for key in keys]
        if len(keys) > 1 and any(own):
            # Each row may have been refused for a reason that is none of theirs.
            words = {self._of(response, failures[0]).word if failures else "" for failures in own}
            return self._of(response, own[0][0]) if len(words) == 1 and words <= WHOLE else None
        # A path that goes on is of a result that could not be read: what was to be done, was.
        failures = [one for one in reply.failures if len(one.path) < 2]
        return self._of(response, self._gravest(failures, response)) if failures else None

    def _said(self, response: Response, value: Any) -> Verdict:
        """What a result says that tells of its request as a whole."""
        answer = self.form.answer
        id_ = shorten(self.request_id(response))
        return self.errors.verdict(response, value, id_, answer.code, answer.message, failed=True)

    def _gravest(self, failures: Sequence[Failure], response: Response) -> Failure | None:
        """Of several errors, the one that is not about a row."""
        whole = (one for one in failures if self._of(response, one).word in WHOLE)
        return next(whole, failures[0] if failures else None)

    def _of(self, response: Response, failure: Failure | None) -> Verdict:
        failed = self.reads(response.status)
        verdict = self._verdict(response, {"errors": [] if failure is None else [failure.error]}, failed=failed)
        if verdict.word != "throttled" or asked_wait(response.headers) is not None:
            return verdict
        wait = cost_wait(self.document(response))
        return verdict if wait is None else dataclasses.replace(
            verdict, problem=dataclasses.replace(verdict.problem, wait=wait)
        )  # fmt: skip

    def _failure(self, error: Any) -> Failure:
        path = error.get("path") if isinstance(error, dict) else None
        placed = isinstance(error, dict) and bool(error.get("locations"))
        parts = tuple(path) if isinstance(path, list) else ()
        return Failure(
            parts, shorten(_text(self._code, error), 64), shorten(_text(self._message, error)), placed, error
        )

    # What it says of rows

    def read(self, reply: Reply, batch: Batch) -> list[Told]:
        """What an answer says of each row that it speaks of by alias or by an error's path."""
        data = reply.data or {}
        keys = self.keys(len(batch.rows))
        strangers = [one for one in reply.failures if not one.path or one.path[0] not in keys]
        told = [Told(None, accepted=False, code=one.code, message=one.message) for one in strangers]
        if self.aliases:
            return [*(self._row(data.get(key), key, place, reply) for place, key in enumerate(keys)), *told]
        return [*self._entries(keys[0], len(batch.rows), reply), *told]

    def _row(self, value: Any, key: str, place: int, reply: Reply) -> Told:
        own = [one for one in reply.failures if one.path[:1] == (key,)]
        refusal = next((one for one in own if len(one.path) == 1), None)
        if refusal is not None:
            return Told(place, accepted=False, code=refusal.code, message=refusal.message)
        if value is None:
            nothing = self.mutation.nothing
            return Told(place, accepted=None if own or nothing == "unknown" else False, code="" if own else NOTHING)
        answer = self.form.answer
        if answer.means is not None:
            return Told(place, accepted=True, id=_text(answer.id, value) or None, created=_truth(answer.created, value))
        accepted = judged(answer.listing("@"), value)
        return Told(
            place,
            accepted,
            _text(answer.id, value) or None,
            shorten(_text(answer.code, value), 64),
            shorten(_text(answer.message, value)),
            _truth(answer.created, value),
        )

    def _entries(self, key: str, rows: int, reply: Reply) -> Iterator[Told]:
        """Rows of a list whose entries an error is about."""
        results = self.paths.results if self.paths is not None else None
        if results is None or results.by is not By.ORDER or not (results.path == "@" or _PLAIN.fullmatch(results.path)):
            return
        prefix = (key, *(() if results.path == "@" else results.path.split(".")))
        for one in reply.failures:
            place = one.path[-1] if one.path else None
            if one.path[:-1] == prefix and isinstance(place, int) and 0 <= place < rows:
                yield Told(place, accepted=False, code=one.code, message=one.message)


def _text(path: str | None, value: Any) -> str:
    return as_text(probe(path, value)) if path else ""


def _truth(path: str | None, value: Any) -> bool | None:
    found = probe(path, value) if path else None
    return found if isinstance(found, bool) else None
