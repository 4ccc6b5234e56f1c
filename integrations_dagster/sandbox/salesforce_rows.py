"""What the sandbox's Salesforce does with each record of a collection, and why it refuses one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from integrations_dagster.sandbox.salesforce_fields import SalesforceField, number_of
from integrations_dagster.sandbox.salesforce_state import Record, SalesforceState

SYSTEM = ("attributes", "id", "Id")


class RowRefused(Exception):
    """A single record is refused.

    Args:
        code: Status code.
        message: For a person.
        fields: API names of the fields it is about.
    """

    def __init__(self, code: str, message: str, *fields: str) -> None:
        super().__init__(message)
        self.code, self.message, self.fields = code, message, fields

    def result(self) -> dict[str, Any]:
        """The row's result."""
        return {
            "success": False,
            "errors": [{"statusCode": self.code, "message": self.message, "fields": list(self.fields)}],
        }


ROLLED_BACK = RowRefused(
    "ALL_OR_NONE_OPERATION_ROLLED_BACK",
    "Record rolled back because not all records were valid and the request was using AllOrNone header",
)


class Rows:
    """Applies records.

    Args:
        state: The records.
        rejections: `reject_rows` faults of the request.
    """

    def __init__(self, state: SalesforceState, rejections: Sequence[Mapping[str, Any]]) -> None:
        self._state = state
        self._rejections = rejections

    def create(self, object_: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Make a record of an entry; returns its result.

        Raises:
            RowRefused: Why not.
            BadValue: The whole request is refused.
        """
        values = self._values(object_, entry)
        self._refuse_on_demand(entry)
        self._check(object_, values, None)
        return _done(self._state.create(object_, values))

    def update(self, object_: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Change the record that an entry names by its id."""
        values = self._values(object_, entry)
        record = self.record(entry.get("id") or entry.get("Id"))
        self._refuse_on_demand(entry)
        self._check(object_, values, record)
        self._state.update(record, values)
        return _done(record)

    def upsert(
        self, object_: str, entry: Mapping[str, Any], field: SalesforceField, given: Mapping[str, int]
    ) -> dict[str, Any]:
        """Make or change the record that has an entry's external id; `given` counts the request's values."""
        values = self._values(object_, entry)
        if entry.get("id") or entry.get("Id"):
            raise RowRefused("INVALID_FIELD", "The Id field should not be specified in the sobject data.", "Id")
        value = values.get(field.name)
        if value is None:
            raise RowRefused("MISSING_ARGUMENT", f"{field.name} not specified", field.name)
        if given[field.key(value)] > 1:
            raise RowRefused("DUPLICATE_VALUE", f"Duplicate external id specified: {value}", field.name)
        self._refuse_on_demand(entry)
        holders = self._state.holders(object_, field, value)
        if len(holders) > 1:
            named = ", ".join(record.id for record in holders)
            message = f"{field.name}: more than one record found for external id field: [{named}]"
            raise RowRefused("DUPLICATE_EXTERNAL_ID", message, field.name)
        record = holders[0] if holders else None
        self._check(object_, values, record)
        if record is None:
            return _done(self._state.create(object_, values)) | {"created": True}
        self._state.update(record, values)
        return _done(record) | {"created": False}

    def delete(self, id_: str) -> dict[str, Any]:
        """Delete the record with an id."""
        record = self.record(id_)
        self._refuse_on_demand({"id": id_, **record.fields})
        self._state.delete(record)
        return _done(record)

    def record(self, id_: Any) -> Record:
        """The live record with an id.

        Raises:
            RowRefused: There is none.
        """
        number = number_of(id_)
        if number is None:
            raise RowRefused("MALFORMED_ID", f"malformed id {id_}", "Id")
        record = self._state.one(number)
        if record is None or record.id[:15] != str(id_)[:15]:
            raise RowRefused("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
        if record.deleted:
            raise RowRefused("ENTITY_IS_DELETED", "entity is deleted")
        return record

    def counted(self, field: SalesforceField, entries: Sequence[Mapping[str, Any]]) -> Counter[str]:
        """How often each external id occurs in a request."""
        values = (field.read(entry.get(field.name)) for entry in entries)
        return Counter(field.key(value) for value in values if value is not None)

    def _values(self, object_: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        known = self._state.fields(object_) or {}
        relations = {field.relation: field for field in known.values() if field.relation}
        values: dict[str, Any] = {}
        refused: RowRefused | None = None
        for name, value in entry.items():
            if name in SYSTEM:
                continue
            if name in relations:
                try:
                    values[relations[name].name] = self._referred(relations[name], value)
                except RowRefused as refusal:
                    refused = refused or refusal
                continue
            field = known.get(name)
            if field is None:
                message = f"No such column '{name}' on sobject of type {object_}"
                refused = refused or RowRefused("INVALID_FIELD", message, name)
            elif field.read_only:
                message = f"Unable to create/update fields: {name}. Please check the security settings of this field."
                refused = refused or RowRefused("INVALID_FIELD_FOR_INSERT_UPDATE", message, name)
            else:
                values[name] = field.read(value)
        if refused is not None:
            raise refused
        return values

    def _referred(self, field: SalesforceField, value: Any) -> str | None:
        if value is None:
            return None
        named = [(n, v) for n, v in value.items() if n not in SYSTEM] if isinstance(value, dict) else []
        other = self._state.fields(field.refers) or {}
        if len(named) != 1 or named[0][0] not in other or not other[named[0][0]].indexed:
            message = f"The relationship {field.relation} takes one external id field of {field.refers}."
            raise RowRefused("INVALID_FIELD", message, field.relation)
        name, wanted = named[0]
        holders = self._state.holders(field.refers, other[name], other[name].read(wanted))
        if len(holders) != 1:
            message = f"Foreign key external ID: {wanted} not found for field {name} in entity {field.refers}"
            raise RowRefused("INVALID_FIELD", message, field.name)
        return holders[0].id

    def _check(self, object_: str, values: Mapping[str, Any], record: Record | None) -> None:
        known = self._state.fields(object_) or {}
        after = {**(record.fields if record else {}), **values}
        missing = [name for name, field in known.items() if field.required and after.get(name) is None]
        if missing:
            raise RowRefused("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(missing)}]", *missing)
        for name, value in values.items():
            if value is None:
                continue
            field = known[name]
            problem = field.problem(value)
            if problem is not None:
                raise RowRefused(*problem, name)
            if field.type == "reference":
                self._check_reference(name, value)
            if field.unique:
                own = record.number if record is not None else 0
                holders = self._state.holders(object_, field, value)
                other = next((holder for holder in holders if holder.number != own), None)
                if other is not None:
                    message = f"duplicate value found: {name} duplicates value on record with id: {other.id[:15]}"
                    raise RowRefused("DUPLICATE_VALUE", message, name)

    def _check_reference(self, name: str, value: Any) -> None:
        number = number_of(value)
        referred = None if number is None else self._state.one(number)
        if number is None:
            raise RowRefused("MALFORMED_ID", f"{name}: id value of incorrect type: {value}", name)
        if referred is None or referred.deleted:
            raise RowRefused("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", name)

    def _refuse_on_demand(self, entry: Mapping[str, Any]) -> None:
        text = json.dumps(entry, ensure_ascii=False) if self._rejections else ""
        for rule in self._rejections:
            if str(rule["with"]) in text:
                code = str(rule.get("code", "FIELD_CUSTOM_VALIDATION_EXCEPTION"))
                named = [str(rule["property"])] if "property" in rule else []
                raise RowRefused(code, str(rule.get("message", "The row was rejected on demand.")), *named)


def _done(record: Record) -> dict[str, Any]:
    return {"id": record.id, "success": True, "errors": []}
