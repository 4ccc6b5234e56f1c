from __future__ import annotations

import json
import time
from typing import Any

import pytest
import requests

from integrations_dagster.sandbox.client import SandboxClient
from integrations_dagster.sandbox.webhook import sign


def deliver(
    sandbox: SandboxClient, delivery: str, rows: list[dict[str, Any]], *, headers: dict[str, str] | None = None
) -> requests.Response:
    body = json.dumps({"delivery_id": delivery, "sync": "s", "object": "orders", "rows": rows}).encode()
    sent_at = str(int(time.time()))
    signed = {
        "webhook-id": delivery,
        "webhook-timestamp": sent_at,
        "webhook-signature": sign(sandbox.endpoint.secret, delivery, sent_at, body),
        "content-type": "application/json",
    }
    url = f"{sandbox.endpoint.url}/webhook/shop"
    return requests.post(url, data=body, headers=signed | (headers or {}), timeout=20)


def row(key: str, change: str = "added", **record: Any) -> dict[str, Any]:
    return {"change": change, "key": key, "partition": "2026-01-01", "match": key, "record": record}


def test_the_signature_is_the_one_of_the_standard() -> None:
    # The example of the Standard Webhooks reference libraries.
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_last_record_of_a_key_is_kept_and_removed_on_demand(sandbox: SandboxClient) -> None:
    answer = deliver(sandbox, "d1", [row("a", total=1), row("b", total=2)])
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2})
    deliver(sandbox, "d2", [row("a", "changed", total=3), row("b", "removed")])
    assert sandbox.webhook_records("shop", "orders") == {"a": {"total": 3}}
    assert sandbox.webhook_writes("shop", "orders") == {"a": 2, "b": 2}
    assert sandbox.webhook_entries("shop", "orders")["a"]["partition"] == "2026-01-01"
    assert sandbox.webhook_records("shop", "other") == {}
    assert [entry["ids"] for entry in sandbox.received()] == [["d1"], ["d2"]]


def test_a_delivery_counts_once(sandbox: SandboxClient) -> None:
    deliver(sandbox, "d1", [row("a", total=1)])
    again = deliver(sandbox, "d1", [row("a", "changed", total=2)])
    assert (again.status_code, again.json()["accepted"]) == (200, 1)
    assert sandbox.webhook_records("shop", "orders") == {"a": {"total": 1}}
    assert sandbox.webhook_writes("shop", "orders") == {"a": 1}
    assert sandbox.stats()["duplicate_deliveries"] == {"shop": 1}


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": ""},
        {"webhook-id": "other"},
        {"webhook-timestamp": "1"},
        {"webhook-timestamp": "now"},
    ],
)
def test_what_is_not_signed_is_refused(sandbox: SandboxClient, headers: dict[str, str]) -> None:
    assert deliver(sandbox, "d1", [row("a")], headers=headers).status_code == 401
    assert sandbox.webhook_entries("shop", "orders") == {}


def test_one_of_several_signatures_is_enough(sandbox: SandboxClient) -> None:
    body = b'{"object":"orders","sync":"s","rows":[]}'
    sent_at = str(int(time.time()))
    signatures = f"v1,AAAA {sign(sandbox.endpoint.secret, 'd1', sent_at, body)}"
    headers = {"webhook-id": "d1", "webhook-timestamp": sent_at, "webhook-signature": signatures}
    url = f"{sandbox.endpoint.url}/webhook/shop"
    assert requests.post(url, data=body, headers=headers, timeout=20).status_code == 200


@pytest.mark.parametrize("bad", [{"key": 1}, {"change": "moved"}, {"record": None}])
def test_a_bad_row_refuses_the_delivery(sandbox: SandboxClient, bad: dict[str, Any]) -> None:
    answer = deliver(sandbox, "d1", [row("a"), row("b") | bad])
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert sandbox.webhook_entries("shop", "orders") == {}
