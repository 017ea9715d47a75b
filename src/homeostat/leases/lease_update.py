"""Changes a lease that is there: its name, its dates, what its reservations ask for. Pure.

What was booked stays where it is as far as that is possible; a running reservation keeps its hosts or the
change is refused, naming what is in the way. Allocations that were missing are filled where a host is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId
from homeostat.leases.book import LeaseBook, LeaseChange, Occupancy
from homeostat.leases.booking import (
    LeaseContext,
    allocation_count,
    check_requirements,
    date_refusal,
    end_refusal,
    fill,
    find_lease,
    lease_event,
    placed_event,
    window_query,
)
from homeostat.leases.capacity import CapacityQuery, conflicts
from homeostat.leases.model import (
    Allocation,
    AllocationId,
    Lease,
    LeaseEvent,
    LeaseEventId,
    LeaseEventStatus,
    LeaseEventType,
    LeaseId,
    LeaseStatus,
    Reservation,
    ReservationId,
)
from homeostat.leases.refusals import LeaseRefusal, RefusalReason


@dataclass(frozen=True, slots=True)
class ReservationUpdate:
    """What a reservation asks for from now on; None: as before."""

    minimum: int | None = None
    maximum: int | None = None
    hypervisor_properties: str | None = None
    resource_properties: str | None = None
    before_end: str | None = None
    amount: int | None = None
    vcpus: int | None = None
    memory_mb: int | None = None
    disk_gb: int | None = None


@dataclass(frozen=True, slots=True)
class LeaseUpdate:
    """What becomes of a lease; None: as before."""

    name: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    before_end_ns: int | None = None
    reservations: Mapping[ReservationId, ReservationUpdate] = field(default_factory=dict)

    @property
    def is_rename(self) -> bool:
        dates = (self.start_ns, self.end_ns, self.before_end_ns)
        return all(each is None for each in dates) and not self.reservations


def update_lease(
    book: LeaseBook, lease: LeaseId, update: LeaseUpdate, context: LeaseContext
) -> LeaseChange | LeaseRefusal:
    """All of it or nothing. NotFound; BadInput for requirements that cannot be understood."""
    found = find_lease(book, lease)
    after = replace(
        found,
        name=found.name if update.name is None else update.name,
        start_ns=found.start_ns if update.start_ns is None else update.start_ns,
        end_ns=found.end_ns if update.end_ns is None else update.end_ns,
        updated_ns=context.now_ns,
    )
    if refusal := _refusal(book, found, after, update, context):
        return refusal
    updated = events.LeaseUpdated(lease, after.name, after.project, after.start_ns, after.end_ns, context.by)
    change = LeaseChange(events=(lease_event(lease, updated, context),), leases=(after,))
    if update.is_rename:
        return change
    moments = _moved_moments(book, after, update.before_end_ns, context)
    booked = _booked_anew(book, after, update, context)
    if isinstance(booked, LeaseRefusal):
        return booked
    placed = (lease_event(lease, each, context, cause=0) for each in booked.placed)
    return replace(
        change,
        events=(*change.events, *placed),
        reservations=tuple(booked.reservations),
        allocations=tuple(booked.allocations),
        removed_allocations=tuple(booked.dropped),
        lease_events=moments,
    )


def _refusal(
    book: LeaseBook, found: Lease, after: Lease, update: LeaseUpdate, context: LeaseContext
) -> LeaseRefusal | None:
    if update.is_rename:
        return None
    if not found.is_open or found.status in (LeaseStatus.TERMINATED, LeaseStatus.ERROR):
        return LeaseRefusal(RefusalReason.ENDED, "lease", found.status.value)
    known = {each.id for each in book.reservations_of(found.id)}
    for reservation in update.reservations:
        if reservation not in known:
            return LeaseRefusal(RefusalReason.UNKNOWN_RESERVATION, "reservations", reservation)
    match found.status:
        case LeaseStatus.PENDING if update.start_ns is not None:
            return date_refusal(after.start_ns, after.end_ns, update.before_end_ns, context)
        case LeaseStatus.PENDING:
            return end_refusal(after.start_ns, after.end_ns, update.before_end_ns, context)
        case LeaseStatus.ACTIVE if after.start_ns != found.start_ns:
            return LeaseRefusal(RefusalReason.STARTED, "start_date", after.start_ns)
        case LeaseStatus.ACTIVE:
            return end_refusal(after.start_ns, after.end_ns, update.before_end_ns, context)
        case _:
            return LeaseRefusal(RefusalReason.IN_TRANSITION, "lease", found.status.value)


@dataclass(slots=True)
class _Booked:
    """The reservations of a lease as they become."""

    reservations: list[Reservation]
    allocations: list[Allocation]
    dropped: list[AllocationId]
    placed: list[events.ReservationPlaced]


def _booked_anew(
    book: LeaseBook, after: Lease, update: LeaseUpdate, context: LeaseContext
) -> _Booked | LeaseRefusal:
    booked = _Booked([], [], [], [])
    rows = book.reservations_of(after.id)
    taken: tuple[Occupancy, ...] = ()
    for row in rows:
        wanted = _updated(row, update.reservations.get(row.id, ReservationUpdate()))
        check_requirements(book, wanted)
        now = book.allocations_of(row.id)
        query = window_query(book, after, context, ignoring=[each.id for each in rows], also=taken)
        asks_anew = allocation_count(wanted) != allocation_count(row) or wanted.minimum != row.minimum
        count = allocation_count(wanted) if asks_anew else len(now)
        needed = wanted.minimum if asks_anew else sum(each.host is not None for each in now)
        keep = [each.host for each in now]
        found = fill(query, wanted, keep, count, needed)
        if after.status is LeaseStatus.ACTIVE and (refusal := _leaving(query, found, keep[:count], after)):
            return refusal
        if isinstance(found, LeaseRefusal):
            return found
        result = _allocations(now, found, len(found) if asks_anew else len(now), context)
        booked.allocations += result.made
        booked.dropped += result.dropped
        booked.reservations.append(wanted)
        booked.placed.append(placed_event(after, wanted, result.made))
        taken += tuple(Occupancy(after, wanted, each) for each in result.made)
    return booked


def _leaving(
    query: CapacityQuery,
    found: tuple[HostId, ...] | LeaseRefusal,
    keep: Sequence[HostId | None],
    after: Lease,
) -> LeaseRefusal | None:
    """A running reservation leaves no host that works because somebody else has it next."""
    staying = () if isinstance(found, LeaseRefusal) else found
    left = [host for host in keep if host is not None and host not in staying]
    in_the_way = tuple(conflicts(query, left))
    if not in_the_way:
        return None
    return LeaseRefusal(RefusalReason.EXTENSION_CONFLICTS, "end_date", after.end_ns, conflicts=in_the_way)


def _updated(row: Reservation, update: ReservationUpdate) -> Reservation:
    names = ReservationUpdate.__dataclass_fields__
    given = {name: value for name in names if (value := getattr(update, name)) is not None}
    return replace(row, version=row.version + 1, **given)


def _moved_moments(
    book: LeaseBook, after: Lease, before_end_ns: int | None, context: LeaseContext
) -> tuple[LeaseEvent, ...]:
    """What is still to come, at its new time. A reminder keeps its distance from the end unless one is given.

    One that was given already comes again when it lies ahead once more.
    """
    rows = {each.event_type: each for each in book.events_of(after.id)}
    before = book.leases[after.id]
    made = []
    if (start := rows[LeaseEventType.START]).status is LeaseEventStatus.UNDONE:
        made.append(replace(start, time_ns=after.start_ns))
    if (end := rows[LeaseEventType.END]).status is LeaseEventStatus.UNDONE:
        made.append(replace(end, time_ns=after.end_ns))
    reminder = rows.get(LeaseEventType.BEFORE_END)
    if reminder is None:
        if before_end_ns is not None:
            new = LeaseEventId(context.new_id())
            made.append(LeaseEvent(new, after.id, LeaseEventType.BEFORE_END, before_end_ns))
        return tuple(made)
    at_ns = before_end_ns
    if at_ns is None:
        at_ns = max(after.start_ns, after.end_ns - (before.end_ns - reminder.time_ns))
    if at_ns != reminder.time_ns and (reminder.status is LeaseEventStatus.UNDONE or at_ns > context.now_ns):
        made.append(replace(reminder, time_ns=at_ns, status=LeaseEventStatus.UNDONE, attempts=0))
    return tuple(made)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Allocations of a reservation as they become, and those that are no longer wanted."""

    made: list[Allocation]
    dropped: list[AllocationId]


def _allocations(
    now: Sequence[Allocation], found: Sequence[HostId], count: int, context: LeaseContext
) -> _Rows:
    """The rows there are keep their hosts, or get one of the new ones; at most `count` of them stay."""
    left, staying, others = list(found), [], []
    for each in now:
        if each.host is not None and each.host in left:
            left.remove(each.host)
            staying.append(each)
        else:
            others.append(each)
    dropped = []
    for each in others:
        if left:
            staying.append(replace(each, host=left.pop(0), since_ns=context.now_ns, reason=""))
        elif len(staying) < count:
            staying.append(each)
        else:
            dropped.append(each.id)
    reservation, last = now[0].reservation, max(each.number for each in now)
    for number, host in enumerate(left, last + 1):
        new = AllocationId(context.new_id())
        staying.append(Allocation(new, reservation, number, host, context.now_ns))
    return _Rows(sorted(staying, key=lambda each: each.number), dropped)
