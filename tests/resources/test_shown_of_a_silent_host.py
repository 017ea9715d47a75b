"""What people see of a host of which nothing is heard: not what was last seen there, as if it were now."""

from __future__ import annotations

import pytest

from homeostat.contracts.nouns import HostId, Owner, ResourceId, ResourceKind, ResourceState
from homeostat.fleet.api import ShownAgent, shown_agent
from homeostat.fleet.model import AgentState, Node, Resource, Topology
from homeostat.resources.api import ShownState, shown

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
    seen, reason = shown(topology, row)
    assert seen is expected
    assert (expected is ShownState.UNKNOWN) == ("nothing is heard of its host n1" in reason)
    assert (shown_agent(topology, topology.nodes[N1]) is ShownAgent.UNKNOWN) == unheard
