"""The collector looks when nobody waits, and at all generations in their turn."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from homeostat.kernel import loops as pauses


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    kept = gc.get_threshold()
    yield
    gc.set_threshold(*kept)
    gc.unfreeze()


def test_a_storm_is_looked_at_when_it_is_over_and_not_before() -> None:
    pauses.tune_garbage_collector()
    storm = [[number] for number in range(40_000)]
    assert gc.get_count()[0] >= 40_000
    pauses.collect_garbage_if_due()
    assert gc.get_count()[0] < 1_000
    assert len(storm) == 40_000


def test_little_is_left_for_later() -> None:
    pauses.tune_garbage_collector()
    few = [[number] for number in range(2_000)]
    pauses.collect_garbage_if_due()
    assert gc.get_count()[0] >= len(few)


def test_older_ones_have_their_turn() -> None:
    pauses.tune_garbage_collector()
    middle = gc.get_stats()[1]["collections"]
    for _ in range(25):
        fresh = [[number] for number in range(11_000)]
        pauses.collect_garbage_if_due()
        del fresh
    assert gc.get_stats()[1]["collections"] > middle


def test_without_shorten_the_collector_is_left_alone() -> None:
    gc.set_threshold(20_000, 20, 50)
    before = [each["collections"] for each in gc.get_stats()]
    pauses.collect_garbage_if_due()
    assert [each["collections"] for each in gc.get_stats()] == before
