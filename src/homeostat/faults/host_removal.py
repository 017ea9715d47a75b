"""Removes a host for good, because a person says that it is gone. Pure.

Refused while the host lives, while something may still run on it, and while a guest that can move is assigned
to it: no guest is lost with the row of its host. What goes are the rows of the host and of what is fixed to
it; open faults of both are cleared with the reason, open acts end as unknown. A node of that name that speaks
again joins as a new one.
"""

from __future__ import annotations

from collections.abc import Sequence

from homeostat.contracts.events.fleet import HostRemoved
from homeostat.contracts.nouns import (
    HostId,
    ResourceKind,
    ResourceState,
    assignment_subject,
    cloud_subject,
    node_subject,
    resource_subject,
    runner_subject,
    store_subject,
    witness_subject,
)
from homeostat.contracts.wire import Outcome
from homeostat.faults.lifecycle import clear_fault
from homeostat.fleet.model import AgentState, Topology
from homeostat.fleet.store import host_deleted
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.kernel.errors import Conflict, NotFound
from homeostat.kernel.journal import NewEvent

NAMED_MAX = 10
"""Guests that one sentence names at most."""


def objection(topology: Topology, host: HostId, answers: bool) -> str:
    """Why this host is not removed, empty when it may be. `answers`: outside probes say that it lives."""
    node = topology.nodes[host]
    if node.down_ns is None and (node.agent is AgentState.PRESENT or answers):
        return "it lives; only a host that is down or gone is removed"
    rows = list(topology.on_host(host))
    if assigned := sorted(row.id for row in rows if row.generation):
        return f"guests are assigned to it: {_named(assigned)}; they leave it once it is down and fenced"
    guests = (
        row for row in rows if row.kind is ResourceKind.GUEST and row.state is not ResourceState.STOPPED
    )
    running = sorted(row.id for row in guests)
    if node.down_ns is None and running:
        return f"it is not known to be down and may run {_named(running)}; list it in fleet.hosts to see it"
    about = (node_subject(host), cloud_subject(host))
    if any(act.about in about for act in topology.actions.values()):
        return "something is being done to it; ask again when that has ended"
    return ""


def _named(names: Sequence[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def on_host_removed(world: IngestState, host: HostId, asked: tuple[bool, str], now: Moment) -> Decision:
    """Remove it. `asked`: whether it answers from outside, and by whom. NotFound, Conflict."""
    answers, by = asked
    topology = world.topology
    if host not in topology.nodes:
        raise NotFound(f"there is no host {host!r}")
    if why := objection(topology, host, answers):
        raise Conflict("host", host, why)
    decision = Decision(now.base, removed_hosts=[host])
    names = sorted(topology.ids_on(host))
    reason = f"{by} removed its host {host}"
    own = [
        of(host) for of in (node_subject, store_subject, runner_subject, witness_subject, assignment_subject)
    ]
    for about in (*own, *map(resource_subject, names)):
        if (fault := world.faults.get(about)) is not None:
            clear_fault(decision, fault, reason, now.wall_ns)
    for act in topology.actions.values():
        if act.owner_of_act == node_subject(host):
            decision.finish(act, Outcome.UNKNOWN, 0.0, reason, (now.wall_ns, "faults", act.trace))
    about = node_subject(host)
    event = HostRemoved(host, by, tuple(names))
    decision.add(NewEvent(event, about, now.wall_ns, "api", f"{about}/removed/{now.wall_ns}"))
    decision.changes += host_deleted(host)
    return decision
