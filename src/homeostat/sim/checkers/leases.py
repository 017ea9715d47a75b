"""Invariants of leases. I8: reservations of one host never overlap.

A whole host is one reservation's within its window; slots of instances share a host as far as it is large.
Read from the published events alone, in which each placement has the whole state of its reservation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from homeostat.contracts.component import Violation
from homeostat.contracts.events import leases as events
from homeostat.contracts.nouns import HostId
from homeostat.sim.checkers.evidence import CheckerEvidence

WHOLE_HOST = "physical:host"
NO_OVERLAP = "I8 reservations of one host never overlap"

Capacity = tuple[int, int, int]
"""Cores, memory in MB, disk in GB."""


def check_no_overlap(evidence: CheckerEvidence) -> Iterator[Violation]:
    """I8, at every event that placed a reservation."""
    placed: dict[str, events.ReservationPlaced] = {}
    on_host: dict[HostId, set[str]] = defaultdict(set)
    sizes: dict[HostId, Capacity] = {}
    for each in evidence.record.events:
        match each.event:
            case events.HostCapacityNoted() as noted:
                sizes[noted.host] = noted.vcpus, noted.memory_mb, noted.disk_gb
            case events.ReservationPlaced() as event:
                _forget(event.reservation, placed, on_host)
                placed[event.reservation] = event
                for host in sorted({place.host for place in event.places if place.host is not None}):
                    on_host[host].add(event.reservation)
                    there = [placed[name] for name in sorted(on_host[host])]
                    if said := overlap(host, event, there, sizes.get(host)):
                        yield Violation(NO_OVERLAP, f"host {host}", f"event {each.seq}: {said}")
            case events.ReservationReleased() as event:
                _forget(event.reservation, placed, on_host)


def _forget(
    reservation: str, placed: dict[str, events.ReservationPlaced], on_host: dict[HostId, set[str]]
) -> None:
    before = placed.pop(reservation, None)
    for place in () if before is None else before.places:
        if place.host is not None:
            on_host[place.host].discard(reservation)


def overlap(
    host: HostId,
    event: events.ReservationPlaced,
    there: Sequence[events.ReservationPlaced],
    size: Capacity | None,
) -> str:
    """What is promised twice by this placement, in words; empty when nothing is."""
    others = [
        each
        for each in there
        if each.start_ns < event.end_ns
        and event.start_ns < each.end_ns
        and each.reservation != event.reservation
    ]
    for each in others:
        if WHOLE_HOST in (each.resource_type, event.resource_type):
            return f"reservations {each.reservation} and {event.reservation} both have it"
    if event.resource_type == WHOLE_HOST:
        count = sum(place.host == host for place in event.places)
        return f"reservation {event.reservation} has it {count} times" if count > 1 else ""
    moments = [event.start_ns, *(each.start_ns for each in others if each.start_ns > event.start_ns)]
    for at_ns in moments if size is not None else ():
        used = _used(host, [event, *(each for each in others if each.start_ns <= at_ns < each.end_ns)])
        if size is not None and any(one > most for one, most in zip(used, size, strict=True)):
            return f"instances need {used} of {size} (cores, MB of memory, GB of disk)"
    return ""


def _used(host: HostId, there: Sequence[events.ReservationPlaced]) -> Capacity:
    vcpus = memory_mb = disk_gb = 0
    for each in there:
        count = sum(place.host == host for place in each.places)
        vcpus += count * each.vcpus
        memory_mb += count * each.memory_mb
        disk_gb += count * each.disk_gb
    return vcpus, memory_mb, disk_gb
