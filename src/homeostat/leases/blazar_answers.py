"""The answers of Blazar's API v1: records of ours as Blazar shows them.

Pure. Dates are `YYYY-MM-DDTHH:MM:SS.ffffff`, in UTC. Every field that Blazar has is there, so that no client
misses one; `health.reason` is ours, in the words of whoever found it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from homeostat.leases.book import LeaseBook, Occupancy
from homeostat.leases.capacity import host_facts
from homeostat.leases.model import Lease, LeaseEvent, ReservableHost, Reservation, ResourceType

SIZES = ("amount", "vcpus", "memory_mb", "disk_gb")
"""The numbers of a virtual:instance."""
_SHOWN_FORMAT = "%Y-%m-%dT%H:%M:%S.%f"

HOST_FACTS = (
    "id",
    "name",
    "vcpus",
    "cpu_info",
    "architecture",
    "hypervisor_type",
    "hypervisor_version",
    "hypervisor_hostname",
    "service_name",
    "memory_mb",
    "local_gb",
    "status",
    "availability_zone",
    "trust_id",
    "reservable",
    "health",
    "created_at",
    "updated_at",
)
"""Names in the body of a host that no extra property may have."""


def show_lease(book: LeaseBook, lease: Lease) -> dict[str, object]:
    return {
        "id": lease.id,
        "name": lease.name,
        "user_id": lease.user,
        "project_id": lease.project,
        "start_date": date(lease.start_ns),
        "end_date": date(lease.end_ns),
        "status": lease.status.value,
        "degraded": book.is_degraded(lease.id),
        "trust_id": None,
        "created_at": _stamp(lease.created_ns),
        "updated_at": _stamp(lease.updated_ns),
        "reservations": [_show_reservation(book, lease, each) for each in book.reservations_of(lease.id)],
        "events": [_show_event(each) for each in book.events_of(lease.id)],
    }


def _show_reservation(book: LeaseBook, lease: Lease, reservation: Reservation) -> dict[str, object]:
    allocations = book.allocations_of(reservation.id)
    lost = sorted({each.reason for each in allocations if each.host is None and each.reason})
    shown: dict[str, object] = {
        "id": reservation.id,
        "lease_id": lease.id,
        "resource_id": reservation.id,
        "resource_type": reservation.resource_type.value,
        "status": reservation.status.value,
        "missing_resources": book.is_missing(reservation.id),
        "resources_changed": reservation.resources_changed,
        "health": {"reason": "; ".join(lost)},
        "resource_properties": reservation.resource_properties,
        "created_at": _stamp(lease.created_ns),
        "updated_at": _stamp(lease.updated_ns),
    }
    if reservation.resource_type is ResourceType.HOST:
        return shown | {
            "min": reservation.minimum,
            "max": reservation.maximum,
            "hypervisor_properties": reservation.hypervisor_properties,
            "before_end": reservation.before_end,
        }
    sizes: dict[str, object] = {name: getattr(reservation, name) for name in SIZES}
    nova = dict.fromkeys(("flavor_id", "aggregate_id", "server_group_id"))
    return shown | sizes | nova | {"affinity": reservation.affinity}


def _show_event(event: LeaseEvent) -> dict[str, object]:
    return {
        "id": event.id,
        "lease_id": event.lease,
        "event_type": event.event_type.value,
        "time": date(event.time_ns),
        "status": event.status.value,
        "created_at": None,
        "updated_at": None,
    }


def show_host(host: ReservableHost, now_ns: int) -> dict[str, object]:
    hold = host.hold_at(now_ns)
    said = [host.reason, "" if hold is None else f"held by {hold.by}: {hold.reason}"]
    blazar: dict[str, object] = {
        "hypervisor_version": 1,
        "availability_zone": "",
        "status": None,
        "trust_id": None,
        "reservable": host.may_be_booked(now_ns),
        "health": {"reason": "; ".join(each for each in said if each)},
        "created_at": None,
        "updated_at": None,
    }
    return {**host_facts(host), **blazar}


def show_allocations(host: ReservableHost, found: Iterable[Occupancy]) -> dict[str, object]:
    """A host with the reservations on it, each once, the earliest first."""
    rows = {each.reservation.id: each.lease for each in sorted(found, key=lambda each: each.start_ns)}
    return {
        "resource_id": str(host.number),
        "reservations": [
            {
                "id": reservation,
                "lease_id": lease.id,
                "start_date": date(lease.start_ns),
                "end_date": date(lease.end_ns),
            }
            for reservation, lease in rows.items()
        ],
    }


def show_properties(
    hosts: Iterable[ReservableHost], is_private: Callable[[str], bool], *, detail: bool, everything: bool
) -> list[dict[str, object]]:
    """The extra properties that hosts have, by name; private ones only with `everything`."""
    values: dict[str, set[str]] = {}
    for host in hosts:
        for name, value in host.extra.items():
            values.setdefault(name, set()).add(value)
    shown = [name for name in sorted(values) if everything or not is_private(name)]
    if not detail:
        return [{"property": name} for name in shown]
    return [{"property": name, "private": is_private(name), "values": sorted(values[name])} for name in shown]


def show_property(name: str, private: bool) -> dict[str, object]:
    return {"id": name, "resource_type": ResourceType.HOST.value, "property_name": name, "private": private}


def date(at_ns: int) -> str:
    seconds, rest_ns = divmod(at_ns, 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000).strftime(_SHOWN_FORMAT)


def _stamp(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")
