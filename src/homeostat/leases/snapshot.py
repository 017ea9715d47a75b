"""The snapshot that the planner gets: hosts that may be booked, and every allocation that may matter.

It is packed in pieces on the event loop and unpacked in the worker: of thousands of hosts it takes half a
second in one go, and nobody may wait for that. `plan_in_worker` is the worker's side.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from homeostat.contracts.nouns import HostId
from homeostat.leases import planner
from homeostat.leases.book import LeaseBook
from homeostat.leases.booking import LeaseContext
from homeostat.leases.capacity import CapacityQuery, eligible_hosts
from homeostat.leases.model import (
    Allocation,
    Lease,
    Reservation,
    ReservationId,
    ReservationStatus,
    ResourceType,
)
from homeostat.leases.plans import Demand, Plan, PlanHost, PlanRequest, PlanUnit


@dataclass(frozen=True, slots=True)
class PackedRequest:
    """A `PlanRequest` in pieces that were each pickled on their own: none keeps the event loop for long."""

    head: bytes
    slices: tuple[bytes, ...]


SLICE = 150
"""Reservations of one piece: two milliseconds of work."""

_UnitRow = tuple[str, int, float, float, int, Demand | None, HostId | None, bool, bool | None, bool]
"""The fields of a unit; in the place of its hosts the number of their set."""


class SnapshotPacking:
    """Packs a snapshot a piece at a time. What changes meanwhile is seen when the plan is carried out."""

    def __init__(
        self,
        book: LeaseBook,
        suffering: Mapping[ReservationId, Sequence[Allocation]],
        context: LeaseContext,
    ) -> None:
        self._book, self._suffering, self._context = book, suffering, context
        self._sets: list[frozenset[HostId]] = []
        self._numbers: dict[object, int] = {}

    def slices(self) -> Iterator[bytes]:
        """The units, some reservations at a time."""
        reservations = list(self._book.reservations)
        for start in range(0, len(reservations), SLICE):
            rows = [row for each in reservations[start : start + SLICE] for row in self._rows(each)]
            yield pickle.dumps(rows, pickle.HIGHEST_PROTOCOL)

    def head(self, time_s: float) -> bytes:
        """Everything but the units; to be asked for after them."""
        hosts = [
            (each.host, each.vcpus, each.memory_mb, each.disk_gb)
            for each in self._book.hosts.values()
            if each.may_be_booked(self._context.now_ns)
        ]
        rest = (hosts, self._sets, time_s, self._context.cleaning_ns / 1e9)
        return pickle.dumps(rest, pickle.HIGHEST_PROTOCOL)

    def _rows(self, identifier: ReservationId) -> Iterator[_UnitRow]:
        book, now_ns = self._book, self._context.now_ns
        reservation = book.reservations.get(identifier)
        lease = None if reservation is None else book.leases[reservation.lease]
        if reservation is None or lease is None or not lease.is_open or lease.end_ns < now_ns:
            return
        needing = {each.id for each in self._suffering.get(identifier, ())}
        started = lease.has_begun(now_ns)
        hosts = self._hosts(lease, reservation)
        for allocation in book.allocations_of(identifier):
            host = None if allocation.id in needing else allocation.host
            if host is None and allocation.id not in needing:
                continue  # missing, and not within the window
            if host is not None and not book.hosts[host].reservable:
                continue  # failed, and not within the window: it may be back in time
            # What runs stays, as does what is on a held host: whoever holds it decides.
            is_fixed = host is not None and (started or host not in self._sets[hosts])
            yield (
                identifier,
                allocation.number,
                max(lease.start_ns, now_ns) / 1e9,
                lease.end_ns / 1e9,
                hosts,
                _demand(reservation),
                host,
                is_fixed,
                reservation.affinity,
                reservation.status is ReservationStatus.ACTIVE,
            )

    def _hosts(self, lease: Lease, reservation: Reservation) -> int:
        """The number of the set of hosts that will do; thousands of reservations share a few sets."""
        key = (
            reservation.resource_type,
            reservation.hypervisor_properties,
            reservation.resource_properties,
            _demand(reservation),
        )
        number = self._numbers.get(key)
        if number is None:
            query = CapacityQuery(self._book, lease.start_ns, lease.end_ns, self._context.now_ns)
            self._sets.append(frozenset(each.host for each in eligible_hosts(query, reservation)))
            number = self._numbers[key] = len(self._sets) - 1
        return number


def unpack(packed: PackedRequest) -> PlanRequest:
    """The request of its pieces. They are ours: made by this process, read by its worker."""
    hosts, sets, time_s, cleaning_s = pickle.loads(packed.head)
    rows: Iterator[_UnitRow] = (row for each in packed.slices for row in pickle.loads(each))
    units = tuple(
        PlanUnit(name, number, start_s, end_s, sets[hosts], demand, host, fixed, affinity, running)
        for name, number, start_s, end_s, hosts, demand, host, fixed, affinity, running in rows
    )
    return PlanRequest(tuple(PlanHost(*each) for each in hosts), units, time_s, cleaning_s)


def _demand(reservation: Reservation) -> Demand | None:
    if reservation.resource_type is ResourceType.HOST:
        return None
    return reservation.vcpus, reservation.memory_mb, reservation.disk_gb


def plan_in_worker(packed: PackedRequest) -> Plan:
    """The planner, in a process where nobody waits for the event loop.

    Of all places only those of units that had none come back: the rest is in the moves.
    """
    request = unpack(packed)
    found = planner.plan(request, time.monotonic)
    needing = {unit.key for unit in request.units if unit.host is None}
    return replace(found, places={key: host for key, host in found.places.items() if key in needing})
