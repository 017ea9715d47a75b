"""What is done about dead hosts, as events and rows: receipts, marks, and acts that a storm stops."""

from __future__ import annotations

from dataclasses import replace

from homeostat.contracts.events.faults import FaultCleared, FaultRaised
from homeostat.contracts.events.fleet import HostFenced, HostMarked
from homeostat.contracts.faults import FaultState
from homeostat.contracts.nouns import GATE_SUBJECT, HostId, Mark
from homeostat.contracts.wire import Outcome
from homeostat.faults.inspection import on_tick
from homeostat.fleet.fencing import FenceOutcome
from homeostat.fleet.model import AgentState, Node
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.recovery.acts import due, marked, on_acts_stopped, on_fence_ended, on_fenced, on_marked
from set_clock import server_mono, wall

N1 = HostId("n1")


def at(seconds: float) -> Moment:
    return Moment(wall(seconds), server_mono(seconds), 0.5, 0)


def with_a_dead_host() -> IngestState:
    world = IngestState()
    world.topology.adopt([Node(N1, "b", "i", 0, AgentState.LOST, wall(0), down_ns=wall(5))])
    return world


def kinds(decision: Decision) -> list[type]:
    return [type(each.event) for each in decision.events]


def test_the_receipt_of_a_person_leaves_when_the_host_was_fenced_as_it_was() -> None:
    """What the first receipt let begin goes on, however many hosts died since."""
    world = with_a_dead_host()
    driver = FenceOutcome("fence-1", "ipmi", Outcome.OK, 5.0, "it is off", wall(5))
    world.adopt(on_fence_ended(world, N1, driver, at(10)))
    assert world.topology.nodes[N1].fenced_ns == wall(10)
    vouched = on_fenced(world, N1, ("ops", "I looked"), at(99))
    assert kinds(vouched) == [HostFenced]
    world.adopt(vouched)
    node = world.topology.nodes[N1]
    assert (node.fenced, node.fenced_ns, node.vouched) == ("I looked", wall(10), True)


def test_a_receipt_for_another_death_of_the_host_is_none() -> None:
    """It came back and died again while the driver was working."""
    world = with_a_dead_host()
    late = FenceOutcome("fence-1", "ipmi", Outcome.OK, 5.0, "it is off", wall(4))
    world.adopt(on_fence_ended(world, N1, late, at(10)))
    assert not world.topology.nodes[N1].fenced


def test_a_mark_that_is_seen_again_is_the_same_mark() -> None:
    world = with_a_dead_host()
    for mark in (Mark.MARK_DOWN, Mark.SET_ERROR):
        assert due(world, N1) is mark
        first = on_marked(world, N1, (mark, "local"), at(10))
        assert kinds(first) == [HostMarked]
        world.adopt(first)
        assert kinds(on_marked(world, N1, (mark, "local"), at(20))) == []
    node = world.topology.nodes[N1]
    assert (node.marked_ns, node.error_ns) == (wall(10), wall(10))
    assert due(world, N1) is None
    cleared = marked(marked(replace(node, down_ns=None), Mark.MARK_UP, wall(30)), Mark.CLEAR_ERROR, wall(30))
    assert (cleared.marked_ns, cleared.error_ns) == (None, None)


def test_a_storm_that_comes_back_before_its_fault_cleared_is_the_same_fault_and_open() -> None:
    world = IngestState()
    raised = on_acts_stopped(world, "3 of 10 hosts died", at(1))
    assert kinds(raised) == [FaultRaised]
    world.adopt(raised)
    assert kinds(on_acts_stopped(world, "3 of 10 hosts died", at(2))) == []
    world.adopt(on_acts_stopped(world, "", at(3)))
    assert world.faults[GATE_SUBJECT].state is FaultState.CLEARING
    world.adopt(on_acts_stopped(world, "4 of 10 hosts died", at(3.1)))
    assert world.faults[GATE_SUBJECT].state is FaultState.OPEN
    assert not on_tick(world, server_mono(9), wall(9), 0).events
    world.adopt(on_acts_stopped(world, "", at(10)))
    assert kinds(on_tick(world, server_mono(11), wall(11), 0)) == [FaultCleared]
