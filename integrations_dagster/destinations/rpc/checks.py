"""What an API of calls can do, from what `api` says: which calls an action needs, and whether they are there."""

from __future__ import annotations

from collections.abc import Sequence

from integrations_dagster.destinations.rpc import templates
from integrations_dagster.destinations.rpc.forms import AnswerKeys, CallKeys, RpcKeys
from integrations_dagster.vocabulary import Action, Misconfigured, Mode

ACTIONS: dict[Mode, tuple[Action, ...]] = {
    Mode.INSERT: (Action.CREATE,),
    Mode.APPEND: (Action.CREATE,),
    Mode.UPDATE: (Action.MODIFY,),
    Mode.UPSERT: (Action.UPSERT,),
    Mode.MIRROR: (Action.UPSERT, Action.DELETE),
    Mode.DELETE: (Action.DELETE,),
}
_BY_MATCH = {"match", "matches", "match_field"}


def needed(api: RpcKeys, action: Action) -> list[CallKeys]:
    """The calls that an action makes, as far as the API has them."""
    if action is Action.UPSERT:
        calls = [api.upsert] if api.upsert is not None else [api.create, api.update]
    else:
        calls = [
            {
                Action.CREATE: api.create,
                Action.UPDATE: api.update,
                Action.MODIFY: api.update,
                Action.DELETE: api.delete,
            }[action]
        ]
    return [call for call in calls if call is not None]


def check(api: RpcKeys, label: str, object_: str, mode: Mode, match: Sequence[str]) -> None:
    """Refuse a sync that the API's calls cannot deliver.

    Raises:
        Misconfigured: Naming what is missing.
    """
    if not object_.strip():
        raise Misconfigured(f"{label}: the object is empty.", "Give it the name that `{object}` in `api` stands for.")
    lacks = [problem for action in ACTIONS[mode] if (problem := _lacking(api, action))]
    if lacks:
        able = [other.value for other in Mode if not any(_lacking(api, action) for action in ACTIONS[other])]
        possible = f"Possible modes as it is: {', '.join(able)}." if able else "As it is, no mode is possible."
        raise Misconfigured(
            f"{label}: {object_} cannot be delivered in mode {mode.value!r}, for `api` of the destination lacks "
            f"{' and '.join(lacks)}.",
            f"Add that. {possible}",
        )
    looks = any(looks_up(api, action) for action in ACTIONS[mode])
    calls = [call for action in ACTIONS[mode] for call in needed(api, action)]
    named = {name for call in calls for name, _ in templates.names(call.params)}
    if (looks or named & _BY_MATCH) and len(match) != 1:
        what = "has none" if not match else f"has {len(match)}"
        raise Misconfigured(
            f"{label}: {object_} is matched by one field, and `match` {what}.",
            "Write `match: {FIELD: COLUMN}` with the field whose values belong to one record each.",
        )
    for name in match:
        if api.match is not None and name not in api.match:
            raise Misconfigured(
                f"{label}: {object_} cannot be matched by {name!r}.",
                f"`api.match` of the destination has: {', '.join(api.match) or 'none'}.",
            )


def looks_up(api: RpcKeys, action: Action) -> bool:
    """Whether an action finds records before it changes them."""
    if action is Action.CREATE or (action is Action.UPSERT and api.upsert is not None):
        return False
    call = api.delete if action is Action.DELETE else api.update
    return call is not None and call.by_id


def _lacking(api: RpcKeys, action: Action) -> str:
    """What an action needs and the API has not, or ""."""
    if action is Action.CREATE:
        return "" if api.create else "`create`"
    if action is Action.UPSERT:
        if api.upsert:
            return ""
        missing = [f"`{name}`" for name in ("search", "create", "update") if getattr(api, name) is None]
        if not missing and api.update is not None and not api.update.by_id:
            return "an `update` that names records by {id}"
        return f"`upsert` (or {' and '.join(missing)})" if missing else ""
    name = "delete" if action is Action.DELETE else "update"
    call: CallKeys | None = getattr(api, name)
    if call is None:
        return f"`{name}`"
    told = api.upsert is not None and isinstance(api.upsert.answer, AnswerKeys) and bool(api.upsert.answer.id)
    if call.by_id and api.search is None and not (action is Action.DELETE and told):
        return f"`search`, by which `{name}` would find the ids of records"
    return ""
