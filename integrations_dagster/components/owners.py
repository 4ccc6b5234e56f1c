"""Two syncs that would undo each other's work at one object of one account: an error, unless one is its owner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from integrations_dagster.destinations.registry import KINDS
from integrations_dagster.sync.spec import DestinationSpec, Env, SyncSpec
from integrations_dagster.vocabulary import Mode


@dataclass(frozen=True, slots=True)
class Conflict:
    """What is wrong with a sync beside another: the key that it is about, what, and the remedy."""

    key: str
    what: str
    remedy: str


def conflict_of(sync: SyncSpec, others: Iterable[SyncSpec]) -> Conflict | None:
    """The first conflict of a sync with another one, or None.

    Fields are compared by their names. The match is nobody's: both need it to find the record. That two settings lead
    to one account is seen where they are alike: kind, address and credentials.

    Args:
        sync: The sync.
        others: The other syncs of the project.
    """
    place = (account_of(sync.destination), sync.object)
    for other in others:
        if (account_of(other.destination), other.object) != place:
            continue
        shared = _shared(sync, other)
        mirrors = [each.name for each in (sync, other) if each.mode is Mode.MIRROR]
        if not shared and not mirrors:
            continue
        # One owner settles it: the other's part is known to be undone.
        if sync.owner != other.owner:
            continue
        here = f"{sync.object} of {sync.destination.name}"
        them = f'the sync "{other.name}" ({other.source or "made in Python"})'
        if mirrors:
            key = "mode"
            text = f"is {sync.mode}, and {them} delivers to {here} too, in mode {other.mode}: "
            text += f"a mirror ({', '.join(mirrors)}) is alone at its object."
        else:
            key = f"fields.{shared}"
            text = f"is written at {here} by {them} too: each would undo what the other writes."
        if sync.owner:
            return Conflict(key, f"{text} Both are marked as the owner.", "Write `owner: true` in one of them only.")
        return Conflict(key, text, "Leave it to one of them or, if this is meant, write `owner: true` in one.")
    return None


def _shared(sync: SyncSpec, other: SyncSpec) -> str:
    """The first field of a sync that another one writes too, or ""."""
    theirs = _fields(other)
    return next((name for name in _fields(sync) if any(_meet(name, field) for field in theirs)), "")


def _fields(sync: SyncSpec) -> list[str]:
    return [field.target for field in sync.fields if field.target not in sync.match]


def _meet(one: str, other: str) -> bool:
    """Whether two target paths are one field, or one is part of the other ("address", "address.city")."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def account_of(destination: DestinationSpec) -> tuple[object, ...]:
    """What tells accounts apart, as far as it is known without asking them."""
    target = destination.target
    if target.sandbox:
        kind = KINDS[destination.kind]
        return (destination.kind, "sandbox", destination.name if kind.sandbox_path or kind.local_sandbox else "")
    auth = (target.auth.kind, *sorted((k, _said(v)) for k, v in target.auth.settings.items())) if target.auth else ()
    # Of a webhook, the address is the account.
    token = _said(target.token) if KINDS[destination.kind].auth != "none" else ""
    return (destination.kind, _said(target.base_url), token, auth if KINDS[destination.kind].auth != "none" else ())


def _said(value: str | Env | None) -> str:
    return f"${value.name}" if isinstance(value, Env) else value or ""
