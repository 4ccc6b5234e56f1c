"""Lookups in YAML: what fields look values up in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from integrations_dagster.destinations.base import Destination
from integrations_dagster.destinations.reading import Reference
from integrations_dagster.keys import Duration, Keys, near, problem
from integrations_dagster.sync.spec import DestinationSpec, LookupSpec, SyncSpec
from integrations_dagster.vocabulary import Mode

CACHE = 21_600.0
"""Seconds for which reference data is used before it is read anew: six hours."""


class LookupProblem(ValueError):
    """What is wrong with a lookup, told at one of its keys.

    Args:
        key: The key; "" for the lookup itself.
        text: A sentence about it, without its subject.
        remedy: What to do.
    """

    def __init__(self, key: str, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.key = key
        self.remedy = remedy


def _or_null(value: Any) -> Any:
    # In YAML `null` without quotes is no text.
    return "null" if value is None else value


OnMiss = Annotated[Literal["reject", "null"], BeforeValidator(_or_null)]


class LookupKeys(Keys):
    """What fields look values up in: reference data of the destination, or what another sync has delivered."""

    reference: str | None = Field(
        default=None, description="Reference data of the destination, as owners; default: the name of the lookup."
    )
    sync: str | None = Field(
        default=None, description="Another sync, whose delivered records give their ids at the destination."
    )
    key: str | None = Field(
        default=None,
        description="What is compared: a column of the reference (default: what the destination says), or a match "
        "field or primary key column of the other sync (default: its match field).",
    )
    value: str | None = Field(
        default=None, description="Column of the reference whose value is taken; default: the record's id."
    )
    cache: Duration | None = Field(
        default=None, description='How long reference data is used before it is read anew, as "6h", the default.'
    )
    no_match: OnMiss = Field(
        default="reject", description="What becomes of a row without a match. reject: it is invalid; null: no value."
    )
    several: OnMiss = Field(
        default="reject", description="What becomes of a row where records with different values match, likewise."
    )

    @model_validator(mode="after")
    def _one_place(self) -> LookupKeys:
        if self.sync is None:
            return self
        for key in ("reference", "value", "cache", "several"):
            if key in self.model_fields_set:
                raise problem(
                    f"has both `sync` and `{key}`: what another sync has delivered is looked up in its state, which is "
                    "always up to date, and gives the one record of a key. Leave one of them out."
                )
        return self

    def spec(self, name: str, account: DestinationSpec, delivered: Mapping[str, SyncSpec]) -> LookupSpec:
        """The lookup as plain values.

        Args:
            name: What the fields call it.
            account: The sync's destination.
            delivered: The syncs that lookups name.

        Raises:
            LookupProblem: A key is wrong.
        """
        if self.sync is not None:
            return self._in_sync(name, delivered[self.sync])
        destination = account.create()
        reference = _reference(destination, self.reference or name, "reference" if self.reference else "")
        key = self.key or reference.key
        if key is None:
            raise LookupProblem("key", "is missing: what the values are compared with.")
        value = self.value or reference.value
        for word, column in (("key", key), ("value", value)):
            if reference.columns is not None and column not in reference.columns:
                raise LookupProblem(
                    word,
                    f'"{column}" is no column of {reference.name}.',
                    f"{near(column, reference.columns)}It has: {', '.join(reference.columns)}.",
                )
        return LookupSpec(
            name,
            reference.name,
            None,
            key,
            value,
            reference.compares(key),
            CACHE if self.cache is None else self.cache,
            self.no_match,
            self.several,
        )

    def _in_sync(self, name: str, other: SyncSpec) -> LookupSpec:
        if other.mode is Mode.DELETE:
            raise LookupProblem("sync", f'"{other.name}" deletes records (mode delete), so it has none to look up.')
        columns, match = other.model.primary_key, tuple(other.match)
        wanted = self.key or (match[0] if len(match) == 1 else columns[0])
        if wanted in match and len(match) == 1:
            how = other.destination.create().match_normalization(other.object, wanted)
            compared = "match"
        elif columns == (wanted,):
            how, compared = "exact", "key"
        else:
            known = [*(match if len(match) == 1 else ()), *(columns if len(columns) == 1 else ())]
            raise LookupProblem(
                "key",
                f'"{wanted}" is neither the match field nor the primary key of sync "{other.name}".',
                f"It can be: {', '.join(dict.fromkeys(known)) or 'none, for its keys have several columns'}.",
            )
        return LookupSpec(name, None, other, compared, "destination_id", how, no_match=self.no_match)


class NamedLookup(LookupKeys):
    """What a field says that just names a lookup."""

    _name: str = PrivateAttr(default="")

    @property
    def name(self) -> str:
        return self._name

    @classmethod
    def of(cls, name: str) -> NamedLookup:
        made = cls()
        made._name = name
        return made


def lookup_form(value: Any) -> Any:
    """A lookup of a field: a name, or keys."""
    if isinstance(value, str) and value:
        return NamedLookup.of(value)
    if value is not None and not isinstance(value, dict | LookupKeys):
        raise problem("takes the name of a lookup, or the keys of one: {sync: NAME, key: FIELD}")
    return value


def _reference(destination: Destination, name: str, key: str) -> Reference:
    known = {reference.name: reference for reference in destination.references()}
    if name not in known:
        there = f"{near(name, known)}It has: {', '.join(known)}." if known else "It has none."
        what = "is no reference data" if key else "is neither a lookup of the sync nor reference data"
        raise LookupProblem(key, f'"{name}" {what} of {destination.label}.', there)
    return known[name]
