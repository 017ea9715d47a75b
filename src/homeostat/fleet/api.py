"""The HTTP API of the fleet: /api/v1/nodes, /api/v1/hosts (fencing receipts, holds, injections),
/api/v1/arming.

Hosts and nodes belong to `infrastructure`, so only administrators read and change them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import AwareDatetime, BaseModel, Field

from homeostat.contracts.health import HealthSource, ServerHealth
from homeostat.contracts.nouns import INFRASTRUCTURE, HostId, node_subject
from homeostat.fleet.gate import Arming, component_armed_name
from homeostat.fleet.model import AgentState, Node, Topology
from homeostat.fleet.suspicion import Probed
from homeostat.kernel.access import Caller, Role
from homeostat.kernel.clock import iso
from homeostat.kernel.errors import BadInput, Conflict, NotAllowed, NotFound
from homeostat.kernel.http import ERRORS, CurrentCaller, StrictBody, state_part, view_from


class ShownAgent(StrEnum):
    """What is known of a node process; `unknown` while it is not heard and nobody can say more."""

    PRESENT = "present"
    LOST = "lost"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


def shown_agent(topology: Topology, node: Node, health: ServerHealth) -> ShownAgent:
    """As people see it. Derived: the row says what was last concluded."""
    if node.agent is AgentState.PRESENT and (health.impairments or node.host in topology.unheard):
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
"""The topology in the write path's memory: `app.state.topology` is a function that returns it."""


def _health(request: Request) -> ServerHealth:
    source: HealthSource = request.app.state.health
    return source()


CurrentHealth = Annotated[ServerHealth, Depends(_health)]
"""What is wrong with this server now: `app.state.health` is a function that returns it."""

nodes_router = APIRouter(prefix="/api/v1/nodes", tags=["nodes"], responses=ERRORS)


@nodes_router.get("")
async def list_nodes(caller: CurrentCaller, topology: CurrentTopology, health: CurrentHealth) -> NodeList:
    """All nodes, or none when they are not yours to read."""
    if not caller.may_read(INFRASTRUCTURE):
        return NodeList(items=[])
    nodes = sorted(topology.nodes.items())
    return NodeList(items=[_node_view(topology, node, caller, health) for _, node in nodes])


@nodes_router.get("/{host}")
async def show_node(
    host: str, caller: CurrentCaller, topology: CurrentTopology, health: CurrentHealth
) -> NodeView:
    """One node and the resources on it."""
    node = topology.nodes.get(HostId(host))
    if node is None or not caller.may_read(INFRASTRUCTURE):
        raise NotFound(f"there is no node {host!r}, or it is not yours to read")
    return _node_view(topology, node, caller, health)


def _node_view(topology: Topology, node: Node, caller: Caller, health: ServerHealth) -> NodeView:
    return view_from(
        NodeView,
        node,
        agent=shown_agent(topology, node, health),
        resources=sorted(row.id for row in topology.on_host(node.host) if caller.may_read(row.owner)),
        observations=node.acked_seq,
        joined_at=iso(node.joined_ns),
    )


INJECTED_WITHIN_NS = 600 * 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class HostState(StrEnum):
    """What is known of a host. `unknown` while nothing can be concluded, or nothing is seen of it."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class HostRecords:
    """Writes what people say of a host into the journal.

    `fenced` takes host, driver and receipt; `hold` host, reason (empty: release) and who said so; `injected`
    host, what was done to it, when (wall clock, ns) and by whom; `confirmed` host, guest and who confirms
    that it is there, as its node claims; `removed` host and who removes it.
    """

    fenced: Callable[[HostId, str, str], Awaitable[object]]
    hold: Callable[[HostId, str, str], Awaitable[object]]
    injected: Callable[[HostId, str, int, str], Awaitable[object]]
    confirmed: Callable[[HostId, str, str], Awaitable[object]]
    removed: Callable[[HostId, str], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class HostsApi:
    """The state of the routes: `app.state.hosts`. `health` concerns all hosts, `doubts` single ones; `alone`
    is the witness that is left, and its patience. `answers`: an outside probe was answered a moment ago."""

    topology: Callable[[], Topology]
    probed: Callable[[], Mapping[HostId, Probed]]
    answers: Callable[[HostId], bool]
    health: HealthSource
    doubts: Callable[[], Mapping[HostId, str]]
    alone: Callable[[], Mapping[HostId, str]]
    records: HostRecords
    wall_ns: Callable[[], int]
    arming: Arming


class HostView(BaseModel):
    """A host. `probe` is what outside probes say, `fenced` the receipt, `held` why it is spared.

    `marked_at` is since when its cloud shows it as down, `error_at` since when what runs there is in error,
    `acting` what is being done to the host and has not ended: a fence. `store` is why its node cannot write
    its observation store, mostly since its disk is full; empty while it can. `witness`: both, or which of its
    agent and its probes is left and for how long that one must be silent before the host counts as down.
    `cpus` (logical processors), `memory_mb` (MiB), `disk_gb` (GiB of the file system of its node's state) and
    `architecture` are the machine's, null before its node has said them. Hosts of a lab share one machine.
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
    witness: str
    acting: list[str]
    store: str
    cpus: int | None
    memory_mb: int | None
    disk_gb: int | None
    architecture: str | None


class HostList(BaseModel):
    """All hosts, by name; none for who may not read them."""

    items: list[HostView]


class FenceReceipt(StrictBody):
    """A person's word that nothing runs on the host."""

    receipt: str = Field(min_length=1, max_length=500)


class Hold(StrictBody):
    """Whether no harm may be done to the host."""

    held: bool
    reason: str = Field(default="a person asked", min_length=1, max_length=500)


class Injection(StrictBody):
    """A fault that was made on purpose. Only a stamp: nothing is concluded from it."""

    what: str = Field(min_length=1, max_length=100)
    injected_at: AwareDatetime


class ArmingRequest(StrictBody):
    """Whether the component may act."""

    armed: bool


class ComponentArming(BaseModel):
    """A component that takes disruptive actions when armed."""

    component: str
    armed: bool


class ComponentArmingList(BaseModel):
    """All of them."""

    items: list[ComponentArming]


CurrentHosts = Annotated[HostsApi, state_part("hosts")]
Name = Annotated[str, Path(max_length=63)]
Guest = Annotated[str, Path(max_length=100)]
hosts_router = APIRouter(prefix="/api/v1", tags=["hosts"], responses=ERRORS)


@hosts_router.get("/hosts")
async def list_hosts(caller: CurrentCaller, parts: CurrentHosts) -> HostList:
    """All hosts, or none when they are not yours to read."""
    if not caller.may_read(INFRASTRUCTURE):
        return HostList(items=[])
    nodes = sorted(parts.topology().nodes.items())
    return HostList(items=[host_view(parts, node) for _, node in nodes])


@hosts_router.get("/hosts/{host}")
async def show_host(host: Name, caller: CurrentCaller, parts: CurrentHosts) -> HostView:
    """One host, and what its machine has."""
    node = parts.topology().nodes.get(HostId(host))
    if node is None or not caller.may_read(INFRASTRUCTURE):
        raise NotFound(f"there is no host {host!r}, or it is not yours to read")
    return host_view(parts, node)


@hosts_router.post("/hosts/{host}/fenced")
async def host_fenced(host: Name, body: FenceReceipt, caller: CurrentCaller, parts: CurrentHosts) -> HostView:
    """Give the receipt that nothing runs on a dead host. Its guests may start elsewhere from then on."""
    node = _node(caller, parts, host)
    if node.down_ns is None:
        raise Conflict("host", host, "it is not down; only a host that is down can be confirmed")
    await parts.records.fenced(node.host, f"manual, {caller.name}", body.receipt)
    return host_view(parts, _node(caller, parts, host))


@hosts_router.put("/hosts/{host}/hold")
async def hold_host(host: Name, body: Hold, caller: CurrentCaller, parts: CurrentHosts) -> HostView:
    """Hold a host: it is not fenced, and its guests are not started elsewhere; or release it."""
    node = _node(caller, parts, host)
    await parts.records.hold(node.host, body.reason if body.held else "", caller.name)
    return host_view(parts, _node(caller, parts, host))


@hosts_router.post("/hosts/{host}/claims/{guest}")
async def confirm_claim(host: Name, guest: Guest, caller: CurrentCaller, parts: CurrentHosts) -> HostView:
    """Confirm that a guest is on this host, as its node claims and the rows do not say: after a restore of an
    older database. The host that the rows name stops it."""
    node = _node(caller, parts, host)
    await parts.records.confirmed(node.host, guest, caller.name)
    return host_view(parts, _node(caller, parts, host))


@hosts_router.delete("/hosts/{host}", status_code=204)
async def forget_host(host: Name, caller: CurrentCaller, parts: CurrentHosts) -> None:
    """Remove a host for good. Refused while it lives or guests are assigned to it; it joins anew if its node
    speaks again."""
    node = _node(caller, parts, host)
    await parts.records.removed(node.host, caller.name)


@hosts_router.post("/hosts/{host}/injections")
async def host_injected(host: Name, body: Injection, caller: CurrentCaller, parts: CurrentHosts) -> HostView:
    """Say when a host was broken on purpose, for the timeline of its fault. It is detected all the same."""
    node = _node(caller, parts, host)
    injected_ns = (body.injected_at - EPOCH) // timedelta(microseconds=1) * 1000
    if abs(injected_ns - parts.wall_ns()) > INJECTED_WITHIN_NS:
        raise BadInput("injected_at", body.injected_at.isoformat(), "a time of the last or next ten minutes")
    await parts.records.injected(node.host, body.what, injected_ns, caller.name)
    return host_view(parts, node)


@hosts_router.get("/arming")
async def list_arming(caller: CurrentCaller, parts: CurrentHosts) -> ComponentArmingList:
    """The components that can be armed, and which are."""
    _must_be_administrator(caller)
    found = sorted(parts.arming.components.items())
    return ComponentArmingList(items=[ComponentArming(component=name, armed=armed) for name, armed in found])


@hosts_router.put("/arming/{component}")
async def arm(
    component: Name, body: ArmingRequest, caller: CurrentCaller, parts: CurrentHosts
) -> ComponentArming:
    """Let a component act, or only observe."""
    _must_be_administrator(caller)
    await parts.arming.set(component, armed=body.armed, by=caller.name)
    return ComponentArming(component=component_armed_name(component), armed=body.armed)


def _must_be_administrator(caller: Caller) -> None:
    if caller.role is not Role.ADMIN:
        raise NotAllowed("only an administrator may do this")


def _node(caller: Caller, parts: HostsApi, host: str) -> Node:
    _must_be_administrator(caller)
    node = parts.topology().nodes.get(HostId(host))
    if node is None:
        raise NotFound(f"there is no host {host!r}")
    return node


def shown_host(topology: Topology, node: Node, answers: bool, health: ServerHealth) -> tuple[HostState, str]:
    """As people see it, and why no more is known. Derived: a host is up only while its agent speaks or
    outside probes are answered, as `answers` says."""
    seen = answers or shown_agent(topology, node, health) is ShownAgent.PRESENT
    doubt = health.reason or ("" if seen else "nothing is heard of it, and no outside probe answers")
    if node.down_ns is not None:
        return HostState.DOWN, doubt
    return HostState.UNKNOWN if doubt else HostState.UP, doubt


def _witness(parts: HostsApi, node: Node, agent: ShownAgent, *, is_probed: bool) -> str:
    """Both only while both speak: of one that has failed just now nobody knows yet."""
    if node.down_ns is not None:
        return ""
    if parts.health().impairments:
        return "unknown"
    if alone := parts.alone().get(node.host):
        return alone
    if not is_probed:
        return "agent alone, not probed"
    return "both" if agent is ShownAgent.PRESENT and parts.answers(node.host) else "unknown"


def host_view(parts: HostsApi, node: Node) -> HostView:
    """As the API shows it."""
    probed, health, topology = parts.probed().get(node.host), parts.health(), parts.topology()
    answers, agent = parts.answers(node.host), shown_agent(topology, node, health)
    if probed is None:
        probe = "not probed"
    elif probed.failures:
        probe = f"failed {probed.failures} times: {probed.reason}"
    else:
        probe = "answers" if answers else "answered, but not lately"
    state, doubt = shown_host(topology, node, answers, health)
    return view_from(
        HostView,
        node,
        state=state,
        agent=agent,
        down_at=None if node.down_ns is None else iso(node.down_ns),
        probe=probe,
        doubt=parts.doubts().get(node.host, doubt),
        witness=_witness(parts, node, agent, is_probed=probed is not None),
        marked_at=None if node.marked_ns is None else iso(node.marked_ns),
        error_at=None if node.error_ns is None else iso(node.error_ns),
        store=parts.topology().full.get(node.host, ""),
        acting=sorted(
            each.verb
            for each in topology.actions.values()
            if each.about == node_subject(node.host) and each.outcome is None
        ),
    )
