"""Keys of a sync in YAML that hold keys of their own: the size of requests, retries, limits, alerts, the sync log."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from integrations_dagster.keys import TEMPLATE, Duration, Keys, NotBuilt, Share, problem

MAX_ATTEMPTS = 10
RETRY_WAIT = 900.0
RETRY_WAIT_CAP = 86_400.0
LOG_DAYS = 90.0
LIMITS_PLANNED = dict.fromkeys(("invalid_above", "in_doubt_above"), "Built: rejected_above.")


class BatchKeys(Keys):
    """The size of a request."""

    rows: Annotated[int, TEMPLATE] | None = Field(
        default=None, ge=1, description="Rows of one request; default: as many as the destination takes."
    )
    bytes: Annotated[int, TEMPLATE] | None = Field(
        default=None, ge=1, description="Bytes of one request's body; default: as many as the destination takes."
    )
    row_bytes: Annotated[int, TEMPLATE] | None = Field(
        default=None, ge=1, description="Bytes of one row, above which it is invalid; default: the destination's limit."
    )


class Rejected(Keys):
    """How rows that the destination rejected are tried again while they do not change."""

    max_attempts: Annotated[int, TEMPLATE] = Field(
        default=MAX_ATTEMPTS,
        ge=1,
        description="Rejections after which a row is parked, until it changes or is retried.",
    )
    wait: Duration = Field(
        default=RETRY_WAIT,
        description='From the second rejection to the next try, as "15m"; doubled for each further one.',
    )
    longest_wait: Duration = Field(default=RETRY_WAIT_CAP, description='Between two tries at the most, as "24h".')

    @model_validator(mode="after")
    def _grows(self) -> Rejected:
        if self.longest_wait < self.wait:
            raise problem(f"has a longest_wait ({self.longest_wait:g} s) below wait ({self.wait:g} s)")
        return self


class SyncLogKeys(Keys):
    """The sync log: one row for each row that was sent."""

    days: Annotated[float, TEMPLATE] = Field(default=LOG_DAYS, ge=0, description="Days for which it is kept.")


class FailWhen(Keys):
    """What fails a run that delivered what it could."""

    not_built: ClassVar[NotBuilt] = LIMITS_PLANNED

    rejected_above: Share | None = Field(default=None, description='Share of new and changed rows, as "5%" or 0.05.')


class AlertWhen(Keys):
    """What is told about a run that succeeded."""

    not_built: ClassVar[NotBuilt] = LIMITS_PLANNED

    rejected_above: Share | None = Field(default=None, description='Share of new and changed rows, as "1%" or 0.01.')


class Alerts(Keys):
    """Who is told of a failed run, and of one with too many rejected rows."""

    not_built: ClassVar[NotBuilt] = dict.fromkeys(("email", "pagerduty"), "Built: slack.")

    slack: str = Field(min_length=1, description='Slack channel, as "#crm".')
    when: AlertWhen = Field(default_factory=AlertWhen, description="Limits beyond which a run that succeeded is told.")
