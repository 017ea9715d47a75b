"""Decides about the hosts that may be reserved: added, removed, described, held, failed, back. Pure.

A host that failed is marked first, whatever is reserved on it; healing comes after that. A hold keeps
monitors from changing what is said of a host until it is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import NotFound
from homeostat.kernel.journal import NewEvent
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import ORIGIN, LeaseContext
from homeostat.leases.model import HostCapacity, ReservableHost, properties_text, reservable_subject
from homeostat.leases.refusals import LeaseRefusal, RefusalReason


def host_event(host: HostId, event: object, context: LeaseContext) -> NewEvent:
    about = reservable_subject(host)
    return NewEvent(event, about, context.now_ns, ORIGIN, about)


def find_host(book: LeaseBook, host: HostId) -> ReservableHost:
    """NotFound."""
    found = book.hosts.get(host)
    if found is None:
        raise NotFound(f"there is no reservable host {host!r}")
    return found


def add_host(
    book: LeaseBook, host: HostId, capacity: HostCapacity | None, context: LeaseContext
) -> LeaseChange | LeaseRefusal:
    """It may be reserved from now on. `capacity` None: no such host reports."""
    if capacity is None:
        return LeaseRefusal(RefusalReason.HOST_UNKNOWN, "name", host)
    if host in book.hosts:
        return LeaseRefusal(RefusalReason.HOST_KNOWN, "name", host)
    number = book.last_host_number + 1
    row = with_capacity(ReservableHost(host, number, since_ns=context.now_ns), capacity)
    return LeaseChange(
        events=(
            host_event(host, events.ReservableHostAdded(host, number, context.by), context),
            host_event(host, _noted(host, capacity), context),
        ),
        hosts=(row,),
    )


def with_capacity(row: ReservableHost, capacity: HostCapacity) -> ReservableHost:
    return replace(
        row,
        vcpus=capacity.vcpus,
        memory_mb=capacity.memory_mb,
        disk_gb=capacity.disk_gb,
        architecture=capacity.architecture,
    )


def _noted(host: HostId, capacity: HostCapacity) -> events.HostCapacityNoted:
    return events.HostCapacityNoted(
        host, capacity.vcpus, capacity.memory_mb, capacity.disk_gb, capacity.architecture
    )


def remove_host(book: LeaseBook, host: HostId, context: LeaseContext) -> LeaseChange | LeaseRefusal:
    """Its row goes; refused while something is or will be reserved on it. NotFound."""
    row = find_host(book, host)
    if found := sorted(book.on_host(host), key=lambda each: (each.start_ns, each.allocation.id)):
        return LeaseRefusal(RefusalReason.HOST_RESERVED, "host", host, conflicts=tuple(found))
    gone = events.ReservableHostRemoved(host, row.number, context.by)
    return LeaseChange(events=(host_event(host, gone, context),), removed_hosts=(host,))


def describe_host(
    book: LeaseBook, host: HostId, properties: Mapping[str, str], context: LeaseContext
) -> LeaseChange:
    """These extra properties are added to those there are, or replace them. NotFound."""
    row = find_host(book, host)
    after = {**row.extra, **properties}
    if after == row.extra:
        return LeaseChange()
    changed = events.ReservableHostChanged(host, after, context.by)
    return LeaseChange(
        events=(host_event(host, changed, context),), hosts=(replace(row, properties=properties_text(after)),)
    )


def note_capacity(
    book: LeaseBook, host: HostId, capacity: HostCapacity, context: LeaseContext
) -> LeaseChange:
    """The machine has other facts now; nothing that is booked is moved for that."""
    row = book.hosts.get(host)
    if row is None or row.capacity == capacity:
        return LeaseChange()
    return LeaseChange(
        events=(host_event(host, _noted(host, capacity), context),), hosts=(with_capacity(row, capacity),)
    )


def hold_host(
    book: LeaseBook, host: HostId, reason: str, until_ns: int | None, context: LeaseContext
) -> LeaseChange:
    """A person keeps monitors and new reservations from it; an empty reason ends that. NotFound."""
    row = find_host(book, host)
    if not reason and not row.hold_reason:
        return LeaseChange()
    held = events.ReservableHostHeld(host, bool(reason), reason, until_ns, context.by)
    after = replace(
        row,
        hold_reason=reason,
        hold_until_ns=until_ns if reason else None,
        hold_by=context.by if reason else "",
    )
    return LeaseChange(events=(host_event(host, held, context),), hosts=(after,))


def mark_failed(
    book: LeaseBook, host: HostId, reason: str, seen_ns: int, context: LeaseContext
) -> LeaseChange:
    """A monitor found it failed. Nothing for an unknown host, one that is marked already, or one on hold."""
    row = book.hosts.get(host)
    if row is None or not row.reservable or row.hold_at(context.now_ns) is not None:
        return LeaseChange()
    failed = events.HostUnreservable(host, reason, seen_ns)
    after = replace(row, reservable=False, reason=reason, since_ns=seen_ns)
    return LeaseChange(events=(host_event(host, failed, context),), hosts=(after,))


def mark_recovered(book: LeaseBook, host: HostId, reason: str, context: LeaseContext) -> LeaseChange:
    """A monitor found it well. What was moved stays where it is now."""
    row = book.hosts.get(host)
    if row is None or row.reservable or row.hold_at(context.now_ns) is not None:
        return LeaseChange()
    after = replace(row, reservable=True, reason="", since_ns=context.now_ns)
    return LeaseChange(
        events=(host_event(host, events.HostReservable(host, reason), context),), hosts=(after,)
    )
