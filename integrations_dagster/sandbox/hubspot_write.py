"""How the sandbox's HubSpot creates and updates records: validation, matching, conflicts, and per-row errors.

Rows of a batch are taken in order, each seeing the effects of those before it; all effects are committed together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from integrations_dagster.sandbox.answers import Answer, HubSpotError, detail, json_answer, row_error, timestamp
from integrations_dagster.sandbox.properties import MAX_TEXT, Problem, Property
from integrations_dagster.sandbox.store import Record, Store

MAX_BATCH = 100
TYPE_IDS = {"contacts": "0-1", "companies": "0-2"}
SINGULAR = {"contacts": "Contact", "companies": "Company"}
_STATUS = {"CONFLICT": 409, "OBJECT_NOT_FOUND": 404}


@dataclass(slots=True)
class Row:
    """One input: its changes, normalized, and what it matches by."""

    changes: dict[str, str]
    key: str = ""
    trace: str | None = None
    problems: list[tuple[str, Problem]] = field(default_factory=list)
    rejection: dict[str, Any] | None = None


@dataclass(slots=True)
class Failure:
    """A row that was refused."""

    row: Row
    category: str
    message: str
    errors: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Written:
    """A row that was applied."""

    row: Row
    record: Record
    new: bool


def inputs_of(document: Any, *, ids: bool) -> list[dict[str, Any]]:
    """The inputs of a batch body.

    Raises:
        HubSpotError: 400, where the body is no batch, or too large a one.
    """
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or not all(isinstance(entry, dict) for entry in inputs):
        raise HubSpotError(400, "VALIDATION_ERROR", "Invalid input JSON: inputs must be an array of objects.")
    if len(inputs) > MAX_BATCH:
        raise HubSpotError(
            400,
            "VALIDATION_ERROR",
            f"The maximum number of inputs supported in a batch request is {MAX_BATCH}; got {len(inputs)}.",
        )
    if ids and not all(isinstance(entry.get("id"), str) and entry["id"] for entry in inputs):
        raise HubSpotError(400, "VALIDATION_ERROR", "Some required fields were not set: [id]")
    return inputs


def write_batch(
    store: Store, object_: str, operation: str, document: Any, rejections: Sequence[Mapping[str, Any]], portal: int
) -> Answer:
    """Answer a batch/create, batch/update or batch/upsert, and commit what it does.

    Args:
        store: The state.
        object_: "contacts" or "companies".
        operation: "create", "update" or "upsert".
        document: The decoded body.
        rejections: `reject_rows` faults that apply to this request.
        portal: The portal id, which errors mention.

    Raises:
        HubSpotError: The whole batch is refused, without effect.
    """
    started = timestamp()
    inputs = inputs_of(document, ids=operation != "create")
    rows = read_rows(store.properties(object_), inputs, portal)
    id_property = _id_property(store, object_, inputs) if operation != "create" else None
    if operation != "create":
        matching = store.properties(object_)[id_property] if id_property else None
        for row, entry in zip(rows, inputs, strict=True):
            row.key = matching.normalize(entry["id"]) if matching else entry["id"]
            if operation == "upsert" and matching and matching.name not in row.changes:
                row.changes[matching.name] = row.key
                problem = matching.problem(row.key)
                if problem:
                    row.problems.append((matching.name, problem))
        refuse_duplicates(row.key for row in rows)
    for rule in rejections:
        for row, entry in zip(rows, inputs, strict=True):
            if str(rule["with"]) in json.dumps(entry, ensure_ascii=False):
                row.rejection = dict(rule)
    written, failures = apply(store, object_, operation, rows, id_property, started, portal)
    return _batch_answer(operation, written, failures, started, object_)


def write_one(
    store: Store, object_: str, operation: str, key: str, id_property: str | None, document: Any, portal: int
) -> Written:
    """Create one record, or update it, and commit.

    Raises:
        HubSpotError: The record was refused.
    """
    if not isinstance(document, dict):
        raise HubSpotError(400, "VALIDATION_ERROR", "Invalid input JSON: an object with properties is needed.")
    entry = {"properties": document.get("properties"), "id": key, "idProperty": id_property}
    (row,) = read_rows(store.properties(object_), [entry], portal)
    if id_property:
        id_property = _id_property(store, object_, [entry])
    matching = store.properties(object_)[id_property] if id_property else None
    row.key = matching.normalize(key) if matching else key
    # Without a trace id, a refused row is a refused request.
    written, failures = apply(store, object_, operation, [row], id_property, timestamp(), portal)
    if failures:
        failure = failures[0]
        status = _STATUS.get(failure.category, 400)
        raise HubSpotError(status, failure.category, failure.message, failure.errors)
    return written[0]


def read_rows(table: Mapping[str, Property], inputs: Sequence[Mapping[str, Any]], portal: int) -> list[Row]:
    """Check and normalize the properties of every input.

    Raises:
        HubSpotError: 400, where a value is no string, or a property is unknown or read-only: no row is applied then.
    """
    rows: list[Row] = []
    wrong: dict[str, Problem] = {}
    for entry in inputs:
        properties = entry.get("properties")
        if not isinstance(properties, dict):
            raise HubSpotError(400, "VALIDATION_ERROR", "Some required fields were not set: [properties]")
        row = Row({})
        trace = entry.get("objectWriteTraceId")
        if isinstance(trace, str):
            row.trace = trace
        for name, value in properties.items():
            if type(value) is not str:
                raise HubSpotError(
                    400,
                    "VALIDATION_ERROR",
                    f"Invalid input JSON: the value of property {name} is not a string: {json.dumps(value)[:100]}",
                )
            definition = table.get(name)
            if definition is None:
                wrong[name] = ("PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
                continue
            if definition.read_only:
                wrong[name] = ("READ_ONLY_VALUE", f'"{name}" is a read only property; its value cannot be set.')
                continue
            # Most values are short plain texts, which cannot be wrong.
            if value and not (definition.plain and len(value) <= MAX_TEXT):
                problem = definition.problem(value)
                if problem:
                    row.problems.append((name, problem))
                if definition.unique:
                    value = definition.normalize(value)
            row.changes[name] = value
        rows.append(row)
    if wrong:
        message, errors = _not_valid(list(wrong.items()), portal)
        raise HubSpotError(400, "VALIDATION_ERROR", message, errors)
    return rows


def apply(
    store: Store,
    object_: str,
    operation: str,
    rows: Sequence[Row],
    id_property: str | None,
    now: str,
    portal: int,
) -> tuple[list[Written], list[Failure]]:
    """Apply the rows that can be applied, in one transaction.

    Raises:
        HubSpotError: A row was refused and the rows carry no trace ids to report it by: no row is applied then.
    """
    unique = [p for p in store.properties(object_).values() if p.unique]
    holders: dict[tuple[str, str], int] = {}
    for property_ in unique:
        values = {row.changes[property_.name] for row in rows if row.changes.get(property_.name)}
        if property_.name == id_property:
            values.update(row.key for row in rows)
        if values:
            found = store.holders(object_, property_.name, values)
            holders.update({(property_.name, value): id_ for value, id_ in found.items()})
    wanted = set(holders.values())
    if id_property is None and operation != "create":
        wanted.update(int(row.key) for row in rows if _is_id(row.key))
    records = store.records(object_, wanted)
    moved: dict[tuple[str, str], int] = {}
    created: dict[int, Record] = {}
    updated: dict[int, Record] = {}
    written: list[Written] = []
    failures: list[Failure] = []
    ids = iter(store.new_ids(len(rows)) if operation != "update" else ())
    for row in rows:
        failure = _refusal(row, portal)
        if failure:
            failures.append(failure)
            continue
        record: Record | None = None
        if operation != "create":
            id_ = holders.get((id_property, row.key), 0) if id_property else int(row.key) if _is_id(row.key) else 0
            record = records.get(id_)
            if record is None and (operation == "update" or id_property is None):
                failures.append(
                    Failure(row, "OBJECT_NOT_FOUND", f"{SINGULAR[object_]} with id {row.key} does not exist.")
                )
                continue
        conflict = _conflict(row, unique, holders, record, object_)
        if conflict:
            failures.append(conflict)
            continue
        new = record is None
        if record is None:
            record = Record(next(ids), {}, now, now)
            records[record.id] = created[record.id] = record
        elif record.id not in created:
            updated[record.id] = record
        for property_ in unique:
            value = row.changes.get(property_.name)
            before = record.properties.get(property_.name)
            if value is not None and value != before:
                if before:
                    moved[property_.name, before] = holders[property_.name, before] = 0
                if value:
                    moved[property_.name, value] = holders[property_.name, value] = record.id
        record.properties.update(row.changes)
        for name, value in row.changes.items():
            if not value:
                del record.properties[name]
        record.updated = now
        written.append(Written(row, record, new))
    if any(row.trace is None for row in rows):
        _refuse_all([f for f in failures if f.category != "OBJECT_NOT_FOUND"])
    with store.transaction():
        store.write_records(object_, created.values(), updated.values(), moved)
    return written, failures


def refuse_duplicates(keys: Iterable[str]) -> None:
    """Refuse a batch that names a record twice.

    Raises:
        HubSpotError: 400, naming the ids.
    """
    seen: set[str] = set()
    twice = sorted({key for key in keys if key in seen or seen.add(key)})  # type: ignore[func-returns-value]
    if twice:
        raise HubSpotError(
            400,
            "VALIDATION_ERROR",
            f"Duplicate IDs found in batch input: [{', '.join(twice)}]. IDs must be unique",
            context={"ids": twice},
        )


def _id_property(store: Store, object_: str, inputs: Sequence[Mapping[str, Any]]) -> str | None:
    names = {entry.get("idProperty") for entry in inputs}
    if len(names) > 1:
        raise HubSpotError(400, "VALIDATION_ERROR", "All inputs of a batch must have the same idProperty.")
    name = names.pop() if names else None
    if name in (None, "hs_object_id"):
        return None
    definition = store.properties(object_).get(str(name))
    if definition is None or not definition.unique:
        raise HubSpotError(
            400,
            "VALIDATION_ERROR",
            f"Unable to perform update/upsert by non-unique {TYPE_IDS[object_]} property {name}",
        )
    return definition.name


def _is_id(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) < 19


def _refusal(row: Row, portal: int) -> Failure | None:
    if row.rejection is not None:
        code = str(row.rejection.get("code", "INVALID_OPTION"))
        message = str(row.rejection.get("message", "The row was rejected on demand."))
        name = str(row.rejection.get("property", next(iter(row.changes), "")))
        text, errors = _not_valid([(name, (code, message))], portal)
        return Failure(row, str(row.rejection.get("category", "VALIDATION_ERROR")), text, errors)
    if row.problems:
        text, errors = _not_valid(row.problems, portal)
        return Failure(row, "VALIDATION_ERROR", text, errors)
    return None


def _conflict(
    row: Row,
    unique: Sequence[Property],
    holders: Mapping[tuple[str, str], int],
    record: Record | None,
    object_: str,
) -> Failure | None:
    for property_ in unique:
        value = row.changes.get(property_.name)
        holder = holders.get((property_.name, value), 0) if value else 0
        if holder and (record is None or holder != record.id):
            return Failure(row, "CONFLICT", f"{SINGULAR[object_]} already exists. Existing ID: {holder}")
    return None


def _not_valid(problems: Sequence[tuple[str, Problem]], portal: int) -> tuple[str, list[dict[str, Any]]]:
    listed = [
        {
            "isValid": False,
            "message": message,
            "error": code,
            "name": name,
            "localizedErrorMessage": message,
            "portalId": portal,
        }
        for name, (code, message) in problems
    ]
    return (
        f"Property values were not valid: {json.dumps(listed, ensure_ascii=False, separators=(',', ':'))}",
        [detail(message, code, name) for name, (code, message) in problems],
    )


def _refuse_all(failures: Sequence[Failure]) -> None:
    if failures:
        first = failures[0]
        errors = [error for failure in failures for error in failure.errors]
        raise HubSpotError(_STATUS.get(first.category, 400), first.category, first.message, errors)


def result(record: Record, properties: Mapping[str, str], object_: str) -> dict[str, Any]:
    """A record as HubSpot's answers show it, with the given properties beside the system's."""
    modified = "lastmodifieddate" if object_ == "contacts" else "hs_lastmodifieddate"
    return {
        "id": str(record.id),
        "properties": {
            **properties,
            "createdate": record.created,
            "hs_object_id": str(record.id),
            modified: record.updated,
        },
        "createdAt": record.created,
        "updatedAt": record.updated,
        "archived": False,
    }


def _batch_answer(
    operation: str, written: Sequence[Written], failures: Sequence[Failure], started: str, object_: str
) -> Answer:
    results = []
    # HubSpot does not answer in the order of the inputs (nor should a client rely on it): newest record first.
    for entry in sorted(written, key=lambda w: w.record.id, reverse=True):
        shown = result(entry.record, {n: v for n, v in entry.row.changes.items() if v}, object_)
        if operation == "upsert":
            shown["new"] = entry.new
        if entry.row.trace is not None:
            shown["objectWriteTraceId"] = entry.row.trace
        results.append(shown)
    body: dict[str, Any] = {"status": "COMPLETE", "results": results}
    if failures:
        body["numErrors"] = len(failures)
        body["errors"] = [
            row_error(
                failure.category,
                failure.message,
                failure.errors,
                context=_context(failure),
            )
            for failure in failures
        ]
    body |= {"startedAt": started, "completedAt": timestamp()}
    status = 207 if failures else 201 if operation == "create" else 200
    return json_answer(status, body, failed_rows=len(failures))


def _context(failure: Failure) -> dict[str, list[str]]:
    context: dict[str, list[str]] = {}
    if failure.category == "OBJECT_NOT_FOUND":
        context["ids"] = [failure.row.key]
    if failure.row.trace is not None:
        context["objectWriteTraceId"] = [failure.row.trace]
    return context
