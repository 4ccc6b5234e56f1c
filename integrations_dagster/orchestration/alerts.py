"""Telling Slack of failed runs, and of runs that succeeded with too many rejected rows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, DagsterRun, RunStatusChangeRecordsFilter

from integrations_dagster.orchestration.messages import Message, failure_messages, rejection_messages
from integrations_dagster.sync.spec import SyncSpec

SENSOR = "slack_alerts"
INTERVAL = 15
"""Seconds between two ticks."""
RUNS_PER_TICK = 50
ATTEMPTS = 40
"""Ticks in which one message is tried before it is given up: ten minutes of an outage at the least."""

Kind = DagsterEventType
WATCHED: Mapping[str, Kind] = {"failure": Kind.RUN_FAILURE, "success": Kind.RUN_SUCCESS}


@dataclass(slots=True)
class Cursor:
    """How far the sensor is.

    Attributes:
        after: Storage id of the last run seen, by key of `WATCHED`.
        pending: Messages that Slack has not taken, with the attempts made.
        off: Whether it was said that alerts are off.
    """

    after: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[Message, int]] = field(default_factory=list)
    off: bool = False

    @classmethod
    def read(cls, text: str | None) -> Cursor:
        if not text:
            return cls()
        data = json.loads(text)
        pending = [(Message(**message), attempts) for message, attempts in data["pending"]]
        return cls(data["after"], pending, data["off"])

    def write(self) -> str:
        pending = [(message.as_dict(), attempts) for message, attempts in self.pending]
        return json.dumps({"after": self.after, "pending": pending, "off": self.off})


def alert_definitions(syncs: Sequence[SyncSpec]) -> dg.Definitions:
    """The sensor that tells Slack; none if no sync asks for it."""
    told = {sync.name: sync for sync in syncs if sync.alerts.slack}
    return dg.Definitions(sensors=[_alert_sensor(told)]) if told else dg.Definitions()


def _alert_sensor(syncs: Mapping[str, SyncSpec]) -> dg.SensorDefinition:
    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells Slack of failed runs, and of runs with more rejected rows than `alerts.when` allows.",
    )
    def slack_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        # Imported here: a step that loads the code location has no use for a Slack client.
        from integrations_dagster.orchestration.slack import TOKEN_ENV, refusal, slack_account

        cursor = Cursor.read(context.cursor)
        account = slack_account(os.environ)
        if account is None:
            reason = f"Slack alerts are off, because {TOKEN_ENV} is not set."
            if not cursor.off:
                context.log.warning(reason)
            # What happens while alerts are off is not told later.
            context.update_cursor(Cursor(_newest(context.instance), off=True).write())
            return dg.SkipReason(reason)
        cursor.off = False
        _collect(context, cursor, syncs)
        client = account.get_client()

        def send(message: Message) -> str:
            try:
                client.chat_postMessage(channel=message.channel, text=message.text, unfurl_links=False)
            except Exception as error:  # noqa: BLE001 (whatever ails Slack, the sensor goes on)
                return refusal(error)
            return ""

        said = _deliver(cursor, send, context.log.warning)
        context.update_cursor(cursor.write())
        return dg.SkipReason(said)

    return slack_alerts


def _newest(instance: DagsterInstance) -> dict[str, int]:
    newest = {}
    for name, kind in WATCHED.items():
        records = instance.fetch_run_status_changes(kind, limit=1).records
        newest[name] = records[0].storage_id if records else 0
    return newest


def _collect(context: dg.SensorEvaluationContext, cursor: Cursor, syncs: Mapping[str, SyncSpec]) -> None:
    """Add messages of the runs that ended since the last tick."""
    instance = context.instance
    if not cursor.after:
        cursor.after = _newest(instance)
    builders: Mapping[str, Callable[[DagsterInstance, DagsterRun, Mapping[str, SyncSpec], Any], list[Message]]] = {
        "failure": failure_messages,
        "success": rejection_messages,
    }
    for name, kind in WATCHED.items():
        records = instance.fetch_run_status_changes(
            RunStatusChangeRecordsFilter(event_type=kind, after_storage_id=cursor.after[name]),  # type: ignore[arg-type]
            limit=RUNS_PER_TICK,
            ascending=True,
        ).records
        for record in records:
            cursor.after[name] = record.storage_id
            run = instance.get_run_by_id(record.run_id)
            if run is not None:
                messages = builders[name](instance, run, syncs, context.repository_def)
                cursor.pending.extend((message, 0) for message in messages)


def _deliver(cursor: Cursor, send: Callable[[Message], str], warn: Callable[[str], None]) -> str:
    """Send what is pending, each message once a tick at the most; returns what happened, for the tick."""
    sent, waiting, trouble = 0, [], ""
    for message, attempts in cursor.pending:
        # One failed call is enough in an outage: each may take as long as its timeout.
        problem = trouble or send(message)
        if not problem:
            sent += 1
        elif attempts + 1 < ATTEMPTS:
            waiting.append((message, attempts + 1))
        else:
            warn(f"Given up after {ATTEMPTS} attempts ({problem}): {message.text}")
        if problem.startswith("Slack could not be reached"):
            trouble = problem
        elif problem:
            warn(f"{problem} for channel {message.channel}.")
    cursor.pending = waiting
    if trouble:
        warn(f"{trouble}; {len(waiting)} message(s) are tried again at the next tick.")
    return f"{sent} message(s) sent, {len(waiting)} waiting." if sent or waiting else "Nothing to tell."
