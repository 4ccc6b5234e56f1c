"""A mapping proposed by name and type: which column of a model belongs to which field of a destination."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from integrations_dagster.destinations.reading import FieldType, TargetField
from integrations_dagster.sync.schema import column_type, fits

ALIKE = 0.8
"""Likeness of two names (0 to 1) from which they are proposed as a pair."""
PREFIXES = ("hs_", "sf_")
"""Prefixes that vendors give their own fields, which say nothing."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One proposed field.

    Attributes:
        field: The field at the destination.
        column: The column of the model.
        native: The column's type, in the warehouse's words.
        alike: How alike the names are (0 to 1); 1: they are the same but for case and punctuation.
    """

    field: TargetField
    column: str
    native: str
    alike: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed mapping.

    Attributes:
        match: The field to match records by, where one fits.
        fields: Proposed fields, the surest first.
        columns: Columns of the model for which no field was found.
        required: Fields that new records must have and for which no column was found.
    """

    match: Suggestion | None
    fields: tuple[Suggestion, ...]
    columns: tuple[str, ...]
    required: tuple[str, ...]


def propose(
    fields: Iterable[TargetField],
    columns: Sequence[tuple[str, str]],
    *,
    mapped_fields: Collection[str] = (),
    mapped_columns: Collection[str] = (),
    wants_match: bool = False,
) -> Proposal:
    """Pair columns with fields, each with one other at the most: the likest names first, types permitting.

    Args:
        fields: All fields of the object.
        columns: (name, warehouse type) of the model.
        mapped_fields, mapped_columns: Those that have a partner already.
        wants_match: Whether a match field is to be proposed.
    """
    free = [field for field in fields if field.writable and field.name not in mapped_fields]
    left = {name: native for name, native in columns if name not in mapped_columns}
    pairs = [
        Suggestion(field, name, native, alike)
        for name, native in left.items()
        for field in free
        if fits(column_type(native), field.type) and (alike := likeness(name, field)) >= ALIKE
    ]
    # Of equal names the one of the same type, then in the order of the alphabet, so that the answer is always the same.
    pairs.sort(key=lambda s: (-s.alike, not _same(s), s.field.name, s.column))
    chosen: dict[str, Suggestion] = {}
    taken: set[str] = set()
    for pair in pairs:
        if pair.field.name not in chosen and pair.column not in taken:
            chosen[pair.field.name] = pair
            taken.add(pair.column)
    match = next((pair for pair in chosen.values() if pair.field.unique), None) if wants_match else None
    return Proposal(
        match,
        tuple(pair for pair in chosen.values() if pair is not match),
        tuple(name for name in left if name not in taken),
        tuple(field.name for field in free if field.required and field.name not in chosen),
    )


def likeness(column: str, field: TargetField) -> float:
    """How alike a column's name is to a field's name or label: 0 to 1."""
    name = _plain(column)
    forms = {_plain(field.name), _plain(field.label)}
    forms |= {_plain(field.name.removeprefix(prefix)) for prefix in PREFIXES}
    return max((SequenceMatcher(None, name, form).ratio() for form in forms if form), default=0.0)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _same(suggestion: Suggestion) -> bool:
    kind = column_type(suggestion.native)
    return kind == suggestion.field.type or {kind, suggestion.field.type} == {FieldType.INTEGER, FieldType.NUMBER}


def as_yaml(proposal: Proposal, head: Mapping[str, str] | None = None) -> str:
    """The proposal as YAML to paste into a sync.

    Args:
        head: Keys that come before it, for a sync that is not written yet.
    """
    lines = [f"{key}: {_quoted(value)}" for key, value in (head or {}).items()]
    if proposal.match is not None:
        lines.append(f"match: {{{_quoted(proposal.match.field.name)}: {_quoted(proposal.match.column)}}}")
    elif head is not None:
        lines.append("# match: {FIELD: COLUMN}  # no unique field has a name like that of a column")
    if proposal.fields:
        lines.append("fields:")
        pairs = [(f"  {_quoted(s.field.name)}: {_quoted(s.column)}", s) for s in proposal.fields]
        width = max(len(text) for text, _ in pairs)
        lines += [f"{text.ljust(width)}  # {_why(suggestion)}" for text, suggestion in pairs]
    else:
        lines.append("# No column has a name like that of a field." if proposal.columns else "# All columns are used.")
    if proposal.columns:
        lines.append(f"# Columns without a field: {', '.join(proposal.columns)}")
    if proposal.required:
        lines.append(f"# New records need: {', '.join(proposal.required)}")
    return "\n".join(lines) + "\n"


def _why(suggestion: Suggestion) -> str:
    field = suggestion.field
    takes = field.native or str(field.type)
    options = f": {', '.join(field.options[:4])}{', ...' if len(field.options) > 4 else ''}" if field.options else ""
    sure = "" if suggestion.alike == 1 else f"; names {suggestion.alike:.0%} alike"
    label = " ".join(field.label.split())
    return f"{label} ({takes}{options}) from {suggestion.native}{sure}"


def _quoted(text: str) -> str:
    import json

    import yaml

    # A name that YAML would read as something else ("yes", "on", "12") is quoted.
    plain = re.fullmatch(r"[A-Za-z_][\w.]*", text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)
