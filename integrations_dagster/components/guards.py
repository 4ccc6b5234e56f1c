"""`removal_limit` and `guards` in YAML: how much one run may remove, and how far from the usual its numbers may be."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from integrations_dagster.keys import TEMPLATE, TEXT, Keys, problem
from integrations_dagster.sync.spec import GuardSpec, GuardsSpec

REMOVAL_LIMIT = 0.2
"""mirror: the share of the delivered records that one run may remove."""
DELETION_LIMIT = 1000.0
"""delete: the records that one run may delete."""


def _limit(value: Any) -> Any:
    text = value.strip() if isinstance(value, str) else value
    percent = isinstance(text, str) and text.endswith("%")
    try:
        number = float(text[:-1]) / 100 if percent else float(text)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not number >= 0 or (number > 1 and (percent or number != int(number))):
        raise problem('takes a share from 0 to 1, as "20%" or 0.2, or a number of rows above 1, as 500')
    return number


RemovalLimit = Annotated[float, BeforeValidator(_limit), TEXT]
"""A share from 0 to 1, or a number of rows above 1."""


def check_removal_limit(mode: str, limit: float | None) -> str:
    """What is wrong with a removal limit in this mode, or ""."""
    if limit is None:
        return ""
    if mode not in ("mirror", "delete"):
        return f"has no meaning: mode {mode} removes nothing. Leave it out."
    if mode == "delete" and 0 < limit <= 1:
        return "is a share, and mode delete knows no whole to take it of. Write a number of rows above 1, or 0."
    return ""


def _deviation(value: Any) -> Any:
    text = value.strip() if isinstance(value, str) else value
    try:
        share = float(text[:-1]) / 100 if isinstance(text, str) and text.endswith("%") else float(text)
    except (TypeError, ValueError):
        share = -1.0
    if isinstance(value, bool) or not 0 < share < float("inf"):
        raise problem('takes a share of the usual number, as "50%", "300%" or 0.5')
    return share


Deviation = Annotated[float, BeforeValidator(_deviation), TEXT]
"""A share of the usual number, which may exceed it: "300%" or 3.0."""


class Guard(Keys):
    """Limits of one count."""

    warn: Deviation | None = Field(
        default=None, description='Warns where the count differs from the usual by more than this, as "50%".'
    )
    stop: Deviation | None = Field(default=None, description="Likewise, and the run stops before it sends anything.")
    most: Annotated[int, TEMPLATE] | None = Field(
        default=None, ge=0, description="Rows above which the run stops, whatever is usual."
    )

    @model_validator(mode="after")
    def _orders(self) -> Guard:
        if self.warn is None and self.stop is None and self.most is None:
            raise problem("names no limit. Give warn, stop or most.")
        if self.warn is not None and self.stop is not None and self.stop <= self.warn:
            raise problem(f"has a stop ({self.stop:.0%}) that is not above warn ({self.warn:.0%})")
        return self


class Guards(Keys):
    """When a run's numbers are far from the usual: the median of earlier runs."""

    runs: Annotated[int, TEMPLATE] = Field(
        default=20, ge=5, le=100, description="Earlier runs of which the median is usual; there must be 5."
    )
    least: Annotated[int, TEMPLATE] = Field(
        default=100, ge=0, description="A count that differs by fewer rows than this is never told."
    )
    queried: Guard | None = Field(default=None, description="Rows that the model returns: more, or fewer.")
    added: Guard | None = Field(default=None, description="New rows: more.")
    changed: Guard | None = Field(default=None, description="Changed rows: more.")
    removed: Guard | None = Field(default=None, description="Rows that are gone (mirror): more.")

    @model_validator(mode="after")
    def _some(self) -> Guards:
        if not self.limits():
            raise problem("names no count. Give queried, added, changed or removed.")
        return self

    def limits(self) -> dict[str, Guard]:
        named = {name: getattr(self, name) for name in ("queried", "added", "changed", "removed")}
        return {name: guard for name, guard in named.items() if guard is not None}

    def spec(self) -> GuardsSpec:
        """The guards as plain values."""
        limits = {name: GuardSpec(guard.warn, guard.stop, guard.most) for name, guard in self.limits().items()}
        return GuardsSpec(limits, self.runs, self.least)
