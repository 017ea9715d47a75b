"""What people see of a host of which nothing is heard: not what was last seen there, as if it were now."""

from __future__ import annotations

import pytest

from homeostat.contracts.health import ServerHealth, ServerSigns, judge_health
from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.fleet.api import ShownAgent, shown_agent
from homeostat.fleet.model import AgentState, Node, Resource, Topology
from homeostat.resources.api import ShownState, shown_state

N1 = HostId("n1")


@pytest.mark.parametrize(
    ("unheard", "state", "expected"),
    [
        (False, ResourceState.UP, ShownState.UP),
        (True, ResourceState.UP, ShownState.UNKNOWN),
        (True, ResourceState.FAILED, ShownState.UNKNOWN),
        (True, ResourceState.STOPPED, ShownState.STOPPED),
    ],
)
def test_what_runs_on_a_silent_host_is_unknown(
    unheard: bool, state: ResourceState, expected: ShownState
) -> None:
    row = Resource(ResourceId("a"), N1, ResourceKind.GUEST, Owner("blue"), "ocf:x:y", state, "because", 1, 1)
    topology = Topology(unheard=frozenset({N1}) if unheard else frozenset())
    topology.adopt(nodes=(Node(N1, "b", "i", 0, AgentState.PRESENT, 1),), resources=(row,))
    seen, reason = shown_state(topology, row, ServerHealth())
    assert seen is expected
    assert (expected is ShownState.UNKNOWN) == ("nothing is heard of its host n1" in reason)
    assert (shown_agent(topology, topology.nodes[N1], ServerHealth()) is ShownAgent.UNKNOWN) == unheard


@pytest.mark.parametrize("state", ResourceState)
def test_nothing_is_shown_as_it_was_while_the_server_is_impaired(state: ResourceState) -> None:
    row = Resource(ResourceId("a"), N1, ResourceKind.GUEST, Owner("blue"), "ocf:x:y", state, "because", 1, 1)
    topology = Topology()
    topology.adopt(nodes=(Node(N1, "b", "i", 0, AgentState.PRESENT, 1),), resources=(row,))
    health = judge_health(ServerSigns(connected=False))
    seen, reason = shown_state(topology, row, health)
    assert seen is ShownState.UNKNOWN
    assert reason == f"NATS is not connected: nothing is heard from the nodes; before: {state.value}"
    assert shown_agent(topology, topology.nodes[N1], health) is ShownAgent.UNKNOWN


def test_what_runs_on_a_host_whose_node_process_stopped_is_unknown() -> None:
    up = ResourceState.UP
    row = Resource(ResourceId("a"), N1, ResourceKind.GUEST, Owner("blue"), "ocf:x:y", up, "because", 1, 1)
    topology = Topology()
    topology.adopt(nodes=(Node(N1, "b", "i", 0, AgentState.STOPPED, 1),), resources=(row,))
    seen, reason = shown_state(topology, row, ServerHealth())
    assert (seen, "is stopped; before: up" in reason) == (ShownState.UNKNOWN, True)
