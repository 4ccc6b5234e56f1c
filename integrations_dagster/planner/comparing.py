"""How values are compared, as SQL."""

from __future__ import annotations

import sys

from integrations_dagster.planner.state import literal

_SPACE = "".join(chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace())
_PRINTED = "BETWEEN 33 AND 126"
# Trimming many kinds of space takes longer than all the rest of a plan, and most values begin and end with a letter.
_TRIMMED = (
    f"CASE WHEN ascii({{0}}) {_PRINTED} AND ascii(right({{0}}, 1)) {_PRINTED} THEN {{0}} "
    f"ELSE trim({{0}}, {literal(_SPACE)}) END"
)
NORMALIZED = {"exact": "{0}", "trim": _TRIMMED, "trim_lower": f"lower({_TRIMMED})"}
"""SQL of the normalizations; white space is all that Unicode calls so, as destinations strip it."""


def compared(expression: str, normalization: str) -> str:
    """SQL of a value as it is compared: text, normalized, null where it is empty."""
    return f"nullif({NORMALIZED[normalization].format(f'CAST({expression} AS VARCHAR)')}, '')"
