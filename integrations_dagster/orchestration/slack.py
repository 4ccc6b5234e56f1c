"""Slack, with a base URL that can point elsewhere, and a token that is read when it is needed."""

from __future__ import annotations

from collections.abc import Mapping

from dagster_slack import SlackResource
from pydantic import Field
from slack_sdk.errors import SlackApiError
from slack_sdk.web.client import WebClient

TOKEN_ENV = "SLACK_BOT_TOKEN"  # noqa: S105 (the name of a variable)
BASE_URL_ENV = "SLACK_BASE_URL"
TIMEOUT = 10
"""Seconds that one call may take: a sensor's tick waits for it."""


class SlackAccount(SlackResource):
    """A Slack account whose API may be somewhere else: behind a proxy, or a stand-in.

    Attributes:
        base_url: Root of the API's methods, with a slash at its end.
    """

    base_url: str = Field(default=WebClient.BASE_URL, description="Root of Slack's Web API.")

    def get_client(self) -> WebClient:
        """A client of Slack's Web API."""
        return WebClient(self.token, base_url=self.base_url, timeout=TIMEOUT)


def slack_account(env: Mapping[str, str]) -> SlackAccount | None:
    """The account that the environment names; None without SLACK_BOT_TOKEN."""
    token = env.get(TOKEN_ENV)
    if not token:
        return None
    return SlackAccount(token=token, base_url=env.get(BASE_URL_ENV, WebClient.BASE_URL).rstrip("/") + "/")


def refusal(error: Exception) -> str:
    """What went wrong with a call, free of secrets."""
    if isinstance(error, SlackApiError):
        return f"Slack answered {error.response.get('error', 'an error')!r}"
    return f"Slack could not be reached ({type(error).__name__})"
