"""Jobs in the sandbox: rows are submitted, and taken some time later; the job is polled, and its results are read."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

from integrations_dagster.destinations.base import (
    Batch,
    Flow,
    Pause,
    Remember,
    Repeat,
    Request,
    Response,
)
from integrations_dagster.destinations.errors import Unavailable
from integrations_dagster.destinations.sandbox.base import (
    NO_ANSWER,
    SandboxDestination,
    document_of,
    error_of,
    outcome_of,
    results_of,
    rows_json,
    unreadable,
)
from integrations_dagster.vocabulary import ABSENT, Action, Mode, Outcome, Status

UNKNOWN_JOB = "UNKNOWN_JOB"
FIRST_PAUSE = 0.05
"""Seconds before a job is asked for; each further pause is half as long again, up to `LONGEST_PAUSE`."""
LONGEST_PAUSE = 1.0
PATIENCE = 60.0
"""Seconds of pauses after which a job that still runs counts as an outage. The sandbox ends its jobs after 5 s."""


_MODES = {
    Action.CREATE: b"insert",
    Action.MODIFY: b"update",
    # Records are known by key, which no row changes.
    Action.UPDATE: b"upsert",
    Action.UPSERT: b"upsert",
    Action.DELETE: b"delete",
}


class SandboxJobs(SandboxDestination):
    """Bulk jobs: the answer to a submission names the job, and only its results say what became of the rows."""

    kind: ClassVar[str] = "sandbox_jobs"
    label: ClassVar[str] = "Sandbox jobs"
    modes: ClassVar[frozenset[Mode]] = frozenset(Mode)
    sandbox_path: ClassVar[str] = "jobs"
    settles: ClassVar[float] = 5.0

    def repeat(self, object_: str, action: Action) -> Repeat:  # noqa: ARG002
        """Never for an insert, whose records would be made twice; always for what names its records by key."""
        return Repeat.NEVER if action is Action.CREATE else Repeat.ALWAYS

    def deliver(self, batch: Batch) -> Flow[list[Outcome]]:
        mode = _MODES[batch.action]
        body = b'{"mode":"%b","rows":%b}' % (mode, rows_json(batch))
        response = yield Request("POST", f"/{batch.object}", body)
        reference = document_of(response).get("job")
        if not isinstance(reference, str) or not reference:
            raise unreadable(response, "no job")
        yield Remember(reference)
        return (yield from self.resume(batch, reference))

    def resume(self, batch: Batch, reference: str) -> Flow[list[Outcome]]:
        """Poll the job until it has ended, then read its results.

        Raises:
            Unavailable: An answer cannot be read, or the job does not end.
        """
        path = f"/{batch.object}/{quote(reference, safe='')}"
        pause, waited = FIRST_PAUSE, 0.0
        while True:
            response = yield Request("GET", path)
            if response.status == 404:
                return [_unknown(reference, self.request_id(response))] * len(batch.rows)
            job = document_of(response)
            state = job.get("state")
            if state in ("done", "failed"):
                break
            if state != "running":
                raise unreadable(response, "no state of the job")
            if waited >= PATIENCE:
                raise Unavailable(
                    f"The job {reference} still runs after {waited:.0f} s.", "JOB_RUNNING", self.request_id(response)
                )
            yield Pause(pause)
            waited += pause
            pause = min(pause * 1.5, LONGEST_PAUSE)
        results, last = yield from self._results(path, len(batch.rows))
        request_id = self.request_id(last)
        told: dict[str, Outcome] = {}
        for result in results:
            outcome = outcome_of(result, request_id)
            if outcome is not None:
                told[str(result.get("key"))] = outcome
        if state == "done" and not told:
            raise Unavailable(
                f"The job {reference} is done, and its results say nothing of any row.", "SILENT_ANSWER", request_id
            )
        # Only results that are complete tell which rows the job has not reached.
        complete = state == "failed" and job.get("reached") == len(results)
        rest = _unreached(reference, error_of(job)[1], request_id) if complete else _unmentioned(reference, request_id)
        return [told.get(row.key, rest) for row in batch.rows]

    def _results(self, path: str, most: int) -> Flow[tuple[list[dict[str, Any]], Response]]:
        """All pages of a job's results, and the last answer."""
        results: list[dict[str, Any]] = []
        after = ""
        while True:
            response = yield Request("GET", f"{path}/results?after={quote(after, safe='')}")
            if response.status == 404:
                raise unreadable(response, "no results of a job that it knew a moment ago")
            document = document_of(response)
            page = results_of(response, document)
            results += page
            following = document.get("next")
            if following is None:
                return results, response
            # Pages that bring nothing new would never end.
            if not isinstance(following, str) or not page or len(results) >= most:
                raise unreadable(response, "a next page that cannot be")
            after = following

    def classify(self, request: Request, response: Response) -> None:
        if response.status == 404 and request.method == "GET" and _names_unknown_job(response):
            return
        super().classify(request, response)


def _names_unknown_job(response: Response) -> bool:
    try:
        return error_of(response.json())[0] == UNKNOWN_JOB
    except (ValueError, RecursionError):
        return False


def _unknown(reference: str, request_id: str) -> Outcome:
    reason = f"The sandbox does not know the job {reference} (any more): what became of the row is unknown."
    return Outcome(Status.UNSENT, None, UNKNOWN_JOB, reason, request_id)


def _unreached(reference: str, why: str, request_id: str) -> Outcome:
    reason = f"The job {reference} failed before it reached this row. {why}".strip()
    return Outcome(Status.UNSENT, None, ABSENT, reason, request_id)


def _unmentioned(reference: str, request_id: str) -> Outcome:
    reason = f"The results of the job {reference} do not mention this row: what became of it is unknown."
    return Outcome(Status.UNSENT, None, NO_ANSWER, reason, request_id)
