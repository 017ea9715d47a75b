"""The faults of hosts, of their node processes, and of guests that nobody looks after. Pure.

*Hosts.* A subject has one fault at a time, and the worse explanation wins: `host_down` ends an `agent_lost`
of the same host, and while it is open nothing on that host raises a fault of its own. A host is back when its
agent speaks again; probes that answer alone say nothing about what runs there.

*Node processes.* One that died and was started again before anybody missed it is a fault (`agent_lost`) all
the same: its new incarnation without a goodbye is the evidence.

*Guests.* What an earlier generation says, after a guest was assigned to another host, changes nothing. A
guest whose start takes too long, or that its living host is not configured for any more, makes no transition
that could be a fault: both are looked for from time to time, and its next report ends the fault.
"""

from __future__ import annotations

from dataclasses import replace

from homeostat.contracts.events import fleet
from homeostat.contracts.events.faults import FaultInjected
from homeostat.contracts.faults import Fault
from homeostat.contracts.nouns import (
    FLEET_SUBJECT,
    FaultKind,
    HostId,
    ResourceState,
    Severity,
    node_subject,
    resource_subject,
    witness_subject,
)
from homeostat.contracts.wire import Goodbye, Heartbeat
from homeostat.faults.guest_recovery import watch_guests
from homeostat.faults.inspection import update_fault
from homeostat.faults.lifecycle import Observed, new_fault, raise_fault, supersede_fault
from homeostat.faults.model import encode_affected, superseded
from homeostat.fleet.model import AgentState, Node, Resource, Topology
from homeostat.fleet.suspicion import Death
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.kernel.journal import EventIndex, NewEvent

ORIGIN = "faults"
DEAD_REASON = "its node process is silent and outside probes fail"
"""The reason of every fault of a dead host."""


def observed_dead(
    topology: Topology, host: HostId, death: Death, cause: EventIndex | None = None
) -> Observed:
    """What is wrong, and who suffers: everything that runs there. Also asked before anything happens."""
    node = topology.nodes[host]
    return Observed(
        about=node_subject(host),
        state=ResourceState.DOWN,
        kind=FaultKind.HOST_DOWN,
        severity=Severity.CRITICAL,
        reason=DEAD_REASON,  # projects read it, too: the evidence is in HostDown, for administrators
        at_ns=death.first_failed_ns,
        mono_ns=death.first_failed_mono_ns,
        before_mono_ns=death.good_mono_ns or None,
        server_ns=death.first_failed_mono_ns,
        evidence=f"{host}/{node.incarnation}/down/{death.first_failed_ns}",
        cause=cause,
        affected=topology.running(host, encode_affected),
    )


def on_host_down(world: IngestState, host: HostId, death: Death, now: Moment) -> Decision:
    """Both witnesses agree that this host is dead."""
    decision = Decision(now.base)
    node = world.topology.nodes[host]
    if node.down_ns is not None:
        return decision
    fault = world.faults.get(node_subject(host))
    seen = observed_dead(world.topology, host, death)
    goes_on = fault is not None and fault.kind is FaultKind.HOST_DOWN
    trace = fault.trace if fault is not None and goes_on else seen.evidence
    event = fleet.HostDown(host, death.reason, death.first_failed_ns)
    cause = decision.add(NewEvent(event, seen.about, now.wall_ns, ORIGIN, trace))
    lost = replace(node, agent=AgentState.LOST, down_ns=death.first_failed_ns)
    decision.nodes.append(unfenced(lost))
    world.reported.pop(host, None)
    seen = replace(seen, cause=cause, decided_ns=now.wall_ns)
    if goes_on:  # it would have been cleared by now if all had been right there
        assert fault is not None
        watch_guests(world, fault.id, host)
        update_fault(world, decision, now.clear_after_s, seen)
        return decision
    by = new_fault(seen, cause)
    watch_guests(world, by.id, host)
    smaller = tuple(superseded(host, world.topology.ids_on(host), world.faults))
    for each in smaller:
        supersede_fault(decision, each, by, now.wall_ns)
    ended, decision.tellings = decision.tellings, []
    raise_fault(decision, seen, world, follows=tuple(each.id for each in smaller))
    decision.tellings += ended  # told after what takes their place: between the two nothing looks right
    return decision


def on_host_back(world: IngestState, beat: Heartbeat, now: Moment) -> Decision:
    """The agent of a dead host speaks: the host lives, whoever started it. `clear_after_s` is the host's."""
    decision = Decision(now.base)
    node = world.topology.nodes[beat.host]
    fault = world.faults.get(node_subject(beat.host))
    again = beat.incarnation == node.incarnation
    reason = "the same agent speaks again" if again else "its agent was started again"
    trace = f"{beat.host}/{node.incarnation}" if fault is None else fault.trace
    event = fleet.HostBack(beat.host, reason, now.wall_ns)
    because = None if fault is None else fault.raised_seq
    cause = decision.add(NewEvent(event, node_subject(beat.host), now.wall_ns, ORIGIN, trace, because))
    world.reported.pop(beat.host, None)  # what its rows say is of before
    world.seen_ns.pop(beat.host, None)
    alive = replace(node, incarnation=beat.incarnation, agent=AgentState.PRESENT)
    decision.nodes.append(unfenced(replace(alive, down_ns=None)))
    up = observed_dead(world.topology, beat.host, Death(reason, now.wall_ns, now.mono_ns), cause)
    seen = replace(up, state=ResourceState.UP, before_mono_ns=world.failed_ns.get(beat.host))
    update_fault(world, decision, now.clear_after_s, seen)
    return decision


def on_evidence(world: IngestState, reason: str, now: Moment) -> Decision:
    """Nothing can be concluded any more (`reason`), or everything can again (empty)."""
    decision = Decision(now.base)
    fault = world.faults.get(FLEET_SUBJECT)
    if bool(reason) == (fault is not None and fault.up_ns is None):
        return decision
    event = fleet.EvidenceLost(reason, now.wall_ns) if reason else fleet.EvidenceBack(now.wall_ns)
    evidence = f"{FLEET_SUBJECT}/{now.wall_ns}"
    trace = evidence if fault is None else fault.trace
    cause = decision.add(NewEvent(event, FLEET_SUBJECT, now.wall_ns, ORIGIN, trace))
    seen = Observed(
        about=FLEET_SUBJECT,
        state=ResourceState.DOWN if reason else ResourceState.UP,
        kind=FaultKind.EVIDENCE_LOST,
        reason=reason or "the hosts can be judged again",
        at_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        server_ns=now.mono_ns,
        evidence=evidence,
        cause=cause,
    )
    update_fault(world, decision, now.clear_after_s, seen)
    return decision


def on_witness(world: IngestState, host: HostId, lost: str, now: Moment) -> Decision:
    """Outside probes do not reach a host whose agent speaks (`lost`), or they do again (empty)."""
    decision = Decision(now.base)
    about = witness_subject(host)
    fault = world.faults.get(about)
    if bool(lost) == (fault is not None and fault.up_ns is None):
        return decision
    seen = Observed(
        about=about,
        state=ResourceState.DOWN if lost else ResourceState.UP,
        kind=FaultKind.WITNESS_LOST,
        severity=Severity.MINOR,
        reason=lost or "outside probes reach it again",
        at_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        server_ns=now.mono_ns,
        origin=node_subject(host),
        evidence=f"{about}/{now.wall_ns}",
    )
    update_fault(world, decision, now.clear_after_s, seen)
    return decision


def on_hold(world: IngestState, host: HostId, asked: tuple[str, str], now: Moment) -> Decision:
    """`asked`: why no harm may be done to this host (empty: it may again), and by whom that is said."""
    decision = Decision(now.base)
    reason, by = asked
    node = world.topology.nodes[host]
    if node.held == reason:
        return decision
    about = node_subject(host)
    event = fleet.HostHeld(host, bool(reason), reason or "released", by)
    decision.add(NewEvent(event, about, now.wall_ns, "api", f"{about}/held/{now.wall_ns}"))
    decision.nodes.append(replace(node, held=reason))
    return decision


def on_injected(host: HostId, injected: tuple[str, int, str], now: Moment) -> Decision:
    """`injected`: what was broken on purpose, when on the injector's wall clock, and who says so."""
    decision = Decision(now.base)
    what, injected_ns, by = injected
    about = node_subject(host)
    event = FaultInjected(host, what, injected_ns, by)
    decision.add(NewEvent(event, about, injected_ns, "injector", f"{about}/injected/{injected_ns}"))
    return decision


def host_fault(world: IngestState, host: HostId) -> Fault | None:
    """The fault of a host that is down, None when there is none."""
    fault = world.faults.get(node_subject(host))
    return fault if fault is not None and fault.kind is FaultKind.HOST_DOWN else None


def unfenced(node: Node) -> Node:
    return replace(node, fenced="", fenced_seq=None, fenced_ns=None, vouched=False)


def on_heartbeat(world: IngestState, beat: Heartbeat, now: Moment) -> Decision:
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
        reason = "the node process ended without a clean shutdown and was started again"
        lost = _lose(world, decision, node, reason, now)
    _return(world, decision, (node, lost), beat, now)
    return decision


def on_silence(world: IngestState, host: HostId, silent_s: float, now: Moment) -> Decision:
    """A node that should speak has been silent for too long."""
    decision = Decision(now.base)
    node = world.topology.nodes[host]
    if node.agent is AgentState.PRESENT:
        _lose(world, decision, node, f"no heartbeat for {silent_s:.1f} s", now)
        decision.nodes.append(replace(node, agent=AgentState.LOST))
    return decision


def on_goodbye(world: IngestState, goodbye: Goodbye, now: Moment) -> Decision:
    """The node process was asked to stop: not a fault, and the end of one, but only of its own.

    A host that is down, or was a moment ago, is not explained by it.
    """
    decision = Decision(now.base)
    node = world.topology.nodes.get(goodbye.host)
    if node is None or node.incarnation != goodbye.incarnation or node.agent is AgentState.STOPPED:
        return decision
    if node.down_ns is not None:
        return decision  # it was on its way when the host died
    decision.nodes.append(replace(node, agent=AgentState.STOPPED))
    if host_fault(world, goodbye.host) is not None:
        return decision
    update_fault(
        world,
        decision,
        now.clear_after_s,
        _seen(node, ResourceState.STOPPED, "it was shut down cleanly", now, None),
    )
    return decision


def _join(decision: Decision, beat: Heartbeat, now: Moment) -> None:
    decision.nodes.append(
        Node(beat.host, beat.boot, beat.incarnation, 0, AgentState.PRESENT, joined_ns=now.wall_ns)
    )
    subject = node_subject(beat.host)
    decision.add(
        NewEvent(
            fleet.HostJoined(beat.host, beat.boot),
            subject,
            now.wall_ns,
            subject,
            f"{beat.host}/{beat.incarnation}",
        )
    )


def _lose(world: IngestState, decision: Decision, node: Node, reason: str, now: Moment) -> EventIndex:
    subject = node_subject(node.host)
    # The fault of a host that came back and was not heard to the end goes on: nobody knows what runs there.
    fault = world.faults.get(subject)
    trace = _evidence(node, now) if fault is None else fault.trace
    cause = decision.add(NewEvent(fleet.AgentLost(node.host, reason), subject, now.wall_ns, "faults", trace))
    seen = _seen(node, ResourceState.DOWN, reason, now, cause)
    life = world.lives.get(node.host)
    if life is not None:
        # Of a process that was started again before anybody missed it, the one before was heard last.
        heard_ns = life.last_ns if life.incarnation == node.incarnation else life.before_ns
        seen = replace(seen, before_mono_ns=heard_ns)
    update_fault(world, decision, now.clear_after_s, seen)
    return cause


def _return(
    world: IngestState, decision: Decision, lost: tuple[Node, EventIndex | None], beat: Heartbeat, now: Moment
) -> None:
    """`lost` is the node as it was, and the loss when it was noticed only now."""
    node, noticed = lost
    subject = node_subject(node.host)
    fault = decision.fault_about(subject, world)
    event = fleet.AgentReturned(node.host, beat.incarnation)
    trace = f"{node.host}/{node.incarnation}" if fault is None else fault.trace
    because = fault.raised_seq if noticed is None and fault is not None else noticed
    cause = decision.add(NewEvent(event, subject, now.wall_ns, subject, trace, because))
    world.reported.pop(beat.host, None)
    decision.nodes.append(replace(node, incarnation=beat.incarnation, agent=AgentState.PRESENT))
    seen = replace(
        _seen(node, ResourceState.UP, "it reports again", now, cause),
        before_mono_ns=_last_silent_ns(decision.fault_about(subject, world), now),
    )
    update_fault(world, decision, now.clear_after_s, seen)


def _last_silent_ns(fault: Fault | None, now: Moment) -> int | None:
    """The last moment at which an agent that speaks again was certainly silent: the same patience as at the
    beginning, since it may have come back between two heartbeats."""
    if fault is None or fault.raised_mono_ns is None or fault.good_mono_ns is None:
        return None
    return max(fault.raised_mono_ns, now.mono_ns - (fault.raised_mono_ns - fault.good_mono_ns))


def _evidence(node: Node, now: Moment) -> str:
    """A process may fall silent, return and fall silent again: each time is another fault."""
    return f"{node.host}/{node.incarnation}/{now.wall_ns}"


def _seen(node: Node, state: ResourceState, reason: str, now: Moment, cause: EventIndex | None) -> Observed:
    return Observed(
        about=node_subject(node.host),
        state=state,
        kind=FaultKind.AGENT_LOST,
        severity=Severity.MINOR,
        reason=reason,
        at_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        server_ns=now.mono_ns,
        evidence=_evidence(node, now),
        cause=cause,
    )


def on_guest_check(world: IngestState, start_deadline_s: float, now: Moment) -> Decision:
    """A fault for each guest that can move and is not looked after, though its host lives."""
    decision = Decision(now.base)
    for row in world.topology.resources.values():
        if not row.generation:
            continue
        late = _is_late(world, row, start_deadline_s, now.mono_ns)
        if resource_subject(row.id) in world.faults or not _may_be_judged(world, row):
            continue
        if row.id not in world.topology.offers.get(row.host, ()):
            why = f"{row.host} is not configured to run it any more ({row.reason})"
            _raise_unattended(world, decision, row, why, now)
        elif late:
            why = f"{row.host} has not started it within {start_deadline_s:g} s ({row.reason})"
            _raise_unattended(world, decision, row, why, now)
    return decision


def _may_be_judged(world: IngestState, row: Resource) -> bool:
    """Its host lives and has said what it could run; else the faults of the host or its agent tell of it."""
    node = world.topology.nodes.get(row.host)
    if node is None or node.down_ns is not None or node.agent is not AgentState.PRESENT:
        return False
    return row.host in world.topology.offered


def _is_late(world: IngestState, row: Resource, deadline_s: float, now_ns: int) -> bool:
    """Whether this start has been going on for too long; counted from when this server saw it first."""
    if row.state is not ResourceState.STARTING:
        world.starting.pop(row.id, None)
        return False
    generation, since_ns = world.starting.get(row.id, (0, 0))
    if generation != row.generation:
        world.starting[row.id] = (row.generation, now_ns)
        return False
    return now_ns - since_ns > deadline_s * 1e9


def _raise_unattended(world: IngestState, decision: Decision, row: Resource, why: str, now: Moment) -> None:
    seen = Observed(
        about=resource_subject(row.id),
        state=ResourceState.DOWN,
        kind=FaultKind.RESOURCE_DOWN,
        owner=row.owner,
        reason=why,
        at_ns=now.wall_ns,
        server_ns=now.mono_ns,
        origin=node_subject(row.host),
        evidence=f"{row.host}/{row.id}/{row.generation}/{now.wall_ns}",
    )
    raise_fault(decision, seen, world)
