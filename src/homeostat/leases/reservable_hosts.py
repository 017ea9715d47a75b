"""Decides about the hosts that may be reserved: added, removed, described, held, failed, back. Pure.

A host that failed is marked first, whatever is reserved on it; healing comes after that. What monitors say
while a person holds a host is written down and counts when the hold is over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import NotFound
from homeostat.kernel.journal import EventIndex, NewEvent
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import ORIGIN, LeaseContext
from homeostat.leases.model import (
    HostCapacity,
    MonitorReport,
    ReservableHost,
    properties_text,
    reports_after,
    reservable_subject,
)
from homeostat.leases.monitoring import HostOutcome, HostVerdict
from homeostat.leases.refusals import LeaseRefusal, RefusalReason

EXPIRY = "its time"
"""Who ends a hold that nobody ended."""


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
    if not reason:
        return _end_hold(row, context) if row.hold_reason else LeaseChange()
    held = events.ReservableHostHeld(host, True, reason, until_ns, context.by)
    after = replace(row, hold_reason=reason, hold_until_ns=until_ns, hold_by=context.by)
    return LeaseChange(events=(host_event(host, held, context),), hosts=(after,))


def end_expired_holds(book: LeaseBook, context: LeaseContext) -> LeaseChange:
    """Holds whose time is over end; what monitors said meanwhile counts now."""
    expired = replace(context, by=EXPIRY)
    ended = [
        _end_hold(row, expired)
        for row in book.hosts.values()
        if row.hold_reason and row.hold_at(context.now_ns) is None
    ]
    return LeaseChange(
        events=tuple(event for change in ended for event in change.events),
        hosts=tuple(row for change in ended for row in change.hosts),
    )


def next_hold_end_ns(book: LeaseBook) -> int | None:
    """When the first hold ends by itself."""
    return min(
        (row.hold_until_ns for row in book.hosts.values() if row.hold_until_ns is not None), default=None
    )


def _end_hold(row: ReservableHost, context: LeaseContext) -> LeaseChange:
    ended = events.ReservableHostHeld(row.host, False, "", None, context.by)
    free = replace(row, hold_reason="", hold_until_ns=None, hold_by="")
    after, marked = _marked(free, context, "the hold ended and no monitor says otherwise")
    drafts = [host_event(row.host, event, context) for event in (ended, *marked)]
    return LeaseChange(events=tuple(drafts), hosts=(after,))


def record_verdicts(book: LeaseBook, verdicts: Iterable[HostVerdict], context: LeaseContext) -> LeaseChange:
    """What monitors conclude is written down, and counts unless it is a dry run or the host is on hold.

    A host is reservable while no monitor says otherwise. Nothing for a host that may not be reserved, and for
    what a monitor said before, unless that was a dry run.
    """
    rows: dict[HostId, ReservableHost] = {}
    drafts: list[NewEvent] = []
    for verdict in verdicts:
        row = rows.get(verdict.host) or book.hosts.get(verdict.host)
        if row is None or verdict.outcome is HostOutcome.UNKNOWN:
            continue
        before = row.reported.get(verdict.monitor)
        is_said = (HostOutcome.RECOVERED if before is None else before.outcome) is verdict.outcome
        if is_said and not verdict.is_dry_run:  # no row tells what a dry run said
            continue
        hold = row.hold_at(context.now_ns)
        withheld = events.DRY_RUN if verdict.is_dry_run else "" if hold is None else f"on hold, {hold.reason}"
        said = events.HostReported(
            verdict.host, verdict.monitor, verdict.outcome.value, verdict.reason, verdict.seen_ns, withheld
        )
        drafts.append(replace(host_event(verdict.host, said, context), cause=verdict.cause))
        if verdict.is_dry_run:
            continue
        report = MonitorReport(verdict.outcome, verdict.reason, verdict.seen_ns)
        reports = reports_after(row.reports, verdict.monitor, report)
        said_by = EventIndex(len(drafts) - 1)
        after, marked = _marked(replace(row, reports=reports), context, verdict.reason)
        drafts += [replace(host_event(row.host, event, context), cause=said_by) for event in marked]
        rows[row.host] = after
    return LeaseChange(events=tuple(drafts), hosts=tuple(rows.values()))


def withdraw_others(book: LeaseBook, monitors: Collection[str], context: LeaseContext) -> LeaseChange:
    """What monitors said that do not run any more is withdrawn: nobody else could."""
    gone = [
        HostVerdict(
            name, row.host, HostOutcome.RECOVERED, f"monitor {name} does not run any more", context.now_ns
        )
        for row in book.hosts.values()
        for name in sorted(row.reported.keys() - set(monitors))
    ]
    return record_verdicts(book, gone, context)


def _marked(row: ReservableHost, context: LeaseContext, why_well: str) -> tuple[ReservableHost, list[object]]:
    """The row as all reports together make it, and the events of that. A hold keeps it as it is."""
    if row.hold_at(context.now_ns) is not None:
        return row, []
    reports = row.reported
    worst = {name: each for name, each in reports.items() if each.outcome is HostOutcome.FAILED}
    failed, counting = bool(worst), worst or reports
    if not counting:
        if row.reservable:
            return row, []
        well = replace(row, reservable=True, failed=False, reason="", since_ns=context.now_ns)
        return well, [events.HostReservable(row.host, why_well)]
    reason = "; ".join(f"{name}: {each.reason}" for name, each in sorted(counting.items()))
    since_ns = min(each.seen_ns for each in counting.values())
    marked = replace(row, reservable=False, failed=failed, reason=reason, since_ns=since_ns)
    if marked == replace(row, since_ns=since_ns):
        return row, []
    return marked, [events.HostUnreservable(row.host, reason, since_ns, failed)]
