"""Guests that change hosts: from a decision of the resources room to rows and events. Pure.

The world may have changed since the decision: what does not fit any more is left out, and decided again.
Invariants: a guest leaves a host only while that host is down and fenced, once a receipt, or when it stopped
there and that host, which lives, says that it is not to run it any more; its generation
grows by one with every move; what an earlier generation says afterwards changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from homeostat.contracts.events.resources import (
    ActionFinished,
    GuestAssigned,
    GuestMoved,
    GuestStranded,
)
from homeostat.contracts.nouns import HostId, ResourceState, node_subject, resource_subject
from homeostat.contracts.wire import Outcome
from homeostat.faults.decision import Decision, World
from homeostat.faults.presence import Moment
from homeostat.fleet.assignment import Assignment, Placement
from homeostat.fleet.model import Resource, Topology
from homeostat.kernel.journal import Draft

ORIGIN = "resources"


def on_placement(world: World, placement: Placement, now: Moment) -> Decision:
    """Guests are assigned, or cannot be."""
    decision = Decision(now.base)
    for each in placement.assigned:
        if _fits(world.topology, each):
            _assign(world, decision, each, now)
    for stranded in placement.stranded:
        about = resource_subject(stranded.resource)
        event = GuestStranded(
            stranded.resource, stranded.owner, stranded.host, stranded.reason, stranded.detail
        )
        # Not caused by the receipt: there may be several reasons after each other.
        decision.add(Draft(event, about, now.wall_ns, ORIGIN, _trace(world, stranded.host)))
    return decision


def _fits(topology: Topology, assignment: Assignment) -> bool:
    target, row = topology.nodes.get(assignment.to), topology.resources.get(assignment.resource)
    if target is None or target.down_ns is not None:
        return False
    if assignment.from_host is None:
        return row is None or row.generation == 0
    node = topology.nodes.get(assignment.from_host)
    if node is None or row is None:
        return False
    if not topology.is_given_back(row) and (node.down_ns is None or not node.fenced):
        return False
    return row.host == node.host and row.generation == assignment.generation - 1


def _assign(world: World, decision: Decision, each: Assignment, now: Moment) -> None:
    offer, about = each.offer, resource_subject(each.resource)
    row = world.topology.resources.get(each.resource)
    if each.from_host is None:
        first = GuestAssigned(offer.resource, offer.owner, each.to, each.generation)
        decision.add(Draft(first, about, now.wall_ns, ORIGIN, f"{about}/{each.generation}"))
        if row is not None and row.host == each.to:  # it was fixed to this host until now
            decision.resources.append(replace(row, generation=each.generation))
            return
    else:
        node = world.topology.nodes[each.from_host]
        cause = None if node.down_ns is None else node.fenced_seq
        moved = GuestMoved(offer.resource, offer.owner, each.from_host, each.to, each.generation)
        decision.add(Draft(moved, about, now.wall_ns, ORIGIN, _trace(world, each.from_host), cause))
        _forget(world, decision, each.from_host, about, now.wall_ns)
    why = "assigned" if each.from_host is None else "moved"
    before = "" if each.from_host is None else f": {each.from_host} {_left(world.topology, each.from_host)}"
    decision.resources.append(
        Resource(
            id=offer.resource,
            host=each.to,
            kind=offer.kind,
            owner=offer.owner,
            agent=offer.agent,
            state=ResourceState.STARTING,
            reason=f"{why}: {each.to} is to start it{before}",
            since_ns=now.wall_ns,
            seq=0,
            generation=each.generation,
        )
    )


def _left(topology: Topology, host: HostId) -> str:
    return "is down and fenced" if topology.is_down(host) else "stopped it and is not to run it any more"


def _forget(world: World, decision: Decision, host: HostId, about: str, at_ns: int) -> None:
    """Close what the dead host had begun."""
    for action in world.topology.actions.values():
        if action.owner_of_act == node_subject(host) and action.about == about:
            event = ActionFinished(action.id, Outcome.UNKNOWN.value, 0.0, "its host died and was fenced")
            place = (about, at_ns, ORIGIN, action.trace, action.intended_seq)
            decision.add(Draft(event, *place))
            decision.finished.append(replace(action, outcome=Outcome.UNKNOWN.value))


def _trace(world: World, host: HostId) -> str:
    fault = world.faults.get(node_subject(host))
    return node_subject(host) if fault is None else fault.trace
