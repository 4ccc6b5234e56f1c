"""The sandbox's webhook receiver: keeps the last record of each key, and applies a delivery once.

Signatures are those of Standard Webhooks (https://www.standardwebhooks.com): `webhook-id`, `webhook-timestamp` and
`webhook-signature: v1,<base64 HMAC-SHA256 of "id.timestamp.body">`, keyed by the bytes behind "whsec_".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from integrations_dagster.sandbox.answers import Answer, json_answer
from integrations_dagster.sandbox.api import Api, Call
from integrations_dagster.sandbox.store import Store

TOLERANCE = 300.0
"""Seconds that a delivery's timestamp may be off."""

_CHANGES = ("added", "changed", "removed")


class Webhook(Api):
    """POST /webhook/{name}.

    Args:
        store: The state.
        secret: The signing secret.
    """

    prefix: ClassVar[str] = "/webhook/"
    # Deliveries are signed, and a receiver of one's own has no quota.
    guarded: ClassVar[bool] = False
    counted: ClassVar[bool] = False

    def __init__(self, store: Store, secret: str) -> None:
        self._store = store
        self._secret = secret

    def handle(self, call: Call) -> Answer:
        if call.method != "POST":
            return json_answer(405, {"error": "Deliveries are POSTed."})
        name = call.path.removeprefix(self.prefix)
        return receive(self._store, self._secret, name, call.headers, call.body, call.document)

    def refusal(self, status: int, headers: Mapping[str, str]) -> Answer:
        answer = json_answer(status, {"error": "Failed on demand."})
        answer.headers.update(headers)
        return answer


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature header of a delivery.

    Args:
        secret: "whsec_" and base64.
        delivery: The `webhook-id`.
        timestamp: Seconds since the epoch, as sent.
        body: The body, as sent.
    """
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{delivery}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def receive(store: Store, secret: str, name: str, headers: Mapping[str, str], body: bytes, document: Any) -> Answer:
    """Answer a delivery and commit its rows.

    Args:
        store: The state.
        secret: The signing secret.
        name: The last part of the path.
        headers: Request headers, names in lower case.
        body: The body, as received.
        document: The body, decoded; None where it is not JSON.
    """
    delivery, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    problem = _signature_problem(secret, delivery, sent_at, headers.get("webhook-signature", ""), body)
    if problem:
        return json_answer(401, {"error": problem})
    problem = _body_problem(document, delivery)
    if problem:
        return json_answer(400, {"error": problem})
    with store.transaction():
        accepted = store.delivered(name, delivery)
        if accepted is None:
            store.write_webhook(name, document["object"], document["sync"], delivery, document["rows"])
            return json_answer(200, {"accepted": len(document["rows"])})
    return json_answer(200, {"accepted": accepted, "duplicate": True})


def _signature_problem(secret: str, delivery: str, sent_at: str, signatures: str, body: bytes) -> str:
    if not delivery or not sent_at or not signatures:
        return "webhook-id, webhook-timestamp and webhook-signature are needed."
    if not sent_at.isascii() or not sent_at.isdigit() or abs(time.time() - int(sent_at)) > TOLERANCE:
        return f"webhook-timestamp must be within {TOLERANCE:.0f} seconds of now."
    expected = sign(secret, delivery, sent_at, body).encode()
    if not any(hmac.compare_digest(expected, given.encode()) for given in signatures.split()):
        return "webhook-signature does not match the body and the secret."
    return ""


def _body_problem(document: Any, delivery: str) -> str:
    if not isinstance(document, dict):
        return "The body must be a JSON object."
    if document.get("delivery_id", delivery) != delivery:
        return "delivery_id must equal the webhook-id header."
    rows = document.get("rows")
    if not all(isinstance(document.get(name), str) for name in ("object", "sync")) or not isinstance(rows, list):
        return "object, sync (text) and rows (an array) are needed."
    for row in rows:
        if not isinstance(row, dict) or row.get("change") not in _CHANGES or not isinstance(row.get("key"), str):
            return "Each row needs a change (added, changed, removed) and a key (text)."
        if row["change"] != "removed" and not isinstance(row.get("record"), dict):
            return f"The row with key {row['key']} needs a record."
    return ""
