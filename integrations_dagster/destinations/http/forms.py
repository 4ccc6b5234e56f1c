"""What `api:` says in YAML: the objects of an API and their operations. Checked when it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from integrations_dagster.destinations.http.answer_forms import Answer, Errors, ProblemKeys
from integrations_dagster.destinations.http.form_parts import (
    METHODS,
    Encoding,
    HeaderName,
    Headers,
    Query,
    RequestLine,
    check_templates,
    check_xml,
    checked,
    texts,
)
from integrations_dagster.destinations.http.reading_forms import (
    IdentifyKeys,
    NextKeys,
    ReferenceKeys,
    SearchKeys,
    read_fields_form,
)
from integrations_dagster.destinations.http.templates import OF_BATCH, OF_JOB, OF_PAGE, OF_ROW, placeholders
from integrations_dagster.destinations.paths import Expression
from integrations_dagster.keys import Duration, Keys, mistake, problem
from integrations_dagster.vocabulary import Action

ANY_OBJECT = "*"
"""The object that stands for any that is not named."""
OPERATIONS = ("create", "update", "modify", "upsert", "delete")


class JobKeys(Keys):
    """Work that goes on after the answer to a request: asked for until it ends, then its results are read."""

    id: Expression = Field(description="Where the answer to the request has the job's id.")
    poll: RequestLine = Field(description='How the job is asked for, as "GET /jobs/{job}".')
    done: Expression = Field(description="True once the job has ended and its results can be read.")
    failed: Expression | None = Field(default=None, description="True once the job has failed.")
    every: Duration = Field(default=1.0, gt=0, description="Before the job is asked for; grows by half each time.")
    longest: Duration = Field(default=30.0, gt=0, description="Between two times at the most.")
    patience: Duration = Field(default=600.0, gt=0, description="How long the job may take.")
    results: RequestLine | None = Field(
        default=None,
        description='How its results are asked for, as "GET /jobs/{job}/results"; default: by the last poll.',
    )
    query: Query = Field(default_factory=dict, description="Query parameters of results.")
    next: NextKeys | None = Field(default=None, description="How the next page of results is asked for.")

    @model_validator(mode="after")
    def _reads(self) -> JobKeys:
        for key in ("poll", "results"):
            line = getattr(self, key)
            if line is None:
                continue
            if not line.startswith("GET"):
                raise mistake((key,), "must change nothing: use GET.")
            checked((key,), line, (*OF_JOB, "object"))
        checked(("query",), self.query, (*OF_JOB, "object", *OF_PAGE))
        if self.results is None and (self.next is not None or self.query):
            raise mistake(("results",), "is missing, which `next` and `query` belong to.")
        return self


class OperationKeys(Keys):
    """One kind of request that writes."""

    request: RequestLine = Field(description='Method and path, as "POST /contacts/batch"; values are percent-encoded.')
    query: Query = Field(default_factory=dict, description="Query parameters.")
    headers: Headers = Field(default_factory=dict, description="Headers beside those of all requests.")
    rows: int = Field(default=1, ge=1, le=1_000_000, description="Rows that one request takes.")
    body: Any = Field(default=None, description="The body: a structure with placeholders.")
    item: Any = Field(default="{record}", description="What a row becomes where the body says {rows}.")
    encoding: Encoding | None = Field(default=None, description="How the body is written; default: as the API says.")
    statuses: Annotated[list[str], BeforeValidator(texts)] = Field(
        default_factory=lambda: ["2xx"], description="Statuses whose answers are read as `answer` says."
    )
    ok: Expression | None = Field(default=None, description="True in answers to requests that did not fail as a whole.")
    answer: Answer = Field(description="What an answer says of the rows.")
    errors: Errors = Field(default_factory=dict, description="What statuses and codes mean, before those of the API.")
    atomic: bool | None = Field(
        default=None, description="Whether a request that is refused for what is in it leaves nothing done."
    )
    repeat: Literal["always", "with_key", "never"] | None = Field(
        default=None, description="Whether a request without an answer may be sent again; see the documentation."
    )
    idempotency_header: HeaderName | None = Field(
        default=None, description="Header that carries the idempotency key; default: as the API says."
    )
    job: JobKeys | None = Field(default=None, description="Where the work goes on after the answer.")

    @model_validator(mode="after")
    def _fits(self) -> OperationKeys:
        method = self.request.split()[0]
        if method not in METHODS:
            raise mistake(("request",), f"is to change something: use one of {', '.join(METHODS)}.")
        in_row = (*OF_ROW, *OF_BATCH)
        names = {name for name, _ in placeholders([self.request, self.query, self.headers, self.body])}
        if self.rows > 1 and (odd := sorted(names & {*OF_ROW})):
            raise mistake(
                ("rows",),
                f"is {self.rows}, and {{{odd[0]}}} is of one row. Say in `item` what a row becomes, and put {{rows}} "
                "where they go.",
            )
        allowed = in_row if self.rows == 1 else OF_BATCH
        check_templates(self, tuple(name for name in allowed if name != "rows"), body=allowed)
        checked(("item",), self.item, tuple(name for name in in_row if name != "rows"))
        for status in self.statuses:
            if not re.fullmatch(r"[1-5](\d\d|xx)", status):
                raise mistake(("statuses",), f'"{status}" is no status. Write 207, or 2xx for all of a hundred.')
        self._names_its_rows()
        lists = self.answer.about_rows or self.answer.means is not None
        if (
            self.rows > 1
            and not lists
            and self.answer.id is not None
            and not (self.answer.success or self.answer.status)
        ):
            raise mistake(("answer", "id"), "is one, and the request has several rows. Say where the `results` are.")
        return self

    def _names_its_rows(self) -> None:
        names = {name for name, _ in placeholders([self.request, self.query, self.headers, self.body])}
        if self.rows > 1 and not names & {"rows", "ids", "keys", "matches"}:
            raise mistake(("body",), "has no {rows} (or {ids}, {keys}, {matches}): nothing of the rows would be sent.")
        if self.rows == 1 and not names & {"rows", "ids", "keys", "matches", "record", "match", "key", "id"}:
            raise mistake(("body",), "has no {record}, {rows}, {id}, {key} or {match}: nothing of a row would be sent.")
        if "item" in self.model_fields_set and "rows" not in names:
            raise mistake(("item",), "is used by no {rows} in `body`. Leave it out, or put {rows} there.")

    @property
    def by_id(self) -> bool:
        """Whether it names its record by the id at the destination."""
        names = {name for name, _ in placeholders([self.request, self.query, self.headers, self.body, self.item])}
        return bool(names & {"id", "ids"})

    @property
    def sends_record(self) -> bool:
        """Whether it sends values of the record."""
        names = {name for name, _ in placeholders([self.request, self.query, self.headers, self.body])}
        inside = {name for name, _ in placeholders(self.item)} if "rows" in names else set()
        return "record" in names | inside


def _match(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        value = dict.fromkeys(value, "exact")
    return value


class ObjectKeys(Keys):
    """One object of the API."""

    match: Annotated[dict[str, Literal["exact", "trim", "trim_lower"]], BeforeValidator(_match)] = Field(
        default_factory=dict,
        description="Fields by which records are recognized, and how the API compares them: exact, trim or trim_lower. "
        "Without any, records are known by the primary key.",
    )
    create: OperationKeys | None = Field(default=None, description="Makes records.")
    update: OperationKeys | None = Field(default=None, description="Changes records that are there.")
    modify: OperationKeys | None = Field(
        default=None, description="The same by match value, for mode update, where `update` takes {id}."
    )
    upsert: OperationKeys | None = Field(default=None, description="Makes or changes records.")
    delete: OperationKeys | None = Field(default=None, description="Deletes records.")
    search: SearchKeys | None = Field(default=None, description="Finds records by match value or key.")
    fields: Annotated[Any, BeforeValidator(read_fields_form)] = Field(
        default=None, description="The fields that it has: by name, or a request that asks for them."
    )

    def operation(self, action: Action) -> OperationKeys | None:
        """The operation that delivers rows of an action by itself, without a search; None where there is none."""
        if action is Action.CREATE:
            return self.create
        if action is Action.UPSERT:
            return self.upsert
        if action is Action.DELETE:
            return self.delete
        if action is Action.UPDATE:
            # Written under its new match value, it is another record, and the one it leaves is told apart by its id.
            return self.update if self.update is not None and self.update.by_id else self.upsert
        if self.modify is not None:
            return self.modify
        return self.update

    @property
    def operations(self) -> dict[str, OperationKeys]:
        given = {name: getattr(self, name) for name in OPERATIONS}
        return {name: operation for name, operation in given.items() if operation is not None}


class ThrottlingKeys(Keys):
    """Headers that tell of limits, where they are not the common ones."""

    wait: HeaderName | None = Field(default=None, description="How long to wait, in seconds.")
    limit: HeaderName | None = Field(default=None, description="Requests in a window.")
    remaining: HeaderName | None = Field(default=None, description="Requests that are left in it.")
    reset: HeaderName | None = Field(default=None, description="When it ends, in seconds from now or since 1970.")
    per: Duration | None = Field(default=None, gt=0, description='Length of the window, as "10s".')


class LimitKeys(Keys):
    """What one request may carry."""

    bytes: int | None = Field(default=None, ge=1000, description="Bytes of a body.")
    row_bytes: int | None = Field(default=None, ge=1, description="Bytes of one row's JSON.")


def _objects(value: Any) -> Any:
    if not isinstance(value, Mapping) or not value:
        raise problem('takes the objects of the API by name ("*" for any), each with its operations')
    return value


class HttpApi(Keys):
    """A REST API."""

    label: str = Field(default="", description="What people call it in messages; default: the destination's name.")
    headers: Headers = Field(default_factory=dict, description="Headers of every request.")
    encoding: Encoding = Field(default="json", description="How bodies are written, and answers read: json, form, xml.")
    ok: Expression | None = Field(default=None, description="True in answers to requests that did not fail as a whole.")
    problem: ProblemKeys = Field(
        default_factory=ProblemKeys, description="Where answers say why a request failed; default: the usual places."
    )
    errors: Errors = Field(default_factory=dict, description="What statuses (404, 5xx) and codes mean.")
    atomic: bool = Field(
        default=False, description="Whether a request that is refused for what is in it leaves nothing done."
    )
    idempotency_header: HeaderName | None = Field(default=None, description="Header that carries idempotency keys.")
    key_lifetime: Duration = Field(default=86_400.0, gt=0, description="How long the API remembers such a key.")
    request_id: HeaderName | None = Field(default=None, description="Header of answers with the API's own request id.")
    throttling: ThrottlingKeys = Field(default_factory=ThrottlingKeys, description="Headers that tell of limits.")
    limits: LimitKeys = Field(default_factory=LimitKeys, description="What one request may carry.")
    objects: Annotated[dict[str, ObjectKeys], BeforeValidator(_objects)] = Field(description="Its objects, by name.")
    references: dict[str, ReferenceKeys] = Field(default_factory=dict, description="Reference data for lookups.")
    identify: IdentifyKeys | None = Field(default=None, description="How the account says who it is.")

    @model_validator(mode="after")
    def _agrees(self, info: ValidationInfo) -> HttpApi:
        if not self.label:
            self.label = (info.context or {}).get("destination", "") or "The API"
        checked(("headers",), self.headers, ())
        described = [name for name, object_ in self.objects.items() if object_.fields is not None]
        for name, object_ in self.objects.items():
            if described and object_.fields is None:
                text = f'are missing: those of "{described[0]}" are given, and then all fields of syncs are checked.'
                raise mistake(("objects", name, "fields"), text)
            for key, operation in object_.operations.items():
                self._check(("objects", name, key), object_, operation)
        return self

    def _check(self, path: Sequence[str], object_: ObjectKeys, operation: OperationKeys) -> None:
        encoding = operation.encoding or self.encoding
        if operation.body is not None and encoding != "json":
            if not isinstance(operation.body, Mapping) and (encoding == "xml" or operation.body != "{record}"):
                raise mistake((*path, "body"), f"takes a mapping, to be written as {encoding}.")
            if encoding == "xml":
                check_xml((*path, "body"), operation.body, root=True)
                check_xml((*path, "item"), operation.item, root=False)
        if operation.repeat == "with_key" and not (operation.idempotency_header or self.idempotency_header):
            names = {name for name, _ in placeholders([operation.headers, operation.query, operation.body])}
            if not names & {"idempotency_key", "trace"}:
                raise mistake(
                    (*path, "repeat"),
                    "is with_key, and no key is sent. Give `idempotency_header`, or send {idempotency_key}.",
                )
        if (
            self.encoding == "xml"
            and operation.answer.rest == "accepted"
            and not (operation.ok or self.ok or operation.answer.count)
        ):
            raise mistake(
                (*path, "answer", "rest"),
                "accepts rows that an XML document does not mention, which any document would. Give `ok` or `count`.",
            )
        if operation is object_.delete and operation.sends_record:
            raise mistake((*path, "body"), "sends the record, and a deletion has none: use {id}, {key} or {match}.")
        if operation is object_.create and operation.by_id:
            raise mistake((*path, "request"), "has {id}, which a record that is not there yet does not have.")
        if operation.job is not None and operation is object_.create and object_.upsert is None and object_.search:
            raise mistake((*path, "job"), "cannot follow a `search`: the record may come into being between the two.")
