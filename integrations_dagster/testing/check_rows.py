"""Checks of what answers say of rows: each outcome is its own row's, with a reason that a person understands."""

from __future__ import annotations

import random
import re

from integrations_dagster.destinations.base import Limits
from integrations_dagster.testing.checks import (
    MADE,
    Per,
    Skipped,
    actions,
    check,
    differences,
    expect,
    expect_all_accepted,
    shown,
    staged,
)
from integrations_dagster.testing.lab import TOKEN, Lab
from integrations_dagster.testing.proxy import Fault
from integrations_dagster.testing.subject import Answer
from integrations_dagster.vocabulary import SUCCEEDED, Action, Status

MOST_ROWS = 1200
"""Rows beyond which the limit of rows is not tried out."""
MOST_BYTES = 4_000_000
_READ = "Read the outcome of each row from what the answer says of that very row (its place, key or trace id)."
_MACHINE = re.compile(r"<\s*/?\s*[a-zA-Z][^<>]*>|[{\[]\s*['\"][^'\"]*['\"]\s*[:,]|Traceback|object at 0x|\bb'")
"""What is for machines: markup, dictionaries, tracebacks, bytes."""


@check(Per.ACTION, proxied=False)
def all_accepted(lab: Lab, action: Action) -> None:
    """When the server accepts every row, every row is told as accepted, in the word of its action, and no two rows
    have the same record id."""
    stage = staged(lab, action, 13)
    done = lab.deliver(action, stage.rows, ids=stage.ids)
    expect_all_accepted(stage, list(done.outcomes.items()), _READ)
    wrong = {key for key, outcome in done.outcomes.items() if outcome.status not in MADE[action]}
    expect(not wrong, f"{action}: {shown(wrong)} accepted as something else.", f"Answer with {_words(action)}.")
    ids = [outcome.destination_id for outcome in done.outcomes.values() if outcome.destination_id]
    expect(
        len(ids) == len(set(ids)),
        "Two rows have the same record id.",
        "Take the id of each row from its own part of the answer: deletions and renames go by it.",
    )


@check(Per.ACTION, proxied=False)
def all_rejected(lab: Lab, action: Action) -> None:
    """When the server rejects every row, every row is rejected, and nothing is at the server."""
    stage = staged(lab, action, 8, bad=range(8))
    done = lab.deliver(action, stage.rows, ids=stage.ids)
    others = set(stage.rows) - done.of(Status.REJECTED)
    expect(
        not others,
        f"The server rejects all rows, and {shown(others)} ended as "
        f"{', '.join(sorted({done.outcomes[key].status for key in others & set(done.outcomes)})) or 'nothing'}.",
        "An answer that rejects rows makes them rejected: raise PoisonedBatch for one that refuses a batch whole.",
    )
    left = differences(lab, stage.before)
    expect(not left, f"Rejected rows changed the server: {left}.", "Look at what the request writes before it fails.")


@check(Per.ACTION, seeds=True, proxied=False)
def partial_failure(lab: Lab, action: Action, seed: int) -> None:
    """Rows that the server rejects among others it accepts are rejected, in whatever places they stand, and no other
    row is: what is told as accepted is at the server, with its values."""
    drawn = random.Random(seed)  # noqa: S311 (places of rows)
    # Not symmetric within a batch, nor equal to itself when moved by one: a wrong order cannot look right.
    places = {first + drawn.choice((0, 1, 3, 4)) for first in (0, 5, 10)} | {15}
    stage = staged(lab, action, 18, bad=places)
    done = lab.deliver(action, stage.rows, ids=stage.ids)
    bad = {key for place, key in enumerate(stage.rows) if place in places}
    rejected = done.of(Status.REJECTED)
    accepted = done.of(*SUCCEEDED)
    expect(
        rejected == bad,
        f"Rejected were {shown(rejected) or 'none'}; the server rejects {shown(bad)}.",
        _READ,
    )
    expect(accepted == set(stage.rows) - bad, f"Accepted were {shown(accepted) or 'none'}, not all the others.", _READ)
    left = differences(lab, stage.after)
    expect(not left, f"What was told as accepted is not what the server has: {left}.", _READ)


@check(Per.DESTINATION, proxied=False)
def messages(lab: Lab) -> None:
    """Why a row was rejected, or why a run stopped, is said in words for a person: nothing is empty, no markup, no
    dictionary, no traceback, and no secret."""
    told: list[str] = []
    for action in _writing(lab):
        try:
            stage = staged(lab, action, 3, bad=(1,))
        except Skipped:
            continue
        done = lab.deliver(action, stage.rows, ids=stage.ids)
        told += [outcome.reason for outcome in done.outcomes.values() if outcome.status is Status.REJECTED]
    if lab.destination.transport == "http":
        told += _stopped(lab, len(told))
    elif not told:
        raise Skipped(f"No row is rejected, and requests go by {lab.destination.transport}: nothing can stop a run.")
    for text in told:
        expect(text.strip(), "A reason is empty.", "Give the vendor's message, or say in words what is known.")
        expect(
            not _MACHINE.search(text),
            f"A reason is for machines: {text[:200]!r}.",
            "Take the vendor's message out of the answer (`error_table.shorten`), and leave out what is none.",
        )
        expect(len(text) <= 1000, f"A reason has {len(text)} characters.", "Shorten it (`error_table.shorten`).")
        for secret in lab.secrets():
            expect(secret not in text, "A reason holds a secret.", "Quote no request and no header in reasons.")


def _stopped(lab: Lab, start: int) -> list[str]:
    """Why runs stop that are answered with pages, and with their own secrets."""
    told: list[str] = []
    page = b"<!DOCTYPE html><html><head><title>Error</title></head><body><h1>It broke</h1></body></html>"
    echo = " ".join(lab.secrets()).encode()
    for answer in (
        Answer(503, page, {"content-type": "text/html"}),
        Answer(403, page, {"content-type": "text/html"}),
        Answer.json(403, {"error": f"no such token {echo.decode()}", "message": f"no such token {echo.decode()}"}),
    ):
        action = _writing(lab)[0]
        stage = staged(lab, action, 2, start=100 + start + len(told))
        lab.proxy.faults = [Fault(answer, times=None, reads=None)]
        done = lab.deliver(action, stage.rows, ids=stage.ids, attempts=1)
        lab.proxy.faults = []
        told += [done.reason or next(iter(done.outcomes.values())).reason]
    return told


@check(Per.DESTINATION)
def request_ids(lab: Lab) -> None:
    """The vendor's own id of a request is told with the rows that it rejected, so that its support can find them."""
    if not lab.subject.request_id:
        raise Skipped("The vendor names no requests (`Subject.request_id`).")
    stage = staged(lab, _writing(lab)[0], 4, bad=(1,))
    done = lab.deliver(stage.action, stage.rows, ids=stage.ids)
    known = {seen.told.get(lab.subject.request_id, "") for seen in done.requests} - {""}
    wrong = {key for key in done.of(Status.REJECTED) if done.outcomes[key].request_id not in known}
    expect(
        known and not wrong,
        f"Rejected rows name no request that the server named ({shown(wrong)}).",
        "Put `request_id(response)` into their outcomes.",
    )


@check(Per.ACTION)
def limits(lab: Lab, action: Action) -> None:
    """No request carries more rows or bytes than the destination says, and it says no more than the vendor."""
    declared = lab.destination.limits(lab.subject.object, action)
    takes = lab.subject.takes or Limits(rows=declared.rows)
    rows = min(declared.rows, takes.rows)
    most = min((size for size in (declared.bytes, takes.bytes) if size is not None), default=None)
    for name, ours, theirs in (
        ("rows", declared.rows, takes.rows),
        ("bytes", declared.bytes, takes.bytes),
        ("row_bytes", declared.row_bytes, takes.row_bytes),
    ):
        expect(
            theirs is None or (ours is not None and ours <= theirs),
            f"`limits` says {name}={ours}, and the vendor takes {theirs}.",
            f"Let `limits` say {name}={theirs}.",
        )
    if rows < MOST_ROWS:
        _sent_within(lab, action, rows + 1, rows, most, "")
    if most is not None and most <= MOST_BYTES / 2 and action is not Action.DELETE:
        # Quotes, markup and letters of several bytes: what an encoding makes longer.
        length = min(lab.subject.longest, (declared.row_bytes or most) // 8, most // 8)
        text = ('"<&>\\é漢 ' * length)[:length]
        count = min(int(1.3 * most / length) + 1, 3000)
        lab.subject.reset()
        _sent_within(lab, action, count, rows, most, text)


def _sent_within(lab: Lab, action: Action, count: int, rows: int, most: int | None, text: str) -> None:
    stage = staged(lab, action, count)
    if text:
        stage.rows.update({key: {**row, lab.subject.text: text} for key, row in stage.rows.items()})
    done = lab.deliver(action, stage.rows, ids=stage.ids, batch_rows=None)
    for seen in done.writes:
        carried = len(set(TOKEN.findall(seen.body)) or {b""})
        expect(
            carried <= rows,
            f"A request carried {carried} rows, and {rows} are taken.",
            "Let a flow send the rows of its batch and no others; `limits` decides how many they are.",
        )
        expect(
            most is None or len(seen.body) <= most,
            f"A request had {len(seen.body):,} bytes, and {most or 0:,} are taken.",
            "Let `limits` say fewer bytes, by what the destination adds to each row's canonical JSON (200 bytes a row "
            "are allowed for already).",
        )
    expect_all_accepted(
        stage, list(done.outcomes.items()), "Full requests must be accepted: compare `limits` with the vendor's."
    )


@check(Per.DESTINATION)
def account_limits(lab: Lab) -> None:
    """Requests keep the quotas and the number in flight that the destination declares of an account."""
    declared = lab.destination.account_limits()
    if not declared.quotas and declared.concurrency is None:
        raise Skipped("The destination declares no limits of an account.")
    stage = staged(lab, _writing(lab)[0], 14)
    lab.proxy.clear()
    lab.deliver(stage.action, stage.rows, ids=stage.ids, batch_rows=1, quotas=None)
    times = [seen.at for seen in lab.proxy.seen]
    for quota in declared.quotas:
        busiest = max(sum(start <= at < start + quota.seconds for at in times) for start in times)
        expect(
            busiest <= quota.requests,
            f"{busiest} requests within {quota.seconds:g} s, and {quota.requests} are allowed.",
            "Declare the vendor's quota in `account_limits`.",
        )
    expect(
        declared.concurrency is None or lab.proxy.most_in_flight <= declared.concurrency,
        f"{lab.proxy.most_in_flight} requests in flight at once, and {declared.concurrency} are allowed.",
        "Declare the vendor's cap in `account_limits`.",
    )


def _writing(lab: Lab) -> list[Action]:
    """The destination's actions, those first that can be rejected row by row."""
    return actions(lab.modes)


def _words(action: Action) -> str:
    return " or ".join(sorted(f"Status.{status.name}" for status in MADE[action]))
