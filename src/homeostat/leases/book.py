"""The copy of the tables in memory, indexed: who holds which host when. No I/O.

Decisions read a `LeaseBook` and return a `LeaseChange`; the service commits it and only then lets the book
adopt it, so that the book never holds what is not in the tables.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from homeostat.contracts.nouns import HostId
from homeostat.kernel.journal import NewEvent, Seq
from homeostat.leases.model import (
    Allocation,
    AllocationId,
    HostProperty,
    Lease,
    LeaseEvent,
    LeaseEventId,
    LeaseEventStatus,
    LeaseId,
    ReservableHost,
    Reservation,
    ReservationId,
    degraded,
    missing_resources,
)

OPEN_EVENTS = (LeaseEventStatus.UNDONE, LeaseEventStatus.IN_PROGRESS)
"""Of a moment that is not dealt with."""


@dataclass(frozen=True, slots=True)
class LeaseChange:
    """What a decision leads to: events, and the rows as they become. Whatever is not named stays.

    Removing a lease removes everything in it. Without events nothing happened, and nothing is written.
    """

    events: tuple[NewEvent, ...] = ()
    leases: tuple[Lease, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    allocations: tuple[Allocation, ...] = ()
    lease_events: tuple[LeaseEvent, ...] = ()
    hosts: tuple[ReservableHost, ...] = ()
    properties: tuple[HostProperty, ...] = ()
    removed_leases: tuple[LeaseId, ...] = ()
    removed_allocations: tuple[AllocationId, ...] = ()
    removed_events: tuple[LeaseEventId, ...] = ()
    removed_hosts: tuple[HostId, ...] = ()

    def caused_by(self, seq: Seq | None) -> LeaseChange:
        """The same, with the event of the journal that led to it."""
        return (
            self if seq is None else replace(self, events=tuple(replace(e, cause=seq) for e in self.events))
        )


@dataclass(frozen=True, slots=True)
class Occupancy:
    """A host, or a part of it, is held from `start_ns` to `end_ns`, the second not included."""

    lease: Lease
    reservation: Reservation
    allocation: Allocation

    @property
    def start_ns(self) -> int:
        return self.lease.start_ns

    @property
    def end_ns(self) -> int:
        return self.lease.end_ns


class LeaseBook:
    """All leases and reservable hosts. Used on one event loop; changed by `adopt` alone."""

    def __init__(self) -> None:
        self.leases: dict[LeaseId, Lease] = {}
        self.reservations: dict[ReservationId, Reservation] = {}
        self.allocations: dict[AllocationId, Allocation] = {}
        self.lease_events: dict[LeaseEventId, LeaseEvent] = {}
        self.hosts: dict[HostId, ReservableHost] = {}
        self.properties: dict[str, HostProperty] = {}
        self._reservations_of: dict[LeaseId, list[ReservationId]] = {}
        self._events_of: dict[LeaseId, list[LeaseEventId]] = {}
        self._allocations_of: dict[ReservationId, list[AllocationId]] = {}
        self._on_host: dict[HostId, set[AllocationId]] = {}
        self._missing: set[AllocationId] = set()
        self._timeline: list[tuple[int, LeaseEventId]] = []
        self.version = 0
        """Counts changes, for those who keep what they concluded."""

    def reservations_of(self, lease: LeaseId) -> list[Reservation]:
        return [self.reservations[each] for each in self._reservations_of.get(lease, ())]

    def events_of(self, lease: LeaseId) -> list[LeaseEvent]:
        return [self.lease_events[each] for each in self._events_of.get(lease, ())]

    def allocations_of(self, reservation: ReservationId) -> list[Allocation]:
        """In the order of their numbers."""
        found = [self.allocations[each] for each in self._allocations_of.get(reservation, ())]
        return sorted(found, key=lambda each: each.number)

    def missing(self) -> list[Allocation]:
        """Allocations without a host, of all leases."""
        return [self.allocations[each] for each in sorted(self._missing)]

    def events_until(self, now_ns: int) -> list[LeaseEvent]:
        """Moments up to now that are not dealt with, earliest first."""
        end = bisect_right(self._timeline, now_ns, key=lambda each: each[0])
        return [self.lease_events[each] for _, each in self._timeline[:end]]

    def next_event_ns(self, now_ns: int) -> int | None:
        """When the first moment behind now is; None when there is none."""
        at = bisect_right(self._timeline, now_ns, key=lambda each: each[0])
        return self._timeline[at][0] if at < len(self._timeline) else None

    def lease_of(self, reservation: ReservationId) -> Lease:
        return self.leases[self.reservations[reservation].lease]

    def is_missing(self, reservation: ReservationId) -> bool:
        return missing_resources(self.allocations_of(reservation))

    def is_degraded(self, lease: LeaseId) -> bool:
        return degraded((each, self.allocations_of(each.id)) for each in self.reservations_of(lease))

    def on_host(self, host: HostId) -> Iterator[Occupancy]:
        """What holds this host, or will; what ended does not."""
        for identifier in self._on_host.get(host, ()):
            allocation = self.allocations[identifier]
            reservation = self.reservations[allocation.reservation]
            lease = self.leases[reservation.lease]
            if lease.is_open:
                yield Occupancy(lease, reservation, allocation)

    @property
    def last_host_number(self) -> int:
        return max((each.number for each in self.hosts.values()), default=0)

    def is_private(self, name: str) -> bool:
        """Whether only administrators see this extra property listed."""
        return name in self.properties and self.properties[name].private

    def host_numbered(self, number: int) -> ReservableHost | None:
        return next((each for each in self.hosts.values() if each.number == number), None)

    def adopt(self, change: LeaseChange) -> None:
        """Take over what was committed."""
        self.version += 1
        for lease in change.leases:
            self.leases[lease.id] = lease
        for reservation in change.reservations:
            if reservation.id not in self.reservations:
                self._reservations_of.setdefault(reservation.lease, []).append(reservation.id)
            self.reservations[reservation.id] = reservation
        for allocation in change.allocations:
            self._put(allocation)
        for event in change.lease_events:
            self._put_event(event)
        for host in change.hosts:
            self.hosts[host.host] = host
        for described in change.properties:
            self.properties[described.name] = described
        self._remove(change)

    def forget(self, leases: Iterable[LeaseId]) -> None:
        """Retention removed them."""
        self.version += 1
        for lease in leases:
            self._remove_lease(lease)

    def _put(self, allocation: Allocation) -> None:
        before = self.allocations.get(allocation.id)
        if before is None:
            self._allocations_of.setdefault(allocation.reservation, []).append(allocation.id)
        elif before.host is not None:
            self._on_host[before.host].discard(before.id)
        if allocation.host is None:
            self._missing.add(allocation.id)
        else:
            self._missing.discard(allocation.id)
            self._on_host.setdefault(allocation.host, set()).add(allocation.id)
        self.allocations[allocation.id] = allocation

    def _put_event(self, event: LeaseEvent) -> None:
        before = self.lease_events.get(event.id)
        if before is None:
            self._events_of.setdefault(event.lease, []).append(event.id)
        else:
            self._take_off_timeline(before)
        self.lease_events[event.id] = event
        if event.status in OPEN_EVENTS:
            insort(self._timeline, (event.time_ns, event.id))

    def _take_off_timeline(self, event: LeaseEvent) -> None:
        at = bisect_left(self._timeline, (event.time_ns, event.id))
        if at < len(self._timeline) and self._timeline[at][1] == event.id:
            del self._timeline[at]

    def _remove(self, change: LeaseChange) -> None:
        for allocation in change.removed_allocations:
            self._drop(allocation)
        for event in change.removed_events:
            gone = self.lease_events.pop(event)
            self._take_off_timeline(gone)
            self._events_of[gone.lease].remove(event)
        for lease in change.removed_leases:
            self._remove_lease(lease)
        for host in change.removed_hosts:
            del self.hosts[host]

    def _drop(self, allocation: AllocationId) -> None:
        gone = self.allocations.pop(allocation)
        self._allocations_of[gone.reservation].remove(allocation)
        self._missing.discard(allocation)
        if gone.host is not None:
            self._on_host[gone.host].discard(allocation)

    def _remove_lease(self, lease: LeaseId) -> None:
        for reservation in self._reservations_of.pop(lease, ()):
            for allocation in tuple(self._allocations_of.get(reservation, ())):
                self._drop(allocation)
            self._allocations_of.pop(reservation, None)
            del self.reservations[reservation]
        for event in self._events_of.pop(lease, ()):
            self._take_off_timeline(self.lease_events.pop(event))
        self.leases.pop(lease, None)


def overlaps(start_ns: int, end_ns: int, found: Occupancy) -> bool:
    """Half-open: one that ends when the other begins does not overlap it."""
    return found.start_ns < end_ns and start_ns < found.end_ns


def sorted_hosts(hosts: Iterable[ReservableHost], order: Sequence[HostId] = ()) -> list[ReservableHost]:
    """By the order that is given, then by their numbers."""
    rank = {host: place for place, host in enumerate(order)}
    return sorted(hosts, key=lambda each: (rank.get(each.host, len(rank)), each.number))
