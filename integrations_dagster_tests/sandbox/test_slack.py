from __future__ import annotations

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from integrations_dagster.sandbox.client import SandboxClient


def slack(sandbox: SandboxClient, token: str = "xoxb-test") -> WebClient:
    return WebClient(token=token, base_url=f"{sandbox.endpoint.url}/slack/api/")


def test_messages_are_kept_as_slacks_own_client_sends_them(sandbox: SandboxClient) -> None:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*failed*"}}]
    answer = slack(sandbox).chat_postMessage(channel="#crm", text="It failed: שלום", blocks=blocks)
    assert answer["ok"]
    assert answer["channel"] == "#crm"
    (message,) = sandbox.slack_messages()
    assert message["method"] == "chat.postMessage"
    assert message["payload"]["text"] == "It failed: שלום"
    assert message["payload"]["blocks"] == blocks
    assert slack(sandbox).auth_test()["ok"]


@pytest.mark.parametrize(("token", "error"), [("wrong", "invalid_auth"), ("", "not_authed")])
def test_a_token_that_is_none_of_a_bot_is_refused(sandbox: SandboxClient, token: str, error: str) -> None:
    with pytest.raises(SlackApiError, match=error):
        slack(sandbox, token).chat_postMessage(channel="#crm", text="x")
    assert sandbox.slack_messages() == []


def test_slacks_own_complaints(sandbox: SandboxClient) -> None:
    with pytest.raises(SlackApiError, match="channel_not_found"):
        slack(sandbox).chat_postMessage(channel="", text="x")
    with pytest.raises(SlackApiError, match="no_text"):
        slack(sandbox).api_call("chat.postMessage", json={"channel": "#crm"})
    assert sandbox.slack_messages() == []
