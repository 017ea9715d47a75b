"""/api/v1/hosts and /api/v1/arming: which hosts live, and what people say about them. Administrators only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from homeostat.contracts.nouns import INFRASTRUCTURE, HostId, node_subject
from homeostat.fleet.api import ShownAgent, shown_agent
from homeostat.fleet.arming import Arming
from homeostat.fleet.model import Node, Topology
from homeostat.fleet.suspicion import Probed
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import iso
from homeostat.kernel.errors import BadInput, Conflict, NotAllowed, NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller

INJECTED_WITHIN_NS = 600 * 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class HostState(StrEnum):
    """What is known of a host. `unknown` while nothing can be concluded."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class HostsApi:
    """What the routes stand on: `app.state.hosts`. `doubt` concerns all hosts, `doubts` single ones.

    `fenced` takes host, driver and receipt; `hold` host, reason (empty: release) and who said so; `injected`
    host, what was done to it, when (wall clock, ns) and by whom.
    """

    topology: Callable[[], Topology]
    probed: Callable[[], Mapping[HostId, Probed]]
    doubt: Callable[[], str]
    doubts: Callable[[], Mapping[HostId, str]]
    fenced: Callable[[HostId, str, str], Awaitable[object]]
    hold: Callable[[HostId, str, str], Awaitable[object]]
    injected: Callable[[HostId, str, int, str], Awaitable[object]]
    wall_ns: Callable[[], int]
    arming: Arming


class HostView(BaseModel):
    """A host. `probe` is what outside probes say, `fenced` the receipt, `held` why it is spared.

    `marked_at` is since when its cloud shows it as down, `error_at` since when what runs there is in error,
    `acting` what is being done to the host and has not ended: a fence.
    """

    host: str
    state: HostState
    agent: ShownAgent
    down_at: str | None
    probe: str
    doubt: str
    fenced: str
    held: str
    marked_at: str | None
    error_at: str | None
    acting: list[str]


class HostList(BaseModel):
    """All hosts, by name; none for who may not read them."""

    items: list[HostView]


class Receipt(BaseModel):
    """A person's word that nothing runs on the host."""

    model_config = ConfigDict(extra="forbid")

    receipt: str = Field(min_length=1, max_length=500)


class Hold(BaseModel):
    """Whether no harm may be done to the host."""

    model_config = ConfigDict(extra="forbid")

    held: bool
    reason: str = Field(default="a person asked", min_length=1, max_length=500)


class Injection(BaseModel):
    """A fault that was made on purpose. Only a stamp: nothing is concluded from it."""

    model_config = ConfigDict(extra="forbid")

    what: str = Field(min_length=1, max_length=100)
    injected_at: AwareDatetime


class Armed(BaseModel):
    """Whether the room may act."""

    model_config = ConfigDict(extra="forbid")

    armed: bool


class RoomView(BaseModel):
    """A room that does harm when armed."""

    room: str
    armed: bool


class RoomList(BaseModel):
    """All of them."""

    items: list[RoomView]


def _parts(request: Request) -> HostsApi:
    parts: HostsApi = request.app.state.hosts
    return parts


Parts = Annotated[HostsApi, Depends(_parts)]
Name = Annotated[str, Path(max_length=63)]
router = APIRouter(prefix="/api/v1", tags=["hosts"], responses=ERRORS)


@router.get("/hosts")
async def list_hosts(caller: CurrentCaller, parts: Parts) -> HostList:
    """All hosts, or none when they are not yours to read."""
    if not caller.may_read(INFRASTRUCTURE):
        return HostList(items=[])
    nodes = sorted(parts.topology().nodes.items())
    return HostList(items=[_view(parts, node) for _, node in nodes])


@router.post("/hosts/{host}/fenced")
async def host_fenced(host: Name, body: Receipt, caller: CurrentCaller, parts: Parts) -> HostView:
    """Give the receipt that nothing runs on a dead host. Its guests may start elsewhere from then on."""
    node = _node(caller, parts, host)
    if node.down_ns is None:
        raise Conflict("host", host, "it is not down; only a dead host is fenced")
    await parts.fenced(node.host, f"manual, {caller.name}", body.receipt)
    return _view(parts, _node(caller, parts, host))


@router.put("/hosts/{host}/hold")
async def hold_host(host: Name, body: Hold, caller: CurrentCaller, parts: Parts) -> HostView:
    """Ask that no harm be done to a host, or allow it again."""
    node = _node(caller, parts, host)
    await parts.hold(node.host, body.reason if body.held else "", caller.name)
    return _view(parts, _node(caller, parts, host))


@router.post("/hosts/{host}/injections")
async def host_injected(host: Name, body: Injection, caller: CurrentCaller, parts: Parts) -> HostView:
    """Say when a host was broken on purpose, for the timeline of its fault. It is detected all the same."""
    node = _node(caller, parts, host)
    injected_ns = (body.injected_at - EPOCH) // timedelta(microseconds=1) * 1000
    if abs(injected_ns - parts.wall_ns()) > INJECTED_WITHIN_NS:
        raise BadInput("injected_at", body.injected_at.isoformat(), "a time of the last or next ten minutes")
    await parts.injected(node.host, body.what, injected_ns, caller.name)
    return _view(parts, node)


@router.get("/arming")
async def list_arming(caller: CurrentCaller, parts: Parts) -> RoomList:
    """Which rooms may act."""
    _must_be_administrator(caller)
    return RoomList(
        items=[RoomView(room=room, armed=armed) for room, armed in sorted(parts.arming.rooms.items())]
    )


@router.put("/arming/{room}")
async def arm(room: Name, body: Armed, caller: CurrentCaller, parts: Parts) -> RoomView:
    """Let a room act, or only observe."""
    _must_be_administrator(caller)
    await parts.arming.set(room, armed=body.armed, by=caller.name)
    return RoomView(room=room, armed=body.armed)


def _must_be_administrator(caller: Caller) -> None:
    if caller.role is not Role.ADMIN:
        raise NotAllowed("only an administrator may do this")


def _node(caller: Caller, parts: HostsApi, host: str) -> Node:
    _must_be_administrator(caller)
    node = parts.topology().nodes.get(HostId(host))
    if node is None:
        raise NotFound(f"there is no host {host!r}")
    return node


def _view(parts: HostsApi, node: Node) -> HostView:
    probed, doubt = parts.probed().get(node.host), parts.doubt()
    if probed is None:
        probe = "not probed"
    else:
        probe = "answers" if not probed.failures else f"failed {probed.failures} times: {probed.reason}"
    state = HostState.DOWN if node.down_ns is not None else HostState.UNKNOWN if doubt else HostState.UP
    return HostView(
        host=node.host,
        state=state,
        agent=shown_agent(parts.topology(), node),
        down_at=None if node.down_ns is None else iso(node.down_ns),
        probe=probe,
        doubt=parts.doubts().get(node.host, doubt),
        fenced=node.fenced,
        held=node.held,
        marked_at=None if node.marked_ns is None else iso(node.marked_ns),
        error_at=None if node.error_ns is None else iso(node.error_ns),
        acting=sorted(
            each.verb
            for each in parts.topology().actions.values()
            if each.about == node_subject(node.host) and each.outcome is None
        ),
    )
