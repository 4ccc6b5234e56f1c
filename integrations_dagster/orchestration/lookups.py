"""Reference data of a destination as an asset: what syncs look values up in, upstream of them."""

# Dagster reads the annotation of an op's `context` as an object: no `from __future__ import annotations` here.

import re
from collections.abc import Sequence
from typing import Any

import dagster as dg

from integrations_dagster.orchestration.context import readable_failures, run_context
from integrations_dagster.sync.readings import LookupUse
from integrations_dagster.sync.spec import DestinationSpec


def lookup_key(destination: str, reference: str) -> dg.AssetKey:
    """The asset of a reference: the destination's name, and its own."""
    return dg.AssetKey([destination, reference])


def lookup_asset(spec: DestinationSpec, reference: str, columns: Sequence[str]) -> dg.AssetsDefinition:
    """The asset of reference data. Its materialization reads it from the destination, however young the last one is.

    A sync's plan reads it too, where it is older than the sync's lookup allows, and says so with a materialization.

    Args:
        spec: The destination, with the target in force.
        reference: A name of `Destination.references`.
        columns: Those that syncs need.
    """
    described = next(entry for entry in spec.create().references() if entry.name == reference)
    what = described.description or reference

    @dg.asset(
        key=lookup_key(spec.name, reference),
        group_name=re.sub(r"\W", "_", spec.name),
        kinds={spec.kind},
        description=(
            f"{what[:1].upper()}{what[1:]}, as syncs look them up at {spec.name} "
            f"({spec.kind}), target {spec.target.name}. A sync that finds it too old reads it anew by itself."
        ),
        retry_policy=dg.RetryPolicy(max_retries=1, delay=1),
        tags={"integrations/lookup": reference, "integrations/target": spec.target.name},
    )
    def read(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        # Imported by the step that runs it: loading the code location stays light.
        from integrations_dagster.sync.lookups import reference_use
        from integrations_dagster.sync.references import known_columns, read_reference

        with readable_failures(), run_context(context) as ctx:
            found = read_reference(
                spec,
                ctx,
                reference,
                known_columns(spec, reference, columns),
                max_age=None,
                who=f"Destination {spec.name!r}",
            )
            return dg.MaterializeResult(metadata=lookup_metadata(reference_use(found, ctx.ledger.now()), spec))

    return read


def lookup_metadata(use: LookupUse, spec: DestinationSpec) -> dict[str, Any]:
    """Metadata of a materialization of reference data."""
    return {
        "dagster/row_count": use.rows,
        "seconds_read": round(use.seconds, 3),
        "requests": use.requests,
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(name, "string") for name in use.columns]),
        "version": use.version,
        "target": spec.target.name,
        "destination": f"{spec.name} ({spec.kind})",
    }


def read_by_plan(use: LookupUse, spec: DestinationSpec) -> dg.AssetMaterialization:
    """Tells that a sync's plan has read the reference."""
    return dg.AssetMaterialization(
        lookup_key(spec.name, use.name),
        description="Read by a sync's plan, which found it missing or too old.",
        metadata=lookup_metadata(use, spec),
    )
