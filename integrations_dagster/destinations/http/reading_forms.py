"""What YAML says of requests that read: lists page by page, searches, reference data, fields, who the account is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from integrations_dagster.destinations.answers import By
from integrations_dagster.destinations.http.answer_forms import ByKeys
from integrations_dagster.destinations.http.form_parts import Headers, Query, RequestLine, check_templates
from integrations_dagster.destinations.http.templates import OF_PAGE, placeholders
from integrations_dagster.destinations.paths import Expression
from integrations_dagster.keys import Keys, mistake, near, problem


class NextKeys(Keys):
    """How the next page of a list is asked for."""

    cursor: Expression | None = Field(default=None, description="Where the answer has the cursor of the next page.")
    url: Expression | None = Field(default=None, description="Where the answer has the URL of the next page.")
    link: str | None = Field(default=None, description="Relation of the Link header that has it, as next.")
    page: int | None = Field(default=None, ge=0, description="Pages have numbers: that of the first, as 1.")
    offset: int | None = Field(default=None, ge=0, description="Records have numbers: that of the first, as 0.")
    param: str | None = Field(default=None, description="Query parameter that carries cursor, page or offset.")
    size: int | None = Field(default=None, ge=1, description="Records of a full page: a shorter one is the last.")
    more: Expression | None = Field(default=None, description="False on the last page.")
    total: Expression | None = Field(default=None, description="page, offset: how many records there are.")

    WAYS: ClassVar[tuple[str, ...]] = ("cursor", "url", "link", "page", "offset")

    @model_validator(mode="after")
    def _one_way(self) -> NextKeys:
        if sum(getattr(self, way) is not None for way in self.WAYS) != 1:
            raise problem(f"takes exactly one of {', '.join(self.WAYS)}")
        if self.param is not None and self.way in ("url", "link"):
            raise mistake(("param",), f"has no meaning with {self.way}, which has the whole address. Leave it out.")
        if self.total is not None and self.way not in ("page", "offset"):
            raise mistake(("total",), f"has no meaning with {self.way}. Leave it out.")
        return self

    @property
    def way(self) -> str:
        return next(way for way in self.WAYS if getattr(self, way) is not None)


class ReadKeys(Keys):
    """A request that changes nothing, and the records that it answers, page by page."""

    request: RequestLine = Field(description='Method and path, as "GET /owners". It must change nothing.')
    query: Query = Field(default_factory=dict, description="Query parameters.")
    headers: Headers = Field(default_factory=dict, description="Headers beside those of all requests.")
    body: Any = Field(default=None, description="Body of a POST, as JSON.")
    records: Expression = Field(description='Where the list of records is in the answer; "@" if the answer is it.')
    next: NextKeys | None = Field(
        default=None, description="How the next page is asked for; default: there is one page."
    )

    allowed: ClassVar[tuple[str, ...]] = ("object", *OF_PAGE)

    @model_validator(mode="after")
    def _fits(self) -> ReadKeys:
        if self.request.split()[0] not in ("GET", "POST"):
            raise mistake(("request",), "must change nothing: use GET, or POST where the API asks for it.")
        if self.body is not None and self.request.startswith("GET"):
            raise mistake(("body",), "has no meaning with GET. Use `query`.")
        check_templates(self, self.allowed)
        if self.next is not None and self.next.way in ("cursor", "page", "offset") and self.next.param is None:
            names = {name for name, _ in placeholders([self.query, self.body, self.request])}
            if self.next.way not in names:
                raise mistake(
                    ("next",), f"does not say how {self.next.way} is sent. Give `param`, or write {{{self.next.way}}}."
                )
        return self


class SearchKeys(ReadKeys):
    """How records are found by match value or key: before they are written where there is no upsert, and in doubt."""

    id: Expression = Field(description="Where a record has its id.")
    rows: int = Field(default=1, ge=1, le=10_000, description="Rows that one request looks for.")
    by: ByKeys = Field(description="How a record names its row, as {match: PATH}: one that names none is not meant.")

    allowed: ClassVar[tuple[str, ...]] = ("object", "match", "key", "matches", "keys", *OF_PAGE)

    @model_validator(mode="after")
    def _finds(self) -> SearchKeys:
        names = {name for name, _ in placeholders([self.query, self.body, self.request])}
        wanted = {"match", "key", "matches", "keys"} if self.rows == 1 else {"matches", "keys"}
        if not names & wanted:
            shown = " or ".join(f"{{{name}}}" for name in sorted(wanted))
            raise problem(f"names nothing that is looked for. Put {shown} into its query, body or path.")
        if self.rows > 1 and names & {"match", "key"}:
            raise mistake(("rows",), "is more than 1, and the request has room for one: use {matches} or {keys}.")
        if self.by.named[0] not in (By.MATCH, By.KEY):
            raise mistake(("by",), "can be {match: PATH} or {key: PATH}.")
        return self


class ReferenceKeys(ReadKeys):
    """Reference data that lookups find values in."""

    columns: dict[str, Expression] = Field(min_length=1, description="Its columns, and where a record has them.")
    value: str | None = Field(default=None, description="Column that a lookup takes; default: the first.")
    key: str | None = Field(default=None, description="Column that a lookup compares with unless it says another.")
    normalize: dict[str, Literal["exact", "trim", "trim_lower"]] = Field(
        default_factory=dict, description="How columns are compared, where not exactly."
    )
    description: str = Field(default="", description="What the records are, in a few words.")

    @model_validator(mode="after")
    def _known_columns(self) -> ReferenceKeys:
        for key, names in (("value", [self.value]), ("key", [self.key]), ("normalize", list(self.normalize))):
            for name in names:
                if name is not None and name not in self.columns:
                    raise mistake((key,), f'"{name}" is no column. {near(name, self.columns)}')
        return self


class IdentifyKeys(Keys):
    """Who the account is: state is kept for each."""

    request: RequestLine = Field(description='As "GET /me".')
    headers: Headers = Field(default_factory=dict, description="Headers beside those of all requests.")
    id: Expression = Field(description="Where the answer has the account's id.")

    @model_validator(mode="after")
    def _reads(self) -> IdentifyKeys:
        if not self.request.startswith("GET"):
            raise mistake(("request",), "must change nothing: use GET.")
        check_templates(self, ())
        return self


FieldTypeName: TypeAlias = Literal[
    "string", "integer", "number", "boolean", "date", "timestamp", "email", "phone", "enum", "json", "unknown"
]


class FieldKeys(Keys):
    """One field of an object."""

    type: FieldTypeName = Field(default="unknown", description="What values it takes.")
    label: str = Field(default="", description="What people call it.")
    required: bool = Field(default=False, description="Whether a record cannot be created without it.")
    writable: bool = Field(default=True, description="Whether a sync may write it.")
    unique: bool = Field(default=False, description="Whether records can be matched by it.")
    options: list[str] = Field(default_factory=list, description="The values that it takes.")


class FieldsKeys(ReadKeys):
    """Where the API says which fields an object has."""

    name: Expression = Field(description="Where an entry has the field's name.")
    label: Expression | None = Field(default=None, description="Where it has what people call it.")
    type: Expression | None = Field(default=None, description="Where it has its type.")
    types: dict[str, FieldTypeName] = Field(default_factory=dict, description="What the API's types are.")
    required: Expression | None = Field(default=None, description="True where a record needs it.")
    read_only: Expression | None = Field(default=None, description="True where it may not be written.")
    unique: Expression | None = Field(default=None, description="True where records can be matched by it.")
    options: Expression | None = Field(default=None, description="Where it has the list of its values.")


def read_fields_form(value: Any) -> Any:
    if isinstance(value, Mapping) and "request" in value:
        return FieldsKeys.model_validate(value)
    if not isinstance(value, Mapping) or not value:
        raise problem("takes fields by name, as {email: {type: email}}, or a `request` that asks for them")
    made = {}
    for name, keys in value.items():
        try:
            made[str(name)] = FieldKeys.model_validate({"type": keys} if isinstance(keys, str) else keys or {})
        except ValueError as error:
            raise mistake((str(name),), _first(error)) from None
    return made


def _first(error: ValueError) -> str:
    details = error.errors() if hasattr(error, "errors") else []
    where = ".".join(str(part) for part in details[0]["loc"]) if details else ""
    return f"{where} {details[0]['msg']}".strip() if details else str(error)
