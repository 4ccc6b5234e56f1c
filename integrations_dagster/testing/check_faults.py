"""Checks of what goes wrong between engine and server: throttling, expiry, lost answers, outages, odd answers."""

from __future__ import annotations

import json
from typing import Any

from integrations_dagster.destinations.base import Repeat
from integrations_dagster.testing.checks import (
    Per,
    Skipped,
    check,
    differences,
    expect,
    expect_all_accepted,
    staged,
)
from integrations_dagster.testing.lab import Delivered, Lab, Ran, key_of
from integrations_dagster.testing.proxy import Fault
from integrations_dagster.testing.subject import Answer
from integrations_dagster.vocabulary import SUCCEEDED, Action, Mode, Status

PAGE = b"<!DOCTYPE html><html><body><h1>Welcome to the proxy of this network</h1></body></html>"
HTML = Answer(200, PAGE, {"content-type": "text/html; charset=utf-8"})
UNREADABLE = {
    "an HTML page": HTML,
    "JSON that breaks off": Answer(200, b'{"results": [{"id": "1", "sta', {"content-type": "application/json"}),
    "bytes that are no text": Answer(200, b"\x00\xff\xfe\x80 \x01", {"content-type": "application/json"}),
    "JSON of another shape": Answer.json(200, ["ok"]),
}
SILENT = {
    "an empty body": Answer(200),
    "an empty JSON object": Answer.json(200, {}),
    "202 and an empty JSON object": Answer.json(202, {}),
    "words that mean nothing": Answer.json(200, {"status": "ok", "message": "Thank you."}),
}
OUTAGE = Answer(503, PAGE.replace(b"Welcome to", b"Bad Gateway at"), {"content-type": "text/html"})
_UNKNOWN = frozenset({Status.UNSENT, Status.IN_DOUBT})


@check(Per.ACTION)
def throttled(lab: Lab, action: Action) -> None:
    """An answer that there were too many requests is waited for as long as it asks, and the same request is sent again:
    it costs no row."""
    stage = staged(lab, action, 5)
    lab.proxy.faults = [Fault(lab.subject.throttled, reads=None)]
    done = lab.deliver(action, stage.rows, ids=stage.ids)
    expect_all_accepted(
        stage,
        list(done.outcomes.items()),
        f"Let the error table make {lab.subject.throttled.status} of that kind `Throttled`.",
    )
    first, after = done.requests[0], done.requests[1]
    waited = after.at - first.ended
    expect(
        waited >= lab.subject.wait * 0.95,
        f"The next request came {waited:.2f} s after an answer that asked for {lab.subject.wait:g} s.",
        "Give `Throttled` the wait that the answer asks for (`error_table.asked_wait` reads the usual headers).",
    )
    expect(first.body == after.body, "The request that was throttled came back with another body.", "Send the same.")


@check(Per.ACTION)
def expired(lab: Lab, action: Action) -> None:
    """Credentials that are refused once are renewed, and the request is sent again; refused for good they stop the run.
    Either way no row is rejected."""
    stage = staged(lab, action, 7)
    change = f"Let the error table make {lab.subject.expired.status} of that kind `Unauthorized`."
    lab.proxy.faults = [Fault(lab.subject.expired, reads=None)]
    done = lab.deliver(action, stage.rows, ids=stage.ids)
    expect_all_accepted(stage, list(done.outcomes.items()), change)
    stage = staged(lab, action, 7, start=100)
    lab.proxy.faults = [Fault(lab.subject.expired, reads=None, times=None)]
    done = lab.deliver(action, stage.rows, ids=stage.ids)
    expect(
        done.of(Status.UNSENT) == set(stage.rows) and done.reason,
        f"With credentials that are refused for good, rows ended as {_statuses(done)}.",
        change,
    )


@check(Per.ACTION, proxied=True)
def unsafe_repeats(lab: Lab, action: Action) -> None:
    """A request whose answer was lost, or could not be read, is repeated only where that makes no record twice and no
    other end state; where it may not be repeated, its rows are in doubt."""
    repeat = lab.repeat(action)
    lost = {"an answer that was lost": Fault(None, effect=True)}
    if not lab.subject.trusts(action):
        lost["an answer that could not be read"] = Fault(HTML, effect=True)
    for number, (what, fault) in enumerate(lost.items()):
        lab.subject.reset()
        stage = staged(lab, action, 4, start=10 * number)
        lab.proxy.faults = [fault]
        done = lab.deliver(action, stage.rows, ids=stage.ids, timeout=_timeout(lab, action))
        lab.proxy.faults = []
        sent = f"`repeat` says {repeat.value} of {action.value}"
        # Where nothing is repeated, a flow of several requests ends with the first that got no answer.
        left = differences(lab, stage.after, missing=repeat is not Repeat.NEVER)
        expect(
            not left,
            f"{sent}; after {what}, {left}.",
            "Say Repeat.NEVER of what is done twice; send `batch.idempotency_key`, and no key of your own.",
        )
        if repeat is Repeat.NEVER:
            expect(
                done.of(Status.IN_DOUBT) == set(stage.rows),
                f"{sent}; after {what}, rows ended as {_statuses(done)}.",
                "A flow that cannot read an answer raises Unavailable.",
            )
        else:
            expect_all_accepted(
                stage,
                list(done.outcomes.items()),
                f"{sent}; after {what} the same request must be accepted again. Say Repeat.NEVER if it is not.",
            )


@check(Per.ACTION)
def silent_answers(lab: Lab, action: Action) -> None:
    """A 2xx is no success by itself: where it does not say what became of the rows, they are unsent or in doubt."""
    _never_success(lab, action, SILENT, "which says nothing of any row")


@check(Per.ACTION)
def unknown_answers(lab: Lab, action: Action) -> None:
    """A 2xx that cannot be read (a page of a proxy, JSON that breaks off, another shape) is neither success nor
    rejection: rows are unsent or in doubt."""
    _never_success(lab, action, UNREADABLE, "which nobody can read")


def _never_success(lab: Lab, action: Action, answers: dict[str, Answer], why: str) -> None:
    _untrusted(lab, action)
    for number, (what, answer) in enumerate(answers.items()):
        stage = staged(lab, action, 3, start=10 * number)
        lab.proxy.faults = [Fault(answer, times=None)]
        done = lab.deliver(action, stage.rows, ids=stage.ids, attempts=2, timeout=_timeout(lab, action))
        lab.proxy.faults = []
        wrong = set(stage.rows) - done.of(*_UNKNOWN)
        expect(
            not wrong,
            f"Answered {answer.status} with {what}, {why}, rows ended as {_statuses(done)}.",
            "Raise Unavailable for an answer that cannot be read or says nothing; give UNSENT to a row that it leaves "
            "out.",
        )


@check(Per.ACTION)
def missing_results(lab: Lab, action: Action) -> None:
    """Of a row that an answer does not mention nobody knows what became: it is no success, and not rejected."""
    _untrusted(lab, action)
    stage = staged(lab, action, 5)
    changed: list[bool] = []

    def shortened(answer: Answer) -> Answer:
        try:
            document = json.loads(answer.body)
        except ValueError:
            return answer
        less, found = _without_last(document, 5)
        changed.append(found)
        return Answer(answer.status, json.dumps(less).encode(), answer.headers) if found else answer

    # Not the answers to look-ups before: what these leave out is not there. Those that come after tell of the work.
    lab.proxy.faults = [
        Fault(change=shortened, times=None),
        Fault(change=shortened, reads=True, times=None, when=lambda *_: bool(lab.proxy.writes)),
    ]
    # Once: the request did take effect, and another attempt may find that out by itself.
    done = lab.deliver(action, stage.rows, ids=stage.ids, attempts=1)
    if not any(changed):
        raise Skipped("No answer lists the rows of its request in JSON.")
    expect(
        len(done.of(*SUCCEEDED)) < len(stage.rows) and not done.of(Status.REJECTED),
        f"The answer left a row out, and rows ended as {_statuses(done)}.",
        "Give UNSENT to a row that the answer does not mention, or raise Unavailable where rows are told by order.",
    )


@check(Per.ACTION)
def outage(lab: Lab, action: Action) -> None:
    """While the server is out of order (503 and a page), no row is rejected or counted as delivered."""
    stage = staged(lab, action, 7)
    lab.proxy.faults = [Fault(OUTAGE, times=None)]
    done = lab.deliver(action, stage.rows, ids=stage.ids, attempts=2, timeout=_timeout(lab, action))
    wrong = set(stage.rows) - done.of(*_UNKNOWN)
    expect(
        not wrong,
        f"Answered 503 with a page, rows ended as {_statuses(done)}.",
        "Let the error table make 5xx `Unavailable`.",
    )


@check(Per.DESTINATION)
def later_run(lab: Lab) -> None:
    """What an outage kept back, the next run delivers: each row once, and rows in doubt stay so until they are
    resolved."""
    mode, action = _first(lab)
    stage = staged(lab, action, 7)
    lab.proxy.faults = [Fault(OUTAGE, times=None)]
    ran = lab.run(lab.sync(mode, destination=lab.spec(timeout=lab.subject.patience)), stage.rows)
    expect(ran.report.failures, "A run in which nothing arrived succeeded.", "Leave no row of an outage as success.")
    lab.proxy.faults = []
    ran = lab.run(lab.sync(mode), stage.rows)
    if lab.repeat(action) is Repeat.NEVER:
        expect(not ran.writes or not ran.count(Status.IN_DOUBT), "Rows in doubt were sent again.", "")
        return
    left = differences(lab, stage.after)
    expect(not left, f"After an outage and another run, {left}.", "Leave rows of an outage unsent.")


@check(Per.DESTINATION)
def verify(lab: Lab) -> None:
    """Rows in doubt are looked up where the destination can: those that are there count as created, the others are
    sent."""
    wanted = lab.destination.can_verify(lab.subject.object, lab.subject.match)
    if Mode.INSERT not in lab.modes or lab.repeat(Action.CREATE) is not Repeat.NEVER or not wanted:
        raise Skipped("The destination looks up no rows in doubt (`can_verify`).")
    for effect in (True, False):
        lab.subject.reset()
        rows = {key_of(place): lab.subject.good(key_of(place), 1) for place in range(8)}
        settings: dict[str, Any] = {"name": f"verify_{effect}".lower(), "in_doubt": "verify"}
        lab.proxy.faults = [Fault(None, effect=effect)]
        ran = lab.run(lab.sync(Mode.INSERT, destination=lab.spec(timeout=lab.subject.patience), **settings), rows)
        lab.proxy.faults = []
        expect(ran.count(Status.IN_DOUBT), "Rows whose answer was lost are not in doubt.", "Let `repeat` say NEVER.")
        ran = lab.run(lab.sync(Mode.INSERT, **settings), rows)
        left = differences(lab, {lab.identity(key, row): row for key, row in rows.items()})
        expect(
            not left and not ran.count(*_UNKNOWN),
            f"Looked up, rows that had {'' if effect else 'not '}arrived ended so: {left or 'still in doubt'}.",
            "Let `verify` say CREATED of a row with a record, None of one without.",
        )


@check(Per.DESTINATION)
def resume(lab: Lab) -> None:
    """Work that goes on at the destination is found again by the reference that the flow had remembered: no row is sent
    twice."""
    mode, action = _first(lab)
    lab.deliver(action, staged(lab, action, 2, start=100).rows)
    if not lab.remembered:
        raise Skipped("No flow of the destination remembers work that goes on.")
    lab.subject.reset()
    stage = staged(lab, action, 5)
    lab.proxy.faults = [Fault(None, reads=True, times=None, when=lambda *_: bool(lab.proxy.writes))]
    lab.run(lab.sync(mode, destination=lab.spec(timeout=lab.subject.patience)), stage.rows)
    lab.proxy.faults = []
    ran: Ran = lab.run(lab.sync(mode), stage.rows)
    left = differences(lab, stage.after)
    expect(not left, f"After polling had failed, {left}.", "Let `resume` read the outcomes of the remembered work.")
    if lab.repeat(action) is Repeat.NEVER:
        expect(not ran.writes, "Rows of remembered work were sent again.", "Let `resume` send no row.")


def _first(lab: Lab) -> tuple[Mode, Action]:
    """The mode that whole runs are made with."""
    wanted = {
        Mode.INSERT: Action.CREATE,
        Mode.APPEND: Action.CREATE,
        Mode.UPSERT: Action.UPSERT,
        Mode.MIRROR: Action.UPSERT,
        Mode.UPDATE: Action.MODIFY,
        Mode.DELETE: Action.DELETE,
    }
    order = sorted(wanted, key=lambda mode: lab.repeat(wanted[mode]) is Repeat.NEVER)
    mode = next(mode for mode in order if mode in lab.modes)
    return mode, wanted[mode]


def _timeout(lab: Lab, action: Action) -> float:
    """Seconds of a request: few where the engine waits until one that got no answer can take effect no more."""
    return lab.subject.patience if lab.repeat(action) is Repeat.WHEN_QUIET else 10.0


def _untrusted(lab: Lab, action: Action) -> None:
    reason = lab.subject.trusts(action)
    if reason:
        raise Skipped(f"A 2xx takes all rows: {reason}")


def _statuses(done: Delivered) -> str:
    counted: dict[str, int] = {}
    for outcome in done.outcomes.values():
        counted[outcome.status.value] = counted.get(outcome.status.value, 0) + 1
    return ", ".join(f"{count} {status}" for status, count in sorted(counted.items())) or "nothing"


def _without_last(value: Any, length: int) -> tuple[Any, bool]:
    """A JSON document whose lists of that length have lost their last entry, and whether one had it."""
    if isinstance(value, list):
        if len(value) == length and value:
            return value[:-1], True
        parts = [_without_last(part, length) for part in value]
        return [part for part, _ in parts], any(found for _, found in parts)
    if isinstance(value, dict):
        members = {name: _without_last(part, length) for name, part in value.items()}
        return {name: part for name, (part, _) in members.items()}, any(found for _, found in members.values())
    return value, False
