"""The destinations that only the sandbox speaks: what is sent, and what becomes of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from integrations_dagster.destinations.base import Flow, Pause, Remember, Repeat, Request, Response
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    Refused,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.destinations.registry import KINDS
from integrations_dagster.destinations.sandbox.base import TABLE, SandboxDestination, rows_json
from integrations_dagster.destinations.sandbox.insert import SandboxInsert, SandboxInsertKeyed
from integrations_dagster.destinations.sandbox.jobs import PATIENCE, SandboxJobs
from integrations_dagster.destinations.values import canonical_json
from integrations_dagster.vocabulary import ABSENT, Action, Misconfigured, Mode, Outcome, Status
from integrations_dagster_tests.destinations.flows import answer, batch, body_of, first, row

INSERT, KEYED, JOBS = SandboxInsert(), SandboxInsertKeyed(), SandboxJobs()
ALL = [INSERT, KEYED, JOBS]


def created(*keys: int) -> list[dict[str, Any]]:
    return [{"id": f"rec-{key}", "status": "created", "key": str(key)} for key in keys]


def refused(key: int) -> dict[str, Any]:
    return {"key": str(key), "error": {"code": "BAD", "message": "No."}}


def rows_of(*ordinals: int, action: Action = Action.CREATE) -> Any:
    return batch([row(i, str(i), action, payload={"n": i, "a": "ü"}) for i in ordinals], object_="orders", match=())


def walk(destination: SandboxDestination, flow: Flow[list[Outcome]], answers: Sequence[Response]) -> Any:
    """Drive a flow; returns its outcomes and all that it yielded."""
    steps: list[Request | Remember | Pause] = []
    left = list(answers)
    try:
        step = next(flow)
        while True:
            steps.append(step)
            if isinstance(step, Request):
                response = left.pop(0)
                destination.classify(step, response)
                step = flow.send(response)
            else:
                step = flow.send(Response(0))
    except StopIteration as end:
        assert left == []
        return end.value, steps


# Declaration


def test_declarations() -> None:
    assert [d.repeat("orders", Action.CREATE) for d in ALL] == [Repeat.NEVER, Repeat.WITH_KEY, Repeat.NEVER]
    assert JOBS.repeat("orders", Action.UPSERT) is Repeat.ALWAYS
    assert JOBS.settles == 5.0
    for destination in ALL:
        assert KINDS[destination.kind] is type(destination)
        assert destination.sandbox_only
        assert destination.gzip
        assert destination.sandbox_path in ("inserts", "jobs")
        assert destination.identify() is None  # type: ignore[func-returns-value]
        assert destination.limits("orders", Action.CREATE).rows == 500
        assert not destination.can_verify("orders", [])
        destination.check("orders", Mode.INSERT, [], ["a"])


@pytest.mark.parametrize("destination", ALL, ids=lambda d: d.kind)
@pytest.mark.parametrize(
    ("object_", "mode", "match", "says"),
    [
        ("a/b", Mode.INSERT, [], "part of an address"),
        ("", Mode.INSERT, [], "part of an address"),
        ("orders", Mode.INSERT, ["email"], "takes no match"),
    ],
)
def test_what_they_cannot_do_is_refused(
    destination: SandboxDestination, object_: str, mode: Mode, match: list[str], says: str
) -> None:
    with pytest.raises(Misconfigured) as caught:
        destination.check(object_, mode, match, [])
    assert says in str(caught.value)
    assert caught.value.remedy


def test_an_insert_changes_and_removes_nothing() -> None:
    with pytest.raises(Misconfigured, match="Possible modes: append, insert"):
        SandboxInsert().check("orders", Mode.MIRROR, [], ["a"])


CASES: list[tuple[Response, type[DestinationError]]] = [
    (answer(401), Unauthorized),
    (answer(413), TooLarge),
    (answer(429, retry_after="3"), Throttled),
    (answer(400, {"error": {"code": "BAD_BATCH", "message": "no"}}), PoisonedBatch),
    (answer(422, {"error": {"code": "IDEMPOTENCY_KEY_REUSED", "message": "no"}}), Refused),
    (answer(408), Unavailable),
    (answer(400, {"error": {"code": "INVALID_BODY", "message": "no"}}), Refused),
    (answer(503), Unavailable),
    (answer(307), Refused),
    (answer(150), Unavailable),
]


@pytest.mark.parametrize(("reply", "recovery"), CASES)
@pytest.mark.parametrize("destination", ALL, ids=lambda d: d.kind)
def test_errors_recover_as_the_table_says(
    destination: SandboxDestination, reply: Response, recovery: type[DestinationError]
) -> None:
    with pytest.raises(DestinationError) as caught:
        destination.classify(Request("POST", "/orders", b"{}"), reply)
    assert type(caught.value) is recovery
    if isinstance(caught.value, Throttled):
        assert caught.value.wait == 3.0
    if isinstance(caught.value, Refused):
        assert caught.value.remedy


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b'{"error": "text"}', b'{"error": {"code": 5}}'])
@pytest.mark.parametrize("status", [*range(300, 600, 7), 404])
def test_every_status_is_decided(status: int, body: bytes) -> None:
    for destination in ALL:
        with pytest.raises(DestinationError):
            destination.classify(Request("GET", "/orders/job-1"), Response(status, {}, body))
    assert TABLE


def test_bodies_are_canonical() -> None:
    rows = rows_of(1, 2)
    expected = canonical_json([{"key": r.key, "record": dict(r.payload)} for r in rows.rows])
    assert rows_json(rows) == expected


# Insert


def test_an_insert_reads_its_results_in_order() -> None:
    results = [{"id": "rec-7", "status": "created"}, {"error": {"code": "BAD", "message": "No."}}]
    outcomes, (request,) = walk(
        INSERT, INSERT.deliver(rows_of(1, 2)), [answer(200, {"results": results}, x_request_id="q")]
    )
    assert (request.method, request.path, dict(request.headers)) == ("POST", "/orders", {})
    assert body_of(request) == {
        "rows": [{"key": "1", "record": {"a": "ü", "n": 1}}, {"key": "2", "record": {"a": "ü", "n": 2}}]
    }
    assert outcomes == [
        Outcome(Status.CREATED, "rec-7", request_id="q"),
        Outcome(Status.REJECTED, None, "BAD", "No.", "q"),
    ]


def test_a_keyed_insert_sends_the_batchs_key() -> None:
    _, (request,) = walk(KEYED, KEYED.deliver(rows_of(1)), [answer(200, {"results": created(1)})])
    assert request.headers == {"idempotency-key": "delivery-1"}


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"results": []}, "SILENT_ANSWER"),
        ({"results": created(1)}, "UNREADABLE_ANSWER"),
        ({"results": created(1, 2, 3)}, "UNREADABLE_ANSWER"),
        ({"results": "no"}, "UNREADABLE_ANSWER"),
        ({}, "UNREADABLE_ANSWER"),
        ([], "UNREADABLE_ANSWER"),
    ],
)
def test_results_that_cannot_be_told_apart_confirm_nobody(document: Any, code: str) -> None:
    with pytest.raises(Unavailable) as caught:
        walk(INSERT, INSERT.deliver(rows_of(1, 2)), [answer(200, document)])
    assert caught.value.code == code


def test_a_result_that_says_nothing_leaves_its_row_unsent() -> None:
    results = [{"id": "rec-1", "status": "created"}, {"id": 5, "status": "created"}, {"status": "created"}, {}]
    outcomes, _ = walk(INSERT, INSERT.deliver(rows_of(1, 2, 3, 4)), [answer(200, {"results": results})])
    assert [o.status for o in outcomes] == [Status.CREATED, Status.UNSENT, Status.UNSENT, Status.UNSENT]


# Jobs


def status(state: str, reached: int, **more: Any) -> Response:
    return answer(200, {"job": "job-1", "state": state, "rows": 3, "reached": reached, **more})


def page(results: list[dict[str, Any]], following: str | None = None) -> Response:
    return answer(200, {"results": results, "next": following}, x_request_id="q")


def test_a_job_is_remembered_before_it_is_polled_and_read_in_pages() -> None:
    outcomes, steps = walk(
        JOBS,
        JOBS.deliver(rows_of(1, 2, 3)),
        [
            answer(202, {"job": "job/1"}),
            status("running", 0),
            status("running", 1),
            status("done", 3),
            page([refused(3), *created(1)], "2"),
            page([{"key": "2", "id": "rec-9", "status": "updated"}]),
        ],
    )
    assert body_of(steps[0])["mode"] == "insert"
    assert steps[1] == Remember("job/1")
    pauses = [step.seconds for step in steps if isinstance(step, Pause)]
    assert pauses == sorted(pauses)
    assert len(pauses) == 2
    gets = [step for step in steps if isinstance(step, Request) and step.method == "GET"]
    assert [get.path for get in gets] == [
        *["/orders/job%2F1"] * 3,
        "/orders/job%2F1/results?after=",
        "/orders/job%2F1/results?after=2",
    ]
    assert all(get.changes_nothing for get in gets)
    assert [o.status for o in outcomes] == [Status.CREATED, Status.UPDATED, Status.REJECTED]
    assert outcomes[1].destination_id == "rec-9"


def test_an_upsert_job_says_so() -> None:
    flow = JOBS.deliver(rows_of(1, action=Action.UPSERT))
    assert body_of(first(flow))["mode"] == "upsert"


def test_resume_polls_and_sends_no_row() -> None:
    outcomes, steps = walk(JOBS, JOBS.resume(rows_of(1), "job-1"), [status("done", 1), page(created(1))])
    assert [step.method for step in steps] == ["GET", "GET"]
    assert outcomes[0].status is Status.CREATED


def test_a_failed_job_tells_which_rows_it_has_not_reached() -> None:
    failed = status("failed", 2, error={"code": "JOB_FAILED", "message": "Row 2 is bad."})
    outcomes, _ = walk(JOBS, JOBS.resume(rows_of(1, 2, 3), "job-1"), [failed, page([*created(1), refused(2)])])
    assert [(o.status, o.code) for o in outcomes] == [
        (Status.CREATED, ""),
        (Status.REJECTED, "BAD"),
        (Status.UNSENT, ABSENT),
    ]
    assert "Row 2 is bad." in outcomes[2].reason


def test_a_failed_job_whose_results_lack_rows_leaves_them_unknown() -> None:
    outcomes, _ = walk(JOBS, JOBS.resume(rows_of(1, 2, 3), "job-1"), [status("failed", 2, error={}), page(created(1))])
    assert [(o.status, o.code) for o in outcomes][1:] == [(Status.UNSENT, "NO_ANSWER")] * 2


def test_a_job_that_nobody_knows_leaves_its_rows_unknown() -> None:
    unknown = answer(404, {"error": {"code": "UNKNOWN_JOB", "message": "There is no job job-1."}})
    outcomes, _ = walk(JOBS, JOBS.resume(rows_of(1, 2), "job-1"), [unknown])
    assert [(o.status, o.code) for o in outcomes] == [(Status.UNSENT, "UNKNOWN_JOB")] * 2
    with pytest.raises(Refused):
        walk(JOBS, JOBS.resume(rows_of(1), "job-1"), [answer(404, {"error": {"code": "NOT_FOUND", "message": ""}})])


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([answer(202, {})], "UNREADABLE_ANSWER"),
        ([answer(202, {"job": 5})], "UNREADABLE_ANSWER"),
        ([answer(202, {"job": "job-1"}), answer(200, {})], "UNREADABLE_ANSWER"),
        ([answer(202, {"job": "job-1"}), status("sleeping", 0)], "UNREADABLE_ANSWER"),
        ([answer(202, {"job": "job-1"}), status("done", 3), page([])], "SILENT_ANSWER"),
        ([answer(202, {"job": "job-1"}), status("done", 3), page([], "1")], "UNREADABLE_ANSWER"),
        ([answer(202, {"job": "job-1"}), status("done", 3), page(created(1, 2, 3), "1")], "UNREADABLE_ANSWER"),
        ([answer(202, {"job": "job-1"}), status("done", 3), answer(200, {})], "UNREADABLE_ANSWER"),
    ],
)
def test_a_job_whose_answers_say_nothing_is_an_outage(answers: list[Response], code: str) -> None:
    with pytest.raises(Unavailable) as caught:
        walk(JOBS, JOBS.deliver(rows_of(1, 2, 3)), answers)
    assert caught.value.code == code


def test_a_job_that_does_not_end_is_an_outage() -> None:
    flow = JOBS.resume(rows_of(1), "job-1")
    pauses: list[float] = []

    def poll() -> None:
        step = next(flow)
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
            step = flow.send(status("running", 0) if isinstance(step, Request) else Response(0))

    with pytest.raises(Unavailable, match="still runs"):
        poll()
    assert PATIENCE <= sum(pauses) < PATIENCE + 2
