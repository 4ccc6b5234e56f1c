"""Requests for generated rows, held against HubSpot's own OpenAPI files."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from integrations_dagster.destinations.base import Response
from integrations_dagster.destinations.hubspot.destination import HubSpot
from integrations_dagster.destinations.values import canonical_json
from integrations_dagster.vocabulary import Action, Change, Row, Status
from integrations_dagster_tests.destinations.flows import (
    CHECKED,
    batch,
    batch_answer,
    body_of,
    drive,
    invalid_email,
    not_found,
    result,
    row,
    specs,
)

pytestmark = pytest.mark.skipif(
    specs() is None, reason="set INTEGRATIONS_SPECS to a folder with HubSpot's OpenAPI files"
)

HUBSPOT = HubSpot()
BATCHES = 300
TEXTS = ["", "Zoë", "שלום", "𝒳😀", 'a\nb\t"c"\\', "x" * 5000, "\u0000", "<b>&amp;</b>"]


def _value(rng: random.Random) -> Any:
    return rng.choice(
        [
            rng.choice(TEXTS),
            rng.random() < 0.5,
            rng.randint(-(10**20), 10**20),
            rng.uniform(-1e9, 1e9),
            Decimal(rng.randint(-(10**12), 10**12)).scaleb(-rng.randint(0, 8)),
            date(2026, 1, rng.randint(1, 31)),
            datetime(2026, 8, 1, rng.randint(0, 23), tzinfo=UTC),
            {"k": [rng.randint(0, 9), None, {"z": Decimal("1.10")}]},
        ]
    )


def _rows(rng: random.Random, action: Action) -> list[Row]:
    rows = []
    for ordinal in rng.sample(range(100_000), rng.choice([1, 2, 7, 100])):
        payload = {f"field_{i}": HUBSPOT.encode(_value(rng)) for i in range(rng.randint(0, 8))}
        known = action is Action.UPDATE or (action is Action.DELETE and rng.random() < 0.5)
        id_ = str(10_000_000 + ordinal) if known else None
        more: dict[str, Any] = {} if action is Action.DELETE else {"payload": payload}
        if action is Action.UPDATE:
            more["change"] = Change.CHANGED
        rows.append(
            row(ordinal, f"{ordinal}{rng.choice(['', 'ü', '+x'])}@example.com", action, destination_id=id_, **more)
        )
    return rows


def _answers(rng: random.Random, rows: list[Row], action: Action) -> tuple[list[Response], list[Status]]:
    bad = [rng.random() < 0.2 for _ in rows]
    if action is not Action.DELETE:
        done = Status.UPDATED if action in (Action.UPDATE, Action.MODIFY) else Status.CREATED
        new = True if action is Action.UPSERT else None
        results = [result(r, new=new, id_=r.destination_id or "") for r, b in zip(rows, bad, strict=True) if not b]
        errors = [invalid_email(r) for r, b in zip(rows, bad, strict=True) if b]
        rng.shuffle(results)
        rng.shuffle(errors)
        status = 201 if action is Action.CREATE and not errors else None
        return [batch_answer(results, errors, status)], [Status.REJECTED if b else done for b in bad]
    asked = [(r, b) for r, b in zip(rows, bad, strict=True) if r.destination_id is None]
    answers = []
    if asked:
        found = [result(r, new=None, trace=False) for r, b in asked if not b]
        absent = [r.match for r, b in asked if b]
        answers.append(batch_answer(found, [not_found(*absent)] if absent else []))
    if len(asked) < len(rows) or any(not b for _, b in asked):
        answers.append(Response(204))
    return answers, [Status.DELETED] * len(rows)


@pytest.mark.parametrize("seed", [20260801])
@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize(("object_", "match"), [("contacts", "email"), ("companies", "company_ref")])
def test_generated_batches_fit_the_vendors_schema(seed: int, action: Action, object_: str, match: str) -> None:
    rng = random.Random(seed)
    before = CHECKED.total()
    for _ in range(BATCHES):
        rows = _rows(rng, action)
        answers, expected = _answers(rng, rows, action)
        if object_ == "companies":
            answers = [Response(a.status, a.headers, a.body.replace(b'"email": ', b'"company_ref": ')) for a in answers]
        outcomes, requests = drive(HUBSPOT, HUBSPOT.deliver(batch(rows, object_=object_, match=(match,))), answers)
        assert [o.status for o in outcomes] == expected
        assert all(r.path.startswith(f"/crm/v3/objects/{object_}/batch/") for r in requests)
        assert all(r.body == canonical_json(body_of(r)) for r in requests)
    assert CHECKED.total() - before >= BATCHES
