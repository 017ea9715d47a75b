"""Chooses the host for a guest that several hosts could run, and writes its assignment as events and rows.
Pure.

A host is ready when its agent is present, nobody holds it, it is not down, nothing is doubted about it, and
it said since this server began what it could run. A host that is reserved now takes guests of the projects
for which it is, and of nobody else. Of those that offer the guest the one with the fewest guests gets it, by
name when they are equal; several guests are spread, since each counts for the next one.

The fleet may have changed since the decision: what does not fit any more is left out, and decided again.
Invariants: a guest leaves a host only while that host is down and fenced, once a receipt, or when it stopped
there and that host, which lives, says that it is not to run it any more; its generation, a fencing token,
grows by one with every move.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from homeostat.contracts.events.resources import GuestAssigned, GuestMoved, GuestStranded
from homeostat.contracts.nouns import (
    HostId,
    Owner,
    ResourceId,
    ResourceKind,
    ResourceState,
    node_subject,
    resource_subject,
)
from homeostat.contracts.wire import Candidate, Outcome
from homeostat.fleet.model import AgentState, Resource, Topology
from homeostat.fleet.placements import Assignment, Placement, Stranded
from homeostat.ingest.entry import Decision, IngestState, Moment
from homeostat.kernel.clock import iso
from homeostat.kernel.journal import NewEvent
from homeostat.recovery.host_reservations import ReservedHosts


class StrandedReason(Enum):
    """Why a guest is started nowhere; the value is the sentence for `explain`."""

    NO_OFFER = "no other host that is known now is configured to run it"
    NO_HOST = "none of the hosts that are configured to run it is ready"
    RESERVED = "every host that could run it now is reserved for another project"


IDLE = ResourceState.STOPPED
"""Only what was seen to stop does not run: of what is unknown nobody can say that."""
MOVES_MAX = 500
"""Guests in one decision. Too small: a large host is emptied slowly. Too large: everything else waits."""


@dataclass(frozen=True, slots=True)
class CandidateHosts:
    """Who could run something now. `doubts` says of which hosts nothing can be concluded, `reserved` which
    are reserved now, and for whom."""

    topology: Topology
    doubts: Collection[HostId] = ()
    reserved: ReservedHosts = field(default_factory=dict)

    def ready(self, host: HostId) -> bool:
        node = self.topology.nodes.get(host)
        if node is None or node.down_ns is not None or node.fenced or node.held:
            return False
        if node.agent is not AgentState.PRESENT or host in self.doubts:
            return False
        return host in self.topology.offers and host in self.topology.offered

    def takes(self, host: HostId, owner: Owner) -> bool:
        """Whether no lease keeps guests of this project off the host."""
        reserved = self.reserved.get(host, ())
        return not reserved or any(each.project == owner for each in reserved)

    def open_to(self, offers: Mapping[HostId, Candidate]) -> list[HostId]:
        """Those of the offering hosts that no lease keeps for others."""
        return [host for host, offer in offers.items() if self.takes(host, offer.owner)]

    def unheard(self) -> bool:
        """Whether a host that lives has not yet said what it could run."""
        nodes = self.topology.nodes.values()
        living = (node.host for node in nodes if node.agent is AgentState.PRESENT and node.down_ns is None)
        return any(host not in self.topology.offered for host in living)

    def loads(self) -> dict[HostId, int]:
        rows = self.topology.resources.values()
        guests = Counter(row.host for row in rows if row.kind is ResourceKind.GUEST)
        return {host: guests[host] for host in self.topology.nodes if self.ready(host)}


def movable_guests_of(topology: Topology, host: HostId) -> list[Resource]:
    return sorted((row for row in topology.on_host(host) if row.generation), key=lambda row: row.id)


def place_elsewhere(hosts: CandidateHosts, dead: HostId, at_most: int | None = None) -> Placement:
    """Where the guests of a dead host are to start, or the first of them; also asked before it is dead."""
    loads = hosts.loads()
    loads.pop(dead, None)
    assigned: list[Assignment] = []
    stranded: list[Stranded] = []
    for row in movable_guests_of(hosts.topology, dead):
        if len(assigned) == at_most:
            break
        offers = _offers(hosts.topology, row.id, dead)
        to = _least_loaded(loads, hosts.open_to(offers))
        if to is not None:
            loads[to] += 1
            assigned.append(Assignment(offers[to], to, row.generation + 1, dead))
        else:
            why, detail = _stranded_reason(hosts.reserved, [host for host in offers if host in loads], offers)
            stranded.append(Stranded(row.id, row.owner, dead, why.name.lower(), detail))
    return Placement(tuple(assigned), tuple(stranded))


def place_first(hosts: CandidateHosts, impatient: Collection[ResourceId]) -> Placement:
    """Where guests that belong nowhere yet are to run: at home, or anywhere when they waited long enough.

    One that was fixed to a host until now stays there: it may run.
    """
    loads, topology = hosts.loads(), hosts.topology
    assigned: list[Assignment] = []
    for resource in unassigned_guests(topology):
        if len(assigned) == MOVES_MAX:
            break
        offers = _offers(topology, resource, None)
        row = topology.resources.get(resource)
        if row is not None and row.state is not IDLE:
            to = row.host if row.host in loads and row.host in offers else None
        else:
            homes = {HostId(offer.home) for offer in offers.values() if offer.home}
            at_home = {host: offers[host] for host in homes if host in offers}
            to = _least_loaded(loads, hosts.open_to(at_home))
            if to is None and (not homes or resource in impatient):
                to = _least_loaded(loads, hosts.open_to(offers))
        if to is not None:
            loads[to] += 1
            assigned.append(Assignment(offers[to], to, 1))
    return Placement(tuple(assigned))


def place_given_up(hosts: CandidateHosts) -> Placement:
    """Where guests go that stopped on their living host, which is not configured for them any more."""
    loads = hosts.loads()
    assigned: list[Assignment] = []
    for row in given_up_guests(hosts.topology)[:MOVES_MAX]:
        offers = _offers(hosts.topology, row.id, row.host)
        to = _least_loaded(loads, hosts.open_to(offers))
        if to is not None:
            loads[to] += 1
            assigned.append(Assignment(offers[to], to, row.generation + 1, row.host))
    return Placement(tuple(assigned))


def given_up_guests(topology: Topology) -> list[Resource]:
    """Guests that were seen to stop, and that their living host cannot run any more, by name."""
    rows = topology.resources.values()
    return sorted((row for row in rows if topology.is_given_back(row)), key=lambda row: row.id)


def unassigned_guests(topology: Topology) -> list[ResourceId]:
    offered = {resource for offers in topology.offers.values() for resource in offers}
    rows = topology.resources
    return sorted(each for each in offered if each not in rows or not rows[each].generation)


def _offers(topology: Topology, resource: ResourceId, without: HostId | None) -> dict[HostId, Candidate]:
    return {
        host: offers[resource]
        for host, offers in topology.offers.items()
        if resource in offers and host != without
    }


def _least_loaded(loads: Mapping[HostId, int], among: Iterable[HostId]) -> HostId | None:
    ready = [host for host in among if host in loads]
    return min(ready, key=lambda host: (loads[host], host), default=None)


def _stranded_reason(
    reserved: ReservedHosts, ready: Collection[HostId], offers: Collection[HostId]
) -> tuple[StrandedReason, str]:
    """Why nobody takes a guest. Of the hosts that are ready each one is reserved, or it would have it."""
    if ready:
        return StrandedReason.RESERVED, reservation_sentence(reserved, ready)
    why = StrandedReason.NO_HOST if offers else StrandedReason.NO_OFFER
    return why, why.value


def reservation_sentence(reserved: ReservedHosts, hosts: Collection[HostId]) -> str:
    """Which of these hosts are reserved for others, and until when.

    The owner of a guest reads it, who may not know whose leases there are: nobody is named.
    """
    groups: dict[int, list[HostId]] = {}
    for host in sorted(hosts):
        for end_ns in {each.end_ns for each in reserved.get(host, ())}:
            groups.setdefault(end_ns, []).append(host)
    return "; ".join(
        f"{'hosts' if len(names) > 1 else 'host'} {', '.join(names)} {'are' if len(names) > 1 else 'is'} "
        f"reserved for another project until {iso(end_ns)}"
        for end_ns, names in sorted(groups.items())
    )


ORIGIN = "resources"


def on_placement(world: IngestState, placement: Placement, now: Moment) -> Decision:
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
        node = world.topology.nodes.get(stranded.host)
        receipt = None if node is None else node.fenced_seq
        decision.add(NewEvent(event, about, now.wall_ns, ORIGIN, _trace(world, stranded.host), receipt))
    decision.assign |= {row.host for row in decision.resources}
    return decision


def stays(topology: Topology, assignment: Assignment) -> bool:
    """Whether the guest may run there already: no reservation takes it away from where it is."""
    row = topology.resources.get(assignment.resource)
    is_there = row is not None and row.host == assignment.to and row.state is not IDLE
    return assignment.from_host is None and is_there


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


def _assign(world: IngestState, decision: Decision, each: Assignment, now: Moment) -> None:
    offer, about = each.offer, resource_subject(each.resource)
    row = world.topology.resources.get(each.resource)
    if each.from_host is None:
        first = GuestAssigned(offer.resource, offer.owner, each.to, each.generation)
        decision.add(NewEvent(first, about, now.wall_ns, ORIGIN, f"{about}/{each.generation}"))
        if row is not None and row.host == each.to:  # it was fixed to this host until now
            decision.resources.append(replace(row, generation=each.generation))
            return
    else:
        node = world.topology.nodes[each.from_host]
        cause = None if node.down_ns is None else node.fenced_seq
        moved = GuestMoved(offer.resource, offer.owner, each.from_host, each.to, each.generation)
        decision.add(NewEvent(moved, about, now.wall_ns, ORIGIN, _trace(world, each.from_host), cause))
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


def _forget(world: IngestState, decision: Decision, host: HostId, about: str, at_ns: int) -> None:
    """Close what the dead host had begun."""
    for action in world.topology.actions.values():
        if action.owner_of_act == node_subject(host) and action.about == about:
            place = (at_ns, ORIGIN, action.trace)
            decision.finish(action, Outcome.UNKNOWN, 0.0, "its host died and was fenced", place)


def _trace(world: IngestState, host: HostId) -> str:
    fault = world.faults.get(node_subject(host))
    return node_subject(host) if fault is None else fault.trace
