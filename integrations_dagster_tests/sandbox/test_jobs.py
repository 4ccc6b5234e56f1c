"""Jobs: what they do some time after their submission, and what their status and results say of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.jobs import Jobs
from integrations_dagster.sandbox.settings import Settings
from integrations_dagster.sandbox.store import Store
from integrations_dagster_tests.sandbox.conftest import Api

PATH = "/jobs/shop/orders"


def body(*keys: str, mode: str = "insert", **record: Any) -> dict[str, Any]:
    return {"mode": mode, "rows": [{"key": key, "record": {"n": key, **record}} for key in keys]}


def submit(api: Api, document: dict[str, Any]) -> str:
    answer = api.call("POST", PATH, document)
    assert answer.status_code == 202
    return str(answer.json()["job"])


def ended(api: Api, job: str) -> dict[str, Any]:
    """The status of a job once it has ended."""
    deadline = time.monotonic() + 20
    while True:
        status: dict[str, Any] = api.call("GET", f"{PATH}/{job}").json()
        if status["state"] != "running":
            return status
        assert time.monotonic() < deadline
        time.sleep(0.01)


def results(api: Api, job: str, **query: Any) -> dict[str, Any]:
    page: dict[str, Any] = api.call("GET", f"{PATH}/{job}/results", params=query).json()
    return page


def test_a_job_makes_records_after_its_submission(api: Api, sandbox: SandboxClient) -> None:
    begin = time.monotonic()
    job = submit(api, body("a", "b", "a2"))
    assert ended(api, job) == {"job": job, "state": "done", "rows": 3, "reached": 3}
    assert time.monotonic() - begin >= 0.05
    page = results(api, job)
    assert page["next"] is None
    assert [(entry["key"], entry["status"]) for entry in page["results"]] == [
        ("a", "created"),
        ("b", "created"),
        ("a2", "created"),
    ]
    (listed,) = sandbox.jobs("shop")
    assert (listed["job"], listed["mode"], listed["state"], listed["object"]) == (job, "insert", "done", "orders")
    assert listed["ended"] > listed["submitted"]


def test_a_job_that_is_submitted_twice_inserts_twice_and_upserts_once(api: Api, sandbox: SandboxClient) -> None:
    for mode in ("insert", "insert", "upsert", "upsert"):
        job = submit(api, body("a" if mode == "insert" else "u", mode=mode))
        ended(api, job)
    assert sandbox.insert_counts("shop", "orders") == {"a": 2, "u": 1}
    assert results(api, job)["results"][0]["status"] == "updated"
    assert [entry["writes"] for entry in sandbox.inserted("shop", "orders")] == [1, 1, 2]


def test_results_are_read_in_pages(api: Api, sandbox: SandboxClient) -> None:
    sandbox.configure(job_seconds=0)
    job = submit(api, body(*(f"k{i}" for i in range(5))))
    seen: list[str] = []
    after: str | None = ""
    for _ in range(3):
        page = results(api, job, after=after, limit=2)
        seen += [entry["key"] for entry in page["results"]]
        after = page["next"]
    assert after is None
    assert seen == [f"k{i}" for i in range(5)]
    for query in ({"after": "x"}, {"limit": 0}, {"limit": 201}):
        assert api.call("GET", f"{PATH}/{job}/results", params=query).status_code == 400


def test_rows_rejected_on_demand_are_named_by_the_results(api: Api, sandbox: SandboxClient) -> None:
    sandbox.faults([{"match": {"method": "POST"}, "fault": {"kind": "reject_rows", "with": "bad"}}])
    job = submit(api, body("a", "bad", "c"))
    assert ended(api, job)["state"] == "done"
    assert [entry.get("error", {}).get("code") for entry in results(api, job)["results"]] == [None, "REJECTED", None]
    assert list(sandbox.insert_counts("shop", "orders")) == ["a", "c"]


def test_poison_fails_the_job_at_its_row(api: Api, sandbox: SandboxClient) -> None:
    document = body("a", "b", "c")
    document["rows"][1]["record"]["x"] = "poison"
    status = ended(api, submit(api, document))
    assert (status["state"], status["reached"], status["error"]["code"]) == ("failed", 2, "JOB_FAILED")
    entries = results(api, status["job"])["results"]
    assert [(entry["key"], "error" in entry) for entry in entries] == [("a", False), ("b", True)]
    assert sandbox.insert_counts("shop", "orders") == {"a": 1}


@pytest.mark.parametrize("reached", [0, 2, 3])
def test_a_job_that_fails_on_demand(api: Api, sandbox: SandboxClient, reached: int) -> None:
    sandbox.faults([{"times": 1, "fault": {"kind": "fail_job", "rows": reached, "message": "no more"}}])
    status = ended(api, submit(api, body("a", "b", "c")))
    assert (status["state"], status["reached"], status["error"]["message"]) == ("failed", reached, "no more")
    assert list(sandbox.insert_counts("shop", "orders")) == ["a", "b", "c"][:reached]
    assert sandbox.received()[0]["fault"] == "fail_job"


def test_what_is_no_job_is_refused(api: Api) -> None:
    assert api.call("POST", PATH, body("a", mode="mirror")).status_code == 400
    assert api.call("POST", PATH, {"mode": "insert"}).status_code == 400
    job = submit(api, body())
    assert ended(api, job)["state"] == "done"
    for unknown in ("job-999999", "job-x", "x", f"job-{'9' * 30}"):
        answer = api.call("GET", f"{PATH}/{unknown}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "UNKNOWN_JOB")
        assert api.call("GET", f"{PATH}/{unknown}/results").status_code == 404
    assert api.call("GET", f"/jobs/other/orders/{job}").status_code == 404
    assert api.call("DELETE", f"{PATH}/{job}").status_code == 404


def test_faults_reach_the_reading_of_a_job(api: Api, sandbox: SandboxClient) -> None:
    job = submit(api, body("a"))
    sandbox.faults([{"match": {"method": "GET", "path": "/jobs/*/results"}, "times": 1, "fault": {"kind": "html"}}])
    assert ended(api, job)["state"] == "done"
    assert [api.call("GET", f"{PATH}/{job}/results").status_code for _ in range(2)] == [503, 200]


# The clock of jobs


class Clock:
    """The clock that jobs go by, in these tests."""

    now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("integrations_dagster.sandbox.jobs.time", clock)
    return clock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state.sqlite")
    yield store
    store.close()


def keys(store: Store) -> list[str]:
    return [entry["key"] for entry in store.rows.page("shop", "orders", 0, 100)]


def put(store: Store, jobs: Jobs, clock: Clock, *names: str, seconds: float) -> int:
    work = {
        "mode": "insert",
        "rows": [{"key": name, "record": {}} for name in names],
        "refusals": {},
        "seconds": seconds,
        "fails_after": None,
        "why": "",
    }
    jobs.forget()
    return store.rows.add_job("shop", "orders", work, clock.now).id


def test_rows_take_effect_one_after_the_other_and_jobs_side_by_side(store: Store, clock: Clock) -> None:
    jobs = Jobs(store, Settings())
    put(store, jobs, clock, "a1", "a2", "a3", "a4", seconds=4)
    clock.now += 0.5
    put(store, jobs, clock, "b1", "b2", seconds=2)
    clock.now += 1
    jobs.advance()
    assert keys(store) == ["a1", "b1"]
    clock.now += 2.6
    jobs.advance()
    assert keys(store) == ["a1", "b1", "a2", "b2", "a3", "a4"]
    assert {job.state for job in store.rows.jobs("shop", 0, 9)} == {"done"}


def test_a_sandbox_that_was_killed_goes_on_with_its_jobs(store: Store, clock: Clock) -> None:
    jobs = Jobs(store, Settings())
    put(store, jobs, clock, "a", "b", seconds=2)
    clock.now += 1
    jobs.advance()
    clock.now += 1
    Jobs(store, Settings()).advance()
    assert keys(store) == ["a", "b"]


def test_a_job_ends_after_five_seconds_whatever_it_has_reached(store: Store, clock: Clock) -> None:
    jobs = Jobs(store, Settings())
    number = put(store, jobs, clock, "a", "b", "c", "d", seconds=8)
    clock.now += 60
    jobs.advance()
    assert keys(store) == ["a", "b"]
    job = store.rows.job("shop", "orders", number)
    assert job is not None
    assert (job.state, job.reached, job.ended) == ("failed", 2, job.submitted + 5)
