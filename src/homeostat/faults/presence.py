"""From heartbeats to `agent_lost`: the node process is gone or silent, whatever its host does. Pure.

A node process that died and was started again before anybody missed it is told all the same: its new
incarnation without a goodbye is the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from homeostat.contracts.events.fleet import AgentLost, AgentReturned, HostJoined
from homeostat.contracts.nouns import INFRASTRUCTURE, FaultKind, HostId, ResourceState, Severity, node_subject
from homeostat.contracts.wire import Goodbye, Heartbeat
from homeostat.faults.decision import Decision, World
from homeostat.faults.inspection import Seen, clear, follow
from homeostat.fleet.model import AgentState, Node
from homeostat.kernel.journal import Draft, Local


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on the server's two clocks; `clear_after_s` is the setting, `base` the place in the entry."""

    wall_ns: int
    mono_ns: int
    clear_after_s: float
    base: int


def on_heartbeat(world: World, beat: Heartbeat, now: Moment) -> Decision:
    """Nothing, in almost every case: the node is as it was."""
    decision = Decision(now.base)
    node = world.topology.nodes.get(beat.host)
    if node is None:
        _join(decision, beat, now)
        return decision
    if node.incarnation == beat.incarnation:
        if node.agent is AgentState.LOST:
            _return(world, decision, (node, None), beat, now)
        return decision
    lost = None
    if node.agent is AgentState.PRESENT:
        reason = "the node process ended without a goodbye and was started again"
        lost = _lose(world, decision, node, reason, now)
    _return(world, decision, (node, lost), beat, now)
    return decision


def on_silence(world: World, host: HostId, silent_s: float, now: Moment) -> Decision:
    """A node that should speak has been silent for too long."""
    decision = Decision(now.base)
    node = world.topology.nodes[host]
    if node.agent is AgentState.PRESENT:
        _lose(world, decision, node, f"no heartbeat for {silent_s:.1f} s", now)
        decision.nodes.append(replace(node, agent=AgentState.LOST))
    return decision


def on_goodbye(world: World, goodbye: Goodbye, now: Moment) -> Decision:
    """The node process was asked to stop: not a fault, and the end of one."""
    decision = Decision(now.base)
    node = world.topology.nodes.get(goodbye.host)
    if node is None or node.incarnation != goodbye.incarnation or node.agent is AgentState.STOPPED:
        return decision
    decision.nodes.append(replace(node, agent=AgentState.STOPPED))
    follow(
        world, decision, now.clear_after_s, _seen(node, ResourceState.STOPPED, "it said goodbye", now, None)
    )
    return decision


def _join(decision: Decision, beat: Heartbeat, now: Moment) -> None:
    decision.nodes.append(
        Node(beat.host, beat.boot, beat.incarnation, 0, AgentState.PRESENT, joined_ns=now.wall_ns)
    )
    subject = node_subject(beat.host)
    decision.add(
        Draft(
            HostJoined(beat.host, beat.boot), subject, now.wall_ns, subject, f"{beat.host}/{beat.incarnation}"
        )
    )


def _lose(world: World, decision: Decision, node: Node, reason: str, now: Moment) -> Local:
    subject = node_subject(node.host)
    fault = world.faults.get(subject)
    if fault is not None and fault.kind is not FaultKind.AGENT_LOST and fault.up_ns is not None:
        clear(decision, fault, "its host is back; only its agent is lost", fault.up_ns)
    fault = decision.fault_about(subject, world)
    trace = _evidence(node, now) if fault is None else fault.trace
    cause = decision.add(Draft(AgentLost(node.host, reason), subject, now.wall_ns, "faults", trace))
    follow(world, decision, now.clear_after_s, _seen(node, ResourceState.DOWN, reason, now, cause))
    return cause


def _return(
    world: World, decision: Decision, lost: tuple[Node, Local | None], beat: Heartbeat, now: Moment
) -> None:
    """`lost` is the node as it was, and the loss when it was noticed only now."""
    node, noticed = lost
    subject = node_subject(node.host)
    fault = decision.fault_about(subject, world)
    event = AgentReturned(node.host, beat.incarnation)
    trace = f"{node.host}/{node.incarnation}" if fault is None else fault.trace
    # Never the fault's own event: a fault that went on over several losses has several returns, and the
    # second one of the same cause would be taken for a re-run.
    cause = decision.add(Draft(event, subject, now.wall_ns, subject, trace, noticed))
    decision.nodes.append(replace(node, incarnation=beat.incarnation, agent=AgentState.PRESENT))
    follow(world, decision, now.clear_after_s, _seen(node, ResourceState.UP, "it reports again", now, cause))


def _evidence(node: Node, now: Moment) -> str:
    """A process may fall silent, return and fall silent again: each time is another fault."""
    return f"{node.host}/{node.incarnation}/{now.wall_ns}"


def _seen(node: Node, state: ResourceState, reason: str, now: Moment, cause: Local | None) -> Seen:
    return Seen(
        about=node_subject(node.host),
        state=state,
        kind=FaultKind.AGENT_LOST,
        severity=Severity.MINOR,
        owner=INFRASTRUCTURE,
        reason=reason,
        at_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        server_ns=now.mono_ns,
        origin="faults",
        evidence=_evidence(node, now),
        cause=cause,
    )
