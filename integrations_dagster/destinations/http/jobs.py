"""Asynchronous jobs: rows are submitted, the job is polled until it ends, and its results tell of the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from integrations_dagster.destinations.answers import NO_ANSWER, Reading, outcomes, read_pages, unreadable
from integrations_dagster.destinations.base import Batch, Flow, Pause, Remember, Response
from integrations_dagster.destinations.errors import Unavailable
from integrations_dagster.destinations.http import paging
from integrations_dagster.destinations.http.calls import Job, Operation, page_of
from integrations_dagster.destinations.http.templates import Scope
from integrations_dagster.destinations.paths import as_text, probe
from integrations_dagster.vocabulary import Outcome, Status

UNKNOWN_JOB = "UNKNOWN_JOB"
JOB_FAILED = "JOB_FAILED"


@dataclass(frozen=True, slots=True)
class Context:
    """A job's operation, and how its answers are read.

    Attributes:
        refused: Reads the answer to a submission that was refused as a whole.
    """

    label: str
    operation: Operation
    job: Job
    normalize: Callable[[str], str]
    refused: Callable[[Operation, Batch, Response], list[Outcome]]

    def reading(self, response: Response) -> Reading:
        return Reading(self.label, self.job.poll.request_id(response), self.normalize, self.operation.errors.meaning)


def follow(context: Context, batch: Batch, response: Response) -> Flow[list[Outcome]]:
    """Go on from the answer to a submission, which names the job."""
    if context.operation.verdict(response) is not None:
        return context.refused(context.operation, batch, response)
    reference = as_text(probe(context.job.form.id, context.operation.checked(response)))
    if not reference:
        raise _unreadable(context, response, f"no job at `{context.job.form.id}`", doubt="`job`")
    yield Remember(reference)
    return (yield from resume(context, batch, reference))


def resume(context: Context, batch: Batch, reference: str) -> Flow[list[Outcome]]:
    """Poll a job until it has ended, then read its results.

    Raises:
        Unavailable: An answer cannot be read, or the job does not end.
    """
    form, poll = context.job.form, context.job.poll
    scope = Scope(batch.object, more={"job": reference})
    pause, waited = form.every, 0.0
    while True:
        response = yield poll.asked(scope)
        if response.status in (404, 410):
            reason = f"{context.label} does not know the job {reference} (any more): what became of the row is unknown."
            return [Outcome(Status.UNSENT, None, UNKNOWN_JOB, reason, poll.request_id(response))] * len(batch.rows)
        document = poll.checked(response)
        failed = form.failed is not None and probe(form.failed, document) is True
        if failed or probe(form.done, document) is True:
            break
        if waited >= form.patience:
            raise Unavailable(
                f"The job {reference} still runs after {waited:.0f} s.", "JOB_RUNNING", poll.request_id(response)
            )
        yield Pause(pause)
        waited += pause
        pause = min(pause * 1.5, max(form.longest, form.every))
    if failed:
        return (yield from _failed(context, batch, scope, response))
    return (yield from _results(context, batch, scope, response))


def _results(context: Context, batch: Batch, scope: Scope, last: Response) -> Flow[list[Outcome]]:
    operation, call = context.operation, context.job.results
    if call is None:
        documents: list[Any] = [context.job.poll.checked(last)]
    else:
        documents, last = yield from _pages(context, batch, scope)
    told_by = context.reading(last)
    if operation.paths is not None:
        return read_pages(operation.paths, batch, documents, told_by, last.status)
    return outcomes(batch, operation.told(documents[-1], len(batch.rows)), told_by, status=last.status)


def _pages(context: Context, batch: Batch, scope: Scope) -> Flow[tuple[list[Any], Response]]:
    call, form = context.job.results, context.job.form
    assert call is not None
    documents: list[Any] = []
    place: paging.Place | None = paging.first(form.next)
    read = 0
    seen: set[str] = set()
    while True:
        assert place is not None
        response = yield page_of(call, scope, place, form.next)
        document = call.checked(response)
        documents.append(document)
        entries = _entries(context.operation, document)
        read += len(entries)
        place = paging.following(form.next, place, entries, document, response, context.label)
        if place is None:
            return documents, response
        if place.text in seen or read > 2 * len(batch.rows) + 1:
            raise _unreadable(context, response, "more results than the job had rows")
        seen.add(place.text)


def _entries(operation: Operation, document: Any) -> list[Any]:
    paths = operation.paths
    entries: list[Any] = []
    for listing in () if paths is None else (paths.results, paths.failures):
        found = None if listing is None else probe(listing.path, document)
        entries += found if isinstance(found, list) else []
    return entries


def _failed(context: Context, batch: Batch, scope: Scope, response: Response) -> Flow[list[Outcome]]:
    """A job that failed: where nothing of it is done its rows are rejected; else its results tell, if there are any."""
    document = context.job.poll.checked(response)
    verdict = context.operation.errors.verdict(response, document, context.job.poll.request_id(response))
    said = verdict.problem.message or "It gave no reason."
    id_ = context.job.poll.request_id(response)
    if context.operation.atomic:
        reason = f"The job {scope.more['job']} failed, and took none of its rows. {context.label} says: {said}"
        return [Outcome(Status.REJECTED, None, JOB_FAILED, reason, id_)] * len(batch.rows)
    reason = (
        f"The job {scope.more['job']} failed, and does not say what became of this row. {context.label} says: {said}"
    )
    unknown = Outcome(Status.UNSENT, None, JOB_FAILED, reason, id_)
    if context.operation.paths is None or context.operation.paths.rest_accepted or context.job.results is None:
        return [unknown] * len(batch.rows)
    documents, last = yield from _pages(context, batch, scope)
    try:
        told = read_pages(context.operation.paths, batch, documents, context.reading(last), last.status)
    except Unavailable:
        return [unknown] * len(batch.rows)
    return [unknown if outcome.code == NO_ANSWER else outcome for outcome in told]


def _unreadable(context: Context, response: Response, what: str, doubt: str = "") -> Unavailable:
    return unreadable(context.label, response.status, what, context.job.poll.request_id(response), doubt=doubt)
