"""The bounds of a fault's outage: last good and first bad evidence, last bad and first good, by one clock
each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_host_down import DOWN, N1, UP, Story

from homeostat.contracts.faults import Fault
from homeostat.contracts.nouns import FaultKind
from homeostat.faults.model import bounds_between
from homeostat.faults.timeline_text import outage_range
from homeostat.fleet.suspicion import Death, Probed
from homeostat.ingest.watches import AgentLife
from set_clock import SECOND, server_mono, wall


def cleared(story: Story, at_s: float) -> Fault:
    return next(each.fault for each in story.tick(at_s).tellings if each.transition == "cleared")


@given(st.tuples(*[st.integers(0, 10**9)] * 4).map(sorted), st.data())
def test_the_bounds_hold_whatever_happened_between_the_evidence(
    moments: list[int], data: st.DataObject
) -> None:
    good, first_bad, last_bad, back = moments
    began = data.draw(st.integers(good, first_bad))
    ended = data.draw(st.integers(last_bad, back))
    bounds = bounds_between((good, first_bad), (last_bad, back))
    assert bounds.lower_ms is not None and bounds.upper_ms is not None
    assert bounds.lower_ms <= (ended - began) / 1e6 <= bounds.upper_ms


def test_where_nobody_knows_there_is_no_bound() -> None:
    assert bounds_between((None, 10), (None, 50)) == (0.0, None)
    assert outage_range(None, None) == "?"
    assert outage_range(0.0, None) == "0-? ms"
    assert outage_range(812.0, 1040.0) == "812-1040 ms"
    assert outage_range(7.0, 7.0) == "7 ms"


@pytest.mark.seed("order an outage that did not happen is not counted: the agent still spoke")
def test_a_probe_that_fails_while_the_agent_speaks_is_no_beginning() -> None:
    """59 s were counted for at most 14 s: the probe had failed for 45 s, and its agent spoke all the time."""
    failing = Probed(server_mono(60), 120, 0, "refused", wall(1), server_mono(1))
    death = Death.seen("dead", failing, server_mono(46))
    assert (death.first_failed_ns, death.first_failed_mono_ns) == (wall(60), server_mono(60))
    assert death.good_mono_ns == server_mono(46)
    fresh = Probed(server_mono(60), 3, 0, "refused", wall(47), server_mono(47))
    assert Death.seen("dead", fresh, server_mono(46)).first_failed_ns == wall(47)


def test_the_outage_of_a_host_is_from_its_last_word_to_its_next() -> None:
    story = Story()
    entry = story.entry(10)
    entry.host_down(N1, Death("dead", wall(9), server_mono(9), server_mono(8.5)))
    story.settled(entry)
    story.world.failed_ns[N1] = server_mono(19.5)
    story.beat(20, "i2")
    story.beat(24, "i2")
    fault = cleared(story, 24)
    assert (fault.outage_lower_ms, fault.outage_ms) == (10_500, 11_500)


@pytest.mark.seed("order an agent that was gone was gone for a time")
def test_a_node_process_that_was_started_again_before_anybody_missed_it_was_gone_for_at_most_the_gap() -> (
    None
):
    story = Story()
    story.world.lives = {N1: AgentLife("i2", server_mono(20), server_mono(18))}
    story.beat(20, "i2")
    fault = cleared(story, 21)
    assert fault.kind is FaultKind.AGENT_LOST
    assert (fault.outage_lower_ms, fault.outage_ms) == (0.0, 2_000)


def test_the_silence_of_an_agent_is_counted_from_its_last_heartbeat() -> None:
    story = Story()
    story.world.lives = {N1: AgentLife("i1", server_mono(6))}
    story.silence(10)
    story.beat(30, "i1")
    fault = cleared(story, 31)
    assert (fault.outage_lower_ms, fault.outage_ms) == (16_000, 24_000)


@pytest.mark.seed("order two faults of one subject are not two outages at once")
def test_the_outage_of_an_agent_ends_where_that_of_its_host_begins() -> None:
    story = Story()
    story.world.lives = {N1: AgentLife("i1", server_mono(6))}
    story.silence(10)
    entry = story.entry(12)
    entry.host_down(N1, Death("dead", wall(9), server_mono(9), server_mono(6)))
    death = story.settled(entry)
    host, agent = (each.fault for each in death.tellings)
    assert (agent.outage_lower_ms, agent.outage_ms) == (0.0, 3_000), "until the host was seen dead"
    assert host.raised_mono_ns == server_mono(9)


def test_a_guest_that_is_up_on_another_machine_has_an_outage_that_no_clock_measured() -> None:
    story = Story()
    story.report(5, ("a", DOWN))
    world = story.world
    world.faults["resource/a"] = replace(world.faults["resource/a"], host="n9")
    story.report(6, ("a", UP))
    fault = cleared(story, 8)
    assert (fault.outage_lower_ms, fault.outage_ms) == (None, None)
    assert fault.up_ns is not None and fault.up_ns - fault.raised_ns < 100 * SECOND
