"""The fleet's set points: every node process that should report does, and no host is down. Pure."""

from __future__ import annotations

from homeostat.contracts.nouns import SetPoint, Standing
from homeostat.fleet.model import AgentState, Topology


def promises(topology: Topology, doubt: str) -> tuple[SetPoint, ...]:
    """`doubt` is why nothing may be concluded from silence, or empty."""
    lost = sorted(node.host for node in topology.nodes.values() if node.agent is AgentState.LOST)
    standing = Standing.BROKEN if lost else Standing.UNKNOWN if doubt else Standing.KEPT
    detail = doubt or (", ".join(lost) if lost else f"{len(topology.nodes)} nodes")
    dead = sorted(node.host for node in topology.nodes.values() if node.down_ns is not None)
    hosts = Standing.BROKEN if dead else Standing.UNKNOWN if doubt else Standing.KEPT
    return (
        SetPoint("fleet", "node processes that are silent", 0, "nodes", len(lost), standing, detail),
        SetPoint("fleet", "hosts that are down", 0, "hosts", len(dead), hosts, doubt or ", ".join(dead)),
    )
