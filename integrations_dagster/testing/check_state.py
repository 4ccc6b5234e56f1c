"""Checks of what a destination declares, and of what is at the server in the end."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import Any

from integrations_dagster.destinations.base import Repeat
from integrations_dagster.sync.spec import FieldRule
from integrations_dagster.testing.checks import (
    Failed,
    Per,
    Skipped,
    actions,
    check,
    differences,
    expect,
    expect_all_accepted,
    staged,
)
from integrations_dagster.testing.lab import Lab, Ran, key_of
from integrations_dagster.vocabulary import SUCCEEDED, Action, Misconfigured, Mode, Status

_EXACT = "Let `encode` and the bodies keep every character, and send UTF-8."


@check(Per.DESTINATION, proxied=False)
def declaration(lab: Lab) -> None:
    """The destination takes the modes it declares for this object, match and fields, and refuses the others by name;
    its limits are possible; a value without a form is refused."""
    subject, destination = lab.subject, lab.destination
    expect(destination.kind and destination.label, "`kind` or `label` is empty.", "Name the destination.")
    expect(lab.modes, "`modes` is empty.", "Declare what the destination can do.")
    for mode in Mode:
        match = () if mode is Mode.APPEND else subject.match
        try:
            destination.check(subject.object, mode, match, lab.fields)
        except Misconfigured as error:
            expect(mode not in lab.modes, f"`check` refuses mode {mode.value}: {error}", "Take it out of `modes`.")
        else:
            expect(
                mode in lab.modes,
                f"`check` takes mode {mode.value}, which is not declared.",
                "Raise Misconfigured, naming the modes that are possible.",
            )
    for action in actions(lab.modes):
        limits = destination.limits(subject.object, action)
        expect(limits.rows >= 1, f"`limits` of {action.value} says {limits.rows} rows.", "One row is the least.")
        sizes = [size for size in (limits.bytes, limits.row_bytes) if size is not None]
        expect(all(size > 0 for size in sizes), f"`limits` of {action.value}: {sizes} bytes.", "Say None for no limit.")
        expect(
            destination.repeat(subject.object, action) is not Repeat.WITH_KEY or destination.key_lifetime > 0,
            "`key_lifetime` is not positive.",
            "Say for how many seconds the vendor remembers an idempotency key.",
        )
    for value in () if subject.not_numbers else (math.nan, math.inf):
        with suppress(ValueError):
            encoded = destination.encode(value)
            raise Failed(f"`encode` makes {encoded!r} of {value!r}. Raise ValueError: no API has a number for it.")


@check(Per.MODE, proxied=False)
def end_state(lab: Lab, mode: Mode) -> None:
    """After a run, and after another that follows changes of the model, the server has what the mode promises: records
    made, changed, removed and left alone; a run with nothing to do writes nothing."""
    match mode:
        case Mode.INSERT | Mode.APPEND:
            _created_once(lab, mode)
        case Mode.UPSERT | Mode.MIRROR:
            _kept_equal(lab, mode)
        case Mode.UPDATE:
            _modified(lab, mode)
        case Mode.DELETE:
            _deleted(lab, mode)


def _created_once(lab: Lab, mode: Mode) -> None:
    sync = lab.sync(mode, batch_rows=3, match={} if mode is Mode.APPEND else {t: t for t in lab.subject.match})
    rows = {key_of(place): lab.subject.good(key_of(place), 1) for place in range(7)}
    _succeeds(lab.run(sync, rows))
    _holds(lab, rows)
    more = {**rows, key_of(0): lab.subject.good(key_of(0), 2), key_of(7): lab.subject.good(key_of(7), 1)}
    _succeeds(lab.run(sync, more))
    _holds(lab, {**rows, key_of(7): more[key_of(7)]})
    _writes_nothing(lab.run(sync, more))


def _kept_equal(lab: Lab, mode: Mode) -> None:
    sync = lab.sync(mode, batch_rows=3)
    rows = {key_of(place): lab.subject.good(key_of(place), 1) for place in range(7)}
    _succeeds(lab.run(sync, rows))
    _holds(lab, rows)
    gone, renamed, changed, new = key_of(5), key_of(1), key_of(0), key_of(7)
    next_rows = {key: row for key, row in rows.items() if key != gone}
    next_rows |= {changed: lab.subject.good(changed, 2), new: lab.subject.good(new, 1)}
    if lab.subject.match and mode is Mode.MIRROR:
        # Its match value is another now: the record is renamed, or replaced.
        next_rows[renamed] = lab.subject.good(key_of(900), 1)
    _succeeds(lab.run(sync, next_rows))
    _holds(lab, next_rows if mode is Mode.MIRROR else {**next_rows, gone: rows[gone]})
    _writes_nothing(lab.run(sync, next_rows))


def _modified(lab: Lab, mode: Mode) -> None:
    sync = lab.sync(mode, batch_rows=3)
    rows = {key_of(place): lab.subject.good(key_of(place), 1) for place in range(7)}
    lab.seed(rows)
    changed = {key: lab.subject.good(key, 2) for key in list(rows)[:5]}
    ran = lab.run(sync, {**changed, key_of(8): lab.subject.good(key_of(8), 2)})
    _holds(lab, {**rows, **changed})
    expect(
        (ran.count(Status.UPDATED, Status.UNCHANGED), ran.count(Status.REJECTED)) == (5, 1),
        f"Of five rows with a record and one without, rows ended as {dict(ran.report.outcomes)}.",
        "Reject a row without a record (code `NO_RECORD`): mode update creates none.",
    )


def _deleted(lab: Lab, mode: Mode) -> None:
    sync = lab.sync(mode, batch_rows=3)
    rows = {key_of(place): lab.subject.good(key_of(place), 1) for place in range(7)}
    lab.seed(rows)
    listed = dict(list(rows.items())[:5])
    _succeeds(lab.run(sync, listed))
    _holds(lab, dict(list(rows.items())[5:]))
    _writes_nothing(lab.run(sync, listed))


def _holds(lab: Lab, rows: dict[str, dict[str, Any]]) -> None:
    left = differences(lab, {lab.identity(key, row): row for key, row in rows.items()})
    expect(
        not left, f"The server does not have what the run was to leave: {left}.", "Look at the requests of `deliver`."
    )


def _succeeds(ran: Ran) -> None:
    wrong = [bad.reason for bad in ran.report.bad_rows]
    expect(
        not ran.report.failures and not wrong,
        f"The run did not deliver every row: {' '.join([*ran.report.failures, *wrong[:1]])}",
        "Rows that the server takes must end as accepted.",
    )


def _writes_nothing(ran: Ran) -> None:
    expect(
        not ran.writes and not ran.report.candidates,
        f"A run with nothing to do sent {len(ran.writes)} requests.",
        "Make payloads that are the same for the same values (`encode`).",
    )


@check(Per.DESTINATION)
def nothing_to_do(lab: Lab) -> None:
    """A model without rows is delivered by no request."""
    mode = sorted(lab.modes)[0]
    ran = lab.run(lab.sync(mode), {})
    expect(not ran.requests, f"A run without rows sent {len(ran.requests)} requests.", "Ask for nothing before it.")


@check(Per.ACTION, proxied=False)
def missing_records(lab: Lab, action: Action) -> None:
    """A row whose record is not there is rejected in an update, without being created; in a deletion it counts as
    deleted (or is rejected, where the subject says so). The other rows of its request are not held up."""
    if action not in (Action.MODIFY, Action.DELETE):
        raise Skipped("This action needs no record.")
    if action is Action.DELETE and Mode.DELETE not in lab.modes:
        raise Skipped("Mode mirror deletes by ids, or what it has delivered itself.")
    stage = staged(lab, action, 4)
    absent = {key_of(place): lab.subject.good(key_of(place), 2) for place in (50, 51)}
    keys = list(stage.rows)
    rows = {keys[0]: stage.rows[keys[0]], **dict([*absent.items()]), **{key: stage.rows[key] for key in keys[1:]}}
    done = lab.deliver(action, rows, batch_rows=10)
    rejected = len(absent) if action is Action.MODIFY or not lab.subject.deletes_missing else 0
    accepted = len(done.of(*SUCCEEDED))
    # Which rows they are is asked by `partial_failure`.
    expect(
        (len(done.of(Status.REJECTED)), accepted) == (rejected, len(rows) - rejected),
        f"Of {len(rows)} rows, {len(absent)} without a record, {len(done.of(Status.REJECTED))} were rejected and "
        f"{accepted} accepted.",
        "What a deletion wants is so where there is no record; an update of none is rejected with `NO_RECORD`.",
    )
    left = differences(lab, stage.after)
    expect(not left, f"Beside rows without a record, {left}.", "Let the other rows of the request take effect.")


@check(Per.ACTION, proxied=False)
def unicode(lab: Lab, action: Action) -> None:
    """Texts arrive as they are: all scripts, quotes, markup, emoji, right to left, line breaks, control characters."""
    if action is Action.DELETE:
        raise Skipped("A deletion carries no texts.")
    texts = lab.subject.texts
    stage = staged(lab, action, len(texts))
    for key, text in zip(list(stage.rows), texts, strict=True):
        stage.rows[key] = {**stage.rows[key], lab.subject.text: text}
        stage.after[lab.identity(key, stage.rows[key])] = stage.rows[key]
    done = lab.deliver(action, stage.rows, ids=stage.ids)
    expect_all_accepted(stage, list(done.outcomes.items()), _EXACT)
    left = differences(lab, stage.after)
    expect(not left, f"Texts changed on their way: {left}.", _EXACT)


@check(Per.ACTION, proxied=False)
def nulls(lab: Lab, action: Action) -> None:
    """A null is no text "None": it is left out, or empties the field where `nulls: clear` says so; an empty text
    empties it too or stays one."""
    if action is Action.DELETE:
        raise Skipped("A deletion carries no values.")
    name = lab.subject.text
    clear = FieldRule(nulls="clear")
    for number, (value, rule) in enumerate(((None, FieldRule()), (None, clear), ("", FieldRule()))):
        stage = staged(lab, action, 3, start=10 * number)
        if action is Action.UPSERT:
            # There with a value, so that emptying it shows.
            lab.deliver(action, stage.rows)
        key = list(stage.rows)[1]
        row = {**stage.rows[key], name: value}
        stage.rows[key] = row
        done = lab.deliver(action, stage.rows, ids=stage.ids, rule=rule)
        expect_all_accepted(stage, list(done.outcomes.items()), "Send a null as the API takes it (`cleared`).")
        got = {identity: fields.get(name) for identity, fields in lab.subject.records()}[lab.identity(key, row)]
        before = lab.subject.good(key, 1)[name], lab.subject.good(key, 2)[name]
        stays = value is None and rule is not clear and action is not Action.CREATE and got in before
        expect(
            got in (None, "") or stays,
            f"A {'null' if value is None else 'text without characters'} arrived as {got!r}.",
            "Leave a null out of the request; let `cleared` say what empties a field.",
        )


@check(Per.DESTINATION)
def references(lab: Lab) -> None:
    """What values are looked up in can be read to its last page, and every record has the columns that are declared."""
    if not lab.destination.references():
        raise Skipped("The destination has no references.")
    with lab.conversation() as (destination, conversation):
        for reference in destination.references():
            wanted = tuple(dict.fromkeys((reference.value, *([reference.key] if reference.key else []))))
            cursor: str | None = None
            cursors: set[str] = set()
            while cursor is not None or not cursors:
                page = conversation.ask(partial(destination.read, reference.name, wanted, cursor))
                lacking = [row for row in page.rows if reference.value not in row]
                expect(not lacking, f"A record of {reference.name} lacks {reference.value}.", "Give each its id.")
                cursor = page.cursor
                expect(cursor not in cursors, f"{reference.name}: a page leads back to one before.", "Move the cursor.")
                cursors.add(cursor or "")


@check(Per.DESTINATION)
def fields(lab: Lab) -> None:
    """The fields that the destination describes are those that rows have: found by name, and writable."""
    if not lab.destination.describes:
        raise Skipped("The destination describes no fields.")
    with lab.conversation() as (destination, conversation):
        found = {f.name: f for f in conversation.ask(lambda: destination.fields(lab.subject.object))}
    for name in lab.fields:
        described = found.get(name) or found.get(name.split(".")[0])
        expect(described, f"The field {name} is not described.", "Read every page of the fields.")
        expect(described is None or described.writable, f"The field {name} is described as read-only.", "")
