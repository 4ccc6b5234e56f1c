"""A part of the project that could not be loaded, as an asset that cannot run."""

from __future__ import annotations

import dagster as dg


def broken_asset(name: str, error: str) -> dg.AssetsDefinition:
    """An asset in the group `broken` whose description is the error.

    Args:
        name: Name of the asset: letters, digits and underscores.
        error: What is wrong, where, and what to do.
    """

    # A fence longer than any in the error itself.
    fence = "```" + "`" * error.count("```")

    @dg.asset(
        name=name,
        group_name="broken",
        kinds={"broken"},
        description=f"Not loaded:\n\n{fence}\n{error}\n{fence}\n\nCorrect it, then reload the code location.",
    )
    def broken() -> None:
        raise dg.Failure(description=error, allow_retries=False)

    return broken
