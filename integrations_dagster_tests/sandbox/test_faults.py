from __future__ import annotations

import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster_tests.sandbox.conftest import Api, upsert_input

UPSERT = {"path": "*/batch/upsert"}


def emails(sandbox: SandboxClient) -> list[str]:
    return [record["properties"]["email"] for record in sandbox.records("contacts")]


def one(sandbox: SandboxClient, fault: dict[str, Any]) -> None:
    """The next upsert goes wrong."""
    sandbox.faults([{"match": UPSERT, "times": 1, "fault": fault}])


def test_only_what_matches_goes_wrong_and_only_when_it_is_due(api: Api, sandbox: SandboxClient) -> None:
    sandbox.faults(
        [
            {
                "match": {"path": "/crm/*/batch/upsert", "method": "post", "rows_with": "bad"},
                "after": 1,
                "times": 2,
                "fault": {"kind": "status", "status": 500},
            }
        ]
    )
    assert api.upsert("good@example.com").status_code == 200
    assert [api.upsert("bad@example.com").status_code for _ in range(5)] == [200, 500, 500, 200, 200]
    assert api.batch("contacts", "read", [{"id": "bad@example.com"}]).status_code == 207
    assert sandbox.fault_state()[0]["fired"] == 2
    assert [entry["fault"] for entry in sandbox.received()] == ["", "", "status", "status", "", "", ""]
    sandbox.clear_faults()
    assert sandbox.fault_state() == []


def test_chance_repeats_with_its_seed(api: Api, sandbox: SandboxClient) -> None:
    rule = {"match": UPSERT, "probability": 0.5, "seed": 7, "fault": {"kind": "status", "status": 503}}

    def run() -> list[int]:
        sandbox.faults([rule])
        return [api.upsert("a@example.com").status_code for _ in range(20)]

    first = run()
    assert set(first) == {200, 503}
    assert run() == first


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"fault": {"kind": "explode"}}, "explode"),
        ({"fault": {"kind": "reset", "when": 1}}, "when"),
        ({"fault": {"kind": "latency"}}, "seconds"),
        ({"match": {"host": "x"}, "fault": {"kind": "empty"}}, "host"),
        ({}, "needs a fault"),
    ],
)
def test_a_rule_that_cannot_be_read_says_why(sandbox: SandboxClient, rule: dict[str, Any], message: str) -> None:
    one(sandbox, {"kind": "empty"})
    with pytest.raises(ValueError, match=message):
        sandbox.faults([rule])
    assert len(sandbox.fault_state()) == 1


def test_statuses_have_the_vendors_bodies_and_no_effect(api: Api, sandbox: SandboxClient) -> None:
    one(sandbox, {"kind": "status", "status": 429})
    throttled = api.upsert("a@example.com")
    assert (throttled.status_code, throttled.json()["policyName"]) == (429, "TEN_SECONDLY_ROLLING")
    assert "Retry-After" not in throttled.headers
    one(sandbox, {"kind": "status", "status": 429, "retry_after": 3})
    assert api.upsert("a@example.com").headers["Retry-After"] == "3"
    one(sandbox, {"kind": "status", "status": 429, "retry_after_date": 30})
    when = parsedate_to_datetime(api.upsert("a@example.com").headers["Retry-After"])
    assert 25 < when.timestamp() - time.time() < 35
    one(sandbox, {"kind": "status", "status": 418, "body": {"own": 1}, "headers": {"x-own": "2"}})
    own = api.upsert("a@example.com")
    assert (own.status_code, own.json(), own.headers["x-own"]) == (418, {"own": 1}, "2")
    one(sandbox, {"kind": "html"})
    page = api.upsert("a@example.com")
    assert page.status_code == 503
    assert page.headers["content-type"].startswith("text/html")
    assert emails(sandbox) == []


def test_a_token_that_expires_after_some_requests(api: Api, sandbox: SandboxClient) -> None:
    sandbox.faults([{"after": 2, "fault": {"kind": "unauthorized"}}])
    assert [api.upsert("a@example.com").status_code for _ in range(4)] == [200, 200, 401, 401]


@pytest.mark.parametrize("applied", [False, True])
def test_a_reset(api: Api, sandbox: SandboxClient, applied: bool) -> None:
    api.upsert("warm@example.com")
    one(sandbox, {"kind": "reset", "applied": applied})
    with pytest.raises(requests.ConnectionError) as caught:
        api.upsert("a@example.com")
    assert "reset" in str(caught.value).lower()
    assert ("a@example.com" in emails(sandbox)) is applied
    entry = sandbox.received()[-1]
    assert (entry["status"], entry["fault"]) == (None, "reset")
    assert entry["ended"] is not None
    assert api.upsert("b@example.com").status_code == 200


def test_answers_that_cannot_be_read_although_the_rows_are_in(api: Api, sandbox: SandboxClient) -> None:
    one(sandbox, {"kind": "malformed"})
    malformed = api.upsert("a@example.com")
    assert malformed.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        malformed.json()
    one(sandbox, {"kind": "truncated"})
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
        api.upsert("b@example.com")
    one(sandbox, {"kind": "oversized", "bytes": 5_000_000})
    assert len(api.upsert("c@example.com").content) == 5_000_000
    assert sorted(emails(sandbox)) == ["a@example.com", "b@example.com", "c@example.com"]


@pytest.mark.parametrize(("status", "location"), [(307, None), (302, "http://other.invalid/crm")])
def test_a_redirect_to_another_host(api: Api, sandbox: SandboxClient, status: int, location: str | None) -> None:
    given = {} if location is None else {"status": status, "location": location}
    one(sandbox, {"kind": "redirect", **given})
    answer = api.call("POST", "/crm/v3/objects/contacts/batch/upsert", {"inputs": []}, allow_redirects=False)
    assert answer.status_code == status
    assert answer.headers["location"] == (location or "https://elsewhere.invalid/")
    assert emails(sandbox) == []


def test_an_answer_without_end(api: Api, sandbox: SandboxClient) -> None:
    body = {"inputs": [upsert_input("a@example.com")]}
    one(sandbox, {"kind": "endless", "seconds": 0.001})
    with api.call("POST", "/crm/v3/objects/contacts/batch/upsert", body, stream=True, timeout=5) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_content(64)
        assert len(b"".join(next(pieces) for _ in range(50))) > 2000
    one(sandbox, {"kind": "endless", "bytes": 1_000_000, "seconds": 0, "applied": False})
    with api.call("POST", "/crm/v3/objects/contacts/batch/upsert", body, stream=True, timeout=5) as answer:
        assert len(answer.raw.read(20_000_000)) == 20_000_000
    assert emails(sandbox) == ["a@example.com"]
    # The server is rid of both.
    assert api.upsert("b@example.com").status_code == 200


def test_a_head_that_trickles_outlasts_the_timeout_of_each_read(api: Api, sandbox: SandboxClient) -> None:
    one(sandbox, {"kind": "slow_head", "seconds": 1.0})
    begin = time.monotonic()
    # Each byte comes long before this timeout, which bounds single waits only.
    assert api.call("POST", "/crm/v3/objects/contacts/batch/upsert", {"inputs": []}, timeout=0.5).status_code == 200
    assert time.monotonic() - begin >= 1.0
    one(sandbox, {"kind": "slow_head", "seconds": 1000.0, "applied": False})
    with pytest.raises(requests.Timeout):
        api.call("POST", "/crm/v3/objects/contacts/batch/upsert", {"inputs": []}, timeout=0.3)
    assert api.upsert("b@example.com").status_code == 200


@pytest.mark.parametrize("applied", [False, True])
def test_a_success_that_says_nothing(api: Api, sandbox: SandboxClient, applied: bool) -> None:
    one(sandbox, {"kind": "empty", "applied": applied})
    answer = api.upsert("a@example.com")
    assert answer.status_code == 200
    assert answer.json()["status"] == "COMPLETE"
    assert answer.json()["results"] == []
    assert emails(sandbox) == (["a@example.com"] if applied else [])


def test_rows_rejected_on_demand(api: Api, sandbox: SandboxClient) -> None:
    fault = {"kind": "reject_rows", "with": "b@", "code": "INVALID_OPTION", "message": "no", "property": "plan"}
    sandbox.faults([{"fault": fault}])
    answer = api.batch("contacts", "upsert", [upsert_input("a@example.com"), upsert_input("b@example.com", plan="x")])
    assert answer.status_code == 207
    (error,) = answer.json()["errors"]
    assert error["context"]["objectWriteTraceId"] == ["b@example.com"]
    assert error["errors"] == [{"message": "no", "code": "INVALID_OPTION", "context": {"propertyName": ["plan"]}}]
    assert emails(sandbox) == ["a@example.com"]


def test_latency_adds_up(api: Api, sandbox: SandboxClient) -> None:
    sandbox.configure(latency=0.05)
    sandbox.faults([{"match": UPSERT, "fault": {"kind": "latency", "seconds": 0.1}}])
    begin = time.monotonic()
    assert api.upsert("a@example.com").status_code == 200
    assert time.monotonic() - begin >= 0.15


@pytest.mark.parametrize("applied", [False, True])
def test_a_held_request_goes_on_when_released(api: Api, sandbox: SandboxClient, applied: bool) -> None:
    one(sandbox, {"kind": "hold", "applied": applied})
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(api.upsert("a@example.com").status_code))
    thread.start()
    sandbox.wait_held()
    assert emails(sandbox) == (["a@example.com"] if applied else [])
    assert sandbox.received()[-1]["ended"] is None
    assert sandbox.release() == 1
    thread.join(20)
    assert statuses == [200]
    assert emails(sandbox) == ["a@example.com"]
    assert sandbox.held() == 0


@pytest.mark.parametrize(("late", "effect"), [(False, False), (True, True)])
def test_a_held_request_whose_sender_gives_up(api: Api, sandbox: SandboxClient, late: bool, effect: bool) -> None:
    one(sandbox, {"kind": "hold", "late": late})
    with pytest.raises(requests.ReadTimeout):
        api.call(
            "POST",
            "/crm/v3/objects/contacts/batch/upsert",
            {"inputs": [upsert_input("a@example.com")]},
            timeout=0.2,
        )
    if late:
        sandbox.wait_held()
        sandbox.release()
    deadline = time.monotonic() + 20
    while sandbox.received()[-1]["ended"] is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert emails(sandbox) == (["a@example.com"] if effect else [])
    assert sandbox.received()[-1]["status"] is None


def test_a_hold_may_end_by_itself(api: Api, sandbox: SandboxClient) -> None:
    one(sandbox, {"kind": "hold", "seconds": 0.1})
    begin = time.monotonic()
    assert api.upsert("a@example.com").status_code == 200
    assert time.monotonic() - begin >= 0.1


def test_a_new_batch_is_served_while_another_is_held(api: Api, sandbox: SandboxClient) -> None:
    one(sandbox, {"kind": "hold"})
    thread = threading.Thread(target=lambda: api.upsert("a@example.com", firstname="old"))
    thread.start()
    sandbox.wait_held()
    other = Api(api.endpoint)
    with other.session:
        assert other.upsert("a@example.com", firstname="new").status_code == 200
    sandbox.release()
    thread.join(20)
    # The held request took effect after the newer one.
    assert sandbox.records("contacts")[0]["properties"]["firstname"] == "old"
