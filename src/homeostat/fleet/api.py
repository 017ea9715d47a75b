"""GET /api/v1/nodes: hosts and their node processes. Administrators only; they belong to `infrastructure`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from homeostat.contracts.nouns import INFRASTRUCTURE, HostId
from homeostat.fleet.model import AgentState, Node, Topology
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import iso
from homeostat.kernel.errors import NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller


class ShownAgent(StrEnum):
    """What is known of a node process; `unknown` while it is not heard and nobody can say more."""

    PRESENT = "present"
    LOST = "lost"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


def shown_agent(topology: Topology, node: Node) -> ShownAgent:
    """As people see it. Derived: the row says what was last concluded."""
    if node.agent is AgentState.PRESENT and node.host in topology.unheard:
        return ShownAgent.UNKNOWN
    return ShownAgent(node.agent.value)


class NodeView(BaseModel):
    """A node. `resources`: those you may read. `observations` counts those committed, of store `boot`."""

    host: str
    agent: ShownAgent
    resources: list[str]
    observations: int
    boot: str
    incarnation: str
    joined_at: str


class NodeList(BaseModel):
    """All nodes, by name; none for who may not read them."""

    items: list[NodeView]


def _topology(request: Request) -> Topology:
    topology: Topology = request.app.state.topology()
    return topology


CurrentTopology = Annotated[Topology, Depends(_topology)]
"""What the fault path holds in memory: `app.state.topology` is a function that returns it."""

router = APIRouter(prefix="/api/v1/nodes", tags=["nodes"], responses=ERRORS)


@router.get("")
async def list_nodes(caller: CurrentCaller, topology: CurrentTopology) -> NodeList:
    """All nodes, or none when they are not yours to read."""
    if not caller.may_read(INFRASTRUCTURE):
        return NodeList(items=[])
    return NodeList(items=[_view(topology, node, caller) for _, node in sorted(topology.nodes.items())])


@router.get("/{host}")
async def show_node(host: str, caller: CurrentCaller, topology: CurrentTopology) -> NodeView:
    """One node and the resources on it."""
    node = topology.nodes.get(HostId(host))
    if node is None or not caller.may_read(INFRASTRUCTURE):
        raise NotFound(f"there is no node {host!r}, or it is not yours to read")
    return _view(topology, node, caller)


def _view(topology: Topology, node: Node, caller: Caller) -> NodeView:
    return NodeView(
        host=node.host,
        agent=shown_agent(topology, node),
        resources=sorted(row.id for row in topology.on_host(node.host) if caller.may_read(row.owner)),
        observations=node.acked_seq,
        boot=node.boot,
        incarnation=node.incarnation,
        joined_at=iso(node.joined_ns),
    )
