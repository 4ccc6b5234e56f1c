"""How the command line shows runs, previews and syncs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from integrations_dagster.delivery.scrub import mask_payload
from integrations_dagster.sync.preview import Preview
from integrations_dagster.sync.results import Plan, RunReport
from integrations_dagster.vocabulary import Status

if TYPE_CHECKING:
    from integrations_dagster.sync.spec import SyncSpec

FOUND = ("queried", "added", "changed", "removed", "unchanged", "invalid", "held")
DELIVERED = ("created", "updated", "deleted", "rejected")
WHEN_ANY = ("excluded", "in_doubt", "unsent", "retries", "throttled")
"""Numbers that are shown only where they are not all 0."""
LONGEST = 80
"""Characters of a value in a sample payload."""

Numbers = Mapping[str, float]


def out() -> Console:
    """For results."""
    return Console(highlight=False)


def err() -> Console:
    """For progress and errors."""
    return Console(stderr=True, highlight=False)


def print_wide(console: Console, table: Table) -> None:
    """Print a table wider than the terminal rather than squeezed: its lines are searched and cut by other tools."""
    needed = table.__rich_measure__(console, console.options.update(max_width=100_000)).maximum
    Console(file=console.file, width=max(console.width, needed), highlight=False).print(table)


def print_run(console: Console, title: str, syncs: Mapping[str, Numbers]) -> None:
    """A table of one run: a column for each sync.

    Args:
        title: Above the table.
        syncs: Name of the sync to its numbers, by the names of `FOUND`, `DELIVERED`, `WHEN_ANY`, "requests", "seconds".
    """
    console.print(title, style="bold", markup=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rows")
    for name in syncs:
        table.add_column(name, justify="right", no_wrap=True)

    def line(label: str, *, end: bool = False) -> None:
        values = [numbers.get(label, 0) for numbers in syncs.values()]
        cells = [f"{value:,.1f}" if label == "seconds" else f"{value:,.0f}" for value in values]
        bad = label in ("invalid", "rejected", "in_doubt", "unsent") and any(values)
        table.add_row(label.replace("_", " "), *cells, style="yellow" if bad else None, end_section=end)

    some = [label for label in WHEN_ANY if any(numbers.get(label, 0) for numbers in syncs.values())]
    for label in FOUND:
        line(label, end=label == FOUND[-1] and "excluded" not in some)
    if "excluded" in some:
        line("excluded", end=True)
    for label in DELIVERED:
        line(label, end=label == DELIVERED[-1] and not {"in_doubt", "unsent"} & set(some))
    for label in ("in_doubt", "unsent"):
        if label in some:
            line(label, end=label == "unsent" or "unsent" not in some)
    for label in ("requests", *(label for label in ("retries", "throttled") if label in some), "seconds"):
        line(label)
    console.print(table)


def numbers_of_report(plan: Plan, report: RunReport) -> dict[str, float]:
    """The numbers of `print_run`, from a run's report."""
    return {
        **report.counts.as_dict(),
        **{str(status): report.outcomes.get(status, 0) for status in Status if str(status) not in report_counted},
        "requests": report.traffic.requests,
        "retries": report.traffic.retries,
        "throttled": report.traffic.throttled,
        "seconds": sum(version.seconds for version in plan.versions)
        + plan.seconds
        + report.write_seconds
        + report.record_seconds,
    }


report_counted = ("unchanged", "invalid")
"""Outcomes that are also counts of the run, which say more."""


def print_bad_rows(console: Console, report: RunReport, most: int = 10) -> None:
    """The first rejected, invalid and in-doubt rows with their reasons."""
    if not report.bad_rows:
        return
    console.print("Rows that were not delivered", style="bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("key", "outcome", "reason"):
        table.add_column(name, overflow="fold")
    for row in report.bad_rows[:most]:
        table.add_row(Text(row.key), str(row.status).replace("_", " "), Text(row.reason or row.code))
    console.print(table)
    if report.reasons:
        told = "; ".join(f"{count:,} x {reason}" for reason, count in report.reasons[:3])
        console.print(f"Most frequent: {told}", markup=False)


def print_preview(console: Console, sync: SyncSpec, found: Preview) -> None:
    """What a run would send."""
    target = sync.destination.target.name
    console.print(
        f"{sync.name}: {sync.model.name} -> {sync.object} of {sync.destination.name} ({sync.destination.kind}), "
        f"mode {sync.mode}, target {target}. Nothing is sent.",
        markup=False,
    )
    counts = found.counts.as_dict()
    counts["unchanged"] += found.unchanged_payload
    counts["invalid"] += found.invalid
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    labels = [*FOUND, *(["excluded"] if counts["excluded"] else [])]
    for label in [*labels, "to send"]:
        table.add_column(label, justify="right")
    table.add_row(*(f"{counts[label]:,}" for label in labels), f"{found.to_send:,}")
    console.print(table)
    sensitive = sync.sensitive
    for sample in found.samples:
        head = f"{sample.action}  key {sample.key}  match {sample.match}  {sample.note}".rstrip()
        console.print(head, markup=False, soft_wrap=True)
        payload = mask_payload(sample.payload, sensitive)
        if sample.before is None:
            console.print(json.dumps(_shortened(payload), indent=2, ensure_ascii=False), markup=False, soft_wrap=True)
        else:
            _print_difference(console, sample.before, payload, sensitive)
    if found.samples and not sync.keep_values:
        console.print("The last values are not kept (keep_values), so that only the new ones are shown.", style="dim")
    print_notes(console, found.notes)


def _print_difference(
    console: Console, before: Mapping[str, Any], after: Mapping[str, Any], sensitive: frozenset[str]
) -> None:
    """A line for each field whose value differs, old -> new; sensitive ones may, since their old value is not kept."""
    same = 0
    for name in sorted({*before, *after}):
        if name not in sensitive and name in before and name in after and before[name] == after[name]:
            same += 1
            continue
        old, new = (
            json.dumps(_shortened(of[name]), ensure_ascii=False) if name in of else "(none)" for of in (before, after)
        )
        console.print(f"  {name}: {'(not kept)' if name in sensitive else old} -> {new}", markup=False)
    if same:
        console.print(f"  {same} field(s) as they are", style="dim")


def print_notes(console: Console, notes: Iterable[str]) -> None:
    """Sentences that a run or a preview has for a person."""
    for note in notes:
        console.print(f"- {note}", markup=False)


def print_syncs(console: Console, syncs: Sequence[SyncSpec], broken: Mapping[str, str]) -> None:
    """The syncs of a project, and what is broken in it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("sync", "model", "to", "mode", "target"):
        table.add_column(name, no_wrap=True)
    table.add_column("schedule", no_wrap=True)
    for sync in sorted(syncs, key=lambda sync: sync.name):
        destination = sync.destination
        schedule = sync.schedule or ("with its model" if sync.on_model else "-")
        to = f"{destination.name}: {sync.object}"
        cells = (sync.name, sync.model.name, to, str(sync.mode), destination.target.name, schedule)
        table.add_row(*(Text(cell) for cell in cells))
    print_wide(console, table)
    for folder, error in broken.items():
        console.print(f"broken: {folder}: {error}", style="red", markup=False)


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _shortened(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(inner) for inner in value]
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[: LONGEST - 1]}… ({len(value):,} characters)"
    return value
