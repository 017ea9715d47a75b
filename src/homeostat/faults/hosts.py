"""From evidence of a dead host to `host_down` with everybody affected, and back. Pure.

A subject has one fault at a time, and the worse explanation wins: `host_down` ends an `agent_lost` of the
same host, and while it is open nothing on that host raises a fault of its own. A host is back when its agent
speaks again; probes that answer alone say nothing about what runs there.
"""

from __future__ import annotations

from dataclasses import replace

from homeostat.contracts.events.faults import FaultInjected
from homeostat.contracts.events.fleet import (
    ActRefused,
    EvidenceBack,
    EvidenceLost,
    HostBack,
    HostDown,
    HostFenced,
    HostHeld,
)
from homeostat.contracts.events.resources import ActionFinished, ActionIntended
from homeostat.contracts.nouns import (
    FLEET_SUBJECT,
    GATE_SUBJECT,
    INFRASTRUCTURE,
    FaultKind,
    HostId,
    Mark,
    ResourceState,
    Severity,
    cloud_subject,
    node_subject,
)
from homeostat.contracts.wire import Heartbeat, Outcome
from homeostat.faults.affected import written
from homeostat.faults.decision import Decision, World
from homeostat.faults.inhibition import SUPERSEDED, superseded
from homeostat.faults.inspection import Seen, clear, follow
from homeostat.faults.model import Fault
from homeostat.faults.presence import Moment
from homeostat.fleet.fencing import Attempt, Ended
from homeostat.fleet.gate import Asked, Refusal
from homeostat.fleet.model import Action, AgentState, Node, Topology
from homeostat.fleet.suspicion import Death
from homeostat.kernel.journal import Draft, Local, Seq

ORIGIN = "faults"
FENCING = "fleet/fencing"
DEAD = "its agent is silent and it does not answer from outside"
"""The reason of every fault of a dead host."""
_MARKS = frozenset(mark.value for mark in Mark)


def seen_dead(topology: Topology, host: HostId, death: Death, cause: Local | None = None) -> Seen:
    """What is wrong, and who suffers: everything that runs there. Also asked before anything happens."""
    node = topology.nodes[host]
    return Seen(
        about=node_subject(host),
        state=ResourceState.DOWN,
        kind=FaultKind.HOST_DOWN,
        severity=Severity.CRITICAL,
        owner=INFRASTRUCTURE,
        reason=DEAD,  # projects read it, too: how the host is looked at is in HostDown, for administrators
        at_ns=death.first_failed_ns,
        mono_ns=death.first_failed_mono_ns,
        server_ns=death.first_failed_mono_ns,
        origin=ORIGIN,
        evidence=f"{host}/{node.incarnation}/down/{death.first_failed_ns}",
        cause=cause,
        affected=topology.running(host, written),
    )


def on_host_down(world: World, host: HostId, death: Death, now: Moment) -> Decision:
    """Both witnesses agree that this host is dead."""
    decision = Decision(now.base)
    node = world.topology.nodes[host]
    if node.down_ns is not None:
        return decision
    fault = world.faults.get(node_subject(host))
    for smaller in list(superseded(host, world.topology.ids_on(host), world.faults)):
        clear(decision, smaller, SUPERSEDED, now.wall_ns)
    seen = seen_dead(world.topology, host, death)
    trace = seen.evidence if fault is None or fault.kind is not FaultKind.HOST_DOWN else fault.trace
    event = HostDown(host, death.reason, death.first_failed_ns)
    cause = decision.add(Draft(event, seen.about, now.wall_ns, ORIGIN, trace))
    lost = replace(node, agent=AgentState.LOST, down_ns=death.first_failed_ns)
    decision.nodes.append(_unfenced(lost))
    follow(world, decision, now.clear_after_s, replace(seen, cause=cause, decided_ns=now.wall_ns))
    return decision


def on_host_back(world: World, beat: Heartbeat, now: Moment) -> Decision:
    """The agent of a dead host speaks: the host lives, whoever started it. `clear_after_s` is the host's."""
    decision = Decision(now.base)
    node = world.topology.nodes[beat.host]
    fault = world.faults.get(node_subject(beat.host))
    again = beat.incarnation == node.incarnation
    reason = "the same agent speaks again" if again else "its agent was started again"
    trace = f"{beat.host}/{node.incarnation}" if fault is None else fault.trace
    event = HostBack(beat.host, reason, now.wall_ns)
    # Not caused by the fault alone: it may come back more than once before the fault is cleared.
    cause = decision.add(Draft(event, node_subject(beat.host), now.wall_ns, ORIGIN, trace))
    alive = replace(node, incarnation=beat.incarnation, agent=AgentState.PRESENT)
    decision.nodes.append(_unfenced(replace(alive, down_ns=None)))
    up = seen_dead(world.topology, beat.host, Death(reason, now.wall_ns, now.mono_ns), cause)
    follow(world, decision, now.clear_after_s, replace(up, state=ResourceState.UP))
    return decision


def on_evidence(world: World, reason: str, now: Moment) -> Decision:
    """Nothing can be concluded any more (`reason`), or everything can again (empty)."""
    decision = Decision(now.base)
    fault = world.faults.get(FLEET_SUBJECT)
    if bool(reason) == (fault is not None and fault.up_ns is None):
        return decision
    event = EvidenceLost(reason, now.wall_ns) if reason else EvidenceBack(now.wall_ns)
    evidence = f"{FLEET_SUBJECT}/{now.wall_ns}"
    trace = evidence if fault is None else fault.trace
    cause = decision.add(Draft(event, FLEET_SUBJECT, now.wall_ns, ORIGIN, trace))
    seen = Seen(
        about=FLEET_SUBJECT,
        state=ResourceState.DOWN if reason else ResourceState.UP,
        kind=FaultKind.EVIDENCE_LOST,
        severity=Severity.MAJOR,
        owner=INFRASTRUCTURE,
        reason=reason or "the hosts can be judged again",
        at_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        server_ns=now.mono_ns,
        origin=ORIGIN,
        evidence=evidence,
        cause=cause,
    )
    follow(world, decision, now.clear_after_s, seen)
    return decision


def on_acts_stopped(world: World, reason: str, now: Moment) -> Decision:
    """Too many hosts died at once to go on without a person (`reason`), or that is over (empty)."""
    decision = Decision(now.base)
    fault = world.faults.get(GATE_SUBJECT)
    if bool(reason) == (fault is not None and fault.up_ns is None):
        return decision
    seen = Seen(
        about=GATE_SUBJECT,
        state=ResourceState.DOWN if reason else ResourceState.UP,
        kind=FaultKind.ACTS_STOPPED,
        severity=Severity.MAJOR,
        owner=INFRASTRUCTURE,
        reason=reason or "the storm stops nothing any more",
        at_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        server_ns=now.mono_ns,
        origin=ORIGIN,
        evidence=f"{GATE_SUBJECT}/{now.wall_ns}",
        cause=None,
    )
    follow(world, decision, now.clear_after_s, seen)
    return decision


def on_refusal(world: World, asked: Asked, refusal: Refusal, cause: Seq | None, now: Moment) -> Decision:
    """The gate said no."""
    decision = Decision(now.base)
    # The same death may be the cause of both: two subjects keep the two refusals apart.
    about = cloud_subject(asked.host) if asked.act in _MARKS else node_subject(asked.host)
    event = ActRefused(asked.room, asked.act, refusal.why.name.lower(), refusal.sentence)
    decision.add(Draft(event, about, now.wall_ns, "fleet/gate", _trace(world, asked.host), cause))
    return decision


def on_fence_intended(world: World, attempt: Attempt, cause: Seq | None, now: Moment) -> Decision:
    """Somebody is about to make sure that nothing runs on a dead host."""
    decision = Decision(now.base)
    about = node_subject(attempt.host)
    event = ActionIntended(attempt.action, "fence", FENCING, attempt.deadline_s, attempt.reason)
    trace = _trace(world, attempt.host)
    seq = decision.add(Draft(event, about, now.wall_ns, FENCING, trace, cause))
    decision.intended.append(
        Action(attempt.action, "fence", about, FENCING, attempt.deadline_s, seq, now.wall_ns, trace)
    )
    return decision


def on_fence_ended(world: World, host: HostId, ended: Ended, now: Moment) -> Decision:
    """It is done, it failed, or nobody knows. Only a receipt makes the host fenced."""
    decision = Decision(now.base)
    about, trace = node_subject(host), _trace(world, host)
    cause: Seq | Local | None = None
    action = world.topology.actions.get(ended.action)
    if action is not None:
        event = ActionFinished(ended.action, ended.outcome.value, ended.took_ms, ended.said)
        cause = decision.add(Draft(event, about, now.wall_ns, FENCING, trace, action.intended_seq))
        decision.finished.append(replace(action, outcome=ended.outcome.value, took_ms=ended.took_ms))
    # The host may have come back and died again meanwhile: then nothing is known of what runs there now.
    same_death = ended.died_ns in (None, world.topology.nodes[host].down_ns)
    if ended.outcome is Outcome.OK and same_death:
        _fenced(world, decision, host, (ended.driver, ended.said, cause, False), now)
    return decision


def on_fenced(world: World, host: HostId, receipt: tuple[str, str], now: Moment) -> Decision:
    """A person gives the receipt, also of a host that a driver has fenced. `receipt`: who, and what."""
    decision = Decision(now.base)
    _fenced(world, decision, host, (*receipt, None, True), now)
    return decision


def on_hold(world: World, host: HostId, asked: tuple[str, str], now: Moment) -> Decision:
    """`asked`: why no harm may be done to this host (empty: it may again), and by whom that is said."""
    decision = Decision(now.base)
    reason, by = asked
    node = world.topology.nodes[host]
    if node.held == reason:
        return decision
    about = node_subject(host)
    event = HostHeld(host, bool(reason), reason or "released", by)
    decision.add(Draft(event, about, now.wall_ns, "api", f"{about}/held/{now.wall_ns}"))
    decision.nodes.append(replace(node, held=reason))
    return decision


def on_injected(host: HostId, injected: tuple[str, int, str], now: Moment) -> Decision:
    """`injected`: what was broken on purpose, when on the injector's wall clock, and who says so."""
    decision = Decision(now.base)
    what, injected_ns, by = injected
    about = node_subject(host)
    event = FaultInjected(host, what, injected_ns, by)
    decision.add(Draft(event, about, injected_ns, "injector", f"{about}/injected/{injected_ns}"))
    return decision


def host_fault(world: World, host: HostId) -> Fault | None:
    """The fault of a host that is down, None when there is none."""
    fault = world.faults.get(node_subject(host))
    return fault if fault is not None and fault.kind is FaultKind.HOST_DOWN else None


def _fenced(
    world: World,
    decision: Decision,
    host: HostId,
    receipt: tuple[str, str, Seq | Local | None, bool],
    now: Moment,
) -> None:
    driver, said, cause, vouched = receipt
    node = world.topology.nodes[host]
    if node.down_ns is None or (node.fenced and (node.vouched or not vouched)):
        return
    event = HostFenced(host, driver, said)
    seq = decision.add(Draft(event, node_subject(host), now.wall_ns, FENCING, _trace(world, host), cause))
    # What one receipt let begin goes on: when it came first counts.
    fenced_ns = now.wall_ns if node.fenced_ns is None else node.fenced_ns
    decision.nodes.append(replace(node, fenced=said, fenced_seq=seq, fenced_ns=fenced_ns, vouched=vouched))


def _unfenced(node: Node) -> Node:
    return replace(node, fenced="", fenced_seq=None, fenced_ns=None, vouched=False)


def _trace(world: World, host: HostId) -> str:
    fault = host_fault(world, host)
    return node_subject(host) if fault is None else fault.trace
