"""What `answer` and `errors` say in YAML: what answers mean, of the rows and of the request as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from integrations_dagster.destinations.answers import AnswerPaths, By, Listing
from integrations_dagster.destinations.http.form_parts import texts
from integrations_dagster.destinations.paths import Expression
from integrations_dagster.keys import AlsoTakes, Duration, Keys, mistake, near, problem

WORDS = (
    "throttled", "unavailable", "unauthorized", "too_large", "poisoned", "rejected", "missing", "ignored",
    "misconfigured",
)  # fmt: skip
"""What an error may mean."""


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


class AnswerKeys(Keys):
    """What an answer says of the rows of its request, as JMESPath expressions."""

    means: Literal["all_rows"] | None = Field(
        default=None, description="all_rows: an answer with such a status says that all rows were taken."
    )
    results: Expression | None = Field(default=None, description="Where the list with an entry for each row is.")
    by: RowNames = Field(default=None, description="How an entry of results names its row; default: order.")
    success: Expression | None = Field(default=None, description="True where a row was accepted, false where refused.")
    status: Expression | None = Field(default=None, description="The status of a row: one of accepted, or 200 to 299.")
    accepted: Annotated[list[str], BeforeValidator(texts)] | None = Field(
        default=None, description="Statuses that mean that a row was accepted."
    )
    error: Expression | None = Field(default=None, description="Something where a row was refused, nothing else.")
    code: Expression | None = Field(default=None, description="Why a row was refused, as a code.")
    message: Expression | None = Field(default=None, description="Why a row was refused, in words.")
    id: Expression | None = Field(default=None, description="The record's id; proof enough that a row was accepted.")
    created: Expression | None = Field(default=None, description="True where a record was made, false if changed.")
    failures: FailuresKeys | None = Field(default=None, description="The list of refused rows, if it is another list.")
    rest: Literal["accepted", "missing", "unknown"] = Field(
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
        if self.rest == "missing" and (self.results is None or self.by is None):
            text = "says that rows which are not mentioned have no record, which takes a list of `results`, with `by`."
            raise mistake(("rest",), text)
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
        return AnswerPaths(results, failures, self.rest == "accepted", self.rest == "missing", self.count or "")


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
