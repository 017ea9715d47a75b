"""Who may have which host when: free hosts of a window, the choice among them, conflicts, the next free slot.

Invariants: a host is held whole by one reservation at a time, or shared by slots of instances that fit into
it together, never both; between two reservations of one host lies the cleaning time; a host that is not
reservable or that a person holds gets nothing new. Pure.

The choice is Blazar's: for whole hosts those that were never allocated first, then those that are free
within the window; for instances the hosts that carry instances already (fewer hosts in use).
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from homeostat.contracts.nouns import HostId
from homeostat.leases.book import LeaseBook, Occupancy, overlaps, sorted_hosts
from homeostat.leases.model import ReservableHost, Reservation, ReservationId, ResourceType
from homeostat.leases.requirements import HostFacts, parse_requirements

SLOTS_TRIED_MAX = 200
"""Moments at which the next free slot is looked for: the ends of what is booked, in their order."""
LOOKS_MAX = 4_000
"""So many hosts are looked at for that, all moments together; each takes some ten microseconds."""


@dataclass(frozen=True, slots=True)
class CapacityQuery:
    """A window in a book. `ignoring`: reservations that are being booked anew; `also`: what is about to be
    booked with this one. `order`: in which hosts are tried, empty: by their numbers."""

    book: LeaseBook
    start_ns: int
    end_ns: int
    now_ns: int
    cleaning_ns: int = 0
    order: Sequence[HostId] = ()
    ignoring: Collection[ReservationId] = ()
    also: tuple[Occupancy, ...] = field(default=())

    def on_host(self, host: HostId) -> Iterator[Occupancy]:
        """What overlaps the window on this host, the cleaning time on both sides counted."""
        start_ns, end_ns = self.start_ns - self.cleaning_ns, self.end_ns + self.cleaning_ns
        for each in self.book.on_host(host):
            if each.reservation.id not in self.ignoring and overlaps(start_ns, end_ns, each):
                yield each
        for each in self.also:
            if each.allocation.host == host and overlaps(start_ns, end_ns, each):
                yield each


REQUIRING = ("hypervisor_properties", "resource_properties")
"""The fields of a reservation that hold requirements."""


def host_facts(host: ReservableHost) -> HostFacts:
    """What requirements may name: facts under Blazar's names, and the properties that people gave it."""
    return {
        **host.extra,
        "id": str(host.number),
        "hypervisor_hostname": host.host,
        "hypervisor_type": "homeostat",
        "service_name": host.host,
        "vcpus": host.vcpus,
        "memory_mb": host.memory_mb,
        "local_gb": host.disk_gb,
        "cpu_info": json.dumps({"arch": host.architecture}) if host.architecture else "",
        "architecture": host.architecture,
    }


def eligible_hosts(
    query: CapacityQuery, wanted: Reservation, keep: Collection[HostId | None] = ()
) -> list[ReservableHost]:
    """Hosts that have what is required and may be booked now, whether free or not, in the order of trial.

    A host in `keep` needs no permission of whoever holds it: what is there stays.
    """
    found = [
        host
        for host in query.book.hosts.values()
        if (host.may_be_booked(query.now_ns) or (host.reservable and host.host in keep))
        and suits(host, wanted)
    ]
    return sorted_hosts(found, query.order)


def suits(host: ReservableHost, wanted: Reservation) -> bool:
    """Whether the host has what is required, free or not."""
    if not _is_large_enough(host, wanted):
        return False
    needed = [parse_requirements(getattr(wanted, name), name) for name in REQUIRING]
    conditions = [each for each in needed if each.conditions]
    return not conditions or all(each.admit(host_facts(host)) for each in conditions)


def _is_large_enough(host: ReservableHost, wanted: Reservation) -> bool:
    if wanted.resource_type is ResourceType.HOST:
        return True
    capacity = host.capacity
    return (
        wanted.vcpus <= capacity.vcpus
        and wanted.memory_mb <= capacity.memory_mb
        and wanted.disk_gb <= capacity.disk_gb
    )


def slots_left(query: CapacityQuery, host: ReservableHost, wanted: Reservation) -> int:
    """How many allocations of this kind fit on the host during the whole window."""
    found = list(query.on_host(host.host))
    if wanted.resource_type is ResourceType.HOST:
        return 0 if found else 1
    if any(each.reservation.resource_type is ResourceType.HOST for each in found):
        return 0
    # What is used at once is greatest at a begin; everything in `found` touches the window.
    moments = {query.start_ns, *(each.start_ns for each in found)}
    return min(_fitting(host, wanted, [each for each in found if _covers(each, at)]) for at in moments)


def _covers(each: Occupancy, at_ns: int) -> bool:
    return each.start_ns <= at_ns < each.end_ns


def _fitting(host: ReservableHost, wanted: Reservation, used: Sequence[Occupancy]) -> int:
    pairs = (
        (host.vcpus - sum(each.reservation.vcpus for each in used), wanted.vcpus),
        (host.memory_mb - sum(each.reservation.memory_mb for each in used), wanted.memory_mb),
        (host.disk_gb - sum(each.reservation.disk_gb for each in used), wanted.disk_gb),
    )
    return max(0, min((left // each for left, each in pairs if each > 0), default=0))


@dataclass(frozen=True, slots=True)
class Choice:
    """`hosts` for the allocations in their order; `free` is how many allocations could be made at most."""

    hosts: tuple[HostId, ...]
    free: int


def choose(
    query: CapacityQuery, wanted: Reservation, count: int, keep: Sequence[HostId | None] = ()
) -> Choice:
    """Hosts for at most `count` allocations. `keep`: where they are now, kept as far as that is possible."""
    eligible = eligible_hosts(query, wanted, keep)
    left = {host.host: slots_left(query, host, wanted) for host in eligible}
    if wanted.resource_type is ResourceType.HOST or wanted.affinity is False:
        left = {host: min(slots, 1) for host, slots in left.items()}
    open_to_new = [host for host in eligible if left[host.host] > 0 and host.may_be_booked(query.now_ns)]
    ranked = _ranked(query, wanted, open_to_new)
    if wanted.affinity is True and wanted.resource_type is ResourceType.INSTANCE:
        return _all_on_one(left, ranked, count, keep)
    chosen: list[HostId] = []
    free = sum(left.values())
    for host in keep:
        if host is not None and len(chosen) < count and left.get(host, 0) > 0:
            chosen.append(host)
            left[host] -= 1
    for host in ranked:
        taken = min(left[host], count - len(chosen))
        chosen += [host] * taken
    return Choice(tuple(chosen), free)


def _ranked(query: CapacityQuery, wanted: Reservation, hosts: Sequence[ReservableHost]) -> list[HostId]:
    def carries(host: ReservableHost, kind: ResourceType) -> bool:
        booked = any(each.reservation.resource_type is kind for each in query.book.on_host(host.host))
        return booked or any(
            each.allocation.host == host.host and each.reservation.resource_type is kind
            for each in query.also
        )

    if wanted.resource_type is ResourceType.HOST:
        return _parted(hosts, lambda host: not any(query.book.on_host(host.host)))
    return _parted(hosts, lambda host: carries(host, ResourceType.INSTANCE))


def _parted(hosts: Sequence[ReservableHost], is_first: Callable[[ReservableHost], bool]) -> list[HostId]:
    """Those of which it is true, then the others, each in their order."""
    first: list[HostId] = []
    later: list[HostId] = []
    for host in hosts:
        (first if is_first(host) else later).append(host.host)
    return first + later


def _all_on_one(
    left: dict[HostId, int], ranked: Sequence[HostId], count: int, keep: Sequence[HostId | None]
) -> Choice:
    first = [host for host in keep if host is not None and host in left]
    for host in (*first, *ranked):
        if left[host] >= count:
            return Choice((host,) * count, count)
    return Choice((), max(left.values(), default=0))


def conflicts(query: CapacityQuery, hosts: Collection[HostId]) -> list[Occupancy]:
    """What holds these hosts within the window, earliest first."""
    found = [each for host in sorted(set(hosts)) for each in query.on_host(host)]
    return sorted(found, key=lambda each: (each.start_ns, each.allocation.id))


def next_start(query: CapacityQuery, wanted: Reservation, count: int, needed: int) -> int | None:
    """The first moment from which a window of the same length would do; None when none is found.

    Hosts become free only where something ends. It is asked for on the event loop: of whole hosts all of what
    is booked is looked at once, of instances only so many of the next ends as `LOOKS_MAX` allows.
    """
    length_ns = query.end_ns - query.start_ns
    if wanted.resource_type is ResourceType.HOST:
        return _next_start_of_hosts(query, wanted, needed, length_ns)
    ends = {
        each.end_ns + query.cleaning_ns
        for host in query.book.hosts
        for each in query.book.on_host(host)
        if each.end_ns + query.cleaning_ns > query.start_ns
    }
    tried = min(SLOTS_TRIED_MAX, 1 + LOOKS_MAX // max(1, len(query.book.hosts)))
    for at_ns in sorted(ends)[:tried]:
        later = replace(query, start_ns=at_ns, end_ns=at_ns + length_ns)
        if len(choose(later, wanted, count).hosts) >= needed:
            return at_ns
    return None


def _next_start_of_hosts(
    query: CapacityQuery, wanted: Reservation, needed: int, length_ns: int
) -> int | None:
    """A window that begins between `first` and `last` (both not included) meets what is booked on a host."""
    hosts = [host.host for host in eligible_hosts(query, wanted)]
    firsts: list[int] = []
    lasts: list[int] = []
    for host in hosts:
        taken = [each for each in query.book.on_host(host) if each.reservation.id not in query.ignoring]
        taken += [each for each in query.also if each.allocation.host == host]
        until: int | None = None
        for start_ns, end_ns in sorted((each.start_ns, each.end_ns) for each in taken):
            first, last = start_ns - query.cleaning_ns - length_ns, end_ns + query.cleaning_ns
            if until is not None and first < until:  # no gap between the two: a host counts once
                until = lasts[-1] = max(until, last)
                continue
            firsts.append(first)
            lasts.append(last)
            until = last
    firsts.sort()
    lasts.sort()
    for at_ns in lasts:
        if at_ns > query.start_ns:
            blocked = bisect_left(firsts, at_ns) - bisect_right(lasts, at_ns)
            if len(hosts) - blocked >= needed:
                return at_ns
    return None
