"""APIs whose calls have a method and parameters, described from YAML alone: what JSON-RPC and XML-RPC share.

A call delivers one row or several. Calls of one row go one by one or, where the API takes that, several in one request.
An answer with status 200 may be an error, of the call or of single rows; what it means is `errors`'.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from integrations_dagster.destinations.answers import (
    AnswerPaths,
    Reading,
    Told,
    no_record,
    outcomes,
    read_rows,
    unreadable,
)
from integrations_dagster.destinations.base import Batch, Destination, Flow, Limits, Repeat, Request, Response, Usage
from integrations_dagster.destinations.error_table import Problem, asked_wait, shorten
from integrations_dagster.destinations.errors import PoisonedBatch, Unavailable
from integrations_dagster.destinations.paths import as_text, probe
from integrations_dagster.destinations.reading import Page, Reference, TargetField
from integrations_dagster.destinations.rpc import templates
from integrations_dagster.destinations.rpc.calls import Answer, Call, Expected, Reply, listing_of, refused, told_of
from integrations_dagster.destinations.rpc.checks import check, needed
from integrations_dagster.destinations.rpc.errors import ErrorLines, Failure
from integrations_dagster.destinations.rpc.forms import AnswerKeys, CallKeys, RpcKeys, quoted
from integrations_dagster.destinations.rpc.reading import columns_of, field_of
from integrations_dagster.destinations.rpc.values import encoded
from integrations_dagster.destinations.usage import usage
from integrations_dagster.vocabulary import Action, Mode, Outcome, Row, Status

AMBIGUOUS = "AMBIGUOUS"
"""Outcome code of a row whose match value several records have."""


class Rpc(Destination):
    """An API of calls. What an instance can do is what its `option`, an `RpcKeys`, says."""

    modes: ClassVar[frozenset[Mode]] = frozenset(Mode)
    auth: ClassVar[str] = "none"
    settings: ClassVar[frozenset[str]] = frozenset({"secret"})
    in_sandbox: ClassVar[bool] = False
    nests: ClassVar[bool] = True
    option: RpcKeys

    def __init__(self, secrets: Mapping[str, str] | None = None, option: Any = None) -> None:
        super().__init__(secrets, option)
        if isinstance(option, RpcKeys):
            self.label = option.label  # type: ignore[misc]
        self._errors = ErrorLines(() if option is None else option.errors, self.label)

    # What the protocol is

    @abstractmethod
    def write(self, calls: Sequence[Call], *, together: bool) -> tuple[bytes, dict[str, str]]:
        """The body of a request and its headers."""

    @abstractmethod
    def read_answer(self, response: Response, expected: Expected) -> Answer:
        """Read an answer of any status.

        Raises:
            Unavailable: It is none of the protocol: what the request did is unknown.
        """

    def failure(self, error: Any) -> Failure:
        """What an error object says."""
        code, message = self.option.code or "code", self.option.message or "message"
        return Failure(shorten(as_text(probe(code, error)), 64), shorten(as_text(probe(message, error))))

    # What it can do

    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:  # noqa: ARG002
        check(self.option, self.label, object_, mode, match)

    def limits(self, object_: str, action: Action) -> Limits:  # noqa: ARG002
        alone = not self.option.batch and any(call.per_row for call in needed(self.option, action))
        return Limits(rows=1 if alone else self.option.rows, bytes=self.option.bytes)

    def match_normalization(self, object_: str, match_field: str) -> str:  # noqa: ARG002
        return (self.option.match or {}).get(match_field, "exact")

    def repeat(self, object_: str, action: Action) -> Repeat:  # noqa: ARG002
        """As `repeat` of the calls says: a create never, any other always, unless it says otherwise. What is looked up
        and then created or updated begins anew with its look-up."""
        calls = needed(self.option, action)
        again = [call.repeat or ("never" if call is self.option.create else "always") for call in calls]
        if set(again) <= {"always"}:
            return Repeat.ALWAYS
        if len(calls) > 1 and again[calls.index(self.option.update)] == "always":  # type: ignore[arg-type]
            return Repeat.WHEN_QUIET
        return Repeat.NEVER

    def renames(self, object_: str) -> bool:  # noqa: ARG002
        return self.option.update is not None and self.option.update.by_id

    def usage(self, response: Response) -> tuple[Usage, ...]:
        return usage(response.headers)

    def encode(self, value: Any) -> Any:
        """JSON that keeps the value exact, or the form that `api.types` has for it."""
        return encoded(value, self.option.types, self.plain)

    def plain(self, value: Any) -> Any:
        """The form of a value that `api.types` has none for."""
        return encoded(value, {}, None)

    def cleared(self) -> Any:
        return self.option.empty

    def identify(self) -> None:
        """None: the base URL is all there is to know."""

    # Answers

    def classify(self, request: Request, response: Response) -> None:
        """Raise for what concerns a request as a whole; what is of single rows is left to the flow."""
        expected = request.command if isinstance(request.command, Expected) else Expected(1, together=False)
        good = 200 <= response.status < 300
        try:
            answer = self.read_answer(response, expected)
        except Unavailable:
            if good:
                raise
            answer = Answer()
        failures = [answer.whole] if answer.whole else [reply.failure for reply in answer.replies if reply is not None]
        told = [failure for failure in failures if failure is not None]
        if not told:
            if not good:
                self._errors.raise_for(self._problem(response))
            return
        problems = [self._problem(response, failure) for failure in told]
        if answer.whole is None and (len(told) < expected.calls or any(map(self._errors.of_row, problems))):
            return
        # Of a batch that was refused whole, each row is at fault as much as any other.
        self._errors.raise_for(problems[0])

    def _problem(self, response: Response, failure: Failure | None = None) -> Problem:
        codes = (failure.code,) if failure is not None and failure.code else ()
        return Problem(
            response.status,
            codes,
            failure.message if failure is not None else "",
            request_id=shorten(self.request_id(response)),
            wait=asked_wait(response.headers),
        )

    # Delivering

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        api, action = self.option, batch.action
        if action is Action.CREATE and api.create is not None:
            return (yield from self._make(api.create, batch))
        if action is Action.UPSERT and api.upsert is not None:
            return (yield from self._make(api.upsert, batch))
        if action is Action.DELETE and api.delete is not None:
            return (yield from self._by_id(api.delete, batch))
        if action is Action.UPDATE and api.update is not None and api.update.by_id:
            return (yield from self._by_id(api.update, batch))
        if action is Action.MODIFY and api.update is not None:
            return (yield from self._by_id(api.update, batch))
        if action is Action.UPSERT and api.update is not None:
            return (yield from self._by_id(api.update, batch, api.create))
        reason = f"`api` of the destination has no call that could {action} the record of a row."
        return [Outcome(Status.REJECTED, None, "NO_CALL", reason)] * len(batch.rows)

    def _by_id(self, call: CallKeys, batch: Batch, otherwise: CallKeys | None = None) -> Flow[list[Outcome]]:
        """Make a call for the rows whose records are known or found, and another one for the rest."""
        told: dict[int, Outcome] = {}
        rows = dict(enumerate(batch.rows))
        knows = batch.action in (Action.DELETE, Action.UPDATE)
        unknown = [place for place, row in rows.items() if not (knows and row.destination_id)]
        if call.by_id and unknown:
            part = replace(batch, rows=tuple(rows[place] for place in unknown))
            found = yield from self._look_up(part)
            for place, ids in zip(unknown, found, strict=True):
                if len(ids) > 1:
                    told[place] = self._ambiguous(batch, ids)
                rows[place] = replace(rows[place], destination_id=ids[0] if ids else None)
        there = [place for place in rows if place not in told and (not call.by_id or rows[place].destination_id)]
        absent = [place for place in rows if place not in told and place not in there]
        if there:
            part = replace(batch, rows=tuple(rows[place] for place in there))
            done = yield from self._make(call, part, created=False)
            told.update(zip(there, done, strict=True))
        if absent and otherwise is not None:
            part = replace(batch, rows=tuple(rows[place] for place in absent))
            told.update(zip(absent, (yield from self._make(otherwise, part, created=True)), strict=True))
        elif absent:
            # What was to be deleted and is not there is as it was wanted.
            nothing = Outcome(Status.DELETED) if batch.action is Action.DELETE else no_record(Reading(self.label))
            told.update(dict.fromkeys(absent, nothing))
        return [told[place] for place in rows]

    def _make(self, call: CallKeys, batch: Batch, *, created: bool | None = None) -> Flow[list[Outcome]]:
        if call.per_row:
            done = yield from self._each(call, batch)
        else:
            done = yield from self._all(call, batch)
        made = Status.CREATED if created else Status.UPDATED
        keeps = any(c is not None and c.by_id for c in (self.option.update, self.option.delete))
        return [
            Outcome(
                made if created is not None and outcome.status in (Status.CREATED, Status.UPDATED) else outcome.status,
                # An id that no call can use would be asked for one.
                (outcome.destination_id or row.destination_id) if keeps else None,
                outcome.code,
                outcome.reason,
                outcome.request_id,
            )
            for row, outcome in zip(batch.rows, done, strict=True)
        ]

    def _all(self, call: CallKeys, batch: Batch) -> Flow[list[Outcome]]:
        """All rows in one call."""
        values = self._values(batch)
        calls = [self._filled(call, batch, values)]
        response = yield self._request(calls)
        reading = self._reading(response, batch)
        reply = self._reply(response)
        if reply.failure is not None:
            if len(batch.rows) > 1:
                problem = self._problem(response, reply.failure)
                reason = f"{self.label} refused the call: {problem.message or problem.codes}"
                raise PoisonedBatch(reason, reply.failure.code, problem.request_id)
            return outcomes(batch, [refused(0, reply.failure)], reading)
        if not isinstance(call.answer, AnswerKeys):
            return outcomes(batch, [Told(place, accepted=True) for place in range(len(batch.rows))], reading)
        return read_rows(AnswerPaths(listing_of(call.answer)), batch, reply.result, reading, response.status)

    def _each(self, call: CallKeys, batch: Batch) -> Flow[list[Outcome]]:
        """A call for each row."""
        values = self._values(batch)
        calls = [self._filled(call, batch, [value]) for value in values]
        together = self.option.batch
        response = yield self._request(calls, together=together)
        answer = self.read_answer(response, Expected(len(calls), together))
        told = []
        for place, reply in enumerate(answer.replies):
            if reply is None:
                continue
            if reply.failure is None:
                told.append(told_of(call.answer, reply.result, place))
            elif not self._errors.unknown(self._problem(response, reply.failure)):
                told.append(refused(place, reply.failure))
        return outcomes(batch, told, self._reading(response, batch), status=response.status)

    def _look_up(self, batch: Batch) -> Flow[list[list[str]]]:
        """The ids of the records that have each row's match value.

        Raises:
            Unavailable: The answer has a record without id or match value, so that none can be said to be absent.
            PoisonedBatch: The call was refused for one of the values.
        """
        search = self.option.search
        assert search is not None, "check() asks for it"
        normalize = self._normalize(batch)
        wanted: dict[str, list[str]] = {normalize(row.match): [] for row in batch.rows}
        # A look-up finds a record twice only where there are two.
        values = {"limit": 2 * len(wanted), "matches": [self._typed_match(match) for match in wanted]}
        scope = self._scope(batch, values)
        response = yield self._request([_call(search.method, search.params, scope)], reads=True)
        reply = self._reply(response)
        if reply.failure is not None:
            raise PoisonedBatch(
                f"{self.label} refused to look up the rows: {reply.failure.message}", reply.failure.code
            )
        match_at = quoted(batch.match_fields[0]) if search.by is None else search.by.named[1]
        for record in self._records(search.records, reply, response):
            match, id_ = as_text(probe(match_at, record)), as_text(probe(search.id, record))
            if not match or not id_:
                raise unreadable(self.label, response.status, "a record without id or match value", "")
            ids = wanted.get(normalize(match))
            if ids is not None and id_ not in ids:
                ids.append(id_)
        return [wanted[normalize(row.match)] for row in batch.rows]

    def can_verify(self, object_: str, match: Sequence[str]) -> bool:  # noqa: ARG002
        return self.option.search is not None and len(match) == 1

    def verify(self, batch: Batch) -> Flow[list[Outcome | None]]:
        """Look records up by match value."""
        found = yield from self._look_up(batch)
        return [Outcome(Status.CREATED, ids[0]) if ids else None for ids in found]

    def _ambiguous(self, batch: Batch, ids: Sequence[str]) -> Outcome:
        reason = (
            f"{len(ids)} records have the row's {batch.match_fields[0]} (ids {', '.join(ids[:5])}), so that it is not "
            "known which is meant. Merge them there."
        )
        return Outcome(Status.REJECTED, None, AMBIGUOUS, reason)

    # Requests

    def _request(self, calls: Sequence[Call], *, together: bool = False, reads: bool = False) -> Request:
        body, headers = self.write(calls, together=together)
        return Request("POST", self.option.path, body, headers, reads, Expected(len(calls), together))

    def _reply(self, response: Response) -> Reply:
        reply = self.read_answer(response, Expected(1, together=False)).replies[0]
        assert reply is not None
        return reply

    def _records(self, path: str, reply: Reply, response: Response) -> list[Any]:
        records = probe(path, reply.result)
        if not isinstance(records, list):
            raise unreadable(self.label, response.status, f"no list at `{path}`", self.request_id(response))
        return records

    def _reading(self, response: Response, batch: Batch) -> Reading:
        meaning = partial(self._errors.meaning, status=response.status)
        return Reading(self.label, shorten(self.request_id(response)), self._normalize(batch), meaning)

    def _normalize(self, batch: Batch) -> Callable[[str], str]:
        how = self.match_normalization(batch.object, next(iter(batch.match_fields), ""))
        if how == "trim_lower":
            return lambda text: text.strip().lower()
        return str.strip if how == "trim" else str

    def _filled(self, call: CallKeys, batch: Batch, rows: Sequence[Mapping[str, Any]]) -> Call:
        each = [self._scope(batch, row) for row in rows]
        if call.per_row:
            return _call(call.method, call.params, each[0])
        lists = {
            "rows": [row["record"] for row in rows],
            "ids": [row["id"] for row in rows],
            "matches": [row["match"] for row in rows],
            "keys": [row["key"] for row in rows],
            "idempotency_key": batch.idempotency_key,
        }
        return _call(call.method, call.params, self._scope(batch, lists), each)

    def _values(self, batch: Batch) -> list[dict[str, Any]]:
        return [self._row(row, next(iter(batch.match_fields), None), batch) for row in batch.rows]

    def _row(self, row: Row, match_field: str | None, batch: Batch) -> dict[str, Any]:
        fields = row.payload
        match = self._typed_match(row.match)
        record = fields if match_field is None else {match_field: match, **fields}
        # A record that is known by its id gets the row's new match value; one that was found by it has that already.
        renamed = batch.action is Action.UPDATE
        return {
            "record": record,
            "fields": record if renamed else {name: value for name, value in fields.items() if name != match_field},
            "match": match,
            "id": _typed(row.destination_id, self.option.id_type),
            "key": row.key,
            "idempotency_key": f"{batch.idempotency_key}-{row.key}",
        }

    def _typed_match(self, match: str) -> Any:
        return _typed(match, self.option.match_type)

    def _scope(self, batch: Batch, values: Mapping[str, Any]) -> templates.Values:
        return self._named(
            batch.object, {"match_field": next(iter(batch.match_fields), ""), "sync": batch.sync}, values
        )

    def _named(self, object_: str, *values: Mapping[str, Any]) -> templates.Values:
        known: dict[str, Any] = {"object": object_, "secret": self._secrets.get("secret", "")}
        for part in values:
            known.update(part)

        def value(name: str) -> Any:
            if not name.startswith(templates.FIELD):
                return known.get(name)
            # A field that a row has no value for is null.
            found = known.get("record")
            for part in name.removeprefix(templates.FIELD).split("."):
                found = found.get(part) if isinstance(found, dict) else None
            return found

        return value

    # Reading

    def references(self) -> tuple[Reference, ...]:
        return tuple(
            Reference(name, keys.value, keys.key, tuple(keys.columns), description=f"what {keys.method} lists")
            for name, keys in self.option.references.items()
        )

    def read(self, reference: str, columns: Sequence[str], cursor: str | None) -> Flow[Page]:
        """One page; the last is one without records, or the only one where the call takes no offset."""
        keys = self.option.references[reference]
        offset, _, before = (cursor or "0:").partition(":")
        scope = self._named(reference, {"offset": int(offset), "limit": keys.page})
        response = yield self._request([_call(keys.method, keys.params, scope)], reads=True)
        reply = self._reply(response)
        if reply.failure is not None:
            raise Unavailable(f"{self.label} refused to list {reference}: {reply.failure.message}", reply.failure.code)
        records = self._records(keys.records, reply, response)
        rows = tuple(columns_of(record, keys.columns, columns) for record in records)
        if not records or not any(name == "offset" for name, _ in templates.names(keys.params)):
            return Page(rows)
        digest = hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
        if digest == before:
            raise unreadable(
                self.label, response.status, f"the same page of {reference} twice", self.request_id(response)
            )
        return Page(rows, f"{int(offset) + len(records)}:{digest}")

    @property
    def describes(self) -> bool:
        return self.option.fields is not None

    def fields(self, object_: str) -> Flow[list[TargetField]]:
        keys = self.option.fields
        assert keys is not None, "only asked where `describes`"
        response = yield self._request([_call(keys.method, keys.params, self._named(object_))], reads=True)
        reply = self._reply(response)
        if reply.failure is not None:
            raise Unavailable(f"{self.label} does not tell its fields: {reply.failure.message}", reply.failure.code)
        found = probe(keys.records, reply.result)
        entries = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
        match = self.option.match
        fields = [field for name, entry in entries if (field := field_of(keys, name, entry, match)) is not None]
        if not fields:
            raise unreadable(self.label, response.status, f"no fields at `{keys.records}`", self.request_id(response))
        return fields


def _call(method: str, params: Any, values: templates.Values, rows: Sequence[templates.Values] = ()) -> Call:
    return str(templates.fill(method, values)), templates.fill(params, values, rows)


def _typed(text: str | None, kind: str) -> Any:
    whole = text is not None and text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()
    return int(text) if kind == "integer" and text is not None and whole else text
