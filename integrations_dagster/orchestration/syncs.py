"""A sync as a graph-backed asset: plan, one write op for each shard, record."""

# Dagster reads the annotation of an op's `context` as an object: no `from __future__ import annotations` here.

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._utils.warnings import suppress_dagster_warnings
from pydantic import Field

from integrations_dagster.orchestration.context import partitions_of, readable_failures, run_context
from integrations_dagster.orchestration.lookups import lookup_key, read_by_plan
from integrations_dagster.orchestration.metadata import sync_metadata, sync_partition_metadata
from integrations_dagster.orchestration.progress import ProgressLog
from integrations_dagster.orchestration.schema_checks import failed_schema_checks, schema_check_specs, schema_checks
from integrations_dagster.sync.guards import COUNTED
from integrations_dagster.sync.inputs import PlanOptions
from integrations_dagster.sync.plan import plan
from integrations_dagster.sync.record import record
from integrations_dagster.sync.results import Plan, RunReport, Shard, WriteSummary
from integrations_dagster.sync.schema import FieldsDoNotFit
from integrations_dagster.sync.spec import SyncSpec
from integrations_dagster.sync.write import write
from integrations_dagster.vocabulary import LeaseHeld, Status

CHECK = "rows_accepted"
VOLUME = "volume_usual"
WAIT_FIRST, WAIT_LONGEST = 3.0, 30.0
"""Seconds between two looks at a sync that another run holds."""
WAITS = 1_000_000


class PlanConfig(dg.Config):
    """What a launch may say, in the launchpad."""

    allow_removals: bool = Field(
        default=False,
        description="Lift the removal guard for this run: remove as many rows as the model no longer has (mirror), or "
        "delete as many as it lists (delete).",
    )
    allow_volume: bool = Field(
        default=False,
        description="Lift the guards on volume for this run: deliver although its numbers are far from the usual.",
    )
    full_resync: bool = Field(
        default=False,
        description="Forget what was delivered, and deliver every row of the model anew (of the partitions of this "
        "run). Records are recognized as before, and rows in doubt stay so. If the run stops, the next one goes on. "
        "Not in the modes insert and append, which would create every record a second time.",
    )
    resync_keys: list[str] = Field(
        default=[],
        description="Deliver the rows with these primary keys anew, beside what has changed. A composite key is a JSON "
        'array of texts, as ["7", "eu"].',
    )

    @property
    def options(self) -> PlanOptions:
        return PlanOptions(
            allow_removals=self.allow_removals,
            allow_volume=self.allow_volume,
            full_resync=self.full_resync,
            resync_keys=tuple(self.resync_keys),
        )


@suppress_dagster_warnings  # backfill policies are in beta; the pin of dagster keeps them as they are
def sync_asset(sync: SyncSpec, partitions_def: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    """The asset of a sync; it depends on the asset of its model.

    Args:
        sync: The sync.
        partitions_def: That of its model: windows of time, or None.
    """
    upstream = {
        "rows": dg.AssetKey(sync.model.name),
        **{f"lookup_{name}": lookup_key(sync.destination.name, name) for name in sync.references},
        **{f"sync_{name}": dg.AssetKey(name) for name in sync.follows},
    }
    plan_op = _plan_op(sync, partitions_def, tuple(upstream)).alias("plan")
    write_op = _write_op(sync).alias("write")
    record_op = _record_op(sync, partitions_def).alias("record")
    target = sync.destination.target

    @dg.graph_asset(
        name=sync.name,
        ins={name: dg.AssetIn(key, dagster_type=dg.Nothing) for name, key in upstream.items()},
        group_name=re.sub(r"\W", "_", sync.destination.name),
        kinds={sync.destination.kind, *filter(None, [sync.destination.create().writes])},
        description=(
            f"Delivers the rows of `{sync.model.name}` to {sync.object} of {sync.destination.name} "
            f"({sync.destination.kind}); mode {sync.mode}, target {target.name}."
        ),
        tags={"integrations/sync": sync.name, "integrations/target": target.name, "integrations/mode": str(sync.mode)},
        metadata={
            "target": target.name,
            "mode": str(sync.mode),
            "object": sync.object,
            "defined in": sync.source or "Python",
        },
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions_def else None,
        check_specs=[
            dg.AssetCheckSpec(name, asset=sync.name, description=description)
            for name, description in checks_of(sync).items()
        ],
    )
    @_with_inputs(*upstream)
    def deliver(**inputs: Any) -> Any:
        made, shards = plan_op(**inputs)
        summaries = shards.map(write_op).collect()
        result, *checks = record_op(made, summaries)
        named = zip(checks_of(sync), checks, strict=True)
        return {"result": result, **{f"{sync.name}_{name}": check for name, check in named}}

    return deliver


def checks_of(sync: SyncSpec) -> dict[str, str]:
    """The asset checks of a sync: name to description."""
    checks = {CHECK: "Every row was valid, and the destination accepted it."}
    if sync.guards is not None:
        checks[VOLUME] = "The numbers of rows queried, added, changed and removed are not far from the usual."
    return checks | {spec.name: spec.description or "" for spec in schema_check_specs(sync)}


def _with_inputs(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a function that takes any keywords the signature of one that takes these, for Dagster to read."""

    def named(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return function

    return named


def _plan_op(
    sync: SyncSpec, partitions_def: dg.PartitionsDefinition | None, upstream: Sequence[str]
) -> dg.OpDefinition:
    @dg.op(
        name=f"plan_{sync.name}",
        description="Take the sync, find the rows that may differ at the destination, and cut them into shards.",
        ins={name: dg.In(dg.Nothing) for name in upstream},
        out={"made": dg.Out(dict[str, Any]), "shards": dg.DynamicOut(dict[str, Any])},
        tags={"integrations/step": "plan"},
    )
    def plan_op(
        context: dg.OpExecutionContext, config: PlanConfig
    ) -> Iterator[dg.Output[dict[str, Any]] | dg.DynamicOutput[dict[str, Any]] | dg.AssetCheckEvaluation]:
        misfit: FieldsDoNotFit | None = None
        with readable_failures():
            partitions = partitions_of(context, partitions_def)
            with run_context(context) as ctx:
                try:
                    made = plan(sync, ctx, partitions, config.options)
                except LeaseHeld as held:
                    seconds = min(WAIT_FIRST * 1.5**context.retry_number, WAIT_LONGEST)
                    context.log.info(f"{held.message} Waiting for it; the next look is in {seconds:.0f} s.")
                    raise dg.RetryRequested(max_retries=WAITS, seconds_to_wait=seconds) from held
                except FieldsDoNotFit as error:
                    misfit = error
        if misfit is not None:
            # The run ends here, without `record`: what failed is told as the checks that it would have told.
            yield from failed_schema_checks(sync, misfit.report)
            with readable_failures():
                raise misfit
        with readable_failures():
            counts = made.counts
            context.log.info(
                f"Sync {sync.name!r}, target {sync.destination.target.name}: {counts.queried:,} rows queried, "
                f"{counts.added:,} added, {counts.changed:,} changed, {counts.removed:,} removed, "
                f"{counts.unchanged:,} unchanged, {counts.invalid:,} invalid, {counts.held:,} held; "
                f"{len(made.shards)} write step(s)."
            )
            for note in made.notes:
                context.log.info(note)
            for use in made.lookups:
                if use.read:
                    context.log_event(read_by_plan(use, sync.destination))
        yield dg.Output(made.as_dict(), "made")
        for shard in made.shards:
            yield dg.DynamicOutput(shard.as_dict(), mapping_key=str(shard.index), output_name="shards")

    return plan_op


def _write_op(sync: SyncSpec) -> dg.OpDefinition:
    @dg.op(
        name=f"write_{sync.name}",
        description="Deliver one shard, and write down what the destination answered.",
        ins={"shard": dg.In(dict[str, Any])},
        out=dg.Out(dict[str, Any]),
        # For a killed process and for defects of ours; trouble at the destination never gets here.
        retry_policy=dg.RetryPolicy(max_retries=2, delay=1, backoff=dg.Backoff.EXPONENTIAL),
        tags={"integrations/step": "write"},
    )
    def write_op(context: dg.OpExecutionContext, shard: dict[str, Any]) -> dict[str, Any]:
        part = Shard.from_dict(shard)
        with readable_failures(), run_context(context) as ctx:
            progress = ProgressLog(part, context.log.info)
            summary = write(sync, ctx, part, progress)
            progress.finish(summary)
            if summary.stopped:
                context.log.error(f"Shard {part.index + 1} of {part.of} stopped: {summary.stopped}")
            return summary.as_dict()

    return write_op


def _record_op(sync: SyncSpec, partitions_def: dg.PartitionsDefinition | None) -> dg.OpDefinition:
    @dg.op(
        name=f"record_{sync.name}",
        description="Take what was acknowledged into the state, and give account of the run.",
        ins={"made": dg.In(dict[str, Any]), "summaries": dg.In(list[dict[str, Any]])},
        out={"result": dg.Out(dg.Nothing), **{name: dg.Out(dg.Nothing) for name in checks_of(sync)}},
        # `record` may be repeated: a killed process must not turn a delivered run into a failed one.
        retry_policy=dg.RetryPolicy(max_retries=2, delay=1),
        tags={"integrations/step": "record"},
    )
    def record_op(
        context: dg.AssetExecutionContext, made: dict[str, Any], summaries: list[dict[str, Any]]
    ) -> Iterator[dg.Output[None] | dg.AssetCheckResult]:
        planned = Plan.from_dict(made)
        with readable_failures(), run_context(context) as ctx:
            report = record(sync, ctx, planned, [WriteSummary.from_dict(part) for part in summaries])
        metadata = sync_metadata(sync, planned, report)
        if partitions_def:
            # Dagster puts the run's metadata on each of its partitions: this tells that the numbers are the run's.
            metadata["partitions_in_run"] = len(planned.versions)
        if report.failures:
            # A failed asset has no materialization, so its numbers are kept as an observation.
            for key in context.partition_keys if partitions_def else [None]:
                told = " ".join(("The run failed.", *report.failures))
                context.log_event(
                    dg.AssetObservation(asset_key=sync.name, description=told, partition=key, metadata=metadata)
                )
            yield from _checks(sync, planned, report)
            raise dg.Failure(
                description=f"Sync {sync.name!r} failed.\n\n" + "\n".join(report.failures),
                metadata=metadata,
                allow_retries=False,
            )
        for version in planned.versions:
            if version.partition:
                context.add_asset_metadata(sync_partition_metadata(version), sync.name, version.partition)
        yield dg.Output(None, "result", metadata=metadata)
        yield from _checks(sync, planned, report)

    return record_op


def _checks(sync: SyncSpec, planned: Plan, report: RunReport) -> Iterator[dg.AssetCheckResult]:
    yield _accepted(sync, report)
    if sync.guards is not None:
        yield dg.AssetCheckResult(
            asset_key=sync.name,
            check_name=VOLUME,
            passed=not planned.warnings,
            severity=dg.AssetCheckSeverity.WARN,
            description=" ".join(planned.warnings) or "The numbers are within the guards.",
            metadata={name: getattr(planned.counts, name) for name in COUNTED},
        )
    yield from schema_checks(sync, planned.schema)


def _accepted(sync: SyncSpec, report: RunReport) -> dg.AssetCheckResult:
    rejected = report.outcomes.get(Status.REJECTED, 0)
    in_doubt = report.outcomes.get(Status.IN_DOUBT, 0)
    unsent = report.outcomes.get(Status.UNSENT, 0)
    invalid = report.counts.invalid
    counts = {"rejected": rejected, "invalid": invalid, "in doubt": in_doubt, "unsent": unsent}
    found = [f"{n:,} {word}" for word, n in counts.items() if n]
    metadata: dict[str, Any] = {word.replace(" ", "_"): n for word, n in counts.items()}
    if report.reasons:
        metadata["most frequent reason"] = report.reasons[0][0]
    return dg.AssetCheckResult(
        asset_key=sync.name,
        check_name=CHECK,
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Rows: {', '.join(found)}." if found else "All rows were accepted.",
        metadata=metadata,
    )
