"""File: rows as JSON lines, CSV or Parquet, one immutable file for each batch.

The flow names the file and says what is in it; a session of `delivery/` encodes it and puts it in its place whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from integrations_dagster.destinations.base import (
    AccountLimits,
    Batch,
    Destination,
    Flow,
    Limits,
    Repeat,
    Request,
    Response,
)
from integrations_dagster.destinations.error_table import ErrorEntry, Problem, raise_for, shorten
from integrations_dagster.destinations.errors import PoisonedBatch, Refused, Throttled, Unavailable
from integrations_dagster.destinations.values import json_string, stored_value
from integrations_dagster.keys import TEMPLATE, Keys, mistake, near, problem
from integrations_dagster.vocabulary import Action, Change, Misconfigured, Mode, Outcome, Row, Status

MAX_ROWS = 50_000
"""Rows of a file unless `batch:` says less: our choice; readers like few files."""
MAX_BYTES = 16 * 1024 * 1024
"""Bytes of a file's rows as JSON, before compression: our choice, for memory's sake."""
INSERT_ROWS = 10_000
"""Likewise of rows that are told once: the ledger keeps their payloads until they are answered."""
AT_ONCE = 4
"""Files that are written at once, over all processes: each is in memory while it is."""
PLACES = ("object", "sync", "date", "hour", "batch")
"""What a path may hold."""
TYPES = r"string|boolean|int32|int64|float|double|date|timestamp|json|binary|decimal\((\d+), ?(\d+)\)"
"""Types of columns of a Parquet file."""

TABLE: tuple[ErrorEntry, ...] = (
    ErrorEntry("422", PoisonedBatch, "A value does not fit the type that its column has in the files."),
    ErrorEntry(
        "403",
        Refused,
        "The files may not be written there.",
        "Give the credentials write access, or correct `base_url` of the target.",
    ),
    ErrorEntry(
        "404", Refused, "The place for the files does not exist.", "Create the folder or bucket, or correct `base_url`."
    ),
    ErrorEntry(
        "501",
        Refused,
        "The package that writes to this kind of store is not installed.",
        "Install it beside this one: s3fs for s3://, gcsfs for gs://, adlfs for abfs:// and az://.",
    ),
    ErrorEntry("429", Throttled, "The store asks to be sent less."),
    ErrorEntry("4xx", Refused, "The file was refused.", "Look the message up in the store's documentation."),
    ErrorEntry("5xx", Unavailable, "The store is out of order."),
    ErrorEntry("3xx", Unavailable, "The answer cannot be understood."),
    ErrorEntry("1xx", Unavailable, "The answer cannot be understood."),
)


def _type(value: Any) -> Any:
    text = value.strip().lower() if isinstance(value, str) else ""
    found = re.fullmatch(TYPES, text)
    if found is None:
        raise problem(
            f'"{value}" is no type of a column. {near(str(value), ("string", "boolean", "int32", "int64"))}Known: '
            "string, boolean, int32, int64, float, double, decimal(PRECISION, SCALE), date, timestamp, json, binary."
        )
    if found[1] and not (1 <= int(found[1]) <= 38 and int(found[2]) <= int(found[1])):
        raise problem("has a precision of 1 to 38, and a scale of at the most that")
    return text.replace(" ", "")


def _path(value: Any) -> Any:
    if not isinstance(value, str):
        raise problem("takes a path, as {object}/{date}/{batch}")
    try:
        parts = list(Formatter().parse(value))
    except ValueError:
        raise problem("has a brace without its other half") from None
    for _, name, form, conversion in parts:
        if name is not None and (name not in PLACES or form or conversion):
            known = ", ".join(f"{{{place}}}" for place in PLACES)
            raise problem(f'has "{{{name}}}", which is none of {known}. {near(name, PLACES)}'.strip())
    if "batch" not in [name for _, name, _, _ in parts]:
        raise problem("lacks {batch}, which tells one file from another")
    if value.startswith("/") or any(part in ("", ".", "..") for part in value.split("/")):
        raise problem("takes a path below base_url, without . and ..")
    return value


class FileKeys(Keys):
    """What files are like."""

    format: Literal["jsonl", "csv", "parquet"] = Field(default="jsonl", description="Format of the files.")
    compression: Literal["none", "gzip", "zstd", "snappy"] | None = Field(
        default=None, description="Compression; default: zstd for parquet, else none. snappy is for parquet only."
    )
    path: Annotated[str, BeforeValidator(_path)] = Field(
        default="{object}/{date}/{batch}",
        description="Path of a file below base_url, without its ending: of {object}, {sync}, {date} (2026-08-01, UTC), "
        "{hour} (00 to 23) and {batch}.",
    )
    types: dict[str, Annotated[str, BeforeValidator(_type)]] = Field(
        default_factory=dict,
        description="parquet: types of columns, as {amount: decimal(12,2)}; all others are strings.",
    )
    about: Annotated[bool, TEMPLATE] = Field(
        default=True, description="Whether each row also says _change, _key, _partition and _at."
    )

    @model_validator(mode="after")
    def _agree(self) -> FileKeys:
        if self.compression == "snappy" and self.format != "parquet":
            raise mistake(
                ("compression",), f"is snappy, which is for parquet only. For {self.format}: none, gzip, zstd."
            )
        if self.types and self.format != "parquet":
            raise mistake(("types",), f"has no meaning: {self.format} has no types of columns. Leave it out.")
        return self

    @property
    def packed(self) -> str:
        """The compression in force."""
        return self.compression or ("zstd" if self.format == "parquet" else "none")

    @property
    def ending(self) -> str:
        """How the name of a file ends."""
        packed = {"gzip": ".gz", "zstd": ".zst"}.get(self.packed, "") if self.format != "parquet" else ""
        return f".{self.format}{packed}"


@dataclass(frozen=True, slots=True)
class Put:
    """Write a file, whole, in place of one that has its name; the body has its rows as JSON lines.

    The answer has status 200 and `{"bytes": n}` when it is read to be there, else an HTTP status that says what is
    wrong, and `{"message": text}`.

    Attributes:
        path: Below the base URL.
        format: "jsonl", "csv" or "parquet".
        compression: "none", "gzip", "zstd" or "snappy".
        columns: (name, type) of all columns, in order.
    """

    path: str
    format: str
    compression: str
    columns: tuple[tuple[str, str], ...]


class File(Destination):
    """A folder, or a bucket, that files of rows are written to."""

    kind: ClassVar[str] = "file"
    label: ClassVar[str] = "File"
    modes: ClassVar[frozenset[Mode]] = frozenset({Mode.INSERT, Mode.UPSERT, Mode.MIRROR, Mode.DELETE, Mode.APPEND})
    auth: ClassVar[str] = "none"
    auth_kinds: ClassVar[frozenset[str] | None] = frozenset({"basic"})
    transport: ClassVar[str] = "file"
    schemes: ClassVar[frozenset[str]] = frozenset({"file", "memory", "s3", "gs", "gcs", "abfs", "abfss", "az"})
    options: ClassVar[tuple[str, type[Keys]] | None] = ("files", FileKeys)
    local_sandbox: ClassVar[str] = "file://{folder}/files"
    nulls: ClassVar[Literal["omit", "clear"]] = "clear"
    as_text: ClassVar[frozenset[type]] = frozenset({str, Decimal, date})
    key_lifetime: ClassVar[float] = 365 * 24 * 3600.0

    @property
    def _files(self) -> FileKeys:
        return self.option if isinstance(self.option, FileKeys) else FileKeys()

    @property
    def writes(self) -> str:
        return "json" if self._files.format == "jsonl" else self._files.format

    def check(self, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:
        if not object_.strip() or any(part in ("", ".", "..") for part in object_.split("/")) or "\\" in object_:
            raise Misconfigured(
                f"File: object {object_!r} cannot be part of a path.", "Give it a name, or a folder as sales/customers."
            )
        if mode not in self.modes:
            raise Misconfigured(
                f"File: {object_} cannot be delivered in mode {mode.value!r}.",
                f"A file does not say what was there before. Possible modes: "
                f"{', '.join(sorted(m.value for m in self.modes))}.",
            )
        if match:
            raise Misconfigured(
                "Files take no match: who reads them knows a record by its primary key, `_key`.",
                "Leave `match` out; to tell another value, add it to `fields`.",
            )
        if taken := sorted(set(fields) & set(ABOUT)):
            raise Misconfigured(f"File: {taken[0]} is a column that this project writes itself.", "Rename the field.")
        if strange := sorted(set(self._files.types) - set(fields)) if mode is not Mode.DELETE else []:
            raise Misconfigured(
                f"File: `types` of the destination names {strange[0]!r}, which is no field of the sync.",
                "Correct it, or give the sync a destination of its own.",
            )

    def limits(self, object_: str, action: Action) -> Limits:  # noqa: ARG002
        return Limits(rows=INSERT_ROWS if action is Action.CREATE else MAX_ROWS, bytes=MAX_BYTES)

    def account_limits(self) -> AccountLimits:
        return AccountLimits(concurrency=AT_ONCE)

    def match_normalization(self, object_: str, match_field: str) -> str:  # noqa: ARG002
        return "exact"

    def repeat(self, object_: str, action: Action) -> Repeat:  # noqa: ARG002
        """A batch that is written again has the same name and the same rows. Rows that are told once must be in one
        file only; what tells of changes may be told again."""
        return Repeat.WITH_KEY if action is Action.CREATE else Repeat.ALWAYS

    def encode(self, value: Any) -> Any:
        """See `values.stored_value`."""
        return stored_value(value)

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        files = self._files
        moment = moment_of(batch.idempotency_key)
        path = files.path.format(
            object=batch.object,
            sync=batch.sync,
            date=moment.strftime("%Y-%m-%d"),
            hour=moment.strftime("%H"),
            batch=batch.idempotency_key,
        )
        at = moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
        lines = [_line(row, batch.action, at, about=files.about) for row in batch.rows]
        names = sorted({name for row in batch.rows for name in row.payload})
        own = [(name, "string") for name in ABOUT] if files.about or batch.action is Action.DELETE else []
        columns = [*own, *((name, files.types.get(name, "string")) for name in names)]
        command = Put(path + files.ending, files.format, files.packed, tuple(columns))
        response = yield Request("PUT", command.path, b"".join(lines), command=command)
        if not isinstance(response.json()["bytes"], int):
            raise Unavailable("Whether the file is there cannot be read.", "UNREADABLE_ANSWER")
        return [Outcome(_told(row)) for row in batch.rows]

    def identify(self) -> None:
        """None: the base URL is all there is to know."""

    def classify(self, request: Request, response: Response) -> None:  # noqa: ARG002
        if response.status == 200:
            return
        told = json.loads(response.body) if response.body else {}
        message = shorten(str(told.get("message") or ""))
        raise_for(TABLE, "The store", Problem(response.status, (), message))


ABOUT = ("_change", "_key", "_partition", "_at")
"""Columns beside the fields: added, changed or removed; the primary key; the partition; when the batch was made."""


def moment_of(key: str) -> datetime:
    """When a batch was made, by its idempotency key, which begins with milliseconds since the epoch (12 hexadecimal
    digits): the same whenever it is asked."""
    try:
        return datetime.fromtimestamp(int(key[:12], 16) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        # A key of before: any moment will do that stays the same.
        return datetime(1970, 1, 1, tzinfo=UTC)


def _line(row: Row, action: Action, at: str, *, about: bool) -> bytes:
    fields = row.encoded[1:-1] if row.encoded else b""
    if not about and action is not Action.DELETE:
        return b"{" + fields + b"}\n"
    change = Change.REMOVED if action is Action.DELETE else row.change
    own = b'"_change":"%b","_key":%b,"_partition":%b,"_at":"%b"' % (
        change.value.encode(),
        json_string(row.key),
        json_string(row.partition),
        at.encode(),
    )
    return b"{" + own + (b"," + fields if fields else b"") + b"}\n"


def _told(row: Row) -> Status:
    if row.action is Action.DELETE:
        return Status.DELETED
    return Status.CREATED if row.change is Change.ADDED else Status.UPDATED
