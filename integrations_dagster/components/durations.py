"""Durations, as YAML and the command line take them: seconds, or a number with a unit."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from integrations_dagster.components.attributes import TEXT, problem

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")


def parse_duration(text: str) -> float | None:
    """Seconds that a text says ("90", "15m", "24h", "3d"), or None if it is no duration."""
    found = _TEXT.fullmatch(text.strip())
    return float(found[1]) * UNITS[found[2] or "s"] if found else None


def _duration(value: Any) -> Any:
    seconds: float | None = None
    if isinstance(value, str):
        seconds = parse_duration(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    if seconds is None or seconds < 0 or not math.isfinite(seconds):
        raise problem('takes seconds, or a number with a unit, as "30s", "15m", "24h" or "3d"')
    return seconds


Duration = Annotated[float, BeforeValidator(_duration), TEXT]
"""A length of time: 900 or "15m"; seconds as a value."""
