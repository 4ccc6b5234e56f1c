"""A Slack stand-in: takes Web API calls below /slack/api/, keeps them, and answers as Slack does."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from integrations_dagster.sandbox.answers import Answer, json_answer
from integrations_dagster.sandbox.api import Api, Call
from integrations_dagster.sandbox.store import Store


class Slack(Api):
    """POST /slack/api/{method}."""

    prefix: ClassVar[str] = "/slack/api/"
    guarded: ClassVar[bool] = False
    counted: ClassVar[bool] = False

    def __init__(self, store: Store) -> None:
        self._store = store

    def handle(self, call: Call) -> Answer:
        return answer_method(self._store, call.path.removeprefix(self.prefix), call.headers, call.body)


def answer_method(store: Store, method: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Answer one Web API call; any bot token ("xoxb-...") is taken.

    Args:
        store: The state.
        method: Slack's method ("chat.postMessage").
        headers: Request headers, names in lower case.
        body: JSON or a form.
    """
    payload = _payload(headers.get("content-type", ""), body)
    if payload is None:
        return json_answer(200, {"ok": False, "error": "invalid_arguments"})
    token = headers.get("authorization", "").removeprefix("Bearer ") or str(payload.pop("token", ""))
    if not token.startswith("xoxb-"):
        return json_answer(200, {"ok": False, "error": "invalid_auth" if token else "not_authed"})
    if method == "auth.test":
        return json_answer(200, {"ok": True, "team": "Sandbox", "user": "integrations", "user_id": "U0SANDBOX"})
    if method == "chat.postMessage" and not payload.get("channel"):
        return json_answer(200, {"ok": False, "error": "channel_not_found"})
    if method == "chat.postMessage" and not (
        payload.get("text") or payload.get("blocks") or payload.get("attachments")
    ):
        return json_answer(200, {"ok": False, "error": "no_text"})
    now = time.time()
    seq = store.add_slack_message(method, payload, now)
    answer: dict[str, Any] = {"ok": True}
    if method == "chat.postMessage":
        message = {"type": "message", "text": payload.get("text", ""), "bot_id": "B0SANDBOX"}
        answer |= {"channel": payload["channel"], "ts": f"{int(now)}.{seq:06d}", "message": message}
    return json_answer(200, answer)


def _payload(media_type: str, body: bytes) -> dict[str, Any] | None:
    if not media_type.startswith("application/json"):
        return dict(parse_qsl(body.decode("utf-8", "replace")))
    try:
        payload = json.loads(body or b"{}")
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None
