"""Batches by rows and bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from integrations_dagster.destinations.base import Limits
from integrations_dagster.sync.packer import ROW_OVERHEAD, Packer, limits_of
from integrations_dagster.vocabulary import Action, Change, Row


def row(ordinal: int, size: int, action: Action = Action.UPSERT) -> Row:
    return Row(ordinal, str(ordinal), str(ordinal), Change.ADDED, action, encoded=b"x" * size)


@given(
    sizes=st.lists(st.tuples(st.integers(0, 900), st.sampled_from(list(Action)))),
    rows=st.integers(1, 7),
    fewer=st.none() | st.integers(1, 9),
)
def test_no_batch_exceeds_a_limit_and_no_row_is_lost_or_doubled(
    sizes: list[tuple[int, Action]], rows: int, fewer: int | None
) -> None:
    most = 3 * (900 + ROW_OVERHEAD)
    packer = Packer(dict.fromkeys(Action, limits_of(Limits(rows, most), rows=fewer, most_bytes=None, row_bytes=None)))
    given_rows = [row(i, size, action) for i, (size, action) in enumerate(sizes)]
    batches = [batch for r in given_rows for batch in packer.add(r)]
    batches += list(packer.rest())
    assert sorted(r.ordinal for _, batch in batches for r in batch) == [r.ordinal for r in given_rows]
    for action, batch in batches:
        assert {r.action for r in batch} == {action}
        assert len(batch) <= min(rows, fewer or rows)
        assert sum(r.size + ROW_OVERHEAD for r in batch) <= most


def test_a_row_larger_than_a_batch_goes_alone() -> None:
    packer = Packer(dict.fromkeys(Action, Limits(10, 1000)))
    batches = [b for r in (row(0, 10), row(1, 5000), row(2, 10)) for b in packer.add(r)] + list(packer.rest())
    assert [[r.ordinal for r in batch] for _, batch in batches] == [[0], [1], [2]]
