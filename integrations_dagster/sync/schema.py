"""Whether a sync's fields fit its destination: they exist, may be written, take such values; and what has drifted.

The destination's description of an object is read by a plan that has something to send, once for all shards, unless one
is at hand that is young enough (`fields_cache` of the destination). A field is never called missing on the word of an
old description: it is read anew before.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integrations_dagster.delivery.engine import RetrySettings, refusal
from integrations_dagster.destinations.base import Flow
from integrations_dagster.destinations.errors import DestinationError, Refused, Unauthorized
from integrations_dagster.destinations.reading import FieldType, TargetField
from integrations_dagster.planner.state import Home, slug
from integrations_dagster.sync.account import Connected, Conversation, account_of, connect_destination
from integrations_dagster.sync.context import RunContext
from integrations_dagster.sync.readings import Drift, Misfit, SchemaReport
from integrations_dagster.sync.results import ModelVersion
from integrations_dagster.sync.spec import DestinationSpec, FieldSpec, SyncSpec
from integrations_dagster.vocabulary import IntegrationsError, Misconfigured, Mode

FILE = "schema.json"
"""Beside a sync's state: what its last run saw."""
TRIES = RetrySettings(attempts=2, base=0.2, cap=1.0, patience=60.0)
"""A description that cannot be had soon is done without."""


# What a destination says of an object


@dataclass(frozen=True, slots=True)
class Description:
    """The fields of an object as its destination described them.

    Attributes:
        fields: By name, in the destination's order.
        read: When, seconds since the epoch.
        requests: HTTP requests that it took this time; 0: it was at hand.
    """

    fields: Mapping[str, TargetField]
    read: float
    requests: int = 0


class Undescribed(IntegrationsError):
    """The destination does not tell an object's fields: it does not answer, or refuses these credentials."""


def describe(
    spec: DestinationSpec,
    ctx: RunContext,
    object_: str,
    *,
    max_age: float,
    wanted: Sequence[str] = (),
    who: str = "",
) -> Description:
    """The fields of an object, read now unless that was done at the most `max_age` seconds ago.

    Args:
        wanted: Names that are looked for in lists that the credentials may not be allowed to see, too, if they are not
            in the one of all.
        who: What asks, as errors begin.

    Raises:
        Undescribed: They cannot be read.
        Misconfigured: The account cannot be resolved, or this kind of destination describes nothing.
    """
    who = who or f"Destination {spec.name!r}"
    connected = connect_destination(spec, ctx, who)
    label = connected.destination.label
    if not connected.destination.describes:
        raise Misconfigured(
            f"{who}: {label} does not say which fields its objects have.",
            "Where its kind takes `fields` of an object under `api`, say there which there are; else its page in "
            "docs/destinations says what it takes.",
        )
    if not spec.describes:
        raise Misconfigured(
            f"{who}: in the sandbox {label} takes whatever is written, and does not say which fields its objects have.",
            "Ask a real account: INTEGRATIONS_TARGET picks the target.",
        )
    account = account_of(spec, ctx, connected, who)
    path = _path(ctx, account, object_)
    kept = _kept(path)
    if kept is not None and ctx.ledger.now() - kept.read <= max_age and set(wanted) <= kept.fields.keys():
        return kept
    started = ctx.ledger.now()
    try:
        with Conversation(spec, ctx, connected, account, TRIES) as conversation:
            fields = _ask(connected, conversation, object_, wanted)
            requests = conversation.requests
    except Misconfigured as error:
        raise Misconfigured(f"{who}: {error.message}", error.remedy) from error
    except DestinationError as error:
        raise Undescribed(f"{who}: the fields of {object_} could not be read: {refusal(label, error)}") from error
    _keep(path, {"read": started, "fields": [field.as_dict() for field in fields.values()]})
    return Description(fields, started, requests)


def _ask(
    connected: Connected, conversation: Conversation, object_: str, wanted: Sequence[str]
) -> dict[str, TargetField]:
    destination = connected.destination

    def all_fields() -> Flow[list[TargetField]]:
        return destination.fields(object_)

    fields = {field.name: field for field in conversation.ask(all_fields)}
    for index in range(len(destination.restricted_fields(object_))):
        if set(wanted) <= fields.keys():
            break

        def some(index: int = index) -> Flow[list[TargetField]]:
            return destination.restricted_fields(object_)[index]

        try:
            fields |= {field.name: field for field in conversation.ask(some)}
        except (Refused, Unauthorized):
            continue
    return fields


def _path(ctx: RunContext, account: str, object_: str) -> Path:
    return ctx.storage / "fields" / slug(account) / f"{slug(object_)}.json"


def _kept(path: Path) -> Description | None:
    data = _load(path)
    if data is None:
        return None
    fields = [TargetField.from_dict(entry) for entry in data["fields"]]
    return Description({field.name: field for field in fields}, data["read"])


def _load(path: Path) -> dict[str, Any] | None:
    try:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    return data


def _keep(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}-{uuid.uuid4().hex}.tmp")
    draft.write_text(json.dumps(data), "utf-8")
    draft.replace(path)


# Whether fields fit

_FINDS = (Mode.UPDATE, Mode.DELETE)
"""Modes that find records by their match value and never write it: a record's own id will do."""


def misfits(sync: SyncSpec, fields: Mapping[str, TargetField], columns: Mapping[str, str]) -> list[Misfit]:
    """What of a sync does not fit an object.

    Args:
        fields: The object's fields, by name.
        columns: Columns of the model, by name, with the warehouse's types.
    """
    found: list[Misfit] = []
    targets = {field.target: field for field in sync.fields}
    destination = sync.destination.create()
    nests = destination.nests
    for name in dict.fromkeys((*sync.match, *targets)):
        # Of a path ("address.city") the destination describes the first part.
        described = fields.get(name) or (fields.get(name.split(".")[0]) if nests else None)
        if described is None:
            near = _near(name, fields)
            found.append(Misfit(name, f"does not exist.{f' Did you mean {near}?' if near else ''}", fatal=True))
        elif not described.writable and (name in targets or sync.mode not in _FINDS):
            found.append(Misfit(name, "is read-only.", fatal=True))
        elif name in sync.match and not _matches(described, tuple(sync.match)):
            remedy = destination.match_remedy(sync.object, tuple(sync.match))
            problem = "is no field with unique values, so no record can be matched by it."
            found.append(Misfit(name, f"{problem} {remedy}".strip(), fatal=True))
        elif name in targets and (problem := _type_problem(targets[name], described, columns)):
            found.append(Misfit(name, problem, fatal=False))
    given = {*targets, *sync.match, *(name.split(".")[0] for name in targets if nests)}
    missing = [field.name for field in fields.values() if field.required and field.name not in given]
    found += [Misfit(name, "is required for new records, and is not in `fields`.", fatal=False) for name in missing]
    return found


def _matches(field: TargetField, match: Sequence[str]) -> bool:
    """Whether records can be matched by a field, together with the others of the match."""
    others = {name for name in match if name != field.name}
    return field.unique if not others else field.unique or any(set(some) == others for some in field.unique_with)


def _near(name: str, known: Mapping[str, TargetField]) -> str:
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    return repr(close[0]) if close else ""


_CLASSES: tuple[tuple[str, FieldType], ...] = (
    (r"bool(ean)?", FieldType.BOOLEAN),
    (r"(u?(tiny|small|big|huge)?int(eger)?|int\d+|serial\d*|bigserial)", FieldType.INTEGER),
    (r"(decimal|numeric)\(\d+,\s*0\)", FieldType.INTEGER),
    (r"(decimal|numeric|double|float|real|money|number)\b.*", FieldType.NUMBER),
    (r"date", FieldType.DATE),
    (r"(timestamp|datetime).*", FieldType.TIMESTAMP),
    (r"(json|jsonb|struct|map|list|array)\b.*|.*\[\d*\]", FieldType.JSON),
    (r"(varchar|text|char|character|string|bpchar|name|uuid)\b.*", FieldType.STRING),
)
_MISFITS: frozenset[tuple[FieldType, FieldType]] = frozenset(
    (source, target)
    for source, targets in {
        FieldType.BOOLEAN: ("number", "integer", "date", "timestamp", "email", "phone"),
        FieldType.INTEGER: ("boolean", "email"),
        # A whole number may be a moment, in milliseconds or seconds.
        FieldType.NUMBER: ("boolean", "email", "date", "timestamp"),
        FieldType.DATE: ("number", "integer", "boolean", "email", "phone"),
        FieldType.TIMESTAMP: ("number", "integer", "boolean", "email", "phone", "date"),
        FieldType.JSON: ("number", "integer", "boolean", "date", "timestamp", "email", "phone"),
        FieldType.EMAIL: ("number", "integer", "boolean", "date", "timestamp"),
    }.items()
    for target in map(FieldType, targets)
)
"""Pairs of types of which hardly a value is taken; a text may be anything."""


def column_type(native: str) -> FieldType:
    """What a warehouse's type is in the words of fields."""
    text = native.strip().lower()
    return next((kind for pattern, kind in _CLASSES if re.fullmatch(pattern, text)), FieldType.UNKNOWN)


def fits(source: FieldType, target: FieldType) -> bool:
    """Whether values of one type may be taken by a field of another."""
    return (source, target) not in _MISFITS


def _type_problem(field: FieldSpec, described: TargetField, columns: Mapping[str, str]) -> str:
    takes = described.native or str(described.type)
    if field.source is None:
        options = described.options
        if options and str(field.value) not in options and not isinstance(field.value, bool):
            return f"takes one of {_some(options)}, and the constant is {str(field.value)!r}."
        return ""
    rule = field.rule
    if rule.values is not None and described.options:
        strange = [str(sent) for _, sent in rule.values if str(sent) not in described.options]
        return f"does not take the value(s) {_some(strange)}." if strange else ""
    if rule.hash is not None:
        return "" if fits(FieldType.STRING, described.type) else f"takes values of type {takes}, and gets digests."
    if rule.type is not None:
        counted = rule.type in ("date", "timestamp") and rule.format != "iso"
        made = FieldType.INTEGER if counted else FieldType(rule.type)
        return "" if fits(made, described.type) else f"takes values of type {takes}, and is made {rule.type}."
    native = columns.get(field.column or "") if field.lookup is None and field.sql is None else None
    if native is not None and not fits(column_type(native), described.type):
        return f"takes values of type {takes}, and the column {field.column} is {native}."
    return ""


def _some(options: Sequence[str]) -> str:
    return ", ".join(options[:5]) + (", ..." if len(options) > 5 else "")


# What has drifted


def drift(sync: SyncSpec, before: Mapping[str, Any], now: Mapping[str, Any]) -> Drift:
    """What differs between two sights; see `sight`. A side that one of them lacks is not compared."""
    used: list[str] = []
    other: list[str] = []
    targets = {*sync.match, *(field.target for field in sync.fields)}
    if before.get("fields") is not None and now.get("fields") is not None:
        old = {entry["name"]: TargetField.from_dict(entry) for entry in before["fields"]}
        new = {entry["name"]: TargetField.from_dict(entry) for entry in now["fields"]}
        for name in sorted({*old, *new}):
            changes = _field_changes(old.get(name), new.get(name))
            matters = name in targets or any("required" in change for change in changes)
            (used if matters else other).extend(f"{name} {change}" for change in changes)
    old_columns, new_columns = dict(before.get("columns") or ()), dict(now.get("columns") or ())
    reads = {*sync.model.primary_key, *sync.columns}
    for name in sorted({*old_columns, *new_columns}) if old_columns and new_columns else ():
        change = _column_change(old_columns.get(name), new_columns.get(name))
        if change:
            (used if name in reads else other).append(f"column {name} {change}")
    return Drift(tuple(used), tuple(other))


def _field_changes(old: TargetField | None, new: TargetField | None) -> list[str]:
    if new is None:
        return ["exists no more"]
    if old is None:
        return ["is new, and required"] if new.required else ["is new"]
    changes = []
    if (old.type, old.native) != (new.type, new.native):
        changes.append(f"was of type {old.native or old.type} and is {new.native or new.type}")
    if old.writable != new.writable:
        changes.append("can be written now" if new.writable else "is read-only now")
    if old.required != new.required:
        changes.append("is required now" if new.required else "is not required any more")
    if old.unique != new.unique:
        changes.append("has unique values now" if new.unique else "has no unique values any more")
    if gone := [option for option in old.options if option not in new.options]:
        changes.append(f"has lost the option(s) {_some(gone)}")
    if added := [option for option in new.options if option not in old.options]:
        changes.append(f"has the new option(s) {_some(added)}")
    return changes


def _column_change(old: str | None, new: str | None) -> str:
    if old == new:
        return ""
    if new is None:
        return "is returned no more"
    return "is new" if old is None else f"was {old} and is {new}"


def sight(description: Description | None, columns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What a run saw of both sides, as JSON takes it; `fields` is None where it did not ask."""
    fields = None if description is None else [field.as_dict() for field in description.fields.values()]
    return {"fields": fields, "columns": [list(column) for column in columns]}


def last_sight(home: Home) -> dict[str, Any]:
    """What the last run saw; empty before the first."""
    return _load(home.folder / FILE) or {}


def keep_sight(home: Home, seen: Mapping[str, Any]) -> None:
    """Make it what the next run compares with. What this run did not ask for stays as it was."""
    kept = last_sight(home) | {name: value for name, value in seen.items() if value is not None}
    _keep(home.folder / FILE, kept)


def write_sight(folder: Path, report: SchemaReport) -> None:
    """Leave what a plan saw in its folder, for `record`."""
    _keep(folder / FILE, report.seen or {})


def take_sight(home: Home, run_id: str) -> None:
    """Keep what a run's plan saw as what the next run compares with. May be called again."""
    seen = _load(home.plan_folder(run_id) / FILE)
    if seen:
        keep_sight(home, seen)


def forget_description(ctx: RunContext, account: str, object_: str) -> None:
    """Read it anew next time: the destination has refused what fitted it."""
    _path(ctx, account, object_).unlink(missing_ok=True)


# The check of a run


class FieldsDoNotFit(Misconfigured):
    """A field of a sync is missing at the destination, or only the destination writes it. Nothing was sent.

    Args:
        report: What the check found.
    """

    def __init__(self, message: str, remedy: str = "", report: SchemaReport | None = None) -> None:
        super().__init__(message, remedy)
        self.report = report or SchemaReport()


def check_schema(
    sync: SyncSpec,
    ctx: RunContext,
    connected: Connected,
    home: Home,
    versions: Sequence[ModelVersion],
    *,
    sends: bool,
    max_age: float | None = None,
) -> SchemaReport:
    """Check both sides of a sync.

    Args:
        versions: Of its model, at least one.
        sends: Whether the run has anything to send: else nothing is asked, and only the model's side is compared.
        max_age: Seconds that the description may be old; None: what the destination's settings say.

    Raises:
        FieldsDoNotFit: Something about it means that nothing can be sent.
    """
    columns = versions[-1].columns
    description: Description | None = None
    note = ""
    if sends and sync.destination.describes:
        try:
            description, found = _judged(sync, ctx, dict(columns), max_age)
        except Undescribed as error:
            note = f"{error.message} Fields were not checked."
    seen = sight(description, columns)
    report = SchemaReport(
        checked=description is not None,
        note=note,
        misfits=tuple(found) if description is not None else (),
        drift=drift(sync, last_sight(home), seen),
        read=description.read if description is not None else 0.0,
        requests=description.requests if description is not None else 0,
        seen=seen,
    )
    if report.fatal:
        label = connected.destination.label
        raise FieldsDoNotFit(
            f"Sync {sync.name!r} ({sync.source}) does not fit {sync.object} of {sync.destination.name} ({label}): "
            f"{' '.join(f'Field {misfit.field!r} {misfit.problem}' for misfit in report.fatal)}",
            f"Nothing was sent. Correct `fields`, or the fields of {sync.object} at {label}; "
            f"`integrations fields {sync.destination.name} {sync.object}` lists them.",
            report,
        )
    return report


def _judged(
    sync: SyncSpec, ctx: RunContext, columns: Mapping[str, str], max_age: float | None
) -> tuple[Description, list[Misfit]]:
    names = (*sync.match, *(field.target for field in sync.fields))
    asks: Callable[[float], Description] = lambda age: describe(  # noqa: E731
        sync.destination, ctx, sync.object, max_age=age, wanted=names, who=f"Sync {sync.name!r} ({sync.source})"
    )
    description = asks(sync.destination.fields_cache if max_age is None else max_age)
    found = misfits(sync, description.fields, columns)
    if any(misfit.fatal for misfit in found) and not description.requests:
        # Someone may have mended it since.
        description = asks(0.0)
        found = misfits(sync, description.fields, columns)
    return description, found
