"""Whether a sync can be delivered by the operations that YAML gives; what is missing where it cannot."""

from __future__ import annotations

from collections.abc import Sequence

from integrations_dagster.destinations.http.bodies import XML_NAME
from integrations_dagster.destinations.http.forms import ANY_OBJECT, HttpApi, ObjectKeys, OperationKeys
from integrations_dagster.destinations.http.templates import SPREAD
from integrations_dagster.keys import near
from integrations_dagster.vocabulary import Misconfigured, Mode


def object_of(api: HttpApi, object_: str) -> ObjectKeys:
    """What YAML says of an object.

    Raises:
        Misconfigured: It says nothing of it.
    """
    form = api.objects.get(object_) or api.objects.get(ANY_OBJECT)
    if form is None:
        raise Misconfigured(
            f"{api.label}: the `api` of the destination has no object {object_!r}.",
            f"{near(object_, api.objects)}It has: {', '.join(api.objects)}.",
        )
    return form


def modes_of(form: ObjectKeys) -> frozenset[Mode]:
    """The modes that the operations of an object allow."""
    return frozenset(mode for mode in Mode if not lacks(form, mode))


def lacks(form: ObjectKeys, mode: Mode) -> str:
    """What an object lacks for a mode, as a clause; "" where nothing."""
    if mode in (Mode.INSERT, Mode.APPEND):
        return "" if form.create is not None else "`create`"
    if mode is Mode.UPDATE:
        return _to_update(form)
    if mode is Mode.DELETE:
        return _to_delete(form, ids=False)
    missing = _to_upsert(form)
    if mode is Mode.MIRROR and not missing:
        missing = _to_delete(form, ids=_answers_ids(form))
    return missing


def _to_update(form: ObjectKeys) -> str:
    if form.modify is not None:
        return "a `modify` without {id}" if form.modify.by_id and form.search is None else ""
    if form.update is None:
        return "`update` (or `modify`)"
    return "`search`, for its `update` takes {id}" if form.update.by_id and form.search is None else ""


def _to_upsert(form: ObjectKeys) -> str:
    if form.upsert is not None:
        return "an `upsert` without {id}" if form.upsert.by_id else ""
    given = {"search": form.search, "create": form.create, "update": form.update}
    missing = [f"`{name}`" for name, keys in given.items() if keys is None]
    if missing:
        return f"`upsert`, or instead of it {' and '.join(missing)}"
    return ""


def _to_delete(form: ObjectKeys, *, ids: bool) -> str:
    if form.delete is None:
        return "`delete`"
    if form.delete.by_id and form.search is None and not ids:
        return "`search`, for its `delete` takes {id}, which is not known of every record"
    return ""


def _answers_ids(form: ObjectKeys) -> bool:
    writes = [keys for keys in (form.upsert, form.create if form.upsert is None else None) if keys is not None]
    return all(keys.answer.id is not None for keys in writes)


def check_sync(api: HttpApi, object_: str, mode: Mode, match: Sequence[str], fields: Sequence[str]) -> None:
    """Refuse a sync that the operations cannot deliver.

    Raises:
        Misconfigured: Naming what is missing.
    """
    form = object_of(api, object_)
    missing = lacks(form, mode)
    if missing:
        possible = ", ".join(sorted(mode.value for mode in modes_of(form)))
        raise Misconfigured(
            f"{api.label}: {object_} cannot be delivered in mode {mode.value!r}: the `api` of the destination lacks "
            f"{missing}.",
            f"Possible modes: {possible}." if possible else "",
        )
    if object_ == ANY_OBJECT:
        raise Misconfigured(f"{api.label}: {ANY_OBJECT!r} stands for any object.", "Name the object of this sync.")
    _check_match(api, form, object_, mode, match)
    for operation in form.operations.values():
        _check_fields(api, operation, object_, fields)


def _check_match(api: HttpApi, form: ObjectKeys, object_: str, mode: Mode, match: Sequence[str]) -> None:
    if match and not form.match:
        raise Misconfigured(
            f"{api.label}: {object_} take no match: the `api` of the destination names no field by which they are "
            "recognized, so that the primary key is.",
            f"Leave `match` out, or add `match: [{match[0]}]` to the object there.",
        )
    odd = [name for name in match if name not in form.match]
    if odd:
        raise Misconfigured(
            f"{api.label}: {object_} are not recognized by {odd[0]!r}.",
            f"{near(odd[0], form.match)}The `api` of the destination names: {', '.join(form.match)}.",
        )
    if form.match and not match and mode not in (Mode.INSERT, Mode.APPEND):
        example = next(iter(form.match))
        raise Misconfigured(
            f"{api.label}: {object_} are recognized by {' or '.join(form.match)}, and the sync has no match.",
            f"Write `match: {{{example}: <column>}}`.",
        )


def _check_fields(api: HttpApi, operation: OperationKeys, object_: str, fields: Sequence[str]) -> None:
    firsts = {name.split(".")[0] for name in fields}
    for node in (operation.item, operation.body):
        own = {str(name) for name in node if name != SPREAD} if isinstance(node, dict) and SPREAD in node else set()
        both = sorted(own & firsts)
        if both:
            raise Misconfigured(
                f"{api.label}: the destination's `api` sends a member {both[0]!r} of its own with {object_}.",
                "Give the field another name, or take the member out there.",
            )
    if (operation.encoding or api.encoding) == "xml":
        odd = sorted(part for name in fields for part in name.split(".") if not XML_NAME.fullmatch(part))
        if odd:
            raise Misconfigured(
                f"{api.label}: {odd[0]!r} is no name of an XML element.", "Give the field another name."
            )
