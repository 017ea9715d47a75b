"""Nothing of a host that came back is told as right before its node has looked at everything there."""

from __future__ import annotations

import pytest
from entry_parts import PlayedEntry
from test_host_down import DOWN, N1, STARTING, UP, Story, level, tellings

from homeostat.contracts.nouns import FaultKind
from homeostat.contracts.wire import Heartbeat, Observations, ResourceTransition
from homeostat.ingest.watches import AgentLife
from set_clock import node_mono, server_mono

CLEARED = (FaultKind.HOST_DOWN, "cleared")


@pytest.mark.seed("002 1.9: a recovery is told, and only when it is one")
def test_rows_of_before_the_death_are_no_all_clear() -> None:
    """The node's disk still says `up`, so its digest is that of our rows; nobody has looked yet."""
    story = Story()
    story.die(10)
    story.beat(20, "i2", looked=False)
    for at_s in (24, 30, 60, 120):
        story.beat(at_s, "i2", looked=False)
        assert not story.tick(at_s).tellings, "nobody has looked at what runs there"
    story.beat(121, "i2", looked=True)
    assert tellings(story.tick(121)) == [CLEARED]


def test_a_digest_of_something_else_is_no_all_clear() -> None:
    story = Story()
    story.die(10)
    story.beat(20, "i2", looked=False)
    for at_s in (24, 60):
        entry = story.entry(at_s)
        entry.heartbeat(Heartbeat(N1, "b1", "i2", story.seq, "0" * 16, looked=True))
        story.settled(entry)
        assert not story.tick(at_s).tellings


def test_what_was_found_dead_after_the_return_is_told_before_the_host_is_told_as_back() -> None:
    story = Story()
    story.die(10)
    story.beat(20, "i2", looked=False)
    assert not story.tick(24).tellings
    story.report(25, ("a", DOWN), ("b", UP), ("c", STARTING))
    story.beat(26, "i2", looked=True)
    assert not story.tick(27).tellings, "it is being started"
    story.beat(60, "i2", looked=True)
    over = story.tick(60)
    assert tellings(over) == [
        (FaultKind.RESOURCE_DOWN, "raised"),
        (FaultKind.RESOURCE_DOWN, "raised"),
        CLEARED,
    ]
    assert {each.fault.about for each in over.tellings[:2]} == {"resource/a", "resource/c"}
    assert "resource" not in over.tellings[2].fault.about
    assert over.tellings[2].fault.remaining == '{"guest":{"blue":["a","c"]}}'


def test_what_was_looked_at_before_it_died_again_counts_no_more() -> None:
    story = Story()
    story.die(10)
    story.beat(20, "i2", looked=True)
    story.die(21)
    story.beat(30, "i3", looked=False)
    assert not story.tick(40).tellings
    story.beat(41, "i3", looked=True)
    assert tellings(story.tick(41)) == [CLEARED]


def test_an_agent_that_falls_silent_again_is_no_all_clear_of_its_host() -> None:
    story = Story()
    story.die(10)
    story.beat(20, "i2", looked=False)
    assert not story.silence(22).tellings, "the fault of the host goes on"
    assert not story.tick(60).tellings
    story.beat(70, "i2", looked=True)
    assert not story.tick(71).tellings
    story.beat(74, "i2", looked=True)
    assert tellings(story.tick(74)) == [CLEARED]


def test_an_older_node_says_nothing_of_its_looks_and_is_believed_by_its_digest() -> None:
    story = Story()
    story.die(10)
    story.beat(20, "i2", looked=None)
    story.beat(24, "i2", looked=None)
    assert tellings(story.tick(24)) == [CLEARED]


def test_a_host_that_has_fallen_silent_again_is_not_told_as_back() -> None:
    """It died again a moment before its time was over, and nobody has missed it yet (simulation seed 68)."""
    story = Story()
    story.die(10)
    for at_s in (20, 21, 22):
        story.beat(at_s, "i2", looked=True)
    assert not story.tick(23.5).tellings, "its last word is from before the end of the hold"
    story.beat(24, "i2", looked=True)
    assert tellings(story.tick(24)) == [CLEARED]


def tick_heard_at(story: Story, at_s: float, heard_s: float | None) -> PlayedEntry:
    """Time passes at a server that heard the node last at `heard_s`, None: never."""
    story.world.lives = {} if heard_s is None else {N1: AgentLife("i1", server_mono(heard_s))}
    entry = story.entry(at_s)
    entry.tick_unheard()
    return story.settled(entry)


@pytest.mark.seed("002 1.9: a recovery is told, and only when it is one")
def test_a_resource_of_a_host_that_dies_before_its_fault_is_cleared_is_never_told_as_right() -> None:
    story = Story()
    story.report(5, ("a", DOWN))
    story.seq += 1
    entry, right = story.entry(6), ResourceTransition(level("a", story.seq, UP), node_mono(6))
    entry.observations(Observations(N1, "b1", node_mono(6), 0, (right,)), entry.mono_ns)
    story.settled(entry)
    assert not tick_heard_at(story, 6.6, 6.4).tellings, "its node was heard before the end of the hold only"
    assert tellings(story.die(9)) == [
        (FaultKind.HOST_DOWN, "raised"),
        (FaultKind.RESOURCE_DOWN, "superseded"),
    ]


@pytest.mark.seed("002 1.9: a recovery is told, and only when it is one")
def test_a_server_clears_nothing_of_a_host_that_it_has_not_heard() -> None:
    """The server before it saw that all was right; the host died while there was none."""
    story = Story()
    story.report(5, ("a", DOWN))
    story.report(6, ("a", UP))
    assert not tick_heard_at(story, 60, None).tellings
    assert tellings(tick_heard_at(story, 60.1, 60.05)) == [(FaultKind.RESOURCE_DOWN, "cleared")]


def test_an_agent_that_spoke_once_is_not_told_as_back_before_it_speaks_again() -> None:
    story = Story()
    story.silence(5)
    story.beat(8, "i1")
    assert not tick_heard_at(story, 9, 8).tellings
    assert tellings(tick_heard_at(story, 9.1, 9)) == [(FaultKind.AGENT_LOST, "cleared")]
