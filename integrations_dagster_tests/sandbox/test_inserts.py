"""Inserts, without an idempotency key and with one, as a client sees them and through the destination's own flow."""

from __future__ import annotations

import gzip
import json
import threading
from typing import Any

import pytest
import requests

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster_tests.sandbox.conftest import Api

PATH = "/inserts/shop/orders"


def rows(*keys: str, **record: Any) -> dict[str, Any]:
    return {"rows": [{"key": key, "record": {"n": key, **record}} for key in keys]}


def keyed(api: Api, key: str, body: dict[str, Any]) -> requests.Response:
    return api.call("POST", PATH, body, headers={"Idempotency-Key": key})


def test_every_accepted_row_makes_a_record(api: Api, sandbox: SandboxClient) -> None:
    answer = api.call("POST", PATH, rows("a", "b"))
    assert answer.status_code == 200
    assert [result["status"] for result in answer.json()["results"]] == ["created", "created"]
    assert answer.headers["x-request-id"].startswith("req-")
    assert int(answer.headers["RateLimit-Remaining"]) < int(answer.headers["RateLimit-Limit"])
    api.call("POST", PATH, rows("a"))
    api.call("POST", "/inserts/other/orders", rows("a"))
    assert sandbox.insert_counts("shop", "orders") == {"a": 2, "b": 1}
    assert sandbox.insert_counts("other", "orders") == {"a": 1}
    records = sandbox.inserted("shop", "orders")
    assert [entry["key"] for entry in records] == ["a", "b", "a"]
    assert [entry["id"] for entry in records[:2]] == [result["id"] for result in answer.json()["results"]]
    assert records[0]["record"] == {"n": "a"}


def test_rows_rejected_on_demand_keep_their_place(api: Api, sandbox: SandboxClient) -> None:
    sandbox.faults([{"fault": {"kind": "reject_rows", "with": "bad", "code": "NO", "message": "no"}}])
    results = api.call("POST", PATH, rows("a", "bad", "c")).json()["results"]
    assert results[1] == {"error": {"code": "NO", "message": "no"}}
    assert [result.get("status") for result in results] == ["created", None, "created"]
    assert list(sandbox.insert_counts("shop", "orders")) == ["a", "c"]
    assert sandbox.received()[-1]["failed_rows"] == 1


def test_poison_refuses_the_whole_batch_and_names_no_row(api: Api, sandbox: SandboxClient) -> None:
    body = rows("a", "b")
    body["rows"][1]["record"]["x"] = "poison"
    answer = api.call("POST", PATH, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BAD_BATCH")
    assert "b" not in answer.json()["error"]["message"].split()
    assert sandbox.inserted("shop", "orders") == []


@pytest.mark.parametrize(
    "body",
    [{}, {"rows": {}}, {"rows": [1]}, {"rows": [{"key": 1, "record": {}}]}, {"rows": [{"key": "a"}]}, []],
)
def test_what_is_no_rows_is_refused(api: Api, body: Any) -> None:
    answer = api.call("POST", PATH, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_BODY")


@pytest.mark.parametrize("path", [PATH, "/jobs/shop/orders"])
def test_half_a_surrogate_pair_is_refused(api: Api, path: str) -> None:
    body = b'{"mode":"insert","rows":[{"key":"a","record":{"x":"\\ud800"}}]}'
    answer = api.session.post(api.endpoint.url + path, data=body, timeout=20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_BODY")


def test_other_paths_methods_and_tokens_are_refused(api: Api) -> None:
    assert api.call("POST", "/inserts/shop", rows("a")).status_code == 404
    assert api.call("GET", PATH).status_code == 405
    wrong = api.call("POST", PATH, rows("a"), headers={"Authorization": "Bearer wrong"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "UNAUTHORIZED")
    assert wrong.headers["x-request-id"]


def test_bodies_may_be_compressed(api: Api, sandbox: SandboxClient) -> None:
    url, headers = api.endpoint.url + PATH, {"Content-Encoding": "gzip"}
    body = json.dumps(rows("a", x="y" * 5000)).encode()
    sandbox.configure(bodies=True, insert_bytes=6000)
    packed = gzip.compress(body)
    assert api.session.post(url, data=packed, headers=headers, timeout=20).status_code == 200
    entry = sandbox.received(bodies=True)[-1]
    assert (entry["rows"], entry["body"]) == (1, body.decode())
    # The limit is that of the bytes behind the compression.
    large = gzip.compress(json.dumps(rows("b", x="y" * 50_000)).encode())
    assert len(large) < 6000
    assert api.session.post(url, data=large, headers=headers, timeout=20).status_code == 413
    for broken in (b"no gzip", packed[:-9], packed + b"x"):
        assert api.session.post(url, data=broken, headers=headers, timeout=20).status_code == 400
    assert sandbox.insert_counts("shop", "orders") == {"a": 1}


# Idempotency keys


def test_a_key_is_answered_once_and_repeated(api: Api, sandbox: SandboxClient) -> None:
    first = keyed(api, "k1", rows("a", "b"))
    again = keyed(api, "k1", rows("a", "b"))
    assert again.content == first.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert sandbox.insert_counts("shop", "orders") == {"a": 1, "b": 1}
    assert sandbox.idempotency("shop") == {"k1": {"status": 200, "replays": 1, "reused": 0}}
    assert sandbox.received()[-1]["ids"] == ["k1"]


def test_a_key_for_another_body_is_refused(api: Api, sandbox: SandboxClient) -> None:
    keyed(api, "k1", rows("a"))
    other = keyed(api, "k1", rows("b"))
    assert (other.status_code, other.json()["error"]["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    elsewhere = api.call("POST", "/inserts/shop/refunds", rows("a"), headers={"Idempotency-Key": "k1"})
    assert elsewhere.status_code == 422
    assert sandbox.idempotency("shop")["k1"]["reused"] == 2
    assert api.call("POST", "/inserts/other/orders", rows("a"), headers={"Idempotency-Key": "k1"}).status_code == 200


def test_refusals_are_kept_too_but_not_throttling_and_outages(api: Api, sandbox: SandboxClient) -> None:
    assert [keyed(api, "k1", rows("a", x="poison")).status_code for _ in range(2)] == [400, 400]
    assert sandbox.idempotency("shop")["k1"] == {"status": 400, "replays": 1, "reused": 0}
    sandbox.faults([{"times": 2, "fault": {"kind": "status", "status": 503}}])
    sandbox.configure(quota={"limit": 1, "window": 60})
    assert [keyed(api, "k2", rows("a")).status_code for _ in range(4)] == [503, 503, 200, 429]
    assert sandbox.insert_counts("shop", "orders") == {"a": 1}


def test_keys_are_forgotten_in_time(api: Api, sandbox: SandboxClient) -> None:
    keyed(api, "k1", rows("a"))
    sandbox.configure(key_seconds=0)
    keyed(api, "k1", rows("a"))
    assert sandbox.insert_counts("shop", "orders") == {"a": 2}


@pytest.mark.parametrize("applied", [False, True])
def test_a_keyed_insert_whose_answer_was_lost_is_done_once(api: Api, sandbox: SandboxClient, applied: bool) -> None:
    sandbox.faults([{"times": 1, "fault": {"kind": "reset", "applied": applied}}])
    with pytest.raises(requests.ConnectionError):
        keyed(api, "k1", rows("a"))
    assert keyed(api, "k1", rows("a")).status_code == 200
    assert sandbox.insert_counts("shop", "orders") == {"a": 1}


def test_a_keyed_insert_that_arrives_late_is_done_once(api: Api, sandbox: SandboxClient) -> None:
    sandbox.faults([{"times": 1, "fault": {"kind": "hold", "late": True}}])
    thread = threading.Thread(target=lambda: keyed(api, "k1", rows("a")))
    thread.start()
    sandbox.wait_held()
    other = Api(api.endpoint)
    with other.session:
        assert keyed(other, "k1", rows("a")).status_code == 200
    sandbox.release()
    thread.join(20)
    assert sandbox.insert_counts("shop", "orders") == {"a": 1}


# Faults


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "document"),
    [
        ("POST", PATH, rows("a"), 200, {"results": []}),
        ("POST", "/jobs/shop/orders", rows("a") | {"mode": "insert"}, 202, {}),
        ("GET", "/jobs/shop/orders/job-1", None, 200, {}),
        ("GET", "/jobs/shop/orders/job-1/results", None, 200, {"results": [], "next": None}),
        ("POST", "/webhook/shop", {}, 200, {}),
    ],
)
def test_a_success_that_says_nothing_has_the_apis_own_shape(
    api: Api, sandbox: SandboxClient, method: str, path: str, body: Any, status: int, document: Any
) -> None:
    sandbox.faults([{"fault": {"kind": "empty"}}])
    answer = api.call(method, path, body)
    assert (answer.status_code, answer.json()) == (status, document)
    assert sandbox.inserted("shop", "orders") == []


@pytest.mark.parametrize("status", [429, 503, 418])
def test_errors_on_demand_have_the_apis_own_shape(api: Api, sandbox: SandboxClient, status: int) -> None:
    sandbox.faults([{"fault": {"kind": "status", "status": status}}])
    answer = api.call("POST", PATH, rows("a"))
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message"}
