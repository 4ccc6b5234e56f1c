"""What every kind of warehouse asks of a model's query: its parameters and its columns."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from integrations_dagster.vocabulary import Misconfigured

ONE_SELECT = "A model is exactly one SELECT (or WITH) statement."


def check_parameters(used: AbstractSet[str], given: AbstractSet[str], source: str) -> None:
    """A query uses the parameters that it is given, all of them and no others.

    Raises:
        Misconfigured: It does not.
    """
    if unknown := used - given:
        known = (
            ", ".join(f"${name}" for name in sorted(given))
            or "none, because the model is not partitioned and has no cursor"
        )
        raise Misconfigured(
            f"The query in {source} uses {', '.join(f'${name}' for name in sorted(unknown))}.",
            f"Parameters of this model: {known}.",
        )
    if missing := given - used:
        raise Misconfigured(
            f"The query in {source} does not use {', '.join(f'${name}' for name in sorted(missing))}.",
            "A partitioned model selects its window with $partition_start and $partition_end, which is excluded; one "
            "with a cursor its changes: `WHERE $cursor IS NULL OR updated_at >= CAST($cursor AS TIMESTAMP)`.",
        )


def check_columns(names: Sequence[str], source: str) -> None:
    """No two columns have one name, without regard to case.

    Raises:
        Misconfigured: Two have.
    """
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            raise Misconfigured(
                f"{source} returns two columns named {seen[name.lower()]!r} and {name!r}.",
                "Names are compared without regard to case: give one of them another name with AS.",
            )
        seen[name.lower()] = name
