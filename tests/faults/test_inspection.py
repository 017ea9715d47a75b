"""From transitions and heartbeats to events, faults and people to tell."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.events.fleet import AgentLost, AgentReturned, HostJoined
from homeostat.contracts.events.resources import ActionFinished, ActionIntended, ResourceDown, ResourceUp
from homeostat.contracts.nouns import FaultKind, HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import Finish, Goodbye, Heartbeat, Intent, Outcome, ResourceLevel, Transition
from homeostat.faults.decision import Decision, World
from homeostat.faults.inspection import on_tick, on_transition
from homeostat.faults.model import FaultState
from homeostat.faults.presence import Moment, on_goodbye, on_heartbeat, on_silence
from homeostat.fleet.model import AgentState
from homeostat.kernel.journal import Local, Seq

SECOND = 1_000_000_000
N1 = HostId("n1")
WEB = ResourceId("web")
CLEAR_AFTER_S = 0.5


def level(state: ResourceState, seq: int, at_s: float) -> ResourceLevel:
    return ResourceLevel(
        WEB, ResourceKind.SERVICE, Owner("blue"), "ocf:x:y", state, "because", round(at_s * SECOND), seq
    )


def see(
    world: World,
    state: ResourceState,
    seq: int,
    at_s: float,
    intended: Intent | None = None,
    finished: Finish | None = None,
) -> Decision:
    transition = Transition(level(state, seq, at_s), round(at_s * SECOND), intended, finished)
    decision = on_transition(world, N1, "boot", (transition, round(at_s * SECOND)), (0, CLEAR_AFTER_S))
    world.adopt(decision)
    world.settle([Seq(1000 * seq + i) for i in range(len(decision.events))])
    return decision


def tick(world: World, at_s: float) -> Decision:
    decision = on_tick(world, round(at_s * SECOND), round(at_s * SECOND), 0)
    world.adopt(decision)
    return decision


def kinds(decision: Decision) -> list[type]:
    return [type(draft.event) for draft in decision.events]


RESTART = Intent("web-1", "restart", 20.0, "the process died")


def test_a_death_and_a_restart_make_one_fault_raised_once_and_cleared_once() -> None:
    world = World()
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
    world = World()
    see(world, ResourceState.UP, 1, 1.0)
    down = see(world, ResourceState.DOWN, 2, 2.0, intended=RESTART)
    assert [draft.cause for draft in down.events] == [None, Local(0), Local(0)]
    up = see(world, ResourceState.UP, 3, 2.2, finished=Finish("web-1", Outcome.OK, 180.0, "ready"))
    assert [draft.cause for draft in up.events] == [Seq(2002), Local(0)]
    over = tick(world, 9.0)
    assert over.events[0].cause == Seq(3001)
    assert {draft.trace for decision in (down, up, over) for draft in decision.events} == {"n1/boot/2"}


def test_a_second_attempt_is_caused_by_the_end_of_the_first_and_is_no_second_fault() -> None:
    world = World()
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
    assert again.events[1].cause == Local(0)
    assert set(world.topology.actions) == {"web-2"}


def test_going_down_again_before_it_cleared_is_the_same_fault() -> None:
    world = World()
    see(world, ResourceState.DOWN, 1, 1.0)
    see(world, ResourceState.UP, 2, 1.2)
    again = see(world, ResourceState.DOWN, 3, 1.4)
    assert kinds(again) == [ResourceDown]
    assert not again.tellings
    assert world.faults["resource/web"].state is FaultState.OPEN


def test_two_outages_that_come_in_late_and_together_are_two_faults() -> None:
    """The server was down meanwhile: the stamps of the source decide, not when the news arrived."""
    world = World()
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
    assert second.tellings[1].fault.id != first.tellings[0].fault.id


def test_stopped_on_purpose_ends_the_fault() -> None:
    world = World()
    see(world, ResourceState.DOWN, 1, 1.0)
    stopped = see(world, ResourceState.STOPPED, 2, 2.0)
    assert [telling.transition for telling in stopped.tellings] == ["cleared"]
    assert not world.faults


@given(st.lists(st.tuples(st.sampled_from(ResourceState), st.floats(0.01, 2)), max_size=30))
def test_whatever_happens_a_fault_is_raised_before_it_is_cleared_and_once_each(
    story: list[tuple[ResourceState, float]],
) -> None:
    world, told, at_s = World(), list[tuple[str, str]](), 0.0
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


def beat(incarnation: str) -> Heartbeat:
    return Heartbeat(N1, "boot", incarnation, 0, "")


def at(seconds: float) -> Moment:
    return Moment(round(seconds * SECOND), round(seconds * SECOND), CLEAR_AFTER_S, 0)


def test_a_new_node_joins_and_is_then_left_in_peace() -> None:
    world = World()
    joined = on_heartbeat(world, beat("i1"), at(1))
    assert kinds(joined) == [HostJoined]
    world.adopt(joined)
    assert on_heartbeat(world, beat("i1"), at(2)) == Decision()


def joined_world() -> World:
    world = World()
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
    world = World()
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
    assert all(each.cause is None or isinstance(each.cause, Local) for each in returns)


def test_a_new_loss_when_the_old_fault_had_been_right_long_enough_clears_too() -> None:
    world = joined_world()
    world.adopt(on_heartbeat(world, beat("i2"), at(2)))
    late = on_heartbeat(world, beat("i3"), at(9))
    assert [telling.transition for telling in late.tellings] == ["raised", "cleared", "raised"][1:]
    world.adopt(late)
    assert world.faults["node/n1"].state is FaultState.CLEARING
    assert [telling.transition for telling in tick(world, 12).tellings] == ["cleared"]
    assert not world.faults
