"""Books leases: what becomes of a request to create one, change it, delete it, or acknowledge its changes.

A decision reads the book and returns the events and rows of one transaction, or a refusal that says what
would help; nothing is half-booked. Pure: the moment, the ids and the order of hosts are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId, Owner
from homeostat.kernel.errors import NotFound
from homeostat.kernel.journal import EventIndex, NewEvent
from homeostat.leases.book import LeaseBook, LeaseChange, Occupancy
from homeostat.leases.capacity import REQUIRING, CapacityQuery, choose, eligible_hosts, next_start, slots_left
from homeostat.leases.model import (
    MINUTE_NS,
    Allocation,
    AllocationId,
    Lease,
    LeaseEvent,
    LeaseEventId,
    LeaseEventType,
    LeaseId,
    LeaseStatus,
    Reservation,
    ReservationId,
    ReservationStatus,
    ResourceType,
    lease_subject,
)
from homeostat.leases.refusals import LeaseRefusal, RefusalReason
from homeostat.leases.requirements import parse_requirements, refuse_unknown

ORIGIN = "leases"


@dataclass(frozen=True, slots=True)
class LeaseContext:
    """What a decision may know beside the book: the moment, ids, who asks, and the rules of the site.

    `order`: hosts in the order in which they are tried, empty: by their numbers. `before_end_ns`: how long
    before the end owners are reminded when they do not say; 0: not at all.
    """

    now_ns: int
    new_id: Callable[[], str]
    by: str
    order: Sequence[HostId] = ()
    cleaning_ns: int = 0
    before_end_ns: int = 60 * MINUTE_NS


@dataclass(frozen=True, slots=True)
class ReservationRequest:
    """One reservation as it is asked for; the fields are those of `Reservation`."""

    resource_type: ResourceType
    minimum: int = 1
    maximum: int = 1
    hypervisor_properties: str = ""
    resource_properties: str = ""
    before_end: str = "default"
    amount: int = 0
    vcpus: int = 0
    memory_mb: int = 0
    disk_gb: int = 0
    affinity: bool | None = None


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A lease as it is asked for. `start_ns` None: now. `before_end_ns` None: as the site says."""

    name: str
    project: Owner
    user: str
    start_ns: int | None
    end_ns: int
    before_end_ns: int | None = None
    reservations: tuple[ReservationRequest, ...] = ()


def lease_event(
    lease: LeaseId, event: object, context: LeaseContext, *, cause: int | None = None
) -> NewEvent:
    """An event about a lease; its trace is the story of the lease."""
    about = lease_subject(lease)
    return NewEvent(event, about, context.now_ns, ORIGIN, about, None if cause is None else EventIndex(cause))


def create_lease(book: LeaseBook, request: LeaseRequest, context: LeaseContext) -> LeaseChange | LeaseRefusal:
    """Book it whole. BadInput for requirements that cannot be understood or that name what no host has."""
    start_ns = context.now_ns if request.start_ns is None else request.start_ns
    if refusal := date_refusal(start_ns, request.end_ns, request.before_end_ns, context):
        return refusal
    if not request.reservations:
        return LeaseRefusal(RefusalReason.NO_RESERVATIONS, "reservations")
    lease = Lease(
        LeaseId(context.new_id()),
        request.name,
        request.project,
        request.user,
        start_ns,
        request.end_ns,
        LeaseStatus.PENDING,
        context.now_ns,
        context.now_ns,
    )
    reservations, allocations = [], []
    taken: tuple[Occupancy, ...] = ()
    for wanted in request.reservations:
        reservation = _reservation(lease.id, wanted, context)
        query = window_query(book, lease, context, also=taken)
        check_requirements(book, reservation)
        found = fill(query, reservation, (), allocation_count(reservation), reservation.minimum)
        if isinstance(found, LeaseRefusal):
            return found
        made = [
            Allocation(AllocationId(context.new_id()), reservation.id, number, host, context.now_ns)
            for number, host in enumerate(found, 1)
        ]
        taken += tuple(Occupancy(lease, reservation, each) for each in made)
        reservations.append(reservation)
        allocations += made
    created = events.LeaseCreated(
        lease.id,
        lease.name,
        lease.project,
        lease.user,
        lease.start_ns,
        lease.end_ns,
        tuple(each.id for each in reservations),
    )
    placed = [
        placed_event(lease, each, [row for row in allocations if row.reservation == each.id])
        for each in reservations
    ]
    return LeaseChange(
        events=(
            lease_event(lease.id, created, context),
            *(lease_event(lease.id, each, context, cause=0) for each in placed),
        ),
        leases=(lease,),
        reservations=tuple(reservations),
        allocations=tuple(allocations),
        lease_events=moments(lease, request.before_end_ns, context),
    )


def date_refusal(
    start_ns: int, end_ns: int, before_end_ns: int | None, context: LeaseContext
) -> LeaseRefusal | None:
    """What is wrong with the dates. The minute that has begun is not past: people give whole minutes."""
    if start_ns < context.now_ns - context.now_ns % MINUTE_NS:
        return LeaseRefusal(RefusalReason.START_PASSED, "start_date", start_ns)
    return end_refusal(start_ns, end_ns, before_end_ns, context)


def end_refusal(
    start_ns: int, end_ns: int, before_end_ns: int | None, context: LeaseContext
) -> LeaseRefusal | None:
    if end_ns <= start_ns:
        return LeaseRefusal(RefusalReason.END_NOT_AFTER_START, "end_date", end_ns)
    if end_ns <= context.now_ns:
        return LeaseRefusal(RefusalReason.END_PASSED, "end_date", end_ns)
    if before_end_ns is not None and not start_ns <= before_end_ns <= end_ns:
        return LeaseRefusal(RefusalReason.BEFORE_END_OUTSIDE, "before_end_date", before_end_ns)
    return None


def check_requirements(book: LeaseBook, reservation: Reservation) -> None:
    """BadInput for what cannot be understood, or names a property that no host has."""
    known = {name for host in book.hosts.values() for name in host.extra}
    private = {name for name in known if book.is_private(name)}
    for name in REQUIRING:
        refuse_unknown(parse_requirements(getattr(reservation, name), name), known, name, private)


def fill(
    query: CapacityQuery,
    wanted: Reservation,
    keep: Sequence[HostId | None],
    count: int,
    needed: int,
) -> tuple[HostId, ...] | LeaseRefusal:
    """Hosts for up to `count` allocations, at least for `needed`; a refusal says what would be free, when."""
    found = choose(query, wanted, count, keep)
    if len(found.hosts) >= needed:
        return found.hosts
    field = "max" if wanted.resource_type is ResourceType.HOST else "amount"
    nothing_booked = replace(query, book=_unbooked(query.book), also=())
    if len(choose(nothing_booked, wanted, count).hosts) < needed:
        return LeaseRefusal(RefusalReason.MORE_THAN_EXIST, field, needed, found.free)
    free = tuple(host.host for host in eligible_hosts(query, wanted) if slots_left(query, host, wanted) > 0)
    at_ns = next_start(query, wanted, count, needed)
    return LeaseRefusal(RefusalReason.NOT_ENOUGH_HOSTS, field, needed, found.free, free, at_ns)


def _unbooked(book: LeaseBook) -> LeaseBook:
    """The same hosts without any lease."""
    bare = LeaseBook()
    bare.adopt(LeaseChange(hosts=tuple(book.hosts.values())))
    return bare


def window_query(
    book: LeaseBook,
    lease: Lease,
    context: LeaseContext,
    *,
    ignoring: Iterable[ReservationId] = (),
    also: tuple[Occupancy, ...] = (),
) -> CapacityQuery:
    start_ns = max(lease.start_ns, context.now_ns)
    return CapacityQuery(
        book,
        start_ns,
        lease.end_ns,
        context.now_ns,
        context.cleaning_ns,
        context.order,
        frozenset(ignoring),
        also,
    )


def _reservation(lease: LeaseId, wanted: ReservationRequest, context: LeaseContext) -> Reservation:
    return Reservation(
        ReservationId(context.new_id()),
        lease,
        wanted.resource_type,
        ReservationStatus.PENDING,
        wanted.minimum,
        wanted.maximum,
        wanted.hypervisor_properties,
        wanted.resource_properties,
        wanted.before_end,
        wanted.amount,
        wanted.vcpus,
        wanted.memory_mb,
        wanted.disk_gb,
        wanted.affinity,
    )


def allocation_count(reservation: Reservation) -> int:
    """How many allocations it asks for at most."""
    return reservation.maximum if reservation.resource_type is ResourceType.HOST else reservation.amount


def placed_event(
    lease: Lease, reservation: Reservation, allocations: Iterable[Allocation]
) -> events.ReservationPlaced:
    """The whole state of a reservation as others may know it."""
    places = tuple(events.Place(each.id, each.number, each.host) for each in allocations)
    return events.ReservationPlaced(
        reservation.id,
        lease.id,
        lease.project,
        reservation.resource_type.value,
        lease.start_ns,
        lease.end_ns,
        places,
        reservation.vcpus,
        reservation.memory_mb,
        reservation.disk_gb,
    )


def moments(lease: Lease, before_end_ns: int | None, context: LeaseContext) -> tuple[LeaseEvent, ...]:
    """Start, reminder and end. A reminder that would lie before the start is given with it."""
    at = {LeaseEventType.START: lease.start_ns, LeaseEventType.END: lease.end_ns}
    if before_end_ns is not None:
        at[LeaseEventType.BEFORE_END] = before_end_ns
    elif context.before_end_ns:
        at[LeaseEventType.BEFORE_END] = max(lease.start_ns, lease.end_ns - context.before_end_ns)
    return tuple(
        LeaseEvent(LeaseEventId(context.new_id()), lease.id, kind, time_ns) for kind, time_ns in at.items()
    )


def find_lease(book: LeaseBook, lease: LeaseId) -> Lease:
    """NotFound."""
    found = book.leases.get(lease)
    if found is None:
        raise NotFound(f"there is no lease {lease!r}")
    return found


def delete_lease(book: LeaseBook, lease: LeaseId, context: LeaseContext) -> LeaseChange:
    """It is gone, whatever its status; what it held is free. NotFound."""
    found = find_lease(book, lease)
    gone = events.LeaseDeleted(lease, found.name, found.project, context.by)
    released = released_events(book, found) if found.is_open else []
    return LeaseChange(
        events=(
            lease_event(lease, gone, context),
            *(lease_event(lease, each, context, cause=0) for each in released),
        ),
        removed_leases=(lease,),
    )


def released_events(book: LeaseBook, lease: Lease) -> list[events.ReservationReleased]:
    return [
        events.ReservationReleased(each.id, lease.id, lease.project)
        for each in book.reservations_of(lease.id)
    ]


def acknowledge(book: LeaseBook, lease: LeaseId, context: LeaseContext) -> LeaseChange:
    """The owner took note of every change so far; without one nothing is written. NotFound."""
    found = find_lease(book, lease)
    changed = [each for each in book.reservations_of(lease) if each.moved_ns is not None]
    if not changed:
        return LeaseChange()
    noted = events.LeaseAcknowledged(lease, found.project, tuple(each.id for each in changed), context.by)
    return LeaseChange(
        events=(lease_event(lease, noted, context),),
        reservations=tuple(
            replace(
                each, changed_ns=None, moved_ns=None, acknowledged_ns=context.now_ns, version=each.version + 1
            )
            for each in changed
        ),
    )
