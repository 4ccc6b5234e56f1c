"""A field of a sync in YAML: what it is made from, what its values must be, and what becomes of those that are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from integrations_dagster.components.lookups import LookupKeys, NamedLookup, lookup_form
from integrations_dagster.destinations.base import Destination
from integrations_dagster.keys import TEMPLATE, TEXT, Keys, mistake, near, problem
from integrations_dagster.planner.expressions import columns_of
from integrations_dagster.sync.field_types import HASHED, TYPES, converter
from integrations_dagster.sync.spec import FieldRule, FieldSpec

SOURCES = ("column", "value", "sql")
"""Keys that say where a field comes from."""
TEXT_TYPES = frozenset({"string", "email", "enum"})
MEANT_FOR: dict[str, frozenset[str]] = {
    "trim": frozenset({"string"}),
    "lower": TEXT_TYPES,
    "max_length": frozenset({"string", "email", "phone"}),
    "truncate": frozenset({"string"}),
    "hash": HASHED,
    "format": frozenset({"date", "timestamp"}),
    "source_format": frozenset({"date", "timestamp"}),
    "region": frozenset({"phone"}),
    "values": frozenset({"enum"}),
}
"""Keys that only some types take."""
MAKES_STRING = ("trim", "lower", "max_length", "truncate", "hash")
"""Keys that make a field without a type a string."""
Nulls = Literal["omit", "clear", "default"]


class FieldProblem(ValueError):
    """What is wrong with a field, told at one of its keys.

    Args:
        key: The key.
        text: A sentence about it, without its subject.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def _type(value: Any) -> Any:
    if value in TYPES:
        return value
    raise problem(f'"{value}" is no type. {near(str(value), TYPES)}Known: {", ".join(TYPES)}.')


def _values(value: Any) -> Any:
    scalar = str | int | float | bool
    pairs = value.items() if isinstance(value, dict) else [(v, v) for v in value] if isinstance(value, list) else ()
    if not pairs or not all(isinstance(given, scalar) and isinstance(sent, scalar) for given, sent in pairs):
        raise problem("takes a list of texts and numbers, or a mapping from what the column holds to what is sent")
    return tuple(pairs)


class FieldMapping(Keys):
    """What one field of the destination is made from."""

    column: Annotated[str, Field(min_length=1)] | None = Field(default=None, description="Column of the model.")
    value: Any = Field(default=None, description="A constant, the same for every row.")
    sql: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="An expression over the model's columns, in the SQL of its warehouse; computed for all rows at "
        "once when a run is planned.",
    )
    type: Annotated[str, BeforeValidator(_type)] | None = Field(
        default=None,
        description=f"What its values are made: {', '.join(TYPES)}. A value that cannot be is `on_error`. Without a "
        "type the values go as they are.",
    )
    trim: Annotated[bool, TEMPLATE] = Field(
        default=False, description="string: whether white space around the text is taken off; other types always do."
    )
    lower: Annotated[bool, TEMPLATE] | None = Field(
        default=None,
        description="string, email: whether the text is put in lower case (default for email: true); enum: whether "
        "case makes no difference.",
    )
    format: Literal["iso", "epoch_seconds", "epoch_ms"] = Field(
        default="iso", description="date, timestamp: what is sent: ISO 8601, or a count since 1970 in UTC."
    )
    source_format: Literal["iso", "epoch_seconds", "epoch_ms"] = Field(
        default="iso", description="date, timestamp: what the column holds where it is no date or timestamp."
    )
    region: str | None = Field(
        default=None,
        description='phone: country of numbers without a country code, as "US" (ISO 3166); default: they are invalid.',
    )
    values: Annotated[tuple[tuple[Any, Any], ...], BeforeValidator(_values)] | None = Field(
        default=None,
        description="enum: its values, as a list, or as a mapping from what the column holds to what is sent.",
        json_schema_extra={"type": ["array", "object"]},
    )
    max_length: Annotated[int, TEMPLATE] | None = Field(
        default=None, ge=1, description="Characters that the text may have; a longer one is `on_error`."
    )
    truncate: Annotated[bool, TEMPLATE] = Field(
        default=False, description="Whether a text longer than max_length is cut instead."
    )
    hash: Literal["sha256"] | None = Field(
        default=None, description="Sends the SHA-256 of the text, in hexadecimal, as audiences want it."
    )
    required: Annotated[bool, TEMPLATE] = Field(
        default=False, description="Whether a row in which it is null or an empty text is invalid."
    )
    default: Any = Field(default=None, description="What is sent in place of null.")
    nulls: Nulls | None = Field(
        default=None,
        description="What becomes of null: `omit` leaves the field out, `clear` empties it at the destination, "
        "`default` sends the default. Default: `default` where there is one, else what the sync says.",
    )
    on_error: Literal["reject", "drop"] = Field(
        default="reject",
        description="What becomes of a value that does not fit: `reject` makes its row invalid, `drop` leaves the "
        "field out of it.",
    )
    lookup: Annotated[LookupKeys, BeforeValidator(lookup_form), TEXT] | None = Field(
        default=None,
        description="What the values of `column` are looked up in: a name of `lookups` or of a reference of the "
        "destination, or the keys of a lookup.",
    )
    sensitive: Annotated[bool, TEMPLATE] = Field(
        default=False, description="Its values are kept out of request logs, reasons of rows and previews."
    )

    @model_validator(mode="after")
    def _one_source(self) -> FieldMapping:
        if self.lookup is not None and self.column is None:
            raise problem("has a `lookup` without a `column` whose values are looked up")
        given = [source for source in SOURCES if source in self.model_fields_set]
        if len(given) != 1:
            raise problem("takes one of `column`, `value` and `sql`")
        if getattr(self, given[0]) is None:
            raise problem("is null, which would be left out of every row. Give a column, a value or an expression.")
        return self

    @model_validator(mode="after")
    def _keys_fit(self) -> FieldMapping:
        for key, types in MEANT_FOR.items():
            if key in self.model_fields_set and self._kind not in types:
                what = f"type {self._kind}" if self._kind else "a field without a type"
                raise mistake((key,), f"has no meaning for {what}; it is for {', '.join(sorted(types))}.")
        if self._kind == "enum" and self.values is None:
            raise mistake(("type",), "is enum, which needs `values`: a list, or a mapping.")
        if self.truncate and self.max_length is None:
            raise mistake(("truncate",), "has no meaning without max_length.")
        if self.region is not None:
            from phonenumbers import SUPPORTED_REGIONS

            if self.region not in SUPPORTED_REGIONS:
                raise mistake(("region",), f'"{self.region}" is no country. Write two capital letters, as "US".')
        if self.nulls == "default" and self.default is None:
            raise mistake(("nulls",), "is default, and there is no `default`.")
        if self.default is not None and self.nulls in ("omit", "clear"):
            raise mistake(("default",), f"is never sent: nulls is {self.nulls}.")
        if self.required and self.nulls == "clear":
            raise mistake(("nulls",), "is clear, and a row in which the field is null is invalid: it is required.")
        return self

    @property
    def _kind(self) -> str | None:
        implied = any(key in self.model_fields_set for key in MAKES_STRING)
        return self.type or ("string" if implied else None)

    def columns(self, dialect: str) -> tuple[str, ...]:
        """The columns of the model that it is made from; none where its expression is wrong, which `spec` tells."""
        try:
            return columns_of(self.sql, dialect) if self.sql else tuple(filter(None, (self.column,)))
        except ValueError:
            return ()

    def spec(self, target: str, dialect: str, nulls: Nulls) -> FieldSpec:
        """The field as plain values.

        Args:
            target: Its name at the destination.
            dialect: Kind of the model's warehouse, whose SQL an expression is written in.
            nulls: What the sync says of nulls.

        Raises:
            FieldProblem: A key is wrong.
        """
        try:
            uses = () if self.sql is None else columns_of(self.sql, dialect)
        except ValueError as error:
            raise FieldProblem("sql", f"{error}.") from None
        rule = self._rule(nulls)
        if rule.type is not None:
            for key in ("value", "default"):
                given = getattr(self, key)
                try:
                    fits = given is None or converter(rule)(given) is not None
                except ValueError as error:
                    raise FieldProblem(key, f"does not fit: {error}") from None
                if not fits:
                    raise FieldProblem(key, f"counts as null for type {rule.type}.")
        lookup = None if self.lookup is None else self.finds(target)
        return FieldSpec(target, self.column, self.value, self.sensitive, self.sql, uses, rule, lookup)

    def finds(self, target: str) -> str:
        """The name of its lookup: one that stands in the field itself is called as the field."""
        assert self.lookup is not None
        return self.lookup.name if isinstance(self.lookup, NamedLookup) else f"fields.{target}"

    def _rule(self, nulls: Nulls) -> FieldRule:
        if self.default is not None:
            nulls = "default"
        elif self.nulls is not None:
            nulls = self.nulls
        elif nulls == "default" or self.required:
            nulls = "omit"
        return FieldRule(
            type=self._kind,
            trim=self.trim,
            lower=self.lower,
            format=self.format,
            source_format=self.source_format,
            region=self.region,
            values=self.values,
            max_length=self.max_length,
            truncate=self.truncate,
            required=self.required,
            default=self.default,
            drop=self.on_error == "drop",
            nulls=nulls,
            hash=self.hash,
        )


def field_mapping(value: Any) -> Any:
    """The long form of a field's short one."""
    if isinstance(value, str):
        return {"column": value}
    if not isinstance(value, dict | FieldMapping):
        raise problem("takes the name of a column, {column: NAME}, {value: CONSTANT} or {sql: EXPRESSION}")
    return value


def check_paths(targets: Sequence[str], destination: Destination) -> None:
    """Refuse targets that cannot lie in one payload.

    Raises:
        FieldProblem: At the target (its key), what is wrong.
    """
    if not destination.nests:
        return
    whole = set(targets)
    for target in targets:
        parts = target.split(".")
        if not all(parts):
            raise FieldProblem(target, "is no path: a part between its dots is empty.")
        for length in range(1, len(parts)):
            above = ".".join(parts[:length])
            if above in whole:
                raise FieldProblem(target, f"lies in {above}, which is a field itself. Give one of them another name.")


def check_match(target: str, field: FieldMapping) -> None:
    """Refuse what would make the value of a match field another than the one that is compared.

    Raises:
        FieldProblem: A key that does.
    """
    changes = {"trim", "lower", "truncate", "hash", "default", "nulls", "on_error", "values", "format"}
    for key in sorted(changes & field.model_fields_set):
        raise FieldProblem(
            key, f"would change match.{target}, which is compared as the model returns it. Do it in the model's SQL."
        )
    if field.type not in (None, "string", "email", "integer"):
        raise FieldProblem(
            "type",
            f"is {field.type}, and match.{target} is compared as the model returns it: it is checked as string, email "
            "or integer only. Do the rest in the model's SQL.",
        )
