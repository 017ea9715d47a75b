"""GET /api/v1/resources: what the nodes run, and the state that was last committed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel

from homeostat.contracts.health import ServerHealth
from homeostat.contracts.nouns import ResourceId, ResourceKind, ResourceState
from homeostat.fleet.api import CurrentHealth, CurrentTopology
from homeostat.fleet.model import AgentState, Resource, Topology
from homeostat.fleet.placements import StrandedGuests
from homeostat.kernel.clock import iso
from homeostat.kernel.errors import NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller, state_part, view_from


class ShownState(StrEnum):
    """What a node last saw, and `error`: the host is down, and its cloud was told so."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    FAILED = "failed"
    STOPPED = "stopped"
    UNKNOWN = "unknown"
    ERROR = "error"


class ResourceView(BaseModel):
    """A resource. `pid` is its process while it is up, null when its agent does not say.

    `generation` is 0 for what is fixed to its host; for a guest that can move it grows by one with each move.
    """

    id: str
    host: str
    generation: int
    kind: ResourceKind
    owner: str
    agent: str
    state: ShownState
    since_at: str
    pid: int | None
    reason: str


class ResourceList(BaseModel):
    """The resources that the caller may read, by name."""

    items: list[ResourceView]


CurrentStranded = Annotated[StrandedGuests, state_part("stranded")]

router = APIRouter(prefix="/api/v1/resources", tags=["resources"], responses=ERRORS)


@router.get("")
async def list_resources(
    caller: CurrentCaller, topology: CurrentTopology, health: CurrentHealth, stranded: CurrentStranded
) -> ResourceList:
    """The resources that you may read."""
    rows = sorted(topology.resources.values(), key=lambda row: row.id)
    why = stranded()
    return ResourceList(
        items=[
            _view(topology, row, health, why.get(row.id, "")) for row in rows if caller.may_read(row.owner)
        ]
    )


@router.get("/{resource}")
async def show_resource(
    resource: str,
    caller: CurrentCaller,
    topology: CurrentTopology,
    health: CurrentHealth,
    stranded: CurrentStranded,
) -> ResourceView:
    """One resource."""
    row = topology.resources.get(ResourceId(resource))
    if row is None or not caller.may_read(row.owner):
        raise NotFound(f"there is no resource {resource!r}, or it is not yours to read")
    return _view(topology, row, health, stranded().get(row.id, ""))


def _view(topology: Topology, row: Resource, health: ServerHealth, stranded: str) -> ResourceView:
    """`stranded` is why it can be started nowhere since its host died, empty otherwise."""
    state, reason = shown_state(topology, row, health)
    if stranded:
        reason = f"stranded: {stranded}; {reason}"
    return view_from(
        ResourceView,
        row,
        state=state,
        since_at=iso(row.since_ns),
        pid=row.pid if state.value == row.state.value else None,
        reason=reason,
    )


def shown_state(topology: Topology, row: Resource, health: ServerHealth) -> tuple[ShownState, str]:
    """State and reason as people see them. Derived: the row says what its node last saw.

    What is in error stays so until its host's fault is over: before, nobody has seen how it is.
    """
    dead, before = topology.is_down(row.host), f"before: {row.state.value}"
    if topology.in_error(row.host) and row.state is not ResourceState.STOPPED:
        was = "is down" if dead else "was down, and is not settled yet"
        return ShownState.ERROR, f"its host {row.host} {was}; {before}"
    if dead:
        return ShownState.UNKNOWN, f"its host {row.host} is down; {before}"
    if health.impairments:
        return ShownState.UNKNOWN, f"{health.reason}; {before}"
    node = topology.nodes.get(row.host)
    if node is not None and node.agent is AgentState.STOPPED and row.state is not ResourceState.STOPPED:
        return ShownState.UNKNOWN, f"the node process of its host {row.host} is stopped; {before}"
    if row.host in topology.unheard and row.state is not ResourceState.STOPPED:
        return ShownState.UNKNOWN, f"nothing is heard of its host {row.host}; {before}"
    if row.host in topology.untold and row.state is not ResourceState.STOPPED:
        return ShownState.UNKNOWN, f"the store of its node on {row.host} is full; {before}"
    unseen = row.host in topology.blind or row.host in topology.unlooked_at
    if unseen and row.state is not ResourceState.STOPPED:
        return ShownState.UNKNOWN, f"the runner of its host {row.host} does not look at it; {before}"
    return ShownState(row.state.value), row.reason
