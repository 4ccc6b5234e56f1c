"""Python's collector while a shard is written: held off, and as it was afterwards."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from integrations_dagster.sync.collector import GARBAGE, seldom


@pytest.fixture(autouse=True)
def settings() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_it_looks_seldom_and_not_among_what_was_there(settings: tuple[int, int, int]) -> None:
    with seldom():
        assert gc.get_threshold() == (GARBAGE, *settings[1:])
        assert gc.get_freeze_count() > 10_000


def test_an_error_ends_it() -> None:
    with pytest.raises(KeyError), seldom():
        raise KeyError


def test_blocks_of_several_threads_end_with_the_last_of_them() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with seldom():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    with seldom():
        thread.start()
        assert entered.wait(30)
    assert gc.get_threshold()[0] == GARBAGE
    leave.set()
    thread.join()


def test_what_somebody_else_has_frozen_stays_so() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with seldom():
            pass
        # A frozen object is freed like any other once nothing uses it.
        assert gc.get_freeze_count() > frozen // 2 > 0
    finally:
        gc.unfreeze()


def test_garbage_in_cycles_is_still_found() -> None:
    class Node:
        def __init__(self) -> None:
            self.other: Node | None = None
            found.append(1)

        def __del__(self) -> None:
            found.pop()

    found: list[int] = []
    with seldom():
        for _ in range(GARBAGE):
            one, two = Node(), Node()
            one.other, two.other = two, one
        assert len(found) < 2 * GARBAGE
    del one, two
    gc.collect()
    assert not found
