"""What `api` says of an API whose calls have a method and parameters: the form of kinds `jsonrpc` and `xmlrpc`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from integrations_dagster.destinations.answers import By
from integrations_dagster.destinations.paths import Expression
from integrations_dagster.destinations.rpc import templates
from integrations_dagster.keys import AlsoTakes, Duration, Keys, mistake, problem

OF_CALL = (*templates.ROW, *templates.BATCH, *templates.ANYWHERE)
OF_SEARCH = ("match", "matches", "limit", *templates.ANYWHERE)

Params = list[Any] | dict[str, Any]
"""By position or by name."""


def _of_call(value: Any) -> Any:
    return templates.check(value, OF_CALL)


def _of_search(value: Any) -> Any:
    return templates.check(value, OF_SEARCH)


def _of_page(value: Any) -> Any:
    return templates.check(value, templates.PAGE)


def _path(value: Any) -> Any:
    if not isinstance(value, str) or (value and not value.startswith("/")) or any(c.isspace() for c in value):
        raise problem('takes a path below base_url that begins with "/", or "" for base_url itself')
    return value


def _pattern(value: Any) -> Any:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text:
        raise problem("takes a regular expression, or a number")
    try:
        re.compile(text)
    except re.error as error:
        raise problem(f'"{text}" is no regular expression: {error}') from None
    return text


def _status(value: Any) -> Any:
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[1-5](\d\d|xx)", text):
        raise problem("takes an HTTP status, as 409 or 4xx")
    return text


def _columns(value: Any) -> Any:
    return (
        {name: quoted(name) if isinstance(name, str) else name for name in value} if isinstance(value, list) else value
    )


def _match(value: Any) -> Any:
    return (
        dict.fromkeys(value, "exact") if isinstance(value, list) and all(isinstance(n, str) for n in value) else value
    )


def quoted(name: str) -> str:
    """The JMESPath expression of a member by its name, whatever is in it."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


Pattern = Annotated[str, BeforeValidator(_pattern)]
Method = Annotated[str, Field(min_length=1, description='Name of the method, as "model.{object}.create".')]


class ByKeys(Keys):
    """How an entry of a result's list names its row."""

    index: Expression | None = Field(default=None, description="Where the row's place in the call is.")
    first: int = Field(default=0, ge=0, le=1, description="index: the number of the first row, 0 or 1.")
    match: Expression | None = Field(default=None, description="Where the row's match value is.")
    key: Expression | None = Field(default=None, description="Where the row's primary key is.")
    id: Expression | None = Field(default=None, description="Where the record's id is, of rows sent by {id}.")

    @property
    def named(self) -> tuple[By, str]:
        return next((By(n), path) for n in ("index", "match", "key", "id") if (path := getattr(self, n)) is not None)

    @model_validator(mode="after")
    def _one(self) -> ByKeys:
        if sum(getattr(self, name) is not None for name in ("index", "match", "key", "id")) != 1:
            raise problem("takes exactly one of index, match, key and id, or the word order")
        return self


class AnswerKeys(Keys):
    """What the result of a call says of its rows, as JMESPath; but for `results`, of the entry of a row."""

    results: Expression | None = Field(
        default=None, description='The list with an entry for each row; "@" where the result is the list.'
    )
    by: Annotated[
        ByKeys | None, BeforeValidator(lambda value: None if value == "order" else value), AlsoTakes({"const": "order"})
    ] = Field(default=None, description="How an entry names its row; default: order.")
    success: Expression | None = Field(default=None, description="True where the row was accepted, else false.")
    status: Expression | None = Field(default=None, description="The status of the row.")
    accepted: list[Annotated[str, BeforeValidator(str)]] = Field(
        default=[], description="Statuses of accepted rows; default: 200 to 299."
    )
    error: Expression | None = Field(default=None, description="Something where the row was refused.")
    code: Expression | None = Field(default=None, description="Code of why it was refused.")
    message: Expression | None = Field(default=None, description="Why it was refused, in words.")
    id: Expression | None = Field(default=None, description="Id of the record; it proves that the row was accepted.")
    created: Expression | None = Field(default=None, description="True where a record was made.")

    @property
    def says(self) -> bool:
        """Whether it says of a row that it was accepted or refused."""
        return any((self.success, self.status, self.error, self.id))


class CallKeys(Keys):
    """One call that delivers rows: of one row, or of several."""

    method: Annotated[Method, AfterValidator(lambda value: templates.check(value, templates.ANYWHERE))]
    params: Annotated[Params, AfterValidator(_of_call)] = Field(description="Parameters, with names in braces.")
    answer: Literal["all_rows"] | AnswerKeys | None = Field(
        default=None,
        description='What the result says of the rows: "all_rows" if a call without an error took all of them.',
    )
    repeat: Literal["always", "never"] | None = Field(
        default=None,
        description="Whether the call ends in the same state however often it is made; default: never for create, "
        "else always.",
    )

    @property
    def per_row(self) -> bool:
        return templates.per_row(self.params)

    @property
    def by_id(self) -> bool:
        """Whether it names records by their ids."""
        return any(name in ("id", "ids") for name, _ in templates.names(self.params))

    @model_validator(mode="after")
    def _says_what_it_did(self) -> CallKeys:
        used = {name for name, _ in templates.names(self.params)}
        if not used & {"record", "fields", "match", "id", "key", "rows", "ids", "matches", "keys"} and not any(
            name.startswith(templates.FIELD) for name in used
        ):
            raise mistake(("params",), "name no row, so that nothing would be delivered. Add {record} or {rows}.")
        if self.per_row:
            if self.answer is not None and self.answer != "all_rows" and self.answer.results is not None:
                raise mistake(("answer", "results"), "has no meaning for a call of one row: leave it out")
            return self
        if self.answer is None:
            raise mistake(
                ("answer",),
                "is missing: a call of several rows must say how its result tells of each. Write `all_rows` where "
                'a call without an error has taken all of its rows, or as {results: "@", id: "@"} for a list of ids.',
            )
        if self.answer != "all_rows" and self.answer.results is None:
            raise mistake(("answer",), 'lacks `results`: where in the result the list is, "@" for the result itself')
        if self.answer != "all_rows" and not self.answer.says:
            raise mistake(("answer",), "says of no row that it was accepted: add success, status, error or id")
        return self


class SearchKeys(Keys):
    """A call that finds records by match value."""

    method: Annotated[Method, AfterValidator(lambda value: templates.check(value, templates.ANYWHERE))]
    params: Annotated[Params, AfterValidator(_of_search)] = Field(description="Parameters, with {matches} in them.")
    records: Expression = Field(default="@", description="The list of records found, in the result.")
    by: ByKeys | None = Field(default=None, description="How a record names its row, as {match: PATH}; default: so.")
    id: Expression = Field(default="id", description="The id of a record.")

    @model_validator(mode="after")
    def _looks_for_something(self) -> SearchKeys:
        if "matches" not in {name for name, _ in templates.names(self.params)}:
            raise mistake(("params",), "lack {matches}, the match values that are looked for")
        if self.by is not None and self.by.match is None:
            raise mistake(("by",), "can be {match: PATH} only")
        return self


class ReferenceKeys(Keys):
    """Records that values can be looked up in."""

    method: Annotated[Method, AfterValidator(lambda value: templates.check(value, templates.ANYWHERE))]
    params: Annotated[Params, AfterValidator(_of_page)] = Field(description="Parameters, with {offset} and {limit}.")
    records: Expression = Field(default="@", description="The list of records, in the result.")
    columns: Annotated[dict[str, Expression], BeforeValidator(_columns), AlsoTakes({"type": "array"})] = Field(
        min_length=1, description="Columns, and where a record has them; a list, where they are its members."
    )
    value: str = Field(default="id", description="What a lookup gives unless it says otherwise.")
    key: str | None = Field(default=None, description="What a lookup compares with unless it says otherwise.")
    page: int = Field(default=500, ge=1, description="Records of a page: {limit}.")

    @model_validator(mode="after")
    def _knows_its_columns(self) -> ReferenceKeys:
        for key in ("value", "key"):
            name = getattr(self, key)
            if name is not None and name not in self.columns:
                raise mistake((key,), f'is "{name}", which is not in columns ({", ".join(self.columns)})')
        return self


class FieldsKeys(Keys):
    """A call that says which fields an object has."""

    method: Annotated[Method, AfterValidator(lambda value: templates.check(value, templates.ANYWHERE))]
    params: Annotated[Params, AfterValidator(lambda value: templates.check(value, ("object", "secret")))] = Field(
        default=[], description="Parameters."
    )
    records: Expression = Field(
        default="@", description="The fields, in the result: a list, or an object with an entry for each name."
    )
    name: Expression = Field(default="name", description="Name of a field; of an object, its key where it has none.")
    label: Expression | None = Field(default=None, description="What people see.")
    type: Expression | None = Field(default=None, description="The API's word for its type.")
    read_only: Expression | None = Field(default=None, description="True where it cannot be written.")
    required: Expression | None = Field(default=None, description="True where a record cannot be made without it.")
    unique: Expression | None = Field(
        default=None,
        description="True where a value belongs to one record; default: the fields of `match`, or all without it.",
    )
    types: dict[str, str] = Field(default={}, description="The API's words for types, and ours.")


class ErrorKeys(Keys):
    """What an error means; the first line that fits decides."""

    code: Pattern | None = Field(default=None, description="The error's code: a regular expression that fits it whole.")
    message: Pattern | None = Field(default=None, description="A regular expression that is found in the message.")
    status: Annotated[str, BeforeValidator(_status)] | None = Field(
        default=None, description="HTTP status; default: any."
    )
    as_: Literal[
        "throttled",
        "unavailable",
        "unauthorized",
        "too_large",
        "rejected",
        "missing",
        "ignored",
        "misconfigured",
    ] = Field(
        alias="as",
        description="throttled, unavailable, unauthorized, too_large or misconfigured: the whole call had no effect "
        "(of unavailable: unknown). rejected: a row of the call is at fault, and the call had no effect. missing: the "
        "record is not there. ignored: what was wanted is so already.",
    )
    wait: Duration | None = Field(default=None, description="throttled: how long to wait where the answer is silent.")
    says: str = Field(default="", description="What happened, in words for a business user.")
    fix: str = Field(default="", description="What to do about it.")

    @model_validator(mode="after")
    def _is_about_something(self) -> ErrorKeys:
        if self.wait is not None and self.as_ != "throttled":
            raise mistake(("wait",), "has no meaning unless the error is throttled. Leave it out")
        return self


class RpcKeys(Keys):
    """How an API of calls is spoken."""

    label: str = Field(default="", description="What people call it in messages; default: the destination's name.")
    path: Annotated[str, BeforeValidator(_path)] = Field(
        default="", description="Path of the endpoint below base_url; default: base_url itself."
    )
    rows: int = Field(default=100, ge=1, le=10_000, description="Rows of a request at the most.")
    bytes: int | None = Field(default=None, ge=1000, description="Bytes of a request at the most.")
    batch: bool = Field(
        default=False, description="Whether calls of one row are sent several in one request; else one by one."
    )
    match: Annotated[
        dict[str, Literal["exact", "trim", "trim_lower"]] | None, BeforeValidator(_match), AlsoTakes({"type": "array"})
    ] = Field(
        default=None,
        description="Fields that syncs may match by, and how the API compares them: a value belongs to one record. "
        "Default: any field, exactly.",
    )
    match_type: Literal["string", "integer"] = Field(default="string", description="Type of match values in calls.")
    id_type: Literal["string", "integer"] = Field(default="string", description="Type of record ids in calls.")
    create: CallKeys | None = Field(default=None, description="Makes records.")
    upsert: CallKeys | None = Field(default=None, description="Makes or changes records, by match value.")
    update: CallKeys | None = Field(default=None, description="Changes records, by {id} or {match}.")
    delete: CallKeys | None = Field(default=None, description="Deletes records, by {id} or {match}.")
    search: SearchKeys | None = Field(default=None, description="Finds records by match value.")
    references: dict[str, ReferenceKeys] = Field(default={}, description="Records that values can be looked up in.")
    fields: FieldsKeys | None = Field(default=None, description="Says which fields an object has.")
    errors: list[ErrorKeys] = Field(default=[], description="What errors mean; the first line that fits decides.")
    code: Expression | None = Field(default=None, description="Code of an error, in its error object.")
    message: Expression | None = Field(default=None, description="Words of an error, in its error object.")
    empty: Any = Field(default=None, description="What empties a field (`nulls: clear`); default: null.")
    types: dict[Literal["decimal", "date", "timestamp", "time", "bytes"], Any] = Field(
        default={}, description="Forms of values that JSON has no type for, with {value}, {year} and so on."
    )

    @model_validator(mode="before")
    @classmethod
    def _has_calls(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and not any(data.get(name) for name in ("create", "upsert", "update", "delete")):
            raise problem("names no call that delivers rows. Add create, upsert, update or delete.")
        return data

    @model_validator(mode="after")
    def _has_a_name(self, info: ValidationInfo) -> RpcKeys:
        if not self.label:
            self.label = (info.context or {}).get("destination", "") or "The API"
        return self

    @model_validator(mode="after")
    def _calls_go_together(self) -> RpcKeys:
        for name in ("create", "upsert"):
            call: CallKeys | None = getattr(self, name)
            if call is not None and call.by_id:
                raise mistake((name, "params"), "names records by {id}, which a new record has none of")
        for name in ("update", "delete"):
            call = getattr(self, name)
            by_match = call is not None and any(n in ("match", "matches") for n, _ in templates.names(call.params))
            if call is not None and not call.by_id and not by_match and "record" not in _used(call):
                raise mistake((name, "params"), "does not say which record: add {id} (or {ids}) or {match}")
        return self


def _used(call: CallKeys) -> set[str]:
    return {"record" if name == "rows" else name for name, _ in templates.names(call.params)}
