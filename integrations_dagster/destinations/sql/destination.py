"""SQL: a table of PostgreSQL, or of a DuckDB file. One batch is one transaction.

The flows say what is to be written in commands; a session of `delivery/` makes statements of them, for its database.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from integrations_dagster.destinations.base import (
    GONE,
    NO_RECORD,
    AccountLimits,
    Batch,
    Destination,
    Flow,
    Limits,
    Repeat,
    Request,
    Response,
)
from integrations_dagster.destinations.error_table import Problem, raise_for, shorten
from integrations_dagster.destinations.errors import Refused, Unavailable
from integrations_dagster.destinations.reading import FieldType, TargetField
from integrations_dagster.destinations.sql.errors import TABLE
from integrations_dagster.destinations.values import canonical_json, stored_value
from integrations_dagster.keys import TEMPLATE, Keys
from integrations_dagster.vocabulary import Action, Misconfigured, Mode, Outcome, Row, Status

MAX_ROWS = 2_000
"""Rows of a transaction unless `batch:` says less: our choice; enough that the way to the server hardly counts."""
MAX_BYTES = 16 * 1024 * 1024
"""Bytes of the rows of a transaction: our choice, for memory's sake (16 of them may be in flight)."""
AT_ONCE = 8
"""Transactions at once, over all processes: our choice; more make an ordinary server hardly faster."""
KEYS_KEPT = 7 * 24 * 3600.0
"""Seconds for which a batch that was inserted may be repeated; its key is kept for a day longer."""


class TableKeys(Keys):
    """How tables are written."""

    remember_batches: Annotated[bool, TEMPLATE] = Field(
        default=True,
        description="Whether inserted batches are noted in a table beside theirs, in the same transaction, so that "
        "none is inserted twice.",
    )
    batches_table: str = Field(
        default="integrations_batches", min_length=1, max_length=63, description="Name of that table."
    )


# What a session is asked


@dataclass(frozen=True, slots=True)
class Table:
    """A table by its names; the schema is "" where the database finds it."""

    schema: str
    name: str

    @classmethod
    def of(cls, object_: str) -> Table:
        schema, _, name = object_.rpartition(".")
        return cls(schema, name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class Write:
    """Write records in one transaction: all of them, or none.

    The answer is `{"results": [[what, id], ...]}` with an entry for each record, in order: "created", "updated",
    "deleted", or "missing" where an update or deletion found none. The id is that of the record's primary key, where
    that is one column that no match is made by, else null.

    Attributes:
        table: Where.
        action: What becomes of each record.
        match: Columns by which records are recognized; empty where CREATE needs none.
        records: Each a JSON object of columns and values; for DELETE of the match columns only.
        groups: (columns, places of records): records that have the same columns. All places, each once.
        ids: For UPDATE, the id of each record.
        key: For CREATE: the batch is done once under this key; "" for every time it is asked.
        batches: Name of the table that keeps keys.
    """

    table: Table
    action: Action
    match: tuple[str, ...]
    records: tuple[bytes, ...]
    groups: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]
    ids: tuple[str, ...] = ()
    key: str = ""
    batches: str = ""


@dataclass(frozen=True, slots=True)
class Find:
    """Which of some records are there; answered as `Write`, with "found" and "missing"."""

    table: Table
    match: tuple[str, ...]
    records: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Describe:
    """What a table's columns are.

    The answer is `{"columns": [{"name", "type", "nullable", "default", "writable", "options"}], "unique": [[column]]}`,
    `{"missing": true}` where there is no such table, `{"made": true}` where tables are made of what is written.
    """

    table: Table


@dataclass(frozen=True, slots=True)
class Identify:
    """Which database it is; answered as `{"identity": text}`, without user and password."""


class Sql(Destination):
    """A table that rows are written to."""

    kind: ClassVar[str] = "sql"
    label: ClassVar[str] = "SQL"
    modes: ClassVar[frozenset[Mode]] = frozenset(Mode)
    auth: ClassVar[str] = "none"
    auth_kinds: ClassVar[frozenset[str] | None] = frozenset({"basic"})
    transport: ClassVar[str] = "sql"
    schemes: ClassVar[frozenset[str]] = frozenset({"postgresql", "postgres", "duckdb"})
    options: ClassVar[tuple[str, type[Keys]] | None] = ("tables", TableKeys)
    local_sandbox: ClassVar[str] = "duckdb://{folder}/sandbox.duckdb"
    nulls: ClassVar[Literal["omit", "clear"]] = "clear"
    as_text: ClassVar[frozenset[type]] = frozenset({str, Decimal, date})
    key_lifetime: ClassVar[float] = KEYS_KEPT

    @property
    def _option(self) -> TableKeys:
        return self.option if isinstance(self.option, TableKeys) else TableKeys()

    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:
        if not re.fullmatch(r"[^.\0]+(\.[^.\0]+)?", object_):
            raise Misconfigured(
                f"SQL: object {object_!r} is no name of a table.", "Write it as TABLE or SCHEMA.TABLE, without quotes."
            )
        if any("\0" in name or not name for name in (*match, *fields)):
            raise Misconfigured("SQL: a field has no name that a column can have.", "Correct `fields`.")
        if not match and mode not in (Mode.INSERT, Mode.APPEND):
            raise Misconfigured(
                f"SQL: mode {mode.value} of {object_} has no match.",
                "Say which column of the table tells its records apart, as `match: {customer_id: customer_id}`; it "
                "needs a unique constraint.",
            )

    def limits(self, object_: str, action: Action) -> Limits:  # noqa: ARG002
        return Limits(rows=MAX_ROWS, bytes=MAX_BYTES)

    def account_limits(self) -> AccountLimits:
        return AccountLimits(concurrency=AT_ONCE)

    def match_normalization(self, object_: str, match_field: str) -> str:  # noqa: ARG002
        return "exact"

    def repeat(self, object_: str, action: Action) -> Repeat:  # noqa: ARG002
        """An insert is done once under its key, if keys are kept; anything else ends in the same state."""
        if action is not Action.CREATE:
            return Repeat.ALWAYS
        return Repeat.WITH_KEY if self._option.remember_batches else Repeat.NEVER

    def encode(self, value: Any) -> Any:
        """See `values.stored_value`."""
        return stored_value(value)

    # Writing

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        table = Table.of(batch.object)
        # In the order of match values, whoever sends: two batches never wait for each other in a circle.
        order = sorted(range(len(batch.rows)), key=lambda place: batch.rows[place].match)
        rows = [batch.rows[place] for place in order]
        records = [_record(row, batch.match_fields) for row in rows]
        keyed = batch.action is Action.CREATE and self._option.remember_batches
        encoded = tuple(canonical_json(record) for record in records)
        command = Write(
            table,
            batch.action,
            batch.match_fields,
            encoded,
            _groups(records),
            ids=tuple(row.destination_id or "" for row in rows) if batch.action is Action.UPDATE else (),
            key=batch.idempotency_key if keyed else "",
            batches=self._option.batches_table if keyed else "",
        )
        response = yield Request(batch.action.value.upper(), batch.object, _array(encoded), command=command)
        outcomes = [_outcome(batch.action, *result) for result in _results(response, len(rows))]
        found: list[Outcome | None] = [None] * len(rows)
        for place, outcome in zip(order, outcomes, strict=True):
            found[place] = outcome
        return [outcome for outcome in found if outcome is not None]

    def can_verify(self, object_: str, match: Sequence[str]) -> bool:  # noqa: ARG002
        return bool(match)

    def verify(self, batch: Batch) -> Flow[list[Outcome | None]]:
        encoded = tuple(canonical_json(_match_of(row, batch.match_fields)) for row in batch.rows)
        command = Find(Table.of(batch.object), batch.match_fields, encoded)
        response = yield Request("SELECT", batch.object, _array(encoded), reads=True, command=command)
        results = _results(response, len(batch.rows))
        return [Outcome(Status.CREATED, id_) if what == "found" else None for what, id_ in results]

    # What there is

    def identify(self) -> Flow[str] | None:
        return self._identify()

    def _identify(self) -> Flow[str]:
        response = yield Request("IDENTIFY", "", reads=True, command=Identify())
        return str(_document(response)["identity"])

    @property
    def describes(self) -> bool:
        return True

    def fields(self, object_: str) -> Flow[list[TargetField]]:
        response = yield Request("DESCRIBE", object_, reads=True, command=Describe(Table.of(object_)))
        document = _document(response)
        if document.get("made"):
            raise Refused("The sandbox makes tables of what is written to them.", "SANDBOX")
        if document.get("missing"):
            raise Misconfigured(
                f"The table {object_} does not exist, or the database user may not see it.",
                "Create it, with a unique constraint on the match columns, or correct `object` of the sync.",
            )
        unique = [tuple(columns) for columns in document["unique"]]
        return [_field(column, unique) for column in document["columns"]]

    def match_remedy(self, object_: str, match: Sequence[str]) -> str:
        columns = ", ".join(_quoted(name) for name in match)
        table = Table.of(object_)
        name = f"{_quoted(table.schema)}.{_quoted(table.name)}" if table.schema else _quoted(table.name)
        return f"Add a constraint: ALTER TABLE {name} ADD UNIQUE ({columns}); in DuckDB, CREATE UNIQUE INDEX."

    def classify(self, request: Request, response: Response) -> None:  # noqa: ARG002
        if response.status == 200:
            return
        told = _document(response) if response.body else {}
        code = str(told.get("code") or "")
        names = tuple(str(told[name]) for name in ("column", "constraint") if told.get(name))
        message = shorten(str(told.get("message") or ""))
        raise_for(TABLE, "The database", Problem(response.status, (code,) if code else (), message, names))


def _record(row: Row, match: Sequence[str]) -> dict[str, Any]:
    if row.action is Action.DELETE:
        return _match_of(row, match)
    return row.payload | _match_of(row, match)


def _match_of(row: Row, match: Sequence[str]) -> dict[str, Any]:
    """The match columns and their values, as text."""
    if not match:
        return {}
    return {match[0]: row.match} if len(match) == 1 else dict(zip(match, json.loads(row.match), strict=True))


def _groups(records: Sequence[dict[str, Any]]) -> tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]:
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, record in enumerate(records):
        groups.setdefault(tuple(sorted(record)), []).append(place)
    return tuple((columns, tuple(places)) for columns, places in groups.items())


def _array(records: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(records) + b"]"


def _document(response: Response) -> dict[str, Any]:
    document = response.json()
    if not isinstance(document, dict):
        raise Unavailable("The database's answer cannot be read.", "UNREADABLE_ANSWER")
    return document


def _results(response: Response, count: int) -> list[tuple[str, str | None]]:
    results = _document(response)["results"]
    if len(results) != count:
        raise Unavailable("The database answered for another number of rows.", "UNREADABLE_ANSWER")
    return [(what, id_) for what, id_ in results]


_DONE = {"created": Status.CREATED, "updated": Status.UPDATED, "deleted": Status.DELETED}


def _outcome(action: Action, what: str, id_: str | None) -> Outcome:
    if what in _DONE:
        return Outcome(_DONE[what], id_)
    if what == "missing" and action is Action.DELETE:
        # What was wanted is so.
        return Outcome(Status.DELETED)
    if what == "missing" and action is Action.MODIFY:
        reason = "The table has no record with this match value, and mode update creates none. It is tried again."
        return Outcome(Status.REJECTED, None, NO_RECORD, reason)
    if what == "missing" and action is Action.UPDATE:
        return Outcome(Status.REJECTED, None, GONE, "The record is no longer in the table. The next run creates it.")
    raise Unavailable("The database's answer cannot be read.", "UNREADABLE_ANSWER")


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


_TYPES: tuple[tuple[str, FieldType], ...] = (
    (r".*\[\d*\]|jsonb?|(struct|map|list|union)\b.*", FieldType.JSON),
    (r"bool(ean)?", FieldType.BOOLEAN),
    (r"(smallint|integer|bigint|u?(tiny|small|big|huge)?int(eger)?|int\d)", FieldType.INTEGER),
    (r"(numeric|decimal|real|double|float)\b.*", FieldType.NUMBER),
    (r"date", FieldType.DATE),
    (r"timestamp.*", FieldType.TIMESTAMP),
    (r"(text|varchar|character|char|bpchar|citext|uuid|name|enum)\b.*", FieldType.STRING),
)


def _field(column: dict[str, Any], unique: Sequence[tuple[str, ...]]) -> TargetField:
    name, native = column["name"], column["type"]
    options = tuple(column.get("options") or ())
    kind = next((kind for pattern, kind in _TYPES if re.fullmatch(pattern, native.lower())), FieldType.UNKNOWN)
    return TargetField(
        name,
        name,
        FieldType.ENUM if options else kind,
        native=native,
        writable=column["writable"],
        required=not column["nullable"] and not column["default"] and column["writable"],
        options=options,
        unique=(name,) in unique,
        unique_with=tuple(
            tuple(other for other in columns if other != name)
            for columns in unique
            if name in columns and len(columns) > 1
        ),
    )
