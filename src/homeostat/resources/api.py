"""GET /api/v1/resources: what the nodes run, and the state that was last committed."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from homeostat.contracts.nouns import ResourceId, ResourceKind, ResourceState
from homeostat.fleet.api import CurrentTopology
from homeostat.fleet.model import Resource, Topology
from homeostat.kernel.clock import iso
from homeostat.kernel.errors import NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller


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
    state: ResourceState
    since_at: str
    pid: int | None
    reason: str


class ResourceList(BaseModel):
    """The resources that the caller may read, by name."""

    items: list[ResourceView]


router = APIRouter(prefix="/api/v1/resources", tags=["resources"], responses=ERRORS)


@router.get("")
async def list_resources(caller: CurrentCaller, topology: CurrentTopology) -> ResourceList:
    """The resources that you may read."""
    rows = sorted(topology.resources.values(), key=lambda row: row.id)
    return ResourceList(items=[_view(topology, row) for row in rows if caller.may_read(row.owner)])


@router.get("/{resource}")
async def show_resource(resource: str, caller: CurrentCaller, topology: CurrentTopology) -> ResourceView:
    """One resource."""
    row = topology.resources.get(ResourceId(resource))
    if row is None or not caller.may_read(row.owner):
        raise NotFound(f"there is no resource {resource!r}, or it is not yours to read")
    return _view(topology, row)


def _view(topology: Topology, row: Resource) -> ResourceView:
    # Of what ran on a dead host nothing is known; its row says what its node last saw.
    dead = topology.is_down(row.host)
    return ResourceView(
        id=row.id,
        host=row.host,
        generation=row.generation,
        kind=row.kind,
        owner=row.owner,
        agent=row.agent,
        state=ResourceState.UNKNOWN if dead else row.state,
        since_at=iso(row.since_ns),
        pid=None if dead else row.pid,
        reason=f"its host {row.host} is down; before: {row.state.value}" if dead else row.reason,
    )
