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
from homeostat.leases.book import LeaseBook, LeaseChange, Occupancy
from homeostat.leases.booking import ORIGIN, LeaseContext
from homeostat.leases.capacity import REQUIRING, host_facts
from homeostat.leases.model import (
    HostCapacity,
    HostProperty,
    ReservableHost,
    properties_text,
    reservable_subject,
)
from homeostat.leases.refusals import LeaseRefusal, RefusalReason
from homeostat.leases.requirements import parse_requirements


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
    book: LeaseBook,
    host: HostId,
    capacity: HostCapacity | None,
    context: LeaseContext,
    properties: Mapping[str, str] | None = None,
) -> LeaseChange | LeaseRefusal:
    """It may be reserved from now on. `capacity` None: no such host reports."""
    if capacity is None:
        return LeaseRefusal(RefusalReason.HOST_UNKNOWN, "name", host)
    if host in book.hosts:
        return LeaseRefusal(RefusalReason.HOST_KNOWN, "name", host)
    number = book.last_host_number + 1
    row = with_capacity(ReservableHost(host, number, since_ns=context.now_ns), capacity)
    row = replace(row, properties=properties_text(properties or {}))
    described = [events.ReservableHostChanged(host, dict(properties), context.by)] if properties else []
    return LeaseChange(
        events=(
            host_event(host, events.ReservableHostAdded(host, number, context.by), context),
            host_event(host, _noted(host, capacity), context),
            *(host_event(host, each, context) for each in described),
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
    book: LeaseBook, host: HostId, properties: Mapping[str, str | None], context: LeaseContext
) -> LeaseChange | LeaseRefusal:
    """These extra properties are added to those there are, replace them, or (None) are taken away.

    Refused when a reservation on the host would not get there what it requires any more. NotFound.
    """
    row = find_host(book, host)
    merged = {**row.extra, **properties}
    after = {name: value for name, value in merged.items() if value is not None}
    if after == row.extra:
        return LeaseChange()
    changed = replace(row, properties=properties_text(after))
    broken = [each for each in book.on_host(host) if _admits(row, each) and not _admits(changed, each)]
    if broken:
        names = ", ".join(sorted(properties))
        return LeaseRefusal(RefusalReason.PROPERTY_REQUIRED, "properties", names, conflicts=tuple(broken))
    event = events.ReservableHostChanged(host, after, context.by)
    return LeaseChange(events=(host_event(host, event, context),), hosts=(changed,))


def _admits(host: ReservableHost, found: Occupancy) -> bool:
    facts = host_facts(host)
    return all(parse_requirements(getattr(found.reservation, name), name).admit(facts) for name in REQUIRING)


def set_visibility(
    book: LeaseBook, name: str, private: bool, context: LeaseContext
) -> LeaseChange | LeaseRefusal:
    """Who sees an extra property listed: administrators only, or everybody."""
    if not any(name in each.extra for each in book.hosts.values()):
        return LeaseRefusal(RefusalReason.PROPERTY_UNKNOWN, "property", name)
    if book.is_private(name) is private:
        return LeaseChange()
    changed = events.HostPropertyVisibilityChanged(name, private, context.by)
    about = f"host property/{name}"
    event = NewEvent(changed, about, context.now_ns, ORIGIN, about)
    return LeaseChange(events=(event,), properties=(HostProperty(name, private),))


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
