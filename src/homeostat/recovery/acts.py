"""Acts on a dead host as events and rows: refusals, fencing, receipts, marks at the cloud. Pure.

Every act is caused by the death that it is about, its outcome by its intent, a receipt by the outcome that
brought it. Marks are level-triggered: what is due follows from the host's row alone, so a repeated look, a
restart or a host that dies again in between need no memory. A host is marked before its guests are, and both
are undone when the host is back: the host at once, what runs there when its fault is over, since until then
nobody has seen how it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from homeostat.contracts import nouns
from homeostat.contracts.events.fleet import ActRefused, HostFenced, HostMarked
from homeostat.contracts.wire import Intent, Outcome
from homeostat.faults.hosts import host_fault
from homeostat.faults.inspection import update_fault
from homeostat.faults.lifecycle import Observed
from homeostat.fleet.fencing import FenceAttempt, FenceOutcome
from homeostat.fleet.gate import GateRefusal, GateRequest
from homeostat.fleet.model import Action, Node
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.kernel.journal import EventIndex, NewEvent, Seq

COMPONENT = "recovery"
"""The name at the gate, for `homeostat arm`."""
FENCING = "fleet/fencing"
_MARKS = frozenset(mark.value for mark in nouns.Mark)


def on_acts_stopped(world: IngestState, reason: str, now: Moment) -> Decision:
    """Too many hosts died at once to go on without a person (`reason`), or that is over (empty)."""
    decision = Decision(now.base)
    fault = world.faults.get(nouns.GATE_SUBJECT)
    if bool(reason) == (fault is not None and fault.up_ns is None):
        return decision
    seen = Observed(
        about=nouns.GATE_SUBJECT,
        state=nouns.ResourceState.DOWN if reason else nouns.ResourceState.UP,
        kind=nouns.FaultKind.ACTS_STOPPED,
        reason=reason or "the storm stops nothing any more",
        at_ns=now.wall_ns,
        mono_ns=now.mono_ns,
        server_ns=now.mono_ns,
        evidence=f"{nouns.GATE_SUBJECT}/{now.wall_ns}",
    )
    update_fault(world, decision, now.clear_after_s, seen)
    return decision


def on_refusal(world: IngestState, asked: GateRequest, refusal: GateRefusal, now: Moment) -> Decision:
    decision = Decision(now.base)
    about = nouns.cloud_subject(asked.host) if asked.act in _MARKS else nouns.node_subject(asked.host)
    event = ActRefused(asked.component, asked.act, refusal.why.name.lower(), refusal.sentence)
    decision.add(NewEvent(event, about, now.wall_ns, "fleet/gate", *_death(world, asked.host)))
    return decision


def on_fence_intended(world: IngestState, attempt: FenceAttempt, now: Moment) -> Decision:
    """Somebody is about to make sure that nothing runs on a dead host."""
    decision = Decision(now.base)
    about = nouns.node_subject(attempt.host)
    intent = Intent(attempt.action, "fence", attempt.deadline_s, attempt.reason)
    decision.intend(intent, (about, now.wall_ns, FENCING, *_death(world, attempt.host)))
    return decision


def on_fence_ended(world: IngestState, host: nouns.HostId, ended: FenceOutcome, now: Moment) -> Decision:
    """It is done, it failed, or nobody knows. Only a receipt makes the host fenced."""
    decision = Decision(now.base)
    cause: Seq | EventIndex | None = None
    action = world.topology.actions.get(ended.action)
    if action is not None:
        place = (now.wall_ns, FENCING, trace_of(world, host))
        cause = decision.finish(action, ended.outcome, ended.took_ms, ended.said, place)
    # The host may have come back and died again meanwhile: then nothing is known of what runs there now.
    same_death = ended.died_ns in (None, world.topology.nodes[host].down_ns)
    if ended.outcome is Outcome.OK and same_death:
        _fenced(world, decision, host, (ended.driver, ended.said, cause, False), now)
    return decision


def on_fenced(world: IngestState, host: nouns.HostId, receipt: tuple[str, str], now: Moment) -> Decision:
    """A person gives the receipt, also of a host that a driver has fenced. `receipt`: who, and what."""
    decision = Decision(now.base)
    _fenced(world, decision, host, (*receipt, None, True), now)
    return decision


def _fenced(
    world: IngestState,
    decision: Decision,
    host: nouns.HostId,
    receipt: tuple[str, str, Seq | EventIndex | None, bool],
    now: Moment,
) -> None:
    driver, said, cause, vouched = receipt
    node = world.topology.nodes[host]
    if node.down_ns is None or (node.fenced and (node.vouched or not vouched)):
        return
    event = HostFenced(host, driver, said)
    seq = decision.add(
        NewEvent(event, nouns.node_subject(host), now.wall_ns, FENCING, trace_of(world, host), cause)
    )
    # What one receipt let begin goes on: when it came first counts.
    fenced_ns = now.wall_ns if node.fenced_ns is None else node.fenced_ns
    decision.nodes.append(replace(node, fenced=said, fenced_seq=seq, fenced_ns=fenced_ns, vouched=vouched))


def trace_of(world: IngestState, host: nouns.HostId) -> str:
    """The story that an act about this host belongs to now."""
    return _death(world, host)[0]


def _death(world: IngestState, host: nouns.HostId) -> tuple[str, Seq | EventIndex | None]:
    """The trace of what is done about a host, and its cause: its death, None while it lives."""
    fault = host_fault(world, host)
    return (nouns.node_subject(host), None) if fault is None else (fault.trace, fault.raised_seq)


MARKING = "recovery/marking"
MARKING_OWNERS = frozenset({MARKING, "faults/marking"})
"""The second one until version 0.1: an act that such a server left open is closed like any other."""
REASONS = {
    nouns.Mark.MARK_DOWN: "the host is down; nothing may be started there",
    nouns.Mark.SET_ERROR: "its host is down; so is what ran there",
    nouns.Mark.MARK_UP: "the host is back",
    nouns.Mark.CLEAR_ERROR: "the fault of its host is over; it is seen as it is",
}


@dataclass(frozen=True, slots=True)
class MarkAct:
    """An act at a cloud. `action` is unique for ever; `trace` is the story that it belongs to."""

    host: nouns.HostId
    mark: nouns.Mark
    action: str
    deadline_s: float
    trace: str


def due(world: IngestState, host: nouns.HostId) -> nouns.Mark | None:
    """What the cloud has to be told of this host now."""
    node = world.topology.nodes.get(host)
    if node is None:
        return None
    if node.down_ns is not None:
        if node.marked_ns is None:
            return nouns.Mark.MARK_DOWN
        return nouns.Mark.SET_ERROR if node.error_ns is None else None
    if node.marked_ns is not None:
        return nouns.Mark.MARK_UP
    return nouns.Mark.CLEAR_ERROR if node.error_ns is not None and host_fault(world, host) is None else None


def on_mark_intended(act: MarkAct, cause: Seq | EventIndex | None, now: Moment) -> Decision:
    """A cloud is about to be told."""
    decision = Decision(now.base)
    intent = Intent(act.action, act.mark.value, act.deadline_s, REASONS[act.mark])
    decision.intend(intent, (nouns.cloud_subject(act.host), now.wall_ns, MARKING, act.trace, cause))
    return decision


def on_marked(world: IngestState, host: nouns.HostId, done: tuple[nouns.Mark, str], now: Moment) -> Decision:
    """A cloud shows it. `done`: what, and which cloud."""
    decision = Decision(now.base)
    mark, cloud = done
    node = world.topology.nodes[host]
    after = marked(node, mark, now.wall_ns)
    if after == node:
        return decision
    act = open_act(world, host, mark)
    cause: Seq | EventIndex | None = None if act is None else act.intended_seq
    trace = trace_of(world, host) if act is None else act.trace
    event = HostMarked(host, mark, cloud)
    decision.add(NewEvent(event, nouns.cloud_subject(host), now.wall_ns, f"clouds/{cloud}", trace, cause))
    decision.nodes.append(after)
    return decision


def on_mark_ended(
    world: IngestState, action: str, ended: tuple[Outcome, float, str], now: Moment
) -> Decision:
    """`ended`: how, after how many milliseconds, and what was said."""
    decision = Decision(now.base)
    outcome, took_ms, said = ended
    act = world.topology.actions.get(action)
    if act is None:
        return decision
    decision.finish(act, outcome, took_ms, said, (now.wall_ns, MARKING, act.trace))
    return decision


def marked(node: Node, mark: nouns.Mark, at_ns: int) -> Node:
    match mark:
        case nouns.Mark.MARK_DOWN:
            return replace(node, marked_ns=at_ns if node.marked_ns is None else node.marked_ns)
        case nouns.Mark.SET_ERROR:
            return replace(node, error_ns=at_ns if node.error_ns is None else node.error_ns)
        case nouns.Mark.MARK_UP:
            return replace(node, marked_ns=None)
        case nouns.Mark.CLEAR_ERROR:
            return replace(node, error_ns=None)


def open_act(world: IngestState, host: nouns.HostId, mark: nouns.Mark) -> Action | None:
    acts = world.topology.actions.values()
    about = nouns.cloud_subject(host)
    return next((act for act in acts if (act.about, act.verb) == (about, mark.value)), None)
