"""What a cloud has to be told of a host, and what that changes in the journal and in the rows. Pure.

Level-triggered: what is due follows from the host's row alone, so a repeated look, a restart or a host that
dies again in between need no memory. A host is marked before its guests are, and both are taken back when
the host is back: the host at once, what runs there when its fault is over, since until then nobody has seen
how it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from homeostat.contracts.events.fleet import HostMarked
from homeostat.contracts.events.resources import ActionFinished, ActionIntended
from homeostat.contracts.nouns import HostId, Mark, cloud_subject, node_subject
from homeostat.contracts.wire import Outcome
from homeostat.faults.decision import Decision, World
from homeostat.faults.hosts import host_fault
from homeostat.faults.presence import Moment
from homeostat.fleet.model import Action, Node
from homeostat.kernel.journal import Draft, Local, Seq

MARKING = "faults/marking"
REASONS = {
    Mark.MARK_DOWN: "the host is down; nothing may be started there",
    Mark.SET_ERROR: "its host is down; so is what ran there",
    Mark.MARK_UP: "the host is back",
    Mark.CLEAR_ERROR: "the fault of its host is over; it is seen as it is",
}


@dataclass(frozen=True, slots=True)
class MarkAct:
    """An act at a cloud. `action` is unique for ever; `trace` is the story that it belongs to."""

    host: HostId
    mark: Mark
    action: str
    deadline_s: float
    trace: str


def due(world: World, host: HostId) -> Mark | None:
    """What the cloud has to be told of this host now."""
    node = world.topology.nodes[host]
    if node.down_ns is not None:
        if node.marked_ns is None:
            return Mark.MARK_DOWN
        return Mark.SET_ERROR if node.error_ns is None else None
    if node.marked_ns is not None:
        return Mark.MARK_UP
    return Mark.CLEAR_ERROR if node.error_ns is not None and host_fault(world, host) is None else None


def trace_of(world: World, host: HostId) -> str:
    """The story that an act about this host belongs to now."""
    fault = host_fault(world, host)
    return node_subject(host) if fault is None else fault.trace


def on_mark_intended(act: MarkAct, cause: Seq | None, now: Moment) -> Decision:
    """A cloud is about to be told."""
    decision = Decision(now.base)
    about = cloud_subject(act.host)
    event = ActionIntended(act.action, act.mark.value, MARKING, act.deadline_s, REASONS[act.mark])
    seq = decision.add(Draft(event, about, now.wall_ns, MARKING, act.trace, cause))
    decision.intended.append(
        Action(act.action, act.mark.value, about, MARKING, act.deadline_s, seq, now.wall_ns, act.trace)
    )
    return decision


def on_marked(world: World, host: HostId, done: tuple[Mark, str], now: Moment) -> Decision:
    """A cloud shows it. `done`: what, and which cloud."""
    decision = Decision(now.base)
    mark, cloud = done
    node = world.topology.nodes[host]
    after = marked(node, mark, now.wall_ns)
    if after == node:
        return decision
    act = open_act(world, host, mark)
    cause: Seq | Local | None = None if act is None else act.intended_seq
    trace = trace_of(world, host) if act is None else act.trace
    event = HostMarked(host, mark, cloud)
    decision.add(Draft(event, cloud_subject(host), now.wall_ns, f"clouds/{cloud}", trace, cause))
    decision.nodes.append(after)
    return decision


def on_mark_ended(world: World, action: str, ended: tuple[Outcome, float, str], now: Moment) -> Decision:
    """`ended`: how, after how many milliseconds, and what was said."""
    decision = Decision(now.base)
    outcome, took_ms, said = ended
    act = world.topology.actions.get(action)
    if act is None:
        return decision
    event = ActionFinished(action, outcome.value, took_ms, said)
    decision.add(Draft(event, act.about, now.wall_ns, MARKING, act.trace, act.intended_seq))
    decision.finished.append(replace(act, outcome=outcome.value, took_ms=took_ms))
    return decision


def marked(node: Node, mark: Mark, at_ns: int) -> Node:
    """The row of a host of which a cloud was told this."""
    match mark:
        case Mark.MARK_DOWN:
            return replace(node, marked_ns=at_ns if node.marked_ns is None else node.marked_ns)
        case Mark.SET_ERROR:
            return replace(node, error_ns=at_ns if node.error_ns is None else node.error_ns)
        case Mark.MARK_UP:
            return replace(node, marked_ns=None)
        case Mark.CLEAR_ERROR:
            return replace(node, error_ns=None)


def open_act(world: World, host: HostId, mark: Mark) -> Action | None:
    """The act at the cloud that was intended and did not end yet."""
    acts = world.topology.actions.values()
    about = cloud_subject(host)
    return next((act for act in acts if (act.about, act.verb) == (about, mark.value)), None)
