"""The set points of the fleet: no silent node process or runner, no dead host, no full store. Pure.

A count is kept only when it is known: of hosts that may be dead, *none is down* cannot be said.
"""

from __future__ import annotations

from collections.abc import Collection

from homeostat.contracts.nouns import HostId, SetPoint, SetPointState
from homeostat.fleet.model import AgentState, Topology


def set_points(topology: Topology, doubt: str, unseen: Collection[HostId] = ()) -> tuple[SetPoint, ...]:
    """`doubt` is why nothing may be concluded from silence, or empty; `unseen` are hosts that may be dead.

    Without nodes nothing is measured.
    """
    nodes = topology.nodes.values()
    lost = sorted(node.host for node in nodes if node.agent is AgentState.LOST)
    dead = sorted(node.host for node in nodes if node.down_ns is not None)
    full = sorted(topology.full.keys() - set(dead))
    blind = sorted(topology.blind - set(dead))
    unsure = doubt or ("" if nodes else "no node has joined yet")

    lost_sight = "" if not unseen else f"nothing is seen of {', '.join(sorted(unseen))}"

    def row(promise: str, unit: str, hosts: list[HostId], said: str, unsure: str = unsure) -> SetPoint:
        state = SetPointState.BROKEN if hosts else SetPointState.UNKNOWN if unsure else SetPointState.KEPT
        value = None if not nodes or (state is SetPointState.UNKNOWN and not doubt) else len(hosts)
        return SetPoint("fleet", promise, 0, unit, value, state, unsure or ", ".join(hosts) or said)

    return (
        row("node processes that are silent", "nodes", lost, f"{len(nodes)} nodes"),
        row("hosts that are down", "hosts", dead, "", unsure or ("" if dead else lost_sight)),
        row("node stores that are full", "nodes", full, ""),
        row("runners that are silent", "runners", blind, ""),
    )
