"""Where a guest runs that any of several hosts could run. Pure: the topology and the time waited come in.

A host is ready when its agent is present, nobody holds it, it is not down, nothing is doubted about it, and
it said since this server began what it could run. Of those that offer the guest the one with the fewest
guests gets it, by name when they are equal; several guests are spread, since each counts for the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from homeostat.contracts.nouns import HostId, ResourceId, ResourceKind, ResourceState
from homeostat.contracts.wire import Offer
from homeostat.fleet.assignment import Assignment, Placement, Stranded
from homeostat.fleet.model import AgentState, Resource, Topology


class Why(Enum):
    """Why a guest is started nowhere; the value is the sentence for `explain`."""

    NO_OFFER = "no other host that is known now is configured to run it"
    NO_HOST = "no host that is configured to run it is ready"


IDLE = ResourceState.STOPPED
"""Only what was seen to stop does not run: of what is unknown nobody can say that."""
MOVES_MAX = 500
"""Guests in one decision. Too small: a large host is emptied slowly. Too large: everything else waits."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """Who could run something now. `doubts` says of which hosts nothing can be concluded."""

    topology: Topology
    doubts: Collection[HostId] = ()

    def ready(self, host: HostId) -> bool:
        """Whether guests may be given to this host."""
        node = self.topology.nodes.get(host)
        if node is None or node.down_ns is not None or node.fenced or node.held:
            return False
        if node.agent is not AgentState.PRESENT or host in self.doubts:
            return False
        return host in self.topology.offers and host in self.topology.offered

    def unheard(self) -> bool:
        """Whether a host that lives has not yet said what it could run."""
        nodes = self.topology.nodes.values()
        living = (node.host for node in nodes if node.agent is AgentState.PRESENT and node.down_ns is None)
        return any(host not in self.topology.offered for host in living)

    def loads(self) -> dict[HostId, int]:
        """How many guests each ready host has."""
        rows = self.topology.resources.values()
        guests = Counter(row.host for row in rows if row.kind is ResourceKind.GUEST)
        return {host: guests[host] for host in self.topology.nodes if self.ready(host)}


def guests_of(topology: Topology, host: HostId) -> list[Resource]:
    """What is assigned to a host and can run elsewhere, by name."""
    return sorted((row for row in topology.on_host(host) if row.generation), key=lambda row: row.id)


def elsewhere(hosts: Hosts, dead: HostId, at_most: int | None = None) -> Placement:
    """Where the guests of a dead host are to start, or the first of them; also asked before it is dead."""
    loads = hosts.loads()
    loads.pop(dead, None)
    assigned: list[Assignment] = []
    stranded: list[Stranded] = []
    for row in guests_of(hosts.topology, dead):
        if len(assigned) == at_most:
            break
        offers = _offers(hosts.topology, row.id, dead)
        to = _least_loaded(loads, offers)
        if to is not None:
            loads[to] += 1
            assigned.append(Assignment(offers[to], to, row.generation + 1, dead))
        else:
            why = Why.NO_HOST if offers else Why.NO_OFFER
            stranded.append(Stranded(row.id, row.owner, dead, why.name.lower(), why.value))
    return Placement(tuple(assigned), tuple(stranded))


def first(hosts: Hosts, impatient: Collection[ResourceId]) -> Placement:
    """Where guests that belong nowhere yet are to run: at home, or anywhere when they waited long enough.

    One that was fixed to a host until now stays there: it may run.
    """
    loads, topology = hosts.loads(), hosts.topology
    assigned: list[Assignment] = []
    for resource in homeless(topology):
        if len(assigned) == MOVES_MAX:
            break
        offers = _offers(topology, resource, None)
        row = topology.resources.get(resource)
        if row is not None and row.state is not IDLE:
            to = row.host if row.host in loads and row.host in offers else None
        else:
            homes = {HostId(offer.home) for offer in offers.values() if offer.home}
            at_home = {host: offers[host] for host in homes if host in offers}
            to = _least_loaded(loads, at_home)
            if to is None and (not homes or resource in impatient):
                to = _least_loaded(loads, offers)
        if to is not None:
            loads[to] += 1
            assigned.append(Assignment(offers[to], to, 1))
    return Placement(tuple(assigned))


def released(hosts: Hosts) -> Placement:
    """Where guests go that stopped on their living host, which is not configured for them any more."""
    loads = hosts.loads()
    assigned: list[Assignment] = []
    for row in given_back(hosts.topology)[:MOVES_MAX]:
        offers = _offers(hosts.topology, row.id, row.host)
        to = _least_loaded(loads, offers)
        if to is not None:
            loads[to] += 1
            assigned.append(Assignment(offers[to], to, row.generation + 1, row.host))
    return Placement(tuple(assigned))


def given_back(topology: Topology) -> list[Resource]:
    """Guests that were seen to stop, and that their living host cannot run any more, by name."""
    rows = topology.resources.values()
    return sorted((row for row in rows if topology.is_given_back(row)), key=lambda row: row.id)


def homeless(topology: Topology) -> list[ResourceId]:
    """Guests that some host offers and none is assigned, by name."""
    offered = {resource for offers in topology.offers.values() for resource in offers}
    rows = topology.resources
    return sorted(each for each in offered if each not in rows or not rows[each].generation)


def _offers(topology: Topology, resource: ResourceId, without: HostId | None) -> dict[HostId, Offer]:
    return {
        host: offers[resource]
        for host, offers in topology.offers.items()
        if resource in offers and host != without
    }


def _least_loaded(loads: Mapping[HostId, int], among: Iterable[HostId]) -> HostId | None:
    ready = [host for host in among if host in loads]
    return min(ready, key=lambda host: (loads[host], host), default=None)
