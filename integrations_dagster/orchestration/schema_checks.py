"""Asset checks of a sync's two sides: whether its fields fit the destination, and what differs from the last run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from integrations_dagster.sync.readings import SchemaReport
from integrations_dagster.sync.spec import SyncSpec

FIT, DRIFT = "fields_fit", "schema_unchanged"


def schema_check_specs(sync: SyncSpec) -> list[dg.AssetCheckSpec]:
    """The checks that a sync has. Whether fields fit is only known where the destination describes them."""
    label = sync.destination.create().label
    specs = []
    if sync.destination.describes:
        text = f"Each field exists in {label}'s {sync.object}, may be written, and takes values of its column's type."
        specs.append(dg.AssetCheckSpec(FIT, asset=sync.name, description=text))
    text = "The model's columns and the destination's fields that the sync uses are what the last run saw."
    specs.append(dg.AssetCheckSpec(DRIFT, asset=sync.name, description=text))
    return specs


def schema_checks(sync: SyncSpec, report: SchemaReport) -> Iterator[dg.AssetCheckResult]:
    """The results of the checks, from what a plan found."""
    for spec in schema_check_specs(sync):
        yield dg.AssetCheckResult(asset_key=sync.name, check_name=spec.name, **_told(spec.name, report))


def failed_schema_checks(sync: SyncSpec, report: SchemaReport) -> Iterator[dg.AssetCheckEvaluation]:
    """The same, told by an op that is not the last of its run."""
    for spec in schema_check_specs(sync):
        yield dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(sync.name), check_name=spec.name, blocking=False, **_told(spec.name, report)
        )


def _told(name: str, report: SchemaReport) -> dict[str, Any]:
    return _fit(report) if name == FIT else _drift(report)


def _fit(report: SchemaReport) -> dict[str, Any]:
    metadata: dict[str, Any] = {"fields that do not fit": _listed(misfit.field for misfit in report.misfits)}
    if report.read:
        metadata["read"] = dg.MetadataValue.timestamp(datetime.fromtimestamp(report.read, UTC))
    if report.misfits:
        description = " ".join(f"Field {misfit.field!r} {misfit.problem}" for misfit in report.misfits)
    elif report.checked:
        description = "All fields fit."
    else:
        description = report.note or "The run had nothing to send, so the destination was not asked."
    return {
        # A field that is not known to be wrong is not said to be.
        "passed": not report.misfits and not report.note,
        "severity": dg.AssetCheckSeverity.ERROR if report.fatal else dg.AssetCheckSeverity.WARN,
        "description": description,
        "metadata": metadata,
    }


def _drift(report: SchemaReport) -> dict[str, Any]:
    found = report.drift
    metadata: dict[str, Any] = {"used": _listed(found.used), "not used": _listed(found.other)}
    also = f" Of what the sync does not use, {len(found.other)} differ." if found.other else ""
    return {
        "passed": not found.used,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": (f"Since the last run: {'; '.join(found.used)}." if found.used else "Nothing has changed.")
        + also,
        "metadata": metadata,
    }


def _listed(texts: Iterable[str]) -> str:
    """As one text, since the UI folds lists away."""
    return "; ".join(texts) or "none"
