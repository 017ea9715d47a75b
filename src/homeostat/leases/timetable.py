"""Decides about the moments of leases: which are due, what waits for what, and what becomes of the lease.

A start waits while a lease whose end is due still holds one of its hosts, so that back-to-back leases end
before they start; nothing else waits for anything. The end of a lease comes after its start, however late
both are. A moment that was dealt with is DONE or ERROR in its row, so that a clock that steps fires nothing
twice. Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId
from homeostat.leases.book import OPEN_EVENTS, LeaseBook, LeaseChange
from homeostat.leases.booking import LeaseContext, lease_event, released_events
from homeostat.leases.model import (
    Lease,
    LeaseEvent,
    LeaseEventId,
    LeaseEventStatus,
    LeaseEventType,
    LeaseStatus,
    ReservationStatus,
)
from homeostat.leases.states import may_follow

RETRY_S = 10.0
"""Between two attempts at a start or an end: Blazar's loop comes by that often."""

_RANK = {LeaseEventType.BEFORE_END: 0, LeaseEventType.END: 1, LeaseEventType.START: 2}
_BEGUN = {LeaseEventType.START: LeaseStatus.STARTING, LeaseEventType.END: LeaseStatus.TERMINATING}


def due_events(book: LeaseBook, now_ns: int, busy: Collection[LeaseEventId] = ()) -> list[LeaseEvent]:
    """What is to be done now, in that order; `busy` is being done already, or waits for its next attempt."""
    due = [each for each in book.events_until(now_ns) if book.leases[each.lease].is_open]
    ending = {each.lease for each in due if each.event_type is LeaseEventType.END}
    held: dict[HostId, set[str]] = {}
    for lease in ending:
        if book.leases[lease].status not in (LeaseStatus.PENDING, LeaseStatus.STARTING):
            for host in _hosts(book, book.leases[lease]):
                held.setdefault(host, set()).add(lease)
    return sorted(
        (each for each in due if each.id not in busy and _may_begin(book, each, held)),
        key=lambda each: (_RANK[each.event_type], each.time_ns, each.id),
    )


def _hosts(book: LeaseBook, lease: Lease) -> set[HostId]:
    return {
        each.host
        for reservation in book.reservations_of(lease.id)
        for each in book.allocations_of(reservation.id)
        if each.host is not None
    }


def _may_begin(book: LeaseBook, event: LeaseEvent, held: dict[HostId, set[str]]) -> bool:
    lease = book.leases[event.lease]
    status = lease.status
    match event.event_type:
        case LeaseEventType.BEFORE_END:
            return True
        case LeaseEventType.START:
            waits = any(held.get(host, set()) - {lease.id} for host in _hosts(book, lease))
            return status is LeaseStatus.STARTING or (status is LeaseStatus.PENDING and not waits)
        case LeaseEventType.END:
            return status is LeaseStatus.TERMINATING or may_follow(LeaseStatus.TERMINATING, status)


def remind(book: LeaseBook, event: LeaseEventId, context: LeaseContext) -> LeaseChange:
    """The owner is reminded of the end; nothing is done to the lease. Nothing before its time."""
    found = book.lease_events.get(event)
    if found is None or found.status is not LeaseEventStatus.UNDONE or _is_ahead(found, context):
        return LeaseChange()
    lease = book.leases[found.lease]
    reached = events.BeforeEndReached(lease.id, lease.project, lease.end_ns)
    return LeaseChange(
        events=(lease_event(lease.id, reached, context),),
        lease_events=(replace(found, status=LeaseEventStatus.DONE, attempts=1),),
    )


def _is_ahead(event: LeaseEvent, context: LeaseContext) -> bool:
    """An extension may be committed between the moment at which this was due and its turn to be written."""
    return event.status is LeaseEventStatus.UNDONE and event.time_ns > context.now_ns


def begin(book: LeaseBook, event: LeaseEventId, context: LeaseContext) -> LeaseChange:
    """A start or an end begins, or begins again; nothing when it is over or put off, or its lease is gone."""
    found = book.lease_events.get(event)
    if found is None or found.status not in OPEN_EVENTS or _is_ahead(found, context):
        return LeaseChange()
    lease, status = book.leases[found.lease], _BEGUN[found.event_type]
    row = replace(found, status=LeaseEventStatus.IN_PROGRESS, attempts=found.attempts + 1)
    if lease.status is not status and not may_follow(status, lease.status):
        return LeaseChange()
    again = "" if not found.attempts else f"attempt {row.attempts}"
    kept = book.reservations_of(lease.id)[0].status
    return LeaseChange(
        events=(lease_event(lease.id, _changed(lease, status, kept, again), context),),
        leases=(replace(lease, status=status),),
        lease_events=(row,),
    )


def finish(book: LeaseBook, event: LeaseEventId, context: LeaseContext) -> LeaseChange:
    """A start or an end succeeded; nothing when its lease is gone meanwhile."""
    found = book.lease_events.get(event)
    if found is None or found.status is not LeaseEventStatus.IN_PROGRESS:
        return LeaseChange()
    done = replace(found, status=LeaseEventStatus.DONE)
    if found.event_type is LeaseEventType.START:
        return _become(book, done, (LeaseStatus.ACTIVE, ReservationStatus.ACTIVE), "", context)
    return _become(book, done, (LeaseStatus.TERMINATED, ReservationStatus.DELETED), "", context)


def fail(
    book: LeaseBook, event: LeaseEventId, reason: str, retries_max: int, context: LeaseContext
) -> LeaseChange:
    """A start or an end failed: nothing while attempts are left, then the lease is in error."""
    found = book.lease_events.get(event)
    if found is None or found.status is not LeaseEventStatus.IN_PROGRESS or found.attempts <= retries_max:
        return LeaseChange()
    failed = replace(found, status=LeaseEventStatus.ERROR)
    return _become(book, failed, (LeaseStatus.ERROR, ReservationStatus.ERROR), reason, context)


def _become(
    book: LeaseBook,
    event: LeaseEvent,
    statuses: tuple[LeaseStatus, ReservationStatus],
    reason: str,
    context: LeaseContext,
) -> LeaseChange:
    lease = book.leases[event.lease]
    status, of_reservations = statuses
    is_over = event.event_type is LeaseEventType.END
    changed = _changed(lease, status, of_reservations, reason)
    released = released_events(book, lease) if is_over else []
    return LeaseChange(
        events=(
            lease_event(lease.id, changed, context),
            *(lease_event(lease.id, each, context, cause=0) for each in released),
        ),
        leases=(replace(lease, status=status, ended_ns=context.now_ns if is_over else None),),
        reservations=tuple(
            replace(each, status=of_reservations, version=each.version + 1)
            for each in book.reservations_of(lease.id)
        ),
        lease_events=(event,),
    )


def _changed(
    lease: Lease, status: LeaseStatus, of_reservations: ReservationStatus, reason: str
) -> events.LeaseStatusChanged:
    return events.LeaseStatusChanged(lease.id, lease.project, status.value, of_reservations.value, reason)
