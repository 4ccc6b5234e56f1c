"""Jobs: rows are submitted, take effect one after the other some time later, and have results that can be read.

POST /jobs/{name}/{object} `{"mode": "insert" | "update" | "upsert" | "delete", "rows": [{"key", "record"}]}`
  -> 202 `{"job": id}`
GET  /jobs/{name}/{object}/{id} -> `{"job", "state": "running" | "done" | "failed", "rows", "reached", "error"}`
GET  /jobs/{name}/{object}/{id}/results?after=&limit= -> `{"results": [...], "next": cursor | null}`

A result is `{"key", "id", "status": "created" | "updated" | "deleted"}` or `{"key", "error": {"code", "message"}}`. An
update of a key without a record is refused with the code UNKNOWN_RECORD; a deletion of one is a deletion without id. A
row with the value "poison" fails the job: it is named, and the rows behind it are not reached.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from integrations_dagster.sandbox.answers import Answer, json_answer
from integrations_dagster.sandbox.api import Api, Call, error_answer
from integrations_dagster.sandbox.inserts import poisoned, record_id, refused, rejection
from integrations_dagster.sandbox.row_store import Job
from integrations_dagster.sandbox.settings import Settings
from integrations_dagster.sandbox.store import Store

LONGEST = 5.0
"""Seconds after its submission at which a job ends in any case."""
PAGE = 200
_PREFIX = "job-"


class Jobs(Api):
    """The jobs.

    What a job does is a matter of the clock alone, so nothing runs for it: whoever looks first brings all jobs up to
    date, in the order in which their rows were due. A sandbox that was killed goes on with them.

    Args:
        store: The state.
        settings: `job_seconds` and `insert_bytes` in force.
    """

    prefix: ClassVar[str] = "/jobs/"
    gzip: ClassVar[bool] = True

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._running: dict[int, Job] | None = None

    def handle(self, call: Call) -> Answer:
        self.advance()
        match (call.method, *call.path.removeprefix(self.prefix).split("/")):
            case ("POST", name, object_) if name and object_:
                return self._submit(call, name, object_)
            case ("GET", name, object_, reference):
                job = self._find(name, object_, reference)
                return _unknown(reference) if job is None else json_answer(200, shown(job))
            case ("GET", name, object_, reference, "results"):
                job = self._find(name, object_, reference)
                return _unknown(reference) if job is None else self._results(job, call.query)
        return error_answer(404, "NOT_FOUND", f"There is no {call.method} {call.path}.")

    def empty(self, call: Call) -> Answer:
        if call.method == "POST":
            return json_answer(202, {})
        return json_answer(200, {"results": [], "next": None} if call.path.endswith("/results") else {})

    def forget(self) -> None:
        """The state was emptied."""
        self._running = None

    def advance(self) -> None:
        """Let every row take effect that is due by now."""
        if self._running is None:
            self._running = {job.id: job for job in self._store.rows.running()}
        if not self._running:
            return
        now = time.time()
        running, self._running = self._running, None
        due = sorted(
            (_due(job, position), job.id, position)
            for job in running.values()
            for position in range(job.reached, _come_to(job, now))
        )
        results: dict[int, list[tuple[int, dict[str, Any]]]] = {id_: [] for id_ in running}
        with self._store.transaction():
            for at, id_, position in due:
                job = running[id_]
                _end_if_due(job, at)
                if job.state == "running":
                    results[id_].append((position, self._take(job, position, at)))
                    job.reached = position + 1
            for job in running.values():
                _end_if_due(job, now)
                if results[job.id] or job.state != "running":
                    self._store.rows.save_job(job, results[job.id])
        # Only now is what these jobs say also in the state; after an error they are read from there again.
        self._running = {id_: job for id_, job in running.items() if job.state == "running"}

    def _take(self, job: Job, position: int, at: float) -> dict[str, Any]:
        row = job.work["rows"][position]
        key, record = row["key"], row["record"]
        error = job.work["refusals"].get(str(position))
        if error is not None:
            return {"key": key, "error": error}
        if poisoned(row):
            job.state, job.ended, job.message = "failed", at, "A row holds a value that cannot be taken."
            return {"key": key, "error": {"code": "BAD_ROW", "message": "The row holds a value that cannot be taken."}}
        mode = job.work["mode"]
        if mode == "delete":
            gone = self._store.rows.delete(job.name, job.object, key)
            return {"key": key, "id": record_id(gone) if gone is not None else None, "status": "deleted"}
        if mode == "update" and not self._store.rows.has(job.name, job.object, key):
            return {"key": key, "error": {"code": "UNKNOWN_RECORD", "message": "There is no record with this key."}}
        if mode in ("upsert", "update"):
            id_, new = self._store.rows.upsert(job.name, job.object, key, record, at)
        else:
            id_, new = self._store.rows.insert(job.name, job.object, [(key, record)], at)[0], True
        return {"key": key, "id": record_id(id_), "status": "created" if new else "updated"}

    def _submit(self, call: Call, name: str, object_: str) -> Answer:
        refusal = refused(call, self._settings.insert_bytes)
        if refusal is not None:
            return refusal
        mode, rows = call.document.get("mode"), call.document["rows"]
        if mode not in ("insert", "update", "upsert", "delete"):
            return error_answer(400, "INVALID_BODY", "mode is insert, update, upsert or delete.")
        refusals = {str(i): error for i, row in enumerate(rows) if (error := rejection(row, call.rejections))}
        work: dict[str, Any] = {
            "mode": mode,
            "rows": rows,
            "refusals": refusals,
            "seconds": self._settings.job_seconds,
            "fails_after": None,
            "why": "",
        }
        if call.fail_job is not None:
            work["fails_after"] = int(call.fail_job.get("rows", 0))
            work["why"] = str(call.fail_job.get("message", "The job failed on demand."))
        with self._store.transaction():
            job = self._store.rows.add_job(name, object_, work, time.time())
        if self._running is not None:
            self._running[job.id] = job
        return json_answer(202, {"job": f"{_PREFIX}{job.id}"}, failed_rows=len(refusals))

    def _find(self, name: str, object_: str, reference: str) -> Job | None:
        number = reference.removeprefix(_PREFIX)
        if not reference.startswith(_PREFIX) or not (number.isascii() and number.isdigit() and len(number) < 19):
            return None
        return self._store.rows.job(name, object_, int(number))

    def _results(self, job: Job, query: Mapping[str, str]) -> Answer:
        after, limit = query.get("after") or "0", query.get("limit") or str(PAGE)
        numbers = all(text.isascii() and text.isdigit() and len(text) < 10 for text in (after, limit))
        if not numbers or not 0 < int(limit) <= PAGE:
            return error_answer(400, "INVALID_PAGE", f"after is a cursor, limit a number from 1 to {PAGE}.")
        page = self._store.rows.results(job.id, int(after), int(limit) + 1)
        following = str(page[int(limit)][0]) if len(page) > int(limit) else None
        return json_answer(200, {"results": [result for _, result in page[: int(limit)]], "next": following})


def shown(job: Job) -> dict[str, Any]:
    """A job as its status shows it."""
    status: dict[str, Any] = {
        "job": f"{_PREFIX}{job.id}",
        "state": job.state,
        "rows": len(job.work["rows"]),
        "reached": job.reached,
    }
    if job.state == "failed":
        status["error"] = {"code": "JOB_FAILED", "message": job.message}
    return status


def _due(job: Job, position: int) -> float:
    """When a row of a job takes effect: evenly spread over the job's time."""
    seconds: float = job.work["seconds"]
    return job.submitted + seconds * (position + 1) / len(job.work["rows"])


def _come_to(job: Job, now: float) -> int:
    """How many rows are due by now, and before the job's time is up."""
    rows, seconds = len(job.work["rows"]), float(job.work["seconds"])
    passed = min(now - job.submitted, LONGEST)
    return rows if passed >= seconds else max(job.reached, int(passed / seconds * rows))


def _end_if_due(job: Job, now: float) -> None:
    fails_after = job.work["fails_after"]
    if job.state != "running":
        return
    if fails_after is not None and job.reached >= min(fails_after, len(job.work["rows"])):
        job.state, job.ended, job.message = "failed", now, job.work["why"]
    elif job.reached == len(job.work["rows"]):
        job.state, job.ended = "done", now
    elif now > job.submitted + LONGEST:
        job.state, job.ended = "failed", job.submitted + LONGEST
        job.message = f"The job was ended after {LONGEST:g} s."


def _unknown(reference: str) -> Answer:
    return error_answer(404, "UNKNOWN_JOB", f"There is no job {reference[:40]}.")
