"""Bodies and answers of our own API of leases.

Names are Blazar's where Blazar has one (`min`, `max`, `physical:host`, the three flags); times are ISO 8601
with a zone.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, Field

from homeostat.contracts.nouns import OWNER, HostId
from homeostat.kernel.clock import iso
from homeostat.kernel.errors import BadInput
from homeostat.kernel.http import StrictBody, Text, view_from
from homeostat.leases.book import LeaseBook
from homeostat.leases.booking import ReservationRequest
from homeostat.leases.lease_update import ReservationUpdate
from homeostat.leases.model import (
    Allocation,
    Lease,
    LeaseEventType,
    LeaseId,
    LeaseStatus,
    ReservableHost,
    Reservation,
    ReservationStatus,
    ResourceType,
    missing_resources,
)

_AMOUNT_MAX = 100_000
_SIZE_MAX = 10**9

LeaseName = Annotated[Text, Field(min_length=1, max_length=255)]
Requirements = Annotated[Text, Field(max_length=4000)]
Amount = Annotated[int, Field(ge=1, le=_AMOUNT_MAX)]
Size = Annotated[int, Field(ge=0, le=_SIZE_MAX)]


class ReservationBody(StrictBody):
    """One thing to reserve. Of a physical:host `min` to `max` hosts; of a virtual:instance `amount` slots.

    A slot has `vcpus`, `memory_mb` and `disk_gb`. `affinity` true: all on one host, false: each on another.
    The two texts of properties are requirements in Blazar's language.
    """

    resource_type: ResourceType = ResourceType.HOST
    min: Amount | None = None
    max: Amount | None = None
    hypervisor_properties: Requirements = ""
    resource_properties: Requirements = ""
    amount: Amount | None = None
    vcpus: Size | None = None
    memory_mb: Size | None = None
    disk_gb: Size | None = None
    affinity: bool | None = None


class LeaseBody(StrictBody):
    """A lease. Without `starts_at` it starts now. It ends at `ends_at` or `for_s` seconds after its start.

    `before_end_at`: when its owner is reminded. `project`: administrators only; others lease for their own.
    """

    name: LeaseName
    project: Annotated[str, Field(pattern=OWNER)] | None = None
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    for_s: Annotated[float, Field(gt=0, le=3650 * 86_400)] | None = None
    before_end_at: AwareDatetime | None = None
    reservations: Annotated[list[ReservationBody], Field(min_length=1, max_length=100)]


class ReservationChange(StrictBody):
    """What a reservation of the lease asks for from now on; what is absent stays."""

    id: Annotated[Text, Field(max_length=63)]
    min: Amount | None = None
    max: Amount | None = None
    hypervisor_properties: Requirements | None = None
    resource_properties: Requirements | None = None
    amount: Amount | None = None
    vcpus: Size | None = None
    memory_mb: Size | None = None
    disk_gb: Size | None = None


class LeaseChangeBody(StrictBody):
    """What becomes of a lease; what is absent stays. All of it happens, or nothing."""

    name: LeaseName | None = None
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    before_end_at: AwareDatetime | None = None
    reservations: Annotated[list[ReservationChange], Field(max_length=100, default_factory=list)]


class LeaseHealth(StrEnum):
    """How a lease stands: the worst of its reservations. Failed: it runs on a host that does not work, until
    healing has looked at it."""

    OK = "ok"
    CHANGED = "changed"
    FAILED = "failed"
    MISSING = "missing"


class Outlook(StrEnum):
    """What would become of a lease if one host failed now. Unknown: not computed yet."""

    SAFE = "safe"
    AT_RISK = "at_risk"
    UNKNOWN = "unknown"


class AllocationView(BaseModel):
    """A place of a reservation; `host` null: it is missing. `reason`: why it is there, or is not."""

    number: int
    host: str | None
    since_at: str
    reason: str


class ReservationView(BaseModel):
    """A reservation with Blazar's two flags and its places."""

    id: str
    resource_type: ResourceType
    status: ReservationStatus
    min: int
    max: int
    hypervisor_properties: str
    resource_properties: str
    amount: int
    vcpus: int
    memory_mb: int
    disk_gb: int
    affinity: bool | None
    missing_resources: bool
    resources_changed: bool
    moved_at: str | None
    acknowledged_at: str | None
    allocations: list[AllocationView]


class LeaseView(BaseModel):
    """A lease. `degraded` is Blazar's flag; `reason` says why, as the last change did.

    `outlook`: what would become of it if one host failed, and why. `failed_hosts` have failed already, and
    were not replaced yet.
    """

    id: str
    name: str
    project: str
    user: str
    status: LeaseStatus
    degraded: bool
    health: LeaseHealth
    reason: str
    outlook: Outlook
    outlook_reason: str
    starts_at: str
    ends_at: str
    before_end_at: str | None
    created_at: str
    updated_at: str
    ended_at: str | None
    hosts: list[str]
    failed_hosts: list[str]
    missing: int
    reservations: list[ReservationView]


class LeaseList(BaseModel):
    """By their starts."""

    items: list[LeaseView]


class HoldView(BaseModel):
    """A person keeps monitors and new reservations from a host."""

    reason: str
    until_at: str | None
    by: str


class LeaseHostView(BaseModel):
    """A host that may be reserved. `number` is its id at Blazar's API.

    `reservable` and `failed` are what monitors say; with neither nobody knows, and nothing is moved.
    `leases` counts those that are not over; `at_risk` names those that could not be healed if it failed.
    """

    host: str
    number: int
    reservable: bool
    failed: bool
    reason: str
    since_at: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    architecture: str
    hold: HoldView | None
    properties: dict[str, str]
    leases: int
    at_risk: list[str]


def reservation_request(body: ReservationBody, field: str) -> ReservationRequest:
    """What is asked for. BadInput names what does not belong to this type."""
    is_host = body.resource_type is ResourceType.HOST
    foreign = ("amount", "vcpus", "memory_mb", "disk_gb", "affinity") if is_host else ("min", "max")
    for name in foreign:
        if getattr(body, name) is not None:
            raise BadInput(
                f"{field}.{name}",
                getattr(body, name),
                f"nothing: {body.resource_type.value} has no such field",
            )
    if is_host:
        least = body.min or 1
        most = least if body.max is None else body.max
        if most < least:
            raise BadInput(f"{field}.max", most, f"at least min, which is {least}")
        return ReservationRequest(
            body.resource_type, least, most, body.hypervisor_properties, body.resource_properties
        )
    for name in ("amount", "vcpus", "memory_mb"):
        if not getattr(body, name):
            raise BadInput(f"{field}.{name}", getattr(body, name), "1 or more for a virtual:instance")
    amount = body.amount or 0
    return ReservationRequest(
        body.resource_type,
        amount,
        amount,
        hypervisor_properties=body.hypervisor_properties,
        resource_properties=body.resource_properties,
        amount=amount,
        vcpus=body.vcpus or 0,
        memory_mb=body.memory_mb or 0,
        disk_gb=body.disk_gb or 0,
        affinity=body.affinity,
    )


_NAMES_OF_TYPE = {
    ResourceType.HOST: ("min", "max"),
    ResourceType.INSTANCE: ("amount", "vcpus", "memory_mb", "disk_gb"),
}


def reservation_update(body: ReservationChange, row: Reservation, field: str) -> ReservationUpdate:
    """What changes of this reservation. BadInput for what its type does not have, or max below min."""
    for kind, names in _NAMES_OF_TYPE.items():
        for name in names:
            value = getattr(body, name)
            if value is not None and row.resource_type is not kind:
                raise BadInput(
                    f"{field}.{name}", value, f"nothing: {row.resource_type.value} has no such field"
                )
    least = row.minimum if body.min is None else body.min
    most = row.maximum if body.max is None else body.max
    if row.resource_type is ResourceType.HOST and most < least:
        raise BadInput(f"{field}.max", most, f"at least min, which is {least}")
    return ReservationUpdate(
        minimum=body.min or body.amount,  # of slots all are booked, or none
        maximum=body.max or body.amount,
        hypervisor_properties=body.hypervisor_properties,
        resource_properties=body.resource_properties,
        amount=body.amount,
        vcpus=body.vcpus,
        memory_mb=body.memory_mb,
        disk_gb=body.disk_gb,
    )


def _iso_or_none(at_ns: int | None) -> str | None:
    return None if at_ns is None else iso(at_ns)


def lease_view(book: LeaseBook, row: Lease, outlook: Outlook, outlook_reason: str) -> LeaseView:
    """The lease as its owner sees it."""
    reservations = book.reservations_of(row.id)
    places = [each for reservation in reservations for each in book.allocations_of(reservation.id)]
    missing = [each for each in places if each.host is None]
    is_changed = any(each.resources_changed for each in reservations)
    failed = failed_hosts(book, row.id)
    reminder = next(
        (each.time_ns for each in book.events_of(row.id) if each.event_type is LeaseEventType.BEFORE_END),
        None,
    )
    return view_from(
        LeaseView,
        row,
        degraded=book.is_degraded(row.id),
        health=_health(row, missing=bool(missing), failed=bool(failed), changed=is_changed),
        reason=_last_reason(missing or [each for each in places if each.reason]),
        outlook=outlook,
        outlook_reason=outlook_reason,
        starts_at=iso(row.start_ns),
        ends_at=iso(row.end_ns),
        before_end_at=_iso_or_none(reminder),
        created_at=iso(row.created_ns),
        updated_at=iso(row.updated_ns),
        ended_at=_iso_or_none(row.ended_ns),
        hosts=_in_order(book, {each.host for each in places if each.host is not None}),
        failed_hosts=failed,
        missing=len(missing),
        reservations=[_reservation_view(book, each) for each in reservations],
    )


def _health(row: Lease, *, missing: bool, failed: bool, changed: bool) -> LeaseHealth:
    if missing:
        return LeaseHealth.MISSING
    if failed and row.status is not LeaseStatus.PENDING:
        return LeaseHealth.FAILED
    return LeaseHealth.CHANGED if changed else LeaseHealth.OK


def _in_order(book: LeaseBook, hosts: set[HostId]) -> list[HostId]:
    """As they were added; h10 is behind h9. One that was removed since is last."""
    numbers = {host: row.number for host, row in book.hosts.items()}
    return sorted(hosts, key=lambda host: (numbers.get(host, len(numbers) + 1), host))


def failed_hosts(book: LeaseBook, lease: LeaseId) -> list[HostId]:
    """Those of its hosts that do not work; they are replaced when it runs or its start is near."""
    found = (each.host for row in book.reservations_of(lease) for each in book.allocations_of(row.id))
    lost = {host for host in found if host in book.hosts and book.hosts[host].failed}
    return _in_order(book, lost) if lease in book.leases and book.leases[lease].is_open else []


def unknown_hosts(book: LeaseBook, lease: LeaseId) -> list[HostId]:
    """Those of its hosts of which nobody knows whether they work."""
    found = (each.host for row in book.reservations_of(lease) for each in book.allocations_of(row.id))
    rows = (book.hosts[host] for host in found if host in book.hosts)
    return _in_order(book, {row.host for row in rows if not row.reservable and not row.failed})


def _last_reason(places: Iterable[Allocation]) -> str:
    found = max(places, key=lambda each: each.since_ns, default=None)
    return "" if found is None else found.reason


def _reservation_view(book: LeaseBook, row: Reservation) -> ReservationView:
    places = book.allocations_of(row.id)
    return view_from(
        ReservationView,
        row,
        min=row.minimum,
        max=row.maximum,
        missing_resources=missing_resources(places),
        moved_at=_iso_or_none(row.moved_ns),
        acknowledged_at=_iso_or_none(row.acknowledged_ns),
        allocations=[view_from(AllocationView, each, since_at=iso(each.since_ns)) for each in places],
    )


def host_view(book: LeaseBook, row: ReservableHost, now_ns: int, at_risk: Iterable[str]) -> LeaseHostView:
    """The host as administrators see it."""
    hold = row.hold_at(now_ns)
    return view_from(
        LeaseHostView,
        row,
        since_at=iso(row.since_ns),
        hold=None if hold is None else view_from(HoldView, hold, until_at=_iso_or_none(hold.until_ns)),
        properties=dict(row.extra),
        leases=len({each.lease.id for each in book.on_host(row.host)}),
        at_risk=sorted(at_risk),
    )
