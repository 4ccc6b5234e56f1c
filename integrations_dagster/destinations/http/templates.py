"""Placeholders in what YAML says of a request: `{record.email}`, `{rows}`, `{id}`. They compute nothing.

A template is compiled once. In JSON a text that is one placeholder becomes the value itself, of whatever type; in
longer texts, paths, queries and headers a value becomes text. The payload of a row is spliced in as it was encoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

from integrations_dagster.destinations.answers import trace_of
from integrations_dagster.destinations.base import Batch
from integrations_dagster.destinations.values import canonical_json, json_string
from integrations_dagster.keys import near, problem
from integrations_dagster.vocabulary import Row

PLACEHOLDER = re.compile(r"\{([a-z_]+)(?:\.([^{}\s]+))?\}")
SPREAD = "..."
"""Key of a mapping whose value is the record, whose members then are the mapping's own."""
OF_ROW = ("record", "match", "key", "id", "trace", "index", "change", "partition")
"""Names that speak of one row."""
OF_BATCH = ("rows", "ids", "keys", "matches", "object", "sync", "idempotency_key")
"""Names that speak of the request."""
OF_PAGE = ("cursor", "page", "offset", "columns")
OF_JOB = ("job",)
_WITH_PATH = ("record", "match")


class Unfit(ValueError):
    """A row has no value for a place that needs one; the text is for a person."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What placeholders stand for.

    Attributes:
        object: Object at the destination.
        batch: The rows of the request, or None of a request that has none.
        row, place: The row that is spoken of, and its index; None where the request has several.
        more: Further names: "job", "cursor", "page", "offset", "columns".
    """

    object: str
    batch: Batch | None = None
    row: Row | None = None
    place: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Batch) -> Scope:
        """The scope of a batch; of a batch of one row, that row's too."""
        return cls(batch.object, batch, batch.rows[0] if len(batch.rows) == 1 else None)


def value_of(name: str, path: str, scope: Scope) -> Any:
    """The value of a placeholder; None where it has none."""
    if name in scope.more:
        return scope.more[name]
    if name == "object":
        return scope.object
    batch, row = scope.batch, scope.row
    if batch is None:
        return None
    if name in OF_BATCH:
        return _of_batch(name, batch)
    if row is None:
        return None
    if name == "record":
        return _member(row.payload, path) if path else row.payload
    if name == "match":
        return _match(batch, row, path)
    return {
        "key": row.key,
        "id": row.destination_id,
        "trace": trace_of(batch, scope.place),
        "index": scope.place,
        "change": row.change.value,
        "partition": row.partition,
    }.get(name)


def _of_batch(name: str, batch: Batch) -> Any:
    if name == "ids":
        return [row.destination_id for row in batch.rows]
    if name == "keys":
        return [row.key for row in batch.rows]
    if name == "matches":
        return [_match(batch, row, "") for row in batch.rows]
    return {"sync": batch.sync, "idempotency_key": batch.idempotency_key}.get(name)


def _match(batch: Batch, row: Row, path: str) -> Any:
    if len(batch.match_fields) < 2:
        return row.match
    values = dict(zip(batch.match_fields, json.loads(row.match), strict=True))
    return values.get(path) if path else values


def _member(record: Any, path: str) -> Any:
    for part in path.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def placeholders(node: Any) -> Iterator[tuple[str, str]]:
    """(name, path) of every placeholder in a structure."""
    if isinstance(node, str):
        for found in PLACEHOLDER.finditer(node):
            yield found[1], found[2] or ""
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from placeholders(key)
            yield from placeholders(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from placeholders(value)


def _spreads(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == SPREAD:
                yield value
            yield from _spreads(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _spreads(value)


def check(node: Any, known: Sequence[str]) -> None:
    """Refuse placeholders that have no meaning where they stand.

    Raises:
        PydanticCustomError: Naming the placeholder and what is possible.
    """
    for spread in _spreads(node):
        if spread != "{record}":
            raise problem(f'has `{SPREAD}`, which takes "{{record}}" and puts the members of the record in its place')
    for name, path in placeholders(node):
        if name not in known:
            shown = ", ".join(f"{{{one}}}" for one in known)
            raise problem(
                f"has the placeholder {{{name}}}, which means nothing here. {near(name, known)}Known: {shown}."
            )
        if path and name not in _WITH_PATH:
            raise problem(f"has the placeholder {{{name}.{path}}}, but {{{name}}} has no parts.")


def as_plain(value: Any) -> str | None:
    """A value as text in a path, query, header or longer text; None where there is none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(as_plain(part) or "" for part in value)
    return canonical_json(value).decode()


def text(template: str, scope: Scope, *, needed: bool = False, escape: Callable[[str], str] = str) -> str:
    """A template as text.

    Args:
        needed: Whether a placeholder without a value, or with an empty one, is refused.
        escape: What is done to each value.

    Raises:
        Unfit: Such a value.
    """

    def value(found: re.Match[str]) -> str:
        plain = as_plain(value_of(found[1], found[2] or "", scope))
        if needed and not plain:
            raise Unfit(f"It has no value for {found[0]}, without which the request cannot be made.")
        return escape(plain or "")

    return PLACEHOLDER.sub(value, template)


def _segment(value: str) -> str:
    # Clients and servers take these for a way up, whatever their form: the request would be about something else.
    if value in (".", ".."):
        raise Unfit(f"Its value {value!r} cannot be part of an address.")
    return quote(value, safe="")


def path_of(template: str, scope: Scope) -> str:
    """A path whose values are percent-encoded.

    Raises:
        Unfit: A value is missing, empty, or would lead elsewhere.
    """
    return text(template, scope, needed=True, escape=_segment)


def query_of(parameters: Mapping[str, Any], scope: Scope) -> str:
    """A query string, "" without parameters. A parameter that is one placeholder without a value is left out; a list or
    mapping is JSON."""
    pairs = []
    for name, template in parameters.items():
        value = plain_or_json(template, scope)
        if value is not None:
            pairs.append((name, value))
    return urlencode(pairs, quote_via=quote)


def plain_or_json(template: Any, scope: Scope) -> str | None:
    """A value of a query or form as text."""
    if isinstance(template, str):
        alone = PLACEHOLDER.fullmatch(template)
        return as_plain(value_of(alone[1], alone[2] or "", scope)) if alone else text(template, scope)
    if isinstance(template, Mapping | list):
        return json_template(template)(scope).decode()
    return as_plain(template)


def header_of(template: str, scope: Scope) -> str:
    """The value of a header.

    Raises:
        Unfit: It holds what no header can carry, or is missing.
    """
    value = text(template, scope, needed=True)
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise Unfit("Its value for a header holds characters that no header can carry.")
    return value


Make: TypeAlias = Callable[[Scope], bytes]
_Parts: TypeAlias = "list[bytes | Make]"


def json_template(node: Any, item: Make | None = None) -> Make:
    """Compile a structure to what makes its JSON.

    Args:
        item: What makes the JSON of one row, for `{rows}`; default: the record as it is.
    """
    parts = _joined(list(_json(node, item)))
    if len(parts) == 1 and callable(parts[0]):
        return parts[0]
    return lambda scope: b"".join([part if isinstance(part, bytes) else part(scope) for part in parts])


def _joined(parts: _Parts) -> _Parts:
    joined: _Parts = []
    for part in parts:
        if isinstance(part, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _json(node: Any, item: Make | None) -> Iterator[bytes | Make]:
    if isinstance(node, Mapping):
        yield b"{"
        yield from _members(node, item)
        yield b"}"
    elif isinstance(node, list | tuple):
        yield b"["
        for place, value in enumerate(node):
            if place:
                yield b","
            yield from _json(value, item)
        yield b"]"
    elif isinstance(node, str) and PLACEHOLDER.search(node):
        yield _json_text(node, item)
    else:
        yield canonical_json(node)


def _members(node: Mapping[str, Any], item: Make | None) -> Iterator[bytes | Make]:
    # Last, since it may turn out to have no members, and a comma before it would then be too many.
    ordered = [name for name in node if name != SPREAD]
    for place, name in enumerate(ordered):
        yield b"," if place else b""
        yield _json_text(name, None) if PLACEHOLDER.search(name) else json_string(name)
        yield b":"
        yield from _json(node[name], item)
    if SPREAD in node:
        before = b"," if ordered else b""
        yield lambda scope: _spread(scope, before)


def _spread(scope: Scope, before: bytes) -> bytes:
    inside = _encoded(scope)[1:-1]
    return before + inside if inside else b""


def _encoded(scope: Scope) -> bytes:
    return (scope.row.encoded if scope.row is not None else b"") or b"{}"


def _json_text(template: str, item: Make | None) -> Make:
    alone = PLACEHOLDER.fullmatch(template)
    if alone is None:
        return lambda scope: json_string(text(template, scope))
    name, path = alone[1], alone[2] or ""
    if name == "rows":
        return _rows(item)
    if name == "record" and not path:
        return _encoded
    return lambda scope: canonical_json(value_of(name, path, scope))


def _rows(item: Make | None) -> Make:
    def make(scope: Scope) -> bytes:
        assert scope.batch is not None
        if item is None:
            parts = [row.encoded or b"{}" for row in scope.batch.rows]
        else:
            parts = [item(one) for one in each_row(scope)]
        return b"[" + b",".join(parts) + b"]"

    return make


def each_row(scope: Scope) -> Iterator[Scope]:
    """The scope of each row of a request."""
    assert scope.batch is not None
    for place, row in enumerate(scope.batch.rows):
        yield Scope(scope.object, scope.batch, row, place, scope.more)
