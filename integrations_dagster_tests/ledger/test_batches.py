"""The compact form of a batch: columns, and still the rows of the first version."""

from __future__ import annotations

import json

import pytest

from integrations_dagster.ledger.batches import (
    SentRow,
    outcomes_text,
    pack,
    pack_outcomes,
    pack_payloads,
    pack_rows,
    row_count,
    rows_text,
    unpack_outcomes,
    unpack_payloads,
    unpack_rows,
)
from integrations_dagster.vocabulary import Action, Change, Outcome, Status


def sent(count: int) -> tuple[SentRow, ...]:
    return tuple(
        SentRow(7 + i, f"k{i}", f"ü{i}@x.org", Change.ADDED, Action.UPSERT, "", "9" if i % 2 else None, f"s{i}", "p")
        for i in range(count)
    )


@pytest.mark.parametrize("count", [1, 2, 100])
def test_rows_and_outcomes_come_back_as_they_were(count: int) -> None:
    rows = sent(count)
    assert unpack_rows(pack_rows(rows)) == rows
    assert row_count(rows_text(pack_rows(rows))) == count
    outcomes = tuple(
        Outcome(Status.REJECTED, None, "BAD", f"reason {i}", "r") if i % 3 else Outcome(Status.CREATED, str(i))
        for i in range(count)
    )
    assert unpack_outcomes(pack_outcomes(outcomes)) == outcomes


def test_what_the_first_version_packed_is_still_read() -> None:
    rows, outcomes = sent(3), (Outcome(Status.CREATED, "1"), Outcome(Status.CREATED, "2"), Outcome(Status.CREATED, "3"))
    old_rows = pack([list(row) for row in rows])
    old_outcomes = pack([[o.status, o.destination_id, o.code, o.reason, o.request_id] for o in outcomes])
    assert unpack_rows(old_rows) == rows
    assert unpack_outcomes(old_outcomes) == outcomes
    assert rows_text(old_rows) == rows_text(pack_rows(rows))
    assert outcomes_text(old_outcomes) == outcomes_text(pack_outcomes(outcomes))


def test_a_column_with_one_value_is_kept_once() -> None:
    data = json.loads(rows_text(pack_rows(sent(50))))
    assert (data["n"], data["c"], data["p"], len(data["k"])) == (50, ["added"], [""], 50)
    outcomes = tuple(Outcome(Status.CREATED, str(90_000_000 + i), request_id="a" * 36) for i in range(100))
    assert len(pack_outcomes(outcomes)) < 400


def test_no_answer_has_no_outcomes() -> None:
    assert unpack_outcomes(None) == ()
    assert outcomes_text(None) == b"null"


def test_half_a_pair_of_surrogates_in_an_answer_is_stored() -> None:
    (outcome,) = unpack_outcomes(pack_outcomes((Outcome(Status.REJECTED, reason="bad \ud800 value"),)))
    assert outcome.reason == "bad ? value"


def test_payloads_come_back_byte_for_byte() -> None:
    payloads = (b"", '{"name":"Zoë \\u0000"}'.encode())
    assert unpack_payloads(pack_payloads(payloads)) == payloads
    assert unpack_payloads(None) == ()
