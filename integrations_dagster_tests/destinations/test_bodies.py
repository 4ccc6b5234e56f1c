"""Bodies put together from encoded rows are, byte for byte, what encoding the whole gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.destinations.values import canonical_json, json_string
from integrations_dagster.destinations.webhook import Webhook
from integrations_dagster.vocabulary import Action, Change, Row
from integrations_dagster_tests.destinations.flows import batch, body_of, first

HUBSPOT, WEBHOOK = HubSpot(), Webhook()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def brought(ordinal: int, match: str, action: Action, payload: dict[str, Any]) -> Row:
    """A row as the mapping makes it: with its payload encoded."""
    change = Change.CHANGED if action is Action.UPDATE else Change.ADDED
    return Row(
        ordinal,
        match,
        match,
        change,
        action,
        canonical_json(payload),
        destination_id=f"5{ordinal}",
    )


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    matches=st.lists(TEXT, min_size=1, max_size=4, unique=True),
    payload=st.dictionaries(TEXT, TEXT, max_size=5),
    field=TEXT,
    action=st.sampled_from([Action.CREATE, Action.UPSERT, Action.UPDATE]),
    # Whether the payload brings the match property as it is sent, in another form, or not at all.
    form=st.sampled_from(["same", "other", "absent"]),
)
def test_hubspots_bodies(matches: list[str], payload: dict[str, str], field: str, action: Action, form: str) -> None:
    ending = " " if form == "other" else ""
    mine = [{} if form == "absent" else {field: match + ending} for match in matches]
    rows = [brought(i, match, action, payload | mine[i]) for i, match in enumerate(matches)]
    request = first(HUBSPOT.deliver(batch(rows, match=(field,))))
    assert request.body == canonical_json(body_of(request))
    for row, entry in zip(rows, body_of(request)["inputs"], strict=True):
        assert entry["properties"] == {**row.payload, field: row.match}
        assert entry["objectWriteTraceId"] == str(row.ordinal)
        assert entry.get("id") == {Action.CREATE: None, Action.UPSERT: row.match}.get(action, row.destination_id)
        assert entry.get("idProperty") == (field if action is Action.UPSERT else None)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    keys=st.lists(TEXT, min_size=1, max_size=4, unique=True),
    payload=st.dictionaries(TEXT, VALUE, max_size=4),
    object_=TEXT,
    partition=TEXT,
)
def test_the_webhooks_body(keys: list[str], payload: dict[str, Any], object_: str, partition: str) -> None:
    rows = [
        Row(i, key, key, Change.ADDED, Action.UPSERT, canonical_json(payload), partition) for i, key in enumerate(keys)
    ]
    request = first(WEBHOOK.deliver(batch(rows, object_=object_, match=())))
    assert request.body == canonical_json(
        {
            "delivery_id": "delivery-1",
            "object": object_,
            "rows": [{"change": "added", "key": k, "partition": partition, "record": payload} for k in keys],
            "sync": "crm_contacts",
        }
    )


def test_half_a_surrogate_pair_is_refused_without_being_quoted() -> None:
    with pytest.raises(ValueError, match="surrogate") as caught:
        json_string("secret\ud800")
    assert "secret" not in str(caught.value)


def test_a_body_is_put_together_from_encoded_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a payload is encoded a second time, which would be most of the work."""
    payload = {"email": "", **{f"property_{i}": f"value {i} of the row" for i in range(12)}}
    rows = [
        brought(i, f"r{i}@example.com", Action.UPSERT, payload | {"email": f"r{i}@example.com"}) for i in range(100)
    ]

    plain = json.JSONEncoder.encode

    def texts_only(encoder: json.JSONEncoder, value: object) -> str:
        assert isinstance(value, str), "a row was encoded again"
        return plain(encoder, value)

    monkeypatch.setattr(json.JSONEncoder, "encode", texts_only)
    body = first(HUBSPOT.deliver(batch(rows))).body
    assert body is not None
    assert len(json.loads(body)["inputs"]) == 100
