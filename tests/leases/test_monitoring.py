"""What reports of monitors lead to: N of M, absence, errors, holds, dry run, several monitors. Pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lease_parts import HOUR_NS, NOON_NS, book_of, context_at, host

from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId
from homeostat.kernel.journal import EventIndex, Seq
from homeostat.leases.book import LeaseBook, LeaseChange
from homeostat.leases.model import ReservableHost
from homeostat.leases.monitoring import (
    Confirmation,
    HostLooks,
    HostOutcome,
    HostReport,
    HostVerdict,
    PollFindings,
    all_unknown,
    conclude,
    healing_times,
    read_poll,
)
from homeostat.leases.reservable_hosts import (
    end_expired_holds,
    hold_host,
    next_hold_end_ns,
    record_verdicts,
    withdraw_others,
)

F, R, A, U = HostOutcome.FAILED, HostOutcome.RECOVERED, HostOutcome.ABSENT, HostOutcome.UNKNOWN
H1, H2, H3 = map(HostId, ("h1", "h2", "h3"))


@pytest.mark.parametrize(
    ("rule", "looks", "meant"),
    [
        ((1, 1), (F,), F),
        ((1, 1), (F, R), R),
        ((1, 1), (F, U), U),
        ((2, 3), (F,), U),
        ((2, 3), (F, R, F), F),
        ((2, 3), (F, F, R), U),
        ((2, 3), (F, R, R), R),
        ((2, 3), (F, U, F), F),
        ((2, 3), (F, U, U, F), U),
        ((2, 2), (U, F), U),
        ((1, 1), (A,), A),
        ((1, 1), (A, A), F),
        ((1, 1), (F, A), F),
        ((1, 1), (A, U, A), A),
        ((3, 5), (A, A), A),
        ((3, 5), (A, F, A), F),
        ((2, 2), (A, R), U),
    ],
)
def test_n_of_the_last_m_looks_must_say_it_and_the_last_of_them(
    rule: tuple[int, int], looks: tuple[HostOutcome, ...], meant: HostOutcome
) -> None:
    assert conclude(looks, Confirmation(*rule)) is meant


@given(st.lists(st.sampled_from(HostOutcome)), st.integers(1, 5), st.integers(0, 5))
def test_errors_and_one_absence_alone_never_make_a_failure(
    looks: list[HostOutcome], needed: int, more: int
) -> None:
    meant = conclude(tuple(looks), Confirmation(needed, needed + more))
    assert meant in (U, *looks[-1:]) or (meant is F and looks[-1] is A)
    if meant is F:
        window = looks[-max(needed + more, 2) :]
        assert window.count(F) + window.count(A) >= (max(needed, 2) if looks[-1] is A else needed)


def test_a_complete_list_makes_absent_what_a_partial_one_leaves_unknown() -> None:
    said = [HostReport(H1, R, "up"), HostReport(HostId("other"), F, "not ours")]
    complete = read_poll((H1, H2, H3), [*said, HostReport(H3, F, "x")], lists_all=True)
    assert {name: each.outcome for name, each in complete.reports.items()} == {H1: R, H2: A, H3: F}
    assert not complete.is_doubtful
    partial = read_poll((H1, H2), said, lists_all=False)
    assert {name: each.outcome for name, each in partial.reports.items()} == {H1: R, H2: U}


def test_a_list_that_contradicts_itself_says_nothing_and_no_report_is_refused() -> None:
    twice = read_poll((H1,), [HostReport(H1, R, "up"), HostReport(H1, F, "down")], lists_all=True)
    assert twice.reports[H1].outcome is U
    with pytest.raises(TypeError, match="HostReport objects, not str"):
        read_poll((H1,), ["h1 is down"], lists_all=True)


def looked(looks: HostLooks, findings: PollFindings, begun_ns: int = 1) -> dict[HostId, HostOutcome]:
    return {each.host: each.outcome for each in looks.look(findings, begun_ns)}


def test_when_most_hosts_are_absent_the_list_is_doubted_and_none_has_failed() -> None:
    looks, hosts = HostLooks(Confirmation()), (H1, H2, H3)
    cut = read_poll(hosts, [HostReport(H1, R, "up")], lists_all=True)
    for _ in range(5):
        assert looked(looks, cut) == {H1: R, H2: A, H3: A}
    one = read_poll(hosts, [HostReport(H1, R, "up"), HostReport(H2, R, "up")], lists_all=True)
    assert looked(looks, one) == {H1: R, H2: R, H3: F}


def test_a_look_that_failed_concludes_nothing() -> None:
    looks = HostLooks(Confirmation())
    assert looked(looks, all_unknown((H1, H2), "timeout")) == {}


def test_a_notification_counts_more_than_looks_before_it_and_looks_begun_before_it() -> None:
    looks = HostLooks(Confirmation(2, 3))
    well = read_poll((H1,), [HostReport(H1, R, "up")], lists_all=True)
    assert looked(looks, well, 1) == {} and looked(looks, well, 2) == {H1: R}
    looks.push(H1, 10)
    assert looked(looks, well, 9) == {}
    assert looked(looks, well, 11) == {}, "the looks before the notification are forgotten"
    assert looked(looks, well, 12) == {H1: R}


def verdict(outcome: HostOutcome, monitor: str = "m", **fields: object) -> HostVerdict:
    return HostVerdict(monitor, H1, outcome, f"{monitor} saw it", NOON_NS, **fields)  # type: ignore[arg-type]


def recorded(book: LeaseBook, *verdicts: HostVerdict, now_ns: int = NOON_NS) -> list[object]:
    """The events, after the book has adopted them."""
    return adopted(book, record_verdicts(book, verdicts, context_at(now_ns)))


def adopted(book: LeaseBook, change: LeaseChange) -> list[object]:
    book.adopt(change)
    return [each.event for each in change.events]


def state(book: LeaseBook) -> tuple[bool, bool, str]:
    row = book.hosts[H1]
    return row.reservable, row.failed, row.reason


@pytest.mark.seed("order leases: a vanished host is unknown, then missing, never reservable")
def test_a_vanished_host_is_unknown_then_failed_and_never_reservable() -> None:
    book = book_of(host(1))
    said, marked = recorded(book, verdict(A))
    assert isinstance(said, events.HostReported) and said.outcome == "absent" and said.withheld == ""
    assert marked == events.HostUnreservable(H1, "m: m saw it", NOON_NS, failed=False)
    assert state(book) == (False, False, "m: m saw it")
    assert not book.hosts[H1].may_be_booked(NOON_NS)
    marked = recorded(book, verdict(F))[-1]
    assert marked == events.HostUnreservable(H1, "m: m saw it", NOON_NS, failed=True)
    assert state(book)[:2] == (False, True)
    assert recorded(book, verdict(R))[-1] == events.HostReservable(H1, "m saw it")
    assert state(book) == (True, False, "") and book.hosts[H1].reports == "{}"


def test_what_was_said_before_and_what_is_unknown_writes_nothing() -> None:
    book = book_of(host(1))
    assert recorded(book, verdict(R)) == [] == recorded(book, verdict(U))
    assert len(recorded(book, verdict(F), verdict(F))) == 2
    assert recorded(book, verdict(F)) == []
    assert recorded(book, HostVerdict("m", HostId("h9"), F, "x", 1)) == []


def test_a_host_is_well_only_when_no_monitor_says_otherwise() -> None:
    book = book_of(host(1))
    recorded(book, verdict(F, "a"))
    assert recorded(book, verdict(R, "b")) == [], "b never said otherwise"
    assert isinstance(recorded(book, verdict(F, "b"))[-1], events.HostUnreservable)
    assert state(book) == (False, True, "a: a saw it; b: b saw it")
    recorded(book, verdict(R, "a"))
    assert state(book) == (False, True, "b: b saw it")
    recorded(book, verdict(A, "b"))
    assert state(book) == (False, False, "b: b saw it")
    recorded(book, verdict(R, "b"))
    assert state(book) == (True, False, "")


def test_each_event_names_its_cause() -> None:
    book = book_of(host(1), host(2))
    other = HostVerdict("m", H2, F, "x", NOON_NS, cause=Seq(8))
    change = record_verdicts(book, [verdict(F, cause=Seq(7)), other], context_at())
    assert [each.cause for each in change.events] == [Seq(7), EventIndex(0), Seq(8), EventIndex(2)]


def held(reason: str = "new disk", until_ns: int | None = NOON_NS + HOUR_NS) -> LeaseBook:
    book = book_of(host(1))
    adopted(book, hold_host(book, H1, reason, until_ns, context_at()))
    return book


@pytest.mark.parametrize("ends", ["by its time", "by a person"])
def test_what_monitors_say_during_a_hold_counts_after_it(ends: str) -> None:
    book = held()
    (said,) = recorded(book, verdict(F))
    assert isinstance(said, events.HostReported) and said.withheld == "on hold, new disk"
    assert state(book) == (True, False, "") and not book.hosts[H1].may_be_booked(NOON_NS)
    assert next_hold_end_ns(book) == NOON_NS + HOUR_NS
    assert end_expired_holds(book, context_at(NOON_NS + HOUR_NS - 1)) == LeaseChange()
    after = context_at(NOON_NS + HOUR_NS)
    change = end_expired_holds(book, after) if ends == "by its time" else hold_host(book, H1, "", None, after)
    ended, marked = adopted(book, change)
    assert isinstance(ended, events.ReservableHostHeld) and not ended.held
    assert ended.by == ("its time" if ends == "by its time" else "tester")
    assert marked == events.HostUnreservable(H1, "m: m saw it", NOON_NS, failed=True)
    assert next_hold_end_ns(book) is None


def test_a_host_that_failed_and_came_back_during_a_hold_is_as_before() -> None:
    book = held()
    recorded(book, verdict(F))
    recorded(book, verdict(R))
    (ended,) = adopted(book, end_expired_holds(book, context_at(NOON_NS + 2 * HOUR_NS)))
    assert isinstance(ended, events.ReservableHostHeld)
    assert book.hosts[H1] == ReservableHost(**{**_fields(host(1)), "properties": "{}"})


def _fields(row: ReservableHost) -> dict[str, object]:
    return {name: getattr(row, name) for name in ReservableHost.__slots__}


def test_a_hold_without_end_stays() -> None:
    book = held(until_ns=None)
    assert next_hold_end_ns(book) is None
    assert end_expired_holds(book, context_at(NOON_NS + 10_000 * HOUR_NS)) == LeaseChange()


def test_a_dry_run_is_written_down_and_changes_no_row() -> None:
    book = book_of(host(1))
    change = record_verdicts(book, [verdict(F, is_dry_run=True)], context_at())
    (said,) = change.events
    assert isinstance(said.event, events.HostReported) and said.event.withheld == events.DRY_RUN
    assert change.hosts == ()


def test_what_a_monitor_said_that_does_not_run_any_more_is_withdrawn() -> None:
    book = book_of(host(1))
    recorded(book, verdict(F, "gone"), verdict(F, "here"))
    adopted(book, withdraw_others(book, ["here"], context_at()))
    assert state(book) == (False, True, "here: here saw it")
    said, well = adopted(book, withdraw_others(book, [], context_at()))
    assert isinstance(said, events.HostReported) and "does not run any more" in said.reason
    assert isinstance(well, events.HostReservable) and state(book) == (True, False, "")


@pytest.mark.parametrize(
    ("intervals", "times"),
    [
        ([], (3600, 3600)),
        ([None], (3600, 3600)),
        ([600, None], (3600, 600)),
        ([7200, 600], (7200, 600)),
        ([0], (None, 60)),
        ([0, 600], (None, 60)),
        ([0, 30], (None, 30)),
    ],
)
def test_the_farthest_horizon_and_the_shortest_period_count(
    intervals: list[float | None], times: tuple[float | None, float]
) -> None:
    assert healing_times(intervals, 3600, 60) == times
