"""What `api:` says of a GraphQL API: mutations and queries of objects, and what answers mean. Checked when it is read.

A GraphQL request is a POST of a document and its variables, so each form here is made a form of kind `http`, which then
knows how to look records up, page through lists and tell errors apart. What GraphQL has of its own is in `mutations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, model_validator

from integrations_dagster.destinations.graphql.documents import Document, check_values, read_document
from integrations_dagster.destinations.graphql.problems import CODE, CODES, MESSAGE
from integrations_dagster.destinations.graphql.reading_forms import (
    IdentifyKeys,
    ReferenceKeys,
    SearchKeys,
    checked,
    names_in,
)
from integrations_dagster.destinations.http import forms as http
from integrations_dagster.destinations.http.answer_forms import Answer, Errors
from integrations_dagster.destinations.http.form_parts import HeaderName, Headers
from integrations_dagster.destinations.http.templates import OF_BATCH, OF_ROW
from integrations_dagster.destinations.paths import Expression
from integrations_dagster.keys import Duration, Keys, mistake, problem

ACCEPT = "application/graphql-response+json, application/json;q=0.9"
"""As "GraphQL over HTTP" (graphql.github.io/graphql-over-http, section 5) asks of clients."""
_ROWS = {"rows", "ids", "keys", "matches"}


def _path(value: Any) -> Any:
    if (
        not isinstance(value, str)
        or (value and not value.startswith("/"))
        or any(c.isspace() or c in "?#" for c in value)
    ):
        raise problem('takes a path below base_url that begins with "/", or "" for base_url itself')
    return value


class MutationKeys(Keys):
    """A mutation that writes: of one row, or of all rows of a request."""

    mutation: str = Field(description="The mutation, with one field at its top.")
    variables: dict[str, Any] = Field(default={}, description="Values of its variables, with placeholders.")
    rows: int | None = Field(
        default=None, ge=1, le=10_000, description="Rows that one request takes; default: 1, or 100 with {rows}."
    )
    item: Any = Field(default="{record}", description="What a row becomes where a variable says {rows}.")
    answer: Answer = Field(description="What the mutation's field says of the rows when it is there.")
    nothing: Literal["unknown", "missing", "rejected"] = Field(
        default="unknown", description="What it means of a row if its field is null without an error."
    )
    errors: Errors = Field(default_factory=dict, description="What codes mean, before those of the API.")
    atomic: bool | None = Field(
        default=None,
        description="Whether a request leaves nothing done if any of its rows is refused; default: as the API says.",
    )
    repeat: Literal["always", "with_key", "never"] | None = Field(
        default=None, description="Whether a request without an answer may be sent again; default: all but `create`."
    )
    _document: Document = PrivateAttr()
    _sent: SentKeys = PrivateAttr()

    @property
    def document(self) -> Document:
        return self._document

    @property
    def aliases(self) -> bool:
        """Whether the mutation is of one row, and several are sent in one request, each under an alias."""
        return not names_in(self.variables) & _ROWS

    @model_validator(mode="after")
    def _fits(self) -> MutationKeys:
        names = names_in(self.variables)
        one, all_ = names & {"record", "match", "key", "id"}, names & _ROWS
        if one and all_:
            raise mistake(
                ("variables",),
                f"name one row ({{{min(one)}}}) and all of them ({{{min(all_)}}}). Say in `item` what a row becomes.",
            )
        if not one and not all_:
            raise mistake(
                ("variables",), "have no {record}, {rows}, {id}, {key} or {match}: nothing of a row would be sent."
            )
        checked("variables", self.variables, OF_BATCH if all_ else (*OF_ROW, *OF_BATCH))
        try:
            self._document = read_document(self.mutation, "mutation", several=self.aliases)
        except ValueError as error:
            raise mistake(("mutation",), str(error)) from None
        try:
            check_values(self._document, self.variables)
        except ValueError as error:
            raise mistake(("variables",), str(error)) from None
        if self.aliases and self.answer.about_rows:
            raise mistake(
                ("answer",), "lists rows, and the mutation is of one. Say where `id`, `success` or `error` is."
            )
        if self.nothing != "unknown" and not self.aliases:
            raise mistake(("nothing",), "is about one row, and the mutation is of several. Leave it out.")
        self._sent = self._made()
        return self

    def operation(self, path: str) -> SentKeys:
        """The form of it that kind `http` knows.

        Args:
            path: Of the endpoint.
        """
        made = self._sent.model_copy(update={"request": f"POST {path}".strip()})
        made._mutation = self
        return made

    def _made(self) -> SentKeys:
        rows = self.rows or (1 if self.aliases else 100)
        made = SentKeys.model_validate(
            {
                "request": "POST",
                "body": {"query": self._document.text, "variables": self.variables},
                "rows": 1 if self.aliases else rows,
                "answer": self.answer,
                "errors": self.errors,
                "atomic": self.atomic,
                "repeat": self.repeat,
                **({"item": self.item} if "item" in self.model_fields_set else {}),
            }
        )
        return made.model_copy(update={"rows": rows})


class SentKeys(http.OperationKeys):
    """A mutation as an operation of kind `http`."""

    _mutation: MutationKeys = PrivateAttr()

    @property
    def mutation(self) -> MutationKeys:
        return self._mutation


class IntrospectKeys(Keys):
    """Which input type of the API's schema tells the fields of an object."""

    type: str = Field(description="Name of the input type.", pattern=r"^[_A-Za-z][_0-9A-Za-z]*$")


def _fields(value: Any) -> Any:
    if value == "introspect" or isinstance(value, IntrospectKeys):
        return value
    if isinstance(value, str):
        raise problem(f'"{value}" is nothing that tells fields. Write introspect, {{type: NAME}}, or fields by name.')
    if isinstance(value, Mapping) and set(value) == {"type"} and isinstance(value["type"], str):
        return IntrospectKeys.model_validate(value)
    return http.ObjectKeys.model_validate({"fields": value}).fields


class ObjectKeys(Keys):
    """One object of the API."""

    match: Annotated[Any, BeforeValidator(lambda value: http.ObjectKeys.model_validate({"match": value}).match)] = (
        Field(
            default_factory=dict,
            description="Fields by which records are recognized, and how the API compares them: exact, trim or "
            "trim_lower. Without any, records are known by the primary key.",
        )
    )
    create: MutationKeys | None = Field(default=None, description="Makes records.")
    update: MutationKeys | None = Field(default=None, description="Changes records that are there.")
    modify: MutationKeys | None = Field(
        default=None, description="The same by match value, for mode update, where `update` takes {id}."
    )
    upsert: MutationKeys | None = Field(default=None, description="Makes or changes records.")
    delete: MutationKeys | None = Field(default=None, description="Deletes records.")
    search: SearchKeys | None = Field(default=None, description="Finds records by match value or key.")
    fields: Annotated[Any, BeforeValidator(_fields)] = Field(
        default=None,
        description="The fields that it has: introspect (the type of {record} or {rows} in upsert or create), {type: "
        "NAME of an input type}, or by name.",
    )

    @property
    def mutations(self) -> dict[str, MutationKeys]:
        given = {name: getattr(self, name) for name in http.OPERATIONS}
        return {name: keys for name, keys in given.items() if keys is not None}

    @model_validator(mode="after")
    def _tells_its_type(self) -> ObjectKeys:
        if self.fields == "introspect" and not self.input_type:
            raise mistake(
                ("fields",),
                "is introspect, and neither upsert, create nor update gives {record} or {rows} to a variable, whose "
                "type would tell. Write {type: NAME of the input type}.",
            )
        return self

    @property
    def input_type(self) -> str:
        """The input type whose fields are those of the object, or ""."""
        if isinstance(self.fields, IntrospectKeys):
            return self.fields.type
        for keys in (self.upsert, self.create, self.update, self.modify):
            for name, value in ({} if keys is None else keys.variables).items():
                if value in ("{record}", "{rows}") and keys is not None and keys.item == "{record}":
                    return keys.document.variables[name].named
        return ""

    def as_http(self, path: str) -> http.ObjectKeys:
        """The form of it that kind `http` knows."""
        # Nothing is validated twice: what is of one row here, and sent for many, is no form that `http` would take.
        made: dict[str, Any] = {name: keys.operation(path) for name, keys in self.mutations.items()}
        made |= {"match": self.match, "search": None if self.search is None else self.search.search(path)}
        if isinstance(self.fields, Mapping):
            made["fields"] = self.fields
        return http.ObjectKeys.model_construct(**made)


def _objects(value: Any) -> Any:
    if not isinstance(value, Mapping) or not value:
        raise problem('takes the objects of the API by name ("*" for any), each with its mutations')
    return value


class GraphqlApi(Keys):
    """A GraphQL API."""

    label: str = Field(default="", description="What people call it in messages; default: the destination's name.")
    path: Annotated[str, BeforeValidator(_path)] = Field(
        default="", description="Path of the endpoint below base_url; default: base_url itself."
    )
    headers: Headers = Field(default_factory=dict, description="Headers of every request.")
    code: Expression = Field(default=CODE, description="Where an error has its code; default: the usual places.")
    message: Expression = Field(default=MESSAGE, description="Where an error has its message.")
    errors: Errors = Field(default_factory=dict, description="What codes and statuses (404, 5xx) mean.")
    atomic: bool = Field(
        default=False, description="Whether a request leaves nothing done if any of its rows is refused."
    )
    idempotency_header: HeaderName | None = Field(default=None, description="Header that carries idempotency keys.")
    key_lifetime: Duration = Field(default=86_400.0, gt=0, description="How long the API remembers such a key.")
    request_id: HeaderName | None = Field(default=None, description="Header of answers with the request's id.")
    throttling: http.ThrottlingKeys = Field(
        default_factory=http.ThrottlingKeys, description="Headers that tell of limits."
    )
    limits: http.LimitKeys = Field(default_factory=http.LimitKeys, description="What one request may carry.")
    objects: Annotated[dict[str, ObjectKeys], BeforeValidator(_objects)] = Field(description="Its objects, by name.")
    references: dict[str, ReferenceKeys] = Field(default_factory=dict, description="Reference data for lookups.")
    identify: IdentifyKeys | None = Field(default=None, description="How the account says who it is.")
    _http: http.HttpApi = PrivateAttr()

    @property
    def as_http(self) -> http.HttpApi:
        """The form of it that kind `http` knows."""
        return self._http

    @model_validator(mode="after")
    def _agrees(self, info: ValidationInfo) -> GraphqlApi:
        same = ("headers", "idempotency_header", "key_lifetime", "request_id", "throttling", "limits", "atomic")
        given = {name: getattr(self, name) for name in same}
        given |= {
            "label": self.label or (info.context or {}).get("destination", "") or "The API",
            "headers": {"Accept": ACCEPT, **self.headers},
            # Records that an error has left out would be taken for absent.
            "ok": "!errors",
            "problem": {"code": f"errors[0] | {self.code}", "message": f"errors[0] | {self.message}"},
            "errors": {**CODES, **self.errors},
            "objects": {http.ANY_OBJECT: {}},
        }
        described = [name for name, object_ in self.objects.items() if object_.fields is not None]
        for name, object_ in self.objects.items():
            if described and object_.fields is None:
                text = f'are missing: those of "{described[0]}" are given, and then all fields of syncs are checked.'
                raise mistake(("objects", name, "fields"), text)
            for key, mutation in object_.mutations.items():
                self._check(("objects", name, key), object_, mutation)
        made = {
            "objects": {name: keys.as_http(self.path) for name, keys in self.objects.items()},
            "references": {name: keys.reference(self.path) for name, keys in self.references.items()},
        }
        self._http = http.HttpApi.model_validate(given).model_copy(update=made)
        return self

    def _check(self, path: tuple[str, ...], object_: ObjectKeys, mutation: MutationKeys) -> None:
        keyed = self.idempotency_header or names_in(mutation.variables) & {"idempotency_key", "trace"}
        if mutation.repeat == "with_key" and not keyed:
            raise mistake(
                (*path, "repeat"),
                "is with_key, and none is sent. Give {idempotency_key} to a variable, or `idempotency_header`.",
            )
        sent = mutation.operation("")
        if mutation is object_.create and sent.by_id:
            raise mistake((*path, "variables"), "have {id}, which a record that is not there yet does not have.")
        if mutation is object_.delete and sent.sends_record:
            raise mistake((*path, "variables"), "send the record, and a deletion has none: use {id}, {key} or {match}.")
