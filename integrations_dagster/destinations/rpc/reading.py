"""What a call read: the columns of a record that values are looked up in, and what it says of a field."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from integrations_dagster.destinations.paths import as_text, probe
from integrations_dagster.destinations.reading import FieldType, TargetField
from integrations_dagster.destinations.rpc.forms import FieldsKeys
from integrations_dagster.destinations.values import canonical_text, json_value


def columns_of(record: Any, paths: Mapping[str, str], columns: Sequence[str]) -> dict[str, str | None]:
    """The columns of a record as text; None where it has no value.

    Args:
        paths: Column to where a record has it.
    """
    return {name: _column(probe(paths.get(name, "@"), record)) for name in columns}


def _column(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return as_text(value) or canonical_text(json_value(value)).strip('"')


def field_of(keys: FieldsKeys, name: object, entry: Any, match: Collection[str] | None) -> TargetField | None:
    """A field, or None where an entry names none.

    Args:
        name: Its key, where the entries are in an object.
        match: The fields whose values belong to one record each, where the entries do not say it; None: not known.
    """
    own = _text(keys.name, entry) or (name if isinstance(name, str) else "")
    if not own:
        return None
    native = _text(keys.type, entry)
    word = keys.types.get(native, native)
    known = word in {kind.value for kind in FieldType}
    return TargetField(
        own,
        _text(keys.label, entry) or own,
        FieldType(word) if known else FieldType.UNKNOWN,
        native,
        writable=not _true(keys.read_only, entry),
        required=_true(keys.required, entry),
        unique=_true(keys.unique, entry) if keys.unique else match is None or own in match,
    )


def _text(path: str | None, entry: Any) -> str:
    return as_text(probe(path, entry)) if path else ""


def _true(path: str | None, entry: Any) -> bool:
    return path is not None and probe(path, entry) is True
