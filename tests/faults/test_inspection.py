"""From transitions and heartbeats to events, faults and people to tell."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.events.fleet import AgentLost, AgentReturned, EvidenceLost, HostJoined
from homeostat.contracts.events.resources import ActionFinished, ActionIntended, ResourceDown, ResourceUp
from homeostat.contracts.faults import FaultState
from homeostat.contracts.nouns import FaultKind, HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import (
    Finish,
    Goodbye,
    Heartbeat,
    Intent,
    Outcome,
    ResourceStatus,
    ResourceTransition,
)
from homeostat.faults.hosts import on_evidence, on_goodbye, on_heartbeat, on_silence
from homeostat.faults.inspection import on_tick, on_transition
from homeostat.fleet.model import AgentState
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.ingest.watches import AgentLife
from homeostat.kernel.journal import EventIndex, Seq
from set_clock import SECOND, node_mono, server_mono, wall

N1 = HostId("n1")
WEB = ResourceId("web")
CLEAR_AFTER_S = 0.5


def level(state: ResourceState, seq: int, at_s: float) -> ResourceStatus:
    return ResourceStatus(
        WEB, ResourceKind.SERVICE, Owner("blue"), "ocf:x:y", state, "because", wall(at_s), seq
    )


def see(
    world: IngestState,
    state: ResourceState,
    seq: int,
    at_s: float,
    intended: Intent | None = None,
    finished: Finish | None = None,
) -> Decision:
    transition = ResourceTransition(
        level(state, seq, at_s), node_mono(at_s), intended, finished, before_mono_ns=node_mono(at_s)
    )
    return take(world, transition, at_s)


def take(world: IngestState, transition: ResourceTransition, at_s: float) -> Decision:
    decision = on_transition(world, N1, "boot", (transition, server_mono(at_s)), (0, CLEAR_AFTER_S))
    world.adopt(decision)
    world.settle([Seq(1000 * transition.level.seq + i) for i in range(len(decision.events))])
    return decision


def tick(world: IngestState, at_s: float) -> Decision:
    """Its nodes are heard at this moment."""
    before, nodes = world.lives, world.topology.nodes
    world.lives = {host: AgentLife(node.incarnation, server_mono(at_s)) for host, node in nodes.items()}
    decision = on_tick(world, server_mono(at_s), wall(at_s), 0)
    world.lives = before
    world.adopt(decision)
    return decision


def kinds(decision: Decision) -> list[type]:
    return [type(draft.event) for draft in decision.events]


RESTART = Intent("web-1", "restart", 20.0, "the process died")


def test_a_death_and_a_restart_make_one_fault_raised_once_and_cleared_once() -> None:
    world = IngestState()
    see(world, ResourceState.UP, 1, 1.0)
    down = see(world, ResourceState.DOWN, 2, 2.0, intended=RESTART)
    assert kinds(down) == [ResourceDown, FaultRaised, ActionIntended]
    up = see(world, ResourceState.UP, 3, 2.2, finished=Finish("web-1", Outcome.OK, 180.0, "ready"))
    assert kinds(up) == [ActionFinished, ResourceUp]
    assert kinds(tick(world, 2.6)) == []
    over = tick(world, 2.71)
    assert kinds(over) == [FaultCleared]
    raised, cleared = down.tellings[0].fault, over.tellings[0].fault
    assert raised.id == cleared.id
    assert cleared.outage_ms == pytest.approx(200)
    assert not world.faults
    assert not world.topology.actions


def test_every_event_names_its_cause_and_one_trace_holds_the_whole_story() -> None:
    world = IngestState()
    see(world, ResourceState.UP, 1, 1.0)
    down = see(world, ResourceState.DOWN, 2, 2.0, intended=RESTART)
    assert [draft.cause for draft in down.events] == [None, EventIndex(0), EventIndex(0)]
    up = see(world, ResourceState.UP, 3, 2.2, finished=Finish("web-1", Outcome.OK, 180.0, "ready"))
    assert [draft.cause for draft in up.events] == [Seq(2002), EventIndex(0)]
    over = tick(world, 9.0)
    assert over.events[0].cause == Seq(3001)
    assert {draft.trace for decision in (down, up, over) for draft in decision.events} == {"n1/boot/2"}


def test_a_second_attempt_is_caused_by_the_end_of_the_first_and_is_no_second_fault() -> None:
    world = IngestState()
    see(world, ResourceState.UP, 1, 1.0)
    see(world, ResourceState.DOWN, 2, 2.0, intended=RESTART)
    again = see(
        world,
        ResourceState.DOWN,
        3,
        3.0,
        intended=replace(RESTART, action="web-2"),
        finished=Finish("web-1", Outcome.FAILED, 900.0, "start returned 1"),
    )
    assert kinds(again) == [ActionFinished, ActionIntended]
    assert again.events[1].cause == EventIndex(0)
    assert set(world.topology.actions) == {"web-2"}


def test_going_down_again_before_it_cleared_is_the_same_fault() -> None:
    world = IngestState()
    see(world, ResourceState.DOWN, 1, 1.0)
    see(world, ResourceState.UP, 2, 1.2)
    again = see(world, ResourceState.DOWN, 3, 1.4)
    assert kinds(again) == [ResourceDown]
    assert not again.tellings
    assert world.faults["resource/web"].state is FaultState.OPEN


def test_two_outages_that_come_in_late_and_together_are_two_faults() -> None:
    """The server was down meanwhile: the stamps of the source decide, not when the news arrived."""
    world = IngestState()
    first = see(world, ResourceState.DOWN, 1, 1.0)
    see(world, ResourceState.UP, 2, 1.2)
    second = see(world, ResourceState.DOWN, 3, 9.0)
    assert kinds(second) == [FaultCleared, ResourceDown, FaultRaised] or kinds(second) == [
        ResourceDown,
        FaultCleared,
        FaultRaised,
    ]
    assert [telling.transition for telling in second.tellings] == ["cleared", "raised"]
    assert second.tellings[0].fault.id == first.tellings[0].fault.id
    assert second.tellings[0].fault.outage_ms == pytest.approx(200)
    assert second.tellings[0].fault.cleared_ns == wall(1.2), "not when the second one began"
    assert second.tellings[1].fault.id != first.tellings[0].fault.id


def test_the_outage_is_measured_on_the_clock_that_nobody_sets() -> None:
    """The wall clock of the node was set back by an hour while its service was down."""
    world = IngestState()
    see(world, ResourceState.DOWN, 1, 7200.0)
    back = ResourceTransition(
        level(ResourceState.UP, 2, 3600.25), node_mono(7200.25), before_mono_ns=node_mono(7200.25)
    )
    take(world, back, 7200.25)
    assert not tick(world, 7200.7).events
    (cleared,) = tick(world, 7200.76).tellings
    assert cleared.fault.outage_ms == pytest.approx(250)
    assert cleared.fault.cleared_ns == wall(3600.25), "and people read what the node called the time"


def test_an_outage_across_a_boot_of_the_node_has_no_length() -> None:
    """Its monotonic clock began anew: the difference of two boots is a number, and says nothing."""
    world = IngestState()
    see(world, ResourceState.DOWN, 1, 100.0)
    back = ResourceTransition(level(ResourceState.UP, 2, 160.0), 30 * 10**9, before_mono_ns=30 * 10**9)
    take(world, back, 160.0)
    (cleared,) = tick(world, 161.0).tellings
    assert cleared.transition == "cleared"
    assert cleared.fault.outage_ms is None


def test_an_outage_across_a_boot_has_no_length_even_when_the_new_clock_is_past_the_old_stamp() -> None:
    """The node died after 100 s of its life, was off for a minute, and its service started 400 s later."""
    world = IngestState()
    died = ResourceTransition(level(ResourceState.DOWN, 1, 0), 100 * SECOND, before_mono_ns=100 * SECOND)
    take(world, died, 0)
    back = ResourceTransition(level(ResourceState.UP, 2, 460), 400 * SECOND, before_mono_ns=400 * SECOND)
    take(world, back, 460)
    (cleared,) = tick(world, 461).tellings
    assert cleared.fault.outage_ms is None


def test_an_outage_is_never_negative_whatever_was_done_to_the_wall_clock() -> None:
    """The node was booted, and came up with its wall clock an hour behind."""
    world = IngestState()
    see(world, ResourceState.DOWN, 1, 3700.0)
    back = ResourceTransition(level(ResourceState.UP, 2, 160.0), 30 * SECOND, before_mono_ns=30 * SECOND)
    take(world, back, 3760.0)
    (cleared,) = tick(world, 3761.0).tellings
    assert cleared.fault.outage_ms is None


@given(
    uptime_s=st.integers(1, 1000),
    outage_s=st.integers(0, 1000),
    boot=st.none() | st.tuples(st.integers(0, 1000), st.integers(0, 100)),
)
def test_an_outage_has_its_length_exactly_when_one_boot_saw_both_ends(
    uptime_s: int, outage_s: int, boot: tuple[int, int] | None
) -> None:
    """`boot`: how long the machine lived on after the death, and was off."""
    world = IngestState()
    take(
        world,
        ResourceTransition(
            level(ResourceState.DOWN, 1, 0), uptime_s * SECOND, before_mono_ns=uptime_s * SECOND
        ),
        0,
    )
    lived_s, off_s = boot or (0, 0)
    back_s = lived_s + off_s + outage_s + 1
    stamp_s = outage_s + 1 if boot else uptime_s + back_s
    take(
        world,
        ResourceTransition(
            level(ResourceState.UP, 2, back_s), stamp_s * SECOND, before_mono_ns=stamp_s * SECOND
        ),
        back_s,
    )
    (cleared,) = tick(world, back_s + 1).tellings
    assert cleared.fault.outage_ms == (None if boot else pytest.approx(back_s * 1000))


def test_what_failed_and_is_stopped_on_purpose_is_not_told_as_right_before_it_works() -> None:
    """A node process that is restarted in order stops what it runs: 5 of 150 rounds told that as cleared."""
    world = IngestState()
    see(world, ResourceState.DOWN, 1, 1.0)
    assert not see(world, ResourceState.STOPPED, 2, 2.0).tellings
    assert not tick(world, 9.0).tellings
    see(world, ResourceState.UP, 3, 10.0)
    (cleared,) = tick(world, 11.0).tellings
    assert (cleared.transition, cleared.fault.cleared_ns) == ("cleared", wall(10.0))


def test_what_came_right_and_is_stopped_before_it_was_so_for_long_is_still_wrong() -> None:
    world = IngestState()
    see(world, ResourceState.DOWN, 1, 1.0)
    see(world, ResourceState.UP, 2, 2.0)
    assert not see(world, ResourceState.STOPPED, 3, 2.1).tellings
    assert not tick(world, 9.0).tellings
    assert world.faults


def test_what_was_right_for_long_enough_and_is_stopped_has_its_end() -> None:
    world = IngestState()
    see(world, ResourceState.DOWN, 1, 1.0)
    see(world, ResourceState.UP, 2, 2.0)
    (cleared,) = see(world, ResourceState.STOPPED, 3, 4.0).tellings
    assert (cleared.transition, cleared.fault.cleared_ns) == ("cleared", wall(2.0))
    assert not world.faults


@given(st.lists(st.tuples(st.sampled_from(ResourceState), st.floats(0.01, 2)), max_size=30))
def test_whatever_happens_a_fault_is_raised_before_it_is_cleared_and_once_each(
    story: list[tuple[ResourceState, float]],
) -> None:
    world, told, at_s = IngestState(), list[tuple[str, str]](), 0.0
    for seq, (state, pause_s) in enumerate(story, 1):
        at_s += pause_s
        for decision in (tick(world, at_s), see(world, state, seq, at_s)):
            told += [(telling.fault.id, telling.transition) for telling in decision.tellings]
    told += [(telling.fault.id, telling.transition) for telling in tick(world, at_s + 9).tellings]
    assert len(told) == len(set(told))
    for fault, transition in told:
        if transition == "cleared":
            assert told.index((fault, "raised")) < told.index((fault, "cleared"))
    still_open = {fault.id for fault in world.faults.values()}
    raised = {fault for fault, transition in told if transition == "raised"}
    cleared = {fault for fault, transition in told if transition == "cleared"}
    assert raised - cleared == still_open


def test_a_doubt_about_all_hosts_that_comes_back_before_it_cleared_is_written_down_again() -> None:
    world = IngestState()
    world.adopt(on_evidence(world, "our link is down", at(1)))
    world.adopt(on_evidence(world, "", at(2)))
    (fault,) = world.faults.values()
    assert fault.state is FaultState.CLEARING
    again = on_evidence(world, "our link is down", at(2.1))
    assert kinds(again) == [EvidenceLost]
    world.adopt(again)
    assert [each.state for each in world.faults.values()] == [FaultState.OPEN]
    assert not on_evidence(world, "our link is down", at(2.2)).events
    assert not tick(world, 9).tellings


def beat(incarnation: str) -> Heartbeat:
    return Heartbeat(N1, "boot", incarnation, 0, "")


def at(seconds: float) -> Moment:
    return Moment(wall(seconds), server_mono(seconds), CLEAR_AFTER_S, 0)


def test_a_new_node_joins_and_is_then_left_in_peace() -> None:
    world = IngestState()
    joined = on_heartbeat(world, beat("i1"), at(1))
    assert kinds(joined) == [HostJoined]
    world.adopt(joined)
    assert on_heartbeat(world, beat("i1"), at(2)) == Decision()


def joined_world() -> IngestState:
    world = IngestState()
    world.adopt(on_heartbeat(world, beat("i1"), at(1)))
    return world


def test_a_silent_node_is_agent_lost_for_administrators_until_it_reports_again() -> None:
    world = joined_world()
    lost = on_silence(world, N1, 3.2, at(5))
    assert kinds(lost) == [AgentLost, FaultRaised]
    fault = lost.tellings[0].fault
    assert fault.kind is FaultKind.AGENT_LOST
    assert fault.owner == "infrastructure"
    world.adopt(lost)
    assert on_silence(world, N1, 3.3, at(5.1)).events == []
    back = on_heartbeat(world, beat("i1"), at(6))
    assert kinds(back) == [AgentReturned]
    world.adopt(back)
    assert [telling.fault.id for telling in tick(world, 7).tellings] == [fault.id]


def test_a_node_that_falls_silent_twice_has_two_faults() -> None:
    world, faults = joined_world(), []
    for start_s in (10, 20):
        lost = on_silence(world, N1, 3.2, at(start_s))
        faults.append(lost.tellings[0].fault.id)
        world.adopt(lost)
        world.adopt(on_heartbeat(world, beat("i1"), at(start_s + 1)))
        world.adopt(tick(world, start_s + 2))
    assert faults[0] != faults[1]


def test_a_restart_that_nobody_missed_is_told_all_the_same() -> None:
    world = joined_world()
    seen = on_heartbeat(world, beat("i2"), at(2))
    assert kinds(seen) == [AgentLost, FaultRaised, AgentReturned]
    world.adopt(seen)
    assert world.faults["node/n1"].state is FaultState.CLEARING
    assert [telling.transition for telling in tick(world, 3).tellings] == ["cleared"]
    assert on_heartbeat(world, beat("i2"), at(4)).events == []


def test_a_goodbye_is_no_fault_and_neither_is_the_next_start() -> None:
    world = joined_world()
    world.adopt(on_goodbye(world, Goodbye(N1, "i1"), at(2)))
    assert world.topology.nodes[N1].agent is AgentState.STOPPED
    returned = on_heartbeat(world, beat("i2"), at(3))
    assert kinds(returned) == [AgentReturned]
    assert not returned.tellings


def test_a_goodbye_of_an_earlier_life_is_ignored() -> None:
    world = joined_world()
    assert on_goodbye(world, Goodbye(N1, "i0"), at(2)) == Decision()


def test_resource_up_is_only_told_when_it_was_not() -> None:
    world = IngestState()
    assert kinds(see(world, ResourceState.UP, 1, 1.0)) == [ResourceUp]
    assert kinds(see(world, ResourceState.UP, 2, 2.0)) == []


def test_one_life_of_a_node_may_fall_silent_twice_and_has_a_fault_each_time() -> None:
    world = joined_world()
    faults = []
    for silent_s in (5.0, 15.0):
        lost = on_silence(world, N1, 3.2, at(silent_s))
        faults.append(lost.tellings[0].fault.id)
        world.adopt(lost)
        world.adopt(on_heartbeat(world, beat("i1"), at(silent_s + 1)))
        world.adopt(tick(world, silent_s + 2))
    assert len(set(faults)) == 2


def test_two_returns_in_one_fault_are_not_taken_for_a_rerun_of_one() -> None:
    world = joined_world()
    returns = []
    for number, at_s in ((2, 2.0), (3, 2.1)):
        decision = on_heartbeat(world, beat(f"i{number}"), at(at_s))
        world.adopt(decision)
        world.settle([Seq(10 * number + index) for index in range(len(decision.events))])
        returns += [each for each in decision.events if isinstance(each.event, AgentReturned)]
    assert len(world.faults) == 1
    assert all(each.cause is None or isinstance(each.cause, EventIndex) for each in returns)


def test_a_new_loss_when_the_old_fault_had_been_right_long_enough_clears_too() -> None:
    world = joined_world()
    world.adopt(on_heartbeat(world, beat("i2"), at(2)))
    late = on_heartbeat(world, beat("i3"), at(9))
    assert [telling.transition for telling in late.tellings] == ["raised", "cleared", "raised"][1:]
    world.adopt(late)
    assert world.faults["node/n1"].state is FaultState.CLEARING
    assert [telling.transition for telling in tick(world, 12).tellings] == ["cleared"]
    assert not world.faults
