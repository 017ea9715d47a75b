"""The kernel's schedule: absolute, and what could not be taken is counted."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator

import pytest

from homeostat.monitors.node.sampler import Ticks

MS = 1_000_000


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.fixture
def ticks() -> Iterator[Ticks]:
    made = Ticks(now_ns() + 20 * MS, 5 * MS)
    yield made
    made.close()


def test_nothing_before_the_first(ticks: Ticks) -> None:
    assert ticks.take() is None


def test_every_tick_is_taken_or_counted(ticks: Ticks) -> None:
    expected = None
    for _ in range(5):
        assert select.select([ticks.fd], [], [], 10)[0]
        taken = ticks.take()
        assert taken is not None
        due_ns, missed = taken
        assert due_ns <= now_ns()
        assert expected is None or due_ns == expected
        expected = due_ns + (missed + 1) * 5 * MS


def test_who_sleeps_gets_the_first_due_and_the_number_missed(ticks: Ticks) -> None:
    assert select.select([ticks.fd], [], [], 10)[0]
    until_ns = now_ns() + 40 * MS
    while now_ns() < until_ns:
        pass
    taken = ticks.take()
    assert taken is not None
    assert now_ns() - taken[0] >= 40 * MS and taken[1] >= 7
