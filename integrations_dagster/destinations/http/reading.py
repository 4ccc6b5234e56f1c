"""What is read from the API: records by match value, reference data, and the fields of objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from integrations_dagster.destinations.answers import Names, unreadable
from integrations_dagster.destinations.base import Batch, Flow, Response
from integrations_dagster.destinations.http import paging
from integrations_dagster.destinations.http.calls import Reader, reader_of
from integrations_dagster.destinations.http.forms import HttpApi
from integrations_dagster.destinations.http.reading_forms import FieldKeys, FieldsKeys, SearchKeys
from integrations_dagster.destinations.http.templates import Scope, Unfit
from integrations_dagster.destinations.paths import as_text, probe
from integrations_dagster.destinations.reading import FieldType, Page, Reference, TargetField
from integrations_dagster.destinations.values import canonical_text


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found for a row.

    Attributes:
        ids: Ids of the records that have its match value (or key).
        unfit: Why no request could be made for it, or "".
    """

    ids: tuple[str, ...] = ()
    unfit: str = ""

    @property
    def alone(self) -> str:
        """The id of the one record, or "" where there is none, or several."""
        return self.ids[0] if len(self.ids) == 1 else ""


def search(api: HttpApi, form: SearchKeys, batch: Batch, normalize: Callable[[str], str]) -> Flow[list[Found]]:
    """What is found for each row of a batch, in order. An error that means "missing" is a list without records."""
    by, at = form.by.named
    # Rows in doubt of several batches may share a match value.
    first: dict[str, int] = {}
    same = [first.setdefault(row.match, place) for place, row in enumerate(batch.rows)]
    places = list(first.values())
    ids: dict[int, dict[str, None]] = {place: {} for place in places}
    unfit: dict[int, str] = {}
    reader = reader_of(form, api, frozenset({"missing"}))
    for start in range(0, len(places), form.rows):
        part = places[start : start + form.rows]
        asked = dataclasses.replace(batch, rows=tuple(batch.rows[place] for place in part))
        names = Names(asked, normalize)
        try:
            records = yield from _all(api, reader, Scope.of(asked))
        except Unfit as error:
            unfit |= dict.fromkeys(part, str(error))
            continue
        for record, response in records:
            place = names.place(by, probe(at, record))
            if place is None:
                # An API may find more than is asked for.
                continue
            id_ = as_text(probe(form.id, record))
            if not id_:
                raise unreadable(api.label, response.status, f"a record without `{form.id}`")
            ids[part[place]][id_] = None
    return [Found(tuple(ids[place]), unfit.get(place, "")) for place in same]


def _all(api: HttpApi, reader: Reader, scope: Scope) -> Flow[list[tuple[Any, Response]]]:
    """The records of all pages of a list.

    Raises:
        Unfit: A value is missing that the request needs.
    """
    found: list[tuple[Any, Response]] = []
    place: paging.Place | None = paging.first(reader.form.next)
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
    response = yield reader.page(scope, place)
    if reader.verdict(response) is not None:
        return [], None, response
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
    records, following, _ = yield from _page(api, reader_of(form, api), scope, place)
    rows = tuple({name: _plain(probe(path, record)) for name, path in form.columns.items()} for record in records)
    return Page(rows, None if following is None else following.text)


def read_fields(api: HttpApi, form: FieldsKeys, object_: str, match: Mapping[str, str]) -> Flow[list[TargetField]]:
    """The fields that an API says an object has; those that it is matched by are unique, whatever it says."""
    records = yield from _all(api, reader_of(form, api), Scope(object_))
    return sorted(
        (_field(api, form, match, record, response) for record, response in records), key=lambda field: field.name
    )


def _field(api: HttpApi, form: FieldsKeys, match: Mapping[str, str], record: Any, response: Response) -> TargetField:
    name = as_text(probe(form.name, record))
    if not name:
        raise unreadable(api.label, response.status, f"a field without `{form.name}`")
    native = as_text(probe(form.type, record)) if form.type else ""
    kind = form.types.get(native, native)
    options = probe(form.options, record) if form.options else None
    return TargetField(
        name,
        (as_text(probe(form.label, record)) if form.label else "") or name,
        FieldType(kind) if kind in [known.value for known in FieldType] else FieldType.UNKNOWN,
        native,
        writable=not _true(form.read_only, record),
        required=_true(form.required, record),
        options=tuple(text for text in map(as_text, options) if text) if isinstance(options, list) else (),
        unique=name in match or _true(form.unique, record),
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
    return path is not None and probe(path, record) is True


def _plain(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return as_text(value) or canonical_text(value)
