"""The machine of leases as data."""

from __future__ import annotations

import pytest

from homeostat.leases.model import (
    LeaseEvent,
    LeaseEventId,
    LeaseEventStatus,
    LeaseEventType,
    LeaseId,
    LeaseStatus,
    Reservation,
    ReservationId,
    ReservationStatus,
    ResourceType,
)
from homeostat.leases.states import COMBINATIONS, NEXT_STATUSES, STABLE, disagreement, may_follow


@pytest.mark.seed("order leases: combination table as data")
def test_every_status_has_a_row_in_both_tables() -> None:
    assert set(NEXT_STATUSES) == set(COMBINATIONS) == set(LeaseStatus)


@pytest.mark.seed("order leases: combination table as data")
def test_deletion_may_follow_everything_but_itself() -> None:
    after = {status for status in LeaseStatus if may_follow(LeaseStatus.DELETING, status)}
    assert after == set(LeaseStatus) - {LeaseStatus.DELETING}


def test_a_transitional_status_leads_to_a_stable_one_or_to_deletion() -> None:
    for status in set(LeaseStatus) - STABLE:
        assert NEXT_STATUSES[status] <= STABLE | {LeaseStatus.DELETING}, status


@pytest.mark.parametrize(
    ("lease", "reservation", "start", "says"),
    [
        (LeaseStatus.PENDING, ReservationStatus.PENDING, LeaseEventStatus.UNDONE, ""),
        (LeaseStatus.ACTIVE, ReservationStatus.ACTIVE, LeaseEventStatus.DONE, ""),
        (LeaseStatus.ACTIVE, ReservationStatus.PENDING, LeaseEventStatus.DONE, "reservation that is pending"),
        (LeaseStatus.ACTIVE, ReservationStatus.ACTIVE, LeaseEventStatus.UNDONE, "start_lease that is UNDONE"),
        (LeaseStatus.UPDATING, ReservationStatus.ERROR, LeaseEventStatus.ERROR, ""),
    ],
)
def test_statuses_that_do_not_go_together_are_named(
    lease: LeaseStatus, reservation: ReservationStatus, start: LeaseEventStatus, says: str
) -> None:
    row = Reservation(ReservationId("r"), LeaseId("l"), ResourceType.HOST, reservation, 1, 1)
    moment = LeaseEvent(LeaseEventId("e"), LeaseId("l"), LeaseEventType.START, 0, start)
    said = disagreement(lease, [row], [moment])
    assert bool(said) == bool(says) and says in said


def test_no_part_of_a_word_agrees() -> None:
    """Blazar asks whether the status is contained in a plain text, so that parts of words would agree."""
    for combination in COMBINATIONS.values():
        assert all(isinstance(each, ReservationStatus) for each in combination.reservations)
