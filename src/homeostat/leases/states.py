"""The machine of leases as data: which status may follow which, and which statuses go together.

The tables are Blazar's (source: doc/source/reference/state-machines.rst and blazar/status.py), but for its
ERROR row, where a membership test on a plain text lets parts of words through, and for a lease that failed to
start: it can be TERMINATED, too. Nothing here decides what happens; `timetable.py` and `booking.py` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from homeostat.leases.model import (
    LeaseEvent,
    LeaseEventStatus,
    LeaseEventType,
    LeaseStatus,
    Reservation,
    ReservationStatus,
)

STABLE = frozenset({LeaseStatus.PENDING, LeaseStatus.ACTIVE, LeaseStatus.TERMINATED, LeaseStatus.ERROR})

NEXT_STATUSES: Mapping[LeaseStatus, frozenset[LeaseStatus]] = {
    LeaseStatus.CREATING: frozenset({LeaseStatus.PENDING, LeaseStatus.DELETING}),
    LeaseStatus.PENDING: frozenset({LeaseStatus.STARTING, LeaseStatus.UPDATING, LeaseStatus.DELETING}),
    LeaseStatus.STARTING: frozenset({LeaseStatus.ACTIVE, LeaseStatus.ERROR, LeaseStatus.DELETING}),
    LeaseStatus.ACTIVE: frozenset({LeaseStatus.TERMINATING, LeaseStatus.UPDATING, LeaseStatus.DELETING}),
    LeaseStatus.UPDATING: STABLE | {LeaseStatus.DELETING},
    LeaseStatus.TERMINATING: frozenset({LeaseStatus.TERMINATED, LeaseStatus.ERROR, LeaseStatus.DELETING}),
    LeaseStatus.TERMINATED: frozenset({LeaseStatus.UPDATING, LeaseStatus.DELETING}),
    LeaseStatus.ERROR: frozenset({LeaseStatus.TERMINATING, LeaseStatus.UPDATING, LeaseStatus.DELETING}),
    LeaseStatus.DELETING: frozenset({LeaseStatus.ERROR}),
}
"""DELETING may follow everything but itself: a deletion goes before all else."""

NEXT_RESERVATION_STATUSES: Mapping[ReservationStatus, frozenset[ReservationStatus]] = {
    ReservationStatus.PENDING: frozenset(
        {ReservationStatus.ACTIVE, ReservationStatus.DELETED, ReservationStatus.ERROR}
    ),
    ReservationStatus.ACTIVE: frozenset({ReservationStatus.DELETED, ReservationStatus.ERROR}),
    ReservationStatus.ERROR: frozenset({ReservationStatus.DELETED}),
    ReservationStatus.DELETED: frozenset(),
}

NEXT_EVENT_STATUSES: Mapping[LeaseEventStatus, frozenset[LeaseEventStatus]] = {
    LeaseEventStatus.UNDONE: frozenset({LeaseEventStatus.IN_PROGRESS}),
    LeaseEventStatus.IN_PROGRESS: frozenset({LeaseEventStatus.DONE, LeaseEventStatus.ERROR}),
    LeaseEventStatus.DONE: frozenset(),
    LeaseEventStatus.ERROR: frozenset(),
}
"""An event that is tried again stays IN_PROGRESS until its last attempt."""


@dataclass(frozen=True, slots=True)
class Combination:
    """Statuses that go together: of the reservations, of the start and of the end."""

    reservations: frozenset[ReservationStatus]
    start: frozenset[LeaseEventStatus]
    end: frozenset[LeaseEventStatus]


_R, _E = ReservationStatus, LeaseEventStatus
_BEFORE = Combination(frozenset({_R.PENDING}), frozenset({_E.UNDONE}), frozenset({_E.UNDONE}))
_ANY = Combination(frozenset(ReservationStatus), frozenset(LeaseEventStatus), frozenset(LeaseEventStatus))

COMBINATIONS: Mapping[LeaseStatus, Combination] = {
    LeaseStatus.CREATING: _BEFORE,
    LeaseStatus.PENDING: _BEFORE,
    LeaseStatus.STARTING: Combination(
        frozenset({_R.PENDING, _R.ACTIVE, _R.ERROR}), frozenset({_E.IN_PROGRESS}), frozenset({_E.UNDONE})
    ),
    LeaseStatus.ACTIVE: Combination(frozenset({_R.ACTIVE}), frozenset({_E.DONE}), frozenset({_E.UNDONE})),
    LeaseStatus.UPDATING: _ANY,
    LeaseStatus.TERMINATING: Combination(
        frozenset({_R.ACTIVE, _R.DELETED, _R.ERROR}),
        frozenset({_E.DONE, _E.ERROR}),
        frozenset({_E.IN_PROGRESS}),
    ),
    LeaseStatus.TERMINATED: Combination(
        frozenset({_R.DELETED}), frozenset({_E.DONE, _E.ERROR}), frozenset({_E.DONE})
    ),
    LeaseStatus.DELETING: _ANY,
    LeaseStatus.ERROR: Combination(
        frozenset({_R.ERROR}), frozenset({_E.DONE, _E.ERROR}), frozenset({_E.UNDONE, _E.ERROR})
    ),
}

RESERVATION_STATUS: Mapping[LeaseStatus, ReservationStatus] = {
    LeaseStatus.PENDING: ReservationStatus.PENDING,
    LeaseStatus.STARTING: ReservationStatus.PENDING,
    LeaseStatus.ACTIVE: ReservationStatus.ACTIVE,
    LeaseStatus.TERMINATED: ReservationStatus.DELETED,
    LeaseStatus.ERROR: ReservationStatus.ERROR,
}
"""The status that all reservations of a lease get with it; where none is named they keep theirs."""


def may_follow(status: LeaseStatus, after: LeaseStatus) -> bool:
    return status in NEXT_STATUSES[after]


def disagreement(
    status: LeaseStatus, reservations: Iterable[Reservation], events: Iterable[LeaseEvent]
) -> str:
    """Names the first status that does not go with that of the lease; empty when all agree."""
    wanted = COMBINATIONS[status]
    for reservation in reservations:
        if reservation.status not in wanted.reservations:
            return f"a lease that is {status} has a reservation that is {reservation.status}"
    allowed = {LeaseEventType.START: wanted.start, LeaseEventType.END: wanted.end}
    for event in events:
        if event.status not in allowed.get(event.event_type, LeaseEventStatus):
            return f"a lease that is {status} has a {event.event_type} that is {event.status}"
    return ""
