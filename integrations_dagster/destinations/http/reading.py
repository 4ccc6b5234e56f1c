"""What is read from the API: records by match value, reference data, and the fields of objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from integrations_dagster.destinations.answers import Names, unreadable
from integrations_dagster.destinations.base import Batch, Flow, Response
from integrations_dagster.destinations.errors import Refused
from integrations_dagster.destinations.http import paging
from integrations_dagster.destinations.http.calls import Reader
from integrations_dagster.destinations.http.forms import FieldKeys, FieldsKeys, HttpApi, ReadKeys, SearchKeys
from integrations_dagster.destinations.http.templates import Scope, Unfit
from integrations_dagster.destinations.paths import as_text, find
from integrations_dagster.destinations.reading import FieldType, Page, Reference, TargetField
from integrations_dagster.destinations.values import canonical_text


def search(
    api: HttpApi, form: SearchKeys, batch: Batch, normalize: Callable[[str], str]
) -> Flow[list[tuple[str, ...]]]:
    """The ids of the records that have the match value (or key) of each row of a batch, in order."""
    by, at = form.by.named
    # Rows in doubt of several batches may share a match value.
    first: dict[str, int] = {}
    same = [first.setdefault(row.match, place) for place, row in enumerate(batch.rows)]
    places = list(first.values())
    ids: dict[int, dict[str, None]] = {place: {} for place in places}
    for start in range(0, len(places), form.rows):
        part = places[start : start + form.rows]
        asked = dataclasses.replace(batch, rows=tuple(batch.rows[place] for place in part))
        names = Names(asked, normalize)
        for record, response in (yield from _all(api, form, Scope.of(asked))):
            place = names.place(by, _find(at, record))
            if place is None:
                # An API may find more than is asked for.
                continue
            id_ = as_text(_find(form.id, record))
            if not id_:
                raise unreadable(api.label, response.status, f"a record without `{form.id}`")
            ids[part[place]][id_] = None
    return [tuple(ids[place]) for place in same]


def _all(api: HttpApi, form: ReadKeys, scope: Scope) -> Flow[list[tuple[Any, Response]]]:
    """The records of all pages of a list."""
    reader = Reader(api, form)
    found: list[tuple[Any, Response]] = []
    place: paging.Place | None = paging.first(form.next)
    seen: set[str] = set()
    while place is not None:
        if place.text in seen:
            raise unreadable(api.label, 200, "a page that it has answered before, so that the list never ends")
        seen.add(place.text)
        records, place, response = yield from _page(api, reader, scope, place)
        found += [(record, response) for record in records]
    return found


def _page(
    api: HttpApi, reader: Reader, scope: Scope, place: paging.Place
) -> Flow[tuple[list[Any], paging.Place | None, Response]]:
    try:
        request = reader.page(scope, place)
    except Unfit as error:
        raise Refused(f"No request can be made of {reader.path}. {error}", "UNADDRESSABLE") from None
    response = yield request
    records, document = reader.records(response)
    return records, paging.following(reader.form.next, place, records, document, response, api.label), response


def references(api: HttpApi) -> tuple[Reference, ...]:
    """The references of an API."""
    return tuple(
        Reference(
            name,
            form.value or next(iter(form.columns)),
            form.key,
            tuple(form.columns),
            dict(form.normalize),
            form.description,
        )
        for name, form in api.references.items()
    )


def read_page(api: HttpApi, reference: str, columns: Sequence[str], cursor: str | None) -> Flow[Page]:
    """A page of a reference."""
    form = api.references[reference]
    place = paging.first(form.next) if cursor is None else paging.Place.of(cursor)
    scope = Scope(reference, more={"columns": list(columns)})
    records, following, _ = yield from _page(api, Reader(api, form), scope, place)
    rows = tuple({name: _plain(_find(path, record)) for name, path in form.columns.items()} for record in records)
    return Page(rows, None if following is None else following.text)


def read_fields(api: HttpApi, form: FieldsKeys, object_: str) -> Flow[list[TargetField]]:
    """The fields that an API says an object has."""
    records = yield from _all(api, form, Scope(object_))
    return sorted((_field(api, form, record, response) for record, response in records), key=lambda field: field.name)


def _field(api: HttpApi, form: FieldsKeys, record: Any, response: Response) -> TargetField:
    name = as_text(_find(form.name, record))
    if not name:
        raise unreadable(api.label, response.status, f"a field without `{form.name}`")
    native = as_text(_find(form.type, record)) if form.type else ""
    kind = form.types.get(native, native)
    options = _find(form.options, record) if form.options else None
    return TargetField(
        name,
        (as_text(_find(form.label, record)) if form.label else "") or name,
        FieldType(kind) if kind in [known.value for known in FieldType] else FieldType.UNKNOWN,
        native,
        writable=not _true(form.read_only, record),
        required=_true(form.required, record),
        options=tuple(text for text in map(as_text, options) if text) if isinstance(options, list) else (),
        unique=_true(form.unique, record),
    )


def given_fields(fields: Mapping[str, FieldKeys], match: Mapping[str, str]) -> Flow[list[TargetField]]:
    """The fields that YAML lists; nothing is asked."""
    yield from ()
    return [
        TargetField(
            name,
            keys.label or name,
            FieldType(keys.type),
            writable=keys.writable,
            required=keys.required,
            options=tuple(keys.options),
            unique=keys.unique or name in match,
        )
        for name, keys in sorted(fields.items())
    ]


def _true(path: str | None, record: Any) -> bool:
    return path is not None and _find(path, record) is True


def _plain(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return as_text(value) or canonical_text(value)


def _find(path: str, record: Any) -> Any:
    try:
        return find(path, record)
    except ValueError:
        return None
