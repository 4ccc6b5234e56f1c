"""The columns of models and the fields of syncs, as the UI shows them on their assets."""

from __future__ import annotations

import dagster as dg

from integrations_dagster.sync.results import ModelVersion
from integrations_dagster.sync.spec import FieldSpec, SyncSpec


def column_schema(version: ModelVersion) -> dg.TableSchemaMetadataValue:
    """The columns of a model with the warehouse's types."""
    return dg.MetadataValue.table_schema(
        dg.TableSchema([dg.TableColumn(name, type_) for name, type_ in version.columns])
    )


def field_schema(sync: SyncSpec, version: ModelVersion) -> dg.TableSchemaMetadataValue:
    """The fields that a sync writes, each with its type, what it is made from, and what holds of its values."""
    types = dict(version.columns)
    # A match field need not be written as a field too.
    fields = {target: FieldSpec(target, column) for target, column in sync.match.items()}
    fields |= {field.target: field for field in sync.fields}
    return dg.MetadataValue.table_schema(
        dg.TableSchema(
            [
                dg.TableColumn(
                    target,
                    _type(field, types),
                    f"From {_origin(field)}.",
                    dg.TableColumnConstraints(nullable=not field.rule.required, other=_told(sync, field)),
                )
                for target, field in fields.items()
            ]
        )
    )


def field_lineage(sync: SyncSpec) -> dg.TableColumnLineage:
    """The columns of the model that each field is made from."""
    made_from = {target: [column] for target, column in sync.match.items()}
    made_from |= {field.target: [*field.columns] for field in sync.fields if field.columns}
    model = dg.AssetKey(sync.model.name)
    return dg.TableColumnLineage(
        {target: [dg.TableColumnDep(model, column) for column in columns] for target, columns in made_from.items()}
    )


def _type(field: FieldSpec, types: dict[str, str]) -> str:
    """The type that the mapping gives it; else that of its column, where its values go as they are."""
    if field.rule.type is not None:
        return field.rule.type
    if field.column is not None and field.lookup is None:
        return types.get(field.column, "any")
    return "any"


def _origin(field: FieldSpec) -> str:
    if field.lookup is not None:
        return f"the lookup {field.lookup}, by the column {field.column}"
    if field.column is not None:
        return f"the column {field.column}"
    if field.sql is not None:
        return f"SQL: {field.sql}"
    return "a constant" if field.sensitive else f"a constant: {field.value!r}"


def _told(sync: SyncSpec, field: FieldSpec) -> list[str]:
    told = {
        "match": field.target in sync.match,
        "sensitive": field.sensitive,
        f"hashed by {field.rule.hash}": field.rule.hash is not None,
    }
    return [name for name, holds in told.items() if holds]
