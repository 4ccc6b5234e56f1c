from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from integrations_dagster.destinations.base import Batch, Repeat, Request, Response
from integrations_dagster.destinations.errors import (
    DestinationError,
    PoisonedBatch,
    Refused,
    Throttled,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from integrations_dagster.destinations.webhook import TABLE, Webhook
from integrations_dagster.vocabulary import Action, Change, Misconfigured, Mode, Outcome, Status
from integrations_dagster_tests.destinations.flows import answer, batch, body_of, drive, first, row

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
REQUEST = Request("POST", "", b"{}")


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def signed(secret: str = SECRET, now: float = 1785585600.9) -> Webhook:
    return Webhook({"secret": secret}, clock=Clock(now))


def first_request(hook: Webhook, rows: Batch) -> Request:
    return hook.sign(first(hook.deliver(rows)))


def expected_signature(request: Request, key: bytes = KEY) -> str:
    content = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + (
        request.body or b""
    )
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def test_a_delivery_carries_rows_key_and_change() -> None:
    rows = [
        row(1, "1", payload={"name": "Zoë"}, partition="2026-08-01"),
        row(2, "2", payload={}, change=Change.CHANGED),
    ]
    hook = signed()
    outcomes, requests = drive(hook, hook.deliver(batch(rows, object_="customers", match=())), [Response(202)])
    (request,) = requests
    assert (request.method, request.path) == ("POST", "")
    assert body_of(request) == {
        "delivery_id": "delivery-1",
        "object": "customers",
        "rows": [
            {"change": "added", "key": "1", "partition": "2026-08-01", "record": {"name": "Zoë"}},
            {"change": "changed", "key": "2", "partition": "", "record": {}},
        ],
        "sync": "crm_contacts",
    }
    assert outcomes == [Outcome(Status.CREATED), Outcome(Status.UPDATED)]


def test_removed_rows_have_no_record() -> None:
    hook = signed()
    rows = [row(1, "1", Action.DELETE)]
    outcomes, requests = drive(hook, hook.deliver(batch(rows, match=())), [answer(200, {"anything": 1})])
    assert body_of(requests[0])["rows"] == [{"change": "removed", "key": "1", "partition": ""}]
    assert outcomes == [Outcome(Status.DELETED)]


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"ok": false}'])
def test_any_2xx_takes_the_whole_delivery(body: bytes) -> None:
    hook = signed()
    outcomes, _ = drive(hook, hook.deliver(batch([row(i) for i in range(3)])), [Response(204, {}, body)])
    assert [o.status for o in outcomes] == [Status.CREATED] * 3


def test_the_signature_is_that_of_standard_webhooks() -> None:
    request = first_request(signed(), batch([row(1, payload={"x": "שלום"})]))
    assert request.headers["webhook-id"] == "delivery-1"
    assert request.headers["webhook-timestamp"] == "1785585600"
    assert request.headers["webhook-signature"] == expected_signature(request)


def test_the_published_example_of_standard_webhooks_is_reproduced() -> None:
    # The example that the specification's own libraries test themselves with.
    hook = Webhook({"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, clock=Clock(1614265330))
    body = b'{"test": 2432232314}'
    request = hook.sign(Request("POST", "", body, {"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek"}))
    assert request.headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_plain_secret_is_its_bytes() -> None:
    request = first_request(signed("s3cret ü"), batch([row(1)]))
    assert request.headers["webhook-signature"] == expected_signature(request, "s3cret ü".encode())


def test_without_a_secret_there_is_no_signature() -> None:
    request = first_request(Webhook(clock=Clock(5)), batch([row(1)]))
    assert "webhook-signature" not in request.headers
    assert request.headers["webhook-timestamp"] == "5"


@pytest.mark.parametrize("secret", ["whsec_", "whsec_not base64!", "whsec_abc"])
def test_a_broken_secret_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(Misconfigured, match="not base64") as caught:
        Webhook({"secret": secret})
    assert "abc" not in str(caught.value)
    assert "not base64!" not in str(caught.value)


def test_a_delivery_sent_again_has_the_same_id_and_body_and_a_new_signature() -> None:
    clock = Clock(1000)
    hook = Webhook({"secret": SECRET}, clock=clock)
    rows = [row(1, payload={"b": 1, "a": [1, {"d": 2, "c": 3}]})]
    first = first_request(hook, batch(rows))
    clock.now = 2000
    rows = [row(1, payload={"a": [1, {"c": 3, "d": 2}], "b": 1})]
    second = first_request(hook, batch(rows))
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    again = hook.sign(first)
    assert again == second
    assert again.headers["webhook-signature"] == expected_signature(again) != first.headers["webhook-signature"]


@pytest.mark.parametrize(
    ("reply", "recovery"),
    [
        (answer(401, {"error": "webhook-signature does not match"}), Unauthorized),
        (Response(403), Refused),
        (Response(404), Refused),
        (Response(410), Refused),
        (Response(413), TooLarge),
        (Response(429), Throttled),
        (answer(400, {"message": "row 3 is bad"}), PoisonedBatch),
        (Response(422), PoisonedBatch),
        (Response(408), Unavailable),
        (Response(405), Refused),
        (Response(500), Unavailable),
        (Response(503, {"content-type": "text/html"}, b"<html>no</html>"), Unavailable),
        (Response(307, {"location": "https://x"}), Refused),
        (Response(150), Unavailable),
    ],
)
def test_errors_recover_as_the_table_says(reply: Response, recovery: type[DestinationError]) -> None:
    with pytest.raises(DestinationError) as caught:
        signed().classify(REQUEST, reply)
    assert type(caught.value) is recovery
    assert "<html>" not in caught.value.reason
    if isinstance(caught.value, Refused):
        assert caught.value.remedy


@pytest.mark.parametrize("status", [*range(300, 600), 100])
def test_every_status_is_decided(status: int) -> None:
    with pytest.raises(DestinationError):
        signed().classify(REQUEST, Response(status))


def test_only_a_401_asks_for_a_new_token() -> None:
    assert [entry.status for entry in TABLE if entry.recovery is Unauthorized] == ["401"]


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (answer(422, {"error": "The row with key 7 needs a record."}), "The row with key 7 needs a record."),
        (answer(400, "plain json text"), "plain json text"),
        (Response(400, {"content-type": "text/plain"}, b"row  7\nis bad"), "row 7 is bad"),
        (answer(400, {"error": {"code": 1}}), "status 400"),
        (answer(400, [1]), "status 400"),
    ],
)
def test_the_receivers_words_reach_the_reader(reply: Response, says: str) -> None:
    with pytest.raises(PoisonedBatch) as caught:
        signed().classify(REQUEST, reply)
    assert says in caught.value.reason


def test_a_throttle_waits_as_told() -> None:
    with pytest.raises(Throttled) as caught:
        signed().classify(REQUEST, answer(429, retry_after="12"))
    assert caught.value.wait == 12.0


def test_check_takes_any_object_in_all_modes_but_update_and_no_match() -> None:
    hook = Webhook()
    hook.check("anything at all", Mode.UPSERT, [], ["a"])
    hook.check("customers", Mode.MIRROR, [], [])
    with pytest.raises(Misconfigured, match="knows a record by the primary key"):
        hook.check("customers", Mode.MIRROR, ["email"], [])
    with pytest.raises(Misconfigured, match="append, delete, insert, mirror, upsert"):
        hook.check("customers", Mode.UPDATE, [], [])
    with pytest.raises(Misconfigured, match="empty"):
        hook.check(" ", Mode.UPSERT, [], [])


def test_declaration() -> None:
    hook = Webhook()
    assert hook.identify() is None  # type: ignore[func-returns-value]
    assert hook.match_normalization("customers", "email") == "exact"
    assert hook.limits("customers", Action.UPSERT).rows == 500
    assert all(hook.repeat("customers", action) is Repeat.ALWAYS for action in Action)
    assert Webhook.settings == {"secret"}


def test_the_body_is_json_that_keeps_values_exact() -> None:
    hook = signed()
    values: dict[str, Any] = {"big": 2**60, "text": "𝒳", "nested": {"b": [1, None]}, "flag": True}
    payload = {name: hook.encode(value) for name, value in values.items()}
    request = first(hook.deliver(batch([row(1, payload=payload)])))
    record = json.loads(request.body or b"")["rows"][0]["record"]
    assert record == {"big": str(2**60), "text": "𝒳", "nested": {"b": [1, None]}, "flag": True}
