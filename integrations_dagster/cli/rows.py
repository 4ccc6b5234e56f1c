"""Single rows from the terminal: what became of one, held ones sent again, doubts resolved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from integrations_dagster.cli.run import Launch, surroundings
from integrations_dagster.keys import parse_duration
from integrations_dagster.planner.candidates import Release
from integrations_dagster.sync.doubts import confirm
from integrations_dagster.sync.trace import (
    Awaited,
    Changed,
    Event,
    Held,
    Known,
    Requested,
    Settled,
    held_partitions,
    trace,
)
from integrations_dagster.vocabulary import HeldStatus, Misconfigured, Status

if TYPE_CHECKING:
    from integrations_dagster.components.load import Project
    from integrations_dagster.sync.spec import SyncSpec

BAD = frozenset(map(str, (Status.REJECTED, Status.INVALID, Status.IN_DOUBT, Status.UNSENT)))
COMPOSITE = 'A key is written as text, one of several columns as a JSON array: \'["a","b"]\'.'


# retry


def parse_since(text: str, now: float) -> float:
    """Seconds since the epoch that `--since` says: ISO 8601 (UTC unless it says a zone), or a time ago ("2h", "3d").

    Raises:
        Misconfigured: It is neither.
    """
    ago = parse_duration(text)
    if ago is not None:
        return now - ago
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Misconfigured(
            f"--since {text!r} is no time.", 'Write ISO 8601, as 2026-08-01T12:00, or a time ago, as "2h" or "3d".'
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def release_of(keys: Sequence[str], since: str | None, reason: str, *, in_doubt: bool) -> Release:
    """What `integrations retry` asks for.

    Raises:
        Misconfigured: `since` is no time.
    """
    return Release(
        keys=tuple(keys),
        since=None if since is None else parse_since(since, time.time()),
        reason=reason,
        # Whoever names a row in doubt has decided about it.
        in_doubt=in_doubt or bool(keys),
    )


def retry_launch(
    project: Project, sync: SyncSpec, storage: Path, release: Release, partitions: Sequence[str], console: Console
) -> Launch:
    """The launch that sends held rows again. Of a partitioned model, their partitions, unless some are named.

    Raises:
        IntegrationsError: Nothing is held, or a partition is unknown.
    """
    from integrations_dagster.cli.project import windows

    named = list(partitions)
    if sync.model.partitioned and not named:
        with surroundings(storage, console) as ctx:
            named = held_partitions(sync, ctx, release.keys)
        if not named:
            which = f" Not held: {', '.join(release.keys)}." if release.keys else ""
            raise Misconfigured(
                f"Sync {sync.name!r} holds no such row.{which}",
                f"See what it did with `integrations trace {sync.name} KEY`.",
            )
    return Launch(windows(project, sync, named), release=release)


# confirm


def confirm_rows(
    sync: SyncSpec, storage: Path, keys: Sequence[str], destination_id: str | None, console: Console
) -> list[str]:
    """Record that rows in doubt are at the destination.

    Returns:
        The keys that were in doubt; the others are left as they are.

    Raises:
        IntegrationsError: Several keys are given for one id, or another run holds the sync.
    """
    if destination_id is not None and len(set(keys)) != 1:
        raise Misconfigured(f"--id names one record, and {len(keys)} keys are given.", "Confirm them one by one.")
    with surroundings(storage, console) as ctx:
        return confirm(sync, ctx, keys, destination_id)


# trace


def trace_row(sync: SyncSpec, storage: Path, key: str, console: Console) -> list[Event]:
    """Everything that is known of a row.

    Raises:
        IntegrationsError: Nothing is.
    """
    with surroundings(storage, console) as ctx:
        events = trace(sync, ctx, key)
    if not events:
        target = sync.destination.target.name
        raise Misconfigured(
            f"Sync {sync.name!r} knows nothing of a row with the key {key!r} in target {target}: it was never sent, "
            "and it was not invalid.",
            COMPOSITE,
        )
    return events


def print_trace(console: Console, sync: SyncSpec, key: str, events: Sequence[Event], *, bodies: bool = False) -> None:
    """One line for each event, with the run's name before the first of each run.

    Args:
        bodies: Whether the bodies of requests are shown, where they were kept.
    """
    destination = sync.destination
    console.print(
        f"{sync.name}, key {key}: {sync.object} of {destination.name} ({destination.kind}), target "
        f"{destination.target.name}. Times are UTC.",
        style="bold",
        markup=False,
        soft_wrap=True,
    )
    run = None
    for event in events:
        if isinstance(event, Held | Known):
            continue
        if event.run_id != run:
            run = event.run_id
            console.print(f"\nrun {run}", style="bold", markup=False, soft_wrap=True)
        _line(console, _time(event.at), _word(event), _what(event), bad=_is_bad(event))
        if bodies and isinstance(event, Requested):
            for arrow, body in ((">", event.request), ("<", event.response)):
                if body:
                    console.print(f"    {arrow} {body}", markup=False, soft_wrap=True, style="dim")
    console.print("\nnow", style="bold")
    held = [event for event in events if isinstance(event, Held)]
    known = [event for event in events if isinstance(event, Known)]
    for event in held:
        _line(console, "", "held", _held(event, sync), bad=True)
    for record in known:
        _line(console, "", "record", _record(record), bad=not record.acknowledged)
        if bodies and record.values:
            console.print(f"    = {record.values}", markup=False, soft_wrap=True, style="dim")
    if not known:
        _line(console, "", "record", "none is known at the destination", bad=False)


def _line(console: Console, at: str, word: str, what: str, *, bad: bool) -> None:
    line = Text(f"  {at:<23}{'  ' if at else ''}{word:<8}  ", style="dim")
    console.print(line.append(what, style="yellow" if bad else "not dim"), soft_wrap=True)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")


def _word(event: Event) -> str:
    return {Changed: "change", Awaited: "open", Requested: "request", Settled: "outcome"}[type(event)]


def _is_bad(event: Event) -> bool:
    match event:
        case Settled():
            return event.outcome in BAD
        case Requested():
            return bool(event.error) or event.status is None
        case _:
            return isinstance(event, Awaited)


def _what(event: Changed | Awaited | Requested | Settled) -> str:
    match event:
        case Changed():
            partition = f", partition {event.partition}" if event.partition else ""
            rows = f", in a batch of {event.rows:,}" if event.rows else ""
            return f"{event.change} ({event.action}), match {event.match}{partition}, shard {event.shard}{rows}"
        case Awaited():
            until = _time(event.deadline)
            then = "it is sent again after that" if event.repeatable else "the row is in doubt after that"
            return f"sent at about {_time(event.at)}, no answer yet; it may take effect until {until}, {then}"
        case Requested():
            status = "no answer" if event.status is None else str(event.status)
            # A webhook's requests go to its address itself, which may be a secret.
            parts = [
                f"{event.method} {event.path or 'base_url'} -> {status} in {event.milliseconds:,} ms",
                f"attempt {event.attempt}",
            ]
            parts += [f"{event.rows:,} rows"] if event.rows != 1 else []
            parts += [event.error] if event.error else []
            parts += [f"request id {event.request_id}"] if event.request_id else []
            return ", ".join(parts)
        case Settled():
            late = " (late: the batch had been given up)" if event.late else ""
            id_ = f", id {event.destination_id}" if event.destination_id else ""
            return f"{_words(event.outcome)}{late}{id_}{_because(event.code, event.reason)}" + (
                f" (request id {event.request_id})" if event.request_id else ""
            )


def _because(code: str, reason: str) -> str:
    return ": ".join(["", *filter(None, (code, reason))]) if code or reason else ""


def _held(event: Held, sync: SyncSpec) -> str:
    text = f"{_words(event.status)} since {_time(event.since)}"
    if event.status == HeldStatus.REJECTED:
        due = f"not before {_time(event.not_before)}" if event.not_before is not None else "by the next run"
        text += f", {_times(event.attempts)}; tried again {due}"
    elif event.status == HeldStatus.PARKED:
        text += f", {_times(event.attempts)}; tried again when it changes, or with `integrations retry {sync.name}`"
    elif event.status == HeldStatus.IN_DOUBT:
        text += f" (batch {event.batch}); look it up, then `integrations confirm {sync.name}` or `integrations retry`"
    elif event.status == HeldStatus.INVALID:
        text += "; judged again when it changes"
    return text + _because(event.code, event.reason)


def _times(attempts: int) -> str:
    return "rejected once" if attempts == 1 else f"rejected {attempts} times"


def _record(event: Known) -> str:
    id_ = f"id {event.destination_id}" if event.destination_id else "id unknown"
    partition = f", partition {event.partition}" if event.partition else ""
    state = "as acknowledged" if event.acknowledged else "content unknown: an answer is missing"
    return f"match {event.match}, {id_}{partition}, {state}"


def _words(name: str) -> str:
    return name.replace("_", " ")
