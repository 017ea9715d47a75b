"""Moments of leases: in their order, back-to-back, tried again, and never twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lease_parts import HOUR_NS, NOON_NS, book_of, context_at, host, lease_from

from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.booking import create_lease, delete_lease
from homeostat.leases.lease_update import LeaseUpdate, update_lease
from homeostat.leases.model import Lease, LeaseEvent, LeaseEventStatus, LeaseEventType, LeaseStatus
from homeostat.leases.states import disagreement, may_follow
from homeostat.leases.timetable import begin, due_events, fail, finish, remind


def booked(book: LeaseBook, start_h: float, end_h: float, name: str = "l") -> Lease:
    change = create_lease(book, lease_from(start_h, end_h, name=name), context_at(NOON_NS + len(book.leases)))
    assert isinstance(change, LeaseChange)
    book.adopt(change)
    return change.leases[0]


def moment(book: LeaseBook, lease: Lease, kind: LeaseEventType) -> LeaseEvent:
    return next(each for each in book.events_of(lease.id) if each.event_type is kind)


def agrees(book: LeaseBook, lease: Lease) -> None:
    """The row of the lease goes with the rows of its reservations and moments."""
    found = book.leases[lease.id]
    said = disagreement(found.status, book.reservations_of(lease.id), book.events_of(lease.id))
    assert said == ""


def done(book: LeaseBook, lease: Lease, kind: LeaseEventType) -> None:
    """Begin it and finish it, each a commit of its own."""
    event = moment(book, lease, kind).id
    for step in (begin, finish):
        before = book.leases[lease.id].status
        change = step(book, event, context_at(book.lease_events[event].time_ns))
        assert change.events
        book.adopt(change)
        after = book.leases[lease.id].status
        assert may_follow(after, before)
        agrees(book, lease)


def kinds(due: list[LeaseEvent]) -> list[tuple[str, str]]:
    return [(each.event_type.value, each.lease) for each in due]


@pytest.mark.seed("order leases: events on time")
def test_a_lease_starts_is_reminded_of_and_ends() -> None:
    book = book_of(host(1))
    lease = booked(book, 1, 3)
    at = NOON_NS
    assert due_events(book, at) == [] and book.next_event_ns(at) == lease.start_ns
    assert kinds(due_events(book, lease.start_ns - 1)) == []
    assert kinds(due_events(book, lease.start_ns)) == [("start_lease", lease.id)]
    done(book, lease, LeaseEventType.START)
    assert book.leases[lease.id].status is LeaseStatus.ACTIVE
    reminder = moment(book, lease, LeaseEventType.BEFORE_END)
    assert kinds(due_events(book, lease.end_ns - HOUR_NS)) == [("before_end_lease", lease.id)]
    book.adopt(remind(book, reminder.id, context_at(reminder.time_ns)))
    assert remind(book, reminder.id, context_at()) == LeaseChange()
    done(book, lease, LeaseEventType.END)
    assert book.leases[lease.id].status is LeaseStatus.TERMINATED
    assert not book.leases[lease.id].is_open and list(book.on_host(host(1).host)) == []
    assert due_events(book, lease.end_ns + HOUR_NS) == []


@pytest.mark.seed("order leases: deferred back-to-back leases")
def test_the_next_lease_of_a_host_starts_when_the_one_before_has_ended() -> None:
    book = book_of(host(1), host(2))
    first, second = booked(book, 1, 2, "first"), booked(book, 2, 3, "second")
    (row,) = book.allocations_of(book.reservations_of(second.id)[0].id)
    book.adopt(LeaseChange(allocations=(replace(row, host=host(1).host),)))
    elsewhere = booked(book, 2, 3, "elsewhere")
    done(book, first, LeaseEventType.START)
    due = due_events(book, first.end_ns)
    assert ("end_lease", first.id) in kinds(due) and ("start_lease", second.id) not in kinds(due)
    assert ("start_lease", elsewhere.id) in kinds(due)
    done(book, first, LeaseEventType.END)
    assert ("start_lease", second.id) in kinds(due_events(book, first.end_ns))


def test_a_lease_that_was_slept_through_starts_and_then_ends() -> None:
    book = book_of(host(1))
    lease = booked(book, 1, 2)
    late = lease.end_ns + HOUR_NS
    assert ("end_lease", lease.id) not in kinds(due_events(book, late))
    done(book, lease, LeaseEventType.START)
    assert ("end_lease", lease.id) in kinds(due_events(book, late))


def test_two_slept_through_on_one_host_both_take_place() -> None:
    book = book_of(host(1))
    first, second = booked(book, 1, 2, "first"), booked(book, 2, 3, "second")
    late = second.end_ns + HOUR_NS
    seen = []
    while due := [
        each for each in due_events(book, late) if each.event_type is not LeaseEventType.BEFORE_END
    ]:
        seen.append((due[0].event_type, due[0].lease))
        done(book, book.leases[due[0].lease], due[0].event_type)
    start, end = LeaseEventType.START, LeaseEventType.END
    assert sorted(seen) == sorted([(start, first.id), (end, first.id), (start, second.id), (end, second.id)])


def test_what_failed_is_tried_again_and_then_the_lease_is_in_error() -> None:
    book = book_of(host(1))
    lease = booked(book, 1, 2)
    event = moment(book, lease, LeaseEventType.START).id
    for attempt in (1, 2):
        book.adopt(begin(book, event, context_at(lease.start_ns)))
        assert book.lease_events[event].attempts == attempt
        agrees(book, lease)
        change = fail(book, event, "no answer", 1, context_at())
        assert bool(change.events) == (attempt == 2)
        book.adopt(change)
    assert book.leases[lease.id].status is LeaseStatus.ERROR
    assert book.lease_events[event].status is LeaseEventStatus.ERROR
    agrees(book, lease)
    assert begin(book, event, context_at(lease.start_ns)) == LeaseChange()
    done(book, lease, LeaseEventType.END)
    assert book.leases[lease.id].status is LeaseStatus.TERMINATED


def test_what_was_begun_by_a_dead_server_is_due_again() -> None:
    book = book_of(host(1))
    lease = booked(book, 1, 4)
    event = moment(book, lease, LeaseEventType.START).id
    book.adopt(begin(book, event, context_at(lease.start_ns)))
    assert kinds(due_events(book, lease.start_ns)) == [("start_lease", lease.id)]
    assert due_events(book, lease.start_ns, {event}) == []


def test_a_lease_deleted_in_the_middle_stays_deleted() -> None:
    book = book_of(host(1))
    lease = booked(book, 1, 2)
    event = moment(book, lease, LeaseEventType.START).id
    book.adopt(begin(book, event, context_at(lease.start_ns)))
    book.adopt(delete_lease(book, lease.id, context_at()))
    assert finish(book, event, context_at()) == LeaseChange()
    assert fail(book, event, "late", 0, context_at()) == LeaseChange()


def test_a_moment_that_was_put_off_while_it_waited_to_be_written_does_not_begin() -> None:
    """It was due; before its turn came, the extension of the lease was written."""
    book = book_of(host(1))
    lease = booked(book, 1, 3)
    done(book, lease, LeaseEventType.START)
    due = due_events(book, lease.end_ns - 1)
    reminder, end = (moment(book, lease, kind) for kind in (LeaseEventType.BEFORE_END, LeaseEventType.END))
    assert [each.id for each in due] == [reminder.id]
    longer = update_lease(
        book, lease.id, LeaseUpdate(end_ns=lease.end_ns + 9 * HOUR_NS), context_at(lease.end_ns - 1)
    )
    assert isinstance(longer, LeaseChange)
    book.adopt(longer)
    assert remind(book, reminder.id, context_at(lease.end_ns)) == LeaseChange()
    assert begin(book, end.id, context_at(lease.end_ns)) == LeaseChange()
    assert book.leases[lease.id].status is LeaseStatus.ACTIVE


@pytest.mark.seed("order leases: a clock step of an hour fires nothing twice")
def test_a_step_of_the_clock_fires_nothing_twice() -> None:
    book = book_of(host(1))
    lease = booked(book, 1, 4)
    done(book, lease, LeaseEventType.START)
    assert due_events(book, lease.start_ns - HOUR_NS) == []
    assert due_events(book, lease.start_ns) == []
    assert kinds(due_events(book, lease.start_ns + HOUR_NS)) == []
