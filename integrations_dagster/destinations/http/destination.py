"""Kind `http`: a REST API as YAML describes it (docs/destinations/http.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar

import yaml

from integrations_dagster.destinations.answers import (
    Meaning,
    Reading,
    Told,
    accepted_status,
    as_another,
    no_record,
    outcome_of,
    outcomes,
    read_rows,
)
from integrations_dagster.destinations.base import (
    Batch,
    Destination,
    Flow,
    Limits,
    Repeat,
    Request,
    Response,
    Usage,
)
from integrations_dagster.destinations.errors import DestinationError, PoisonedBatch, Refused, Unavailable
from integrations_dagster.destinations.http import jobs, reading
from integrations_dagster.destinations.http.bodies import xml_text
from integrations_dagster.destinations.http.calls import Asked, Call, Operation, identifier, operation_of
from integrations_dagster.destinations.http.checks import check_sync, modes_of, object_of
from integrations_dagster.destinations.http.errors import Verdict
from integrations_dagster.destinations.http.forms import HttpApi, ObjectKeys
from integrations_dagster.destinations.http.reading_forms import FieldsKeys
from integrations_dagster.destinations.http.templates import Scope, Unfit, placeholders
from integrations_dagster.destinations.paths import as_text, probe
from integrations_dagster.destinations.reading import Page, Reference, TargetField
from integrations_dagster.destinations.usage import reset_of, usage, whole
from integrations_dagster.destinations.values import json_value
from integrations_dagster.keys import Keys
from integrations_dagster.vocabulary import SUCCEEDED, Action, Misconfigured, Mode, Outcome, Row, Status

NO_ID = "NO_RECORD_ID"
AMBIGUOUS = "SEVERAL_RECORDS"
UNADDRESSABLE = "UNADDRESSABLE"


class Http(Destination):
    """Any REST API.

    Args:
        option: What YAML says under `api`.
    """

    kind: ClassVar[str] = "http"
    label: ClassVar[str] = "HTTP API"
    modes: ClassVar[frozenset[Mode]] = frozenset(Mode)
    auth: ClassVar[str] = "any"
    options: ClassVar[tuple[str, type[Keys]] | None] = ("api", HttpApi)
    in_sandbox: ClassVar[bool] = False
    as_text: ClassVar[frozenset[type]] = frozenset({str, Decimal, date})
    nests: ClassVar[bool] = True

    def __init__(self, secrets: Mapping[str, str] | None = None, option: Any = None) -> None:
        super().__init__(secrets, option)
        if not isinstance(option, HttpApi):
            raise Misconfigured(
                "A destination of kind http has no `api`.", "Describe its objects and operations there."
            )
        self.api = option
        # What a class says of its kind, an instance says of its API.
        self.label = option.label  # type: ignore[misc]
        self.key_lifetime = option.key_lifetime  # type: ignore[misc]
        forms = [operation for object_ in option.objects.values() for operation in object_.operations.values()]
        self.settles = max(  # type: ignore[misc]
            (form.job.patience for form in forms if form.job is not None), default=0.0
        )
        self._encode: Callable[[Any], Any] = json_value
        if any((form.encoding or option.encoding) == "xml" for form in forms):
            self._encode = xml_text(json_value)
            self.as_text = frozenset()  # type: ignore[misc]
        self._operations: dict[int, Operation] = {}

    @classmethod
    def from_yaml(cls, text: str, label: str = "") -> Http:
        """A destination from the YAML of `api`, for tests and notebooks.

        Args:
            label: What the destination is called there.

        Raises:
            pydantic.ValidationError: What is wrong, at its key.
        """
        return cls(option=HttpApi.model_validate(yaml.safe_load(text), context={"destination": label}))

    def modes_of(self, object_: str) -> frozenset[Mode]:
        """The modes that an object's operations allow."""
        return modes_of(object_of(self.api, object_))

    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:
        check_sync(self.api, object_, mode, match, fields)

    def exposes(self, object_: str) -> frozenset[str]:
        """Fields that a request names by themselves: `{record.ssn}`."""
        form = object_of(self.api, object_)
        said = [[o.request, o.query, o.headers, o.body, o.item] for o in form.operations.values()]
        return frozenset(path for name, path in placeholders(said) if name == "record" and path)

    def limits(self, object_: str, action: Action) -> Limits:
        form = object_of(self.api, object_)
        direct = self._direct(form, action)
        if direct is not None:
            parts = [direct.rows]
        elif action is Action.UPSERT:
            parts = [operation.rows for operation in (form.create, form.update) if operation is not None]
        else:
            parts = [1]
        if direct is None and form.search is not None:
            parts.append(form.search.rows)
        return Limits(min(parts, default=1), self.api.limits.bytes, self.api.limits.row_bytes)

    def match_normalization(self, object_: str, match_field: str) -> str:
        return object_of(self.api, object_).match.get(match_field, "exact")

    def repeat(self, object_: str, action: Action) -> Repeat:
        """As YAML says it; else as HTTP and the operation's meaning do: a PUT or DELETE, an upsert, an update and a
        deletion end in the same state however often they are taken, a creation does not unless it carries a key."""
        form = object_of(self.api, object_)
        direct = self._direct(form, action)
        if direct is None:
            create = form.create
            if action is not Action.UPSERT or create is None:
                return Repeat.ALWAYS
            return Repeat.ALWAYS if create.repeat == "always" or create.request.startswith("PUT") else Repeat.WHEN_QUIET
        if direct.form.repeat is not None:
            return Repeat(direct.form.repeat)
        if action is not Action.CREATE or direct.method == "PUT":
            return Repeat.ALWAYS
        return Repeat.WITH_KEY if direct.form.idempotency_header or self.api.idempotency_header else Repeat.NEVER

    def renames(self, object_: str) -> bool:
        form = object_of(self.api, object_)
        return form.update is not None and form.update.by_id

    def usage(self, response: Response) -> tuple[Usage, ...]:
        """The common headers, or those that `throttling` names."""
        headers, said = response.headers, self.api.throttling
        limit = whole(headers.get((said.limit or "").lower())) or None
        remaining = whole(headers.get((said.remaining or "").lower()))
        if limit is None and remaining is None:
            return usage(headers)
        reset = reset_of(headers.get((said.reset or "").lower()), None)
        return (Usage(said.per, limit, remaining, reset),)

    def request_id(self, response: Response) -> str:
        return response.headers.get((self.api.request_id or "x-request-id").lower(), "")

    def encode(self, value: Any) -> Any:
        """JSON that keeps the value exact; see `values.json_value`. Where a request is XML, what that can hold."""
        return self._encode(value)

    # Writing

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        form = object_of(self.api, batch.object)
        operation = self._direct(form, batch.action)
        if operation is not None and not operation.form.by_id:
            told = yield from self._send(operation, batch)
        elif operation is not None or (batch.action is Action.UPSERT and form.search is not None):
            told = yield from self._by_id(form, operation, batch)
        else:
            return [_not_possible(self.label, batch)] * len(batch.rows)
        if batch.action is Action.UPDATE and operation is not None and not operation.form.by_id:
            return [as_another(outcome) for outcome in told]
        return told

    def _direct(self, form: ObjectKeys, action: Action) -> Operation | None:
        found = form.operation(action)
        if found is None:
            return None
        return self._operation(found)

    def _operation(self, form: Any) -> Operation:
        made = self._operations.get(id(form))
        if made is None:
            made = self._operations[id(form)] = operation_of(form, self.api)
        return made

    def _send(self, operation: Operation, batch: Batch) -> Flow[list[Outcome]]:
        """One request for all rows of a batch (and what follows from it, of a job)."""
        try:
            request = operation.made(batch)
        except Unfit as error:
            # Only a request about one row has such places.
            return [unaddressable(str(error))] * len(batch.rows)
        response = yield request
        if operation.job is not None:
            return (yield from jobs.follow(self._context(operation, batch), batch, response))
        return self.read_answer(operation, batch, response)

    def _by_id(self, form: ObjectKeys, operation: Operation | None, batch: Batch) -> Flow[list[Outcome]]:
        """Rows whose operation names its record by id; those whose id is not known are looked up first."""
        rows = batch.rows
        unknown = [place for place, row in enumerate(rows) if not row.destination_id]
        found: dict[int, reading.Found] = {}
        if unknown and form.search is not None:
            asked = dataclasses.replace(batch, rows=tuple(rows[place] for place in unknown))
            records = yield from reading.search(self.api, form.search, asked, self._normalize(batch))
            found = dict(zip(unknown, records, strict=True))
        ids = {place: row.destination_id or (found[place].alone if place in found else "")
               for place, row in enumerate(rows)}  # fmt: skip
        outcomes_: dict[int, Outcome] = {}
        create: list[int] = []
        for place, row in enumerate(rows):
            if ids[place]:
                continue
            told_of = found.get(place)
            if told_of is not None and told_of.unfit:
                outcomes_[place] = unaddressable(told_of.unfit)
            elif told_of is not None and len(told_of.ids) > 1:
                outcomes_[place] = _ambiguous(self.label, told_of.ids)
            elif batch.action is Action.UPSERT:
                create.append(place)
            else:
                outcomes_[place] = self._not_found(row, looked=form.search is not None)
        known = [place for place in range(len(rows)) if ids[place]]
        update = operation if operation is not None else self._operation(form.update) if form.update else None
        for places, writes, action, suffix in (
            (create, None if form.create is None else self._operation(form.create), Action.CREATE, "create"),
            (known, update, Action.UPDATE if batch.action is Action.UPSERT else batch.action, "update"),
        ):
            if not places or writes is None:
                continue
            part = self._part(batch, places, ids, action, suffix)
            told = yield from self._send(writes, part)
            for place, outcome in zip(places, told, strict=True):
                id_ = outcome.destination_id or ids[place] or None
                good = outcome.status in SUCCEEDED
                outcomes_[place] = dataclasses.replace(outcome, destination_id=id_) if good else outcome
        return [outcomes_[place] for place in range(len(rows))]

    def _part(self, batch: Batch, places: Sequence[int], ids: Mapping[int, str], action: Action, suffix: str) -> Batch:
        rows = tuple(
            dataclasses.replace(batch.rows[place], destination_id=ids[place] or None, action=action) for place in places
        )
        # Two requests of one batch are two deliveries.
        key = batch.idempotency_key if batch.action is action else f"{batch.idempotency_key}-{suffix}"
        return dataclasses.replace(batch, rows=rows, action=action, idempotency_key=key)

    def _not_found(self, row: Row, *, looked: bool) -> Outcome:
        reading_ = Reading(self.label)
        if not looked:
            reason = (
                f"The id of its record at {self.label} is not known, and the destination's YAML has no `search` that "
                "finds it."
            )
            return Outcome(Status.REJECTED, None, NO_ID, reason)
        if row.action is Action.DELETE:
            return Outcome(Status.DELETED)
        return no_record(reading_)

    def read_answer(self, operation: Operation, batch: Batch, response: Response) -> list[Outcome]:
        """The outcomes that the answer to an operation tells.

        Raises:
            Unavailable: It cannot be read.
            PoisonedBatch: The whole was refused, and nothing of it done.
        """
        verdict = operation.verdict(response)
        told_by = Reading(self.label, operation.request_id(response), self._normalize(batch), operation.errors.meaning)
        if verdict is not None:
            return self._refused(operation, batch, verdict, told_by)
        answer = operation.form.answer
        if answer.means is not None and operation.ok is None and (answer.id is None or not response.body):
            return [Outcome(accepted_status(row), request_id=told_by.request_id) for row in batch.rows]
        document = operation.checked(response)
        if operation.paths is not None:
            return read_rows(operation.paths, batch, document, told_by, response.status)
        return outcomes(batch, operation.told(document, len(batch.rows)), told_by, status=response.status)

    def _refused(self, operation: Operation, batch: Batch, verdict: Verdict, told_by: Reading) -> list[Outcome]:
        rows, problem = batch.rows, verdict.problem
        if verdict.word == "ignored":
            return [Outcome(accepted_status(row, created=False), request_id=told_by.request_id) for row in rows]
        if verdict.word == "missing" and (len(rows) == 1 or batch.action is Action.DELETE):
            missing = dataclasses.replace(told_by, meaning=lambda _told: (Meaning.MISSING, ""))
            code = problem.codes[0] if problem.codes else str(problem.status)
            return [
                outcome_of(row, Told(0, accepted=False, code=code, message=problem.message), missing) for row in rows
            ]
        try:
            verdict.raise_it(self.label)
        except DestinationError as error:
            if len(rows) == 1:
                return [Outcome(Status.REJECTED, None, error.code, error.reason, error.request_id)]
            if operation.atomic:
                raise PoisonedBatch(error.reason, error.code, error.request_id) from None
            reason = (
                f"{error.reason} Whether some of the request's {len(rows):,} rows were taken all the same is not "
                "known: if the API then takes none, write `atomic: true`."
            )
            raise Unavailable(reason, error.code, error.request_id) from None
        raise AssertionError("a verdict raises")

    def _context(self, operation: Operation, batch: Batch) -> jobs.Context:
        assert operation.job is not None
        return jobs.Context(self.label, operation, operation.job, self._normalize(batch), self.read_answer)

    def resume(self, batch: Batch, reference: str) -> Flow[list[Outcome]]:
        form = object_of(self.api, batch.object)
        operation = self._direct(form, batch.action)
        if operation is None or operation.job is None:
            raise Refused(
                f"A job ({reference}) was begun that the destination's YAML does not speak of any more.",
                "NO_JOB",
                remedy="Put `job` back until its rows are settled, or confirm them with `integrations confirm`.",
            )
        return (yield from jobs.resume(self._context(operation, batch), batch, reference))

    # Reading

    def can_verify(self, object_: str, match: Sequence[str]) -> bool:  # noqa: ARG002
        return object_of(self.api, object_).search is not None

    def verify(self, batch: Batch) -> Flow[list[Outcome | None]]:
        form = object_of(self.api, batch.object)
        assert form.search is not None, "only asked where it can be"
        told = yield from reading.search(self.api, form.search, batch, self._normalize(batch))
        unfit = Outcome(Status.IN_DOUBT, None, UNADDRESSABLE, "No request can be made that looks the row up.")
        return [
            unfit if found.unfit else Outcome(Status.CREATED, found.alone or None) if found.ids else None
            for found in told
        ]

    def references(self) -> tuple[Reference, ...]:
        return reading.references(self.api)

    def read(self, reference: str, columns: Sequence[str], cursor: str | None) -> Flow[Page]:
        return reading.read_page(self.api, reference, columns, cursor)

    @property
    def describes(self) -> bool:
        return any(form.fields is not None for form in self.api.objects.values())

    def fields(self, object_: str) -> Flow[list[TargetField]]:
        form = object_of(self.api, object_)
        if isinstance(form.fields, FieldsKeys):
            return reading.read_fields(self.api, form.fields, object_, form.match)
        return reading.given_fields(form.fields or {}, form.match)

    def identify(self) -> Flow[str] | None:
        form = self.api.identify
        if form is None:
            return None

        def flow() -> Flow[str]:
            call = identifier(form, self.api)
            response = yield call.asked(Scope(""))
            document = call.checked(response)
            name = as_text(probe(form.id, document))
            if not name:
                reason = f"{self.label} does not say who the account is: nothing at `{form.id}`."
                raise Unavailable(reason, "UNREADABLE_ANSWER", call.request_id(response))
            return f"account {name}"

        return flow()

    def classify(self, request: Request, response: Response) -> None:
        call: Call | None = request.call if isinstance(request, Asked) else None
        assert call is not None, "every request of this kind is made by a call"
        verdict = call.verdict(response)
        if verdict is None or verdict.word in call.handled:
            return
        verdict.raise_it(self.label, writes=call.writes, request=call.line)

    @cached_property
    def _normalizers(self) -> Mapping[str, Callable[[str], str]]:
        return {"exact": str, "trim": str.strip, "trim_lower": lambda value: value.strip().lower()}

    def _normalize(self, batch: Batch) -> Callable[[str], str]:
        hows = {self.match_normalization(batch.object, field) for field in batch.match_fields} or {"exact"}
        # Of several fields that are compared in several ways, exactly: a name that is not found confirms nothing.
        return self._normalizers[hows.pop() if len(hows) == 1 else "exact"]


def _not_possible(label: str, batch: Batch) -> Outcome:
    reason = f"{label} has no operation for {batch.action.value} in the destination's YAML."
    return Outcome(Status.REJECTED, None, "NO_OPERATION", reason)


def unaddressable(why: str) -> Outcome:
    """Of a row of which no request can be made."""
    return Outcome(Status.REJECTED, None, UNADDRESSABLE, f"No request was made for the row. {why}")


def _ambiguous(label: str, ids: Sequence[str]) -> Outcome:
    shown = ", ".join(ids[:3])
    reason = f"{label} has several records with the row's match value ({shown}): which of them is meant is not known."
    return Outcome(Status.REJECTED, None, AMBIGUOUS, reason)
