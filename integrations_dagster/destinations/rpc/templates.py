"""Parameters of a call as a template: values as YAML has them, with names in braces that stand for parts of a batch.

A text that is one name in braces becomes the value itself, which may be a list; within a longer text it becomes text.
`$each` in a list repeats its items for each row: `[{$each: ["{id}", "{fields}"]}]` is `[id1, fields1, id2, fields2]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from integrations_dagster.keys import near, problem

EACH = "$each"
ROW = ("record", "fields", "match", "id", "key")
"""Names of one row: match field and fields, fields alone, match value, record id, primary key."""
FIELD = "record."
"""Begins the name of one field of a row."""
BATCH = ("rows", "ids", "matches", "keys", "idempotency_key")
"""Names of all rows of a call, as lists; and of the batch."""
ANYWHERE = ("object", "match_field", "secret", "sync")
PAGE = ("offset", "limit", "object", "secret")
"""Names of a call that reads a page."""
_NAME = re.compile(r"\{([a-z_]+(?:\.[^{}]+)?)\}")

Values = Callable[[str], Any]
"""What a name stands for."""


def names(template: Any) -> Iterator[tuple[str, bool]]:
    """The names of a template, each with whether it is within `$each`."""
    yield from _names(template, within=False)


def _names(template: Any, *, within: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(template, str):
        yield from ((name, within) for name in _NAME.findall(template))
    elif isinstance(template, Mapping):
        for key, value in template.items():
            yield from _names(key, within=within)
            yield from _names(value, within=within or key == EACH)
    elif isinstance(template, list):
        for item in template:
            yield from _names(item, within=within)


def per_row(template: Any) -> bool:
    """Whether a template is of one row: it names one, and not for each."""
    return any(_of_row(name) and not within for name, within in names(template))


def check(template: Any, known: Sequence[str]) -> Any:
    """Check a template that YAML gives.

    Args:
        known: The names that it may have; with ROW among them, those of fields too.

    Raises:
        PydanticCustomError: What is wrong with it.
    """
    rows = set(ROW) <= set(known)
    for name, _within in names(template):
        if name not in known and not (rows and name.startswith(FIELD)):
            raise problem(f'has "{{{name}}}", which is no name here. {near(name, known)}Known: {", ".join(known)}.')
    _check_each(template)
    if per_row(template) and any(within or name in BATCH[:-1] for name, within in names(template)):
        raise problem(
            f"names one row (as {{record}}) and all of them (as {{records}}) in one call. Put what is of one row into "
            f"{{{EACH}: [...]}}."
        )
    return template


def _check_each(template: Any, *, in_list: bool = False) -> None:
    if isinstance(template, Mapping):
        if EACH in template:
            if not in_list or len(template) > 1 or not isinstance(template[EACH], list):
                raise problem(f'takes {EACH} as an item of a list, alone and with a list: [{{{EACH}: ["{{record}}"]}}]')
            if not all(_of_row(name) or name in ANYWHERE for name, _ in names(template[EACH])):
                raise problem(f"has a name of all rows within {EACH}, where there is one row at a time")
        for value in template.values():
            _check_each(value)
    elif isinstance(template, list):
        for item in template:
            _check_each(item, in_list=True)


def fill(template: Any, values: Values, rows: Sequence[Values] = ()) -> Any:
    """The template with what its names stand for.

    Args:
        values: Outside `$each`.
        rows: Within it, one for each row.
    """
    if isinstance(template, str):
        alone = _NAME.fullmatch(template)
        if alone:
            return values(alone[1])
        return _NAME.sub(lambda found: _text(values(found[1])), template) if "{" in template else template
    if isinstance(template, Mapping):
        return {fill(key, values): fill(value, values, rows) for key, value in template.items()}
    if isinstance(template, list):
        filled: list[Any] = []
        for item in template:
            if isinstance(item, Mapping) and EACH in item:
                filled += [fill(part, row) for row in rows for part in item[EACH]]
            else:
                filled.append(fill(item, values, rows))
        return filled
    return template


def _of_row(name: str) -> bool:
    return name in ROW or name.startswith(FIELD)


def _text(value: Any) -> str:
    return "" if value is None else str(value)
