"""Decides about healing: who suffers within the window, the question for the planner, and what its plan
changes. Pure.

A reservation suffers while one of its allocations has no host, or one that failed, and its lease is active
or starts within the window (source: Blazar, resource monitoring). Hosts of pending reservations may change,
dates never; a running reservation keeps what works. The plan is of a snapshot: each reservation is changed
only if it is still as it was then, and only onto hosts that are free now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId
from homeostat.kernel.journal import EventIndex, NewEvent, Seq
from homeostat.leases.book import LeaseBook, LeaseChange, Occupancy
from homeostat.leases.booking import LeaseContext, lease_event, placed_event
from homeostat.leases.capacity import CapacityQuery, slots_left, suits
from homeostat.leases.model import (
    Allocation,
    AllocationId,
    Lease,
    LeaseStatus,
    Reservation,
    ReservationId,
    ReservationStatus,
)
from homeostat.leases.plans import Plan


@dataclass(frozen=True, slots=True)
class HealingWindow:
    """Both ends count. `until_ns` None: without a horizon."""

    now_ns: int
    until_ns: int | None

    def touches(self, lease: Lease) -> bool:
        """Whether the lease is active or starts within the window."""
        return lease.end_ns >= self.now_ns and (self.until_ns is None or lease.start_ns <= self.until_ns)


def healing_window(now_ns: int, interval_ns: int, last_pass_ns: int) -> HealingWindow:
    """What one look covers. The last one's duration is added, or a start would fall between two looks.

    An interval of 0 has no horizon.
    """
    return HealingWindow(now_ns, now_ns + interval_ns + last_pass_ns if interval_ns else None)


def find_suffering(book: LeaseBook, window: HealingWindow) -> dict[ReservationId, list[Allocation]]:
    """By reservation: the allocations without a host that works, of leases that the window touches."""
    found: dict[ReservationId, list[Allocation]] = {}
    failed = [host.host for host in book.hosts.values() if host.failed]
    bad = [each.allocation for host in failed for each in book.on_host(host)]
    for allocation in (*bad, *book.missing()):
        lease = book.lease_of(allocation.reservation)
        if lease.is_open and lease.status is not LeaseStatus.ERROR and window.touches(lease):
            found.setdefault(allocation.reservation, []).append(allocation)
    return found


def _query(
    book: LeaseBook, lease: Lease, context: LeaseContext, ignoring: Iterable[ReservationId] = ()
) -> CapacityQuery:
    start_ns = max(lease.start_ns, context.now_ns)
    return CapacityQuery(
        book,
        start_ns,
        lease.end_ns,
        context.now_ns,
        context.cleaning_ns,
        ignoring=frozenset(ignoring),
    )


@dataclass(frozen=True, slots=True)
class HealingStep:
    """What becomes of one reservation: new hosts of allocations, None: it is missing from now on.

    `version` is the reservation's in the snapshot, `causes` are the events by which its hosts failed.
    """

    reservation: ReservationId
    version: int
    hosts: Mapping[AllocationId, HostId | None]
    reason: str
    causes: tuple[Seq, ...] = field(default=())


def healing_steps(
    book: LeaseBook,
    suffering: Mapping[ReservationId, Sequence[Allocation]],
    plan: Plan,
    versions: Mapping[ReservationId, int],
) -> list[HealingStep]:
    """The changes of a plan, by reservation; those that suffer first. Nothing for what stays as it is.

    `versions` are those of the snapshot, since the book goes on while the plan is made. Nothing for a
    reservation that came or went meanwhile.
    """
    needing = {each.id for found in suffering.values() for each in found}
    targets: dict[ReservationId, dict[AllocationId, HostId | None]] = {}
    places = {(key.reservation, key.number): host for key, host in plan.places.items()}
    for allocation in (each for found in suffering.values() for each in found):
        place = places.get((allocation.reservation, allocation.number))
        if place != allocation.host:
            targets.setdefault(allocation.reservation, {})[allocation.id] = place
    for move in plan.moves:
        reservation = ReservationId(move.unit.reservation)
        for allocation in book.allocations_of(reservation):
            if allocation.number == move.unit.number and allocation.id not in needing:
                targets.setdefault(reservation, {})[allocation.id] = move.to_host
    return [
        HealingStep(each, versions[each], hosts, _reason(book, suffering.get(each), plan, hosts))
        for each, hosts in targets.items()
        if each in versions and each in book.reservations
    ]


def _reason(
    book: LeaseBook,
    found: Sequence[Allocation] | None,
    plan: Plan,
    hosts: Mapping[AllocationId, HostId | None],
) -> str:
    if found is None:
        return "it gives its host to a reservation whose host failed"
    failed = sorted({each.host for each in found if each.host is not None})
    rows = [book.hosts[host] for host in failed if host in book.hosts]
    said = "; ".join(f"host {row.host} failed ({row.reason})" for row in rows) or "a host became free"
    return f"{said}. {plan.sentence}" if None in hosts.values() else said


def heal(
    book: LeaseBook, steps: Sequence[HealingStep], context: LeaseContext
) -> LeaseChange | Sequence[HealingStep]:
    """These steps together; the steps themselves when they cannot be taken now.

    Something in them is not as it was planned for: a reservation changed, began, or has its host back, or a
    host is held by another. Steps that wait for each other in a circle can only be taken together.
    """
    ignoring = {each.reservation for each in steps}
    placed: tuple[Occupancy, ...] = ()
    changed: list[tuple[HealingStep, list[Allocation], list[Allocation]]] = []
    for step in steps:
        row = book.reservations.get(step.reservation)
        if row is None or row.version != step.version or not book.leases[row.lease].is_open:
            return steps
        before = book.allocations_of(row.id)
        if book.leases[row.lease].has_begun(context.now_ns) and _leaves_what_works(book, step, before):
            return steps
        after = [_moved(each, step, context) for each in before]
        changed.append((step, before, after))
        lease = book.leases[row.lease]
        placed += tuple(
            Occupancy(lease, row, each)
            for each in after
            if each.host is not None and each.id not in step.hosts
        )
    for step, _, after in changed:
        row = book.reservations[step.reservation]
        lease = book.leases[row.lease]
        for each in after:
            if each.id not in step.hosts or each.host is None:
                continue
            query = replace(_query(book, lease, context, ignoring), also=placed)
            host = book.hosts.get(each.host)
            if host is None or not host.may_be_booked(context.now_ns) or not suits(host, row):
                return steps  # held, or with other properties or another size than in the snapshot
            if slots_left(query, host, row) < 1:
                return steps
            placed += (Occupancy(lease, row, each),)
    return _change(book, changed, context)


def _leaves_what_works(book: LeaseBook, step: HealingStep, before: Sequence[Allocation]) -> bool:
    """Whether the step takes a host away that has not failed: it came back, or the lease began meanwhile."""
    taken = [book.hosts.get(each.host) for each in before if each.id in step.hosts and each.host is not None]
    return any(row is not None and not row.failed for row in taken)


def _moved(allocation: Allocation, step: HealingStep, context: LeaseContext) -> Allocation:
    if allocation.id not in step.hosts:
        return allocation
    return replace(allocation, host=step.hosts[allocation.id], since_ns=context.now_ns, reason=step.reason)


def _change(
    book: LeaseBook,
    changed: Sequence[tuple[HealingStep, list[Allocation], list[Allocation]]],
    context: LeaseContext,
) -> LeaseChange:
    drafts: list[NewEvent] = []
    rows, allocations = [], []
    for step, before, after in changed:
        row = book.reservations[step.reservation]
        lease = book.leases[row.lease]
        first = lease_event(lease.id, placed_event(lease, row, after), context)
        cause = EventIndex(len(drafts))
        drafts.append(replace(first, cause=max(step.causes, default=None)))
        for event in _told(lease, row, before, after, step.reason):
            drafts.append(replace(lease_event(lease.id, event, context), cause=cause))
        gained = any(
            new.host is not None and new.host != old.host for old, new in zip(before, after, strict=True)
        )
        is_active = row.status is ReservationStatus.ACTIVE
        rows.append(
            replace(
                row,
                moved_ns=context.now_ns if gained else row.moved_ns,
                changed_ns=context.now_ns if gained and is_active else row.changed_ns,
                version=row.version + 1,
            )
        )
        allocations += [new for old, new in zip(before, after, strict=True) if new is not old]
    return LeaseChange(events=tuple(drafts), reservations=tuple(rows), allocations=tuple(allocations))


def _told(
    lease: Lease,
    row: Reservation,
    before: Sequence[Allocation],
    after: Sequence[Allocation],
    reason: str,
) -> Iterable[object]:
    """What the owner reads: moves, what is missing now, and that nothing is missing any more."""
    names = (row.id, lease.id, lease.project)
    moves = tuple(
        (str(old.host or ""), str(new.host))
        for old, new in zip(before, after, strict=True)
        if new.host is not None and new.host != old.host
    )
    if moves:
        is_active = row.status is ReservationStatus.ACTIVE
        yield events.ReservationMoved(*names, moves, is_active, reason)
    lost = sum(each.host is None for each in before)
    missing = sum(each.host is None for each in after)
    if missing and missing != lost:
        yield events.ReservationMissing(*names, missing, reason)
    if lost and not missing:
        yield events.ReservationRestored(*names, reason)
