"""Kind `graphql`: a GraphQL API as YAML describes it (docs/destinations/graphql.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import yaml

from integrations_dagster.destinations.answers import (
    Meaning,
    Reading,
    Told,
    outcome_of,
    outcomes,
    read_rows,
    unreadable,
)
from integrations_dagster.destinations.base import Batch, Flow, Request, Response
from integrations_dagster.destinations.error_table import Problem
from integrations_dagster.destinations.errors import PoisonedBatch, Refused, Unavailable
from integrations_dagster.destinations.graphql.documents import read_document
from integrations_dagster.destinations.graphql.forms import GraphqlApi
from integrations_dagster.destinations.graphql.introspection import FIELDS, fields_of
from integrations_dagster.destinations.graphql.mutations import NOTHING, Mutation, Reply
from integrations_dagster.destinations.http.calls import Asked, Operation, Reader
from integrations_dagster.destinations.http.checks import object_of
from integrations_dagster.destinations.http.destination import Http
from integrations_dagster.destinations.http.forms import ANY_OBJECT
from integrations_dagster.destinations.http.paging import Place
from integrations_dagster.destinations.http.reading_forms import ReadKeys
from integrations_dagster.destinations.http.templates import Scope
from integrations_dagster.destinations.paths import as_text, probe
from integrations_dagster.destinations.reading import TargetField
from integrations_dagster.keys import Keys
from integrations_dagster.vocabulary import Misconfigured, Outcome


class Graphql(Http):
    """Any GraphQL API.

    Args:
        option: What YAML says under `api`.
    """

    kind: ClassVar[str] = "graphql"
    label: ClassVar[str] = "GraphQL API"
    options: ClassVar[tuple[str, type[Keys]] | None] = ("api", GraphqlApi)

    def __init__(self, secrets: Mapping[str, str] | None = None, option: Any = None) -> None:
        if not isinstance(option, GraphqlApi):
            raise Misconfigured(
                "A destination of kind graphql has no `api`.", "Describe its objects and mutations there."
            )
        super().__init__(secrets, option.as_http)
        self.given = option

    @classmethod
    def from_yaml(cls, text: str, label: str = "") -> Graphql:
        return cls(option=GraphqlApi.model_validate(yaml.safe_load(text), context={"destination": label}))

    # Writing

    def _operation(self, form: Any) -> Operation:
        made = self._operations.get(id(form))
        if made is None:
            made = self._operations[id(form)] = Mutation(self.api, form, self.given.code, self.given.message)
        return made

    def classify(self, request: Request, response: Response) -> None:
        call = request.call if isinstance(request, Asked) else None
        if not isinstance(call, Mutation):
            super().classify(request, response)
            return
        verdict = call.verdict(response, request.command if isinstance(request.command, int) else 1)
        if verdict is not None and verdict.word not in call.handled:
            verdict.raise_it(self.label, writes=call.writes)

    def read_answer(self, operation: Operation, batch: Batch, response: Response) -> list[Outcome]:
        """The outcomes that the answer to a mutation tells.

        Raises:
            Unavailable: It cannot be read.
            PoisonedBatch: The whole was refused, and nothing of it done.
        """
        assert isinstance(operation, Mutation)
        told_by = self._reading(operation, batch, response)
        rows = batch.rows
        verdict = operation.verdict(response, len(rows))
        if verdict is not None:
            if verdict.word == "rejected" and len(rows) > 1 and operation.reply(response).undone:
                # The document or its variables were refused before anything was done: the row whose they are is found.
                raise PoisonedBatch(*_said(verdict.problem, self.label))
            return self._refused(operation, batch, verdict, told_by)
        reply = operation.reply(response)
        told = operation.read(reply, batch)
        refused = {one.place: one for one in told if one.place is not None and one.accepted is False}
        if refused and operation.atomic and len(rows) > 1:
            first = next(iter(refused.values()))
            raise PoisonedBatch(f"{self.label} says: {first.message}", first.code, told_by.request_id)
        if operation.aliases:
            return outcomes(batch, told, told_by, status=response.status)
        return self._listed(operation, batch, reply, told, told_by, response)

    def _listed(
        self,
        operation: Mutation,
        batch: Batch,
        reply: Reply,
        told: list[Told],
        told_by: Reading,
        response: Response,
    ) -> list[Outcome]:
        """The outcomes of a mutation of several rows."""
        value = (reply.data or {}).get(operation.document_.key)
        if operation.paths is None:
            # With an error somewhere within, not all that was to be there is.
            sure = value is not None and not reply.failures
            every = operation.told(value, len(batch.rows)) if sure else []
            return outcomes(batch, [*every, *told], told_by, status=response.status)
        refused = {one.place: one for one in told if one.place is not None}
        try:
            found = read_rows(operation.paths, batch, value, told_by, response.status)
        except Unavailable:
            if not refused:
                raise
            return outcomes(batch, told, told_by, status=response.status)
        return [
            outcome_of(row, refused[place], told_by) if place in refused else found[place]
            for place, row in enumerate(batch.rows)
        ]

    def _reading(self, operation: Mutation, batch: Batch, response: Response) -> Reading:
        nothing = operation.mutation.nothing

        def meaning(told: Told) -> tuple[Meaning, str]:
            if told.code == NOTHING and not told.message:
                if nothing == "missing":
                    return Meaning.MISSING, ""
                return Meaning.REJECTED, f"{self.label} answered null for the row, and gave no reason."
            return operation.errors.meaning(told)

        return Reading(self.label, operation.request_id(response), self._normalize(batch), meaning)

    # Reading

    @property
    def describes(self) -> bool:
        return super().describes or any(form.input_type for form in self._introspected)

    @property
    def _introspected(self) -> list[Any]:
        return [form for form in self.given.objects.values() if form.fields is not None]

    def fields(self, object_: str) -> Flow[list[TargetField]]:
        form = self.given.objects.get(object_) or self.given.objects[ANY_OBJECT]
        if form.fields is None or isinstance(form.fields, Mapping):
            return super().fields(object_)
        match = frozenset(object_of(self.api, object_).match)

        def flow() -> Flow[list[TargetField]]:
            data, response = yield from self._asked(FIELDS, {"name": form.input_type})
            found = data.get("__type")
            if found is None:
                raise Refused(
                    f"{self.label} has no input type {form.input_type!r}, or tells nothing of its types.",
                    "NO_INPUT_TYPE",
                    remedy="Check `fields` of the object in the destination's `api`, or give the fields there by name.",
                )
            try:
                return fields_of(found.get("inputFields") if isinstance(found, dict) else None, match)
            except ValueError as error:
                raise unreadable(self.label, response.status, str(error)) from None

        return flow()

    def _asked(self, query: str, variables: Mapping[str, Any]) -> Flow[tuple[Mapping[str, Any], Response]]:
        """What a query that is no list is answered under `data`."""
        text = read_document(query, "query").text
        form = ReadKeys.model_validate(
            {
                "request": f"POST {self.given.path}".strip(),
                "body": {"query": text, "variables": dict(variables)},
                "records": "data",
            }
        )
        reader = Reader(self.api, form)
        response = yield reader.page(Scope(""), Place())
        data = probe("data", reader.checked(response))
        if not isinstance(data, dict):
            raise unreadable(self.label, response.status, "no data", reader.request_id(response))
        return data, response

    def identify(self) -> Flow[str] | None:
        form = self.given.identify
        if form is None:
            return None

        def flow() -> Flow[str]:
            data, _ = yield from self._asked(form.query, {})
            name = as_text(probe(form.id, data.get(read_document(form.query, "query").key)))
            if not name:
                reason = f"{self.label} does not say who the account is: nothing at `{form.id}`."
                raise Unavailable(reason, "UNREADABLE_ANSWER")
            return f"account {name}"

        return flow()


def _said(problem: Problem, label: str) -> tuple[str, str, str]:
    """Reason, code and request id of a request that was refused."""
    code = problem.codes[0] if problem.codes else f"HTTP_{problem.status}"
    return f"{label} says: {problem.message or code}", code, problem.request_id
