"""An explanation as it is shown: leases by name instead of reservations by id, others' leases unnamed."""

from __future__ import annotations

import re
from enum import StrEnum

from pydantic import BaseModel

from homeostat.contracts.nouns import HostId
from homeostat.kernel.access import Caller
from homeostat.kernel.clock import iso
from homeostat.leases.book import LeaseBook
from homeostat.leases.explanation import (
    Change,
    Competitor,
    EarlierEnd,
    Explanation,
    FewerUnits,
    HostsMore,
)
from homeostat.leases.model import ReservationId
from homeostat.leases.views import LeaseHealth, Outlook

ANOTHER_PROJECT = "a lease of another project"
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ChangeKind(StrEnum):
    """The sorts of changes that are considered."""

    HOSTS_MORE = "hosts_more"
    EARLIER_END = "earlier_end"
    FEWER_UNITS = "fewer_units"


class CompetitorView(BaseModel):
    """A lease that has a host which this one could use. `lease` and `project` are null when not yours."""

    host: str
    lease: str | None
    project: str | None
    starts_at: str
    ends_at: str
    can_move: bool


class ChangeView(BaseModel):
    """One change that would give it every host. `size_h` is counted in hours of a host.

    `like`: a host more like this one; `lease`: what would end `hours` earlier, null when it is not yours.
    """

    kind: ChangeKind
    sentence: str
    size_h: float
    like: str | None = None
    lease: str | None = None
    count: int | None = None
    hours: int | None = None


class ReservationExplanation(BaseModel):
    """`if_host_fails`: nothing is missing now, but would be then. `can_heal`: without a change.

    `is_smallest`: no smaller change helps, which is proved.
    """

    reservation: str
    missing: int
    if_host_fails: str | None
    can_heal: bool
    competitors: list[CompetitorView]
    change: ChangeView | None
    is_smallest: bool


class LeaseExplanation(BaseModel):
    """Why a lease stands as it does. Without `reservations` nothing is missing or at risk."""

    lease: str
    name: str
    health: LeaseHealth
    outlook: Outlook
    sentences: list[str]
    reservations: list[ReservationExplanation]


def named(text: str, book: LeaseBook, caller: Caller) -> str:
    """The ids of reservations in a text become names of leases, as far as the caller may read them."""

    def name(found: re.Match[str]) -> str:
        lease = _lease_name(found[0], book, caller)
        return ANOTHER_PROJECT if lease is None else lease

    return _ID.sub(name, text)


def _lease_name(reservation: str, book: LeaseBook, caller: Caller) -> str | None:
    row = book.reservations.get(ReservationId(reservation))
    if row is None or not caller.may_read(book.leases[row.lease].project):
        return None
    return book.leases[row.lease].name


def explanation_view(
    found: Explanation, failing: HostId | None, book: LeaseBook, caller: Caller
) -> ReservationExplanation:
    return ReservationExplanation(
        reservation=found.reservation,
        missing=found.missing,
        if_host_fails=failing,
        can_heal=not found.missing,
        competitors=_competitors(found, book, caller),
        change=None if found.change is None else _change_view(found.change, book, caller),
        is_smallest=found.is_smallest_proved,
    )


def _competitors(found: Explanation, book: LeaseBook, caller: Caller) -> list[CompetitorView]:
    """Slots of one lease on one host once."""
    rows: list[CompetitorView] = []
    for each in found.competitors:
        row = _competitor_view(each, book, caller)
        if row not in rows:
            rows.append(row)
    return rows


def _competitor_view(found: Competitor, book: LeaseBook, caller: Caller) -> CompetitorView:
    row = book.reservations.get(ReservationId(found.reservation))
    lease = None if row is None else book.leases[row.lease]
    is_named = lease is not None and caller.may_read(lease.project)
    return CompetitorView(
        host=found.host,
        lease=lease.name if lease is not None and is_named else None,
        project=lease.project if lease is not None and is_named else None,
        starts_at=iso(round(found.start_s * 1e9)),
        ends_at=iso(round(found.end_s * 1e9)),
        can_move=not found.is_fixed,
    )


def _change_view(change: Change, book: LeaseBook, caller: Caller) -> ChangeView:
    sentence = named(change.sentence, book, caller)
    match change:
        case HostsMore():
            return ChangeView(
                kind=ChangeKind.HOSTS_MORE,
                sentence=sentence,
                size_h=change.size_h,
                like=change.like,
                count=change.count,
            )
        case EarlierEnd():
            return ChangeView(
                kind=ChangeKind.EARLIER_END,
                sentence=sentence,
                size_h=change.size_h,
                lease=_lease_name(change.reservation, book, caller),
                hours=change.hours,
            )
        case FewerUnits():
            return ChangeView(
                kind=ChangeKind.FEWER_UNITS,
                sentence=sentence,
                size_h=change.size_h,
                lease=_lease_name(change.reservation, book, caller),
                count=change.count,
            )
