"""What `api:` says in YAML: the objects of an API, their operations, and what answers mean. Checked when it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from integrations_dagster.destinations.answers import AnswerPaths, By, Listing
from integrations_dagster.destinations.http.bodies import XML_NAME
from integrations_dagster.destinations.http.templates import (
    OF_BATCH,
    OF_JOB,
    OF_PAGE,
    OF_ROW,
    SPREAD,
    check,
    placeholders,
)
from integrations_dagster.destinations.paths import Expression
from integrations_dagster.keys import AlsoTakes, Duration, Keys, mistake, near, problem
from integrations_dagster.vocabulary import Action

ANY_OBJECT = "*"
METHODS = ("POST", "PUT", "PATCH", "DELETE")
WORDS = (
    "throttled",
    "unavailable",
    "unauthorized",
    "too_large",
    "poisoned",
    "rejected",
    "missing",
    "ignored",
    "misconfigured",
)
"""What an error may mean."""
OPERATIONS = ("create", "update", "modify", "upsert", "delete")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
Encoding: TypeAlias = Literal["json", "form", "xml"]


def _request(value: Any) -> Any:
    method, _, path = value.strip().partition(" ") if isinstance(value, str) else ("", "", "")
    path = path.strip()
    if method not in (*METHODS, "GET") or not (path == "" or path.startswith("/")):
        raise problem('takes a method and a path below base_url, as "POST /contacts/batch"')
    if any(c in path for c in "?#") or any(c.isspace() or not c.isprintable() for c in path):
        raise problem("has a query, fragment or space in its path. Parameters belong in `query`.")
    return f"{method} {path}".strip()


RequestLine = Annotated[str, BeforeValidator(_request)]


def _header_name(value: Any) -> Any:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise problem("is no name of a header")
    return value


HeaderName = Annotated[str, BeforeValidator(_header_name)]


def _headers(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise problem("takes a mapping of header names to texts")
    for name, text in value.items():
        _header_name(name)
        if isinstance(text, bool) or not isinstance(text, str | int):
            raise mistake((str(name),), "takes text")
        if not str(text).isascii() or not str(text).isprintable():
            raise mistake((str(name),), "holds characters that no header can carry")
        if str(name).lower() in ("authorization", "cookie", "host", "content-length", "connection"):
            raise mistake((str(name),), "is not for a file to say: credentials are `auth` of the target.")
    return {str(name): str(text) for name, text in value.items()}


Headers = Annotated[dict[str, str], BeforeValidator(_headers)]
Query: TypeAlias = dict[str, Any]


class ByKeys(Keys):
    """How an entry of an answer's list names its row."""

    index: Expression | None = Field(default=None, description="Where the row's place in the request is.")
    first: int = Field(default=0, ge=0, le=1, description="index: the number of the first row, 0 or 1.")
    match: Expression | None = Field(default=None, description="Where the row's match value is.")
    key: Expression | None = Field(default=None, description="Where the row's primary key is.")
    id: Expression | None = Field(default=None, description="Where the record's id is, of rows sent by `{id}`.")
    trace: Expression | None = Field(default=None, description="Where `{trace}` is, which was sent with the row.")

    @model_validator(mode="after")
    def _one(self) -> ByKeys:
        given = [name for name in ("index", "match", "key", "id", "trace") if getattr(self, name) is not None]
        if len(given) != 1:
            raise problem("takes exactly one of index, match, key, id and trace, or the word order")
        if "first" in self.model_fields_set and given != ["index"]:
            raise mistake(("first",), "belongs to index. Leave it out.")
        return self

    @property
    def named(self) -> tuple[By, str]:
        name = next(name for name in ("index", "match", "key", "id", "trace") if getattr(self, name) is not None)
        return By(name), getattr(self, name)


def _by(value: Any) -> Any:
    if value == "order":
        return None
    if isinstance(value, str):
        raise problem(
            f'"{value}" says not how rows are told apart. Write order, or where they are named: {{key: PATH}}.'
        )
    return value


RowNames = Annotated[ByKeys | None, BeforeValidator(_by), AlsoTakes({"const": "order"})]


class FailuresKeys(Keys):
    """A list of the rows that were refused."""

    list: Expression = Field(description="Where the list is in the answer.")
    by: ByKeys = Field(description="How an entry names its row: {index: PATH}, {match: PATH}, ...")
    code: Expression | None = Field(default=None, description="Where an entry has its code.")
    message: Expression | None = Field(default=None, description="Where an entry has its message.")


def _all_rows(value: Any) -> Any:
    return {"means": value} if isinstance(value, str) else value


def _texts(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if not values or any(isinstance(one, bool) or not isinstance(one, str | int) for one in values):
        raise problem("takes a list of texts or numbers")
    return [str(one) for one in values]


class AnswerKeys(Keys):
    """What an answer says of the rows of its request, as JMESPath expressions."""

    means: Literal["all_rows"] | None = Field(
        default=None, description="all_rows: an answer with such a status says that all rows were taken."
    )
    results: Expression | None = Field(default=None, description="Where the list with an entry for each row is.")
    by: RowNames = Field(default=None, description="How an entry of results names its row; default: order.")
    success: Expression | None = Field(default=None, description="True where a row was accepted, false where refused.")
    status: Expression | None = Field(default=None, description="The status of a row: one of accepted, or 200 to 299.")
    accepted: Annotated[list[str], BeforeValidator(_texts)] | None = Field(
        default=None, description="Statuses that mean that a row was accepted."
    )
    error: Expression | None = Field(default=None, description="Something where a row was refused, nothing else.")
    code: Expression | None = Field(default=None, description="Why a row was refused, as a code.")
    message: Expression | None = Field(default=None, description="Why a row was refused, in words.")
    id: Expression | None = Field(default=None, description="The record's id; proof enough that a row was accepted.")
    created: Expression | None = Field(default=None, description="True where a record was made, false if changed.")
    failures: FailuresKeys | None = Field(default=None, description="The list of refused rows, if it is another list.")
    rest: Literal["accepted", "unknown"] = Field(
        default="unknown", description="What became of rows that are in neither list."
    )
    count: Expression | None = Field(default=None, description="How many rows were accepted; checked if given.")

    _PROOF: ClassVar[tuple[str, ...]] = ("success", "status", "id")

    @model_validator(mode="after")
    def _means_something(self) -> AnswerKeys:
        given = [name for name in self.model_fields_set if getattr(self, name) is not None]
        if self.means is not None:
            odd = sorted(set(given) - {"means", "id", "created"})
            if odd:
                raise problem(
                    f"says that any such answer means all rows, and has `{odd[0]}` too. Leave one of them out."
                )
            return self
        proof = any(getattr(self, name) is not None for name in self._PROOF)
        if self.results is None and self.failures is None and not proof:
            raise problem(
                "does not say what an answer with status 2xx means. Say where the answer tells it of each row "
                "(`results`, or `failures`), or of its request (`success`, `status` or `id`); or, if such an answer "
                "means that all rows were taken, write `answer: all_rows`."
            )
        if self.results is not None and not proof:
            raise mistake(
                ("results",), "lists rows, and nothing says which were accepted. Give `success`, `status` or `id`."
            )
        if self.results is None:
            for name in ("by", "created") if self.failures is not None else ("by", "count", "rest"):
                if name in self.model_fields_set:
                    raise mistake((name,), "belongs to a list. Leave it out, or give `results`.")
        if self.accepted is not None and self.status is None:
            raise mistake(("accepted",), "lists statuses, and `status` does not say where they are.")
        if self.rest == "accepted" and self.failures is None:
            raise mistake(("rest",), "accepts rows that are not mentioned, which takes a list of `failures`.")
        if self.failures is not None and self.results is None and self.rest != "accepted":
            raise mistake(("failures",), "are all there is, so that no row would ever succeed. Write `rest: accepted`.")
        return self

    @property
    def about_rows(self) -> bool:
        """Whether the answer has lists of rows, and is not about the request as a whole."""
        return self.results is not None or self.failures is not None

    def listing(self, path: str) -> Listing:
        """Entries at a path, read as this says."""
        by, at = (By.ORDER, "") if self.by is None else self.by.named
        return Listing(
            path,
            by,
            at,
            0 if self.by is None else self.by.first,
            success=self.success or "",
            status=self.status or "",
            accepted=tuple(self.accepted or ()),
            error=self.error or "",
            code=self.code or "",
            message=self.message or "",
            id=self.id or "",
            created=self.created or "",
        )

    def paths(self, *, xml: bool) -> AnswerPaths:
        """The lists of rows."""
        # In XML a list of one is its element, and an empty one is not there.
        form = "[{}][] | [?@]" if xml else "{}"
        results = None if self.results is None else self.listing(form.format(self.results))
        failures = None
        if self.failures is not None:
            by, at = self.failures.by.named
            failures = Listing(
                form.format(self.failures.list),
                by,
                at,
                self.failures.by.first,
                code=self.failures.code or "",
                message=self.failures.message or "",
                refused=True,
            )
        return AnswerPaths(results, failures, self.rest == "accepted", self.count or "")


Answer = Annotated[AnswerKeys, BeforeValidator(_all_rows), AlsoTakes({"const": "all_rows"})]


class ErrorKeys(Keys):
    """What an error means."""

    as_: Literal[WORDS] = Field(alias="as", description="What is done about it.")  # type: ignore[valid-type]
    says: str = Field(default="", description="What happened, as a sentence for a person.")
    fix: str = Field(default="", description="What to do about it, as a sentence.")
    message: str = Field(default="", description="Words that the answer's message must have, too.")
    wait: Duration | None = Field(
        default=None, description="throttled: how long to wait where the answer says nothing."
    )


def _error(value: Any) -> Any:
    if isinstance(value, ErrorKeys):
        return value
    word = value.get("as") if isinstance(value, Mapping) else value
    if word is not None and (not isinstance(word, str) or word not in WORDS):
        raise problem(f'"{word}" is nothing that an error can mean. {near(str(word), WORDS)}Known: {", ".join(WORDS)}.')
    return {"as": value} if isinstance(value, str) else value


def _errors(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise problem("takes a mapping from statuses (404, 5xx) and codes to what they mean")
    return {str(name): meaning for name, meaning in value.items()}


Errors = Annotated[dict[str, Annotated[ErrorKeys, BeforeValidator(_error)]], BeforeValidator(_errors)]


class ProblemKeys(Keys):
    """Where an answer says why a request as a whole failed."""

    code: Expression | None = Field(default=None, description="A code; `errors` says what it means.")
    message: Expression | None = Field(default=None, description="Words for a person.")


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
        _check_templates(self, self.allowed)
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
        _check_templates(self, ())
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


def _fields(value: Any) -> Any:
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
            _checked((key,), line, (*OF_JOB, "object"))
        _checked(("query",), self.query, (*OF_JOB, "object", *OF_PAGE))
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
    statuses: Annotated[list[str], BeforeValidator(_texts)] = Field(
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
        _check_templates(self, tuple(name for name in allowed if name != "rows"), body=allowed)
        _checked(("item",), self.item, tuple(name for name in in_row if name != "rows"))
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
    def addressed(self) -> bool:
        """Whether its path is that of a record."""
        return bool({name for name, _ in placeholders(self.request)} & {"id", "key", "match", "record"})


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
    fields: Annotated[Any, BeforeValidator(_fields)] = Field(
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
            return self.update if self.update is not None and self.update.by_id else None
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
        _checked(("headers",), self.headers, ())
        for name, object_ in self.objects.items():
            for key, operation in object_.operations.items():
                self._check(("objects", name, key), object_, operation)
        return self

    def _check(self, path: Sequence[str], object_: ObjectKeys, operation: OperationKeys) -> None:
        encoding = operation.encoding or self.encoding
        if operation.body is not None and encoding != "json":
            if not isinstance(operation.body, Mapping):
                raise mistake((*path, "body"), f"takes a mapping, to be written as {encoding}.")
            if encoding == "xml":
                _check_xml((*path, "body"), operation.body, root=True)
                _check_xml((*path, "item"), operation.item, root=False)
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
        if operation is object_.create and operation.by_id:
            raise mistake((*path, "request"), "has {id}, which a record that is not there yet does not have.")
        if operation.job is not None and operation is object_.create and object_.upsert is None and object_.search:
            raise mistake((*path, "job"), "cannot follow a `search`: the record may come into being between the two.")


def _check_xml(path: Sequence[str], node: Any, *, root: bool) -> None:
    if isinstance(node, Mapping):
        if root and len(node) != 1:
            raise mistake(path, "takes one key, the root element of the document.")
        for name, value in node.items():
            plain = str(name).removeprefix("@")
            if name not in (SPREAD, "#text") and not XML_NAME.fullmatch(plain):
                raise mistake((*path, str(name)), "is no name of an element or attribute.")
            _check_xml((*path, str(name)), value, root=False)
    elif isinstance(node, list):
        for place, value in enumerate(node):
            _check_xml((*path, str(place)), value, root=False)


def _check_templates(keys: Any, allowed: tuple[str, ...], body: tuple[str, ...] | None = None) -> None:
    _checked(("request",), keys.request, allowed)
    _checked(("headers",), keys.headers, allowed)
    for name in ("query", "body"):
        if hasattr(keys, name):
            _checked((name,), getattr(keys, name), body or allowed if name == "body" else allowed)


def _checked(path: Sequence[str], node: Any, allowed: Sequence[str]) -> None:
    try:
        check(node, allowed)
    except ValueError as error:
        raise mistake(path, str(error)) from None
