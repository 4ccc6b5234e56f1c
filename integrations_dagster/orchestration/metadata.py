"""What a run says of itself on its assets, in terms that the UI plots: stable names, plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from integrations_dagster.destinations import errors
from integrations_dagster.orchestration.columns import column_schema, field_lineage, field_schema
from integrations_dagster.sync.results import ModelVersion, Plan, RunReport
from integrations_dagster.sync.runs import run_numbers
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.vocabulary import Status

Metadata = dict[str, Any]

ROWS_SHOWN = 50
"""Rejected rows in the table on the asset."""
CELL = 500
"""Characters of a cell: metadata is stored with every materialization."""

ERROR_KINDS: tuple[str, ...] = tuple(
    cls.kind
    for cls in (
        errors.Throttled,
        errors.Unavailable,
        errors.Unauthorized,
        errors.TooLarge,
        errors.PoisonedBatch,
        errors.Refused,
    )
)


def model_metadata(
    versions: Sequence[ModelVersion], preview: tuple[Sequence[str], Sequence[Sequence[str]]], warehouse: str
) -> Metadata:
    """Metadata of a model's materialization.

    Args:
        versions: One, or one for each partition of the run; at least one.
        preview: Column names and rows of texts.
        warehouse: Name and kind of the warehouse.
    """
    last = versions[-1]
    return {
        "dagster/row_count": sum(version.rows for version in versions),
        "seconds_query": round(sum(version.seconds for version in versions), 3),
        "dagster/column_schema": column_schema(last),
        "sql": sql_text(last.sql),
        "preview": dg.MetadataValue.md(_markdown_table(*preview)),
        "warehouse": warehouse,
        "version": last.name,
    }


def partition_metadata(version: ModelVersion) -> Metadata:
    """Numbers of one partition of a model."""
    return {
        "dagster/partition_row_count": version.rows,
        "rows_queried": version.rows,
        "seconds_query": round(version.seconds, 3),
    }


def sync_metadata(sync: SyncSpec, plan: Plan, report: RunReport) -> Metadata:
    """Metadata of a sync's run: rows found, rows delivered, what it cost, what was refused, and what it ran on."""
    outcomes, errors = report.outcomes, report.traffic.errors
    delivered = sum(outcomes.get(status, 0) for status in (Status.CREATED, Status.UPDATED, Status.DELETED))
    # The same as in the table sync_runs.
    told = run_numbers(plan, report)
    numbers: Metadata = {
        "rows_queried": told.pop("queried"),
        **told,
        "rows_per_second": round(delivered / report.write_seconds, 1) if report.write_seconds else 0.0,
        "requests_plan": sum(use.requests for use in plan.lookups) + plan.schema.requests,
        **{f"errors_{kind}": errors.get(kind, 0) for kind in dict.fromkeys((*ERROR_KINDS, *errors))},
    }
    texts: Metadata = {
        "target": sync.destination.target.name,
        "account": plan.account,
        "destination": f"{sync.destination.name} ({sync.destination.kind})",
        "object": sync.object,
        "mode": str(sync.mode),
    }
    if notes := tuple(dict.fromkeys((*plan.notes, *report.notes))):
        texts["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in notes))
    if plan.lookups:
        texts["lookups"] = lookups_table(plan)
    if report.reasons:
        texts["reasons"] = reasons_table(report)
    if report.bad_rows:
        texts["rejected_rows"] = rejected_rows(report)
    if plan.versions:
        texts["sql"] = sql_text(plan.versions[-1].sql)
        # Deletions by primary key write no field.
        if sync.fields or sync.match:
            texts["dagster/column_schema"] = field_schema(sync, plan.versions[-1])
            texts["dagster/column_lineage"] = field_lineage(sync)
        texts["model_version"] = plan.versions[-1].name
    return {**numbers, **texts}


def sync_partition_metadata(version: ModelVersion) -> Metadata:
    """Numbers of one partition that a sync delivered from."""
    return {"dagster/partition_row_count": version.rows, "partition_rows_queried": version.rows}


def rejected_rows(report: RunReport) -> dg.TableMetadataValue:
    """The first rejected, invalid and in-doubt rows."""
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord(
                {
                    "key": _cell(row.key),
                    "outcome": str(row.status),
                    "code": _cell(row.code),
                    "reason": _cell(row.reason),
                }
            )
            for row in report.bad_rows[:ROWS_SHOWN]
        ],
        schema=dg.TableSchema([dg.TableColumn(name, "string") for name in ("key", "outcome", "code", "reason")]),
    )


def lookups_table(plan: Plan) -> dg.TableMetadataValue:
    """What values were looked up in: references and syncs, with the age of what was read."""
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord({"name": use.name, "records": use.rows, "age_seconds": round(use.age), "read": use.read})
            for use in plan.lookups
        ],
        schema=dg.TableSchema(
            [
                dg.TableColumn(name, type_)
                for name, type_ in (("name", "string"), ("records", "int"), ("age_seconds", "int"), ("read", "bool"))
            ]
        ),
    )


def reasons_table(report: RunReport) -> dg.TableMetadataValue:
    """The most frequent reasons of rejected rows."""
    return dg.MetadataValue.table(
        # The count first: reasons are long, and what follows them is out of sight.
        records=[dg.TableRecord({"rows": count, "reason": _cell(reason)}) for reason, count in report.reasons],
        schema=dg.TableSchema([dg.TableColumn("rows", "int"), dg.TableColumn("reason", "string")]),
    )


def sql_text(sql: str) -> dg.MarkdownMetadataValue:
    """A query, readable in the UI."""
    return dg.MetadataValue.md(f"```sql\n{sql.strip()}\n```")


def numbers_of(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, float]:
    """The plain numbers of stored metadata, by name."""
    return {
        name: value.value
        for name, value in metadata.items()
        if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue) and value.value is not None
    }


def reasons_of(metadata: Mapping[str, dg.MetadataValue]) -> list[tuple[str, int]]:
    """The reasons and their counts in stored metadata of a sync, most frequent first."""
    table = metadata.get("reasons")
    if not isinstance(table, dg.TableMetadataValue):
        return []
    return [(str(record.data["reason"]), int(record.data["rows"] or 0)) for record in table.records]


def _cell(text: str) -> str:
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *(line(row) for row in rows)])
