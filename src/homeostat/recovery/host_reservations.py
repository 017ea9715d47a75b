"""The hosts that leases reserve now, from their published events: what placement may not use for others.

`ReservationCalendar` is pure and keeps the last `ReservationPlaced` of each reservation, which has its whole
state; `JournalReservations` reads the journal as far as it goes. Only a whole host (`physical:host`) keeps
other projects off; an instance of a `virtual:instance` reservation takes a part of its host. A reservation
keeps off what is started within its window, and moves nothing that runs there already.

Every event of an open lease is kept by retention, so that the journal alone is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from homeostat.contracts.events.leases import ReservationPlaced, ReservationReleased
from homeostat.contracts.nouns import HostId
from homeostat.fleet.placements import HostReservation
from homeostat.kernel.journal import Journal, Seq

WHOLE_HOST = "physical:host"
KINDS = frozenset({ReservationPlaced.__name__, ReservationReleased.__name__})
PAGE = 500

ReservedHosts = Mapping[HostId, tuple[HostReservation, ...]]


class ReservationCalendar:
    """The reservations that hold hosts, whenever their windows are."""

    def __init__(self) -> None:
        self._placed: dict[str, ReservationPlaced] = {}

    def take(self, event: object) -> None:
        """Follow one event; others than those of reservations change nothing."""
        match event:
            case ReservationPlaced():
                self._placed[event.reservation] = event
            case ReservationReleased():
                self._placed.pop(event.reservation, None)

    def active(self, at_ns: int) -> ReservedHosts:
        """The hosts that are reserved at this time, with everybody for whom they are."""
        found: dict[HostId, list[HostReservation]] = {}
        for _, each in sorted(self._placed.items()):
            if each.resource_type == WHOLE_HOST and each.start_ns <= at_ns < each.end_ns:
                for place in each.places:
                    if place.host is not None:
                        reserved = HostReservation(place.host, each.project, each.end_ns, each.lease)
                        found.setdefault(place.host, []).append(reserved)
        return {host: tuple(reserved) for host, reserved in found.items()}


class Reservations(Protocol):
    """Where placement learns what is reserved."""

    def active(self, at_ns: int) -> ReservedHosts:
        """As far as it is known now."""

    async def catch_up(self) -> None:
        """Know everything that is committed. RetryLater."""


class NoReservations:
    """Nothing is reserved."""

    def active(self, _at_ns: int) -> ReservedHosts:
        return {}

    async def catch_up(self) -> None:
        """There is nothing to read."""


class JournalReservations:
    """`Reservations` from the journal. The first `catch_up` reads all of it once, later ones what is new."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._calendar = journal, ReservationCalendar()
        self._read = Seq(0)

    def active(self, at_ns: int) -> ReservedHosts:
        return self._calendar.active(at_ns)

    async def catch_up(self) -> None:
        head = await self._journal.head()
        while self._read < head:
            page = await self._journal.read(self._read, PAGE, kinds=KINDS)
            for envelope in page:
                self._calendar.take(envelope.event)
            self._read = (
                page[-1].seq if len(page) == PAGE else max(head, *(each.seq for each in page), Seq(0))
            )
