"""Guests that nobody would hear of: their host lives and does not run them. Pure.

A guest whose start takes too long, or that its host is not configured for any more, makes no transition that
could be a fault. Both are looked for from time to time. The next report of the guest ends the fault.
"""

from __future__ import annotations

from homeostat.contracts.nouns import FaultKind, ResourceState, Severity, node_subject, resource_subject
from homeostat.faults.decision import Decision, World
from homeostat.faults.inspection import Seen, raise_fault
from homeostat.faults.presence import Moment
from homeostat.fleet.model import AgentState, Resource


def on_look(world: World, start_deadline_s: float, now: Moment) -> Decision:
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
            _raise(world, decision, row, why, now)
        elif late:
            why = f"{row.host} has not started it within {start_deadline_s:g} s ({row.reason})"
            _raise(world, decision, row, why, now)
    return decision


def _may_be_judged(world: World, row: Resource) -> bool:
    """Its host lives and has said what it could run; else the faults of the host or its agent tell of it."""
    node = world.topology.nodes.get(row.host)
    if node is None or node.down_ns is not None or node.agent is not AgentState.PRESENT:
        return False
    return row.host in world.topology.offered


def _is_late(world: World, row: Resource, deadline_s: float, now_ns: int) -> bool:
    """Whether this start has been going on for too long; counted from when this server saw it first."""
    if row.state is not ResourceState.STARTING:
        world.starting.pop(row.id, None)
        return False
    generation, since_ns = world.starting.get(row.id, (0, 0))
    if generation != row.generation:
        world.starting[row.id] = (row.generation, now_ns)
        return False
    return now_ns - since_ns > deadline_s * 1e9


def _raise(world: World, decision: Decision, row: Resource, why: str, now: Moment) -> None:
    seen = Seen(
        about=resource_subject(row.id),
        state=ResourceState.DOWN,
        kind=FaultKind.RESOURCE_DOWN,
        severity=Severity.MAJOR,
        owner=row.owner,
        reason=why,
        at_ns=now.wall_ns,
        mono_ns=None,
        server_ns=now.mono_ns,
        origin=node_subject(row.host),
        evidence=f"{row.host}/{row.id}/{row.generation}/{now.wall_ns}",
        cause=None,
    )
    raise_fault(decision, seen, world)
