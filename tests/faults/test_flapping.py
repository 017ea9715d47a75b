"""A subject that goes wrong again and again: told a few times, then once as flapping, then its end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from entry_parts import PlayedEntry
from hypothesis import given
from hypothesis import strategies as st
from test_host_down import DOWN, N1, SECOND, UP, Story, level, tellings

from homeostat.contracts.faults import RAISED_KEPT, FlapLimits, add_raised_time
from homeostat.contracts.nouns import FaultId, FaultKind, ResourceState
from homeostat.contracts.wire import Observations, ResourceTransition
from homeostat.faults.model import count_within, is_flapping
from homeostat.faults.store import fault_raised, load_open, load_raised
from homeostat.kernel.journal import Seq
from set_clock import node_mono, server_mono, wall
from store_parts import Store

LIMITS = FlapLimits(3, 60.0)
DIED = FaultKind.RESOURCE_DOWN


@pytest.mark.parametrize(
    ("kind", "earlier", "limits", "flaps"),
    [
        (DIED, 2, LIMITS, False),
        (DIED, 3, LIMITS, True),
        (FaultKind.AGENT_LOST, 3, LIMITS, True),
        (FaultKind.HOST_DOWN, 99, LIMITS, False),
        (FaultKind.EVIDENCE_LOST, 99, LIMITS, False),
        (DIED, 99, FlapLimits(), False),
    ],
)
def test_what_flaps(kind: FaultKind, earlier: int, limits: FlapLimits, flaps: bool) -> None:
    assert is_flapping(kind, earlier, limits) is flaps


MOMENTS = st.integers(0, 200).map(lambda second: second * SECOND)
"""Whole seconds: many faults are exactly a window old."""


@given(st.lists(MOMENTS), MOMENTS)
def test_only_the_window_counts_and_memory_is_bounded(times: list[int], now_ns: int) -> None:
    kept: tuple[int, ...] = ()
    for each in sorted(times):
        kept = add_raised_time(kept, each)
    assert len(kept) <= RAISED_KEPT + 1
    assert count_within(kept, now_ns, LIMITS) == sum(each > now_ns - 60 * SECOND for each in kept)


def report(story: Story, at_s: float, name: str, state: ResourceState) -> PlayedEntry:
    """Its message comes in at once."""
    entry = story.entry(at_s)
    story.seq += 1
    seen = ResourceTransition(replace(level(name, story.seq, state), at_ns=wall(at_s)), node_mono(at_s))
    entry.observations(Observations(N1, "b1", node_mono(at_s), 0, (seen,)), server_mono(at_s))
    return story.settled(entry)


def flap(story: Story, times: int, first_s: float) -> list[tuple[FaultKind, str]]:
    """Down and up at every second; a tick between lets a fault that does not flap clear. What was told."""
    told = []
    for number in range(times):
        at_s = first_s + number
        for entry in (
            report(story, at_s, "a", DOWN),
            report(story, at_s + 0.1, "a", UP),
            story.tick(at_s + 0.9),
        ):
            told += tellings(entry)
    return told


@pytest.mark.seed("order flapping: not a pair of notices for each time, one that says so")
def test_a_crash_loop_is_told_three_times_and_then_once() -> None:
    story = Story()
    story.world.flap_limits = LIMITS
    told = flap(story, 40, 10)
    assert told == [(DIED, "raised"), (DIED, "cleared")] * 3 + [(DIED, "raised")]
    fault = story.world.faults["resource/a"]
    assert fault.flaps
    assert "flapping: 4 times in 60 s" in fault.reason
    assert not story.tick(109).tellings, "right, but not for the whole window"
    assert tellings(story.tick(109.2)) == [(DIED, "cleared")]
    report(story, 300, "a", DOWN)
    assert not story.world.faults["resource/a"].flaps, "long ago does not count"


def test_without_a_limit_everything_is_told() -> None:
    assert len(flap(Story(), 10, 10)) == 20


def test_others_are_not_touched() -> None:
    story = Story()
    story.world.flap_limits = LIMITS
    flap(story, 6, 10)
    assert tellings(report(story, 17, "b", DOWN)) == [(DIED, "raised")]
    assert not story.world.faults["resource/b"].flaps


def test_a_start_remembers_what_was_raised_and_what_flaps(store: Store) -> None:
    story = Story()
    story.world.flap_limits = LIMITS
    flap(story, 6, 10)
    fault = replace(story.world.faults["resource/a"], raised_seq=Seq(1))
    rows = [replace(fault, id=FaultId(f"f-{at}"), raised_ns=at) for at in (300, 100, 200)]
    with store.engine.begin() as connection:
        for change in map(fault_raised, rows):
            connection.execute(change.statement, [dict(row) for row in change.values])
    with store.reading.connect() as connection:
        assert load_raised(connection, 100) == {"resource/a": (200, 300)}
        assert all(each.flaps for each in load_open(connection))
