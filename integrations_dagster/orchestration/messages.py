"""What is told of a run: sync, error, counts, most frequent reasons, and where to look."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, DagsterRun
from dagster._core.events import DagsterEvent

from integrations_dagster.orchestration.metadata import numbers_of, reasons_of
from integrations_dagster.orchestration.runs import assets_of
from integrations_dagster.sync.spec import SyncSpec

REASONS = 3
ERROR_TEXT = 1200
"""Characters of an error in a message."""
WEBSERVER_ENV = "DAGSTER_WEBSERVER_URL"
COUNTED = ("queried", "added", "changed", "removed", "unchanged", "invalid", "held")
ENDED = ("created", "updated", "deleted", "rejected", "in_doubt", "unsent")


@dataclass(frozen=True, slots=True)
class Message:
    """One message: a channel and a text in Slack's markup."""

    channel: str
    text: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Account:
    """What a run's log says of one sync.

    Attributes:
        finished: Whether its asset was materialized.
        metadata: That of its materialization, or of the observation before it failed.
        error: Why it failed, or "".
    """

    finished: bool
    metadata: Mapping[str, dg.MetadataValue]
    error: str


def failure_messages(
    instance: DagsterInstance,
    run: DagsterRun,
    syncs: Mapping[str, SyncSpec],
    repository: dg.RepositoryDefinition | None,
) -> list[Message]:
    """One message for each sync of a failed run that did not finish.

    Args:
        syncs: The syncs that alert, by name.
        repository: Tells what a run without selection and tags materializes.
    """
    messages = []
    events = _events(instance, run)
    for name in sorted(assets_of(run, repository) & syncs.keys()):
        sync = syncs[name]
        account = _account(sync, events)
        if account.finished:
            continue
        lines = [
            f":x: Sync *{_escape(name)}* failed (target {_escape(sync.destination.target.name)}).",
            _quote(account.error or _run_error(events) or "The run ended without an error of this sync."),
            *_numbers(account.metadata),
            *_reasons(account.metadata),
        ]
        if run.tags.get("dagster/will_retry") == "true":
            lines.append("The run is launched again by itself.")
        messages.append(_message(sync, lines, run))
    return messages


def rejection_messages(
    instance: DagsterInstance,
    run: DagsterRun,
    syncs: Mapping[str, SyncSpec],
    repository: dg.RepositoryDefinition | None,
) -> list[Message]:
    """One message for each sync of a run that succeeded with more rejected rows than `alerts.when` allows."""
    limits = {name: sync for name, sync in syncs.items() if sync.alerts.rejected_above is not None}
    names = sorted(assets_of(run, repository) & limits.keys())
    messages = []
    events = _events(instance, run) if names else []
    for name in names:
        sync, account = limits[name], _account(limits[name], events)
        share = numbers_of(account.metadata).get("rejected_share", 0.0)
        limit = sync.alerts.rejected_above or 0.0
        if share <= limit:
            continue
        lines = [
            f":warning: Sync *{_escape(name)}* delivered, but {share:.1%} of its rows were rejected "
            f"(limit {limit:.1%}, target {_escape(sync.destination.target.name)}).",
            *_numbers(account.metadata),
            *_reasons(account.metadata),
        ]
        messages.append(_message(sync, lines, run))
    return messages


def run_url(run_id: str, env: Mapping[str, str]) -> str:
    """The run's page: DAGSTER_WEBSERVER_URL is the root of the UI, by default http://localhost:3000."""
    return f"{env.get(WEBSERVER_ENV, 'http://localhost:3000').rstrip('/')}/runs/{run_id}"


def _message(sync: SyncSpec, lines: Sequence[str], run: DagsterRun) -> Message:
    link = f"<{run_url(run.run_id, os.environ)}|Run {run.run_id[:8]}>"
    return Message(sync.alerts.slack or "", "\n".join([*lines, link]))


def _events(instance: DagsterInstance, run: DagsterRun) -> list[DagsterEvent]:
    kinds = {
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_OBSERVATION,
        DagsterEventType.STEP_FAILURE,
        DagsterEventType.RUN_FAILURE,
    }
    records = instance.get_records_for_run(run.run_id, of_type=kinds).records
    return [event for record in records if (event := record.event_log_entry.dagster_event) is not None]


def _account(sync: SyncSpec, events: Sequence[DagsterEvent]) -> Account:
    finished, error = False, ""
    metadata: Mapping[str, dg.MetadataValue] = {}
    for event in events:
        kind = event.event_type
        key = event.asset_key
        mine = key is not None and key.to_user_string() == sync.name
        if kind == DagsterEventType.ASSET_MATERIALIZATION and mine:
            finished, metadata = True, event.materialization.metadata
        elif kind == DagsterEventType.ASSET_OBSERVATION and mine:
            metadata = event.asset_observation_data.asset_observation.metadata
        elif kind == DagsterEventType.STEP_FAILURE and not error:
            step = event.step_key or ""
            if step == sync.model.name or step.partition(".")[0] == sync.name:
                error = _step_error(event)
    return Account(finished, metadata, error)


def _step_error(event: DagsterEvent) -> str:
    data = event.step_failure_data
    told = data.user_failure_data.description if data.user_failure_data else None
    if told:
        return told
    cause: Any = data.error
    while cause is not None and cause.cause is not None:
        cause = cause.cause
    return f"Step {event.step_key}: {cause.message.strip() if cause else 'its process ended'}"


def _run_error(events: Sequence[DagsterEvent]) -> str:
    failures = [event for event in events if event.event_type == DagsterEventType.RUN_FAILURE]
    return failures[-1].message or "" if failures else ""


def _numbers(metadata: Mapping[str, dg.MetadataValue]) -> list[str]:
    numbers = numbers_of(metadata)
    if not numbers:
        return []

    def line(names: Sequence[str]) -> str:
        found = {"queried": "rows_queried"}
        return ", ".join(f"{numbers.get(found.get(n, n), 0):,.0f} {n.replace('_', ' ')}" for n in names)

    return [f"Rows: {line(COUNTED)}.", f"Delivered: {line(ENDED)}."]


def _reasons(metadata: Mapping[str, dg.MetadataValue]) -> list[str]:
    reasons = reasons_of(metadata)[:REASONS]
    return (
        ["Most frequent reasons:", *(f"• {count:,} × {_escape(reason)}" for reason, count in reasons)]
        if reasons
        else []
    )


def _quote(text: str) -> str:
    cut = text if len(text) <= ERROR_TEXT else f"{text[:ERROR_TEXT]}…"
    return "\n".join(f"> {line}" for line in _escape(cut).splitlines() if line.strip())


def _escape(text: str) -> str:
    """Slack reads three characters as markup: https://api.slack.com/reference/surfaces/formatting#escaping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
