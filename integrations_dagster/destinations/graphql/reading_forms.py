"""What `api:` says of a GraphQL API's queries: records that are looked up, reference data, who the account is."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from integrations_dagster.destinations.graphql.documents import Document, check_values, read_document
from integrations_dagster.destinations.http import reading_forms as forms
from integrations_dagster.destinations.http.answer_forms import ByKeys
from integrations_dagster.destinations.http.templates import OF_PAGE, check, placeholders
from integrations_dagster.destinations.paths import Expression
from integrations_dagster.keys import Keys, mistake


def names_in(node: Any) -> set[str]:
    """The names of the placeholders in a structure."""
    return {name for name, _ in placeholders(node)}


def checked(key: str, node: Any, allowed: tuple[str, ...]) -> None:
    """Refuse placeholders that have no meaning below a key."""
    try:
        check(node, allowed)
    except ValueError as error:
        raise mistake((key,), str(error)) from None


class QueryKeys(Keys):
    """A query, and the records that it answers, page by page. Expressions are of its field."""

    query: str = Field(description="The query, with one field at its top.")
    variables: dict[str, Any] = Field(default={}, description="Values of its variables, with placeholders.")
    records: Expression = Field(default="@", description='Where the list of records is: "@" if the field is the list.')
    next: forms.NextKeys | None = Field(default=None, description="How the next page is asked for.")

    allowed: ClassVar[tuple[str, ...]] = ("object", *OF_PAGE)
    ways: ClassVar[tuple[str, ...]] = ("cursor", "offset", "page")
    _document: Document = PrivateAttr()

    @model_validator(mode="after")
    def _reads(self) -> QueryKeys:
        try:
            self._document = read_document(self.query, "query")
        except ValueError as error:
            raise mistake(("query",), str(error)) from None
        try:
            check_values(self._document, self.variables)
        except ValueError as error:
            raise mistake(("variables",), str(error)) from None
        checked("variables", self.variables, self.allowed)
        if self.next is not None:
            if self.next.way not in self.ways:
                raise mistake(("next",), f"takes {', '.join(self.ways)}; `{self.next.way}` is nothing of GraphQL's.")
            if self.next.param is not None:
                raise mistake(("next", "param"), f"has no meaning here. Give {{{self.next.way}}} to a variable.")
            if self.next.way not in names_in(self.variables):
                raise mistake(("next",), f"goes by {self.next.way}, which no variable has. Add {{{self.next.way}}}.")
        return self

    def reading(self) -> dict[str, Any]:
        """The keys of it that kind `http` knows."""
        field = f'data."{self._document.key}"'
        made: dict[str, Any] = {
            "request": "POST",
            "body": {"query": self._document.text, "variables": self.variables},
            "records": _within(field, self.records),
        }
        if self.next is not None:
            keys = self.next.model_dump(exclude_unset=True)
            made["next"] = {
                name: _within(field, value) if name in ("cursor", "more", "total") else value
                for name, value in keys.items()
            }
        return made


def _within(field: str, path: str) -> str:
    return field if path == "@" else f"{field} | {path}"


class SearchKeys(QueryKeys):
    """How records are found by match value or key: before they are written where there is no upsert, and in doubt."""

    id: Expression = Field(description="Where a record has its id.")
    rows: int | None = Field(
        default=None, ge=1, le=10_000, description="Rows that one request looks for; default: 1, or 100 with {matches}."
    )
    by: ByKeys = Field(description="How a record names its row, as {match: PATH}: one that names none is not meant.")

    allowed: ClassVar[tuple[str, ...]] = ("object", "match", "key", "matches", "keys", *OF_PAGE)

    _search: forms.SearchKeys = PrivateAttr()

    @model_validator(mode="after")
    def _finds(self) -> SearchKeys:
        names = names_in(self.variables)
        if not names & {"match", "key", "matches", "keys"}:
            raise mistake(("variables",), "name nothing that is looked for: add {matches} (or {match}, {keys}, {key}).")
        rows = self.rows or (100 if names & {"matches", "keys"} else 1)
        self._search = forms.SearchKeys.model_validate({**self.reading(), "id": self.id, "rows": rows, "by": self.by})
        return self

    def search(self, path: str) -> forms.SearchKeys:
        """The form of it that kind `http` knows."""
        return self._search.model_copy(update={"request": f"POST {path}".strip()})


class ReferenceKeys(QueryKeys):
    """Reference data that lookups find values in."""

    columns: dict[str, Expression] = Field(min_length=1, description="Its columns, and where a record has them.")
    value: str | None = Field(default=None, description="Column that a lookup takes; default: the first.")
    key: str | None = Field(default=None, description="Column that a lookup compares with unless it says another.")
    normalize: dict[str, Literal["exact", "trim", "trim_lower"]] = Field(
        default={}, description="How columns are compared, where not exactly."
    )
    description: str = Field(default="", description="What the records are, in a few words.")

    _reference: forms.ReferenceKeys = PrivateAttr()

    @model_validator(mode="after")
    def _lists(self) -> ReferenceKeys:
        own = ("columns", "value", "key", "normalize", "description")
        self._reference = forms.ReferenceKeys.model_validate(
            {**self.reading(), **{name: getattr(self, name) for name in own}}
        )
        return self

    def reference(self, path: str) -> forms.ReferenceKeys:
        """The form of it that kind `http` knows."""
        return self._reference.model_copy(update={"request": f"POST {path}".strip()})


class IdentifyKeys(Keys):
    """Who the account is: state is kept for each."""

    query: str = Field(description="The query, with one field at its top.")
    id: Expression = Field(description="Where its field has the account's id.")

    @model_validator(mode="after")
    def _reads(self) -> IdentifyKeys:
        try:
            check_values(read_document(self.query, "query"), {})
        except ValueError as error:
            raise mistake(("query",), str(error)) from None
        return self
