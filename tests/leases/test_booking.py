"""What becomes of requests: the choice of hosts, refusals that help, and no host booked twice, ever."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lease_parts import (
    HOUR_NS,
    NOON_NS,
    book_of,
    context_at,
    held_hosts,
    host,
    hosts_wanted,
    lease_from,
    slots_wanted,
)

from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId
from homeostat.kernel.errors import BadInput
from homeostat.leases.book import LeaseBook, LeaseChange, Occupancy, overlaps
from homeostat.leases.booking import (
    LeaseContext,
    LeaseRequest,
    ReservationRequest,
    acknowledge,
    create_lease,
    delete_lease,
)
from homeostat.leases.lease_update import LeaseUpdate, ReservationUpdate, update_lease
from homeostat.leases.model import (
    MINUTE_NS,
    AllocationId,
    HostCapacity,
    HostProperty,
    Lease,
    LeaseEventType,
    LeaseId,
    LeaseStatus,
    ReservationId,
    ReservationStatus,
    ResourceType,
)
from homeostat.leases.refusals import LeaseRefusal, RefusalReason


def booked(book: LeaseBook, request: LeaseRequest, context: LeaseContext | None = None) -> Lease:
    """Book it, or fail."""
    change = create_lease(book, request, context or context_at(NOON_NS + len(book.leases)))
    assert isinstance(change, LeaseChange), change
    book.adopt(change)
    return change.leases[0]


def refused(change: LeaseChange | LeaseRefusal) -> LeaseRefusal:
    assert isinstance(change, LeaseRefusal), change
    return change


def started(book: LeaseBook, lease: Lease) -> None:
    """As time does it."""
    rows = book.reservations_of(lease.id)
    book.adopt(
        LeaseChange(
            leases=(replace(lease, status=LeaseStatus.ACTIVE),),
            reservations=tuple(replace(each, status=ReservationStatus.ACTIVE) for each in rows),
        )
    )


def hosts_of(book: LeaseBook, lease: Lease) -> list[str | None]:
    return [name for each in book.reservations_of(lease.id) for name in held_hosts(book, each.id)]


def test_hosts_that_were_never_allocated_come_first() -> None:
    book = book_of(host(1), host(2))
    assert hosts_of(book, booked(book, lease_from(1, 2))) == ["h1"]
    assert hosts_of(book, booked(book, lease_from(3, 4))) == ["h2"]
    assert hosts_of(book, booked(book, lease_from(5, 6))) == ["h1"]


def test_as_many_as_there_are_up_to_the_maximum() -> None:
    book = book_of(host(1), host(2), host(3))
    assert hosts_of(book, booked(book, lease_from(1, 2, hosts_wanted(1, 5)))) == ["h1", "h2", "h3"]


def test_a_refusal_says_what_is_free_and_when_the_same_would_be() -> None:
    book = book_of(host(1), host(2))
    booked(book, lease_from(1, 3))
    refusal = refused(create_lease(book, lease_from(2, 4, hosts_wanted(2)), context_at()))
    assert refusal.reason is RefusalReason.NOT_ENOUGH_HOSTS
    assert refusal.free_hosts == ("h2",) and refusal.free == 1
    assert refusal.next_start_ns == NOON_NS + 3 * HOUR_NS


windows = st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(1, 6))


@given(st.lists(windows, max_size=14), st.integers(1, 4), st.integers(1, 5), st.sampled_from([0, 30]))
def test_the_next_free_slot_is_the_first_of_all(
    taken: list[tuple[int, int, int]], wanted: int, length_h: int, cleaning: int
) -> None:
    """Judged by booking at every half hour, one after the other."""
    book = book_of(*(host(number) for number in range(1, 5)))
    for number, start_h, hours in taken:
        one = hosts_wanted(resource=f'["==", "$id", "{number + 1}"]')
        context = context_at(NOON_NS + len(book.leases), cleaning_minutes=cleaning)
        change = create_lease(book, lease_from(start_h + 1, start_h + 1 + hours, one), context)
        if isinstance(change, LeaseChange):
            book.adopt(change)

    def at(start_h: float) -> LeaseChange | LeaseRefusal:
        request = lease_from(start_h, start_h + length_h, hosts_wanted(wanted))
        return create_lease(book, request, context_at(cleaning_minutes=cleaning))

    refusal = at(1)
    if isinstance(refusal, LeaseRefusal):
        first = next(half for half in range(2, 80) if isinstance(at(half / 2), LeaseChange))
        assert refusal.next_start_ns == NOON_NS + first * HOUR_NS // 2


def test_a_refusal_of_a_great_site_is_quick() -> None:
    """It is made on the event loop, which must not stand: 3,000 leases with as many ends are booked."""
    book = book_of(*(host(number) for number in range(1, 1001)))
    leases, reservations, allocations = [], [], []
    one = create_lease(book, lease_from(1, 24), context_at())
    assert isinstance(one, LeaseChange)
    for number in range(3000):
        start_ns = NOON_NS + 24 * HOUR_NS * (number // 1000)
        name, end_ns = f"l{number}", start_ns + 23 * HOUR_NS + number
        leases.append(replace(one.leases[0], id=LeaseId(name), start_ns=start_ns, end_ns=end_ns))
        row = replace(one.reservations[0], id=ReservationId(name), lease=LeaseId(name))
        reservations.append(row)
        on = HostId(f"h{number % 1000 + 1}")
        allocations.append(replace(one.allocations[0], id=AllocationId(name), reservation=row.id, host=on))
    book.adopt(
        LeaseChange(leases=tuple(leases), reservations=tuple(reservations), allocations=tuple(allocations))
    )
    for wanted in (hosts_wanted(1000), slots_wanted(1000, affinity=False)):
        began_s = time.process_time()
        refusal = refused(create_lease(book, lease_from(1, 30, wanted), context_at()))
        assert time.process_time() - began_s < 0.5
        assert refusal.reason is RefusalReason.NOT_ENOUGH_HOSTS
        if wanted.resource_type is ResourceType.HOST:
            assert refusal.next_start_ns == NOON_NS + 71 * HOUR_NS + 2999


def test_a_host_is_chosen_among_thousands_in_linear_time() -> None:
    book = book_of(*(host(number) for number in range(1, 5001)))
    booked(book, lease_from(1, 2, hosts_wanted(5000)))
    began_s = time.process_time()
    booked(book, lease_from(3, 4))
    assert time.process_time() - began_s < 0.6


def test_more_than_exist_is_said_so() -> None:
    book = book_of(host(1), host(2, reservable=False))
    refusal = refused(create_lease(book, lease_from(1, 2, hosts_wanted(2)), context_at()))
    assert refusal.reason is RefusalReason.MORE_THAN_EXIST and refusal.next_start_ns is None


@pytest.mark.parametrize(
    ("start_h", "end_h", "reason"),
    [
        (-1, 2, RefusalReason.START_PASSED),
        (2, 2, RefusalReason.END_NOT_AFTER_START),
        (2, 1, RefusalReason.END_NOT_AFTER_START),
    ],
)
def test_bad_dates_are_refused(start_h: float, end_h: float, reason: RefusalReason) -> None:
    request = lease_from(start_h, end_h)
    assert refused(create_lease(book_of(host(1)), request, context_at())).reason is reason


def test_the_minute_that_has_begun_is_not_past() -> None:
    book = book_of(host(1))
    booked(book, lease_from(0, 1), context_at(NOON_NS + MINUTE_NS - 1))
    late = context_at(NOON_NS + MINUTE_NS)
    assert refused(create_lease(book, lease_from(0, 1), late)).reason is RefusalReason.START_PASSED


def test_the_reminder_is_given_within_the_lease() -> None:
    book = book_of(host(1))
    lease = booked(book, lease_from(1, 1.5))
    at = {each.event_type: each.time_ns for each in book.events_of(lease.id)}
    assert at[LeaseEventType.BEFORE_END] == lease.start_ns and at[LeaseEventType.END] == lease.end_ns


@pytest.mark.parametrize(
    "requirement",
    [
        "vcpus>4",
        '["or", ["==", "$vcpus", "4"]]',
        '["~", "$vcpus", "4"]',
        '["==", "vcpus", "4"]',
        "{}",
        '["==", "$vcpus", 4]',
    ],
)
def test_requirements_that_cannot_be_understood_are_refused(requirement: str) -> None:
    with pytest.raises(BadInput, match="resource_properties"):
        create_lease(book_of(host(1)), lease_from(1, 2, hosts_wanted(resource=requirement)), context_at())


def test_a_property_that_no_host_has_is_refused() -> None:
    with pytest.raises(BadInput, match="rack"):
        create_lease(
            book_of(host(1)), lease_from(1, 2, hosts_wanted(resource='["==", "$rack", "r1"]')), context_at()
        )


def test_a_private_property_is_not_named_to_who_asks_for_an_unknown_one() -> None:
    book = book_of(host(1, properties='{"rack":"r1","rent":"9"}'))
    book.adopt(LeaseChange(properties=(HostProperty("rent", private=True),)))
    with pytest.raises(BadInput, match="rack") as refusal:
        create_lease(book, lease_from(1, 2, hosts_wanted(resource='["==", "$gpu", "1"]')), context_at())
    assert "rent" not in str(refusal.value)


def test_requirements_choose_hosts() -> None:
    book = book_of(host(1), host(2, HostCapacity(16, 1, 1)), host(3, properties='{"rack":"r1"}'))
    assert hosts_of(book, booked(book, lease_from(1, 2, hosts_wanted(resource='[">", "$vcpus", "4"]')))) == [
        "h2"
    ]
    both = '["and", ["==", "$rack", "r1"], ["<=", "$vcpus", "4"]]'
    assert hosts_of(book, booked(book, lease_from(1, 2, hosts_wanted(resource=both)))) == ["h3"]


def test_cleaning_time_lies_between_two_reservations() -> None:
    book = book_of(host(1))
    booked(book, lease_from(1, 2))
    assert isinstance(create_lease(book, lease_from(2, 3), context_at()), LeaseChange)
    clean = context_at(cleaning_minutes=10)
    refusal = refused(create_lease(book, lease_from(2, 3), clean))
    assert refusal.next_start_ns == NOON_NS + 2 * HOUR_NS + 10 * MINUTE_NS


def test_instances_are_packed_and_kept_off_whole_hosts() -> None:
    book = book_of(host(1), host(2))
    booked(book, lease_from(1, 3))
    first = booked(book, lease_from(1, 2, slots_wanted(3)))
    assert hosts_of(book, first) == ["h2"] * 3
    assert hosts_of(book, booked(book, lease_from(1, 2, slots_wanted(1)))) == ["h2"]
    refusal = refused(create_lease(book, lease_from(1, 2, slots_wanted(1)), context_at()))
    assert refusal.reason is RefusalReason.NOT_ENOUGH_HOSTS
    assert refused(create_lease(book, lease_from(1, 2), context_at())).free == 0


@pytest.mark.parametrize(
    ("affinity", "hosts"), [(True, ["h2", "h2"]), (False, ["h1", "h2"]), (None, ["h1", "h2"])]
)
def test_affinity(affinity: bool | None, hosts: list[str]) -> None:
    book = book_of(host(1, HostCapacity(1, 8192, 100)), host(2))
    assert (
        sorted(map(str, hosts_of(book, booked(book, lease_from(1, 2, slots_wanted(2, 1, affinity))))))
        == hosts
    )


def test_two_reservations_of_one_lease_share_no_host() -> None:
    book = book_of(host(1), host(2))
    lease = booked(book, lease_from(1, 2, hosts_wanted(), hosts_wanted()))
    assert hosts_of(book, lease) == ["h1", "h2"]
    two = lease_from(1, 2, hosts_wanted(), hosts_wanted(), name="b")
    assert refused(create_lease(book_of(host(1)), two, context_at())).reason is RefusalReason.NOT_ENOUGH_HOSTS


def test_an_extension_that_conflicts_names_what_is_in_the_way() -> None:
    book = book_of(host(1), host(2))
    running = booked(book, lease_from(0, 2))
    other = booked(book, lease_from(3, 4, hosts_wanted(2)))
    started(book, running)
    longer = LeaseUpdate(end_ns=NOON_NS + 4 * HOUR_NS)
    refusal = refused(update_lease(book, running.id, longer, context_at()))
    assert refusal.reason is RefusalReason.EXTENSION_CONFLICTS
    assert {each.lease.id for each in refusal.conflicts} == {other.id}


def test_a_running_lease_keeps_its_hosts_or_is_not_extended() -> None:
    book = book_of(host(1), host(2))
    running = booked(book, lease_from(0, 2))
    booked(book, lease_from(3, 4, hosts_wanted(resource='["==", "$id", "1"]')))
    started(book, running)
    longer = LeaseUpdate(end_ns=NOON_NS + 4 * HOUR_NS)
    assert refused(update_lease(book, running.id, longer, context_at())).reason is (
        RefusalReason.EXTENSION_CONFLICTS
    )


def test_a_pending_lease_moves_to_another_host_when_its_dates_ask_for_it() -> None:
    book = book_of(host(1), host(2))
    pending = booked(book, lease_from(1, 2))
    booked(book, lease_from(3, 4, hosts_wanted(resource='["==", "$id", "1"]')))
    change = update_lease(book, pending.id, LeaseUpdate(end_ns=NOON_NS + 4 * HOUR_NS), context_at())
    assert isinstance(change, LeaseChange)
    book.adopt(change)
    assert hosts_of(book, book.leases[pending.id]) == ["h2"]


def test_an_update_fills_what_is_missing_and_adds_what_is_asked_for() -> None:
    book = book_of(host(1), host(2), host(3))
    lease = booked(book, lease_from(1, 2, hosts_wanted(2)))
    (reservation,) = book.reservations_of(lease.id)
    (first, _) = book.allocations_of(reservation.id)
    book.adopt(LeaseChange(allocations=(replace(first, host=None),)))
    assert book.is_degraded(lease.id)
    more = LeaseUpdate(reservations={reservation.id: ReservationUpdate(minimum=3, maximum=3)})
    change = update_lease(book, lease.id, more, context_at())
    assert isinstance(change, LeaseChange)
    book.adopt(change)
    assert sorted(map(str, held_hosts(book, reservation.id))) == ["h1", "h2", "h3"]
    assert not book.is_degraded(lease.id)
    fewer = LeaseUpdate(reservations={reservation.id: ReservationUpdate(minimum=1, maximum=1)})
    change = update_lease(book, lease.id, fewer, context_at(NOON_NS + 1))
    assert isinstance(change, LeaseChange) and len(change.removed_allocations) == 2
    book.adopt(change)
    assert len(held_hosts(book, reservation.id)) == 1


def test_a_degraded_lease_may_be_shortened() -> None:
    book = book_of(host(1))
    lease = booked(book, lease_from(1, 3))
    (reservation,) = book.reservations_of(lease.id)
    (row,) = book.allocations_of(reservation.id)
    book.adopt(LeaseChange(allocations=(replace(row, host=None),), hosts=(host(1, reservable=False),)))
    change = update_lease(book, lease.id, LeaseUpdate(end_ns=NOON_NS + 2 * HOUR_NS), context_at())
    assert isinstance(change, LeaseChange)
    book.adopt(change)
    assert held_hosts(book, reservation.id) == [None]


def test_the_reminder_moves_with_the_end() -> None:
    book = book_of(host(1))
    lease = booked(book, lease_from(1, 3))
    change = update_lease(book, lease.id, LeaseUpdate(end_ns=NOON_NS + 5 * HOUR_NS), context_at())
    assert isinstance(change, LeaseChange)
    at = {each.event_type: each.time_ns for each in change.lease_events}
    assert at[LeaseEventType.BEFORE_END] == NOON_NS + 4 * HOUR_NS


def test_a_held_host_gets_nothing_new_and_keeps_what_is_there() -> None:
    book = book_of(host(1), host(2))
    lease = booked(book, lease_from(1, 2))
    book.adopt(LeaseChange(hosts=(host(1, hold_reason="disk", hold_until_ns=NOON_NS + HOUR_NS),)))
    change = update_lease(book, lease.id, LeaseUpdate(end_ns=NOON_NS + 3 * HOUR_NS), context_at())
    assert isinstance(change, LeaseChange)
    book.adopt(change)
    assert hosts_of(book, lease) == ["h1"]
    assert hosts_of(book, booked(book, lease_from(4, 5))) == ["h2"]
    assert hosts_of(book, booked(book, lease_from(6, 7, hosts_wanted(2)), context_at(NOON_NS + HOUR_NS))) == [
        "h1",
        "h2",
    ]


def test_deleting_frees_the_hosts_and_says_so() -> None:
    book = book_of(host(1))
    lease = booked(book, lease_from(1, 2))
    change = delete_lease(book, lease.id, context_at())
    assert [type(each.event) for each in change.events] == [events.LeaseDeleted, events.ReservationReleased]
    book.adopt(change)
    assert not book.leases and not book.reservations and not book.allocations and not book.lease_events
    assert isinstance(create_lease(book, lease_from(1, 2), context_at()), LeaseChange)


@pytest.mark.seed("order leases: flags are cleared by rule and by their owner")
def test_the_owner_acknowledges_changes_and_the_flag_goes() -> None:
    book = book_of(host(1))
    lease = booked(book, lease_from(1, 2))
    assert acknowledge(book, lease.id, context_at()) == LeaseChange()
    (reservation,) = book.reservations_of(lease.id)
    book.adopt(LeaseChange(reservations=(replace(reservation, changed_ns=NOON_NS, moved_ns=NOON_NS),)))
    assert book.is_degraded(lease.id)
    book.adopt(acknowledge(book, lease.id, context_at()))
    assert not book.is_degraded(lease.id)


def overfull(book: LeaseBook) -> list[str]:
    """Hosts that are promised twice: two whole ones, or more parts than there is room for, at one moment."""
    found = []
    for name, row in book.hosts.items():
        held = list(book.on_host(name))
        for each in held:
            at = [other for other in held if other.start_ns <= each.start_ns < other.end_ns]
            whole = [other for other in at if other.reservation.resource_type is ResourceType.HOST]
            cores = sum(other.reservation.vcpus for other in at)
            if (whole and len(at) > 1) or cores > row.vcpus:
                found.append(str(name))
    return found


WANTED = st.one_of(
    st.builds(hosts_wanted, st.integers(1, 3), st.integers(3, 4)),
    st.builds(slots_wanted, st.integers(1, 5), st.integers(1, 4), st.sampled_from([None, True, False])),
)
REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.integers(1, 4),
        st.lists(WANTED, min_size=1, max_size=2),
        st.sampled_from(["create", "delete", "extend", "delay"]),
    ),
    max_size=14,
)


def changed(
    book: LeaseBook,
    step: tuple[int, int, list[ReservationRequest], str],
    context: LeaseContext,
) -> LeaseChange | LeaseRefusal:
    """One of the things that people do to leases."""
    start_h, length_h, wanted, what = step
    if what == "create" or not book.leases:
        return create_lease(book, lease_from(start_h, start_h + length_h, *wanted), context)
    chosen = list(book.leases.values())[start_h % len(book.leases)]
    if what == "delete":
        return delete_lease(book, chosen.id, context)
    by_ns = length_h * HOUR_NS
    start_ns = chosen.start_ns + by_ns if what == "delay" else None
    return update_lease(
        book, chosen.id, LeaseUpdate(start_ns=start_ns, end_ns=chosen.end_ns + by_ns), context
    )


@given(REQUESTS, st.integers(0, 30))
def test_no_host_is_ever_booked_twice(
    steps: list[tuple[int, int, list[ReservationRequest], str]], cleaning: int
) -> None:
    book = book_of(host(1), host(2), host(3, HostCapacity(8, 65536, 500)), host(4))
    for number, step in enumerate(steps):
        context = context_at(NOON_NS + number, cleaning_minutes=cleaning)
        change = changed(book, step, context)
        if isinstance(change, LeaseChange):
            book.adopt(change)
        assert overfull(book) == []
    for name in book.hosts:
        for one in book.on_host(name):
            for other in book.on_host(name):
                assert one is other or _apart(one, other, cleaning * MINUTE_NS), (one, other)


def _apart(one: Occupancy, other: Occupancy, cleaning_ns: int) -> bool:
    """Whole hosts have the cleaning time between them."""
    if one.reservation.id == other.reservation.id:
        return True
    if ResourceType.HOST not in (one.reservation.resource_type, other.reservation.resource_type):
        return True
    return not overlaps(one.start_ns - cleaning_ns, one.end_ns + cleaning_ns, other)


def test_the_invariant_of_these_tests_finds_a_double_booking() -> None:
    book = book_of(host(1), host(2))
    booked(book, lease_from(1, 3))
    other = booked(book, lease_from(2, 4))
    (reservation,) = book.reservations_of(other.id)
    (row,) = book.allocations_of(reservation.id)
    book.adopt(LeaseChange(allocations=(replace(row, host=HostId("h1")),)))
    assert overfull(book) == ["h1"]
